#include "pos/runner/stage_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "pos/base/clock.h"
#include "pos/queue/spsc_ring.h"

namespace pos {
namespace {

// Consumes a ring; its counters are plain, so that ThreadSanitizer sees whether
// Pause really hands them over.
class Counter : public Stage {
 public:
  bool Step() override {
    inside.store(true);
    ++steps;
    int value = 0;
    bool progress = false;
    for (int i = 0; i < 16 && ring.TryPop(&value); ++i) {
      ++taken;
      progress = true;
    }
    inside.store(false);
    return progress;
  }
  bool Idle() override { return !blocked && ring.Empty(); }

  SpscRing<int, 1024> ring;
  std::uint64_t steps = 0;
  std::uint64_t taken = 0;
  bool blocked = false;
  std::atomic<bool> inside{false};
};

class StageThreadTest : public ::testing::TestWithParam<std::uint64_t> {
 protected:
  Counter first_;
  Counter second_;
  Parker parker_;
};

void Feed(Counter* counter, StageThread* thread, int count) {
  for (int i = 0; i < count; ++i) {
    int value = i;
    while (!counter->ring.TryPush(value)) std::this_thread::yield();
    thread->Wake();
  }
}

void AwaitEmpty(Counter* counter) {
  const Deadline deadline = Deadline::AfterMs(20000);
  while (counter->ring.SizeApprox() != 0 && !deadline.Passed()) {
    std::this_thread::yield();
  }
  ASSERT_EQ(counter->ring.SizeApprox(), 0u) << "a wake-up was lost";
}

TEST_P(StageThreadTest, PausedThreadIsOutsideEveryStage) {
  StageThread thread("pos-test", {&first_, &second_}, &parker_, GetParam());
  thread.Start();
  std::atomic<bool> stop{false};
  std::thread producer([&] {
    while (!stop.load()) Feed(&first_, &thread, 50);
  });
  std::uint64_t last = 0;
  for (int i = 0; i < 300; ++i) {
    thread.Pause();
    ASSERT_FALSE(first_.inside.load());
    const std::uint64_t steps = first_.steps;
    ASSERT_GE(steps, last);
    first_.taken += 1;  // ours until Resume
    std::this_thread::yield();
    ASSERT_EQ(first_.steps, steps) << "a step ran while paused";
    last = steps;
    thread.Resume();
  }
  stop.store(true);
  producer.join();
  AwaitEmpty(&first_);
  thread.Stop();
}

TEST_P(StageThreadTest, SleepsAndIsWokenForEachPieceOfWork) {
  StageThread thread("pos-test", {&first_, &second_}, &parker_, GetParam());
  thread.Start();
  for (int i = 0; i < 3000; ++i) {
    Feed(&second_, &thread, 1);
    if (i % 100 == 0) AwaitEmpty(&second_);
  }
  AwaitEmpty(&second_);
  thread.Pause();
  EXPECT_EQ(second_.taken, 3000u);
  thread.Resume();
}

TEST_P(StageThreadTest, StopEndsItWhetherItSleepsWorksOrIsPaused) {
  for (int i = 0; i < 50; ++i) {
    StageThread thread("pos-test", {&first_}, &parker_, GetParam());
    thread.Start();
    if (i % 3 == 0) Feed(&first_, &thread, 100);
    if (i % 3 == 1) thread.Pause();
    thread.Stop();
    thread.Stop();
  }
}

// Work that cannot proceed (a later stage is full) is looked at again without
// anybody waking the thread.
TEST_P(StageThreadTest, NapsWhileAStageIsBlocked) {
  first_.blocked = true;
  StageThread thread("pos-test", {&first_}, &parker_, GetParam());
  thread.Start();
  std::uint64_t before = 0;
  for (int i = 0; i < 3; ++i) {
    thread.Pause();
    EXPECT_GE(first_.steps, before);
    before = first_.steps;
    thread.Resume();
    const Deadline deadline = Deadline::AfterMs(5000);
    std::uint64_t now = before;
    while (now <= before && !deadline.Passed()) {
      thread.Pause();
      now = first_.steps;
      thread.Resume();
    }
    EXPECT_GT(now, before);
  }
}

INSTANTIATE_TEST_SUITE_P(SpinTimes, StageThreadTest,
                         ::testing::Values(0, 20'000));

// The doorbell lies in memory that the client shares. A client that takes the
// sleeper's announcement back makes it sleep through every Notify; it must not
// make the runner's controlling thread wait for ever.
TEST(StageThreadTrust, HostileDoorbellDoesNotHoldUpPauseOrStop) {
  Counter counter;
  std::atomic<std::uint32_t> doorbell{0};
  Parker parker(&doorbell, FutexScope::kShared);
  StageThread thread("pos-test", {&counter}, &parker, 0);
  thread.Start();
  for (const std::uint32_t lie : {0u, 1u, 7u}) {
    const Deadline asleep = Deadline::AfterMs(5000);
    while (doorbell.load() != 1 && !asleep.Passed()) std::this_thread::yield();
    doorbell.store(lie);
    thread.Pause();
    thread.Resume();
  }
  // And one that never stops lying.
  std::atomic<bool> stop{false};
  std::thread client([&] {
    while (!stop.load()) doorbell.store(0);
  });
  for (int i = 0; i < 50; ++i) {
    thread.Pause();
    thread.Resume();
  }
  thread.Stop();
  stop.store(true);
  client.join();
}

}  // namespace
}  // namespace pos
