// One session written and read through the interfaces that a runner uses, on
// files of a directory.
#ifndef TESTS_CKPT_PACK_SESSION_FIXTURE_H_
#define TESTS_CKPT_PACK_SESSION_FIXTURE_H_

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ckpt/format/pack_header.h"
#include "ckpt/pack/chunk_stream.h"
#include "ckpt/pack/session_writer.h"
#include "pos/base/mutex.h"
#include "tests/ckpt/testing.h"

namespace pos::ckpt {

constexpr std::uint64_t kTestSeed = 4711;

// Collects ChunkRefs by cookie.
class RefTable final : public ChunkSink {
 public:
  void OnChunk(std::uint64_t cookie, const ChunkRef& ref) override {
    MutexLock lock(&mu_);
    refs_[cookie] = ref;
  }
  std::map<std::uint64_t, ChunkRef> Take() {
    MutexLock lock(&mu_);
    return std::move(refs_);
  }

 private:
  Mutex mu_;
  std::map<std::uint64_t, ChunkRef> refs_ POS_GUARDED_BY(mu_);
};

// The files of one session in a directory.
class TestSession {
 public:
  TestSession(std::string dir, std::uint32_t chunk_bytes,
              const std::string& name = "s")
      : dir_(std::move(dir)), name_(name), chunk_bytes_(chunk_bytes) {
    store_ = NewStoreId();
    pack_id_ = NewPackId();
  }
  [[nodiscard]] std::string pack_path() const {
    return JoinPath(dir_, name_ + ".pack");
  }
  [[nodiscard]] std::string index_path() const {
    return JoinPath(dir_, name_ + ".idx");
  }
  [[nodiscard]] const PackId& pack_id() const { return pack_id_; }

  SessionFiles MakeFiles(UniqueFd known = UniqueFd()) const {
    SessionFiles files;
    files.store = store_;
    files.session = 1;
    files.digest_seed = kTestSeed;
    files.chunk_bytes = chunk_bytes_;
    files.pack_id = pack_id_;
    files.pack = *OpenFile(pack_path(), O_RDWR | O_CREAT | O_TRUNC);
    files.index = *OpenFile(index_path(), O_RDWR | O_CREAT | O_TRUNC);
    files.known = std::move(known);
    PackHeader header;
    header.store = store_;
    header.pack = pack_id_;
    header.digest_seed = kTestSeed;
    EXPECT_TRUE(
        PwriteFull(files.pack.get(), EncodePackHeader(header), 0, "pack").ok());
    return files;
  }

  std::unique_ptr<SessionWriter> Writer(const PackWriterOptions& options,
                                        UniqueFd known = UniqueFd()) const {
    auto writer = SessionWriter::Create(MakeFiles(std::move(known)), options);
    EXPECT_TRUE(writer.ok()) << writer.status().ToString();
    return std::move(*writer);
  }

  // Opens the index; its source lives as long as this object.
  Result<std::unique_ptr<IndexReader>> Index() {
    POS_ASSIGN_OR_RETURN(index_fd_, OpenFile(index_path(), O_RDONLY));
    POS_ASSIGN_OR_RETURN(source_, FdSource::Open(index_fd_.get(), "index"));
    return IndexReader::Open(source_.get(), "index");
  }
  Status AddTo(PackSet* packs) const {
    POS_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(pack_path(), O_RDONLY));
    return packs->Add(pack_id_, std::move(fd));
  }

 private:
  const std::string dir_;
  const std::string name_;
  const std::uint32_t chunk_bytes_;
  StoreId store_;
  PackId pack_id_;
  UniqueFd index_fd_;
  std::unique_ptr<FdSource> source_;
};

// Writes `data` as one region of device memory, in chunks, all in flight at
// once; AddChunk in order afterwards.
inline Status WriteRegion(SessionWriter* session, std::uint64_t address,
                          const Bytes& data, std::uint32_t chunk_bytes) {
  const auto table = std::make_shared<RefTable>();
  for (std::size_t at = 0; at < data.size(); at += chunk_bytes) {
    const std::size_t n = std::min<std::size_t>(chunk_bytes, data.size() - at);
    POS_ASSIGN_OR_RETURN(Buffer buffer, session->packs().Acquire());
    std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(at), n,
                buffer.bytes().begin());
    session->packs().Submit(std::move(buffer), n, table, at);
  }
  POS_RETURN_IF_ERROR(session->packs().Flush());
  Region region;
  region.address = address;
  region.bytes = data.size();
  POS_RETURN_IF_ERROR(session->BeginRegion(region));
  for (const auto& [at, ref] : table->Take()) {
    POS_RETURN_IF_ERROR(session->AddChunk(ref));
  }
  return {};
}

// Every region's bytes by address (blobs by name), or the first error.
inline Result<std::map<std::string, Bytes>> ReadAll(
    std::unique_ptr<IndexReader> index, const PackSet& packs,
    const ChunkStreamOptions& options = {}) {
  POS_ASSIGN_OR_RETURN(std::unique_ptr<ChunkStream> stream,
                       ChunkStream::Open(std::move(index), &packs, options));
  std::map<std::string, Bytes> content;
  for (;;) {
    POS_ASSIGN_OR_RETURN(ChunkStream::Piece piece, stream->Next());
    if (piece.what == ChunkStream::Piece::What::kEnd) return content;
    const Region& region = *piece.region;
    Bytes& bytes = content[region.name.empty() ? std::to_string(region.address)
                                               : region.name];
    if (piece.what == ChunkStream::Piece::What::kRegion) continue;
    if (bytes.size() != piece.offset) return Internal("not in order");
    if (piece.what == ChunkStream::Piece::What::kZeros) {
      bytes.resize(bytes.size() + piece.bytes);
    } else {
      bytes.insert(bytes.end(), piece.data.begin(), piece.data.end());
    }
  }
}

}  // namespace pos::ckpt

#endif  // TESTS_CKPT_PACK_SESSION_FIXTURE_H_
