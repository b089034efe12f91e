// Accesses that are not allowed end the launch before they are made, with the
// error that CUDA has for them and a text that says which kernel, block, thread
// and instruction, and the address.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "harness.h"

namespace pos::ptx::testing {
namespace {

using ::testing::HasSubstr;
using u64 = std::uint64_t;

constexpr const char* kHead = ".version 8.0\n.target sm_90\n.address_size 64\n";

// A kernel of one 64-bit parameter in %d1; %d2 is 8 * thread number.
std::string KernelOf(const std::string& name, const std::string& body) {
  return ".visible .entry " + name + "(.param .u64 p)\n{\n" +
         R"(.reg .b64 %d<10>;
.reg .b32 %r<10>;
.reg .b128 %q<2>;
.reg .pred %p<4>;
ld.param.u64 %d1, [p];
mov.u32 %r1, %tid.x;
mov.u32 %r2, %ctaid.x;
mul.wide.u32 %d2, %r1, 8;
)" + body +
         "\nret;\n}\n";
}

class Faults : public ::testing::TestWithParam<IsaLevel> {
 protected:
  Fault RunAt(const std::string& body, u64 argument) {
    module_ = std::make_unique<TestModule>(
        std::string(kHead) + KernelOf("faulty", body), GetParam());
    Params params;
    params.Add(argument);
    const auto result = module_->Launch(
        "faulty", params, {.grid = {3, 1, 1}, .block = {64, 1, 1}});
    EXPECT_TRUE(result.fault.has_value()) << body;
    return result.fault.value_or(Fault());
  }
  std::unique_ptr<TestModule> module_;
};

INSTANTIATE_TEST_SUITE_P(Levels, Faults, ::testing::ValuesIn(RunnableLevels()),
                         [](const ::testing::TestParamInfo<IsaLevel>& level) {
                           return std::to_string(static_cast<int>(level.param));
                         });

TEST_P(Faults, LoadBeyondAnAllocationNamesKernelThreadAndAddress) {
  TestMemory outside;
  const u64 at = outside.Allocate(64 * 8);  // of another view: not found
  const Fault fault =
      RunAt("add.u64 %d3, %d1, %d2;\nld.global.u64 %d4, [%d3];", at);
  EXPECT_EQ(fault.error, 700);
  EXPECT_EQ(fault.address, at);
  EXPECT_THAT(fault.text, HasSubstr("kernel faulty"));
  EXPECT_THAT(fault.text, HasSubstr("thread (0,0,0)"));
  EXPECT_THAT(fault.text, HasSubstr("ld.global.u64"));
  EXPECT_THAT(fault.text, HasSubstr("line 15"));
}

// The first byte beyond, found by the lane that touches it; lanes before it
// have stored.
TEST_P(Faults, StoresUpToTheEndAreMade) {
  for (const bool guarded : {false, true}) {
    const std::string body =
        "setp.ge.u32 %p1, %r1, 3;\nadd.u64 %d3, %d1, %d2;\n" +
        std::string(guarded ? "@%p1 " : "") + "st.global.u64 [%d3], %d3;";
    TestModule module(std::string(kHead) + KernelOf("faulty", body),
                      GetParam());
    const u64 at = module.memory().Allocate(20 * 8);
    Params params;
    params.Add(at);
    const auto result = module.Launch("faulty", params, {.block = {32, 1, 1}});
    ASSERT_TRUE(result.fault.has_value());
    EXPECT_EQ(result.fault->error, 700);
    EXPECT_EQ(result.fault->address, at + 20 * 8);
    EXPECT_THAT(result.fault->text, HasSubstr("thread (20,0,0)"));
    const auto stored = TestMemory::Download<u64>(at, 20);
    for (u64 i = 0; i < 20; ++i) {
      EXPECT_EQ(stored[i], guarded && i < 3 ? 0 : at + 8 * i) << i;
    }
  }
}

// One byte over the end, at every access size.
TEST_P(Faults, AccessesThatStraddleTheEnd) {
  for (const char* access :
       {"ld.global.u16 %r4, [%d1]", "ld.global.u32 %r4, [%d1]",
        "ld.global.u64 %d4, [%d1]", "ld.global.v2.u64 {%d4, %d5}, [%d1]",
        "st.global.u32 [%d1], %r4", "atom.global.add.u32 %r4, [%d1], 1",
        "ld.u64 %d4, [%d1]", "atom.add.u64 %d4, [%d1], %d4"}) {
    const std::string body = std::string(access) + ";";
    TestModule module(std::string(kHead) + KernelOf("faulty", body),
                      GetParam());
    const u64 at = module.memory().Allocate(17);
    Params params;
    params.Add(at + 16);
    const auto result = module.Launch("faulty", params, {});
    ASSERT_TRUE(result.fault.has_value()) << access;
    EXPECT_EQ(result.fault->error, 700) << result.fault->text;
    EXPECT_EQ(result.fault->address, at + 16);
  }
}

TEST_P(Faults, MisalignedAccessesOfEverySize) {
  for (const auto& [access, size] :
       {std::pair{"ld.global.u16 %r4, [%d1]", 2},
        std::pair{"st.global.u32 [%d1], %r4", 4},
        std::pair{"ld.global.u64 %d4, [%d1]", 8},
        std::pair{"ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%d1]", 16},
        std::pair{"atom.global.add.u32 %r4, [%d1], 1", 4},
        std::pair{"ld.u64 %d4, [%d1]", 8}}) {
    TestModule module(
        std::string(kHead) + KernelOf("faulty", std::string(access) + ";"),
        GetParam());
    const u64 at = module.memory().Allocate(256);
    for (int off = 1; off < size; ++off) {
      Params params;
      params.Add(at + static_cast<u64>(off));
      const auto result = module.Launch("faulty", params, {});
      ASSERT_TRUE(result.fault.has_value()) << access << off;
      EXPECT_EQ(result.fault->error, 716) << result.fault->text;
      EXPECT_EQ(result.fault->address, at + static_cast<u64>(off));
      EXPECT_THAT(result.fault->text, HasSubstr("misaligned"));
    }
  }
}

TEST_P(Faults, AddressesNobodyHas) {
  for (const u64 address : {u64{0}, u64{8}, u64{0x7ff0}, ~u64{7},
                            u64{0x0f0300000000}, u64{0x8000000000000000}}) {
    const Fault fault = RunAt("ld.u64 %d4, [%d1];", address);
    EXPECT_EQ(fault.error, 700) << fault.text;
    EXPECT_EQ(fault.address, address);
  }
}

TEST_P(Faults, BeyondSharedMemory) {
  const std::string body = R"(.shared .b64 room[4];
mov.u64 %d3, room;
cvt.u32.u64 %r3, %d1;
cvt.u32.u64 %r4, %d3;
add.u32 %r3, %r3, %r4;
ld.shared.u64 %d4, [%r3];)";
  EXPECT_EQ(RunAt(body, 32).error, 700);
  EXPECT_EQ(RunAt(body, 0xfffffff8).error, 700);
  EXPECT_EQ(RunAt(body, 28).error, 716);
  EXPECT_THAT(RunAt(body, 4096).text, HasSubstr("shared memory"));
}

