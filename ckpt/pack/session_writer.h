// What a runner needs to write its session: the descriptors that posd opened
// for it, chunks in any order while it copies, then the index in order.
//
//   auto session = SessionWriter::Create(std::move(files), options);
//   session->packs().Acquire / Submit …        while copying, any thread
//   BlobWriter graph(&session->packs()); …     at the cut
//   session->BeginRegion(region); session->AddChunk(ref, rank); …
//   session->AddBlob("graph", blob); session->Finish();
//
// Threads: packs() as PackWriter says; the rest by one thread.
// Memory:  PackWriter's, and what an IndexWriter takes (400 KiB). The caller
//          keeps its ChunkRefs (56 bytes per chunk: 4 MiB for 141 GB).
//
// Test: tests/ckpt/pack/session_writer_test.cc
#ifndef CKPT_PACK_SESSION_WRITER_H_
#define CKPT_PACK_SESSION_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ckpt/format/chunk_index.h"
#include "ckpt/format/id.h"
#include "ckpt/pack/blob.h"
#include "ckpt/pack/pack_writer.h"
#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos::ckpt {

// What posd gives a runner: three descriptors and the numbers that belong to
// them (they fit a control message).
struct SessionFiles {
  StoreId store;
  std::uint32_t session = 0;
  std::uint64_t digest_seed = 0;
  std::uint32_t chunk_bytes = 0;
  PackId pack_id;
  UniqueFd pack;   // read-write, holds its header
  UniqueFd index;  // read-write, empty
  UniqueFd known;  // read-only table of known chunks; may be none
};

class SessionWriter {
 public:
  // `options`: digest_seed, chunk_bytes and known come from `files`.
  static Result<std::unique_ptr<SessionWriter>> Create(
      SessionFiles files, PackWriterOptions options);

  [[nodiscard]] PackWriter& packs() { return *packs_; }

  // Regions in ascending order of (kind, device, address, name); chunks of a
  // region in ascending order, without gap. See IndexWriter.
  Status BeginRegion(const Region& region);
  Status AddChunk(const ChunkRef& ref, std::uint32_t rank = 0);
  Status AddZeros(std::uint64_t bytes);
  // A region of kind kBlob.
  Status AddBlob(const std::string& name, const Blob& blob);

  // Everything on the disk, descriptors closed. Nothing may be called
  // afterwards.
  Result<PackTotals> Finish();

 private:
  SessionWriter() = default;

  std::unique_ptr<PackWriter> packs_;
  UniqueFd index_fd_;
  std::unique_ptr<IndexWriter> index_;
  // Pack number in ChunkRefs -> id, and -> number in the index (assigned when
  // first used, so that the index names only what it needs).
  std::vector<PackId> pack_ids_;
  std::vector<std::int64_t> index_numbers_;
  std::int64_t next_number_ = 0;
};

}  // namespace pos::ckpt

#endif  // CKPT_PACK_SESSION_WRITER_H_
