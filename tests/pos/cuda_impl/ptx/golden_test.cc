// Kernels of tests/golden/ptx/{language,numeric,sync}.cu as nvcc and NVRTC
// compiled them, against the same computation on the host.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "harness.h"

namespace pos::ptx::testing {
namespace {

using Variant = std::tuple<std::string, LanePolicy>;

std::string VariantName(const ::testing::TestParamInfo<Variant>& info) {
  constexpr std::array<const char*, 3> kNames = {"together", "masked", "apart"};
  return std::get<0>(info.param) + "_" +
         kNames.at(static_cast<std::size_t>(std::get<1>(info.param)));
}

class Golden : public ::testing::TestWithParam<Variant> {
 protected:
  explicit Golden(const std::string& source)
      : module_(GoldenPtx(source + "." + std::get<0>(GetParam()) + ".ptx")) {}
  TestMemory& memory() { return module_.memory(); }

  // Fails the test when the kernel faults.
  void Run(const std::string& kernel, const Params& params,
           LaunchOptions options) {
    options.lanes = std::get<1>(GetParam());
    const LaunchResult result = module_.Launch(kernel, params, options);
    ASSERT_FALSE(result.fault.has_value()) << result.fault->text;
  }
  // For kernels that write one int for each of 64 threads.
  void Expect(const std::string& kernel, Params params,
              const std::function<std::int32_t(std::int32_t)>& want) {
    const std::uint64_t out = memory().Allocate(64 * 4);
    Run(kernel, params.Add(out), {.grid = {2, 1, 1}, .block = {32, 1, 1}});
    const auto got = TestMemory::Download<std::int32_t>(out, 64);
    for (std::int32_t i = 0; i < 64; ++i) {
      ASSERT_EQ(got[static_cast<std::size_t>(i)], want(i)) << i;
    }
  }

