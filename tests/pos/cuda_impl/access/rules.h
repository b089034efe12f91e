// Kernels written by hand, analysed, and launched on memory that is made up.
#ifndef TESTS_POS_CUDA_IMPL_ACCESS_RULES_H_
#define TESTS_POS_CUDA_IMPL_ACCESS_RULES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/access/image_access.h"

namespace pos::access::testing {

// Allocations: A, B, C right behind B, one of the host's; a variable.
constexpr std::uint64_t kA = 0x7f0000000000;
constexpr std::uint64_t kB = 0x7f0000100000;
constexpr std::uint64_t kC = 0x7f0000101000;
constexpr std::uint64_t kHost = 0x7e0000000000;
constexpr std::uint64_t kVariable = 0x7f0000200000;
constexpr std::uint64_t kBytes = 0x1000;  // of each

class FakeMemory final : public MemoryMap {
 public:
  Found Find(DeviceAddress address, MemoryRange* range) const override;
};

// One kernel k(.u64 p0, .u64 p1, .u64 p2, .u32 n, .u32 m, .align 8 .b8 s[32]),
// whose text is that of `body` after these declarations: registers %p<9>,
// %r<30>, %d<30> (64 bits), %f<9>, %fd<9>; module variable `var`, array `arr`
// of .shared, `con` of .const. `before` comes before the kernel.
class Rule {
 public:
  explicit Rule(std::string_view body, std::string_view before = "");

  [[nodiscard]] const KernelAccess& kernel() const { return *kernel_; }
  [[nodiscard]] AccessBasis basis() const { return kernel_->basis; }

  struct Arguments {
    std::uint64_t p0 = kA;
    std::uint64_t p1 = kB;
    std::uint64_t p2 = kC;
    std::int32_t n = 10;
    std::int32_t m = 3;
    std::uint64_t s[4] = {0, 0, 0, 0};
  };
  // "proven r: A[0,100) w: B[0,4096)", ranges in order; host memory is left
  // out. The launch is of 2 blocks of 32 threads.
  [[nodiscard]] std::string Launch(const Arguments& arguments) const;
  [[nodiscard]] std::string Launch() const { return Launch(Arguments()); }
  [[nodiscard]] std::string Launch(const Arguments& arguments,
                                   const LaunchConfig& launch) const;

 private:
  std::shared_ptr<ImageAccess> image_;
  const KernelAccess* kernel_ = nullptr;
};

}  // namespace pos::access::testing

#endif  // TESTS_POS_CUDA_IMPL_ACCESS_RULES_H_
