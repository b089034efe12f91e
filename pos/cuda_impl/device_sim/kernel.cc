#include "pos/cuda_impl/device_sim/kernel.h"

#include "pos/cuda_impl/device_sim/attributes.h"

namespace pos::sim {
namespace {

class PtxWorker : public GridWorker {
 public:
  void Trim() override { scratch_.Trim(); }
  ptx::WorkerScratch* scratch() { return &scratch_; }

 private:
  ptx::WorkerScratch scratch_;
};

class PtxGrid : public Grid {
 public:
  explicit PtxGrid(std::unique_ptr<ptx::GridRun> run) : run_(std::move(run)) {}

  Step Run(GridWorker* worker, std::uint64_t budget) override {
    // Every worker of an engine with PTX kernels comes from NewPtxWorker.
    switch (run_->Run(static_cast<PtxWorker*>(worker)->scratch(), budget)) {
      case ptx::GridRun::Step::kMore:
        return Step::kMore;
      case ptx::GridRun::Step::kNothingForYou:
        return Step::kNothingForYou;
      case ptx::GridRun::Step::kFinished:
        break;
    }
    return Step::kFinished;
  }
  [[nodiscard]] bool HasWork() const override { return run_->HasWork(); }
  void Cancel() override { run_->Cancel(); }
  [[nodiscard]] GridFault fault() const override {
    const ptx::Fault* fault = run_->fault();
    if (fault == nullptr) return {};
    return {fault->error, fault->address, fault->text};
  }

 private:
  const std::unique_ptr<ptx::GridRun> run_;
};

}  // namespace

Status PtxKernel::Prepare() {
  if (kernel_ != nullptr) return OkStatus();
  POS_ASSIGN_OR_RETURN(kernel_, unit_->GetKernel(name_));
  return OkStatus();
}

Result<std::unique_ptr<Grid>> PtxKernel::Start(
    const LaunchConfig& config, std::span<const std::byte> params) {
  ptx::LaunchParams launch;
  launch.grid = config.grid;
  launch.block = config.block;
  launch.dynamic_shared_bytes = config.dynamic_shared_bytes;
  launch.params = params;
  launch.cooperative = config.cooperative;
  launch.stack_bytes = config.stack_bytes;
  launch.sm_count = kMultiprocessors;
  POS_ASSIGN_OR_RETURN(std::unique_ptr<ptx::GridRun> run,
                       ptx::GridRun::Create(kernel_, launch, memory_, output_));
  return std::unique_ptr<Grid>(std::make_unique<PtxGrid>(std::move(run)));
}

std::unique_ptr<GridWorker> NewPtxWorker() {
  return std::make_unique<PtxWorker>();
}

}  // namespace pos::sim
