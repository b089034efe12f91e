// What device code calls and nobody links: printf, malloc and free, assert.
// PTX as nvcc writes it for these.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "harness.h"

namespace pos::ptx::testing {
namespace {

using ::testing::HasSubstr;

constexpr const char* kHead = R"(.version 8.0
.target sm_90
.address_size 64
.extern .func (.param .b32 func_retval0) vprintf
(.param .b64 vprintf_param_0, .param .b64 vprintf_param_1);
.extern .func (.param .b64 func_retval0) malloc(.param .b64 malloc_param_0);
.extern .func free(.param .b64 free_param_0);
.extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c,
                           .param .b64 d, .param .b64 e);
)";

std::string Bytes(const std::string& text) {
  std::string list;
  for (const char c : text) {
    list += std::to_string(static_cast<unsigned char>(c)) + ", ";
  }
  return list + "0";
}

std::string StringVariable(const std::string& name, const std::string& text) {
  return ".global .align 1 .b8 " + name + "[" +
         std::to_string(text.size() + 1) + "] = {" + Bytes(text) + "};\n";
}

// Prints `format` with arguments that `store` puts at [%SP…].
std::string PrintKernel(const std::string& format, const std::string& store) {
  return kHead + StringVariable("text", format) +
         StringVariable("word", "warp") + R"(
.visible .entry k(.param .u64 p)
{
.local .align 8 .b8 depot[64];
.reg .b64 %SP, %SPL, %d<9>;
.reg .b32 %r<9>;
mov.u64 %SPL, depot;
cvta.local.u64 %SP, %SPL;
ld.param.u64 %d7, [p];
mov.u32 %r1, %tid.x;
)" + store +
         R"(
mov.u64 %d1, text;
cvta.global.u64 %d2, %d1;
{ // callseq 0, 0
.param .b64 param0;
st.param.b64 [param0+0], %d2;
.param .b64 param1;
st.param.b64 [param1+0], %SP;
.param .b32 retval0;
call.uni (retval0), vprintf, (param0, param1);
ld.param.b32 %r2, [retval0+0];
} // callseq 0
st.global.u32 [%d7], %r2;
ret;
}
)";
}

std::string Printed(const std::string& format, const std::string& store,
                    std::uint32_t threads = 1) {
  TestModule module(PrintKernel(format, store));
  Params params;
  params.Add(module.memory().Allocate(8));
  const auto result = module.Launch("k", params, {.block = {threads, 1, 1}});
  EXPECT_FALSE(result.fault.has_value()) << result.fault->text;
  return module.memory().printed();
}

TEST(Printf, IntegersOfEveryLength) {
  EXPECT_EQ(Printed("%d %u %x %05d|%-6d|%+d\n", R"(
st.local.u32 [%SPL], -7;
st.local.u32 [%SPL+4], -1;
st.local.u32 [%SPL+8], 48879;
st.local.u32 [%SPL+12], 42;
st.local.u32 [%SPL+16], 42;
st.local.u32 [%SPL+20], 5;
)"),
            "-7 4294967295 beef 00042|42    |+5\n");
  EXPECT_EQ(Printed("%lld %llx %d", R"(
st.local.u64 [%SPL], -5000000000;
st.local.u64 [%SPL+8], 0xfeedfacecafebeef;
st.local.u32 [%SPL+16], 3;
)"),
            "-5000000000 feedfacecafebeef 3");
  EXPECT_EQ(Printed("%hd %hhu %c %%", R"(
st.local.u32 [%SPL], 0x18000;
st.local.u32 [%SPL+4], 0x1ff;
st.local.u32 [%SPL+8], 65;
)"),
            "-32768 255 A %");
}

// A double is aligned to eight bytes after an int.
TEST(Printf, FloatsStringsAndPointers) {
  EXPECT_EQ(Printed("%d %f %.2e %g", R"(
st.local.u32 [%SPL], 1;
st.local.f64 [%SPL+8], 0d3FF8000000000000;
st.local.f64 [%SPL+16], 0dC0C3880000000000;
st.local.f64 [%SPL+24], 0d3FE0000000000000;
)"),
            "1 1.500000 -1.00e+04 0.5");
  EXPECT_EQ(Printed("%s|%8s|%p", R"(
mov.u64 %d1, word;
st.local.u64 [%SPL], %d1;
st.local.u64 [%SPL+8], %d1;
st.local.u64 [%SPL+16], 4096;
)"),
            "warp|    warp|0x1000");
  EXPECT_EQ(Printed("%*d|%.*f", R"(
st.local.u32 [%SPL], 6;
st.local.u32 [%SPL+4], 42;
st.local.u32 [%SPL+8], 1;
st.local.f64 [%SPL+16], 0d4004000000000000;
)"),
            "    42|2.5");
}

// Numbers and strings longer than any buffer, and no string.
TEST(Printf, LongAndAbsentStrings) {
  const std::string number = Printed("%f|%.400f", R"(
st.local.f64 [%SPL], 0d7FE1CCF385EBC8A0;
st.local.f64 [%SPL+8], 0d7FE1CCF385EBC8A0;
)");
  ASSERT_EQ(number.size(), 309 + 7 + 1 + 309 + 1 + 400u);
  EXPECT_EQ(number.substr(0, 8), "10000000");
  EXPECT_EQ(number.substr(number.size() - 400), std::string(400, '0'));
  EXPECT_EQ(Printed("%s|%8s", R"(
st.local.u64 [%SPL], 0;
st.local.u64 [%SPL+8], 0;
)"),
            "(null)|  (null)");
  const std::string kLong(700, 'x');
  EXPECT_EQ(Printed("%2s|" + kLong, R"(
mov.u64 %d1, text;
add.u64 %d1, %d1, 4;
st.local.u64 [%SPL], %d1;
)"),
            kLong + "|" + kLong);
}

