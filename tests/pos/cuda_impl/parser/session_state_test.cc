#include "pos/cuda_impl/parser/session_state.h"

#include <gtest/gtest.h>

#include <memory>

#include "pos/device/null_device.h"

namespace pos::cuda {
namespace {

class NoLedger : public MemoryLedger {
 public:
  Answer Take(int, std::uint64_t) override { return Answer::kDenied; }
  void GiveBack(int, std::uint64_t) override {}
  [[nodiscard]] std::uint64_t FreeBytes(int) const override { return 0; }
};

ArenaLayout Layout() {
  return {.arena_base = 0x7e8000000000,
          .arena_bytes = 2ull << 30,
          .host_base = 0x7e8100000000,
          .host_bytes = 64 << 20};
}

// What code images take is bounded: no device grants it.
TEST(SessionState, HoldsCodeUpToALimit) {
  NoLedger ledger;
  const std::unique_ptr<Device> device = NewNullDevice(1 << 20);
  SessionState state({device.get()}, Layout(), &ledger);
  state.code_bytes_limit = 1000;
  EXPECT_EQ(state.NewBlob(1001), nullptr);
  EXPECT_EQ(state.NewBlob(~std::uint64_t{0}), nullptr);
  std::shared_ptr<Blob> first = state.NewBlob(600);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->bytes.size(), 600u);
  EXPECT_EQ(state.NewBlob(401), nullptr);
  const std::shared_ptr<Blob> second = state.NewBlob(400);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(state.NewBlob(1), nullptr);
  first.reset();
  EXPECT_NE(state.NewBlob(600), nullptr);
}

}  // namespace
}  // namespace pos::cuda
