// Blocks of one grid on several workers, all at the same words of memory:
// nothing is lost.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "body_case.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

constexpr std::uint32_t kBlocks = 60;
constexpr std::uint32_t kThreads = 96;
constexpr u64 kAll = u64{kBlocks} * kThreads;

BodyCase Crowd(const std::string& opcode, const std::string& body) {
  BodyCase test;
  test.opcode = opcode;
  test.blocks = kBlocks;
  test.threads = kThreads;
  test.workers = 4;
  test.budget = 50;
  test.body = body;
  return test;
}

TEST(ConcurrentBlocks, LoseNoAtomic) {
  BodyCase test = Crowd("atom", R"(
mov.u64 %d1, 1;
cvt.u64.u32 %d2, %i;
cvt.rn.f32.u32 %r5, 1;
mov.u32 %r2, 0;
AGAIN:
atom.global.add.u64 %d3, [%in], %d1;
red.relaxed.gpu.global.max.u64 [%in+8], %d2;
red.global.xor.b64 [%in+16], %d2;
red.global.add.f32 [%in+24], 0f3F800000;
atom.global.inc.u32 %r3, [%in+32], 999;
add.u32 %r2, %r2, 1;
setp.lt.u32 %p0, %r2, 5;
@%p0 bra AGAIN;
)");
  u64 all_xor = 0;
  for (u64 i = 0; i < kAll; ++i) all_xor ^= i;
  test.in.assign(5, 0);
  const float sum = 5.0f * kAll;  // below 2^24: exact in any order
  std::uint32_t bits = 0;
  std::memcpy(&bits, &sum, 4);
  test.want_in = {5 * kAll, kAll - 1, all_xor, bits, 5 * kAll % 1000};
  CheckAllLevels(test);
}

// A lock of compare-and-swap around plain accesses.
TEST(ConcurrentBlocks, TakeTurnsWithALock) {
  BodyCase test = Crowd("atom.cas", R"(
mov.u32 %r2, %tid.x;
setp.ne.u32 %p0, %r2, 0;
@%p0 bra END;
LOCK:
atom.acquire.gpu.global.cas.b32 %r3, [%in], 0, 1;
setp.ne.u32 %p1, %r3, 0;
@%p1 bra LOCK;
ld.global.u64 %d1, [%in+8];
mad.lo.u64 %d1, %d1, 1, 3;
st.global.u64 [%in+8], %d1;
atom.release.gpu.global.exch.b32 %r3, [%in], 0;
END:
)");
  test.in = {0, 0};
  test.want_in = {0, 3 * kBlocks};
  CheckAllLevels(test);
}

}  // namespace
}  // namespace pos::ptx::testing
