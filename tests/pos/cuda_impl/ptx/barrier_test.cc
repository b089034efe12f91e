// Barriers of blocks and warps where lanes do not come together.
#include <gtest/gtest.h>

#include <string>

#include "body_case.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

// Every round each thread reads its neighbour's word of the round before.
TEST(Barriers, InALoopKeepRoundsApart) {
  BodyCase test;
  test.opcode = "bar.sync in a loop";
  test.threads = 160;
  test.body = R"(
.shared .b32 room[160];
mov.u32 %r4, room;
shl.b32 %r5, %i, 2;
add.u32 %r6, %r4, %r5;
add.u32 %r7, %i, 1;
rem.u32 %r7, %r7, 160;
shl.b32 %r7, %r7, 2;
add.u32 %r7, %r4, %r7;
mov.u32 %r2, %i;
mov.u32 %r8, 0;
LOOP:
st.shared.u32 [%r6], %r2;
bar.sync 0;
ld.shared.u32 %r2, [%r7];
bar.sync 0;
add.u32 %r8, %r8, 1;
setp.lt.u32 %p0, %r8, 25;
@%p0 bra LOOP;
st.global.u32 [%out], %r2;
)";
  for (std::size_t i = 0; i < 160; ++i) test.Want(i) = (i + 25) % 160;
  CheckAllLevels(test);
}

// The two ways of an if both come to barrier 0: it counts threads, not places.
TEST(Barriers, FromBothSidesOfABranch) {
  BodyCase test;
  test.opcode = "bar.sync on two ways";
  test.threads = 64;
  test.body = R"(
.shared .b32 sum;
setp.eq.u32 %p1, %i, 0;
mov.u32 %r9, 0;
@%p1 st.shared.u32 [sum], %r9;
bar.sync 0;
and.b32 %r4, %i, 1;
setp.ne.u32 %p0, %r4, 0;
@%p0 bra ODD;
atom.shared.add.u32 %r5, [sum], 1;
bar.sync 0;
bra END;
ODD:
atom.shared.add.u32 %r5, [sum], 100;
bar.sync 0;
END:
ld.shared.u32 %r2, [sum];
st.global.u32 [%out], %r2;
)";
  for (std::size_t i = 0; i < 64; ++i) test.Want(i) = 32 + 3200;
  CheckAllLevels(test);
}

// Threads that have exited are not waited for.
TEST(Barriers, DoNotWaitForExitedThreads) {
  BodyCase test;
  test.opcode = "bar.sync after exits";
  test.threads = 128;
  test.body = R"(
.shared .b32 count;
setp.eq.u32 %p1, %i, 127;
mov.u32 %r9, 0;
@%p1 st.shared.u32 [count], %r9;
bar.sync 0;
setp.lt.u32 %p0, %i, 40;
@%p0 exit;
atom.shared.add.u32 %r5, [count], 1;
bar.sync 0;
ld.shared.u32 %r2, [count];
st.global.u32 [%out], %r2;
)";
  for (std::size_t i = 40; i < 128; ++i) test.Want(i) = 88;
  CheckAllLevels(test);
}

// Named barriers with a number of threads: two pairs of warps meet apart.
TEST(Barriers, OfSomeWarpsOnly) {
  BodyCase test;
  test.opcode = "bar.sync a, b";
  test.threads = 128;
  test.body = R"(
.shared .b32 room[128];
mov.u32 %r4, room;
shl.b32 %r5, %i, 2;
add.u32 %r6, %r4, %r5;
st.shared.u32 [%r6], %i;
shr.u32 %r7, %i, 6;
add.u32 %r7, %r7, 3;
bar.sync %r7, 64;
xor.b32 %r5, %r5, 128;
add.u32 %r6, %r4, %r5;
ld.shared.u32 %r2, [%r6];
st.global.u32 [%out], %r2;
)";
  for (std::size_t i = 0; i < 128; ++i) test.Want(i) = i ^ 32;
  CheckAllLevels(test);
}

