// The chunks of a session's device memory at one instant: where each lies, what
// it held at the cut, and what of it has been copied to the pack.
//
// A chunk's copy is known by the digest of the very bytes that went to the
// pack. Comparing that with a digest of the memory is what proves an image.
//
// Threads:  OnChunk: the pack writer's. Everything else: one at a time, and
//           what OnChunk writes (copied, ref) only after PackWriter::Flush.
// Memory:   about 130 bytes a chunk.
#ifndef CKPT_ENGINE_CHUNK_TABLE_H_
#define CKPT_ENGINE_CHUNK_TABLE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "ckpt/pack/pack_writer.h"
#include "ckpt/pack/session_writer.h"
#include "pos/base/status.h"
#include "pos/device/device.h"
#include "pos/runner/session.h"

namespace pos::ckpt {

enum class ChunkState : std::uint8_t {
  kDone,        // nothing is left to be done with it
  kLive,        // still to be copied from where it lies
  kPreserving,  // being copied to `shadow` on the device
  kShadow,      // is in `shadow`; the memory itself may change
  kCopying,     // being copied to the host from where it lies
  kCopyingShadow,
};

struct Chunk {
  DeviceAddress address = 0;
  std::uint32_t bytes = 0;
  std::int16_t device = 0;
  ChunkState state = ChunkState::kDone;
  // Recopy: it may have been written since it was copied.
  bool dirty = false;
  // A call waits for it.
  bool urgent = false;
  // `cut` is what the copy has to be.
  bool proven = false;
  // `ref` is there.
  bool copied = false;
  // The device does not let anybody use it now: copied only while the session
  // is paused.
  bool hidden = false;
  DeviceAddress shadow = 0;
  Digest cut;  // of the memory at the cut
  ChunkRef ref;
};

class ChunkTable : public ChunkSink {
 public:
  enum class Scope : std::uint8_t {
    kAll,     // the devices are idle
    kStaying  // without what a call that the devices have will take away
  };
  // The memory that the session has now, with the copies that `before` (or
  // null) holds of the same chunks; those that are not taken over are given up
  // in `writer`. The session is paused; `before` has all its results.
  static std::shared_ptr<ChunkTable> Make(Session* session, Scope scope,
                                          std::uint32_t chunk_bytes,
                                          PackWriter* writer,
                                          const ChunkTable* before);

  [[nodiscard]] std::vector<Chunk>& chunks() { return chunks_; }
  // Chunks that touch [address, address + bytes): first and past the last.
  // Ascending by address.
  [[nodiscard]] std::pair<std::size_t, std::size_t> Find(
      DeviceAddress address, std::uint64_t bytes) const;
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  // Digests of the memory as it is now, in Chunk::cut; of chunks that are
  // written meanwhile they may be anything. Not on the worker's thread. Blocks
  // as long as reading takes.
  Status DigestAll(Session* session, const std::atomic<bool>* cancel);
  Status DigestSome(Session* session, std::span<const std::size_t> which,
                    const std::atomic<bool>* cancel);
  // A chunk whose content is known by its digest: zeros, or in the store. True
  // when it needs no copy.
  bool Adopt(Chunk* chunk);
  // `buffer` holds the bytes of chunk `index`.
  void Submit(std::size_t index, Buffer buffer);
  void OnChunk(std::uint64_t cookie, const ChunkRef& ref) override;

  // Chunks whose copy was not what the cut had.
  [[nodiscard]] std::uint64_t unforeseen() const {
    return unforeseen_.load(std::memory_order_acquire);
  }
  // Every chunk has a copy, and where it is proven the right one.
  [[nodiscard]] Status CheckComplete() const;
  // `ranks`: order of last use of the regions, by address (use_order.h).
  Status Write(SessionWriter* writer,
               const std::map<std::uint64_t, std::uint32_t>& ranks) const;

 private:
  struct Part {
    Region region;
    std::size_t first = 0;
    std::size_t count = 0;
  };
  explicit ChunkTable(PackWriter* writer) : writer_(writer) {}

  PackWriter* const writer_;
  std::weak_ptr<ChunkTable> self_;
  std::vector<Part> parts_;
  std::vector<Chunk> chunks_;
  std::map<std::uint32_t, Digest> zeros_;  // by length
  std::uint64_t bytes_ = 0;
  std::atomic<std::uint64_t> unforeseen_{0};
};

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_CHUNK_TABLE_H_
