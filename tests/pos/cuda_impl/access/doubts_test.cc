// Kernels for which a proof would be wrong: none is given.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rules.h"

namespace pos::access::testing {
namespace {

constexpr const char* kUsual = R"(
  ld.param.u64 %d1, [p0];
  ld.param.u64 %d2, [p1];
  ld.param.u64 %d3, [p2];
  ld.param.u32 %r1, [n];
)";

// How a launch of it is judged when p0, p1 and p2 point to A, B and C.
std::string Judged(const std::string& body, const std::string& before = "") {
  const std::string launched = Rule(kUsual + body, before).Launch();
  return launched.substr(0, launched.find(' '));
}

TEST(AccessDoubts, PointersFromMemory) {
  EXPECT_EQ(Judged("ld.global.u64 %d4, [%d1]; st.global.u32 [%d4], 1;"),
            "guessed");
  EXPECT_EQ(Judged("ld.global.u64 %d4, [%d1]; ld.global.u32 %r3, [%d4+8];"),
            "guessed");
  EXPECT_EQ(Judged("ld.global.f64 %fd1, [%d1]; mov.b64 %d4, %fd1; "
                   "st.global.u32 [%d4], 1;"),
            "guessed");
  EXPECT_EQ(
      Judged("ld.global.v2.u64 {%d4, %d5}, [%d1]; st.global.u32 [%d5], 1;"),
      "guessed");
  EXPECT_EQ(Judged("ld.global.u64 %d4, [var]; st.global.u32 [%d4], 1;"),
            "guessed");
  EXPECT_EQ(Judged("ld.const.u64 %d4, [con]; st.global.u32 [%d4], 1;"),
            "guessed");
  EXPECT_EQ(
      Judged("atom.global.exch.b64 %d4, [%d1], %d2; st.global.u32 [%d4], 1;"),
      "guessed");
  // On one of two ways, and only in a loop.
  EXPECT_EQ(Judged("mov.u64 %d4, %d1; @%p1 ld.global.u64 %d4, "
                   "[%d2];st.global.u32 [%d4], 1;"),
            "guessed");
  EXPECT_EQ(Judged("mov.u64 %d4, %d1;\nL: st.global.u32 [%d4+8], "
                   "1;ld.global.u64 %d4, [%d4]; bra L;"),
            "guessed");
}

TEST(AccessDoubts, DistancesFromMemory) {
  EXPECT_EQ(Judged("ld.global.u64 %d4, [%d1]; sub.s64 %d12, %d4, %d2; add.s64 "
                   "%d13, %d12, %d3; st.global.u32 [%d13], 1;"),
            "guessed");
  EXPECT_EQ(Judged("ld.global.u64 %d4, [%d1]; add.s64 %d12, %d4, %d2; "
                   "st.global.u32 [%d12], 1;"),
            "guessed");
}

TEST(AccessDoubts, PointersFromParts) {
  EXPECT_EQ(Judged("ld.global.v2.u32 {%r2, %r3}, [%d1]; mov.b64 %d4, {%r2, "
                   "%r3}; st.global.u32 [%d4], 1;"),
            "guessed");
  EXPECT_EQ(Judged("mov.b64 {%r2, %r3}, %d1; mov.b64 %d4, {%r2, %r3}; "
                   "st.global.u32 [%d4], 1;"),
            "guessed");
  EXPECT_EQ(Judged("cvt.u32.u64 %r2, %d1; shr.u64 %d4, %d1, 32; shl.b64 %d12, "
                   "%d4, 32; cvt.u64.u32 %d5, %r2; or.b64 %d13, %d12, %d5; "
                   "st.global.u32 [%d13], 1;"),
            "guessed");
  EXPECT_EQ(
      Judged("mov.b64 {%r2, %r3}, %d1; cvt.u64.u32 %d4, %r3; cvt.u64.u32 %d5, "
             "%r2; bfi.b64 %d12, %d4, %d5, 32, 32; st.global.u32 [%d12], 1;"),
      "guessed");
  EXPECT_EQ(
      Judged("mov.b64 {%r2, %r3}, %d1; add.cc.u32 %r12, %r2, 4; addc.u32 %r13, "
             "%r3, 0; mov.b64 %d4, {%r12, %r13}; st.global.u32 [%d4], 1;"),
      "guessed");
  EXPECT_EQ(Judged("mov.b64 {%r2, %r3}, %d1; shfl.sync.idx.b32 %r12, %r2, 0, "
                   "31, -1; shfl.sync.idx.b32 %r13, %r3, 0, 31, -1; mov.b64 "
                   "%d4, {%r12, %r13}; st.global.u32 [%d4], 1;"),
            "guessed");
  // From an index that is one half of the other pointer.
  EXPECT_EQ(Judged("shl.b64 %d4, %d2, 1; shr.u64 %d12, %d4, 1; st.global.u32 "
                   "[%d12], 1;"),
            "guessed");
}

TEST(AccessDoubts, SelectionByBits) {
  EXPECT_EQ(Judged("xor.b64 %d4, %d1, %d2; and.b64 %d12, %d4, %d3; xor.b64 "
                   "%d13, %d12, %d1; st.global.u32 [%d13], 1;"),
            "guessed");
  EXPECT_EQ(Judged("mul.lo.u64 %d4, %d1, 1; st.global.u32 [%d4], 1;"),
            "guessed");
  EXPECT_EQ(
      Judged("not.b64 %d4, %d1; not.b64 %d12, %d4; st.global.u32 [%d12], 1;"),
      "guessed");
  EXPECT_EQ(Judged("neg.s64 %d4, %d1; neg.s64 %d12, %d4; sub.s64 %d5, %d12, "
                   "%d2; st.global.u32 [%d5], 1;"),
            "guessed");
}

TEST(AccessDoubts, SumsOfSeveralPointers) {
  // p0 + p1 - p2
  EXPECT_EQ(Judged("sub.s64 %d4, %d2, %d3; add.s64 %d12, %d1, %d4; "
                   "st.global.u32 [%d12], 1;"),
            "guessed");
  EXPECT_EQ(Judged("add.s64 %d4, %d2, %d3; st.global.u32 [%d4], 1;"),
            "guessed");
  EXPECT_EQ(Judged("add.s64 %d4, %d2, %d2; sub.s64 %d12, %d4, %d2; "
                   "st.global.u32 [%d12], 1;"),
            "guessed");
  EXPECT_EQ(
      Judged(
          "mov.u64 %d4, var; add.s64 %d12, %d4, %d1; st.global.u32 [%d12], 1;"),
      "guessed");
  EXPECT_EQ(
      Judged(
          "mov.u64 %d4, var; sub.s64 %d12, %d1, %d4; st.global.u32 [%d12], 1;"),
      "guessed");
}

// The distance of two objects as an index: whatever it reaches is among them.
TEST(AccessDoubts, DistancesAsIndices) {
  EXPECT_EQ(Rule(std::string(kUsual) +
                 "sub.s64 %d4, %d2, %d1; shr.s64 %d5, %d4, 2; shl.b64 %d6, "
                 "%d5, 2; add.s64 %d7, %d1, %d6; st.global.u32 [%d7], 1;")
                .Launch(),
            "proven w: A B");
}

TEST(AccessDoubts, OtherSpacesAddresses) {
  EXPECT_EQ(Judged("mov.u64 %d4, arr; cvta.shared.u64 %d12, %d4; sub.s64 %d5, "
                   "%d1, %d12; add.s64 %d13, %d5, %d12; add.s64 %d14, %d13, "
                   "%d12; st.u32 [%d14], 1;"),
            "guessed");
  EXPECT_EQ(Judged("cvta.shared.u64 %d4, %d1; st.u32 [%d4], 1;"), "guessed");
  EXPECT_EQ(Judged("cvta.to.shared.u64 %d4, %d1; st.global.u32 [%d4], 1;"),
            "guessed");
  EXPECT_EQ(Judged("cvta.local.u64 %d4, %d1; st.u32 [%d4], 1;"), "guessed");
  EXPECT_EQ(Judged("mov.u64 %d4, arr; st.global.u32 [%d4], 1;"), "guessed");
  EXPECT_EQ(Judged("mov.u64 %d4, loc; add.s64 %d12, %d4, %d1; cvta.local.u64 "
                   "%d13, %d12; st.u32 [%d13], 1;"),
            "guessed");
}

TEST(AccessDoubts, PointersThroughTheKernelsOwnMemory) {
  // Put together in local memory.
  EXPECT_EQ(
      Judged("mov.u64 %d4, loc; st.local.u32 [%d4], %r1; st.local.u32 [%d4+4], "
             "%r1; ld.local.u64 %d5, [%d4]; st.global.u32 [%d5], 1;"),
      "guessed");
  // The first half of a pointer is changed.
  EXPECT_EQ(
      Judged("mov.u64 %d4, loc; st.local.u64 [%d4], %d1; st.local.u32 [%d4], "
             "%r1; ld.local.u64 %d5, [%d4]; st.global.u32 [%d5], 1;"),
      "guessed");
  // By a generic address, at an index.
  EXPECT_EQ(
      Judged("mov.u64 %d4, loc; st.local.u64 [%d4], %d1; cvta.local.u64 %d6, "
             "%d4; cvt.u64.u32 %d7, %r1; add.s64 %d12, %d6, %d7; st.u16 "
             "[%d12], 1; ld.local.u64 %d5, [%d4]; st.global.u32 [%d5], 1;"),
      "guessed");
  EXPECT_EQ(Judged("st.shared.u64 [arr], %d1; st.shared.u32 [arr+4], %r1; "
                   "ld.shared.u64 %d5, [arr]; st.global.u32 [%d5], 1;"),
            "guessed");
  EXPECT_EQ(Judged("st.shared.u64 [arr], %d1; atom.shared.add.u64 %d6, [arr], "
                   "8; ld.shared.u64 %d5, [arr]; st.global.u32 [%d5], 1;"),
            "guessed");
  EXPECT_EQ(
      Judged("st.shared.u64 [arr], %d1; cp.async.ca.shared.global [arr], "
             "[%d2], 8; ld.shared.u64 %d5, [arr]; st.global.u32 [%d5], 1;"),
      "guessed");
}

TEST(AccessDoubts, ParametersByTheirAddress) {
  EXPECT_EQ(Judged("mov.b64 %d4, p0; cvta.param.u64 %d12, %d4; ld.u64 %d5, "
                   "[%d12]; st.global.u32 [%d5], 1;"),
            "guessed");
}

TEST(AccessDoubts, WhatOthersDo) {
  constexpr const char* kBefore = R"(
.func f() { ret; }
.extern .func g(.param .b64 a);
.extern .func (.param .b64 r) malloc(.param .b64 n);
)";
  EXPECT_EQ(Judged("mov.u64 %d4, f;\nT: .callprototype _ ();\ncall %d4, (), T;",
                   kBefore),
            "unknown");
  EXPECT_EQ(Judged("{ .param .b64 a; st.param.b64 [a], %d1;call.uni g, (a); }",
                   kBefore),
            "unknown");
  EXPECT_EQ(Judged("{ .param .b64 a; .param .b64 r; st.param.b64 [a], "
                   "8;call.uni (r), malloc, (a); ld.param.b64 %d4, [r]; }",
                   kBefore),
            "guessed");
  EXPECT_EQ(Judged("sust.b.1d.b32.trap [%d1, {%r1}], {%r1};"), "unknown");
  EXPECT_EQ(Judged("frobnicate.u32 %r12, %r2;"), "unknown");
  EXPECT_EQ(Judged("tex.1d.v4.f32.s32 {%f1,%f2,%f3,%f4}, [%d1, {%r1}];"),
            "guessed");
}

