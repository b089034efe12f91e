// A code image loaded into a context of the simulated device.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_MODULE_H_
#define POS_CUDA_IMPL_DEVICE_SIM_MODULE_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pos/cuda_impl/device_sim/code_image.h"
#include "pos/cuda_impl/device_sim/engine/heap.h"
#include "pos/cuda_impl/device_sim/engine/memory.h"
#include "pos/cuda_impl/device_sim/function.h"
#include "pos/device/device.h"

namespace pos::sim {

// Threads: the session's worker. Destroying a module does not wait for its
// kernels: launches keep what they need.
class SimModule : public DeviceModule {
 public:
  struct Place {
    SimMemory* memory;
    ptx::MemoryView* view;      // of the context
    ptx::KernelOutput* output;  // of the context
    ModulePlacer* placer;       // used by Load only
    std::uint32_t device_sm;
  };

  // Places the variables and writes their initial bytes. On failure *error is
  // what the API reports (2: no memory for the variables).
  static Result<std::unique_ptr<SimModule>> Load(
      std::shared_ptr<const CodeImage> image, const Place& place,
      DeviceError* error);

  DeviceFunction* FindFunction(std::string_view name) override;
  [[nodiscard]] std::vector<std::string> FunctionNames() const override;
  [[nodiscard]] const std::vector<GlobalInfo>& Globals() const override {
    return globals_;
  }

 private:
  struct Unit {
    std::shared_ptr<const ptx::Module> code;
    std::shared_ptr<ptx::LoadedModule> loaded;
    std::vector<std::uint64_t> addresses;  // of code->variables()
    std::vector<bool> owned;               // placed for this unit
  };

  SimModule(std::shared_ptr<const CodeImage> image, const Place& place);
  Status PlaceVariables();
  Status WriteInitialBytes();

  const std::shared_ptr<const CodeImage> image_;
  Place place_;
  std::vector<Unit> units_;
  std::vector<GlobalInfo> globals_;
  std::uint64_t constant_bytes_ = 0;
  std::map<std::string, std::unique_ptr<SimFunction>, std::less<>> functions_;
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_MODULE_H_
