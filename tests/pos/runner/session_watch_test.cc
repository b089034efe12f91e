// Calls that a watch holds up: what waits, what goes on, what a cut, an end and
// another watch make of it.
#include <cuda.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "tests/support/random.h"
#include "tests/support/recording_watch.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"

namespace pos {
namespace {

using Verdict = MemoryWatch::Verdict;

constexpr std::uint64_t kBytes = 4096;

class SessionWatch : public ::testing::TestWithParam<int> {
 protected:
  SessionWatch() { Reset(); }
  ~SessionWatch() override { session_.reset(); }

  void Reset(std::uint32_t first_slot = 0) {
    client_.reset();
    session_.reset();
    session_ = std::make_unique<SimSession>(GetParam());
    // Other slots than those that pending calls of an image answer in.
    client_ = std::make_unique<SessionClient>(session_->ring(), first_slot);
  }
  void Begin() {
    context_ = client_->MakeContext();
    block_ = client_->Alloc(context_, kBytes);
    // The answer came from the parser; now the worker has done it, too.
    ASSERT_EQ(client_->Sync(context_.stream), 0);
    Watch(&watch_);
  }
  void Watch(MemoryWatch* watch) {
    ASSERT_TRUE((*session_)->Quiesce(Deadline::AfterMs(20000)).ok());
    (*session_)->SetWatch(watch);
    (*session_)->Resume();
  }
  // Byte `at` of the block becomes `value`.
  void Set(std::uint64_t at, std::uint32_t value) {
    client_->Post(cuda::FillArgs{.stream = context_.stream,
                                 .dst = block_ + at,
                                 .count = 1,
                                 .rows = 1,
                                 .pitch = 0,
                                 .value = value,
                                 .width = 1});
  }
  std::uint32_t BeginSync() {
    return client_->Begin(
        cuda::StreamSynchronizeArgs{.stream = context_.stream});
  }
  std::vector<std::byte> Read(std::uint64_t bytes) {
    return client_->CopyOut(context_.stream, block_, bytes);
  }

