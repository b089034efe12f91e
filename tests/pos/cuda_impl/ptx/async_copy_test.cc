// cp.async and cp.async.bulk between warps, and at the ends of allocations.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "body_case.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

// Two stages of tiles: while one is read, the next is on its way, as a matrix
// product does it.
TEST(AsyncCopies, OverlapTilesInGroups) {
  BodyCase test;
  test.opcode = "cp.async.cg.shared.global";
  test.blocks = 5;
  test.threads = 64;
  test.workers = 3;
  test.budget = 1000;
  constexpr std::size_t kTiles = 12;
  for (std::size_t i = 0; i < kTiles * 128; ++i) test.in.push_back(i * 7 + 1);
  test.body = R"(
.shared .align 16 .b8 room[2048];
mov.u32 %r2, %tid.x;
mov.u32 %r3, room;
shl.b32 %r4, %r2, 4;
cvt.u64.u32 %d1, %r4;
add.u64 %d1, %in, %d1;
add.u32 %r5, %r3, %r4;
cp.async.cg.shared.global [%r5], [%d1], 16;
cp.async.commit_group;
mov.u32 %r6, 1;
mov.u64 %d9, 0;
TILE:
and.b32 %r7, %r6, 1;
shl.b32 %r7, %r7, 10;
add.u32 %r8, %r5, %r7;
mul.wide.u32 %d2, %r6, 1024;
add.u64 %d2, %d1, %d2;
setp.lt.u32 %p0, %r6, 12;
@%p0 cp.async.cg.shared.global [%r8], [%d2], 16;
cp.async.commit_group;
cp.async.wait_group 1;
bar.sync 0;
xor.b32 %r9, %r7, 1024;
xor.b32 %r10, %r2, 63;
shl.b32 %r10, %r10, 4;
add.u32 %r9, %r9, %r10;
add.u32 %r9, %r9, %r3;
ld.shared.v2.u64 {%d3, %d4}, [%r9];
mad.lo.u64 %d9, %d9, 5, %d3;
add.u64 %d9, %d9, %d4;
bar.sync 0;
add.u32 %r6, %r6, 1;
setp.le.u32 %p1, %r6, 12;
@%p1 bra TILE;
st.global.u64 [%out], %d9;
)";
  for (std::size_t i = 0; i < 5 * 64; ++i) {
    u64 value = 0;
    for (std::size_t tile = 0; tile < kTiles; ++tile) {
      const std::size_t at = tile * 128 + 2 * (63 - i % 64);
      value = value * 5 + test.in[at] + test.in[at + 1];
    }
    test.Want(i) = value;
  }
  CheckAllLevels(test);
}

// An allocation of `bytes` bytes that begins at [p]; what lane 0 does with it
// and shared memory `room`.
LaunchResult RunAtEnd(const std::string& body, std::uint64_t bytes,
                      IsaLevel level) {
  TestModule module(
      R"(.version 8.8
.target sm_90
.address_size 64
.visible .entry k(.param .u64 p)
{
.reg .b64 %d<10>;
.reg .b32 %r<10>;
.reg .pred %p<4>;
.shared .align 16 .b8 room[64];
.shared .align 8 .b64 bar;
ld.param.u64 %d1, [p];
mov.u32 %r1, room;
mbarrier.init.shared.b64 [bar], 1;
)" + body +
          "\nret;\n}\n",
      level);
  const u64 at = module.memory().Allocate(bytes);
  Params params;
  params.Add(at);
  return module.Launch("k", params, {.block = {1, 1, 1}});
}

struct Edge {
  std::string body;
  std::uint64_t bytes;  // of the allocation
  std::int32_t error;   // 0: it is allowed
};

TEST(AsyncCopies, TouchNoByteOutsideOfAnAllocation) {
  const std::string one = "cp.async.ca.shared.global [%r1], [%d1";
  const std::string bulk =
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%r1], [%d1";
  const std::string back = "cp.async.bulk.global.shared::cta.bulk_group [%d1";
  const std::vector<Edge> edges = {
      {one + "], 16;", 16, 0},
      {one + "], 16;", 15, 700},
      {one + "], 16, 15;", 15, 0},
      {one + "], 16, 1;", 1, 0},
      {one + "+16], 16, 0;", 1, 0},  // nothing is read
      {one + "], 16, 17;", 64, 715},
      {one + "+4], 8;", 64, 716},
      {one + "+8], 16;", 64, 716},
      {one + "+4], 4;", 8, 0},
      {"cp.async.ca.shared.global [%r1+64], [%d1], 16;", 16, 700},
      {"cp.async.ca.shared.global [%r1+4], [%d1], 8;", 16, 716},
      {"setp.eq.u32 %p1, %r1, %r1;\n" + one + "+16], 4, %p1;", 1, 0},
      {bulk + "], 64, [bar];", 64, 0},
      {bulk + "], 64, [bar];", 63, 700},
      {bulk + "], 48, [bar];", 48, 0},
      {bulk + "], 8, [bar];", 64, 715},
      {bulk + "+8], 16, [bar];", 64, 716},
      {bulk + "], 128, [bar];", 128, 700},
      {bulk + "], 16, [room];", 64, 715},  // no mbarrier
      {back + "], [%r1], 64;", 64, 0},
      {back + "], [%r1], 64;", 48, 700},
      {back + "], [%r1+8], 16;", 64, 716},
      {"st.bulk.weak.shared::cta [%r1], 64, 0;", 1, 0},
      {"st.bulk.weak.shared::cta [%r1], 12, 0;", 1, 715},
      {"st.bulk.weak.shared::cta [%r1+8], 4096, 0;", 1, 715},
      {"st.bulk.weak [%d1], 64, 0;", 64, 715},
      {"mapa.shared::cluster.u32 %r2, %r1, 1;", 1, 715},
  };
  for (const IsaLevel level : RunnableLevels()) {
    for (const Edge& edge : edges) {
      const LaunchResult result = RunAtEnd(edge.body, edge.bytes, level);
      const std::int32_t got = result.fault ? result.fault->error : 0;
      EXPECT_EQ(got, edge.error)
          << edge.body << " of " << edge.bytes
          << " bytes: " << (result.fault ? result.fault->text : "no fault");
    }
  }
}

// What no device can do makes the kernel unlaunchable.
TEST(AsyncCopies, OfSizesThatDoNotExistAreRefused) {
  for (const char* line :
       {"cp.async.ca.shared.global [%r1], [%d1], 12;",
        "cp.async.cg.shared.global [%r1], [%d1], 8;",
        "cp.async.ca.shared.global [%r1], [%d1], %r1;",
        "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r1], "
        "[%d1], 16;",
        "st.bulk [%d1], 16, 1;", "mbarrier.init.shared.b64 [%r1];"}) {
    TestModule module(
        ".version 8.8\n.target sm_90\n.address_size 64\n"
        ".visible .entry k()\n{\n.reg .b64 %d<4>;\n.reg .b32 %r<4>;\n" +
        std::string(line) + "\nret;\n}\n");
    const auto kernel = module.loaded().GetKernel("k");
    ASSERT_FALSE(kernel.ok()) << line;
    EXPECT_EQ(kernel.status().code(), Code::kIncompatible) << line;
  }
}

}  // namespace
}  // namespace pos::ptx::testing
