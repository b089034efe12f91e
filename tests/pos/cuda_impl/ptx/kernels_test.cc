// Kernels that nvcc compiled, on every instruction-set level, for several
// targets, against the same computation on the host.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <string>
#include <tuple>

#include "harness.h"

namespace pos::ptx::testing {
namespace {

using Variant = std::tuple<std::string, IsaLevel>;

std::string VariantName(const ::testing::TestParamInfo<Variant>& info) {
  std::string name = std::get<0>(info.param) + "_" +
                     std::string(IsaLevelName(std::get<1>(info.param)));
  for (char& c : name) {
    if (c == '-') c = '_';
  }
  return name;
}

class BasicKernels : public ::testing::TestWithParam<Variant> {
 protected:
  BasicKernels()
      : module_(GoldenPtx("basic." + std::get<0>(GetParam()) + ".ptx"),
                std::get<1>(GetParam())) {}
  TestMemory& memory() { return module_.memory(); }

  TestModule module_;
  std::mt19937 random_{7};
};

INSTANTIATE_TEST_SUITE_P(
    All, BasicKernels,
    ::testing::Combine(::testing::Values("sm_75", "sm_90", "sm_100", "debug"),
                       ::testing::ValuesIn(RunnableLevels())),
    VariantName);

std::vector<float> Floats(std::mt19937* random, std::size_t count) {
  std::vector<float> values(count);
  for (float& value : values) {
    value = static_cast<float>(static_cast<std::int32_t>((*random)() % 2001) -
                               1000);
  }
  return values;
}

// Sizes around warps and blocks: the last warp is partly there, or not at all.
TEST_P(BasicKernels, VaddTouchesExactlyItsElements) {
  for (const int n : {1, 31, 32, 33, 255, 256, 257, 1000}) {
    const auto a = Floats(&random_, static_cast<std::size_t>(n));
    const auto b = Floats(&random_, static_cast<std::size_t>(n));
    const auto c = memory().Allocate(static_cast<std::uint64_t>(n) * 4);
    Params params;
    params.Add(memory().Upload(a)).Add(memory().Upload(b)).Add(c).Add(n);
    const auto blocks = static_cast<std::uint32_t>((n + 127) / 128);
    const auto result = module_.Launch(
        "vadd", params, {.grid = {blocks, 1, 1}, .block = {128, 1, 1}});
    ASSERT_FALSE(result.fault.has_value()) << result.fault->text;
    const auto sum = TestMemory::Download<float>(c, a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(sum[i], a[i] + b[i]) << i << " of " << n;
    }
  }
}

TEST_P(BasicKernels, SaxpyStridesOverTheGrid) {
  const int n = 5000;
  const auto x = Floats(&random_, n);
  const auto y = Floats(&random_, n);
  const auto out = memory().Upload(y);
  Params params;
  params.Add(2.5f).Add(memory().Upload(x)).Add(out).Add(n);
  const auto result =
      module_.Launch("saxpy", params, {.grid = {3, 1, 1}, .block = {96, 1, 1}});
  ASSERT_FALSE(result.fault.has_value()) << result.fault->text;
  const auto got = TestMemory::Download<float>(out, n);
  for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(got[i], 2.5f * x[i] + y[i]);
}

TEST_P(BasicKernels, MatmulIsExactOnSmallIntegers) {
  constexpr std::size_t kN = 64;
  const auto a = Floats(&random_, kN * kN);
  const auto b = Floats(&random_, kN * kN);
  const auto c = memory().Allocate(kN * kN * 4);
  Params params;
  params.Add(memory().Upload(a))
      .Add(memory().Upload(b))
      .Add(c)
      .Add(static_cast<int>(kN));
  const auto result = module_.Launch(
      "matmul", params, {.grid = {kN / 16, kN / 16, 1}, .block = {16, 16, 1}});
  ASSERT_FALSE(result.fault.has_value()) << result.fault->text;
  const auto got = TestMemory::Download<float>(c, kN * kN);
  for (std::size_t i = 0; i < kN; ++i) {
    for (std::size_t j = 0; j < kN; ++j) {
      float sum = 0;
      for (std::size_t k = 0; k < kN; ++k) sum += a[i * kN + k] * b[k * kN + j];
      ASSERT_EQ(got[i * kN + j], sum) << i << "," << j;
    }
  }
}

TEST_P(BasicKernels, BlockSumUsesDynamicSharedMemoryAndBarriers) {
  for (const std::uint32_t threads : {32u, 64u, 512u, 1024u}) {
    std::vector<int> in(2000);
    for (int& value : in) value = static_cast<int>(random_());
    const std::uint32_t blocks = (2000 + threads - 1) / threads;
    const auto out = memory().Allocate(blocks * 4);
    Params params;
    params.Add(memory().Upload(in)).Add(out).Add(2000);
    const auto result = module_.Launch("block_sum", params,
                                       {.grid = {blocks, 1, 1},
                                        .block = {threads, 1, 1},
                                        .dynamic_shared_bytes = threads * 4});
    ASSERT_FALSE(result.fault.has_value()) << result.fault->text;
    const auto got = TestMemory::Download<std::uint32_t>(out, blocks);
    for (std::uint32_t b = 0; b < blocks; ++b) {
      std::uint32_t sum = 0;
      for (std::uint32_t i = b * threads;
           i < std::min(2000u, (b + 1) * threads); ++i) {
        sum += static_cast<std::uint32_t>(in[i]);
      }
      ASSERT_EQ(got[b], sum) << b;
    }
  }
}

TEST_P(BasicKernels, HistogramCountsWithAtomicsOfBothMemories) {
  std::vector<unsigned char> in(10000);
  std::vector<unsigned> want(256, 0);
  for (auto& value : in) {
    value = static_cast<unsigned char>(random_() % 17);
    ++want[value];
  }
  const auto out = memory().Allocate(256 * 4);
  Params params;
  params.Add(memory().Upload(in)).Add(out).Add(static_cast<int>(in.size()));
  const auto result =
      module_.Launch("histogram", params,
                     {.grid = {7, 1, 1}, .block = {256, 1, 1}, .threads = 3});
  ASSERT_FALSE(result.fault.has_value()) << result.fault->text;
  EXPECT_THAT(TestMemory::Download<unsigned>(out, 256),
              ::testing::ElementsAreArray(want));
}

}  // namespace
}  // namespace pos::ptx::testing
