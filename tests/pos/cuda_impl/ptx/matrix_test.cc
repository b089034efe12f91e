// Matrix instructions in whole kernels: what nvcc makes of nvcuda::wmma and of
// mma.sync with ldmatrix, against the host; lanes that come together, or
// cannot; addresses that are wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "body_case.h"
#include "harness.h"

namespace pos::ptx::testing {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<std::uint8_t>;

template <typename T>
void Append(Bytes* bytes, T value) {
  const std::size_t at = bytes->size();
  bytes->resize(at + sizeof(T));
  std::memcpy(bytes->data() + at, &value, sizeof(T));
}

// Numbers that the formats hold exactly: multiples of 1/8 below 16.
std::uint16_t Half(double value) {
  if (value == 0) return 0;
  int exponent = 0;
  const double mantissa = std::frexp(std::fabs(value), &exponent);
  const auto bits = static_cast<std::uint16_t>(
      (exponent + 14) << 10 | (static_cast<int>(mantissa * 2048) & 0x3ff));
  return static_cast<std::uint16_t>(bits | (value < 0 ? 0x8000 : 0));
}
double FromHalf(std::uint16_t bits) {
  const int field = bits >> 10 & 31;
  const double size = field == 0
                          ? std::ldexp(bits & 0x3ff, -24)
                          : std::ldexp(1024 + (bits & 0x3ff), field - 25);
  return (bits & 0x8000) != 0 ? -size : size;
}
std::uint16_t Bfloat(double value) {
  const auto narrow = static_cast<float>(value);
  std::uint32_t bits = 0;
  std::memcpy(&bits, &narrow, 4);
  return static_cast<std::uint16_t>(bits >> 16);
}

using Put = void (*)(Bytes*, double);
using Get = double (*)(const std::uint8_t*);

void PutHalf(Bytes* b, double v) { Append(b, Half(v)); }
void PutBfloat(Bytes* b, double v) { Append(b, Bfloat(v)); }
void PutFloat(Bytes* b, double v) { Append(b, static_cast<float>(v)); }
void PutDouble(Bytes* b, double v) { Append(b, v); }
void PutInt(Bytes* b, double v) { Append(b, static_cast<std::int32_t>(v)); }
void PutS8(Bytes* b, double v) { Append(b, static_cast<std::int8_t>(v)); }
void PutU8(Bytes* b, double v) {
  Append(b, static_cast<std::uint8_t>(static_cast<int>(v) & 0xff));
}
template <typename T>
double Read(const std::uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return static_cast<double>(value);
}
double ReadHalf(const std::uint8_t* at) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, at, 2);
  return FromHalf(bits);
}

struct Product {
  const char* kernel;
  int m, n, k;  // of one tile
  Put put;
  Put put_sum;
  Get get_sum;
  std::size_t sum_bytes;
  int low, high;     // factors
  double unit;       // that they are multiples of
  bool adds = true;  // to what D holds
  bool b_by_row = false;
};

constexpr Product kProducts[] = {
    {"tiles_half_float", 16, 16, 16, PutHalf, PutFloat, Read<float>, 4, -20, 20,
     0.125},
    {"tiles_half_float_wide", 8, 32, 16, PutHalf, PutFloat, Read<float>, 4, -20,
     20, 0.125},
    {"tiles_half_float_tall", 32, 8, 16, PutHalf, PutFloat, Read<float>, 4, -20,
     20, 0.125},
    {"tiles_half_half", 16, 16, 16, PutHalf, PutHalf, ReadHalf, 2, -2, 2, 1},
    {"tiles_bfloat", 16, 16, 16, PutBfloat, PutFloat, Read<float>, 4, -20, 20,
     0.125},
    {"tiles_s8", 16, 16, 16, PutS8, PutInt, Read<std::int32_t>, 4, -128, 127,
     1},
    {"tiles_u8", 32, 8, 16, PutU8, PutInt, Read<std::int32_t>, 4, 0, 255, 1},
    {"tiles_double", 8, 8, 4, PutDouble, PutDouble, Read<double>, 8, -1000,
     1000, 0.125},
    {"gemm_mma_half", 16, 8, 16, PutHalf, PutFloat, Read<float>, 4, -20, 20,
     0.125, false, true},
    {"gemm_mma_bfloat", 16, 8, 16, PutBfloat, PutFloat, Read<float>, 4, -20, 20,
     0.125, false, true},
};

