// What the analysis proves, rule by rule.
#include "rules.h"

#include <gtest/gtest.h>

namespace pos::access::testing {
namespace {

// %d1, %d2, %d3 = p0, p1, p2; %r1 = n, %r2 = m; %r10 = the thread's number in
// the grid, as compilers compute it; %d10 = %r10 * 4.
constexpr const char* kUsual = R"(
  ld.param.u64 %d20, [p0];
  cvta.to.global.u64 %d1, %d20;
  ld.param.u64 %d2, [p1];
  ld.param.u64 %d3, [p2];
  ld.param.u32 %r1, [n];
  ld.param.u32 %r2, [m];
    mov.u32 %r7, %ntid.x;
  mov.u32 %r8, %ctaid.x;
  mov.u32 %r9, %tid.x;
  mad.lo.s32 %r10, %r8, %r7, %r9;
  mul.wide.s32 %d10, %r10, 4;
)";

std::string Launched(const std::string& body, const std::string& before = "") {
  return Rule(kUsual + body, before).Launch();
}

TEST(AccessRules, AnIndexOfTheThreadHasTheLaunchesBounds) {
  EXPECT_EQ(Launched("add.s64 %d4, %d1, %d10; st.global.f32 [%d4], %f1;"),
            "proven w: A[0,256)");
  EXPECT_EQ(Launched("add.s64 %d4, %d2, %d10; ld.global.f32 %f1, [%d4+8];"),
            "proven r: B[8,264)");
  EXPECT_EQ(Launched("add.s64 %d4, %d1, %d10;"
                     "atom.global.add.u32 %r3, [%d4], 1;"),
            "proven r: A[0,256) w: A[0,256)");
  EXPECT_EQ(Launched("st.global.v4.f32 [%d1+16], {%f1,%f2,%f3,%f4};"),
            "proven w: A[16,32)");
  EXPECT_EQ(Launched("ld.global.nc.f64 %fd1, [%d2+8];"), "proven r: B[8,16)");
}

TEST(AccessRules, BoundsFollowTheArithmetic) {
  EXPECT_EQ(Launched("and.b32 %r3, %r10, 7; mul.wide.u32 %d5, %r3, 8;"
                     "add.s64 %d4, %d1, %d5; st.global.u64 [%d4], %d4;"),
            "proven w: A[0,64)");
  EXPECT_EQ(Launched("shr.u32 %r3, %r10, 3; mul.wide.u32 %d5, %r3, 4;"
                     "add.s64 %d4, %d1, %d5; st.global.u32 [%d4], %r3;"),
            "proven w: A[0,32)");
  EXPECT_EQ(Launched("rem.u32 %r3, %r10, %r1; mul.wide.u32 %d5, %r3, 4;"
                     "add.s64 %d4, %d1, %d5; st.global.u32 [%d4], %r3;"),
            "proven w: A[0,40)");
  EXPECT_EQ(Launched("mad.lo.s32 %r4, %r2, 100, %r10; shl.b32 %r3, %r4, 2;"
                     "cvt.s64.s32 %d5, %r3;"
                     "add.s64 %d4, %d5, %d1; st.global.u32 [%d4], %r3;"),
            "proven w: A[1200,1456)");
  EXPECT_EQ(Launched("sub.s32 %r3, 99, %r9; mul.wide.s32 %d5, %r3, 4;"
                     "add.s64 %d4, %d5, %d1; st.global.u32 [%d4], %r3;"),
            "proven w: A[272,400)");
  EXPECT_EQ(Launched("selp.b32 %r3, 5, 9, %p1; mul.wide.s32 %d5, %r3, 4;"
                     "add.s64 %d4, %d5, %d1; st.global.u32 [%d4], %r3;"),
            "proven w: A[20,40)");
}

TEST(AccessRules, ArithmeticThatMayWrapHasNoBounds) {
  // n * 2^30 does not fit 32 bits.
  EXPECT_EQ(Launched("mul.lo.s32 %r3, %r1, 1073741824;"
                     "mul.wide.s32 %d5, %r3, 4; add.s64 %d4, %d5, %d1;"
                     "st.global.u32 [%d4], %r3;"),
            "proven w: A");
  // 32 - 31 - tid is negative for most threads: as an unsigned number, large.
  EXPECT_EQ(Launched("sub.u32 %r3, 1, %r9; mul.wide.u32 %d5, %r3, 4;"
                     "add.s64 %d4, %d5, %d1; st.global.u32 [%d4], %r3;"),
            "proven w: A");
  EXPECT_EQ(Launched("sub.u32 %r3, 1, %r9; cvt.u64.u32 %d5, %r3;"
                     "add.s64 %d4, %d5, %d1; st.global.u8 [%d4], %h1;"),
            "proven w: A");
  EXPECT_EQ(Launched("add.s32 %r3, %r9, 0x7fffffff; mul.wide.s32 %d5, %r3, 4;"
                     "add.s64 %d4, %d5, %d1; st.global.u32 [%d4], %r3;"),
            "proven w: A");
  // Sixteen bits wrap earlier.
  EXPECT_EQ(Launched("cvt.u16.u32 %h1, %r9; mul.lo.s16 %h2, %h1, 4096;"
                     "cvt.u64.u16 %d5, %h2; add.s64 %d4, %d5, %d1;"
                     "st.global.u32 [%d4], %r3;"),
            "proven w: A");
  // Unsigned maximum of what may be "negative".
  EXPECT_EQ(Launched("ld.global.u64 %d5, [%d2]; shl.b64 %d6, %d5, 1;"
                     "max.u64 %d7, %d6, 8; add.s64 %d4, %d7, %d1;"
                     "st.global.u8 [%d4], %h1;"),
            "proven r: B[0,8) w: A");
}

TEST(AccessRules, LoopsLoseThePlaceNotTheObject) {
  EXPECT_EQ(Launched("add.s64 %d4, %d1, %d10;\nL: st.global.u32 [%d4], %r1;"
                     "add.s64 %d4, %d4, 4; setp.ne.s32 %p1, %r1, 0;"
                     "@%p1 bra L;"),
            "proven w: A");
  EXPECT_EQ(Launched("mov.u32 %r3, 0;\nL: mul.wide.s32 %d5, %r3, 4;"
                     "add.s64 %d4, %d5, %d1; st.global.u32 [%d4], %r1;"
                     "add.s32 %r3, %r3, 1; setp.lt.s32 %p1, %r3, %r1;"
                     "@%p1 bra L;"),
            "proven w: A");
  // Whichever comes first: the loop's body stands before its start.
  EXPECT_EQ(Launched("bra S;\nL: st.global.u32 [%d4], %r1;"
                     "add.s64 %d4, %d4, 4; ret;\nS: mov.u64 %d4, %d1; bra L;"),
            "proven w: A");
}

TEST(AccessRules, AlternativesCountAll) {
  EXPECT_EQ(Launched("selp.b64 %d4, %d1, %d2, %p1; st.global.u32 [%d4], %r1;"),
            "proven w: A[0,4) B[0,4)");
  EXPECT_EQ(Launched("mov.u64 %d4, %d1; @%p1 mov.u64 %d4, %d2;"
                     "st.global.u32 [%d4], %r1;"),
            "proven w: A[0,4) B[0,4)");
  EXPECT_EQ(Launched("min.u64 %d4, %d1, %d2; st.global.u32 [%d4], %r1;"),
            "proven w: A[0,4) B[0,4)");
  // A pointer by a difference: p1 + (p0 - p1) or p1 + 0.
  EXPECT_EQ(Launched("sub.s64 %d5, %d1, %d2; selp.b64 %d6, %d5, 0, %p1;"
                     "add.s64 %d4, %d6, %d2; st.global.u32 [%d4], %r1;"),
            "proven w: A[0,4) B[0,4)");
}

TEST(AccessRules, RoundedAddressesStayInTheirObject) {
  EXPECT_EQ(Launched("add.s64 %d4, %d1, %d10; and.b64 %d5, %d4, -16;"
                     "st.global.u32 [%d5], %r1;"),
            "proven w: A[0,256)");
  EXPECT_EQ(Launched("and.b64 %d5, %d1, -256; or.b64 %d4, %d5, 4;"
                     "st.global.u32 [%d4], %r1;"),
            "proven w: A");
  EXPECT_EQ(Launched("and.b64 %d4, %d1, 0xffffffff00000000;"
                     "st.global.u32 [%d4], %r1;")
                .substr(0, 7),
            "guessed");
}

TEST(AccessRules, WordsOfStructsAreWords) {
  const Rule rule("ld.param.v2.u64 {%d1, %d2}, [s+8]; st.global.u32 [%d2], 1;");
  Rule::Arguments arguments;
  arguments.s[2] = kB + 16;
  EXPECT_EQ(rule.Launch(arguments), "proven w: B[16,20)");
  const Rule halves(
      "ld.param.v2.u32 {%r1, %r2}, [s];"
      "mov.b64 %d1, {%r1, %r2}; st.global.u32 [%d1], 1;");
  EXPECT_EQ(halves.basis(), AccessBasis::kGuessed);
}

TEST(AccessRules, VariablesAreNamed) {
  EXPECT_EQ(
      Launched("mov.u64 %d5, var; add.s64 %d4, %d5, %d10;"
               "st.global.u32 [%d4+4], %r1; ld.global.u32 %r3, [var+64];"),
      "proven r: var[64,68) w: var[4,260)");
  // Where the variable lies is not known: no proof.
  EXPECT_EQ(Launched("ld.const.u32 %r3, [con];").substr(0, 7), "guessed");
}

TEST(AccessRules, FunctionsAreFollowed) {
  constexpr const char* kFunctions = R"(
.func (.param .b64 r) shift(.param .b64 a, .param .b32 i) {
  .reg .b64 %d<5>; .reg .b32 %r<3>;
  ld.param.u64 %d1, [a]; ld.param.u32 %r1, [i];
  mul.wide.s32 %d2, %r1, 4; add.s64 %d3, %d1, %d2;
  st.param.b64 [r], %d3; ret; }
.func by_register(.reg .b64 %a) { st.global.u32 [%a], 1; ret; }
)";
  constexpr const char* kCall = R"(
  { .param .b64 x; .param .b32 y; .param .b64 z;
    st.param.b64 [x], %d1; st.param.b32 [y], %r9;
    call.uni (z), shift, (x, y);
    ld.param.b64 %d5, [z]; }
)";
  EXPECT_EQ(
      Launched(std::string(kCall) + "st.global.u32 [%d5], %r1;", kFunctions),
      "proven w: A[0,128)");
  EXPECT_EQ(Launched("call by_register, (%d2);", kFunctions),
            "proven w: B[0,4)");
  // Another call site, another object: both for either.
  EXPECT_EQ(
      Launched("call by_register, (%d2); call by_register, (%d1);", kFunctions),
      "proven w: A[0,4) B[0,4)");
}

