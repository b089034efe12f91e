// Random whole kernels: the interpreter, on every instruction-set level, with
// lanes together, masked and apart, and on several threads, leaves in memory
// what a machine leaves that runs one thread at a time.
//
//   POS_SEED=n     begin with kernel n
//   POS_LONG=1     minutes instead of seconds
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "differential.h"

namespace pos::ptx::testing {
namespace {

constexpr std::chrono::seconds kShort{5};
constexpr std::chrono::seconds kLong{300};
constexpr std::chrono::seconds kReduction{4};
constexpr std::chrono::seconds kLongReduction{60};

std::uint64_t FirstSeed() {
  const char* const wanted = std::getenv("POS_SEED");
  if (wanted != nullptr && *wanted != 0) {
    return std::strtoull(wanted, nullptr, 10);
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(now.count()) % 1'000'000'000;
}

bool IsLong() {
  const char* const wanted = std::getenv("POS_LONG");
  return wanted != nullptr && *wanted != 0 && std::string(wanted) != "0";
}

TEST(RandomKernels, LeaveWhatTheSecondMachineLeaves) {
  const std::uint64_t first = FirstSeed();
  const auto deadline =
      std::chrono::steady_clock::now() + (IsLong() ? kLong : kShort);
  const std::vector<Way> ways = AllWays();
  std::size_t agreed = 0;
  std::size_t too_long = 0;
  std::uint64_t steps = 0;
  std::uint64_t seed = first;
  for (; std::chrono::steady_clock::now() < deadline; ++seed) {
    const RandomKernel kernel = MakeRandomKernel(seed);
    const Comparison result = Compare(kernel, ways);
    steps += result.steps;
    switch (result.kind) {
      case Comparison::Kind::kAgrees:
        ++agreed;
        break;
      case Comparison::Kind::kTooLong:
        ++too_long;
        break;
      case Comparison::Kind::kRefused:
        FAIL() << "kernel of seed " << seed << ": " << result.text << "\n"
               << kernel.text;
      default:
        FAIL() << "kernel of seed " << seed << ", " << kernel.blocks
               << " blocks of " << kernel.threads << " threads; " << result.text
               << "\n"
               << Reduced(kernel, result,
                          IsLong() ? kLongReduction : kReduction)
                      .text;
    }
  }
  std::printf(
      "POS_SEED=%llu: %zu kernels agree, %zu are too long; "
      "%llu instructions of threads\n",
      static_cast<unsigned long long>(first), agreed, too_long,
      static_cast<unsigned long long>(steps));
  // A generator of kernels that are never compared finds nothing.
  EXPECT_GT(agreed, too_long);
}

}  // namespace
}  // namespace pos::ptx::testing
