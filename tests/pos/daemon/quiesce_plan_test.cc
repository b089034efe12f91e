#include "pos/daemon/quiesce_plan.h"

#include <gtest/gtest.h>

namespace pos {
namespace {

TEST(QuiescePlan, BeginsShortAndGrowsUpToTheConfiguredTime) {
  const QuiescePlan plan;
  EXPECT_EQ(plan.DrainMs(0), 20u);
  EXPECT_EQ(plan.DrainMs(1), 40u);
  EXPECT_EQ(plan.DrainMs(6), 1280u);
  EXPECT_EQ(plan.DrainMs(7), 2000u);
  EXPECT_EQ(plan.DrainMs(plan.retries), 2000u);
  // What takes `rest` costs less than twice that in the attempts before.
  for (std::uint64_t rest = 20; rest <= 2000; rest += 20) {
    std::uint64_t failed = 0;
    std::uint32_t i = 0;
    for (; plan.DrainMs(i) < rest; ++i) failed += plan.DrainMs(i);
    EXPECT_LT(failed, 2 * rest) << rest;
    EXPECT_LT(i, plan.attempts());
  }
}

TEST(QuiescePlan, NoAttemptIsLongerThanConfigured) {
  QuiescePlan plan;
  for (const std::uint64_t drain : {1u, 5u, 20u, 21u, 99u, 600'000u}) {
    plan.drain_ms = drain;
    plan.retries = 1000;
    std::uint64_t last = 0;
    for (std::uint32_t i = 0; i < plan.attempts(); ++i) {
      EXPECT_LE(plan.DrainMs(i), drain);
      EXPECT_GE(plan.DrainMs(i), last);
      last = plan.DrainMs(i);
    }
    EXPECT_EQ(last, drain);
  }
}

// Doubling without a bound waited for weeks, and then was undefined.
TEST(QuiescePlan, PausesAreBounded) {
  QuiescePlan plan;
  plan.retries = 1000;
  plan.backoff_ms = 60'000;
  EXPECT_EQ(plan.PauseMs(0, 2), 60'000u);
  EXPECT_EQ(plan.PauseMs(1, 2), 120'000u);
  for (std::uint32_t i = 2; i < 1000; ++i) {
    EXPECT_EQ(plan.PauseMs(i, 2), 240'000u) << i;
  }
  // Nobody waits after the last attempt, for nothing.
  EXPECT_EQ(plan.PauseMs(1000, 2), 0u);
  plan.retries = 0;
  EXPECT_EQ(plan.PauseMs(0, 2), 0u);
}

TEST(QuiescePlan, OneSessionIsWatchedBetweenAttemptsSeveralAreLeftAlone) {
  const QuiescePlan plan;
  for (std::uint32_t i = 0; i < plan.attempts(); ++i) {
    EXPECT_EQ(plan.WatchMs(i, 1), plan.PauseMs(i, 2)) << i;
    EXPECT_EQ(plan.PauseMs(i, 0), plan.PauseMs(i, 2)) << i;
    EXPECT_EQ(plan.PauseMs(i, 1), 0u) << i;
    EXPECT_EQ(plan.WatchMs(i, 2), 0u) << i;
    EXPECT_EQ(plan.WatchMs(i, 0), 0u) << i;
  }
  EXPECT_EQ(plan.WatchMs(0, 1), 200u);
}

}  // namespace
}  // namespace pos