// Lanes of one warp reach the same warp barrier from different places.
TEST(Barriers, OfAWarpFromDifferentPlaces) {
  BodyCase test;
  test.opcode = "bar.warp.sync";
  test.in.resize(1);
  test.body = R"(
setp.lt.u32 %p0, %i, 16;
@%p0 bra LOW;
atom.global.add.u32 %r4, [%in], 1;
bar.warp.sync -1;
bra END;
LOW:
atom.global.add.u32 %r4, [%in], 1;
bar.warp.sync -1;
END:
ld.global.u32 %r2, [%in];
st.global.u32 [%out], %r2;
)";
  for (std::size_t i = 0; i < 32; ++i) test.Want(i) = 32;
  test.want_in = {32};
  CheckAllLevels(test);
}

// The same shuffle in both ways of an if, with the whole warp as members.
TEST(Barriers, AShuffleFromDifferentPlacesGathersTheWarp) {
  BodyCase test;
  test.opcode = "shfl.sync";
  test.body = R"(
setp.lt.u32 %p0, %i, 10;
@%p0 bra LOW;
shfl.sync.bfly.b32 %r2, %i, 31, 31, -1;
bra END;
LOW:
shfl.sync.bfly.b32 %r2, %i, 31, 31, -1;
END:
st.global.u32 [%out], %r2;
)";
  for (std::size_t i = 0; i < 32; ++i) test.Want(i) = 31 - i;
  CheckAllLevels(test);
}

// Half of the block waits for a barrier that the other half never comes to.
TEST(Barriers, ThatNobodyCompletesEndTheLaunch) {
  BodyCase test;
  test.opcode = "deadlock";
  test.threads = 64;
  test.body = R"(
setp.lt.u32 %p0, %i, 32;
@%p0 bra LOW;
bar.sync 1, 64;
bra END;
LOW:
bar.sync 2, 64;
END:
)";
  test.error = 719;
  test.error_text =
      "deadlock: 32 threads wait at barrier 1 (32 of 64 have arrived) and 32 "
      "at barrier 2 (32 of 64 have arrived)";
  CheckAllLevels(test);
}

// Without a count a barrier waits for all that have not exited: here half of
// them are at another one.
TEST(Barriers, ThatWaitForEachOtherEndTheLaunchNamingBoth) {
  BodyCase test;
  test.opcode = "deadlock";
  test.blocks = 3;
  test.threads = 96;
  test.body = R"(
mov.u32 %r2, %tid.x;
setp.lt.u32 %p1, %r2, 5;
@%p1 exit;
setp.lt.u32 %p0, %r2, 32;
@%p0 bra LOW;
bar.sync 7;
bra END;
LOW:
bar.sync 0;
END:
)";
  test.error = 719;
  test.error_text =
      "deadlock: 27 threads wait at barrier 0 and 64 at barrier 7";
  CheckAllLevels(test);
}

TEST(Barriers, OfTheClusterThatSomeNeverComeTo) {
  BodyCase test;
  test.opcode = "deadlock";
  test.threads = 64;
  test.body = R"(
setp.lt.u32 %p0, %i, 32;
@%p0 bra LOW;
bar.sync 1;
LOW:
barrier.cluster.arrive;
barrier.cluster.wait;
)";
  test.error = 719;
  test.error_text = "and 32 at the barrier of the cluster";
  CheckAllLevels(test);
}

// Who has arrived may do what others wait for before it waits itself.
TEST(Barriers, OfTheClusterWaitForArrivalsAndNotForWaits) {
  BodyCase test;
  test.opcode = "barrier.cluster";
  test.threads = 64;
  test.body = R"(
.shared .b32 flag;
mov.u32 %r2, 0;
setp.eq.u32 %p1, %i, 0;
@%p1 st.shared.u32 [flag], %r2;
bar.sync 0;
barrier.cluster.arrive;
setp.lt.u32 %p0, %i, 32;
@%p0 bra SPIN;
barrier.cluster.wait;
mov.u32 %r3, 5;
st.volatile.shared.u32 [flag], %r3;
bra END;
SPIN:
ld.volatile.shared.u32 %r2, [flag];
setp.eq.u32 %p2, %r2, 0;
@%p2 bra SPIN;
barrier.cluster.wait;
END:
barrier.cluster.arrive.relaxed;
barrier.cluster.wait.acquire;
ld.shared.u32 %r2, [flag];
st.global.u32 [%out], %r2;
)";
  for (std::size_t i = 0; i < 64; ++i) test.Want(i) = 5;
  CheckAllLevels(test);
}

