// The ring's order, wrap and back-pressure.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "pos/base/clock.h"
#include "tests/support/ring_pair.h"

namespace pos {
namespace {

struct Stamp {
  std::uint32_t producer;
  std::uint32_t sequence;
};

// Deterministic payload length, so that frames of many sizes meet the wrap.
std::uint32_t ExtraBytes(const Stamp& stamp) {
  return (stamp.producer * 7919 + stamp.sequence * 104729) % 900;
}

std::vector<std::byte> Payload(const Stamp& stamp) {
  std::vector<std::byte> payload(sizeof(Stamp) + ExtraBytes(stamp));
  std::memcpy(payload.data(), &stamp, sizeof(stamp));
  for (std::size_t i = sizeof(stamp); i < payload.size(); ++i) {
    payload[i] = static_cast<std::byte>(stamp.sequence + i);
  }
  return payload;
}

Stamp StampOf(std::span<const std::byte> frame) {
  Stamp stamp{};
  std::memcpy(&stamp, frame.data() + sizeof(wire::FrameHeader), sizeof(stamp));
  return stamp;
}

wire::FrameHeader* HeaderOf(std::vector<std::byte>& frame) {
  return reinterpret_cast<wire::FrameHeader*>(frame.data());
}

// "A returned before B was called, in whatever threads, so A comes first":
// each call notes a ticket before and after.
TEST(Ring, OrderOfCallsIsOrderOfFramesAcrossThreads) {
  constexpr std::uint32_t kProducers = 4;
  constexpr std::uint32_t kCalls = 8000;
  RingPair ring;
  std::atomic<std::uint64_t> clock{1};
  struct Span {
    std::uint64_t start;
    std::uint64_t end;
  };
  std::vector<std::vector<Span>> spans(kProducers, std::vector<Span>(kCalls));
  std::vector<std::thread> producers;
  for (std::uint32_t p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      for (std::uint32_t i = 0; i < kCalls; ++i) {
        const std::vector<std::byte> payload = Payload({p, i});
        const std::uint64_t start = clock.fetch_add(1);
        ASSERT_TRUE(ring.Send(1, payload));
        spans[p][i] = {start, clock.fetch_add(1)};
      }
    });
  }
  std::vector<Stamp> taken;
  const Deadline deadline = Deadline::AfterMs(50000);
  while (taken.size() < kProducers * kCalls && !deadline.Passed()) {
    std::vector<std::byte> frame = ring.Take();
    if (frame.empty()) {
      ring.server().Publish();
      std::this_thread::yield();
      continue;
    }
    const Stamp stamp = StampOf(frame);
    ASSERT_LT(stamp.producer, kProducers);
    const std::vector<std::byte> expected = Payload(stamp);
    ASSERT_EQ(HeaderOf(frame)->inline_bytes, expected.size());
    ASSERT_EQ(std::memcmp(frame.data() + sizeof(wire::FrameHeader),
                          expected.data(), expected.size()),
              0);
    taken.push_back(stamp);
  }
  ASSERT_EQ(taken.size(), kProducers * kCalls);
  for (std::thread& t : producers) t.join();

  std::array<std::uint32_t, kProducers> next{};
  for (const Stamp& stamp : taken) {
    ASSERT_EQ(stamp.sequence, next[stamp.producer]++);
  }
  // From the back: no later frame's call had ended before this one began.
  std::uint64_t earliest_end = ~0ull;
  for (std::size_t i = taken.size(); i-- > 0;) {
    const Span& span = spans[taken[i].producer][taken[i].sequence];
    ASSERT_LT(span.start, earliest_end) << "at frame " << i;
    earliest_end = std::min(earliest_end, span.end);
  }
}

TEST(Ring, EverySizeSurvivesEveryPositionOfTheWrap) {
  RingPair ring;
  // Sizes that are coprime to the ring's put the wrap at every offset.
  std::uint32_t sequence = 0;
  for (const std::uint32_t bytes :
       {8u, 9u, 24u, 1000u, 4104u, wire::kMaxInlineBytes, 32764u}) {
    SCOPED_TRACE(bytes);
    const std::uint32_t frame_bytes =
        (static_cast<std::uint32_t>(sizeof(wire::FrameHeader)) + bytes + 15) &
        ~15u;
    const std::uint32_t rounds = 2 * (256u << 10) / frame_bytes + 3;
    for (std::uint32_t i = 0; i < rounds; ++i) {
      std::vector<std::byte> payload(bytes);
      for (std::size_t k = 0; k < bytes; ++k) {
        payload[k] = static_cast<std::byte>(sequence + k * 31);
      }
      ASSERT_TRUE(ring.Send(2, payload));
      std::vector<std::byte> frame = ring.Take();
      ASSERT_EQ(frame.size(), frame_bytes);
      ASSERT_EQ(std::memcmp(frame.data() + sizeof(wire::FrameHeader),
                            payload.data(), bytes),
                0);
      ++sequence;
    }
  }
  EXPECT_TRUE(ring.Take().empty());
  EXPECT_FALSE(ring.server().HasReservations());
}

