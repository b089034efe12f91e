// The staging arena's books.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <thread>
#include <vector>

#include "tests/support/random.h"
#include "tests/support/ring_pair.h"

namespace pos {
namespace {

constexpr std::uint64_t kUnit = wire::kLeaseBytes;

TEST(Leases, RoundsUpAndHandsOutEachUnitOnce) {
  RingPair ring;
  StagingLeases leases;
  EXPECT_EQ(leases.Acquire(&ring.client(), 1), 0u);
  EXPECT_EQ(leases.Acquire(&ring.client(), kUnit), 1u);
  EXPECT_EQ(leases.Acquire(&ring.client(), kUnit + 1), 2u);
  EXPECT_EQ(leases.UsedUnits(&ring.client()), 4u);
  EXPECT_EQ(ring.client().leases()[2].load(), 2u);
}

TEST(Leases, ExhaustionIsToldAndEndsWhenTheRunnerFrees) {
  RingPair ring;
  StagingLeases leases;
  for (std::uint32_t i = 0; i < 16; ++i) {
    ASSERT_EQ(leases.Acquire(&ring.client(), kUnit), i);
  }
  EXPECT_EQ(leases.Acquire(&ring.client(), 1), wire::kNoLease);
  ring.server().ReleaseLease(7);
  EXPECT_EQ(leases.Acquire(&ring.client(), 2 * kUnit), wire::kNoLease);
  ring.server().ReleaseLease(8);
  EXPECT_EQ(leases.Acquire(&ring.client(), 2 * kUnit), 7u);
  leases.Release(&ring.client(), 0);
  EXPECT_EQ(leases.Acquire(&ring.client(), 1), 0u);
}

TEST(Leases, MoreThanTheArenaNeverFits) {
  RingPair ring;
  StagingLeases leases;
  EXPECT_EQ(leases.Acquire(&ring.client(), 16 * kUnit + 1), wire::kNoLease);
  EXPECT_EQ(leases.Acquire(&ring.client(), ~0ull), wire::kNoLease);
  EXPECT_EQ(leases.Acquire(&ring.client(), (1ull << 48) + 1), wire::kNoLease);
  EXPECT_EQ(leases.Acquire(&ring.client(), 0), wire::kNoLease);
  EXPECT_EQ(leases.Acquire(&ring.client(), 16 * kUnit), 0u);
}

// Against a naive model: units of living leases never overlap, and a request is
// refused only when no run is free.
TEST(Leases, AgreeWithANaiveModel) {
  RingPair ring;
  StagingLeases leases;
  Random random(7);
  std::map<std::uint32_t, std::uint32_t> lent;  // first unit → units
  const auto free_run = [&](std::uint32_t wanted) {
    std::vector<bool> used(16);
    for (const auto& [first, units] : lent) {
      for (std::uint32_t i = 0; i < units; ++i) used[first + i] = true;
    }
    std::uint32_t run = 0;
    for (const bool u : used) {
      run = u ? 0 : run + 1;
      if (run == wanted) return true;
    }
    return false;
  };
  for (int step = 0; step < 20000; ++step) {
    if (random.Below(2) == 0) {
      const std::uint32_t wanted = 1 + random.Below(5);
      const std::uint32_t lease =
          leases.Acquire(&ring.client(), wanted * kUnit - random.Below(100));
      ASSERT_EQ(lease != wire::kNoLease, free_run(wanted)) << step;
      if (lease == wire::kNoLease) continue;
      ASSERT_LE(lease + wanted, 16u);
      for (const auto& [first, units] : lent) {
        ASSERT_TRUE(lease + wanted <= first || first + units <= lease);
      }
      lent[lease] = wanted;
    } else if (!lent.empty()) {
      auto it = lent.begin();
      std::advance(it, random.Below(static_cast<std::uint32_t>(lent.size())));
      if (random.Below(2) == 0) {
        ring.server().ReleaseLease(it->first);
      } else {
        leases.Release(&ring.client(), it->first);
      }
      lent.erase(it);
    }
  }
  std::uint32_t units = 0;
  for (const auto& [first, n] : lent) units += n;
  EXPECT_EQ(leases.UsedUnits(&ring.client()), units);
}

TEST(Leases, SurviveNewSharedMemory) {
  StagingLeases leases;
  std::uint32_t freed = 0;
  std::uint32_t kept = 0;
  {
    RingPair before;
    freed = leases.Acquire(&before.client(), 3 * kUnit);
    kept = leases.Acquire(&before.client(), 2 * kUnit);
    before.server().ReleaseLease(freed);
    // Filled, and not sent yet: the owner stands at the door.
    std::memset(before.client().Staging(kept), 0x5a, 2 * kUnit);
    leases.Save(&before.client());
  }
  RingPair after;
  std::memset(after.client().Staging(0), 0, 16 * kUnit);
  ASSERT_TRUE(leases.Restore(&after.client()).ok());
  EXPECT_EQ(after.client().leases()[freed].load(), 0u);
  EXPECT_EQ(after.client().leases()[kept].load(), 2u);
  EXPECT_EQ(leases.UsedUnits(&after.client()), 2u);
  const std::byte* const at = after.client().Staging(kept);
  EXPECT_EQ(std::count(at, at + 2 * kUnit, std::byte{0x5a}), 2 * kUnit);
  EXPECT_EQ(std::to_integer<int>(at[2 * kUnit]), 0);
  // The new runner consumes what the old one had not.
  after.server().ReleaseLease(kept);
  EXPECT_EQ(leases.UsedUnits(&after.client()), 0u);
}

TEST(Leases, RefuseASmallerArenaThanTheyLiveIn) {
  StagingLeases leases;
  {
    RingPair before;
    ASSERT_EQ(leases.Acquire(&before.client(), kUnit), 0u);
    leases.Save(&before.client());
  }
  RingGeometry geometry = SmallGeometry();
  geometry.staging_bytes = 8 * kUnit;
  RingPair smaller(geometry);
  EXPECT_EQ(leases.Restore(&smaller.client()).code(), Code::kIncompatible);
  geometry.staging_bytes = 32 * kUnit;
  RingPair larger(geometry);
  ASSERT_TRUE(leases.Restore(&larger.client()).ok());
  EXPECT_EQ(leases.UsedUnits(&larger.client()), 1u);
  // All of the larger arena is of use.
  EXPECT_EQ(leases.Acquire(&larger.client(), 31 * kUnit), 1u);
}

// The waiter's protocol: announce, look again, sleep at the bell.
TEST(Leases, WaiterIsRungWhenALeaseComesFree) {
  RingPair ring;
  StagingLeases leases;
  constexpr int kRounds = 20000;
  std::atomic<std::uint32_t> lent{wire::kNoLease};
  std::atomic<bool> stop{false};
  std::thread runner([&] {
    while (!stop.load(std::memory_order_acquire)) {
      const std::uint32_t lease = lent.exchange(wire::kNoLease);
      if (lease != wire::kNoLease) ring.server().ReleaseLease(lease);
    }
  });
  int rang = 0;
  for (int i = 0; i < kRounds; ++i) {
    std::uint32_t lease = leases.Acquire(&ring.client(), 16 * kUnit);
    while (lease == wire::kNoLease) {
      ring.client().lease_waiters()->exchange(1, std::memory_order_acq_rel);
      lease = leases.Acquire(&ring.client(), 16 * kUnit);
      if (lease != wire::kNoLease) break;
      pollfd p{ring.server().bell_fd(), POLLIN, 0};
      ASSERT_EQ(::poll(&p, 1, 10000), 1) << "a lease came free in silence";
      ring.BellRang();
      ++rang;
      lease = leases.Acquire(&ring.client(), 16 * kUnit);
    }
    lent.store(lease);
  }
  stop.store(true, std::memory_order_release);
  runner.join();
  EXPECT_GT(rang, 0);
}

TEST(Leases, ManyThreadsNeverShareAUnit) {
  RingPair ring;
  StagingLeases leases;
  std::vector<std::thread> threads;
  std::atomic<bool> overlap{false};
  for (unsigned t = 1; t <= 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5000; ++i) {
        const std::uint32_t lease =
            leases.Acquire(&ring.client(), (1 + t % 2) * kUnit);
        if (lease == wire::kNoLease) continue;
        std::byte* const at = ring.client().Staging(lease);
        std::memset(at, static_cast<int>(t), 256);
        for (int k = 0; k < 256; ++k) {
          if (at[k] != std::byte(t)) overlap = true;
        }
        leases.Release(&ring.client(), lease);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_FALSE(overlap.load());
  EXPECT_EQ(leases.UsedUnits(&ring.client()), 0u);
}

}  // namespace
}  // namespace pos