TEST_P(Faults, BeyondLocalMemoryAndParameters) {
  EXPECT_THAT(RunAt(R"(.local .b64 room[4];
mov.u64 %d3, room;
add.u64 %d3, %d3, %d1;
st.local.u64 [%d3], %d1;)",
                    1 << 20)
                  .text,
              HasSubstr("local memory"));
  EXPECT_THAT(RunAt(R"(mov.u64 %d3, p;
add.u64 %d3, %d3, %d1;
ld.param.u64 %d4, [%d3];)",
                    64)
                  .text,
              HasSubstr("parameters"));
}

// What was found once is not believed for ever within a launch's limits: the
// cache of ranges must not let an access just beyond pass.
TEST_P(Faults, TheRangeCacheEndsWhereTheAllocationDoes) {
  const std::string body = R"(mov.u32 %r3, 0;
LOOP:
ld.global.u64 %d4, [%d1];
add.u64 %d1, %d1, 8;
add.u32 %r3, %r3, 1;
setp.lt.u32 %p1, %r3, 1000;
@%p1 bra LOOP;)";
  TestModule module(std::string(kHead) + KernelOf("faulty", body), GetParam());
  const u64 at = module.memory().Allocate(500 * 8);
  Params params;
  params.Add(at);
  const auto result = module.Launch("faulty", params, {});
  ASSERT_TRUE(result.fault.has_value());
  EXPECT_EQ(result.fault->address, at + 500 * 8);
}

