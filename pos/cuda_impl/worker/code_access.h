// What analyses of code (pos/cuda_impl/access) say of the launches of a
// session: the KernelAccess of functions whose code was read.
//
//   proven   all ranges are named
//   guessed  Find says nothing; the caller guesses
//   unknown  the basis is kUnknown
//
// Nothing is read or analysed before the first launch that somebody wants to
// know of; that one takes milliseconds, more for a large module.
//
// Threads: the worker's.
// Ownership: a module's code belongs to its handle and outlives this, as does
//   the device's module.
#ifndef POS_CUDA_IMPL_WORKER_CODE_ACCESS_H_
#define POS_CUDA_IMPL_WORKER_CODE_ACCESS_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/access/image_access.h"
#include "pos/cuda_impl/parser/session_state.h"
#include "pos/cuda_impl/worker/kernel_access.h"
#include "pos/device/device.h"

namespace pos::cuda {

// How the device chooses code.
[[nodiscard]] access::ImageChoice ChoiceOf(const DeviceInfo& device);

// One module's code.
class ModuleCode {
 public:
  ModuleCode(access::AccessCache* cache, std::span<const std::byte> code,
             const access::ImageChoice& choice, const DeviceModule* module)
      : cache_(cache), code_(code), choice_(choice), module_(module) {}

  const access::KernelAccess* Find(std::string_view kernel);
  // Where its variables lie, in the order of the names; bytes 0: not there.
  [[nodiscard]] std::vector<MemoryRange> Place(
      std::span<const std::string> variables) const;

 private:
  access::AccessCache* const cache_;
  const std::span<const std::byte> code_;
  const access::ImageChoice choice_;
  const DeviceModule* const module_;
  std::shared_ptr<access::ImageAccess> image_;  // from the first Find on
};

class CodeAccess final : public KernelAccess {
 public:
  CodeAccess(std::shared_ptr<ModuleCode> module, const ArenaLayout& layout,
             std::string_view kernel)
      : module_(std::move(module)), layout_(layout), name_(kernel) {}

  bool Find(const LaunchConfig& config, std::span<const std::byte> params,
            const MemorySpans& memory, AccessSet* set) const override;
  // The analysis, made now when there is none yet.
  [[nodiscard]] const access::KernelAccess& kernel() const;

 private:
  const std::shared_ptr<ModuleCode> module_;
  const ArenaLayout layout_;
  const std::string name_;
  mutable const access::KernelAccess* kernel_ = nullptr;
  mutable std::vector<MemoryRange> variables_;
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_WORKER_CODE_ACCESS_H_
