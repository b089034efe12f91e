// Random kernels (tests/pos/cuda_impl/ptx/random_kernel.h), every launch held
// against its analysis.
//
//   POS_SEED=n     begin with kernel n
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "checked_launch.h"
#include "tests/pos/cuda_impl/ptx/random_kernel.h"
#include "tests/support/random.h"

namespace pos::access::testing {
namespace {

using ptx::testing::kRandomAccBytes;
using ptx::testing::kRandomInBytes;
using ptx::testing::kRandomOutBytes;

// Both are reached, however slow the machine.
constexpr std::chrono::seconds kTime{6};
constexpr int kLaunches = 100;

std::uint64_t FirstSeed() {
  const char* const wanted = std::getenv("POS_SEED");
  if (wanted != nullptr && *wanted != 0) {
    return std::strtoull(wanted, nullptr, 10);
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(now.count()) % 1'000'000'000;
}

// Small numbers, floats around one and any bits, as such kernels expect.
std::vector<std::uint64_t> Input() {
  Random random(7);
  std::vector<std::uint64_t> words(kRandomInBytes / 8);
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::uint64_t bits = random.Next();
    words[i] = i % 5 == 0   ? random.Below(40)
               : i % 5 == 1 ? (bits & 0x807fffff807fffff) | 0x3f8000003f000000
               : i % 5 == 2 ? (bits & 0x800fffffffffffff) | 0x3ff0000000000000
                            : bits;
  }
  return words;
}

void Launch(const ptx::testing::RandomKernel& kernel) {
  ptx::testing::TestModule module(kernel.text);
  auto& memory = module.memory();
  const std::uint64_t in = memory.Upload(Input());
  const std::uint64_t out = memory.Allocate(std::uint64_t{kernel.blocks} *
                                            kernel.threads * kRandomOutBytes);
  const std::uint64_t acc = memory.Allocate(kRandomAccBytes);
  // Something for a wrong access to hit.
  memory.Allocate(kRandomAccBytes);
  ptx::testing::Params params;
  params.Add(in).Add(out).Add(acc);
  ptx::testing::LaunchOptions options;
  options.grid = {kernel.blocks, 1, 1};
  options.block = {kernel.threads, 1, 1};
  module.Launch("k", params, options);
}

TEST(RandomLaunches, DoWhatTheirAnalysisSays) {
  CheckAllLaunches();
  const std::uint64_t first = FirstSeed();
  const auto deadline = std::chrono::steady_clock::now() + kTime;
  std::uint64_t seed = first;
  const auto launches = [] { return Counts().proven + Counts().other; };
  for (; std::chrono::steady_clock::now() < deadline || launches() < kLaunches;
       ++seed) {
    const auto kernel = ptx::testing::MakeRandomKernel(seed);
    Launch(kernel);
    if (!HasFailure()) continue;
    FAIL() << "kernel of seed " << seed << "\n" << kernel.text;
  }
  std::printf("POS_SEED=%llu: %d launches are proven, %d are not\n",
              static_cast<unsigned long long>(first), Counts().proven,
              Counts().other);
  // Half of the kernels call by address.
  EXPECT_GT(Counts().proven, Counts().other / 4);
}

}  // namespace
}  // namespace pos::access::testing