class MatrixKernels : public ::testing::TestWithParam<IsaLevel> {
 protected:
  MatrixKernels() : module_(GoldenPtx("matrix.sm_90.ptx"), GetParam()) {}
  std::uint64_t Upload(const Bytes& bytes) {
    return module_.memory().Upload(bytes);
  }
  TestModule module_;
  std::mt19937 random_{17};
};
std::string LevelName(const ::testing::TestParamInfo<IsaLevel>& info) {
  std::string name(IsaLevelName(info.param));
  for (char& c : name) {
    if (c == '-') c = '_';
  }
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, MatrixKernels,
                         ::testing::ValuesIn(RunnableLevels()), LevelName);

// Sums that every order of additions gives exactly.
TEST_P(MatrixKernels, ProductsAreExactWhereTheirSumsAre) {
  for (const Product& product : kProducts) {
    SCOPED_TRACE(product.kernel);
    const int rows = 2 * product.m;
    const int columns = 3 * product.n;
    const int depth = 3 * product.k;
    const auto value = [&] {
      const auto span =
          static_cast<std::uint32_t>(product.high - product.low + 1);
      return product.unit * (static_cast<int>(random_() % span) + product.low);
    };
    const auto size = [](int a, int b) {
      return static_cast<std::size_t>(a * b);
    };
    std::vector<double> a(size(rows, depth));
    std::vector<double> b(size(depth, columns));
    std::vector<double> d(size(rows, columns));
    Bytes in[3];
    for (double& x : a) product.put(&in[0], x = value());
    for (double& x : b) product.put(&in[1], x = value());
    for (double& x : d) product.put_sum(&in[2], x = product.adds ? value() : 0);
    const std::uint64_t at = Upload(in[2]);
    Params params;
    params.Add(Upload(in[0]))
        .Add(Upload(in[1]))
        .Add(at)
        .Add(columns)
        .Add(depth);
    const LaunchResult result =
        module_.Launch(product.kernel, params,
                       {.grid = {3, 2, 1}, .block = {32, 1, 1}, .threads = 2});
    ASSERT_TRUE(result.finished);
    ASSERT_FALSE(result.fault) << result.fault->text;
    const auto got = TestMemory::Download<std::uint8_t>(at, in[2].size());
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) {
        double want = d[size(r, columns) + static_cast<std::size_t>(c)];
        for (int k = 0; k < depth; ++k) {
          const std::size_t e =
              product.b_by_row ? size(k, columns) + static_cast<std::size_t>(c)
                               : size(c, depth) + static_cast<std::size_t>(k);
          want += a[size(r, depth) + static_cast<std::size_t>(k)] * b[e];
        }
        const std::size_t e = size(r, columns) + static_cast<std::size_t>(c);
        ASSERT_EQ(product.get_sum(got.data() + e * product.sum_bytes), want)
            << r << ", " << c;
      }
    }
  }
}

// Any numbers: each step cuts off less than 2^-23 of its largest summand.
TEST_P(MatrixKernels, SharedMemoryGemmIsCloseToTheSumInDouble) {
  constexpr int kSize = 128;
  constexpr int kDepth = 96;
  constexpr float kScale = 0.75f;
  std::vector<std::uint16_t> a(kSize * kDepth);
  std::vector<std::uint16_t> b(kSize * kDepth);
  for (auto* matrix : {&a, &b}) {
    for (std::uint16_t& x : *matrix) {
      x = static_cast<std::uint16_t>((random_() & 0x83ff) | (8 + random_() % 9)
                                                                << 10);
    }
  }
  const std::uint64_t d =
      module_.memory().Allocate(kSize * kSize * sizeof(float));
  Params params;
  params.Add(module_.memory().Upload(a))
      .Add(module_.memory().Upload(b))
      .Add(d)
      .Add(kSize)
      .Add(kDepth)
      .Add(kScale);
  const LaunchResult result =
      module_.Launch("gemm_wmma", params,
                     {.grid = {2, 2, 1}, .block = {128, 1, 1}, .threads = 2});
  ASSERT_TRUE(result.finished);
  ASSERT_FALSE(result.fault) << result.fault->text;
  const auto got = TestMemory::Download<float>(d, kSize * kSize);
  for (std::size_t r = 0; r < kSize; ++r) {
    for (std::size_t c = 0; c < kSize; ++c) {
      double sum = 0;
      double size = 0;
      for (std::size_t k = 0; k < kDepth; ++k) {
        const double x =
            FromHalf(a[r * kDepth + k]) * FromHalf(b[c * kDepth + k]);
        sum += x;
        size += std::fabs(x);
      }
      const double bound = size * (kDepth / 16) * 17 * 0x1p-24 + size * 0x1p-23;
      ASSERT_NEAR(static_cast<double>(got[r * kSize + c]),
                  static_cast<double>(kScale) * sum, bound)
          << r << ", " << c;
    }
  }
}

