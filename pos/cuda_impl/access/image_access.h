// What the kernels of a code image do to memory, from the PTX in it.
//
//   image as the client handed it over
//     ──> AccessCache::Get ──> ImageAccess ── Find(name) ──> KernelAccess
//
// A fat binary holds PTX next to machine code. A device that runs the machine
// code runs what was compiled from the PTX only when both are for the same
// architecture (programs choose code by it); otherwise nothing is known.
//
// Threads: any. A kernel is analysed when it is first asked for, by the thread
//   that asks; others that ask for kernels of the same image wait for it.
// Blocking: Get parses the PTX (linear in its length), Find analyses a kernel
//   (milliseconds for a large one; bounded for hostile ones).
// Ownership: the cache keeps nothing alive: an image that nobody holds is gone.
#ifndef POS_CUDA_IMPL_ACCESS_IMAGE_ACCESS_H_
#define POS_CUDA_IMPL_ACCESS_IMAGE_ACCESS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/cuda_impl/access/kernel_access.h"
#include "pos/cuda_impl/ptx/module.h"

namespace pos::access {

struct ModuleContext;

class ImageAccess {
 public:
  // `module` is null when there is no PTX, for which `reason` says why.
  ImageAccess(std::shared_ptr<const ptx::Module> module, std::string reason);
  ImageAccess(const ImageAccess&) = delete;
  ImageAccess& operator=(const ImageAccess&) = delete;
  ~ImageAccess();

  // Never null; as long as this lives. A kernel that is not in the PTX is
  // guessed at.
  const KernelAccess* Find(std::string_view kernel) POS_EXCLUDES(mu_);
  // Names of the kernels in the PTX.
  [[nodiscard]] std::vector<std::string> Kernels() const;

 private:
  const std::shared_ptr<const ptx::Module> module_;
  const std::string reason_;
  Mutex mu_;
  std::unique_ptr<ModuleContext> context_ POS_GUARDED_BY(mu_);
  std::map<std::string, KernelAccess, std::less<>> kernels_ POS_GUARDED_BY(mu_);
};

// What the device does with an image.
struct ImageChoice {
  std::uint32_t sm = 90;          // its compute capability
  bool runs_machine_code = true;  // else it runs the PTX
};

// Not cached. Code that cannot be read is an image without PTX.
std::shared_ptr<ImageAccess> AnalyzeImage(std::span<const std::byte> image,
                                          const ImageChoice& choice);

// By content: the same image is parsed once, whoever loads it.
class AccessCache {
 public:
  std::shared_ptr<ImageAccess> Get(std::span<const std::byte> image,
                                   const ImageChoice& choice) POS_EXCLUDES(mu_);

 private:
  using Key = std::array<std::uint64_t, 4>;  // digest, length, choice
  Mutex mu_;
  std::map<Key, std::weak_ptr<ImageAccess>> images_ POS_GUARDED_BY(mu_);
};

}  // namespace pos::access

#endif  // POS_CUDA_IMPL_ACCESS_IMAGE_ACCESS_H_
