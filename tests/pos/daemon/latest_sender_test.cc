#include "pos/daemon/latest_sender.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "tests/pos/daemon/testing.h"

namespace pos {
namespace {

TEST(LatestSender, NeverWaitsForTheReceiverAndSkipsWhatItMissed) {
  std::atomic<bool> stuck{true};
  std::atomic<int> in_send{0};
  std::vector<int> sent;
  LatestSender<int> sender(
      [&](const int& value) {
        in_send.fetch_add(1);
        while (stuck.load()) SleepNs(1'000'000);
        sent.push_back(value);
      },
      0);
  sender.Offer(0);
  ASSERT_TRUE(Eventually([&] { return in_send.load() == 1; }));
  for (int i = 1; i <= 100'000; ++i) sender.Offer(i);  // would hang here
  stuck.store(false);
  ASSERT_TRUE(Eventually([&] { return in_send.load() == 2; }));
  sender.Finish();
  EXPECT_EQ(sent, (std::vector<int>{0, 100'000}));
}

TEST(LatestSender, KeepsTheOrderAndTheGap) {
  std::vector<int> sent;
  std::vector<std::uint64_t> at_ns;
  LatestSender<int> sender(
      [&](const int& value) {
        sent.push_back(value);
        at_ns.push_back(MonotonicNs());
      },
      20);
  const Deadline end = Deadline::AfterMs(200);
  for (int i = 0; !end.Passed(); ++i) sender.Offer(i);
  sender.Finish();
  ASSERT_GE(sent.size(), 1u);
  for (std::size_t i = 1; i < sent.size(); ++i) {
    EXPECT_GT(sent[i], sent[i - 1]);
    EXPECT_GE(at_ns[i] - at_ns[i - 1], 20'000'000u);
  }
}

TEST(LatestSender, FinishSendsNothingMore) {
  std::atomic<int> sent{0};
  {
    LatestSender<int> sender([&](const int&) { sent.fetch_add(1); }, 60'000);
    sender.Offer(1);
    ASSERT_TRUE(Eventually([&] { return sent.load() == 1; }));
    sender.Offer(2);  // waits for the gap
  }
  EXPECT_EQ(sent.load(), 1);
}

}  // namespace
}  // namespace pos
