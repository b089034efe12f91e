// Device-side malloc and free over one range of device memory.
//
// All state lies in the range itself, so that a checkpoint which saves the
// range saves the heap. A kernel can overwrite it, as on a GPU: every step
// therefore checks what it reads against the range, and a damaged heap makes
// Malloc return 0, never an access outside.
//
// Layout: a head, then chunks back to back, each with a 16-byte header {u64
// bytes of the whole chunk, u64 state}. First fit from a roving position;
// neighbours are merged while searching.
// Threads: any; a short spin lock outside the range. Costs one step per chunk.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_ENGINE_HEAP_H_
#define POS_CUDA_IMPL_DEVICE_SIM_ENGINE_HEAP_H_

#include <cstdint>

#include "pos/base/mutex.h"

namespace pos::sim {

class DeviceHeap {
 public:
  // {0, 0}: none. A range that holds a heap already is taken over as it is;
  // zeros become an empty heap.
  void SetRange(std::uint64_t address, std::uint64_t bytes);
  [[nodiscard]] bool has_range();
  // 16-byte aligned; 0 when full, damaged or without a range.
  std::uint64_t Malloc(std::uint64_t bytes);
  // False when `address` is not what Malloc returned.
  bool Free(std::uint64_t address);

 private:
  struct Head;
  struct Chunk;
  [[nodiscard]] Chunk* At(std::uint64_t offset) const POS_REQUIRES(mu_);
  Chunk* TakeFirstFit(std::uint64_t need, std::uint64_t from, std::uint64_t to)
      POS_REQUIRES(mu_);
  bool EnsureFormatted() POS_REQUIRES(mu_);

  Mutex mu_;
  std::uint64_t base_ POS_GUARDED_BY(mu_) = 0;
  std::uint64_t bytes_ POS_GUARDED_BY(mu_) = 0;
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_ENGINE_HEAP_H_
