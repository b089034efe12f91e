// What a call that is about to be executed does to device memory.
//
//   copies, fills     proven: the ranges that they name
//   launches          what an analysis of the kernel says (kernel_access.h);
//                     else guessed: every allocation that a word of the
//                     parameters points into, the variables of the kernel's
//                     module, and the heap of device-side malloc once a kernel
//                     of the context may use it
//   frees, unloads, unmappings, the end of a context, another heap limit
//                     proven, `releases`: what goes
//   access taken away   likewise, though the content stays
//   allocations, mappings
//                     proven, `makes`
//
// Threads: the worker's.
#ifndef POS_CUDA_IMPL_WORKER_CALL_ACCESS_H_
#define POS_CUDA_IMPL_WORKER_CALL_ACCESS_H_

#include <cstdint>

#include "pos/call/api_context.h"
#include "pos/cuda_impl/api/calls.h"
#include "pos/cuda_impl/handles/objects.h"
#include "pos/cuda_impl/worker/memory_spans.h"
#include "pos/cuda_impl/worker/worker_memory.h"
#include "pos/worker/memory_watch.h"

namespace pos::cuda {

class CallAccessFinder {
 public:
  // `memory` outlives this.
  CallAccessFinder(const ArenaLayout& layout, const WorkerMemory* memory)
      : memory_(memory), spans_(layout, memory) {}
  CallAccessFinder(const CallAccessFinder&) = delete;
  CallAccessFinder& operator=(const CallAccessFinder&) = delete;

  // nullptr: no device memory is touched. Valid until the next call of this.
  const CallAccess* Find(const ApiContext& call);

 private:
  void OnStream(const ApiContext& call);
  void FindFill(const FillArgs& args);
  void FindLaunch(const ApiContext& call);
  void GuessLaunch(const ApiContext& call);
  void FindLimit(const ApiContext& call);
  void ReleaseBlock(std::uint64_t address);
  void ReleaseContext(const ApiContext& call);
  void ReleaseModule(const ApiContext& call);
  void ReleaseMappings(const PhysicalUnmapArgs& args);
  void ReleaseAccess(const SetAccessArgs& args);
  void Make(std::uint64_t address, std::uint64_t bytes, int device);

  const WorkerMemory* const memory_;
  const MemorySpans spans_;
  CallAccess access_;
  AccessSet set_;
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_WORKER_CALL_ACCESS_H_