TEST(AccessDoubts, NumbersThatAreAddresses) {
  // No pointer at all in it.
  EXPECT_EQ(Judged("st.global.u32 [0x7f0000000000], 1;"), "guessed");
  EXPECT_EQ(Judged("cvt.u64.u32 %d4, %r1; shl.b64 %d12, %d4, 32; st.global.u32 "
                   "[%d12], 1;"),
            "guessed");
  // A small word, and the rest from halves of another.
  const Rule rule(std::string(kUsual) +
                  "mov.b64 {%r2, %r3}, %d2; cvt.u64.u32 %d4, %r3; shl.b64 "
                  "%d12, %d4, 32; cvt.u64.u32 %d5, %r2; or.b64 %d13, %d12, "
                  "%d5; add.s64 %d14, %d13, %d1; st.global.u32 [%d14], 1;");
  Rule::Arguments arguments;
  arguments.p0 = 16;
  EXPECT_EQ(rule.Launch(arguments).substr(0, 7), "guessed");
}

TEST(AccessDoubts, AddressesThatNothingComputes) {
  EXPECT_EQ(Judged("st.global.u32 [%d9], 1;"), "guessed");
  EXPECT_EQ(Judged("ld.param.u64 %d4, [s+28]; st.global.u32 [%d4], 1;"),
            "guessed");
}

