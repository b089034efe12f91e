// Lanes that go different ways: what they compute is what each would compute
// alone, and they come together again where their ways meet.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "body_case.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

// The body leaves its result in %r2 (and, for convergence, a mask in %r3);
// shapes are checked with whole and with partly filled warps.
void CheckShape(const std::string& name, const std::string& body,
                const std::function<u64(std::size_t)>& result,
                const std::function<u64(std::size_t)>& mask = nullptr,
                const std::string& module = "") {
  for (const std::uint32_t threads : {32u, 71u}) {
    BodyCase test;
    test.opcode = name;
    test.module = module;
    test.threads = threads;
    test.body = "mov.u32 %r3, 0;\n" + body +
                "st.global.u32 [%out], %r2;\nst.global.u32 [%out+8], %r3;\n";
    for (std::size_t i = 0; i < threads; ++i) {
      test.Want(i, 0) = result(i);
      // The last warp of 71 has 7 lanes.
      const u64 lanes = i / 32 < threads / 32 ? 0xffffffff : 0x7f;
      test.Want(i, 1) = mask == nullptr ? 0 : mask(i) & lanes;
    }
    for (const IsaLevel level : RunnableLevels()) CheckBody(test, level);
  }
}

u64 Everyone(std::size_t) { return 0xffffffff; }

TEST(Divergence, NestedIfsMeetAfterEach) {
  CheckShape(
      "nested ifs", R"(
mov.u32 %r2, 0;
and.b32 %r4, %i, 1;
setp.ne.u32 %p0, %r4, 0;
@!%p0 bra EVEN;
and.b32 %r4, %i, 2;
setp.ne.u32 %p1, %r4, 0;
@!%p1 bra INNER;
add.u32 %r2, %r2, 10;
bra MEET;
INNER:
add.u32 %r2, %r2, 20;
MEET:
activemask.b32 %r3;
bra END;
EVEN:
add.u32 %r2, %r2, 3;
activemask.b32 %r3;
END:
)",
      [](std::size_t i) { return i % 2 == 0     ? 3u
                                 : (i & 2) != 0 ? 10u
                                                : 20u; },
      [](std::size_t i) { return i % 2 == 0 ? 0x55555555u : 0xaaaaaaaau; });
}

TEST(Divergence, AllLanesAreTogetherAfterAnIf) {
  CheckShape(
      "reconvergence", R"(
mov.u32 %r2, 1;
setp.lt.u32 %p0, %i, 5;
@%p0 bra LOW;
mov.u32 %r2, 2;
LOW:
activemask.b32 %r3;
)",
      [](std::size_t i) { return i < 5 ? 1u : 2u; }, &Everyone);
}

TEST(Divergence, LoopsOfDifferentLengthWaitForTheLongest) {
  CheckShape(
      "trip counts", R"(
mov.u32 %r2, 0;
and.b32 %r4, %i, 15;
setp.eq.u32 %p0, %r4, 0;
@%p0 bra DONE;
LOOP:
add.u32 %r2, %r2, %r4;
add.u32 %r4, %r4, -1;
setp.ne.u32 %p0, %r4, 0;
@%p0 bra LOOP;
DONE:
activemask.b32 %r3;
)",
      [](std::size_t i) {
        const u64 n = i & 15;
        return n * (n + 1) / 2;
      },
      &Everyone);
}