TEST(AccessRules, SharedAndLocalMemoryAreNobodysBusiness) {
  EXPECT_EQ(Launched("mov.u32 %r3, arr; st.shared.u32 [%r3], %r1;"
                     "cvta.shared.u64 %d4, %d3; mov.u64 %d5, loc;"
                     "st.local.u32 [%d5], %r1; cvta.local.u64 %d6, %d5;"
                     "st.u32 [%d6+4], %r1; mov.u64 %d7, arr;"
                     "cvta.shared.u64 %d8, %d7; st.u32 [%d8], %r1;"),
            "proven");
}

TEST(AccessRules, PointersSurviveLocalMemory) {
  EXPECT_EQ(Launched("mov.u64 %d5, loc; st.local.u64 [%d5], %d1;"
                     "st.local.u64 [%d5+8], %d2; ld.local.u64 %d6, [%d5+8];"
                     "st.u32 [%d6], %r1;"),
            "proven w: B[0,4)");
  // An array of pointers, indexed.
  EXPECT_EQ(Launched("mov.u64 %d5, loc; st.local.u64 [%d5], %d1;"
                     "st.local.u64 [%d5+8], %d2; and.b32 %r3, %r9, 1;"
                     "mul.wide.u32 %d7, %r3, 8; add.s64 %d8, %d5, %d7;"
                     "ld.local.u64 %d6, [%d8]; st.u32 [%d6], %r1;"),
            "proven w: A[0,4) B[0,4)");
  EXPECT_EQ(Launched("st.shared.u64 [arr], %d1; ld.shared.u64 %d6, [arr+8];"
                     "st.global.u32 [%d6], %r1;"),
            "proven w: A[0,4)");
}

