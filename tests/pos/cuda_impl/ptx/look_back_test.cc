// A scan in one pass: each block waits for what blocks before it publish. With
// many more blocks than are kept at once, this ends only when waiting blocks
// never keep the awaited ones from running.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "harness.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

struct LookBack {
  const char* name;
  const char* number;   // puts the block's number into %r1
  const char* load;     // of the state of a block before it, into %d5
  const char* publish;  // of %d6 at [%d4]
};

constexpr const char* kFromTicket =
    "@%p0 bra HAVE;\natom.global.add.u32 %r9, [%d2], 1;\n"
    "st.shared.u32 [ticket], %r9;\nHAVE:\nbar.sync 0;\n"
    "ld.shared.u32 %r1, [ticket];\n";
constexpr const char* kFromIndex = "HAVE:\nmov.u32 %r1, %ctaid.x;\n";
constexpr const char* kAcquire = "ld.acquire.gpu.global.u64 %d5, [%d4];\n";
constexpr const char* kRelaxed =
    "ld.relaxed.gpu.global.u64 %d5, [%d4];\nfence.acq_rel.gpu;\n";
constexpr const char* kRelease = "st.release.gpu.global.u64 [%d4], %d6;\n";
constexpr const char* kFenced =
    "fence.acq_rel.gpu;\nst.relaxed.gpu.global.u64 [%d4], %d6;\n";

// Blocks take different times to come to it, so that many wait for few.
//
// Thread 0 adds up the values of all blocks before: a state is the value << 2,
// with 1 for a block's own value and 2 for the sum up to it. The others wait at
// a barrier.
std::string TextOf(const LookBack& how) {
  return R"(.version 8.0
.target sm_90
.address_size 64
.visible .entry scan(.param .u64 states, .param .u64 count)
{
.reg .b64 %d<10>;
.reg .b32 %r<10>;
.reg .pred %p<6>;
.shared .b32 ticket;
.local .b8 room[65536];
ld.param.u64 %d1, [states];
ld.param.u64 %d2, [count];
mov.u32 %r0, %tid.x;
setp.ne.u32 %p0, %r0, 0;
)" + std::string(how.number) +
         R"(@%p0 bra MEET;
mul.lo.u32 %r2, %r1, 7919;
rem.u32 %r2, %r2, 1009;
DELAY:
add.u32 %r2, %r2, -1;
setp.gt.s32 %p4, %r2, 0;
@%p4 bra DELAY;
mul.wide.u32 %d3, %r1, 8;
add.u64 %d3, %d1, %d3;
cvt.u64.u32 %d7, %r1;
add.u64 %d7, %d7, 1;
shl.b64 %d6, %d7, 2;
setp.eq.u32 %p1, %r1, 0;
or.b64 %d6, %d6, 1;
mov.u64 %d4, %d3;
)" + how.publish +
         R"(@%p1 bra LAST;
BACK:
sub.u64 %d4, %d4, 8;
SPIN:
)" + how.load +
         R"(and.b64 %d8, %d5, 3;
setp.eq.u64 %p2, %d8, 0;
@%p2 bra SPIN;
shr.u64 %d9, %d5, 2;
add.u64 %d7, %d7, %d9;
setp.eq.u64 %p3, %d8, 1;
@%p3 bra BACK;
LAST:
shl.b64 %d6, %d7, 2;
or.b64 %d6, %d6, 2;
mov.u64 %d4, %d3;
)" + how.publish +
         R"(MEET:
bar.sync 0;
ret;
}
)";
}

class LookBacks : public ::testing::TestWithParam<LookBack> {};

INSTANTIATE_TEST_SUITE_P(
    Ways, LookBacks,
    ::testing::Values(
        LookBack{"AcquireByTicket", kFromTicket, kAcquire, kRelease},
        LookBack{"AcquireByIndex", kFromIndex, kAcquire, kRelease},
        LookBack{"RelaxedByTicket", kFromTicket, kRelaxed, kFenced},
        LookBack{"RelaxedByIndex", kFromIndex, kRelaxed, kFenced}),
    [](const ::testing::TestParamInfo<LookBack>& way) {
      return way.param.name;
    });

TEST_P(LookBacks, EndInGridsFarLargerThanWhatIsResident) {
  // 1 GiB of blocks is kept at most: 256 of these, 4 MiB each.
  constexpr std::uint32_t kBlocks = 1000;
  TestModule module(TextOf(GetParam()));
  const u64 states = module.memory().Allocate(8 * kBlocks);
  const u64 count = module.memory().Allocate(8);
  Params params;
  params.Add(states).Add(count);
  const LaunchResult result = module.Launch("scan", params,
                                            {.grid = {kBlocks, 1, 1},
                                             .block = {64, 1, 1},
                                             .threads = 3,
                                             .budget = 100});
  ASSERT_FALSE(result.fault.has_value()) << result.fault->text;
  const auto got = TestMemory::Download<u64>(states, kBlocks);
  for (u64 i = 0; i < kBlocks; ++i) {
    ASSERT_EQ(got[i], ((i + 1) * (i + 2) / 2) << 2 | 2) << i;
  }
}

}  // namespace
}  // namespace pos::ptx::testing