TEST(Divergence, NestedLoopsWithBreakAndContinue) {
  // for (j = 0; j < i % 7; ++j) { if (j == 2) continue;
  //   for (k = 0;; ++k) { if (k > j + i % 3) break; sum += k + 1; } }
  CheckShape(
      "break and continue", R"(
mov.u32 %r2, 0;
rem.u32 %r10, %i, 7;
rem.u32 %r11, %i, 3;
mov.u32 %r12, 0;
OUTER:
setp.ge.u32 %p0, %r12, %r10;
@%p0 bra END;
setp.eq.u32 %p1, %r12, 2;
@%p1 bra CONTINUE;
add.u32 %r13, %r12, %r11;
mov.u32 %r14, 0;
INNER:
setp.gt.u32 %p2, %r14, %r13;
@%p2 bra CONTINUE;
add.u32 %r14, %r14, 1;
add.u32 %r2, %r2, %r14;
bra INNER;
CONTINUE:
add.u32 %r12, %r12, 1;
bra OUTER;
END:
activemask.b32 %r3;
)",
      [](std::size_t i) {
        u64 sum = 0;
        for (u64 j = 0; j < i % 7; ++j) {
          if (j == 2) continue;
          for (u64 k = 0; k <= j + i % 3; ++k) sum += k + 1;
        }
        return sum;
      },
      &Everyone);
}

TEST(Divergence, EarlyExitsLeaveTheOthersTogether) {
  // Lanes 3 and 7 return before the loop, lane 9 inside.
  CheckShape(
      "early exit", R"(
mov.u32 %r2, 0;
setp.eq.u32 %p0, %i, 3;
@%p0 exit;
setp.eq.u32 %p0, %i, 7;
@%p0 bra LEAVE;
mov.u32 %r4, 0;
LOOP:
setp.eq.u32 %p1, %i, 9;
setp.eq.and.u32 %p2, %r4, 2, %p1;
@%p2 exit;
add.u32 %r2, %r2, 5;
add.u32 %r4, %r4, 1;
setp.lt.u32 %p2, %r4, 4;
@%p2 bra LOOP;
activemask.b32 %r3;
bra END;
LEAVE:
ret;
END:
)",
      [](std::size_t i) { return i == 3 || i == 7 || i == 9 ? 0u : 20u; },
      [](std::size_t i) -> u64 {
        if (i == 3 || i == 7 || i == 9) return 0;
        return i < 32 ? 0xfffffd77u : 0xffffffffu;
      });
}

// Short-circuit conditions jump into the middle of an if.
TEST(Divergence, UnstructuredJumpsMeetToo) {
  CheckShape(
      "a && b || c", R"(
and.b32 %r4, %i, 1;
and.b32 %r5, %i, 2;
and.b32 %r6, %i, 4;
setp.ne.u32 %p0, %r4, 0;
setp.ne.u32 %p1, %r5, 0;
setp.ne.u32 %p2, %r6, 0;
@!%p0 bra OR;
@%p1 bra YES;
OR:
@!%p2 bra NO;
YES:
mov.u32 %r2, 1;
bra END;
NO:
mov.u32 %r2, 0;
END:
activemask.b32 %r3;
)",
      [](std::size_t i) {
        return ((i & 1) != 0 && (i & 2) != 0) || (i & 4) != 0 ? 1u : 0u;
      },
      &Everyone);
}

TEST(Divergence, SwitchWithFallThroughAndSharedTail) {
  CheckShape(
      "switch", R"(
and.b32 %r4, %i, 3;
mov.u32 %r2, 0;
T: .branchtargets C0, C1, C2, C3;
brx.idx %r4, T;
C0: add.u32 %r2, %r2, 1;
C1: add.u32 %r2, %r2, 10;
bra END;
C2: add.u32 %r2, %r2, 100;
bra C1;
C3: add.u32 %r2, %r2, 1000;
END:
activemask.b32 %r3;
)",
      [](std::size_t i) {
        constexpr u64 kResult[] = {11, 10, 110, 1000};
        return kResult[i & 3];
      },
      &Everyone);
}