TEST(AccessRules, NullPointersAreNotFollowed) {
  const Rule rule(std::string(kUsual) +
                  "add.s64 %d4, %d2, %d10; st.global.u32 [%d4], %r1;");
  Rule::Arguments arguments;
  arguments.p1 = 0;
  EXPECT_EQ(rule.Launch(arguments), "proven");
  // Not null, and not a pointer to anything: it may be one all the same.
  arguments.p1 = 0x7e1234567000;
  EXPECT_EQ(rule.Launch(arguments), "guessed w: A C");
  arguments.p1 = kHost + 8;
  EXPECT_EQ(rule.Launch(arguments), "proven");
}

TEST(AccessRules, OnePastTheEndIsTheEnd) {
  const Rule rule(std::string(kUsual) + "st.global.u32 [%d2+-4], %r1;");
  Rule::Arguments arguments;
  arguments.p1 = kC;  // the end of B, too
  EXPECT_EQ(rule.Launch(arguments), "proven w: B[4092,4096)");
  arguments.p1 = kC + kBytes;
  EXPECT_EQ(rule.Launch(arguments), "proven w: C[4092,4096)");
}

TEST(AccessRules, AnAllocationEndsWhereItEnds) {
  const Rule rule(std::string(kUsual) +
                  "add.s64 %d4, %d2, %d10; st.global.u32 [%d4], %r1;");
  Rule::Arguments arguments;
  arguments.p1 = kB + kBytes - 16;
  EXPECT_EQ(rule.Launch(arguments), "proven w: B[4080,4096) C[0,240)");
  arguments.p1 = kA + kBytes - 16;  // nothing is behind it
  EXPECT_EQ(rule.Launch(arguments), "proven w: A[4080,4096)");
  arguments.p1 = kB;
  EXPECT_EQ(rule.Launch(arguments), "proven w: B[0,256)");
}

