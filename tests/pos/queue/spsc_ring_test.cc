#include "pos/queue/spsc_ring.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace pos {
namespace {

TEST(SpscRing, RefusesWhenFullAndKeepsTheValue) {
  SpscRing<std::unique_ptr<int>, 4> ring;
  for (int i = 0; i < 4; ++i) {
    auto value = std::make_unique<int>(i);
    ASSERT_TRUE(ring.TryPush(value));
  }
  auto extra = std::make_unique<int>(99);
  EXPECT_FALSE(ring.TryPush(extra));
  ASSERT_NE(extra, nullptr);
  EXPECT_EQ(*extra, 99);
  std::unique_ptr<int> out;
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(ring.TryPop(&out));
    EXPECT_EQ(*out, i);
  }
  EXPECT_FALSE(ring.TryPop(&out));
  EXPECT_TRUE(ring.Empty());
}

TEST(SpscRing, KeepsOrderAcrossManyWraps) {
  SpscRing<int, 2> ring;
  int next_in = 0;
  int next_out = 0;
  for (int round = 0; round < 1000; ++round) {
    while (true) {
      int v = next_in;
      if (!ring.TryPush(v)) break;
      ++next_in;
    }
    int out = -1;
    ASSERT_TRUE(ring.TryPop(&out));
    ASSERT_EQ(out, next_out++);
  }
  EXPECT_EQ(next_in, next_out + 1);
}

TEST(SpscRing, HandsOverWhatTheProducerWroteBefore) {
  struct Item {
    std::uint64_t payload[4];
  };
  constexpr std::uint64_t kCount = 200000;
  SpscRing<Item*, 64> ring;
  std::vector<Item> items(256);
  std::thread producer([&] {
    for (std::uint64_t i = 0; i < kCount; ++i) {
      // An item is written again only after it was popped: 64 slots, 256 items.
      Item* item = &items[i % items.size()];
      for (std::uint64_t& word : item->payload) word = i;
      while (!ring.TryPush(item)) std::this_thread::yield();
    }
  });
  for (std::uint64_t i = 0; i < kCount; ++i) {
    Item* item = nullptr;
    while (!ring.TryPop(&item)) std::this_thread::yield();
    for (const std::uint64_t word : item->payload) ASSERT_EQ(word, i);
  }
  producer.join();
  EXPECT_TRUE(ring.Empty());
}

}  // namespace
}  // namespace pos