constexpr const char* kRecursive = R"(
.func (.param .b32 r) fib(.param .b32 x)
{
.reg .b32 %a, %b, %c;
.reg .pred %p;
ld.param.b32 %a, [x];
setp.lt.u32 %p, %a, 2;
@%p bra BASE;
{
.param .b32 y;
.param .b32 z;
add.u32 %b, %a, -1;
st.param.b32 [y], %b;
call (z), fib, (y);
ld.param.b32 %c, [z];
}
{
.param .b32 y;
.param .b32 z;
add.u32 %b, %a, -2;
st.param.b32 [y], %b;
call (z), fib, (y);
ld.param.b32 %b, [z];
}
add.u32 %a, %b, %c;
BASE:
st.param.b32 [r], %a;
ret;
}
)";

TEST(Divergence, RecursionOfDifferentDepth) {
  CheckShape(
      "fibonacci", R"(
rem.u32 %r4, %i, 11;
{
.param .b32 y;
.param .b32 z;
st.param.b32 [y], %r4;
call (z), fib, (y);
ld.param.b32 %r2, [z];
}
activemask.b32 %r3;
)",
      [](std::size_t i) {
        u64 a = 0;
        u64 b = 1;
        for (std::size_t n = i % 11; n > 0; --n) {
          const u64 next = a + b;
          a = b;
          b = next;
        }
        return a;
      },
      &Everyone, kRecursive);
}

TEST(Divergence, LanesCallDifferentFunctionsThroughOnePointer) {
  const std::string functions = R"(
.func (.param .b32 r) twice(.param .b32 x)
{ .reg .b32 %a; ld.param.b32 %a, [x]; shl.b32 %a, %a, 1;
  st.param.b32 [r], %a; ret; }
.func (.param .b32 r) square(.param .b32 x)
{ .reg .b32 %a; ld.param.b32 %a, [x]; mul.lo.u32 %a, %a, %a;
  st.param.b32 [r], %a; ret; }
.global .align 8 .u64 table[2] = {twice, square};
)";
  CheckShape(
      "function pointers", R"(
and.b32 %r4, %i, 1;
mul.wide.u32 %d1, %r4, 8;
mov.u64 %d2, table;
add.u64 %d1, %d1, %d2;
ld.global.u64 %d3, [%d1];
{
.param .b32 y;
.param .b32 z;
st.param.b32 [y], %i;
P: .callprototype (.param .b32 _) _ (.param .b32 _);
call (z), %d3, (y), P;
ld.param.b32 %r2, [z];
}
activemask.b32 %r3;
)",
      [](std::size_t i) { return i % 2 == 0 ? 2 * i : i * i; }, &Everyone,
      functions);
}

// A pointer to a variable of .local is the same number in every lane.
TEST(Divergence, LanesHaveLocalMemoryOfTheirOwnAtOneGenericAddress) {
  for (const char* access : {"u32", "v2.u32"}) {
    const bool vector = access[0] == 'v';
    CheckShape(
        std::string("local variable by ld.") + access,
        std::string(R"(
.local .align 8 .b8 variable[16];
mov.u64 %d1, variable;
cvta.local.u64 %d1, %d1;
mad.lo.u32 %r4, %i, 3, 1;
)") +
            (vector ? "st.v2.u32 [%d1+8], {%r4, %r4};\nld.v2.u32 {%r5, %r2}, "
                      "[%d1+8];"
                    : "st.u32 [%d1+8], %r4;\nld.u32 %r2, [%d1+8];") +
            R"(
activemask.b32 %r3;
)",
        [](std::size_t i) { return 3 * i + 1; }, &Everyone);
  }
}

