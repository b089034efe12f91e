// Random kernels whose results are determined: whatever the order in which
// lanes, warps and blocks run, memory ends up the same.
//
//   * A thread writes memory of its own only, or where all others do the same
//     commutative operation and nobody looks before the end; or in shared
//     memory, read by others between two barriers that all threads reach.
//   * Instructions of the whole warp name lanes that are sure to come: a mask
//   is
//     made with `vote.ballot` where ways part, and not used after a jump out.
//   * What the ISA leaves open is not looked at: a shuffle from a lane that
//   does
//     not take part becomes 0, NaNs become the canonical one.
#ifndef TESTS_POS_CUDA_IMPL_PTX_RANDOM_KERNEL_H_
#define TESTS_POS_CUDA_IMPL_PTX_RANDOM_KERNEL_H_

#include <cstdint>
#include <string>

namespace pos::ptx::testing {

struct RandomKernel {
  // kernel k(.u64 in, .u64 out, .u64 acc), of blocks with one dimension
  std::string text;
  std::uint32_t blocks = 1;
  std::uint32_t threads = 32;  // at most kMaxRandomThreads
};
constexpr std::uint32_t kMaxRandomThreads = 128;
constexpr std::uint32_t kRandomInBytes = 2048;   // read only
constexpr std::uint32_t kRandomOutBytes = 512;   // of each thread
constexpr std::uint32_t kRandomAccBytes = 1024;  // of all

RandomKernel MakeRandomKernel(std::uint64_t seed);

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_RANDOM_KERNEL_H_