// Fifteen named barriers at once, each for a pair of warps, one of which only
// arrives; and reductions over some warps.
TEST(Barriers, OfEveryNameAtOnce) {
  BodyCase test;
  test.opcode = "barrier.red";
  test.threads = 960;
  test.workers = 2;
  test.blocks = 4;
  test.body = R"(
.shared .b32 room[512];
mov.u32 %r2, %tid.x;
shr.u32 %r3, %r2, 6;
and.b32 %r4, %r2, 32;
setp.ne.u32 %p0, %r4, 0;
and.b32 %r5, %r2, 31;
shl.b32 %r6, %r3, 5;
add.u32 %r6, %r6, %r5;
shl.b32 %r6, %r6, 2;
add.u32 %r3, %r3, 1;
mov.u32 %r7, room;
add.u32 %r6, %r6, %r7;
@%p0 bra CONSUME;
st.shared.u32 [%r6], %r2;
barrier.arrive %r3, 64;
bra MEET;
CONSUME:
barrier.sync %r3, 64;
ld.shared.u32 %r8, [%r6];
st.global.u32 [%out], %r8;
MEET:
bar.sync 0;
setp.lt.u32 %p1, %r5, 3;
barrier.red.popc.u32 %r9, %r3, 64, %p1;
barrier.red.and.pred %p2, %r3, 64, %p1;
barrier.red.or.pred %p3, %r3, 64, !%p1;
selp.u32 %r10, 1, 0, %p2;
selp.u32 %r11, 2, 0, %p3;
add.u32 %r10, %r10, %r11;
st.global.u32 [%out+8], %r9;
st.global.u32 [%out+16], %r10;
)";
  for (std::size_t i = 0; i < 3840; ++i) {
    const std::size_t t = i % 960;
    test.Want(i) = (t & 32) != 0 ? t - 32 : 0;
    test.Want(i, 1) = 6;
    test.Want(i, 2) = 2;
  }
  CheckAllLevels(test);
}

TEST(Barriers, OfAGridNeedACooperativeLaunch) {
  // Every block adds one and waits until all have.
  const std::string text = R"(.version 8.0
.target sm_90
.address_size 64
.visible .entry all(.param .u64 p, .param .u32 n)
{
.reg .b64 %d<4>;
.reg .b32 %r<8>;
.reg .pred %p<2>;
ld.param.u64 %d1, [p];
ld.param.u32 %r1, [n];
mov.u32 %r2, %tid.x;
setp.ne.u32 %p0, %r2, 0;
@%p0 bra WAIT;
atom.add.release.gpu.global.u32 %r3, [%d1], 1;
WAIT:
ld.acquire.gpu.global.u32 %r4, [%d1];
setp.lt.u32 %p1, %r4, %r1;
@%p1 bra WAIT;
ret;
}
)";
  TestModule module(text);
  const u64 counter = module.memory().Allocate(4);
  Params params;
  params.Add(counter).Add(std::uint32_t{600});
  const auto result = module.Launch("all", params,
                                    {.grid = {600, 1, 1},
                                     .block = {64, 1, 1},
                                     .cooperative = true,
                                     .threads = 3});
  EXPECT_FALSE(result.fault.has_value()) << result.fault->text;
  EXPECT_EQ(TestMemory::Download<std::uint32_t>(counter, 1)[0], 600u);
}

}  // namespace
}  // namespace pos::ptx::testing
