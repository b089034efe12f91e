#include "pos/call/context_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "pos/base/clock.h"
#include "pos/queue/spsc_ring.h"
#include "tests/support/alloc_count.h"

namespace pos {
namespace {

using Lane = ContextPool::Lane;

TEST(ContextPool, HandsOutAtMostItsLimit) {
  for (const std::uint32_t limit : {1u, 100u, 256u, 300u, 600u}) {
    SCOPED_TRACE(limit);
    ContextPool pool(limit);
    std::set<ApiContext*> out;
    for (std::uint32_t i = 0; i < limit; ++i) {
      ApiContext* const context = pool.Take();
      ASSERT_NE(context, nullptr) << i;
      ASSERT_TRUE(out.insert(context).second) << "handed out twice";
      ASSERT_EQ(pool.At(context->pool_index), context);
    }
    EXPECT_EQ(pool.Take(), nullptr);
    EXPECT_EQ(pool.Outstanding(), limit);
    pool.Give(Lane::kWorker, *out.begin());
    EXPECT_EQ(pool.Take(), *out.begin());
    EXPECT_EQ(pool.Take(), nullptr);
  }
}

// A cut takes all calls out of the ring; afterwards the limit holds again.
TEST(ContextPool, LimitComesBackAfterUnboundedMode) {
  ContextPool pool(256);
  std::vector<ApiContext*> out;
  pool.SetUnbounded(true);
  for (int i = 0; i < 1000; ++i) out.push_back(pool.Take());
  ASSERT_NE(out.back(), nullptr);
  pool.SetUnbounded(false);
  EXPECT_EQ(pool.Take(), nullptr);
  while (out.size() > 256) {
    pool.Give(Lane::kWorker, out.back());
    out.pop_back();
  }
  EXPECT_EQ(pool.Take(), nullptr);
  pool.Give(Lane::kParser, out.back());
  out.pop_back();
  out.push_back(pool.Take());
  EXPECT_NE(out.back(), nullptr);
  EXPECT_EQ(pool.Outstanding(), 256u);
}

TEST(ContextPool, ReturnedContextIsAsNew) {
  const CallInfo info{.op = 1, .name = "x"};
  ContextPool pool;
  ApiContext* const context = pool.Take();
  context->pc = 5;
  context->info = &info;
  context->request_id = 6;
  context->slot = 1;
  context->lease = 2;
  context->bulk_bytes = 3;
  context->flags = 3;
  context->answered = true;
  context->parsed = true;
  context->handles[1] = reinterpret_cast<Handle*>(&pool);
  context->scratch = {1, 2, 3, 4};
  context->family.push_back(nullptr);
  context->result = 7;
  context->reply_bytes = 8;
  context->reply_bulk_bytes = 9;
  context->FrameBuffer(4000);
  context->inline_bytes = 10;
  context->owned_bulk.resize(100);
  pool.Give(Lane::kWorker, context);
  pool.Recycle();
  ApiContext* const again = pool.Take();
  ASSERT_EQ(again, context) << "the one used last comes first";
  const ApiContext fresh;
  EXPECT_EQ(again->pc, fresh.pc);
  EXPECT_EQ(again->info, fresh.info);
  EXPECT_EQ(again->request_id, fresh.request_id);
  EXPECT_EQ(again->slot, fresh.slot);
  EXPECT_EQ(again->lease, fresh.lease);
  EXPECT_EQ(again->bulk_bytes, fresh.bulk_bytes);
  EXPECT_EQ(again->flags, fresh.flags);
  EXPECT_EQ(again->answered, fresh.answered);
  EXPECT_EQ(again->parsed, fresh.parsed);
  EXPECT_EQ(again->handles, fresh.handles);
  EXPECT_EQ(again->scratch, fresh.scratch);
  EXPECT_TRUE(again->family.empty());
  EXPECT_EQ(again->result, fresh.result);
  EXPECT_EQ(again->reply_bytes, fresh.reply_bytes);
  EXPECT_EQ(again->reply_bulk_bytes, fresh.reply_bulk_bytes);
  EXPECT_EQ(again->frame_bytes, fresh.frame_bytes);
  EXPECT_EQ(again->inline_bytes, fresh.inline_bytes);
  EXPECT_EQ(again->owned_bulk.capacity(), 0u) << "bulk data is not kept";
  EXPECT_EQ(again->slot, wire::kNoSlot);
}

TEST(ContextPoolDeathTest, GivingTwiceEndsTheProcess) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  ContextPool pool;
  ApiContext* const context = pool.Take();
  pool.Give(Lane::kParser, context);
  EXPECT_DEATH(pool.Give(Lane::kWorker, context), "freed twice");
}

TEST(ContextPool, AllocatesNothingInSteadyState) {
  ContextPool pool;
  const auto round = [&pool] {
    std::array<ApiContext*, 700> out;
    for (ApiContext*& context : out) {
      context = pool.Take();
      context->FrameBuffer(2000);
      context->handles[0] = nullptr;
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      pool.Give(i % 2 == 0 ? Lane::kParser : Lane::kWorker, out[i]);
    }
  };
  // Frames that fit, and larger ones of as many calls as are under way in a
  // pipeline that keeps up.
  const auto small_round = [&pool] {
    std::array<ApiContext*, 200> out;
    for (ApiContext*& context : out) {
      context = pool.Take();
      context->FrameBuffer(ApiContext::kFixedBytes);
    }
    for (ApiContext* context : out) pool.Give(Lane::kWorker, context);
  };
  for (int i = 0; i < 3; ++i) small_round();
  const std::uint64_t before = AllocationCount();
  for (int i = 0; i < 100; ++i) small_round();
  EXPECT_EQ(AllocationCount(), before);
  round();
}

// A client that once clogged the pipeline with large frames does not make the
// runner keep a buffer for each of them.
TEST(ContextPool, KeepsFewLargeBuffers) {
  ContextPool pool;
  std::vector<ApiContext*> out;
  for (int i = 0; i < 4000; ++i) {
    out.push_back(pool.Take());
    out.back()->FrameBuffer(wire::kMaxFrameBytes);
  }
  for (ApiContext* context : out) pool.Give(Lane::kWorker, context);
  std::size_t kept = 0;
  for (const ApiContext* context : out) kept += context->overflow.capacity();
  EXPECT_LE(kept, 512u * wire::kMaxFrameBytes);
}

// Taker, parser lane and worker lane at once, as in the pipeline.
TEST(ContextPool, LanesReturnWhileTheFrontEndTakes) {
  constexpr std::uint64_t kCalls = 100000;
  ContextPool pool(500);
  SpscRing<ApiContext*, 256> to_parser;
  SpscRing<ApiContext*, 256> to_worker;
  std::thread parser([&] {
    for (std::uint64_t i = 0; i < kCalls;) {
      ApiContext* context = nullptr;
      if (!to_parser.TryPop(&context)) {
        std::this_thread::yield();
        continue;
      }
      ASSERT_EQ(context->pc, i);
      if (i % 3 == 0) {
        pool.Give(Lane::kParser, context);
      } else {
        while (!to_worker.TryPush(context)) std::this_thread::yield();
      }
      ++i;
    }
  });
  std::thread worker([&] {
    for (std::uint64_t i = 0; i < kCalls; ++i) {
      if (i % 3 == 0) continue;
      ApiContext* context = nullptr;
      while (!to_worker.TryPop(&context)) std::this_thread::yield();
      ASSERT_EQ(context->pc, i);
      ASSERT_EQ(pool.At(context->pool_index), context);
      pool.Give(Lane::kWorker, context);
    }
  });
  for (std::uint64_t i = 0; i < kCalls; ++i) {
    ApiContext* context = nullptr;
    while ((context = pool.Take()) == nullptr) std::this_thread::yield();
    context->pc = i;
    while (!to_parser.TryPush(context)) std::this_thread::yield();
  }
  parser.join();
  worker.join();
  EXPECT_EQ(pool.Outstanding(), 0u);
}

}  // namespace
}  // namespace pos