// An array that counts from 1 begins one element before its memory.
TEST(AccessRules, APointerShortlyBeforeAnAllocationMayBeMeantForIt) {
  const Rule somewhere(std::string(kUsual) +
                       "ld.global.s32 %r3, [%d1]; mul.wide.s32 %d5, %r3, 4;"
                       "add.s64 %d4, %d2, %d5; st.global.u32 [%d4], %r1;");
  Rule::Arguments arguments;
  arguments.p1 = kC - 4;
  EXPECT_EQ(somewhere.Launch(arguments), "proven r: A[0,4) w: B C");
  arguments.p1 = kB;
  EXPECT_EQ(somewhere.Launch(arguments), "proven r: A[0,4) w: B");
  const Rule threads(std::string(kUsual) +
                     "add.s64 %d4, %d2, %d10;"
                     "st.global.u32 [%d4+4], %r1;");
  arguments.p1 = kC - 4;
  EXPECT_EQ(threads.Launch(arguments), "proven w: C[0,256)");
}

// Where they lie is decided when the program is loaded, if not later.
TEST(AccessRules, DistancesOfObjectsAreNotKnown) {
  constexpr const char* kBefore = R"(
.shared .align 8 .b8 other[64];
.func f() { ret; }
.func g() { ret; }
)";
  const auto distance = [&](const std::string& a, const std::string& b) {
    return Launched("mov.u64 %d5, " + a + "; mov.u64 %d6, " + b +
                        "; sub.s64 %d7, %d6, %d5; add.s64 %d4, %d1, %d7;"
                        "st.global.u32 [%d4], %r1;",
                    kBefore);
  };
  EXPECT_EQ(distance("arr", "other"), "proven w: A");
  EXPECT_EQ(distance("f", "g"), "proven w: A");
  EXPECT_EQ(distance("p0", "p1"), "proven w: A");
  EXPECT_EQ(distance("loc", "other"), "guessed w: A B C");
  EXPECT_EQ(distance("arr", "arr+8"), "proven w: A[8,12)");
}

TEST(AccessRules, PrintingReadsItsTexts) {
  constexpr const char* kBefore = R"(
.extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);
.global .align 1 .b8 plain[4] = {37, 100, 10, 0};
.global .align 1 .b8 string[4] = {37, 115, 10, 0};
)";
  const auto print = [](const std::string& format) {
    return "mov.u64 %d5, loc; st.local.u64 [%d5], %d1; mov.u64 %d6, " + format +
           "; cvta.global.u64 %d6, %d6; cvta.local.u64 %d7, %d5;"
           "{ .param .b64 f; .param .b64 a; .param .b32 r;"
           "st.param.b64 [f], %d6; st.param.b64 [a], %d7;"
           "call.uni (r), vprintf, (f, a); ld.param.b32 %r3, [r]; }";
  };
  EXPECT_EQ(Rule(kUsual + print("plain"), kBefore).basis(),
            AccessBasis::kProven);
  EXPECT_EQ(Rule(kUsual + print("string"), kBefore).basis(),
            AccessBasis::kGuessed);
}

}  // namespace
}  // namespace pos::access::testing
