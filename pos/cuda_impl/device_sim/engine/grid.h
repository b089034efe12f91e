// What the engine needs to know about kernels: that they can be started, run in
// slices by several threads, and stopped. Implemented over the PTX interpreter
// (device_sim/kernel.h) and by fakes in tests.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_ENGINE_GRID_H_
#define POS_CUDA_IMPL_DEVICE_SIM_ENGINE_GRID_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "pos/base/status.h"
#include "pos/device/device.h"

namespace pos::sim {

// State of one compute thread that outlives launches.
class GridWorker {
 public:
  virtual ~GridWorker() = default;
  // The thread goes to sleep: memory that is only kept for speed may go.
  virtual void Trim() {}
};

struct GridFault {
  DeviceError error = 0;  // 0: none
  std::uint64_t address = 0;
  std::string text;  // kernel, block, thread, instruction
};

// One launch that has started. Run: many threads at once. Cancel: any thread.
// fault: after a Run has returned kFinished. Destroyed when no Run is going on.
class Grid {
 public:
  enum class Step : std::uint8_t {
    kMore,           // call again: there is work for this thread
    kNothingForYou,  // all that is left runs on other threads, or it is over
    kFinished,       // this call ended the grid; exactly one gets it
  };
  virtual ~Grid() = default;
  virtual Step Run(GridWorker* worker, std::uint64_t budget) = 0;
  [[nodiscard]] virtual bool HasWork() const = 0;
  virtual void Cancel() = 0;
  [[nodiscard]] virtual GridFault fault() const = 0;
};

// A kernel that can be launched. Shared by its module and the launches queued,
// so that unloading a module does not wait for them. Any thread.
class GridSource {
 public:
  virtual ~GridSource() = default;
  // Called by a compute thread when the launch's turn has come.
  virtual Result<std::unique_ptr<Grid>> Start(
      const LaunchConfig& config, std::span<const std::byte> params) = 0;
  [[nodiscard]] virtual const std::string& name() const = 0;
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_ENGINE_GRID_H_