  TestModule module_;
  std::mt19937_64 random_{11};
};

const auto kPolicies = ::testing::Values(
    LanePolicy::kTogether, LanePolicy::kMasked, LanePolicy::kApart);

// ---- language.cu

class Language : public Golden {
 protected:
  Language() : Golden("language") {}
};
INSTANTIATE_TEST_SUITE_P(
    All, Language,
    ::testing::Combine(::testing::Values("sm_90", "sm_100", "debug", "lineinfo",
                                         "nvrtc"),
                       kPolicies),
    VariantName);

TEST_P(Language, StructsByValueAreEachThreadsOwn) {
  struct Record {
    std::array<std::int32_t, 20> values;
    double scale;
    char tag;
  };
  Record record{{}, 0.5, 7};
  std::iota(record.values.begin(), record.values.end(), 3);
  const std::uint64_t out = memory().Allocate(64 * 8);
  Run("by_value", Params().Add(record).Add(out),
      {.grid = {2, 1, 1}, .block = {32, 1, 1}});
  const auto got = TestMemory::Download<double>(out, 64);
  const int sum =
      std::accumulate(record.values.begin(), record.values.end(), 0);
  for (std::size_t i = 0; i < 64; ++i) {
    ASSERT_EQ(got[i], (sum + static_cast<int>(i)) * 0.5 + 7) << i;
  }
}

TEST_P(Language, ParametersMayHave32000Bytes) {
  struct Large {
    std::array<std::int32_t, 7999> words;
  };
  static Large large;
  std::iota(large.words.begin(), large.words.end(), -4000);
  static constexpr std::int32_t kCount = 7999;
  Expect("large_parameter", Params().Add(large).Add(kCount),
         [](std::int32_t i) {
           std::uint32_t sum = 0;
           for (std::int32_t k = i; k < kCount; k += 64) {
             sum += static_cast<std::uint32_t>((k - 4000)) *
                    static_cast<std::uint32_t>(k + 1);
           }
           return static_cast<std::int32_t>(sum);
         });
}

std::uint32_t Reversed(std::uint32_t x) {
  std::uint32_t result = 0;
  for (int i = 0; i < 32; ++i) result |= (x >> i & 1) << (31 - i);
  return result;
}

std::int32_t Dispatched(std::int32_t start, std::int32_t i) {
  auto x = static_cast<std::uint32_t>(start);
  const auto as_signed = [&x] { return static_cast<std::int32_t>(x); };
  for (int round = 0; round < 4; ++round) {
    const std::uint32_t kind = x & 15;
    if (kind == 4) x = ~x;
    switch (kind) {
      case 0:
        x = x * 3 + 1;
        break;
      case 1:
        x ^= 0x55;
        break;
      case 2:
        x -= static_cast<std::uint32_t>(i);
        break;
      case 3:
        x = x << 3 | 1;
        break;
      case 4:
      case 5:
        x += 7;
        break;
      case 6:
        x = static_cast<std::uint32_t>(as_signed() / 3);
        break;
      case 7:
        x = static_cast<std::uint32_t>(std::popcount(x) + i);
        break;
      case 9:
        x = Reversed(x);
        break;
      case 10:
        x = as_signed() > 0 ? 0 - x : x;
        break;
      case 11:
        x = static_cast<std::uint32_t>(as_signed() % 1000);
        break;
      default:
        x += 13;
        break;
    }
  }
  return as_signed();
}

TEST_P(Language, SwitchesGoToTheirCases) {
  std::vector<std::int32_t> in(64);
  for (auto& value : in) value = static_cast<std::int32_t>(random_());
  Expect("dispatch", Params().Add(memory().Upload(in)), [&](std::int32_t i) {
    return Dispatched(in[static_cast<std::size_t>(i)], i);
  });
}

TEST_P(Language, PointersToLocalsLeadToTheThreadsOwn) {
  Expect("pointer_to_local", {}, [](std::int32_t i) {
    std::array<std::int32_t, 4> state = {i, i + 1, i + 2, i + 3};
    for (std::int32_t k = 0; k < 3; ++k) {
      const std::int32_t by = i + k;
      if ((by & 1) != 0) state[static_cast<std::size_t>(by & 3)] += by;
      state[0] = state[0] * 5 + state[1];
    }
    return state[0] ^ state[1] ^ state[2] ^ state[3];
  });
}

TEST_P(Language, RecursionReturnsToEachCaller) {
  Expect("recursion", {}, [](std::int32_t i) {
    const std::int32_t n = i % 4;
    return i % 3 == 0 ? n + 1 : i % 3 == 1 ? n + 2 : 2 * n + 3;
  });
}

TEST_P(Language, VirtualCallsFindTheClass) {
  Expect("virtual_calls", {}, [](std::int32_t i) {
    return i % 3 == 0 ? 30 * (i + 1) * (i + 1) + 1 : 10 * i * i + 4;
  });
}

TEST_P(Language, FunctionPointersAndConstantsAreInitialized) {
  Expect("function_pointers", {}, [](std::int32_t i) {
    constexpr std::int32_t kPrimes[] = {2, 3, 5, 7, 11, 13, 17, 19};
    return (i % 3 == 0 ? 2 * i : i % 3 == 1 ? i * i : -i) + kPrimes[i % 8];
  });
}

TEST_P(Language, IntegersOf64And128Bits) {
  __extension__ using Whole = unsigned __int128;
  std::vector<std::uint64_t> in(128);
  for (auto& value : in) value = random_() >> (random_() % 64);
  const std::uint64_t out = memory().Allocate(64 * 48);
  Run("wide_integers", Params().Add(memory().Upload(in)).Add(out),
      {.grid = {2, 1, 1}, .block = {32, 1, 1}});
  const auto got = TestMemory::Download<std::uint64_t>(out, 6 * 64);
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint64_t a = in[2 * i];
    const std::uint64_t b = in[2 * i + 1] | 1;
    const Whole sum = static_cast<Whole>(a) * b + (static_cast<Whole>(b) << 60);
    const auto by = static_cast<std::int64_t>(b >> 40 | 3);
    const auto dividend = static_cast<std::int64_t>(a);
    EXPECT_EQ(got[6 * i], static_cast<std::uint64_t>(sum >> 64));
    EXPECT_EQ(got[6 * i + 1], static_cast<std::uint64_t>(sum));
    EXPECT_EQ(got[6 * i + 2], a / b);
    EXPECT_EQ(got[6 * i + 3], a % b);
    EXPECT_EQ(got[6 * i + 4], static_cast<std::uint64_t>(dividend / by));
    EXPECT_EQ(got[6 * i + 5], static_cast<std::uint64_t>(dividend % by));
  }
}

TEST_P(Language, AssemblerHasNamesOfItsOwn) {
  std::vector<std::int32_t> in(64);
  for (auto& value : in) {
    value = static_cast<std::int32_t>(random_() % 2000) - 1000;
  }
  const auto assembler = [](std::int32_t a, std::int32_t b) {
    return 3 * b + (a > b ? a - b : 0);
  };
  Expect("assembler", Params().Add(memory().Upload(in)), [&](std::int32_t i) {
    const std::int32_t x = in[static_cast<std::size_t>(i)];
    return assembler(x, x / 2) + assembler(i, 10);
  });
}

TEST_P(Language, PartsOfVectors) {
  std::vector<float> in(256);
  std::vector<float> more(256);
  for (auto& value : in) value = static_cast<float>(random_() % 1000);
  for (auto& value : more) value = static_cast<float>(random_() % 1000);
  const std::uint64_t out = memory().Allocate(64 * 4);
  Run("parts",
      Params().Add(memory().Upload(in)).Add(memory().Upload(more)).Add(out),
      {.grid = {2, 1, 1}, .block = {32, 1, 1}});
  const auto got = TestMemory::Download<float>(out, 64);
  for (std::size_t i = 0; i < 64; ++i) {
    ASSERT_EQ(got[i], in[4 * i] + in[4 * i + 3] + more[4 * i + 1]) << i;
  }
}

TEST_P(Language, VariablesHoldAddressesOfOthers) {
  Run("count", {}, {.grid = {3, 1, 1}, .block = {50, 1, 1}});
  const auto at = module_.AddressOf("counter");
  EXPECT_EQ(TestMemory::Download<std::uint32_t>(at, 1)[0], 190u);
}

// ---- numeric.cu

class Numeric : public Golden {
 protected:
  Numeric() : Golden("numeric") {}