TEST_P(MatrixKernels, Tf32InputsLoseTheirLowBits) {
  constexpr std::size_t kDepth = 16;
  std::vector<float> a(16 * kDepth);
  std::vector<float> b(16 * kDepth);
  const auto cut = [](float x) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &x, 4);
    bits &= 0xffffe000;
    std::memcpy(&x, &bits, 4);
    return static_cast<double>(x);
  };
  // 1 + something below tf32's last bit.
  for (float& x : a) x = 1.0f + static_cast<float>(random_() % 8192) * 0x1p-23f;
  for (float& x : b) x = static_cast<float>(random_() % 64);
  const std::uint64_t d = module_.memory().Allocate(16 * 16 * sizeof(float));
  Params params;
  params.Add(module_.memory().Upload(a))
      .Add(module_.memory().Upload(b))
      .Add(d)
      .Add(static_cast<int>(kDepth));
  const LaunchResult result = module_.Launch("tile_tf32", params);
  ASSERT_FALSE(result.fault) << result.fault->text;
  const auto got = TestMemory::Download<float>(d, 256);
  for (std::size_t r = 0; r < 16; ++r) {
    for (std::size_t c = 0; c < 16; ++c) {
      double want = 0;
      for (std::size_t k = 0; k < kDepth; ++k) {
        want += cut(a[r * kDepth + k]) * cut(b[c * kDepth + k]);
      }
      ASSERT_EQ(static_cast<double>(got[r * 16 + c]), want) << r << ", " << c;
    }
  }
}

// ---- Lanes and addresses.

LaunchResult RunBody(const std::string& body, std::uint32_t threads = 32,
                     const std::string& module_text = "") {
  BodyCase test;
  test.body = body;
  test.module = module_text;
  TestModule module(TextOf(test));
  Params params;
  params.Add(module.memory().Allocate(4096))
      .Add(module.memory().Allocate(8192));
  return module.Launch("k", params, {.block = {threads, 1, 1}});
}

constexpr const char* kMma =
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r2, %r3, %r4, %r5}, "
    "{%r6, %r7, %r8, %r9}, {%r10, %r11}, {%r12, %r13, %r14, %r15};\n";

void ExpectFault(const LaunchResult& result, std::int32_t error,
                 const std::string& text) {
  ASSERT_TRUE(result.finished);
  ASSERT_TRUE(result.fault);
  EXPECT_EQ(result.fault->error, error) << result.fault->text;
  EXPECT_THAT(result.fault->text, HasSubstr(text));
}

TEST(MatrixLanes, ThatWentDifferentWaysComeTogether) {
  const LaunchResult result = RunBody(
      "and.b32 %r20, %i, 3;\nsetp.eq.u32 %p1, %r20, 0;\n@%p1 bra ODD;\n"
      "mov.u32 %r21, 1;\nbra MEET;\nODD:\nmov.u32 %r21, 2;\nMEET:\n" +
      std::string(kMma) + "st.global.u32 [%out], %r21;\n");
  EXPECT_TRUE(result.finished);
  EXPECT_FALSE(result.fault) << result.fault->text;
}