// Lane 0 has come to a vote of all; the others hold one among themselves, each
// from a place of its own, before they come.
TEST(Divergence, LanesThatWaitForAllAreNotCountedByAVoteOfFewer) {
  BodyCase test;
  test.opcode = "vote.sync.ballot.b32";
  test.body = R"(
setp.ge.s32 %p1, %i, 0;
setp.eq.u32 %p0, %i, 0;
mov.u32 %r2, 0;
@!%p0 bra OTHERS;
vote.sync.ballot.b32 %r3, %p0, 0xffffffff;
bra END;
OTHERS:
and.b32 %r4, %i, 1;
setp.eq.u32 %p2, %r4, 0;
@%p2 bra EVEN;
vote.sync.ballot.b32 %r2, %p1, 0xfffffffe;
bra ALL;
EVEN:
vote.sync.ballot.b32 %r2, %p1, 0xfffffffe;
ALL:
vote.sync.ballot.b32 %r3, %p0, 0xffffffff;
END:
st.global.u32 [%out], %r2;
st.global.u32 [%out+8], %r3;
)";
  for (std::size_t i = 0; i < 32; ++i) {
    test.Want(i, 0) = i == 0 ? 0 : 0xfffffffe;
    test.Want(i, 1) = 1;
  }
  for (const IsaLevel level : RunnableLevels()) CheckBody(test, level);
}

// Of two pairs of lanes at one instruction, the one that is complete goes on:
// the other needs what comes after.
TEST(Divergence, AGroupGoesOnWhileAnotherAtTheSameInstructionWaits) {
  BodyCase test;
  test.opcode = "bar.warp.sync";
  test.threads = 4;
  test.in.resize(1);
  test.body = R"(
and.b32 %r5, %i, 2;
shl.b32 %r4, 3, %r5;
setp.eq.u32 %p0, %i, 3;
@%p0 bra LAST;
bar.warp.sync %r4;
setp.ne.u32 %p1, %i, 0;
@%p1 bra END;
mov.u32 %r6, 1;
st.relaxed.gpu.global.u32 [%in], %r6;
bra END;
LAST:
ld.relaxed.gpu.global.u32 %r6, [%in];
setp.eq.u32 %p1, %r6, 0;
@%p1 bra LAST;
bar.warp.sync %r4;
END:
st.global.u32 [%out], %r4;
)";
  for (std::size_t i = 0; i < 4; ++i) test.Want(i) = i < 2 ? 3 : 12;
  test.want_in = {1};
  for (const IsaLevel level : RunnableLevels()) CheckBody(test, level);
}

// A lane that spins for what another lane of its warp does later: only turns
// for every fragment let it end.
TEST(Divergence, ALaneMaySpinForAnotherOfItsWarp) {
  BodyCase test;
  test.opcode = "spin";
  test.in.resize(2);
  test.body = R"(
setp.ne.u32 %p0, %i, 31;
@%p0 bra WAIT;
mov.u32 %r4, 1;
st.release.gpu.global.u32 [%in], %r4;
bra END;
WAIT:
ld.acquire.gpu.global.u32 %r5, [%in];
setp.eq.u32 %p1, %r5, 0;
@%p1 bra WAIT;
END:
st.global.u32 [%out], %r5;
)";
  // Lane 31 leaves %r5 as it was.
  test.body = "mov.u32 %r5, 9;\n" + test.body;
  for (std::size_t i = 0; i < 31; ++i) test.Want(i) = 1;
  test.Want(31) = 9;
  test.want_in = {1, 0};
  for (const IsaLevel level : RunnableLevels()) CheckBody(test, level);
}

// A lock that each lane takes in turn: the classic that hangs warps without
// independent progress.
TEST(Divergence, LanesTakeALockOneAfterTheOther) {
  BodyCase test;
  test.opcode = "lock";
  test.blocks = 3;
  test.threads = 64;
  test.in.resize(2);
  test.body = R"(
LOCK:
atom.acquire.gpu.global.cas.b32 %r4, [%in], 0, 1;
setp.ne.u32 %p0, %r4, 0;
@%p0 bra LOCK;
ld.global.u32 %r5, [%in+8];
add.u32 %r5, %r5, 1;
st.global.u32 [%in+8], %r5;
membar.gl;
atom.release.gpu.global.exch.b32 %r4, [%in], 0;
)";
  test.want_in = {0, 192};
  for (const IsaLevel level : RunnableLevels()) CheckBody(test, level);
}

}  // namespace
}  // namespace pos::ptx::testing
