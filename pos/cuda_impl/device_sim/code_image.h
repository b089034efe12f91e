// Code images parsed for the simulated device, once per content.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_CODE_IMAGE_H_
#define POS_CUDA_IMPL_DEVICE_SIM_CODE_IMAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "pos/base/status.h"
#include "pos/cuda_impl/fatbin/cubin.h"
#include "pos/cuda_impl/ptx/exec.h"
#include "pos/cuda_impl/ptx/module.h"
#include "pos/device/device.h"

namespace pos::sim {

// Immutable, but for what is kept for the next load.
struct CodeImage {
  // One, of all translation units (several with -rdc=true) that have PTX for
  // the device; none for a cubin.
  std::vector<std::shared_ptr<const ptx::Module>> units;
  // Kernels of the cubin for the device, when there is no PTX.
  std::vector<fatbin::CubinKernel> cubin_kernels;
  bool uses_heap = false;  // device-side malloc

  // Unit `unit` with its variables at `addresses`. Kernels are decoded for
  // their addresses, once for all loads that have the same ones (always so
  // without variables). Threads: the session's worker.
  std::shared_ptr<ptx::LoadedModule> Load(
      std::size_t unit, const std::vector<std::uint64_t>& addresses) const;

 private:
  struct Loaded {
    std::size_t unit;
    std::vector<std::uint64_t> addresses;
    std::shared_ptr<ptx::LoadedModule> module;
  };
  static constexpr std::size_t kKeptLoads = 8;
  mutable std::vector<Loaded> loaded_;  // latest last
};

// Threads: one at a time (the session's worker).
class CodeImageCache {
 public:
  // `sm`: 90 for compute capability 9.0.
  explicit CodeImageCache(std::uint32_t sm) : sm_(sm) {}

  // On failure *error is what cuModuleLoadData returns for it:
  //   200 INVALID_IMAGE       not a code image, or a damaged one
  //   209 NO_BINARY_FOR_GPU   code for other devices only
  //   218 INVALID_PTX         the text does not parse
  Result<std::shared_ptr<const CodeImage>> Get(std::span<const std::byte> image,
                                               DeviceError* error);

 private:
  // 128 bits of XXH3 and the length. Within one session an image that
  // collides with another harms only its own program.
  using Key = std::array<std::uint64_t, 3>;
  struct Kept {
    Key key;
    std::shared_ptr<const CodeImage> image;
  };
  // A program loads each image once per context; what libraries load again
  // and again is among the latest.
  static constexpr std::size_t kKept = 64;

  Result<std::shared_ptr<const CodeImage>> Parse(
      std::span<const std::byte> image, DeviceError* error) const;

  const std::uint32_t sm_;
  std::list<Kept> kept_;  // most recently used first
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_CODE_IMAGE_H_
