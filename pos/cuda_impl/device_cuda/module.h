// Code images and kernels of the cuda device.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_MODULE_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_MODULE_H_

#include <memory>
#include <span>
#include <string>

#include "pos/cuda_impl/device_cuda/core.h"
#include "pos/cuda_impl/device_cuda/memory.h"
#include "pos/device/device.h"

namespace pos::cuda_device {

// Threads: the worker's.
class CudaFunction : public DeviceFunction {
 public:
  // `info`: all but what the driver says itself.
  CudaFunction(std::shared_ptr<ContextCore> core, CUfunction function,
               FunctionInfo info)
      : core_(std::move(core)), function_(function), info_(std::move(info)) {}
  [[nodiscard]] const FunctionInfo& info() const override { return info_; }
  DeviceError SetAttribute(std::int32_t attribute, std::int32_t value) override;
  [[nodiscard]] CUfunction function() const { return function_; }
  // With the core's use_mu held (by whoever has it under another name).
  void ReadAttributes() POS_NO_THREAD_SAFETY;

 private:
  const std::shared_ptr<ContextCore> core_;
  const CUfunction function_;
  FunctionInfo info_;
};

Result<std::unique_ptr<DeviceModule>> LoadCudaModule(
    const std::shared_ptr<ContextCore>& core, CudaMemory* memory,
    std::span<const std::byte> image, DeviceError* error);

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_MODULE_H_
