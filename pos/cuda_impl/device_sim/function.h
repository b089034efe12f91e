// A kernel of a module on the simulated device: attributes and launch checks.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_FUNCTION_H_
#define POS_CUDA_IMPL_DEVICE_SIM_FUNCTION_H_

#include <memory>
#include <span>
#include <string>

#include "pos/cuda_impl/device_sim/kernel.h"
#include "pos/cuda_impl/fatbin/cubin.h"
#include "pos/cuda_impl/ptx/module.h"
#include "pos/device/device.h"

namespace pos::sim {

// Threads: the session's worker.
class SimFunction : public DeviceFunction {
 public:
  // From PTX. `constant_bytes`: all __constant__ variables of the module.
  SimFunction(const ptx::Entry& entry, int ptx_sm, std::uint32_t device_sm,
              std::uint64_t constant_bytes, std::shared_ptr<PtxKernel> kernel);
  // From machine code, which cannot run here.
  SimFunction(const fatbin::CubinKernel& kernel, std::uint32_t device_sm);

  [[nodiscard]] const FunctionInfo& info() const override { return info_; }
  DeviceError SetAttribute(std::int32_t attribute, std::int32_t value) override;

  // What cuLaunchKernel returns for this launch; 0: it can be queued. Decodes
  // the kernel at the first call.
  DeviceError CheckLaunch(const LaunchConfig& config,
                          std::span<const std::byte> params);
  [[nodiscard]] const std::shared_ptr<PtxKernel>& kernel() const {
    return kernel_;
  }

 private:
  struct Limits {
    std::uint32_t max_threads = 0;
    std::uint32_t static_shared_bytes = 0;
    std::uint32_t registers = 0;
    std::uint32_t local_bytes = 0;
    std::uint64_t constant_bytes = 0;
    int ptx_version = 0;
    int binary_version = 0;
  };
  void SetInfo(const Limits& limits);
  [[nodiscard]] DeviceError CheckShape(const LaunchConfig& config) const;

  FunctionInfo info_;
  Limits limits_;
  std::uint32_t max_dynamic_shared_bytes_ = 0;
  const std::shared_ptr<PtxKernel> kernel_;  // null: cannot run
  bool error_logged_ = false;
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_FUNCTION_H_
