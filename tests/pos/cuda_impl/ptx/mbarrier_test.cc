// mbarriers: the word that holds them, at the bounds of every field; rings of
// buffers between warps; barriers that are copied; what is refused.
#include "pos/cuda_impl/ptx/mbarrier.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "body_case.h"

namespace pos::ptx::testing {
namespace {

constexpr std::uint32_t kMax = Mbarrier::kMaxCount;

Mbarrier Made(std::uint32_t count) {
  Mbarrier barrier;
  EXPECT_EQ(barrier.Init(count), nullptr);
  return barrier;
}

// Through the word and back.
Mbarrier Stored(const Mbarrier& barrier) {
  Mbarrier read;
  EXPECT_TRUE(Mbarrier::Unpack(barrier.Pack(), &read));
  EXPECT_EQ(read.pending, barrier.pending);
  EXPECT_EQ(read.expected, barrier.expected);
  EXPECT_EQ(read.tx, barrier.tx);
  EXPECT_EQ(read.phase, barrier.phase);
  return read;
}

TEST(MbarrierWord, KeepsEveryFieldAtItsBounds) {
  for (const std::uint32_t pending : {0u, 1u, 0x55555u, kMax}) {
    for (const std::uint32_t expected : {0u, 1u, 0xaaaaau, kMax}) {
      for (const std::int32_t tx : {0, 1, -1, static_cast<std::int32_t>(kMax),
                                    -static_cast<std::int32_t>(kMax)}) {
        for (const bool phase : {false, true}) {
          Stored({pending, expected, tx, phase});
        }
      }
    }
  }
}

TEST(MbarrierWord, OfOtherDataIsNone) {
  Mbarrier read;
  for (const std::uint64_t word :
       {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{1} << 62,
        std::uint64_t{1} << 63, std::uint64_t{0x0000000100000001}}) {
    EXPECT_FALSE(Mbarrier::Unpack(word, &read)) << word;
  }
}

TEST(MbarrierWord, CountsStayInRange) {
  Mbarrier barrier;
  EXPECT_NE(barrier.Init(0), nullptr);
  EXPECT_NE(barrier.Init(kMax + 1), nullptr);
  for (const std::uint32_t count : {1u, 2u, kMax - 1, kMax}) {
    barrier = Made(count);
    EXPECT_NE(barrier.Arrive(0, true), nullptr);
    EXPECT_NE(barrier.Arrive(count + 1, true), nullptr);
    EXPECT_NE(barrier.Arrive(count, false), nullptr);
    if (count > 1) {
      EXPECT_EQ(barrier.Arrive(count - 1, false), nullptr);
    }
    EXPECT_FALSE(Stored(barrier).phase);
    EXPECT_EQ(barrier.Arrive(1, true), nullptr);
    EXPECT_TRUE(Stored(barrier).phase);
    EXPECT_EQ(barrier.pending, count);
  }
}

TEST(MbarrierWord, BytesMayComeBeforeTheyAreExpected) {
  Mbarrier barrier = Made(1);
  EXPECT_EQ(barrier.CompleteTx(kMax), nullptr);
  EXPECT_NE(barrier.CompleteTx(1), nullptr);
  EXPECT_EQ(Stored(barrier).tx, -static_cast<std::int32_t>(kMax));
  EXPECT_EQ(barrier.ExpectTx(kMax), nullptr);
  EXPECT_FALSE(barrier.phase);
  EXPECT_EQ(barrier.ExpectTx(kMax), nullptr);
  EXPECT_NE(barrier.ExpectTx(1), nullptr);
  EXPECT_NE(barrier.ExpectTx(kMax + 1), nullptr);
  EXPECT_EQ(barrier.Arrive(1, false), nullptr);  // bytes are still to come
  EXPECT_FALSE(barrier.phase);
  EXPECT_EQ(barrier.CompleteTx(kMax), nullptr);
  EXPECT_TRUE(barrier.phase);
}

TEST(MbarrierWord, DropsLowerLaterPhasesOnly) {
  Mbarrier barrier = Made(3);
  EXPECT_NE(barrier.Drop(4), nullptr);
  EXPECT_EQ(barrier.Drop(2), nullptr);
  EXPECT_EQ(barrier.pending, 3u);
  EXPECT_EQ(barrier.Arrive(3, true), nullptr);
  EXPECT_EQ(barrier.pending, 1u);
}

// A warp fills four buffers in turn with bulk copies, three warps read them:
// barriers say what is full and what is empty. 40 rounds, so that every barrier
// goes through many phases.
TEST(Mbarriers, MakeARingOfBuffersBetweenWarps) {
  BodyCase test;
  test.opcode = "cp.async.bulk";
  test.blocks = 6;
  test.threads = 128;
  test.workers = 3;
  test.budget = 3000;
  for (std::size_t i = 0; i < 40 * 32; ++i) test.in.push_back(i * i + 1);
  test.body = R"(
.shared .align 16 .b8 room[1024];
.shared .align 8 .b64 full[4];
.shared .align 8 .b64 empty[4];
mov.u32 %r2, %tid.x;
mov.u32 %r3, room;
mov.u32 %r4, full;
mov.u32 %r5, empty;
setp.ne.u32 %p0, %r2, 0;
@%p0 bra READY;
mov.u32 %r6, 0;
MAKE:
shl.b32 %r7, %r6, 3;
add.u32 %r8, %r4, %r7;
mbarrier.init.shared::cta.b64 [%r8], 1;
add.u32 %r8, %r5, %r7;
mbarrier.init.shared::cta.b64 [%r8], 96;
add.u32 %r6, %r6, 1;
setp.lt.u32 %p1, %r6, 4;
@%p1 bra MAKE;
fence.mbarrier_init.release.cluster;
READY:
bar.sync 0;
mov.u32 %r6, 0;
mov.u64 %d9, 0;
setp.ge.u32 %p2, %r2, 32;
ROUND:
and.b32 %r7, %r6, 3;
shr.u32 %r9, %r6, 2;
and.b32 %r9, %r9, 1;
shl.b32 %r8, %r7, 3;
add.u32 %r10, %r4, %r8;
add.u32 %r11, %r5, %r8;
shl.b32 %r12, %r7, 8;
add.u32 %r12, %r3, %r12;
@%p2 bra CONSUME;
@%p0 bra NEXT;
xor.b32 %r13, %r9, 1;
EMPTY:
mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r11], %r13;
@!%p3 bra EMPTY;
mbarrier.arrive.expect_tx.shared::cta.b64 %d1, [%r10], 256;
mul.wide.u32 %d2, %r6, 256;
add.u64 %d2, %in, %d2;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r12], [%d2], 256, [%r10];
bra NEXT;
CONSUME:
mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p3, [%r10], %r9, 1000;
@!%p3 bra CONSUME;
and.b32 %r14, %r2, 31;
shl.b32 %r14, %r14, 3;
add.u32 %r14, %r12, %r14;
ld.shared.u64 %d3, [%r14];
mad.lo.u64 %d9, %d9, 3, %d3;
mbarrier.arrive.shared::cta.b64 _, [%r11];
NEXT:
add.u32 %r6, %r6, 1;
setp.lt.u32 %p4, %r6, 40;
@%p4 bra ROUND;
st.global.u64 [%out], %d9;
)";
  for (std::size_t i = 0; i < 6 * 128; ++i) {
    std::uint64_t value = 0;
    for (std::size_t round = 0; round < 40 && i % 128 >= 32; ++round) {
      value = value * 3 + test.in[round * 32 + i % 32];
    }
    test.Want(i) = value;
  }
  CheckAllLevels(test);
}

