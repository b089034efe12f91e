// A blob: state of POS itself (handle graph, allocator, pending calls, module
// images) stored as chunks beside the session's memory, so that it streams, is
// checked, compressed and shared between images in the same way.
//
// Threads: one thread at a time per writer.
// Memory:  one buffer of the pack's pool, 48 bytes per chunk.
#ifndef CKPT_PACK_BLOB_H_
#define CKPT_PACK_BLOB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ckpt/format/chunk_index.h"
#include "ckpt/pack/pack_writer.h"
#include "pos/base/status.h"

namespace pos::ckpt {

// A blob that is written, waiting for its place in the index.
struct Blob {
  std::uint64_t bytes = 0;
  std::vector<ChunkRef> chunks;
};

class BlobWriter {
 public:
  // `packs` must outlive the writer.
  explicit BlobWriter(PackWriter* packs);
  ~BlobWriter();
  BlobWriter(const BlobWriter&) = delete;
  BlobWriter& operator=(const BlobWriter&) = delete;

  Status Append(std::span<const std::byte> data);
  // Waits until all of it has its place (everything submitted to the pack is
  // flushed).
  Result<Blob> Finish();

 private:
  class Sink;
  void SubmitBuffer();

  PackWriter* const packs_;
  std::shared_ptr<Sink> sink_;
  Buffer buffer_;
  std::size_t used_ = 0;  // bytes of buffer_
  std::uint64_t bytes_ = 0;
  std::uint64_t submitted_ = 0;
};

}  // namespace pos::ckpt

#endif  // CKPT_PACK_BLOB_H_
