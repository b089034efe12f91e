#include "pos/cuda_impl/worker/code_access.h"

#include <cuda.h>

namespace pos::cuda {
namespace {

class SpansMap final : public access::MemoryMap {
 public:
  SpansMap(const MemorySpans& spans, const ArenaLayout& layout)
      : spans_(spans), layout_(layout) {}
  Found Find(DeviceAddress address, MemoryRange* range) const override {
    if (address - layout_.host_base < layout_.host_bytes) return Found::kHost;
    *range = spans_.Allocation(address);
    return range->bytes == 0 ? Found::kNothing : Found::kDevice;
  }

 private:
  const MemorySpans& spans_;
  const ArenaLayout& layout_;
};

std::uint32_t AttributeOf(const DeviceInfo& device, int attribute) {
  for (const auto& [number, value] : device.attributes) {
    if (number == attribute) return static_cast<std::uint32_t>(value);
  }
  return 0;
}

}  // namespace

access::ImageChoice ChoiceOf(const DeviceInfo& device) {
  access::ImageChoice choice;
  choice.sm =
      AttributeOf(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) * 10 +
      AttributeOf(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  choice.runs_machine_code = device.kind != "sim";
  return choice;
}

const access::KernelAccess* ModuleCode::Find(std::string_view kernel) {
  if (image_ == nullptr) image_ = cache_->Get(code_, choice_);
  return image_->Find(kernel);
}

std::vector<MemoryRange> ModuleCode::Place(
    std::span<const std::string> variables) const {
  std::vector<MemoryRange> places;
  for (const std::string& name : variables) {
    MemoryRange place;
    for (const GlobalInfo& global : module_->Globals()) {
      if (global.name == name) place = {global.address, global.bytes};
    }
    places.push_back(place);
  }
  return places;
}

const access::KernelAccess& CodeAccess::kernel() const {
  if (kernel_ == nullptr) {
    kernel_ = module_->Find(name_);
    variables_ = module_->Place(kernel_->variables);
  }
  return *kernel_;
}

bool CodeAccess::Find(const LaunchConfig& config,
                      std::span<const std::byte> params,
                      const MemorySpans& memory, AccessSet* set) const {
  const access::KernelAccess& known = kernel();
  if (known.basis == AccessBasis::kGuessed) return false;
  access::EvaluateLaunch(known, {config.grid, config.block}, params,
                         SpansMap(memory, layout_), variables_, set);
  return set->basis != AccessBasis::kGuessed;
}

}  // namespace pos::cuda