// Lane 0 spins until others, on their way to the product, have set a flag: they
// wait for it there.
TEST(MatrixLanes, WaitForThoseThatComeLater) {
  BodyCase test;
  test.module = ".shared .align 4 .b8 flag[4];\n";
  test.body =
      "mov.u32 %r30, flag;\nmov.b32 %r20, 0;\n"
      "st.volatile.shared.u32 [%r30], %r20;\nbar.warp.sync -1;\n"
      "mov.b32 %r6, 0x3f800000;\nmov.b32 %r7, %r6;\nmov.b32 %r8, %r6;\n"
      "mov.b32 %r9, %r6;\nmov.b32 %r10, %r6;\nmov.b32 %r11, %r6;\n"
      "mov.b32 %r12, 0;\nmov.b32 %r13, 0;\nmov.b32 %r14, 0;\n"
      "mov.b32 %r15, 0;\n"
      "setp.ne.u32 %p1, %i, 0;\n@%p1 bra OTHERS;\nSPIN:\n"
      "ld.volatile.shared.u32 %r20, [%r30];\nsetp.eq.u32 %p2, %r20, 0;\n"
      "@%p2 bra SPIN;\nbra MEET;\nOTHERS:\nmov.b32 %r20, 1;\n"
      "st.volatile.shared.u32 [%r30], %r20;\nMEET:\n" +
      std::string(kMma) + "st.global.u32 [%out], %r2;\n";
  test.opcode = "mma";
  for (std::size_t lane = 0; lane < 32; ++lane) test.Want(lane) = 0x41000000;
  for (const IsaLevel level : RunnableLevels()) CheckBody(test, level);
}

TEST(MatrixLanes, MayAllBeExcludedByAGuard) {
  const LaunchResult result = RunBody("setp.lt.s32 %p1, %i, 0;\n@%p1 " +
                                      std::string(kMma) + "@!%p1 " + kMma);
  EXPECT_TRUE(result.finished);
  EXPECT_FALSE(result.fault) << result.fault->text;
}

TEST(MatrixLanes, ThatNeverComeAreADeadlock) {
  ExpectFault(RunBody("setp.lt.s32 %p1, %i, 16;\n@%p1 bra LOW;\n" +
                      std::string(kMma) + "bra END;\nLOW:\n" + kMma + "END:\n"),
              719, "deadlock");
}

TEST(MatrixLanes, ThatHaveExitedAreMissed) {
  ExpectFault(
      RunBody("setp.eq.s32 %p1, %i, 31;\n@%p1 exit;\n" + std::string(kMma)),
      715, "32 threads");
  ExpectFault(RunBody(kMma, 31), 715, "mma.sync");
  ExpectFault(
      RunBody("mov.u32 %r2, 0;\n"
              "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r3}, [%r2];\n",
              16, ".shared .align 16 .b8 s[512];\n"),
      715, "ldmatrix");
}

// The instruction, with `address` in the place of "@".
struct Access {
  const char* text;
  int bytes;      // that it reaches, of a matrix without gaps
  int alignment;  // that its rows need
};
constexpr Access kAccesses[] = {
    {"wmma.load.a.sync.aligned.row.m16n16k16$.f16 {%r2, %r3, %r4, %r5, %r6, "
     "%r7, %r8, %r9}, [@], 16;\n",
     512, 4},
    {"wmma.load.b.sync.aligned.row.m16n16k16$.s8 {%r2, %r3}, [@], 16;\n", 256,
     1},
    {"wmma.load.c.sync.aligned.col.m8n8k4$.f64 {%d2, %d3}, [@], 8;\n", 512, 8},
    {"wmma.store.d.sync.aligned.row.m16n16k16$.f32 [@], {%r2, %r3, %r4, %r5, "
     "%r6, %r7, %r8, %r9}, 16;\n",
     1024, 8},
};

std::string Filled(const Access& access, const std::string& space,
                   const std::string& address) {
  std::string text = access.text;
  text.replace(text.find('$'), 1, space);
  text.replace(text.find('@'), 1, address);
  return text;
}

