#include "pos/queue/parker.h"

#include <gtest/gtest.h>

#include <thread>

#include "pos/queue/spsc_ring.h"

namespace pos {
namespace {

// A lost wake-up makes Sleep run into its time-out, which fails the test.
TEST(Parker, NeverLosesAWakeUp) {
  constexpr int kRounds = 20000;
  constexpr std::uint64_t kLongNs = 5'000'000'000;
  Parker parker;
  SpscRing<int, 1024> ring;
  std::thread producer([&] {
    for (int i = 0; i < kRounds; ++i) {
      while (!ring.TryPush(i)) std::this_thread::yield();
      parker.Notify();
      if (i % 3 == 0) std::this_thread::yield();
    }
  });
  int expected = 0;
  while (expected < kRounds) {
    int value = -1;
    if (ring.TryPop(&value)) {
      ASSERT_EQ(value, expected);
      ++expected;
      continue;
    }
    parker.Prepare();
    if (!ring.Empty()) {
      parker.Cancel();
      continue;
    }
    const auto start = std::chrono::steady_clock::now();
    parker.Sleep(kLongNs);
    ASSERT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(4))
        << "slept through a notification at " << expected;
  }
  producer.join();
}

TEST(Parker, SleepEndsAtItsBound) {
  Parker parker;
  parker.Prepare();
  parker.Sleep(1'000'000);
  parker.Prepare();
  parker.Notify();
  parker.Sleep(0);  // already notified: must not sleep for ever
}

}  // namespace
}  // namespace pos
