// A hold is asked for again and again until Stop, and a tree that was let go is
// noticed.
#include "pos/daemon/hold_keeper.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "pos/daemon/first_error.h"

namespace pos {
namespace {

constexpr std::uint64_t kHoldMs = 200;
constexpr std::uint64_t kWaitMs = 20'000;

// The other end: answers what it is told to, and counts.
class Tree {
 public:
  void Answer(const Status& status) {
    MutexLock lock(&mu_);
    answer_ = status;
  }
  HoldKeeper::Extend Extend() {
    return [this](std::uint64_t ms) {
      MutexLock lock(&mu_);
      EXPECT_EQ(ms, kHoldMs);
      ++asked_;
      changed_.NotifyAll();
      return answer_;
    };
  }
  [[nodiscard]] int asked() {
    MutexLock lock(&mu_);
    return asked_;
  }
  // Until it was asked so often.
  bool AwaitAsked(int count) {
    const Deadline until = Deadline::AfterMs(kWaitMs);
    MutexLock lock(&mu_);
    while (asked_ < count && !until.Passed()) {
      changed_.WaitFor(&mu_, std::chrono::nanoseconds(until.LeftNs()));
    }
    return asked_ >= count;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  Status answer_;
  int asked_ = 0;
};

TEST(HoldKeeper, AsksUntilStopped) {
  Tree tree;
  HoldKeeper keeper;
  EXPECT_TRUE(keeper.lost().ok());
  const std::uint64_t began_ns = MonotonicNs();
  keeper.Start(kHoldMs, tree.Extend());
  ASSERT_TRUE(tree.AwaitAsked(8));
  // Four times a hold, not as fast as it can.
  EXPECT_GE(MonotonicNs() - began_ns, 8 * kHoldMs / 4 * 1'000'000);
  keeper.Stop();
  const int asked = tree.asked();
  EXPECT_TRUE(keeper.lost().ok());
  // Asked by somebody, not by the thread, which is gone.
  EXPECT_TRUE(keeper.Check().ok());
  EXPECT_EQ(tree.asked(), asked + 1);
}

TEST(HoldKeeper, StopDoesNotWaitForTheNextBeat) {
  Tree tree;
  HoldKeeper keeper;
  keeper.Start(kHoldMs, tree.Extend());
  ASSERT_TRUE(tree.AwaitAsked(1));
  keeper.Stop();
  keeper.Stop();
  keeper.Start(3'600'000, [](std::uint64_t) { return Status(); });
  const std::uint64_t began_ns = MonotonicNs();
  keeper.Stop();
  EXPECT_LT(MonotonicNs() - began_ns, kWaitMs * 1'000'000);
}

TEST(HoldKeeper, WhatWasLetGoIsLost) {
  for (const Code code : {Code::kNotReady, Code::kNoSuch, Code::kClosed}) {
    Tree tree;
    HoldKeeper keeper;
    tree.Answer(Status(code, "nothing is held"));
    keeper.Start(kHoldMs, tree.Extend());
    const Deadline until = Deadline::AfterMs(kWaitMs);
    while (keeper.lost().ok() && !until.Passed()) std::this_thread::yield();
    EXPECT_EQ(keeper.lost().code(), Code::kTimeout) << CodeName(code);
    EXPECT_EQ(keeper.Check().code(), Code::kTimeout);
    EXPECT_EQ(tree.asked(), 1);  // it does not come back
    // Another tree is another matter.
    tree.Answer({});
    keeper.Start(kHoldMs, tree.Extend());
    EXPECT_TRUE(keeper.lost().ok());
    ASSERT_TRUE(tree.AwaitAsked(3));
    EXPECT_TRUE(keeper.lost().ok());
  }
}

TEST(HoldKeeper, AnAnswerThatDoesNotComeIsNoLoss) {
  Tree tree;
  HoldKeeper keeper;
  tree.Answer(Timeout("no answer"));
  keeper.Start(kHoldMs, tree.Extend());
  ASSERT_TRUE(tree.AwaitAsked(3));
  EXPECT_TRUE(keeper.lost().ok());
  EXPECT_EQ(keeper.Check().code(), Code::kTimeout);
  EXPECT_TRUE(keeper.lost().ok());
}

TEST(FirstError, TheFirstOneStays) {
  FirstError error;
  error.Note({});
  EXPECT_TRUE(error.get().ok());
  error.Note(Busy("one"));
  error.Note(Internal("two"));
  error.Note({});
  EXPECT_EQ(error.get().code(), Code::kBusy);
  error.Forget();
  EXPECT_TRUE(error.get().ok());
}

}  // namespace
}  // namespace pos