// Half of the arrivals at one address, the other half at another, to which the
// word was copied as data.
TEST(Mbarriers, GoOnInACopyOfTheirWord) {
  BodyCase test;
  test.opcode = "mbarrier.arrive";
  test.threads = 64;
  test.body = R"(
.shared .align 8 .b64 here;
.shared .align 8 .b64 there;
setp.eq.u32 %p0, %i, 0;
@%p0 mbarrier.init.shared.b64 [here], 64;
@%p0 mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [here], 100;
bar.sync 0;
setp.lt.u32 %p1, %i, 32;
@%p1 mbarrier.arrive.shared.b64 %d1, [here];
bar.sync 0;
@%p0 ld.shared.b64 %d2, [here];
@%p0 st.shared.b64 [there], %d2;
@%p0 mbarrier.inval.shared.b64 [here];
bar.sync 0;
@!%p1 mbarrier.arrive.shared.b64 %d1, [there];
mbarrier.pending_count.b64 %r3, %d1;
bar.sync 0;
mbarrier.test_wait.parity.shared.b64 %p2, [there], 0;
bar.sync 0;
@%p0 mbarrier.complete_tx.shared.b64 [there], 100;
bar.sync 0;
mbarrier.test_wait.shared.b64 %p3, [there], %d1;
selp.u32 %r4, 1, 0, %p2;
selp.u32 %r5, 1, 0, %p3;
st.global.u32 [%out], %r3;
st.global.u32 [%out+8], %r4;
st.global.u32 [%out+16], %r5;
)";
  for (std::size_t i = 0; i < 64; ++i) {
    test.Want(i) = 64 - i;
    test.Want(i, 2) = 1;
  }
  CheckAllLevels(test);
}