  // Numbers of all sizes, and some that are special.
  std::vector<double> Numbers(std::size_t count) {
    constexpr double kSpecial[] = {0.0,      -0.0,   1.0, 0x1p-1074,
                                   0x1p1023, 1e-310, 3.0, 0x1p-1022};
    std::vector<double> numbers(count);
    for (std::size_t i = 0; i < count; ++i) {
      const double size =
          std::ldexp(1.0 + static_cast<double>(random_() >> 12) * 0x1p-52,
                     static_cast<int>(random_() % 600) - 300);
      numbers[i] = i % 5 == 0 ? kSpecial[random_() % 8] : size;
      if (random_() % 2 == 0) numbers[i] = -numbers[i];
    }
    return numbers;
  }
};
INSTANTIATE_TEST_SUITE_P(
    All, Numeric,
    ::testing::Combine(::testing::Values("sm_90", "sm_100"), kPolicies),
    VariantName);

template <typename T>
void ExpectSame(T got, T want, std::size_t i, const char* what) {
  if (std::isnan(want)) {
    ASSERT_TRUE(std::isnan(got)) << what << " " << i;
  } else {
    ASSERT_EQ(got, want) << what << " " << i;
    ASSERT_EQ(std::signbit(got), std::signbit(want)) << what << " " << i;
  }
}

TEST_P(Numeric, DivisionAndRootsOfDoublesAreExact) {
  const auto in = Numbers(512);
  const std::uint64_t out = memory().Allocate(256 * 32);
  Run("divide", Params().Add(memory().Upload(in)).Add(out),
      {.grid = {4, 1, 1}, .block = {64, 1, 1}});
  const auto got = TestMemory::Download<double>(out, 4 * 256);
  for (std::size_t i = 0; i < 256; ++i) {
    const double a = in[2 * i];
    const double b = in[2 * i + 1];
    ExpectSame(got[4 * i], a / b, i, "quotient");
    ExpectSame(got[4 * i + 1], std::sqrt(std::fabs(a)), i, "root");
    ExpectSame(got[4 * i + 2], std::fma(a, b, -a), i, "fma");
    ExpectSame(got[4 * i + 3], std::fmod(a, b), i, "fmod");
  }
}

TEST_P(Numeric, DivisionAndRootsOfFloatsAreExact) {
  std::vector<float> in;
  for (const double x : Numbers(512)) {
    in.push_back(static_cast<float>(std::fabs(x) < 1e38 ? x : 1e30));
  }
  const std::uint64_t out = memory().Allocate(256 * 16);
  Run("divide_single", Params().Add(memory().Upload(in)).Add(out),
      {.grid = {4, 1, 1}, .block = {64, 1, 1}});
  const auto got = TestMemory::Download<float>(out, 4 * 256);
  for (std::size_t i = 0; i < 256; ++i) {
    const float a = in[2 * i];
    const float b = in[2 * i + 1];
    ExpectSame(got[4 * i], a / b, i, "quotient");
    ExpectSame(got[4 * i + 1], std::sqrt(std::fabs(a)), i, "root");
    ExpectSame(got[4 * i + 2], 1.0f / b, i, "reciprocal");
    ExpectSame(got[4 * i + 3], std::rint(a) + std::trunc(b), i, "integral");
  }
}

// Within what the CUDA C++ Programming Guide says of each function, and a
// little for the host's.
TEST_P(Numeric, FunctionsAreAsNearAsTheCompilerPromises) {
  std::vector<double> in(256);
  for (std::size_t i = 0; i < in.size(); ++i) {
    in[i] = std::ldexp(static_cast<double>(random_() % 20001) - 10000.0,
                       i % 3 == 0 ? 30 : -8);
  }
  const std::uint64_t out = memory().Allocate(256 * 48);
  Run("functions", Params().Add(memory().Upload(in)).Add(out),
      {.grid = {4, 1, 1}, .block = {64, 1, 1}});
  const auto got = TestMemory::Download<double>(out, 6 * 256);
  for (std::size_t i = 0; i < 256; ++i) {
    const double x = in[i];
    const auto f = static_cast<float>(x);
    const std::array<double, 6> want = {
        std::sin(x),
        std::exp(x * 1e-3),
        std::log(std::fabs(x) + 0.5),
        std::pow(std::fabs(x), 0.37),
        std::sin(static_cast<double>(f)),
        std::exp(static_cast<double>(f * 1e-4f))};
    for (std::size_t k = 0; k < 6; ++k) {
      const double value = got[6 * i + k];
      if (std::isinf(want[k]) || want[k] == 0) continue;
      const double largest = k == 5 ? 3e38 : 1e300;
      if (want[k] > largest || want[k] < 1 / largest) {
        if (k == 1 || k == 5) continue;
      }
      const double part = k < 4 ? 0x1p-50 : 0x1p-21;
      ASSERT_NEAR(value, want[k], std::fabs(want[k]) * part)
          << k << " of " << x;
    }
  }
}

TEST_P(Numeric, ConversionsRoundAsTheirNamesSay) {
  std::vector<double> in(256);
  for (auto& value : in) {
    value = static_cast<double>(static_cast<std::int64_t>(random_() % 20001)) /
                8.0 -
            1000.0;
  }
  const std::uint64_t out = memory().Allocate(256 * 48);
  Run("conversions", Params().Add(memory().Upload(in)).Add(out),
      {.grid = {4, 1, 1}, .block = {64, 1, 1}});
  const auto got = TestMemory::Download<std::int64_t>(out, 6 * 256);
  for (std::size_t i = 0; i < 256; ++i) {
    const double x = in[i];
    EXPECT_EQ(got[6 * i], static_cast<std::int64_t>(x));
    EXPECT_EQ(got[6 * i + 1], static_cast<std::int64_t>(std::rint(x)));
    EXPECT_EQ(got[6 * i + 2], std::max<std::int64_t>(
                                  0, static_cast<std::int64_t>(std::ceil(x))));
    EXPECT_EQ(got[6 * i + 3], static_cast<std::int64_t>(std::floor(x)));
    EXPECT_EQ(std::bit_cast<double>(got[6 * i + 4]), std::rint(x) + 0.0);
    EXPECT_EQ(got[6 * i + 5], static_cast<std::int64_t>(x));
  }
}

// ---- sync.cu

class Together : public Golden {
 protected:
  Together() : Golden("sync") {}

