// Order, concurrency, faults and life cycle of the simulated device's engine,
// with kernels written in C++.
#include "pos/cuda_impl/device_sim/engine/engine.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <random>

#include "tests/pos/cuda_impl/device_sim/engine/engine_fixture.h"

namespace pos::sim {
namespace {

using ::testing::ElementsAre;

constexpr DeviceError kDestroyed = 709;

TEST_F(EngineTest, RunsOneStreamInOrder) {
  StreamState* stream = Blocking();
  std::vector<int> order;
  for (int i = 0; i < 200; ++i) {
    Launch(stream, [&order, i](unsigned) {
      order.push_back(i);
      return true;
    });
  }
  ASSERT_EQ(Drain(), 0);
  ASSERT_EQ(order.size(), 200u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_F(EngineTest, RunsStreamsBesideEachOther) {
  // Each kernel needs all others to have started.
  constexpr int kKernels = 16;
  std::atomic<int> started{0};
  std::vector<std::unique_ptr<std::atomic<bool>>> seen;
  for (int i = 0; i < kKernels; ++i) {
    seen.push_back(std::make_unique<std::atomic<bool>>(false));
    std::atomic<bool>* mine = seen.back().get();
    Launch(Blocking(), [&started, mine](unsigned) {
      if (!mine->exchange(true)) ++started;
      return started == kKernels;
    });
  }
  EXPECT_EQ(Drain(), 0);
}

TEST_F(EngineTest, UrgentKernelThatWaitsForAnotherDoesNotStarveIt) {
  Flag flag;
  LaunchWaiting(NonBlocking(kGreatestPriority), &flag, 1);
  LaunchWaiting(NonBlocking(kGreatestPriority), &flag, 2);
  LaunchWaiting(NonBlocking(kGreatestPriority), &flag, 3);
  Launch(NonBlocking(0), [&flag](unsigned) {
    flag.Set();
    return true;
  });
  EXPECT_EQ(Drain(), 0);
}

TEST_F(EngineTest, EveryBlockOfAGridRunsOnce) {
  constexpr unsigned kBlocks = 300;
  std::vector<std::atomic<int>> runs(kBlocks);
  Launch(
      Blocking(),
      [&runs](unsigned i) {
        ++runs[i];
        return true;
      },
      7, kBlocks);
  EXPECT_EQ(sink_.Await(7), 0);
  for (const auto& n : runs) EXPECT_EQ(n, 1);
}

TEST_F(EngineTest, DefaultStreamWaitsForEarlierAndHoldsLaterWork) {
  StreamState* a = Blocking();
  StreamState* b = Blocking();
  StreamState* free_one = NonBlocking();
  Flag release;
  std::atomic<bool> default_ran{false};
  std::atomic<bool> b_after{false};
  std::atomic<bool> a_ended{false};
  Launch(a, [&](unsigned) {
    if (!release.IsSet()) return false;
    a_ended = true;
    return true;
  });
  Launch(
      context_->default_stream,
      [&](unsigned) {
        EXPECT_TRUE(a_ended);
        default_ran = true;
        return true;
      },
      2);
  Launch(
      b,
      [&](unsigned) {
        b_after = default_ran.load();
        return true;
      },
      3);
  Launch(
      free_one, [](unsigned) { return true; }, 4);
  // Exempt from the order.
  EXPECT_EQ(sink_.Await(4), 0);
  EXPECT_EQ(sink_.Times(2), 0);
  EXPECT_EQ(sink_.Times(3), 0);
  release.Set();
  EXPECT_EQ(Drain(), 0);
  EXPECT_TRUE(b_after);
}

TEST_F(EngineTest, WaitingForTheDefaultStreamHoldsNothingBack) {
  StreamState* a = Blocking();
  StreamState* b = Blocking();
  Flag release;
  LaunchWaiting(a, &release, 1);
  engine_->SubmitNotify(context_->default_stream, 2);
  Launch(
      b, [](unsigned) { return true; }, 3);
  EXPECT_EQ(sink_.Await(3), 0);
  EXPECT_EQ(sink_.Times(2), 0);
  EXPECT_FALSE(engine_->QueryStream(context_->default_stream).has_value());
  release.Set();
  EXPECT_EQ(sink_.Await(2), 0);
  EXPECT_EQ(Drain(), 0);
  EXPECT_EQ(engine_->QueryStream(context_->default_stream), 0);
}

TEST_F(EngineTest, NotifyBehindAShutGateStaysShut) {
  StreamState* a = Blocking();
  Flag release;
  LaunchWaiting(context_->default_stream, &release, 1);
  engine_->SubmitNotify(context_->default_stream, 2);
  Launch(
      a, [](unsigned) { return true; }, 3);
  engine_->SubmitNotify(context_->default_stream, 4);
  EXPECT_EQ(sink_.Times(2) + sink_.Times(3) + sink_.Times(4), 0);
  release.Set();
  EXPECT_EQ(Drain(), 0);
  EXPECT_EQ(sink_.Times(4), 1);
}

TEST_F(EngineTest, WaitTakesTheRecordOfItsTime) {
  StreamState* a = NonBlocking();
  StreamState* b = NonBlocking();
  Flag first;
  Flag second;
  Record* event = nullptr;
  LaunchWaiting(a, &first);
  engine_->SubmitRecord(a, &event, 0);
  engine_->SubmitWait(b, event, 1);
  LaunchWaiting(a, &second);
  engine_->SubmitRecord(a, &event, 0);
  engine_->SubmitToRecord(context_, event, 2);
  EXPECT_EQ(sink_.Times(1), 0);
  first.Set();
  EXPECT_EQ(sink_.Await(1), 0);
  EXPECT_FALSE(engine_->RecordComplete(event, nullptr));
  EXPECT_EQ(sink_.Times(2), 0);
  second.Set();
  EXPECT_EQ(sink_.Await(2), 0);
  std::uint64_t when = 0;
  EXPECT_TRUE(engine_->RecordComplete(event, &when));
  EXPECT_GT(when, 0u);
  engine_->ReleaseRecord(event);
}

TEST_F(EngineTest, IdleMarkersSeeWhatWasBeforeThemOnly) {
  Flag early;
  Flag late;
  LaunchWaiting(NonBlocking(), &early);
  engine_->SubmitIdle(context_, 1);
  LaunchWaiting(NonBlocking(), &late);
  engine_->SubmitIdle(context_, 2);
  EXPECT_EQ(sink_.Times(1), 0);
  early.Set();
  EXPECT_EQ(sink_.Await(1), 0);
  EXPECT_EQ(sink_.Times(2), 0);
  late.Set();
  EXPECT_EQ(sink_.Await(2), 0);
}

TEST_F(EngineTest, CompletesWorkWithoutWaitInsideTheCall) {
  engine_->SubmitNotify(Blocking(), 1);
  EXPECT_EQ(sink_.Times(1), 1);
  engine_->SubmitIdle(context_, 2);
  EXPECT_EQ(sink_.Times(2), 1);
  engine_->SubmitToRecord(context_, nullptr, 3);
  EXPECT_EQ(sink_.Times(3), 1);
}

TEST_F(EngineTest, FaultPoisonsItsContextAlone) {
  RecordingSink other_sink;
  ContextState* other = engine_->OpenContext(&other_sink);
  StreamState* theirs = engine_->NewStream(other, true, 0);
  Flag never;
  LaunchWaiting(NonBlocking(), &never, 1);
  StreamState* stream = Blocking();
  Launch(
      stream, [](unsigned) { return true; }, 2, 1, 700);
  engine_->SubmitCopy(stream, kArena, kArena + 4096, 16, 3);
  EXPECT_EQ(sink_.Await(2), 700);
  EXPECT_EQ(sink_.Await(3), 700);
  EXPECT_EQ(sink_.Await(1), 700);  // the running kernel was ended
  engine_->SubmitNotify(stream, 4);
  EXPECT_EQ(sink_.Await(4), 700);
  EXPECT_EQ(engine_->QueryStream(stream), 700);
  engine_->SubmitLaunch(
      theirs, std::make_shared<FakeKernel>([](unsigned) { return true; }), {},
      {}, 5);
  EXPECT_EQ(other_sink.Await(5), 0);
  engine_->CloseContext(other);
}

TEST_F(EngineTest, CopyOutsideAllocationsFaults) {
  StreamState* stream = Blocking();
  const std::uint64_t end = kArena + 16 * kGranule;
  std::vector<char> host(4096);
  const auto address = reinterpret_cast<std::uint64_t>(host.data());
  engine_->SubmitCopy(stream, end - 64, address, 64, 1);
  EXPECT_EQ(sink_.Await(1), 0);
  engine_->SubmitCopy(stream, end - 64, address, 65, 2);
  EXPECT_EQ(sink_.Await(2), 700);
  engine_->SubmitNotify(stream, 3);
  EXPECT_EQ(sink_.Await(3), 700);
}

TEST_F(EngineTest, NullPointerCopyFaults) {
  engine_->SubmitCopy(Blocking(), kArena, 0, 4, 1);
  EXPECT_EQ(sink_.Await(1), 700);
}

TEST_F(EngineTest, CancelEndsAnEndlessKernelAndTheQueueBehindIt) {
  Flag never;
  StreamState* stream = Blocking();
  LaunchWaiting(stream, &never, 1);
  for (std::uint64_t i = 0; i < 1000; ++i) {
    engine_->SubmitNotify(stream, 100 + i);
  }
  std::thread([this] { engine_->CancelContext(context_); }).join();
  EXPECT_EQ(sink_.Await(1), kDestroyed);
  EXPECT_EQ(sink_.Await(1099), kDestroyed);
  for (std::uint64_t i = 0; i < 1000; ++i) EXPECT_EQ(sink_.Times(100 + i), 1);
}

TEST_F(EngineTest, ClosingAContextReportsEverythingFirst) {
  Flag never;
  Record* event = nullptr;
  StreamState* stream = Blocking();
  LaunchWaiting(stream, &never, 1);
  engine_->SubmitRecord(stream, &event, 2);
  engine_->SubmitToRecord(context_, event, 3);
  engine_->SubmitWait(Blocking(), event, 4);
  engine_->SubmitCopy(context_->default_stream, kArena, kArena + 64, 64, 5);
  engine_->SubmitIdle(context_, 6);
  engine_->ReleaseRecord(event);
  engine_->CloseContext(context_);
  context_ = nullptr;
  for (std::uint64_t token = 1; token <= 6; ++token) {
    EXPECT_EQ(sink_.Times(token), 1) << token;
  }
}

TEST_F(EngineTest, ReleasedStreamFinishesItsWork) {
  Flag release;
  StreamState* stream = Blocking();
  LaunchWaiting(stream, &release);
  engine_->SubmitNotify(stream, 1);
  engine_->ReleaseStream(stream);
  EXPECT_EQ(sink_.Times(1), 0);
  release.Set();
  EXPECT_EQ(sink_.Await(1), 0);
}

TEST_F(EngineTest, CopiesTakeTheLinksTime) {
  EngineOptions options;
  options.copy_bytes_per_second = 1u << 30;
  Start(options);
  const std::uint64_t start = MonotonicNs();
  std::vector<char> host(8 << 20);
  engine_->SubmitCopy(Blocking(), kArena,
                      reinterpret_cast<std::uint64_t>(host.data()), 8 << 20, 1);
  EXPECT_EQ(sink_.Await(1), 0);
  // A lower bound cannot fail for a slow machine: 8 MiB at 1 GiB/s.
  EXPECT_GE(MonotonicNs() - start, 7800000u);
}

TEST_F(EngineTest, MovesBytesOfAllSizesAndAlignments) {
  StreamState* stream = Blocking();
  std::vector<unsigned char> host(3000);
  std::mt19937 random(3);
  for (auto& byte : host) byte = static_cast<unsigned char>(random());
  auto* device = reinterpret_cast<unsigned char*>(kArena);
  const auto address = reinterpret_cast<std::uint64_t>(host.data());
  for (const std::uint64_t bytes :
       {0u, 1u, 3u, 4u, 7u, 8u, 9u, 64u, 511u, 512u, 513u, 2100u}) {
    for (std::uint64_t shift = 0; shift < 9; ++shift) {
      engine_->SubmitFill(stream, {kArena, 0xee, 1, 4096, 1, 0}, 0);
      engine_->SubmitCopy(stream, kArena + 16 + shift, address + shift * 3,
                          bytes, 0);
      ASSERT_EQ(Drain(), 0);
      EXPECT_EQ(0, memcmp(device + 16 + shift, host.data() + shift * 3, bytes))
          << bytes << " " << shift;
      EXPECT_EQ(device[15 + shift], 0xee);
      EXPECT_EQ(device[16 + shift + bytes], 0xee);
    }
  }
}

TEST_F(EngineTest, OverlappingCopiesMoveEitherWay) {
  StreamState* stream = Blocking();
  auto* device = reinterpret_cast<unsigned char*>(kArena);
  for (const std::uint64_t bytes : {100ull, 5000ull, 3ull << 20}) {
    for (const bool up : {false, true}) {
      for (std::uint64_t i = 0; i < bytes + 7; ++i) {
        device[i] = static_cast<unsigned char>(i * 7 + i / 256);
      }
      const std::vector<unsigned char> before(device, device + bytes + 7);
      engine_->SubmitCopy(stream, kArena + (up ? 7 : 0), kArena + (up ? 0 : 7),
                          bytes, 0);
      ASSERT_EQ(Drain(), 0);
      EXPECT_EQ(0, memcmp(device + (up ? 7 : 0), before.data() + (up ? 0 : 7),
                          bytes));
    }
  }
}

// 100,000 commands queue up behind one kernel and are worked off in order.
TEST_F(EngineTest, DeepQueuesDrainInOrder) {
  Flag release;
  StreamState* stream = Blocking();
  LaunchWaiting(stream, &release);
  constexpr std::uint64_t kCommands = 100000;
  for (std::uint64_t i = 1; i <= kCommands; ++i) {
    engine_->SubmitNotify(stream, i);
  }
  release.Set();
  ASSERT_EQ(sink_.Await(kCommands), 0);
  ASSERT_EQ(Drain(), 0);
  const auto order = sink_.Order();
  ASSERT_GE(order.size(), kCommands);
  for (std::uint64_t i = 0; i < kCommands; ++i) ASSERT_EQ(order[i], i + 1);
}

// Soon after its last work the process uses next to no processor time: a
// thread that went on looking for work would use all of it.
TEST_F(EngineTest, IdleDeviceUsesNoProcessorTime) {
  const auto used_us = [] {
    rusage usage{};
    EXPECT_EQ(::getrusage(RUSAGE_SELF, &usage), 0);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
  };
  Launch(Blocking(), [](unsigned) { return true; });
  ASSERT_EQ(Drain(), 0);
  const Deadline deadline = Deadline::AfterMs(10000);
  bool idle = false;
  while (!idle && !deadline.Passed()) {
    const auto before = used_us();
    SleepNs(50000000);
    idle = used_us() - before < 5000;
  }
  EXPECT_TRUE(idle);
}

// Many streams, events and kinds of work at once; a counter per stream tells
// whether its kernels ran in order, and a chain of events whether waits held.
TEST_F(EngineTest, StressKeepsOrderAndReportsOnce) {
  constexpr std::size_t kStreams = 300;
  constexpr int kRounds = 12;
  std::mt19937 random(5);
  std::vector<StreamState*> streams;
  std::vector<Record*> events(kStreams, nullptr);
  auto counters = std::make_unique<std::atomic<int>[]>(kStreams);
  std::atomic<int> wrong{0};
  std::uint64_t token = 0;
  for (std::size_t i = 0; i < kStreams; ++i) {
    streams.push_back(i % 3 == 0 ? NonBlocking(-static_cast<int>(i % 6))
                                 : Blocking());
  }
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < kStreams; ++i) {
      const std::size_t other = random() % kStreams;
      const int expected_other = round;  // at least, if its event exists
      const bool waits = events[other] != nullptr && other < i;
      if (waits) engine_->SubmitWait(streams[i], events[other], ++token);
      Launch(
          streams[i],
          [&, i, round, waits, other, expected_other](unsigned) {
            if (counters[i].exchange(round + 1) != round) ++wrong;
            if (waits && counters[other] < expected_other) ++wrong;
            return true;
          },
          ++token);
      engine_->SubmitCopy(streams[i], kArena + i * 8192,
                          kArena + 4096 + i * 8192, 64 + random() % 4000,
                          ++token);
      engine_->SubmitRecord(streams[i], &events[i], ++token);
      if (random() % 50 == 0) {
        engine_->SubmitNotify(context_->default_stream, ++token);
        engine_->SubmitFill(context_->default_stream,
                            {kArena + 8 * kGranule, 1, 4, 100, 1, 0}, ++token);
      }
      if (random() % 40 == 0) engine_->SubmitIdle(context_, ++token);
    }
  }
  ASSERT_EQ(Drain(), 0);
  EXPECT_EQ(wrong, 0);
  for (std::uint64_t t = 1; t <= token; ++t) ASSERT_EQ(sink_.Times(t), 1) << t;
  for (Record* event : events) engine_->ReleaseRecord(event);
  for (StreamState* stream : streams) engine_->ReleaseStream(stream);
}

}  // namespace
}  // namespace pos::sim
