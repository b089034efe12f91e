// A store in a directory of its own, and short verbs: what posd and a runner
// do for one checkpoint.
#ifndef TESTS_CKPT_STORE_STORE_FIXTURE_H_
#define TESTS_CKPT_STORE_STORE_FIXTURE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ckpt/pack/session_writer.h"
#include "ckpt/store/draft.h"
#include "ckpt/store/image.h"
#include "ckpt/store/store.h"
#include "tests/ckpt/pack/session_fixture.h"

namespace pos::ckpt {

constexpr std::uint32_t kTestChunk = 64u << 10;
constexpr uid_t kAlice = 1001;
constexpr uid_t kBob = 1002;

inline StoreOptions TestOptions() {
  StoreOptions options;
  options.chunk_bytes = kTestChunk;
  options.close_wait_ms = 50;
  return options;
}

inline PackWriterOptions RunnerOptions() {
  PackWriterOptions options;
  options.pool_bytes = 12 * kTestChunk;
  options.threads = 1;
  return options;
}

// What the runner of one session does: device memory at 0, a blob "graph".
inline Result<PackTotals> RunSession(SessionFiles files, const Bytes& memory) {
  POS_ASSIGN_OR_RETURN(
      std::unique_ptr<SessionWriter> writer,
      SessionWriter::Create(std::move(files), RunnerOptions()));
  BlobWriter blob(&writer->packs());
  POS_RETURN_IF_ERROR(blob.Append(Noise(100, memory.size())));
  POS_ASSIGN_OR_RETURN(const Blob graph, blob.Finish());
  POS_RETURN_IF_ERROR(WriteRegion(writer.get(), 0, memory, kTestChunk));
  POS_RETURN_IF_ERROR(writer->AddBlob("graph", graph));
  return writer->Finish();
}

inline Manifest JobManifest(const std::string& job,
                            const std::vector<std::uint32_t>& sessions) {
  Manifest manifest;
  manifest.mode = CheckpointMode::kCow;
  manifest.job.name = job;
  manifest.job.argv = {"python3", "train.py"};
  for (const std::uint32_t number : sessions) {
    SessionRecord session;
    session.number = number;
    session.name = "s" + std::to_string(number);
    manifest.sessions.push_back(session);
  }
  return manifest;
}

// A whole checkpoint with one session; the image's id.
inline Result<std::string> Checkpoint(Store* store, const Bytes& memory,
                                      const std::string& job = "train",
                                      uid_t owner = kAlice,
                                      const std::string& tag = "",
                                      const std::string& series = "") {
  DraftOptions options;
  options.owner_uid = owner;
  options.job = job;
  POS_ASSIGN_OR_RETURN(std::unique_ptr<Draft> draft,
                       store->BeginImage(options));
  POS_ASSIGN_OR_RETURN(SessionFiles files, draft->AddSession(0));
  POS_RETURN_IF_ERROR(RunSession(std::move(files), memory).status());
  POS_ASSIGN_OR_RETURN(const std::string criu, draft->MakeDirectory("criu"));
  POS_RETURN_IF_ERROR(
      ReplaceFile(criu + "/pages-1.img", std::string(5000, 'p') + job));
  POS_RETURN_IF_ERROR(ReplaceFile(criu + "/empty.img", ""));
  Manifest manifest = JobManifest(job, {0});
  manifest.tag = tag;
  if (!series.empty()) {
    manifest.attachments.push_back({kSeriesAttachment, series});
  }
  POS_ASSIGN_OR_RETURN(const Manifest sealed, draft->Seal(manifest));
  return sealed.image;
}

// What the runner of a restore does: the memory of session `number`.
inline Result<Bytes> Restore(const ImageHandle& image,
                             std::uint32_t number = 0) {
  POS_ASSIGN_OR_RETURN(SessionReadFiles files, image.OpenSession(number));
  PackSet packs;
  for (auto& [id, fd] : files.packs) {
    POS_RETURN_IF_ERROR(packs.Add(id, std::move(fd)));
  }
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<FdSource> source,
                       FdSource::Open(files.index.get(), "index"));
  POS_ASSIGN_OR_RETURN(std::unique_ptr<IndexReader> index,
                       IndexReader::Open(source.get(), "index"));
  ChunkStreamOptions options;
  options.pool_bytes = 6 * kTestChunk;
  auto content = ReadAll(std::move(index), packs, options);
  POS_RETURN_IF_ERROR(content.status());
  return std::move(content->at("0"));
}

inline Result<Bytes> Restore(Store* store, const std::string& image) {
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<ImageHandle> handle,
                       store->OpenImage(image, "test"));
  return Restore(*handle);
}

inline std::size_t CountFiles(const std::string& directory) {
  std::size_t count = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(directory)) {
    count += entry.is_regular_file() ? 1 : 0;
  }
  return count;
}

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() : dir_("store") { Reopen(); }

  void Reopen(const StoreOptions& options = TestOptions()) {
    store_.reset();
    auto store = Store::Open(dir_ / "images", options);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = std::move(*store);
  }
  std::string MustCheckpoint(const Bytes& memory,
                             const std::string& job = "train",
                             uid_t owner = kAlice,
                             const std::string& tag = "") {
    const auto image = Checkpoint(store_.get(), memory, job, owner, tag);
    EXPECT_TRUE(image.ok()) << image.status().ToString();
    return image.ok() ? *image : "";
  }
  void ExpectMemory(const std::string& image, const Bytes& memory) {
    const auto got = Restore(store_.get(), image);
    ASSERT_TRUE(got.ok()) << got.status().ToString();
    EXPECT_TRUE(*got == memory);
  }
  void ExpectIntact(const std::string& image) {
    const auto report = store_->Verify(image);
    ASSERT_TRUE(report.ok()) << report.status().ToString();
    EXPECT_EQ(report->problems, 0u) << report->first_problems[0];
  }
  std::string Path(const std::string& name) const {
    return store_->path() + "/" + name;
  }

  TestDir dir_;
  std::unique_ptr<Store> store_;
};

}  // namespace pos::ckpt

#endif  // TESTS_CKPT_STORE_STORE_FIXTURE_H_