TEST_P(Faults, CallsOfWhatIsNoFunction) {
  const Fault fault = RunAt(R"({
P: .callprototype _ ();
call %d1, (), P;
})",
                            0x1234);
  EXPECT_EQ(fault.error, 718) << fault.text;
  EXPECT_EQ(fault.address, 0x1234u);
}

TEST_P(Faults, EndlessRecursionIsStopped) {
  TestModule module(std::string(kHead) + R"(
.func down()
{
.local .b64 big[64];
.reg .b64 %d<2>;
mov.u64 %d1, 5;
st.local.u64 [big], %d1;
call down;
ret;
}
)" + KernelOf("faulty", "call down;"),
                    GetParam());
  Params params;
  params.Add(u64{0});
  const auto result = module.Launch("faulty", params, {});
  ASSERT_TRUE(result.fault.has_value());
  EXPECT_EQ(result.fault->error, 714) << result.fault->text;
  EXPECT_THAT(result.fault->text, HasSubstr("stack"));
}

TEST_P(Faults, ABarrierThatDoesNotExist) {
  EXPECT_EQ(RunAt("cvt.u32.u64 %r3, %d1;\nbar.sync %r3;", 16).error, 715);
}

// One faulting block stops the others, which wait for something that never
// comes, and the launch ends once.
TEST_P(Faults, AFaultEndsTheWholeGrid) {
  const std::string body = R"(setp.eq.u32 %p1, %r2, 700;
@%p1 trap;
LOOP: ld.volatile.global.u32 %r3, [%d1];
setp.eq.u32 %p2, %r3, 0;
@%p2 bra LOOP;)";
  TestModule module(std::string(kHead) + KernelOf("faulty", body), GetParam());
  Params params;
  params.Add(module.memory().Allocate(4));
  const auto result = module.Launch("faulty", params,
                                    {.grid = {1000, 1, 1},
                                     .block = {32, 1, 1},
                                     .threads = 2,
                                     .budget = 1000});
  ASSERT_TRUE(result.fault.has_value());
  EXPECT_EQ(result.fault->error, 719);
  EXPECT_THAT(result.fault->text, HasSubstr("block (700,0,0)"));
}

// What a function takes is bounded: 8 KiB.
TEST_P(Faults, TooLargeAnAlloca) {
  for (const auto& [bytes, fits] :
       {std::pair{"8192", true}, std::pair{"8193", false},
        std::pair{"-1", false}}) {
    TestModule module(
        std::string(kHead) +
            KernelOf("faulty", "mov.u64 %d3, " + std::string(bytes) +
                                   ";\nalloca.u64 %d4, %d3, 1;\n"
                                   "st.local.u8 [%d4], 1;"),
        GetParam());
    Params params;
    params.Add(u64{0});
    const auto result = module.Launch("faulty", params, {});
    ASSERT_EQ(result.fault.has_value(), !fits) << bytes;
    if (!fits) {
      EXPECT_EQ(result.fault->error, 714);
      EXPECT_THAT(result.fault->text, HasSubstr("too small for an alloca"));
    }
  }
}

}  // namespace
}  // namespace pos::ptx::testing