  std::vector<std::int32_t> Numbers(std::size_t count) {
    std::vector<std::int32_t> numbers(count);
    for (auto& value : numbers) {
      value = static_cast<std::int32_t>(random_() % 1000);
    }
    return numbers;
  }
};
INSTANTIATE_TEST_SUITE_P(
    All, Together,
    ::testing::Combine(::testing::Values("sm_80", "sm_100"), kPolicies),
    VariantName);

TEST_P(Together, GridsMeetBetweenRounds) {
  constexpr std::int32_t kCells = 300;
  constexpr std::int32_t kRounds = 5;
  std::vector<std::int32_t> cells = Numbers(2 * kCells);
  const std::uint64_t at = memory().Upload(cells);
  Run("grid_rounds", Params().Add(at).Add(kCells).Add(kRounds),
      {.grid = {5, 1, 1},
       .block = {64, 1, 1},
       .cooperative = true,
       .threads = 3});
  for (std::int32_t round = 0; round < kRounds; ++round) {
    std::int32_t* from = cells.data() + (round & 1) * kCells;
    std::int32_t* to = cells.data() + (1 - (round & 1)) * kCells;
    for (std::int32_t i = 0; i < kCells; ++i) {
      to[i] =
          from[i] + from[(i + 1) % kCells] - from[(i + kCells - 7) % kCells];
    }
  }
  EXPECT_EQ(TestMemory::Download<std::int32_t>(at, 2 * kCells), cells);
}

TEST_P(Together, GroupsOfLanesCountForAllOfThem) {
  const auto in = Numbers(200);
  const std::uint64_t counts = memory().Allocate(32);
  Run("grouped_count", Params().Add(memory().Upload(in)).Add(200).Add(counts),
      {.grid = {2, 1, 1}, .block = {128, 1, 1}});
  std::vector<std::int32_t> want(8);
  std::vector<bool> seen(8);
  for (std::size_t i = 0; i < in.size(); ++i) {
    const auto value = static_cast<std::size_t>(in[i] & 7);
    if (value < 6) ++want[value];
    if (value == 7) seen[i / 32] = true;
  }
  want[7] =
      static_cast<std::int32_t>(std::count(seen.begin(), seen.end(), true));
  auto got = TestMemory::Download<std::int32_t>(counts, 8);
  // Who is there is what coalesced_threads() asks.
  if (std::get<1>(GetParam()) == LanePolicy::kApart) got[7] = want[7];
  EXPECT_EQ(got, want);
}

TEST_P(Together, TilesAddUpTheirOwn) {
  const auto in = Numbers(128);
  const std::uint64_t out = memory().Allocate(64);
  Run("tile_sums", Params().Add(memory().Upload(in)).Add(out),
      {.grid = {2, 1, 1}, .block = {64, 1, 1}});
  const auto got = TestMemory::Download<std::int32_t>(out, 16);
  for (std::ptrdiff_t t = 0; t < 16; ++t) {
    const auto first = in.begin() + 8 * t;
    EXPECT_EQ(got[static_cast<std::size_t>(t)],
              std::accumulate(first, first + 8, 0));
  }
}

TEST_P(Together, BlocksLookBackAtThoseBefore) {
  const auto in = Numbers(2000);
  const std::uint64_t out = memory().Allocate(2000 * 4);
  const std::uint64_t status = memory().Allocate(32 * 8);
  const std::uint64_t next = memory().Allocate(4);
  Run("scan",
      Params()
          .Add(memory().Upload(in))
          .Add(out)
          .Add(2000)
          .Add(status)
          .Add(next),
      {.grid = {16, 1, 1}, .block = {128, 1, 1}, .threads = 3});
  std::vector<std::int32_t> want(in.size());
  std::partial_sum(in.begin(), in.end(), want.begin());
  EXPECT_EQ(TestMemory::Download<std::int32_t>(out, 2000), want);
}

TEST_P(Together, ThreadsTakeMemoryAssertAndPrint) {
  const std::uint64_t out = memory().Allocate(32 * 4);
  Run("list", Params().Add(out), {.block = {32, 1, 1}});
  const auto got = TestMemory::Download<std::int32_t>(out, 32);
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(got[i], static_cast<std::int32_t>(6 * i));
  }
  EXPECT_EQ(memory().printed(), "thread 5 has 30, text, 0.50\n");
}

}  // namespace
}  // namespace pos::ptx::testing
