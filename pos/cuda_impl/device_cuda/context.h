// Contexts, streams and events of the cuda device.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_CONTEXT_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_CONTEXT_H_

#include <memory>

#include "pos/cuda_impl/device_cuda/core.h"
#include "pos/cuda_impl/device_cuda/memory.h"
#include "pos/cuda_impl/device_cuda/pinned_pool.h"
#include "pos/device/device.h"

namespace pos::cuda_device {

// All outlive the context.
struct ContextParts {
  const Driver* driver;
  Completer* completer;
  CudaMemory* memory;
  PinnedPool* pinned;
};

// `core`: of a context of the driver's that the new object owns.
Result<std::unique_ptr<DeviceContext>> NewCudaContext(
    const ContextParts& parts, std::shared_ptr<ContextCore> core);

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_CONTEXT_H_