TEST(Ring, RequestIdsAscendAndNeverRepeat) {
  RingPair ring;
  std::uint64_t last = 0;
  for (std::uint64_t base : {std::uint64_t{0}, std::uint64_t{1} << 48}) {
    ring.client().SetRequestBase(base);
    for (int i = 0; i < 20000; ++i) {
      ASSERT_TRUE(ring.Send(1, {}));
      std::vector<std::byte> frame = ring.Take();
      ASSERT_FALSE(frame.empty());
      const std::uint64_t id = HeaderOf(frame)->request_id;
      if (i != 0 || base != 0) {
        ASSERT_GT(id, last);
      }
      last = id;
    }
  }
}

// A producer that finds no room waits, and goes on once there is some.
TEST(Ring, FullRingHoldsProducersBackWithoutLosingFrames) {
  RingPair ring;
  constexpr std::uint32_t kPayload = 1000;  // 1056 bytes a frame
  constexpr std::uint32_t kFits = (256 << 10) / 1056;
  std::vector<std::byte> payload(kPayload);
  const auto send = [&](std::uint32_t i) {
    std::memcpy(payload.data(), &i, sizeof(i));
    return ring.Send(3, payload);
  };
  for (std::uint32_t i = 0; i < kFits; ++i) ASSERT_TRUE(send(i));
  std::atomic<std::uint32_t> sent{kFits};
  constexpr std::uint32_t kAll = kFits + 500;
  std::thread producer([&] {
    for (std::uint32_t i = kFits; i < kAll; ++i) {
      ASSERT_TRUE(send(i));
      sent.store(i + 1);
    }
  });
  std::uint32_t taken = 0;
  const Deadline deadline = Deadline::AfterMs(30000);
  while (taken < kAll && !deadline.Passed()) {
    // Whatever was sent fits the ring: nothing is overwritten.
    ASSERT_LE(sent.load(), taken + kFits + 1);
    std::vector<std::byte> frame = ring.Take();
    if (frame.empty()) {
      ring.server().Publish();
      std::this_thread::yield();
      continue;
    }
    std::uint32_t i = 0;
    std::memcpy(&i, frame.data() + sizeof(wire::FrameHeader), sizeof(i));
    ASSERT_EQ(i, taken);
    ++taken;
  }
  producer.join();
  EXPECT_EQ(taken, kAll);
}

TEST(Ring, ClosedRingEndsProducersThatWaitAndRefusesNewOnes) {
  RingPair ring;
  std::vector<std::byte> payload(1000);
  std::atomic<bool> waiting{false};
  std::atomic<int> refused{0};
  std::vector<std::thread> producers;
  for (int p = 0; p < 3; ++p) {
    producers.emplace_back([&] {
      while (ring.Send(4, payload)) waiting.store(true);
      refused.fetch_add(1);
    });
  }
  while (!waiting.load()) std::this_thread::yield();
  ring.server().SetClosed();
  for (std::thread& t : producers) t.join();
  EXPECT_EQ(refused.load(), 3);
  EXPECT_FALSE(ring.Send(4, {}));
  EXPECT_TRUE(ring.BellRang()) << "sleepers learn of the end by the bell";
}

TEST(Ring, MarkClosedOfTheClientEndsItsProducers) {
  RingPair ring;
  ring.client().MarkClosed();
  EXPECT_FALSE(ring.Send(4, {}));
}

// Sleeping at the doorbell: a commit always wakes the server.
TEST(Ring, CommitWakesTheSleepingServer) {
  RingPair ring;
  constexpr std::uint32_t kCalls = 20000;
  std::thread producer([&] {
    for (std::uint32_t i = 0; i < kCalls; ++i) {
      ASSERT_TRUE(ring.Send(1, Payload({0, i})));
      if (i % 7 == 0) std::this_thread::yield();
    }
  });
  std::uint32_t taken = 0;
  std::uint32_t bytes = 0;
  while (taken < kCalls) {
    if (!ring.Take().empty()) {
      ++taken;
      continue;
    }
    ring.server().Publish();
    ring.server().doorbell().Prepare();
    if (ring.server().PeekSize(&bytes) != RingServer::NextResult::kNone) {
      ring.server().doorbell().Cancel();
      continue;
    }
    const std::uint64_t start = MonotonicNs();
    ring.server().doorbell().Sleep(8'000'000'000);
    ASSERT_LT(MonotonicNs() - start, 7'000'000'000ull)
        << "a commit did not ring the bell, at frame " << taken;
  }
  producer.join();
}

}  // namespace
}  // namespace pos
