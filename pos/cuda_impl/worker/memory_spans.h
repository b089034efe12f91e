// The session's device memory by address: what a pointer leads to, and at which
// other addresses the same memory is mapped.
//
// Threads: the worker's.
#ifndef POS_CUDA_IMPL_WORKER_MEMORY_SPANS_H_
#define POS_CUDA_IMPL_WORKER_MEMORY_SPANS_H_

#include <cstdint>
#include <vector>

#include "pos/cuda_impl/parser/session_state.h"
#include "pos/cuda_impl/worker/worker_memory.h"
#include "pos/graph/handle_graph.h"
#include "pos/worker/memory_watch.h"

namespace pos::cuda {

class MemorySpans {
 public:
  // `memory` outlives this.
  MemorySpans(const ArenaLayout& layout, const WorkerMemory* memory)
      : layout_(layout), memory_(memory) {}

  // The living allocation that `address` lies in, whole; bytes 0: none. Memory
  // that the client maps itself: all that is mapped next to each other, since
  // programs grow an array by mapping more behind it.
  [[nodiscard]] MemoryRange Allocation(DeviceAddress address) const;
  // Adds what of [address, address + bytes) is device memory; the rest is
  // host memory, or nothing.
  void AddDevicePart(DeviceAddress address, std::uint64_t bytes,
                     std::vector<MemoryRange>* ranges) const;
  // Adds the other addresses of what lies in `*ranges` and is mapped more than
  // once.
  void AddAliases(std::vector<MemoryRange>* ranges) const;

 private:
  struct Mapping {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    HandleId physical = 0;
  };
  // Computes what is below anew when mappings have changed.
  void Refresh() const;

  const ArenaLayout layout_;
  const WorkerMemory* const memory_;
  mutable std::uint64_t seen_changes_ = 0;
  mutable std::vector<MemoryRange> runs_;  // by address
  // Memory that is mapped more than once, by address.
  mutable std::vector<Mapping> aliased_;
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_WORKER_MEMORY_SPANS_H_
