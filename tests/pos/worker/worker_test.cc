#include "pos/worker/worker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "tests/support/fake_stages.h"
#include "tests/support/random.h"

namespace pos {
namespace {

using Outcome = ApiExecutor::Outcome;
using Pcs = std::vector<std::uint64_t>;

class WorkerTest : public ::testing::Test {
 protected:
  ApiContext* Push(std::uint64_t pc, bool wants_reply = true) {
    ApiContext* const context = pool_.Take();
    context->pc = pc;
    context->slot = wants_reply ? 0 : wire::kNoSlot;
    ApiContext* pushed = context;
    EXPECT_TRUE(in_->TryPush(pushed));
    return context;
  }
  void Run() {
    while (worker_.Step()) {
    }
  }

  FakeExecutor api_;
  FakePort port_;
  ContextPool pool_;
  std::unique_ptr<ContextQueue> in_ = std::make_unique<ContextQueue>();
  CompletionQueue completions_;
  Worker worker_{&api_, &pool_, &port_, in_.get(), &completions_};
};

TEST_F(WorkerTest, FinishesEachCallOnce) {
  for (std::uint64_t pc = 1; pc <= 200; ++pc) Push(pc, pc % 2 == 0);
  Run();
  ASSERT_EQ(api_.executed.size(), 200u);
  for (std::uint64_t pc = 1; pc <= 200; ++pc) {
    EXPECT_EQ(api_.executed[pc - 1], pc);
    EXPECT_EQ(port_.Replies(pc), pc % 2 == 0 ? 1 : 0);
    EXPECT_EQ(port_.Released(pc), 1);
  }
  EXPECT_EQ(pool_.Outstanding(), 0u);
  EXPECT_TRUE(worker_.Idle());
  EXPECT_TRUE(worker_.Quiet());
}

TEST_F(WorkerTest, CallsComeBackFromTheDeviceOutOfOrder) {
  api_.on_execute = [](ApiContext*) { return Outcome::kInFlight; };
  std::vector<ApiContext*> contexts;
  for (std::uint64_t pc = 1; pc <= 5; ++pc) contexts.push_back(Push(pc));
  Run();
  EXPECT_EQ(worker_.in_flight(), 5u);
  EXPECT_TRUE(worker_.Idle()) << "the device will ring";
  EXPECT_FALSE(worker_.Quiet());
  for (const int i : {3, 0, 4, 1, 2}) {
    completions_.OnComplete(
        ApiExecutor::TokenOf(contexts[static_cast<std::size_t>(i)]), i);
    EXPECT_FALSE(worker_.Idle());
    Run();
  }
  EXPECT_EQ(api_.completed, Pcs({4, 1, 5, 2, 3}));
  EXPECT_EQ(port_.Result(4), 3);
  EXPECT_EQ(port_.Order(), Pcs({4, 1, 5, 2, 3}));
  EXPECT_EQ(worker_.in_flight(), 0u);
  EXPECT_TRUE(worker_.Quiet());
}

// A call may go to the device again: one token for each context it waits for.
TEST_F(WorkerTest, CallThatWaitsForSeveralTokensEndsWithTheLast) {
  api_.on_execute = [](ApiContext* context) {
    context->scratch[0] = 3;
    return Outcome::kInFlight;
  };
  api_.on_complete = [](ApiContext* context) {
    return --context->scratch[0] == 0 ? Outcome::kDone : Outcome::kInFlight;
  };
  const ApiContext* const context = Push(1);
  Run();
  const std::uint64_t token = ApiExecutor::TokenOf(context);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(port_.Replies(1), 0);
    EXPECT_EQ(worker_.in_flight(), 1u);
    completions_.OnComplete(token, 0);
    Run();
  }
  EXPECT_EQ(port_.Replies(1), 1);
  EXPECT_EQ(worker_.in_flight(), 0u);
}

// The device may report before Execute returns.
TEST_F(WorkerTest, CompletionInsideTheSubmissionIsCountedRight) {
  api_.on_execute = [this](ApiContext* context) {
    completions_.OnComplete(ApiExecutor::TokenOf(context), 0);
    return Outcome::kInFlight;
  };
  for (std::uint64_t pc = 1; pc <= 1000; ++pc) Push(pc);
  Run();
  EXPECT_EQ(api_.completed.size(), 1000u);
  EXPECT_EQ(worker_.in_flight(), 0u);
  EXPECT_TRUE(worker_.Quiet());
}

TEST_F(WorkerTest, HoldSetsCallsAsideAndTheyRunFirstAfterwards) {
  Push(1);
  Run();
  worker_.SetHold(Worker::Hold::kNow);
  for (std::uint64_t pc = 2; pc <= 200; ++pc) Push(pc);
  Run();
  EXPECT_EQ(api_.executed, Pcs({1}));
  EXPECT_EQ(worker_.pending().size(), 199u);
  EXPECT_TRUE(worker_.Idle());
  EXPECT_TRUE(worker_.Quiet()) << "pending calls are part of a cut";
  for (std::uint64_t pc = 201; pc <= 300; ++pc) Push(pc);
  worker_.SetHold(Worker::Hold::kNone);
  EXPECT_FALSE(worker_.Idle());
  Run();
  ASSERT_EQ(api_.executed.size(), 300u);
  for (std::size_t i = 0; i < 300; ++i) EXPECT_EQ(api_.executed[i], i + 1);
}

TEST_F(WorkerTest, HoldLetsWhatIsOnTheDeviceFinish) {
  api_.on_execute = [](ApiContext*) { return Outcome::kInFlight; };
  const ApiContext* const context = Push(1);
  Run();
  worker_.SetHold(Worker::Hold::kNow);
  Push(2);
  Run();
  EXPECT_FALSE(worker_.Quiet());
  completions_.OnComplete(ApiExecutor::TokenOf(context), 0);
  Run();
  EXPECT_TRUE(worker_.Quiet());
  EXPECT_EQ(port_.Replies(1), 1);
  EXPECT_EQ(port_.Replies(2), 0);
}

// Calls go on until nothing is on the device for a moment; from then on none.
TEST_F(WorkerTest, HoldWhenIdleTakesTheFirstMoment) {
  api_.on_execute = [](ApiContext*) { return Outcome::kInFlight; };
  const ApiContext* const first = Push(1);
  Run();
  worker_.SetHold(Worker::Hold::kWhenIdle);
  const ApiContext* const second = Push(2);
  Run();
  EXPECT_EQ(api_.executed, Pcs({1, 2}))
      << "the device is busy: nothing changes";
  EXPECT_FALSE(worker_.still());
  completions_.OnComplete(ApiExecutor::TokenOf(first), 0);
  Run();
  EXPECT_FALSE(worker_.still());
  Push(3);
  completions_.OnComplete(ApiExecutor::TokenOf(second), 0);
  Run();
  EXPECT_TRUE(worker_.still()) << "between the answer and the next call";
  EXPECT_EQ(port_.Replies(2), 1);
  EXPECT_EQ(api_.executed, Pcs({1, 2}));
  EXPECT_EQ(worker_.pending().size(), 1u);
  EXPECT_TRUE(worker_.Idle());
  EXPECT_TRUE(worker_.Quiet());
  worker_.SetHold(Worker::Hold::kNow);
  Run();
  EXPECT_TRUE(worker_.still()) << "it stays so when the gate is closed";
  worker_.SetHold(Worker::Hold::kNone);
  EXPECT_FALSE(worker_.Idle());
  Run();
  EXPECT_EQ(api_.executed, Pcs({1, 2, 3}));
  EXPECT_FALSE(worker_.still());
}

TEST_F(WorkerTest, HoldNowIsStillOnceTheDeviceIs) {
  api_.on_execute = [](ApiContext*) { return Outcome::kInFlight; };
  const ApiContext* const context = Push(1);
  Run();
  worker_.SetHold(Worker::Hold::kNow);
  Push(2);
  Run();
  EXPECT_FALSE(worker_.still());
  EXPECT_EQ(worker_.completed(), 0u);
  completions_.OnComplete(ApiExecutor::TokenOf(context), 0);
  Run();
  EXPECT_TRUE(worker_.still());
  EXPECT_EQ(worker_.completed(), 1u);
  EXPECT_EQ(api_.executed, Pcs({1}));
}

TEST_F(WorkerTest, AnsweredCallsAreNotAnsweredAgain) {
  ApiContext* const context = Push(1);
  context->answered = true;
  Run();
  EXPECT_EQ(port_.Replies(1), 0);
  EXPECT_EQ(port_.Released(1), 1);
}

// --- Calls that wait ---

TEST_F(WorkerTest, BlockedCallHoldsUpAllLaterOnesUntilRetried) {
  int refusals = 3;
  api_.on_execute = [&](ApiContext* context) {
    if (context->pc == 3 && refusals-- > 0) return Outcome::kBlocked;
    return Outcome::kDone;
  };
  for (std::uint64_t pc = 1; pc <= 200; ++pc) Push(pc);
  for (int i = 0; i < 3; ++i) {
    Run();
    ASSERT_EQ(api_.executed.size(), 3u + static_cast<std::size_t>(i))
        << "asked once for each retry";
    EXPECT_TRUE(worker_.Idle()) << "nothing to do until somebody says so";
    EXPECT_FALSE(worker_.Quiet()) << "calls are in the queue";
    EXPECT_EQ(worker_.in_flight(), 0u);
    EXPECT_EQ(port_.Replies(3), 0);
    worker_.Retry();
    EXPECT_FALSE(worker_.Idle());
  }
  Run();
  EXPECT_EQ(api_.executed.size(), 203u);
  Pcs expected;
  for (std::uint64_t pc = 1; pc <= 200; ++pc) expected.push_back(pc);
  EXPECT_EQ(port_.Order(), expected);
  EXPECT_EQ(pool_.Outstanding(), 0u);
  EXPECT_TRUE(worker_.Quiet());
}

TEST_F(WorkerTest, CompletionsAreTakenWhileACallWaits) {
  api_.on_execute = [](ApiContext* context) {
    return context->pc == 1 ? Outcome::kInFlight : Outcome::kBlocked;
  };
  const ApiContext* const context = Push(1);
  Push(2);
  Run();
  EXPECT_TRUE(worker_.Idle());
  completions_.OnComplete(ApiExecutor::TokenOf(context), 0);
  EXPECT_FALSE(worker_.Idle());
  Run();
  EXPECT_EQ(port_.Order(), Pcs({1}));
  EXPECT_EQ(api_.executed, Pcs({1, 2})) << "a completion is no retry";
}

TEST_F(WorkerTest, BlockedCallIsTheFirstPendingOneOfACut) {
  bool blocked = true;
  api_.on_execute = [&](ApiContext* context) {
    return blocked && context->pc == 2 ? Outcome::kBlocked : Outcome::kDone;
  };
  for (std::uint64_t pc = 1; pc <= 100; ++pc) Push(pc);
  Run();
  worker_.SetHold(Worker::Hold::kNow);
  Run();
  EXPECT_TRUE(worker_.Quiet());
  ASSERT_EQ(worker_.pending().size(), 99u);
  for (std::size_t i = 0; i < 99; ++i) {
    EXPECT_EQ(worker_.pending()[i]->pc, i + 2);
  }
  // A retry during a cut executes nothing, and is not lost.
  blocked = false;
  worker_.Retry();
  Run();
  EXPECT_EQ(api_.executed, Pcs({1, 2}));
  worker_.SetHold(Worker::Hold::kNone);
  EXPECT_FALSE(worker_.Idle());
  Run();
  EXPECT_EQ(port_.Order().size(), 100u);
  EXPECT_EQ(port_.Order().back(), 100u);
}

TEST_F(WorkerTest, BlockedCallStaysBlockedAcrossACutWithoutRetry) {
  api_.on_execute = [](ApiContext*) { return Outcome::kBlocked; };
  Push(1);
  Run();
  worker_.SetHold(Worker::Hold::kNow);
  Run();
  worker_.SetHold(Worker::Hold::kNone);
  EXPECT_TRUE(worker_.Idle());
  Run();
  EXPECT_EQ(api_.executed, Pcs({1}));
}

// What a call waits for comes true just when it is found blocked: the retry
// must not be missed, whatever the order.
TEST_F(WorkerTest, RetriesRaceWithBlocking) {
  constexpr std::uint64_t kCalls = 3000;
  std::atomic<std::uint64_t> allowed{0};
  std::atomic<std::uint64_t> wanted{0};
  api_.on_execute = [&](ApiContext* context) {
    wanted.store(context->pc, std::memory_order_release);
    return allowed.load(std::memory_order_acquire) >= context->pc
               ? Outcome::kDone
               : Outcome::kBlocked;
  };
  std::thread waker([&] {
    for (std::uint64_t pc = 1; pc <= kCalls; ++pc) {
      while (wanted.load(std::memory_order_acquire) < pc) {
        std::this_thread::yield();
      }
      allowed.store(pc, std::memory_order_release);
      worker_.Retry();
    }
  });
  std::uint64_t next = 1;
  while (port_.Replies(kCalls) == 0) {
    while (next <= kCalls && pool_.Outstanding() < 100) Push(next++);
    // As the thread that runs the stage does: no step while it is idle. A
    // retry that was missed ends in the test's time limit.
    if (worker_.Idle()) {
      std::this_thread::yield();
    } else {
      worker_.Step();
    }
  }
  waker.join();
  EXPECT_EQ(port_.Order().size(), kCalls);
  const Pcs order = port_.Order();
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

// Device threads complete while the worker executes.
TEST_F(WorkerTest, CompletionsRaceWithExecution) {
  constexpr std::uint64_t kCalls = 30000;
  Mutex mu;
  std::vector<std::uint64_t> tokens;
  std::atomic<bool> done{false};
  api_.on_execute = [&](ApiContext* context) {
    const MutexLock lock(&mu);
    tokens.push_back(ApiExecutor::TokenOf(context));
    return Outcome::kInFlight;
  };
  std::thread device([&] {
    Random random(1);
    while (!done.load(std::memory_order_acquire)) {
      std::vector<std::uint64_t> taken;
      {
        const MutexLock lock(&mu);
        taken.swap(tokens);
      }
      while (!taken.empty()) {
        const std::uint32_t i =
            random.Below(static_cast<std::uint32_t>(taken.size()));
        completions_.OnComplete(taken[i], 0);
        taken[i] = taken.back();
        taken.pop_back();
      }
    }
  });
  std::uint64_t next = 1;
  while (api_.completed.size() < kCalls) {
    // What the device holds counts, too: it may be slow.
    while (next <= kCalls && pool_.Outstanding() < 1000) Push(next++);
    worker_.Step();
  }
  done.store(true, std::memory_order_release);
  device.join();
  for (std::uint64_t pc = 1; pc <= kCalls; ++pc) {
    ASSERT_EQ(port_.Replies(pc), 1) << pc;
  }
  EXPECT_EQ(worker_.in_flight(), 0u);
  EXPECT_EQ(pool_.Outstanding(), 0u);
}

}  // namespace
}  // namespace pos