// Text that would take its reader minutes, or gigabytes.
TEST(AccessDoubts, TooMuchToRead) {
  // Everything that was stored is looked at by every load that may find it.
  std::string text =
      "mov.u64 %d4, big; cvt.u64.u32 %d5, %r1;"
      "add.s64 %d6, %d4, %d5;";
  for (int i = 0; i < 1024; ++i) {
    text += "st.local.u64 [%d4+" + std::to_string(i * 8) + "], %d1;";
  }
  for (int i = 0; i < 30000; ++i) text += "ld.local.u64 %d12, [%d6];";
  const Rule loads(std::string(kUsual) + ".local .align 8 .b8 big[8192];" +
                   text);
  EXPECT_EQ(loads.basis(), AccessBasis::kGuessed);
  EXPECT_THAT(loads.kernel().reason, ::testing::HasSubstr("too much code"));
  const Rule registers(".reg .b64 %many<2000000>; mov.u64 %many7, 0;");
  EXPECT_EQ(registers.basis(), AccessBasis::kGuessed);
  EXPECT_EQ(registers.kernel().reason, "too many registers");
  EXPECT_EQ(Rule(".reg .b64 %many<1000000>; mov.u64 %many7, 0;").basis(),
            AccessBasis::kProven);
}

TEST(AccessDoubts, NoCode) {
  const std::string text = "no PTX";
  const auto image = AnalyzeImage(std::as_bytes(std::span(text)), {90, false});
  EXPECT_EQ(image->Find("k")->basis, AccessBasis::kGuessed);
  EXPECT_EQ(image->Find("other")->basis, AccessBasis::kGuessed);
}

}  // namespace
}  // namespace pos::access::testing