TEST(Printf, EachThreadPrintsItsOwn) {
  const std::string text = Printed("%u;", "st.local.u32 [%SPL], %r1;\n", 40);
  for (int i = 0; i < 40; ++i) {
    EXPECT_THAT(text, HasSubstr(std::to_string(i) + ";"));
  }
  EXPECT_EQ(std::count(text.begin(), text.end(), ';'), 40);
}

// Widths and conversions that a hostile format asks for cost nothing.
TEST(Printf, FormatsFromNowhere) {
  EXPECT_LT(Printed("%2000000000d", "st.local.u32 [%SPL], 1;\n").size(), 5000u);
  EXPECT_LT(
      Printed("%.2000000000f", "st.local.f64 [%SPL], 0d3FF0000000000000;\n")
          .size(),
      5000u);
  EXPECT_EQ(Printed("%y", ""), "%y");
  TestModule module(PrintKernel("%s", "st.local.u64 [%SPL], 64;\n"));
  Params params;
  params.Add(module.memory().Allocate(8));
  const auto result = module.Launch("k", params, {.block = {1, 1, 1}});
  ASSERT_TRUE(result.fault.has_value());
  EXPECT_EQ(result.fault->error, 700);
}

TEST(Assert, PrintsWhereAndEndsTheLaunch) {
  TestModule module(std::string(kHead) + StringVariable("what", "i < n") +
                    StringVariable("file", "a.cu") +
                    StringVariable("func", "void f(int)") + R"(
.visible .entry k(.param .u32 n)
{
.reg .b64 %d<9>;
.reg .b32 %r<9>;
.reg .pred %p;
ld.param.u32 %r2, [n];
mov.u32 %r1, %tid.x;
setp.lt.u32 %p, %r1, %r2;
@%p bra OK;
mov.u64 %d1, what;
mov.u64 %d2, file;
mov.u64 %d3, func;
{
.param .b64 param0;
st.param.b64 [param0], %d1;
.param .b64 param1;
st.param.b64 [param1], %d2;
.param .b32 param2;
st.param.b32 [param2], 17;
.param .b64 param3;
st.param.b64 [param3], %d3;
.param .b64 param4;
st.param.b64 [param4], 1;
call.uni __assertfail, (param0, param1, param2, param3, param4);
}
OK:
ret;
}
)");
  Params passes;
  passes.Add(64);
  EXPECT_FALSE(
      module.Launch("k", passes, {.block = {64, 1, 1}}).fault.has_value());
  Params fails;
  fails.Add(63);
  const auto result = module.Launch("k", fails, {.block = {64, 1, 1}});
  ASSERT_TRUE(result.fault.has_value());
  EXPECT_EQ(result.fault->error, 710);
  EXPECT_EQ(module.memory().printed(),
            "a.cu:17: void f(int): block: [0,0,0], thread: [63,0,0] Assertion "
            "`i < n` failed.\n");
}

TEST(Malloc, GivesMemoryThatOtherThreadsUse) {
  TestModule module(std::string(kHead) + R"(
.visible .entry k(.param .u64 p)
{
.reg .b64 %d<9>;
.reg .b32 %r<9>;
ld.param.u64 %d1, [p];
mov.u32 %r1, %tid.x;
mul.wide.u32 %d2, %r1, 8;
add.u64 %d1, %d1, %d2;
{
.param .b64 param0;
st.param.b64 [param0], 16;
.param .b64 retval0;
call.uni (retval0), malloc, (param0);
ld.param.b64 %d3, [retval0];
}
st.u32 [%d3+12], %r1;
st.global.u64 [%d1], %d3;
bar.sync 0;
ld.global.u64 %d4, [%d1];
ld.u32 %r2, [%d4+12];
{
.param .b64 param0;
st.param.b64 [param0], %d4;
call.uni free, (param0);
}
cvt.u64.u32 %d5, %r2;
st.global.u64 [%d1], %d5;
ret;
}
.visible .entry twice(.param .u64 p)
{
.reg .b64 %d<9>;
ld.param.u64 %d1, [p];
{
.param .b64 param0;
st.param.b64 [param0], %d1;
call.uni free, (param0);
}
ret;
}
)");
  const auto out = module.memory().Allocate(64 * 8);
  Params params;
  params.Add(out);
  const auto result = module.Launch("k", params, {.block = {64, 1, 1}});
  ASSERT_FALSE(result.fault.has_value()) << result.fault->text;
  const auto got = TestMemory::Download<std::uint64_t>(out, 64);
  for (std::uint64_t i = 0; i < 64; ++i) EXPECT_EQ(got[i], i);
  // What malloc did not return.
  const auto bad = module.Launch("twice", params, {.block = {1, 1, 1}});
  ASSERT_TRUE(bad.fault.has_value());
  EXPECT_EQ(bad.fault->error, 700);
  EXPECT_THAT(bad.fault->text, HasSubstr("free"));
}

}  // namespace
}  // namespace pos::ptx::testing