// Lanes wait for lanes of their own warp that arrive after them.
TEST(Mbarriers, LetLanesWaitForTheirOwnWarp) {
  BodyCase test;
  test.opcode = "mbarrier.try_wait";
  test.body = R"(
.shared .align 8 .b64 bar;
setp.eq.u32 %p0, %i, 0;
@%p0 mbarrier.init.shared.b64 [bar], 16;
bar.warp.sync -1;
setp.lt.u32 %p1, %i, 16;
@%p1 bra WAIT;
mbarrier.arrive.shared.b64 %d1, [bar];
bra END;
WAIT:
mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0;
@!%p2 bra WAIT;
END:
st.global.u32 [%out], 1;
)";
  for (std::size_t i = 0; i < 32; ++i) test.Want(i) = 1;
  CheckAllLevels(test);
}

// A block of which every thread waits, one for another block, is none that
// hangs.
TEST(Mbarriers, AreNoDeadlockWhileAnotherBlockIsAwaited) {
  BodyCase test;
  test.opcode = "mbarrier.try_wait";
  test.blocks = 40;
  test.threads = 64;
  test.workers = 3;
  test.budget = 2000;
  test.in = {0};
  test.want_in = {40};
  test.body = R"(
.shared .align 8 .b64 bar;
mov.u32 %r2, %tid.x;
setp.eq.u32 %p0, %r2, 0;
@%p0 mbarrier.init.shared.b64 [bar], 32;
bar.sync 0;
setp.lt.u32 %p1, %r2, 32;
@%p1 bra WAIT;
setp.ne.u32 %p2, %r2, 32;
mov.u32 %r3, %ctaid.x;
sub.u32 %r3, 39, %r3;
@%p2 bra ARRIVE;
SPIN:
ld.acquire.gpu.global.u64 %d3, [%in];
cvt.u32.u64 %r4, %d3;
setp.lt.u32 %p3, %r4, %r3;
@%p3 bra SPIN;
mov.u64 %d4, 1;
atom.release.gpu.global.add.u64 %d3, [%in], %d4;
ARRIVE:
mbarrier.arrive.shared.b64 _, [bar];
bra END;
WAIT:
mbarrier.try_wait.parity.shared.b64 %p4, [bar], 0;
@!%p4 bra WAIT;
END:
st.global.u32 [%out], 1;
)";
  for (std::size_t i = 0; i < 40 * 64; ++i) test.Want(i) = 1;
  CheckAllLevels(test);
}

struct Refused {
  std::string body;
  std::int32_t error;
  std::string text;
};

TEST(Mbarriers, RefuseWhatTheIsaLeavesUndefined) {
  const std::string init = "mbarrier.init.shared.b64 [bar], 2;\n";
  const std::vector<Refused> all = {
      {"mbarrier.init.shared.b64 [bar], 0;", 715, "not in 1"},
      {"mov.u32 %r2, 0x100000;\nmbarrier.init.shared.b64 [bar], %r2;", 715,
       "not in 1"},
      {"mbarrier.arrive.shared.b64 %d1, [bar];", 715, "initialized"},
      {"mbarrier.try_wait.parity.shared.b64 %p1, [bar], 0;", 715,
       "initialized"},
      {init + "mbarrier.inval.shared.b64 [bar];\n"
              "mbarrier.arrive.shared.b64 %d1, [bar];",
       715, "initialized"},
      {init + "mbarrier.arrive.shared.b64 %d1, [bar], 3;", 715,
       "more arrivals"},
      {init + "mbarrier.arrive.noComplete.shared.b64 %d1, [bar], 2;", 715,
       "completes the phase"},
      {init + "mov.u64 %d1, 5;\nmbarrier.test_wait.shared.b64 %p1, [bar], %d1;",
       715, "no arrival"},
      {"mov.u64 %d1, 5;\nmbarrier.pending_count.b64 %r2, %d1;", 715,
       "no arrival"},
      {init + "mbarrier.complete_tx.shared.b64 [bar], 1048575;\n"
              "mbarrier.complete_tx.shared.b64 [bar], 1;",
       715, "bytes more"},
      {"mbarrier.init.shared.b64 [bar+4], 2;", 716, "misaligned"},
      {"mbarrier.init.shared.b64 [bar+4096], 2;", 700, "shared memory"},
      {"mbarrier.init.b64 [%in], 2;", 717, "not in shared"},
  };
  for (const Refused& refused : all) {
    BodyCase test;
    test.opcode = "mbarrier";
    test.threads = 1;
    test.body =
        ".shared .align 8 .b64 bar;\nmov.u64 %d9, 0;\n"
        "st.shared.u64 [bar], %d9;\n" +
        refused.body + "\n";
    test.error = refused.error;
    test.error_text = refused.text;
    CheckAllLevels(test);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace pos::ptx::testing
