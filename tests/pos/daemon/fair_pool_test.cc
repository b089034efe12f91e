#include "pos/daemon/fair_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <vector>

namespace pos {
namespace {

constexpr auto kBound = std::chrono::seconds(10);
constexpr std::uint64_t kHostile = 7;
constexpr std::uint64_t kOther = 3;

// Tasks of one lane that wait for each other's end until they are let go.
class FairPoolTest : public testing::Test {
 protected:
  ~FairPoolTest() override { LetGo(); }
  void LetGo() {
    if (!let_go_) go_.set_value();
    let_go_ = true;
  }
  bool PostBlocked() {
    return pool_.Post(kHostile, [gone = gone_, this] {
      began_.fetch_add(1);
      gone.wait();
    });
  }
  bool OtherRuns() {
    auto ran = std::make_shared<std::promise<void>>();
    std::future<void> done = ran->get_future();
    EXPECT_TRUE(pool_.Post(kOther, [ran] { ran->set_value(); }));
    return done.wait_for(kBound) == std::future_status::ready;
  }

  std::promise<void> go_;
  std::shared_future<void> gone_ = go_.get_future().share();
  bool let_go_ = false;
  std::atomic<int> began_{0};
  FairPool pool_{4, 3, 20};  // threads, of a lane at once, of a lane at most
};

TEST_F(FairPoolTest, LaneThatBlocksLeavesThreadsToOthers) {
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(PostBlocked());
  EXPECT_TRUE(OtherRuns());
  EXPECT_TRUE(OtherRuns());
  EXPECT_LE(began_.load(), 3);
}

TEST_F(FairPoolTest, FullLaneIsRefusedAndOthersAreNot) {
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(PostBlocked());
  EXPECT_FALSE(PostBlocked());
  EXPECT_TRUE(OtherRuns());
  LetGo();
  pool_.Stop();
  EXPECT_FALSE(PostBlocked());
}

TEST_F(FairPoolTest, WhatWaitsIsRunInOrder) {
  FairPool one(3, 1, 100);
  std::vector<int> order;  // one at once: no lock
  std::promise<void> last;
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(one.Post(kOther, [&, i] {
      order.push_back(i);
      if (i == 49) last.set_value();
    }));
  }
  ASSERT_EQ(last.get_future().wait_for(kBound), std::future_status::ready);
  one.Stop();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

}  // namespace
}  // namespace pos
