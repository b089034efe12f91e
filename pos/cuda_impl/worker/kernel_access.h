// What the code of a kernel says about the memory that its launches touch: the
// place where an analysis of code plugs in (FunctionObject::access).
//
// Threads: Find: the worker's.
#ifndef POS_CUDA_IMPL_WORKER_KERNEL_ACCESS_H_
#define POS_CUDA_IMPL_WORKER_KERNEL_ACCESS_H_

#include <cstddef>
#include <span>

#include "pos/cuda_impl/worker/memory_spans.h"
#include "pos/device/device.h"
#include "pos/worker/memory_watch.h"

namespace pos::cuda {

class KernelAccess {
 public:
  virtual ~KernelAccess() = default;
  // Fills in `*set`, which was cleared, for a launch with these parameters, and
  // says on what basis. Aliases are added by the caller. False: nothing is
  // known of this launch; then it is guessed at, and `*set` may hold anything.
  // kProven has to include what no parameter leads to: variables of the module
  // (of any that the kernel can name), the heap of device-side malloc.
  virtual bool Find(const LaunchConfig& config,
                    std::span<const std::byte> params,
                    const MemorySpans& memory, AccessSet* set) const = 0;
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_WORKER_KERNEL_ACCESS_H_
