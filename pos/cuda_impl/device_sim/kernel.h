// Kernels of the PTX interpreter as the engine knows them.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_KERNEL_H_
#define POS_CUDA_IMPL_DEVICE_SIM_KERNEL_H_

#include <memory>
#include <string>

#include "pos/cuda_impl/device_sim/engine/grid.h"
#include "pos/cuda_impl/ptx/exec.h"

namespace pos::sim {

// One entry of a loaded PTX unit. Keeps the unit alive. Any thread.
class PtxKernel : public GridSource {
 public:
  // `memory` and `output` live as long as the context.
  PtxKernel(std::shared_ptr<ptx::LoadedModule> unit, std::string name,
            ptx::MemoryView* memory, ptx::KernelOutput* output)
      : unit_(std::move(unit)),
        name_(std::move(name)),
        memory_(memory),
        output_(output) {}

  // Decodes the kernel, at the first call only (milliseconds).
  Status Prepare();
  Result<std::unique_ptr<Grid>> Start(
      const LaunchConfig& config, std::span<const std::byte> params) override;
  [[nodiscard]] const std::string& name() const override { return name_; }

 private:
  const std::shared_ptr<ptx::LoadedModule> unit_;
  const std::string name_;
  ptx::MemoryView* const memory_;
  ptx::KernelOutput* const output_;
  // Set by Prepare on the submitting thread, before the first launch is queued.
  const ptx::Kernel* kernel_ = nullptr;
};

// A compute thread's interpreter memory.
[[nodiscard]] std::unique_ptr<GridWorker> NewPtxWorker();

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_KERNEL_H_
