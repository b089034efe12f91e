// Generic addresses of what is not an allocation, 4 GiB each. Constants of
// their own file, for code that must not include more (isa/).
#ifndef POS_CUDA_IMPL_PTX_EXEC_LAYOUT_H_
#define POS_CUDA_IMPL_PTX_EXEC_LAYOUT_H_

#include <cstdint>

namespace pos::ptx {

constexpr std::uint64_t kSharedWindow = 0x0f00'0000'0000;
constexpr std::uint64_t kLocalWindow = 0x0f01'0000'0000;
constexpr std::uint64_t kParamWindow = 0x0f02'0000'0000;
// "Addresses" of functions, for indirect calls: the same for the same module
// text in every process. Reading or writing there faults.
constexpr std::uint64_t kCodeWindow = 0x0f03'0000'0000;
constexpr std::uint64_t kWindowsBegin = kSharedWindow;
constexpr std::uint64_t kWindowsEnd = 0x0f04'0000'0000;

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_EXEC_LAYOUT_H_
