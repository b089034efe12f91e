// Writes one session of an imported image: regions and chunks come in the order
// of an index and are cut into chunks of this store's size, digested with its
// seed, and written as a checkpoint would.
//
// Threads: one.
// Memory:  a PackWriter's, two chunks, and up to kBatch chunks' places.
// Errors:  kCorrupt for what breaks a rule of the format or a digest; of the
//          disk.
//
// Test: tests/ckpt/store/export_test.cc
#ifndef CKPT_STORE_IMPORT_SESSION_H_
#define CKPT_STORE_IMPORT_SESSION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "ckpt/pack/session_writer.h"
#include "ckpt/store/export_format.h"
#include "pos/base/status.h"

namespace pos::ckpt {

class SessionImport {
 public:
  // `source_seed`, `source_chunk_bytes`: of the store that it comes from.
  static Result<std::unique_ptr<SessionImport>> Create(
      SessionFiles files, std::uint64_t source_seed,
      std::uint32_t source_chunk_bytes);

  Status OnRegion(const Region& region);
  Status OnChunk(const ExportChunk& chunk);
  // Stored bytes of the latest chunk, piece by piece.
  Status OnData(std::span<const std::byte> data);
  // Everything on the disk, descriptors closed.
  Status Finish();

 private:
  class Sink;
  static constexpr std::size_t kBatch = 16384;
  // What goes into the index once the pack has taken everything before it.
  struct Step {
    enum class What { kRegion, kZeros, kChunk };
    What what = What::kChunk;
    Region region;
    std::uint64_t value = 0;  // kZeros: bytes; kChunk: number in the batch
    std::uint32_t rank = 0;
  };

  SessionImport(std::uint64_t source_seed, std::uint32_t source_chunk_bytes)
      : source_key_(source_seed), source_chunk_bytes_(source_chunk_bytes) {}
  Status Unpack();
  Status AddMemory(std::span<const std::byte> memory);
  Status AddZeros(std::uint64_t bytes);
  Status SubmitBuffer();
  Status AddStep(Step step);
  Status WriteBatch();
  Status EndRegion();

  const DigestKey source_key_;
  const std::uint32_t source_chunk_bytes_;
  std::unique_ptr<SessionWriter> writer_;
  std::uint32_t chunk_bytes_ = 0;
  std::optional<Region> region_;
  std::uint64_t covered_ = 0;         // of region_
  std::optional<ExportChunk> chunk_;  // whose data is not complete
  std::vector<std::byte> stored_;
  std::vector<std::byte> unpacked_;
  Decompressor decompressor_;
  Buffer buffer_;  // the chunk of this store that is being filled
  std::size_t used_ = 0;
  std::uint32_t rank_ = 0;
  std::vector<Step> steps_;
  std::shared_ptr<Sink> sink_;
  std::size_t submitted_ = 0;  // of the batch
};

}  // namespace pos::ckpt

#endif  // CKPT_STORE_IMPORT_SESSION_H_