  RecordingWatch watch_;
  std::unique_ptr<SimSession> session_;
  std::unique_ptr<SessionClient> client_;
  SessionClient::Context context_;
  std::uint64_t block_ = 0;
};

double CpuSeconds() {
  rusage use{};
  EXPECT_EQ(::getrusage(RUSAGE_SELF, &use), 0);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

TEST_P(SessionWatch, ACallThatIsHeldUpThreeTimesRunsOnceAndInOrder) {
  Begin();
  int refusals = 3;
  watch_.SetDecision([&](const CallAccess& access) {
    const bool second = access.set->writes[0].address == block_ + 1;
    return second && refusals-- > 0 ? Verdict::kWait : Verdict::kGo;
  });
  Set(0, 1);
  Set(1, 2);
  Set(1, 3);
  const std::uint32_t sync = BeginSync();
  for (std::size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(watch_.Await(2 + i));
    EXPECT_FALSE(client_->Answered(sync));
    (*session_)->Wake();
  }
  EXPECT_EQ(client_->Await(sync), 0);
  const std::vector<RecordingWatch::Asked> asked = watch_.Take();
  ASSERT_EQ(asked.size(), 6u);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_EQ(asked[i].pc, asked[1].pc);
  EXPECT_EQ(asked[4].pc, asked[1].pc);
  EXPECT_EQ(asked[5].pc, asked[1].pc + 1);
  EXPECT_EQ(Read(2), (std::vector<std::byte>{std::byte{1}, std::byte{3}}));
}

TEST_P(SessionWatch, WhatWaitsTakesNoProcessor) {
  Begin();
  std::atomic<bool> open{false};
  watch_.SetDecision([&](const CallAccess&) {
    return open.load() ? Verdict::kGo : Verdict::kWait;
  });
  Set(0, 1);
  const std::uint32_t sync = BeginSync();
  ASSERT_TRUE(watch_.Await(1));
  SleepNs(20'000'000);
  const double before = CpuSeconds();
  SleepNs(300'000'000);
  EXPECT_LT(CpuSeconds() - before, 0.06);
  EXPECT_EQ(watch_.count(), 1u);
  EXPECT_FALSE(client_->Answered(sync));
  open.store(true);
  (*session_)->Wake();
  EXPECT_EQ(client_->Await(sync), 0);
}

TEST_P(SessionWatch, WorkOnTheDeviceIsFinishedWhileACallWaits) {
  Begin();
  std::atomic<bool> open{false};
  watch_.SetDecision([&](const CallAccess& access) {
    return access.set->writes[0].address == block_ && !open.load()
               ? Verdict::kWait
               : Verdict::kGo;
  });
  Set(1, 9);
  const std::uint32_t first = BeginSync();
  Set(0, 1);
  const std::uint32_t second = BeginSync();
  EXPECT_EQ(client_->Await(first), 0);
  ASSERT_TRUE(watch_.Await(2));
  EXPECT_FALSE(client_->Answered(second));
  open.store(true);
  (*session_)->Wake();
  EXPECT_EQ(client_->Await(second), 0);
}

// The calls that wait are in the image, in order, and run after the restore.
TEST_P(SessionWatch, ACutTakesWhatWaitsAlong) {
  Begin();
  watch_.SetDecision([](const CallAccess&) { return Verdict::kWait; });
  constexpr std::uint64_t kCalls = 100;
  const std::vector<std::byte> data(200, std::byte{77});
  client_->CopyIn(context_.stream, block_ + 1000, data);
  for (std::uint64_t i = 0; i < kCalls; ++i) {
    Set(0, static_cast<std::uint32_t>(i));
  }
  const std::uint32_t sync = BeginSync();
  ASSERT_TRUE(watch_.Await(1));
  ASSERT_TRUE((*session_)->Quiesce(Deadline::AfterMs(20000)).ok());
  EXPECT_EQ((*session_)->pending_calls(), kCalls + 2);
  ByteWriter writer;
  (*session_)->Save(&writer);
  // The first one goes on, too.
  (*session_)->SetWatch(nullptr);
  (*session_)->Resume();
  EXPECT_EQ(client_->Await(sync), 0);
  EXPECT_EQ(std::to_integer<int>(Read(1)[0]), 99);
  EXPECT_EQ(watch_.count(), 1u);

  const std::vector<std::byte> state = writer.Take();
  Reset(100);
  ASSERT_TRUE((*session_)->Quiesce(Deadline::AfterMs(20000)).ok());
  const Status loaded = (*session_)->Load(state);
  ASSERT_TRUE(loaded.ok()) << loaded.ToString();
  RecordingWatch second;
  (*session_)->SetWatch(&second);
  (*session_)->Resume();
  const std::vector<std::byte> now = Read(1200);
  EXPECT_EQ(std::to_integer<int>(now[0]), 99);
  EXPECT_EQ(std::vector<std::byte>(now.begin() + 1000, now.end()), data);
  const std::vector<RecordingWatch::Asked> asked = second.Take();
  ASSERT_EQ(asked.size(), kCalls + 2);
  for (std::size_t i = 1; i + 1 < asked.size(); ++i) {
    EXPECT_EQ(asked[i].pc, asked[i - 1].pc + 1);
  }
  session_.reset();  // before `second`
}

TEST_P(SessionWatch, WhatWaitsGoesOnWaitingAfterACutThatWasUndone) {
  Begin();
  std::atomic<bool> open{false};
  watch_.SetDecision([&](const CallAccess&) {
    return open.load() ? Verdict::kGo : Verdict::kWait;
  });
  Set(0, 5);
  const std::uint32_t sync = BeginSync();
  ASSERT_TRUE(watch_.Await(1));
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE((*session_)->Quiesce(Deadline::AfterMs(20000)).ok());
    EXPECT_EQ((*session_)->pending_calls(), 2u);
    (*session_)->Resume();
  }
  SleepNs(10'000'000);
  EXPECT_FALSE(client_->Answered(sync));
  open.store(true);
  (*session_)->Wake();
  EXPECT_EQ(client_->Await(sync), 0);
  EXPECT_EQ(std::to_integer<int>(Read(1)[0]), 5);
}

TEST_P(SessionWatch, AnotherWatchIsAskedAboutWhatWaits) {
  Begin();
  watch_.SetDecision([](const CallAccess&) { return Verdict::kWait; });
  Set(0, 5);
  const std::uint32_t sync = BeginSync();
  ASSERT_TRUE(watch_.Await(1));
  RecordingWatch second;
  Watch(&second);
  EXPECT_EQ(client_->Await(sync), 0);
  EXPECT_EQ(second.count(), 1u);
  EXPECT_EQ(watch_.count(), 1u);
  Watch(nullptr);
}

TEST_P(SessionWatch, ASessionEndsWhileACallWaits) {
  Begin();
  watch_.SetDecision([&](const CallAccess& access) {
    return access.set->writes[0].address == block_ ? Verdict::kWait
                                                   : Verdict::kGo;
  });
  for (std::uint32_t i = 0; i < 20; ++i) Set(1, i);
  Set(0, 5);
  for (std::uint32_t i = 0; i < 5000; ++i) Set(1, i);  // the queues are full
  BeginSync();
  ASSERT_TRUE(watch_.Await(21));
  (*session_)->CancelAll();
  const std::uint64_t before = MonotonicNs();
  (*session_)->Stop();
  session_.reset();
  EXPECT_LT(MonotonicNs() - before, 10'000'000'000u);
}

// Its context is poisoned while the call waits: it runs in vain, and what comes
// behind it, too.
TEST_P(SessionWatch, ACancelledCallGoesWhenItMay) {
  Begin();
  std::atomic<bool> open{false};
  watch_.SetDecision([&](const CallAccess&) {
    return open.load() ? Verdict::kGo : Verdict::kWait;
  });
  Set(0, 5);
  const std::uint32_t sync = BeginSync();
  ASSERT_TRUE(watch_.Await(1));
  (*session_)->CancelAll();
  SleepNs(5'000'000);
  EXPECT_FALSE(client_->Answered(sync));
  open.store(true);
  (*session_)->Wake();
  EXPECT_NE(client_->Await(sync), 0);
  EXPECT_EQ(client_->Call(cuda::CtxDestroyArgs{.context = context_.id}), 0);
}

// Verdicts change, cuts come and go; every call runs once, in order.
TEST_P(SessionWatch, WakesRaceWithVerdictsAndCuts) {
  Begin();
  std::atomic<bool> stop{false};
  auto random = std::make_shared<Random>(7);
  watch_.SetDecision([random](const CallAccess&) {
    return random->Below(4) == 0 ? Verdict::kWait : Verdict::kGo;
  });
  std::thread waker([&] {
    while (!stop.load()) {
      (*session_)->Wake();
      std::this_thread::yield();
    }
  });
  // Each adds its number to the chain: a byte that is copied on.
  constexpr std::uint64_t kCalls = 2000;
  for (std::uint64_t i = 0; i < kCalls; ++i) {
    Set(i, static_cast<std::uint32_t>(i));
    client_->Post(cuda::CopyArgs{.stream = context_.stream,
                                 .dst = block_ + i + 1,
                                 .src = block_ + i,
                                 .bytes = 1});
    if (i % 400 == 0) {
      const std::uint32_t sync = BeginSync();
      ASSERT_TRUE((*session_)->Quiesce(Deadline::AfterMs(20000)).ok());
      (*session_)->Resume();
      EXPECT_EQ(client_->Await(sync), 0);
    }
  }
  const std::vector<std::byte> bytes = Read(kCalls + 1);
  stop.store(true);
  waker.join();
  for (std::uint64_t i = 0; i < kCalls; ++i) {
    ASSERT_EQ(bytes[i], static_cast<std::byte>(i)) << i;
  }
  EXPECT_EQ(bytes[kCalls], bytes[kCalls - 1]);
  std::uint64_t last = 0;
  for (const RecordingWatch::Asked& asked : watch_.Take()) {
    EXPECT_GE(asked.pc, last);
    last = asked.pc;
  }
}

// Where an answer goes is part of the image, which may be anybody's.
TEST_P(SessionWatch, APendingCallWithoutASlotOfItsOwnIsNotLoaded) {
  constexpr std::uint32_t kSlot = 201;
  Reset(kSlot);
  Begin();
  (*session_)->SeekRest(Session::Rest::kNow);
  BeginSync();
  ASSERT_TRUE((*session_)->Quiesce(Deadline::AfterMs(20000)).ok());
  ASSERT_EQ((*session_)->pending_calls(), 1u);
  ByteWriter out;
  (*session_)->Save(&out);
  std::vector<std::byte> image(out.bytes().begin(), out.bytes().end());
  // Slot and lease follow each other: first as the session has them, then in
  // the frame itself.
  const std::array<std::uint32_t, 2> place = {kSlot, wire::kNoLease};
  const auto bytes = std::as_bytes(std::span(place));
  const auto at =
      std::search(image.begin(), image.end(), bytes.begin(), bytes.end());
  ASSERT_NE(at, image.end());
  for (const std::uint32_t slot : {kSlot, 256u, 0x7fffffffu, kSlot + 1}) {
    std::memcpy(&*at, &slot, sizeof(slot));
    session_ = nullptr;
    session_ = std::make_unique<SimSession>(GetParam(), 0, nullptr);
    const Status status = (*session_)->Load(image);
    if (slot == kSlot) {
      EXPECT_TRUE(status.ok()) << status.ToString();
    } else {
      EXPECT_EQ(status.code(), Code::kCorrupt) << slot;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(StageThreads, SessionWatch, ::testing::Values(1, 2, 3),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace pos