TEST(MatrixAddresses, AreCheckedForEveryRow) {
  const std::string shared = ".shared .align 16 .b8 s[2048];\n";
  for (const Access& access : kAccesses) {
    SCOPED_TRACE(access.text);
    // Up to the very end of 4096 bytes, and one element's alignment further.
    const int last = 4096 - access.bytes;
    const auto at = [](const char* base, int offset) {
      return std::string(base) + "+" + std::to_string(offset);
    };
    const LaunchResult fits =
        RunBody(Filled(access, ".global", at("%in", last)));
    EXPECT_FALSE(fits.fault) << fits.fault->text;
    for (const char* space : {".global", ""}) {
      ExpectFault(
          RunBody(Filled(access, space, at("%in", last + access.alignment))),
          700, "outside of every allocation");
    }
    const int last_shared = 2048 - access.bytes;
    const LaunchResult fits_shared =
        RunBody("mov.u32 %r30, s;\n" +
                    Filled(access, ".shared", at("%r30", last_shared)),
                32, shared);
    EXPECT_FALSE(fits_shared.fault) << fits_shared.fault->text;
    ExpectFault(RunBody("mov.u32 %r30, s;\n" +
                            Filled(access, ".shared",
                                   at("%r30", last_shared + access.alignment)),
                        32, shared),
                700, "shared memory");
    ExpectFault(RunBody("mov.u32 %r30, s;\ncvt.u64.u32 %d30, %r30;\n"
                        "cvta.shared.u64 %d30, %d30;\n" +
                            Filled(access, "",
                                   at("%d30", last_shared + access.alignment)),
                        32, shared),
                700, "shared memory");
    if (access.alignment > 1) {
      ExpectFault(
          RunBody(Filled(access, ".global", at("%in", access.alignment / 2))),
          716, "misaligned");
    }
  }
}

TEST(MatrixAddresses, OfLocalMemoryAreRefused) {
  ExpectFault(RunBody(".local .align 32 .b8 mine[512];\n"
                      "mov.u64 %d30, mine;\ncvta.local.u64 %d30, %d30;\n" +
                      Filled(kAccesses[0], "", "%d30")),
              717, "neither in global nor in shared");
  ExpectFault(RunBody("ldmatrix.sync.aligned.m8n8.x1.b16 {%r3}, [%in];\n"), 717,
              "not in shared");
}

TEST(MatrixAddresses, OfRowsAreCheckedWhereTheyAreUsed) {
  const std::string shared = ".shared .align 16 .b8 s[512];\n";
  // Lanes from 8 on have addresses that nobody uses.
  const std::string rows =
      "mov.u32 %r30, s;\nmul.lo.u32 %r31, %i, 64;\nadd.u32 %r30, %r30, %r31;\n";
  const LaunchResult one = RunBody(
      rows + "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r3}, [%r30];\n", 32,
      shared);
  EXPECT_FALSE(one.fault) << one.fault->text;
  ExpectFault(
      RunBody(rows + "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r3, %r4}, "
                     "[%r30];\n",
              32, shared),
      700, "thread (8,0,0)");
  ExpectFault(
      RunBody(rows + "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r30+8], "
                     "{%r3};\n",
              32, shared),
      716, "misaligned");
}

TEST(MatrixNames, ThatAreNotSupportedMakeTheKernelUnlaunchable) {
  for (const char* opcode :
       {"mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
        "mma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f32.e3m2.e3m2.f32",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16"}) {
    BodyCase test;
    test.body = std::string(opcode) + " {%r2}, {%r3}, {%r4}, {%r5};\n";
    const auto module = Module::Parse(TextOf(test));
    ASSERT_TRUE(module.ok());
    LoadedModule loaded(*module, {});
    const auto kernel = loaded.GetKernel("k");
    ASSERT_FALSE(kernel.ok());
    EXPECT_THAT(kernel.status().message(), HasSubstr(opcode));
  }
}

TEST(MatrixNames, WithFragmentsOfAnotherSizeAreRefused) {
  BodyCase test;
  test.body =
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r2, %r3, %r4, "
      "%r5}, {%r6, %r7}, {%r10, %r11}, {%r12, %r13, %r14, %r15};\n";
  const auto module = Module::Parse(TextOf(test));
  ASSERT_TRUE(module.ok());
  LoadedModule loaded(*module, {});
  EXPECT_THAT(loaded.GetKernel("k").status().message(),
              HasSubstr("2 registers, not 4"));
}

}  // namespace
}  // namespace pos::ptx::testing
