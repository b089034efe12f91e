// Reply slots and the client's bell.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "pos/base/clock.h"
#include "tests/support/ring_pair.h"

namespace pos {
namespace {

TEST(Slots, AnswerReachesASpinningCallerWithoutABell) {
  RingPair ring;
  wire::ReplySlot& slot = ring.client().slot(3);
  slot.state.store(wire::kSlotPending);
  std::vector<std::byte> data(wire::kSlotDataBytes, std::byte{0x5a});
  ring.server().Complete(3, -7, data, 123);
  EXPECT_EQ(slot.state.load(), wire::kSlotDone);
  EXPECT_EQ(slot.result, -7);
  EXPECT_EQ(slot.bytes, wire::kSlotDataBytes);
  EXPECT_EQ(slot.bulk_bytes, 123u);
  EXPECT_EQ(std::memcmp(slot.data.data(), data.data(), data.size()), 0);
  EXPECT_FALSE(ring.BellRang());
}

TEST(Slots, AnswerRingsForAParkedCaller) {
  RingPair ring;
  ring.client().slot(0).state.store(wire::kSlotParked);
  ring.server().Complete(0, 0, {}, 0);
  EXPECT_TRUE(ring.BellRang());
  EXPECT_FALSE(ring.BellRang());
}

TEST(Slots, ShorterAnswerLeavesNoLengthOfTheLastOne) {
  RingPair ring;
  std::vector<std::byte> data(100, std::byte{1});
  ring.server().Complete(1, 0, data, 9);
  ring.server().Complete(1, 0, std::span(data).first(4), 0);
  EXPECT_EQ(ring.client().slot(1).bytes, 4u);
  EXPECT_EQ(ring.client().slot(1).bulk_bytes, 0u);
}

// Caller parks while the server answers: either the caller sees the answer or
// the server rings. Never neither.
TEST(Slots, ParkingRacesWithTheAnswerAndNeverLosesIt) {
  RingPair ring;
  wire::ReplySlot& slot = ring.client().slot(5);
  constexpr int kRounds = 30000;
  std::atomic<int> round{0};
  std::thread server([&] {
    for (int i = 1; i <= kRounds; ++i) {
      while (round.load(std::memory_order_acquire) < i) {
        std::this_thread::yield();
      }
      if (i % 3 == 0) std::this_thread::yield();
      ring.server().Complete(5, i, {}, 0);
    }
  });
  int rang = 0;
  for (int i = 1; i <= kRounds; ++i) {
    slot.state.store(wire::kSlotPending, std::memory_order_relaxed);
    round.store(i, std::memory_order_release);
    std::uint32_t expected = wire::kSlotPending;
    if (slot.state.compare_exchange_strong(expected, wire::kSlotParked,
                                           std::memory_order_acq_rel)) {
      pollfd p{ring.server().bell_fd(), POLLIN, 0};
      ASSERT_EQ(::poll(&p, 1, 10000), 1) << "parked, and the bell is silent";
      ASSERT_TRUE(ring.BellRang());
      ++rang;
    } else {
      ASSERT_EQ(expected, wire::kSlotDone);
    }
    ASSERT_EQ(slot.state.load(std::memory_order_acquire), wire::kSlotDone);
    ASSERT_EQ(slot.result, i);
  }
  server.join();
  EXPECT_GT(rang, 0) << "the race was never run";
}

TEST(Slots, StickyErrorIsSeenByTheClient) {
  RingPair ring;
  EXPECT_EQ(ring.client().sticky_error(), 0);
  ring.server().SetSticky(700);
  EXPECT_EQ(ring.client().sticky_error(), 700);
  ring.server().SetSticky(0);
  EXPECT_EQ(ring.client().sticky_error(), 0);
}

}  // namespace
}  // namespace pos
