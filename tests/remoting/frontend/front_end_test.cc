// The front end's stage: from the ring to the parser's queue.
#include "remoting/frontend/front_end.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

#include "pos/base/clock.h"
#include "pos/cuda_impl/api/calls.h"
#include "remoting/frontend/shm_port.h"
#include "tests/support/ring_pair.h"

namespace pos {
namespace {

using cuda::Op;

class FrontEndTest : public ::testing::Test {
 protected:
  explicit FrontEndTest(std::uint32_t pool_limit = 16384)
      : pool_(pool_limit),
        queue_(std::make_unique<ContextQueue>()),
        front_end_(&ring_.server(), cuda::Calls(), &pool_, queue_.get(),
                   [this](const Status& status) {
                     ++malformed_;
                     reason_ = status;
                   }) {}

  template <typename Args>
  void Send(const Args& args, std::uint32_t slot = wire::kNoSlot,
            std::span<const std::byte> payload = {}) {
    wire::FrameHeader* const frame = ring_.client().Begin(
        static_cast<std::uint16_t>(Args::kOp), cuda::kWireBytes<Args>,
        static_cast<std::uint32_t>(payload.size()));
    ASSERT_NE(frame, nullptr);
    std::memcpy(RingClient::Args(frame), &args, cuda::kWireBytes<Args>);
    if (!payload.empty()) {
      std::memcpy(RingClient::Args(frame) + cuda::kWireBytes<Args>,
                  payload.data(), payload.size());
    }
    frame->slot = slot;
    ring_.client().Commit(frame);
  }

  ApiContext* Pop() {
    ApiContext* context = nullptr;
    return queue_->TryPop(&context) ? context : nullptr;
  }

  RingPair ring_;
  ContextPool pool_;
  std::unique_ptr<ContextQueue> queue_;
  int malformed_ = 0;
  Status reason_;
  FrontEnd front_end_;
};

TEST_F(FrontEndTest, NumbersCallsWithoutGapsAndFillsThemIn) {
  const std::vector<std::byte> payload(100, std::byte{9});
  for (std::uint64_t i = 0; i < 300; ++i) {
    Send(cuda::LaunchArgs{.stream = i}, wire::kNoSlot, payload);
    Send(cuda::MemFreeArgs{.address = i}, 3);
    while (front_end_.Step()) {
    }
    ApiContext* const launch = Pop();
    ApiContext* const free = Pop();
    ASSERT_NE(launch, nullptr);
    ASSERT_NE(free, nullptr);
    EXPECT_EQ(launch->pc, 2 * i + 1);
    EXPECT_EQ(free->pc, 2 * i + 2);
    EXPECT_STREQ(launch->info->name, "Launch");
    EXPECT_EQ(launch->Args<cuda::LaunchArgs>().stream, i);
    EXPECT_TRUE(std::equal(payload.begin(), payload.end(),
                           launch->Inline().begin(), launch->Inline().end()));
    EXPECT_FALSE(launch->wants_reply());
    EXPECT_EQ(free->slot, 3u);
    EXPECT_GT(free->request_id, launch->request_id);
    pool_.Give(ContextPool::Lane::kWorker, launch);
    pool_.Give(ContextPool::Lane::kWorker, free);
  }
  EXPECT_TRUE(front_end_.Quiet());
  EXPECT_TRUE(front_end_.Idle());
  EXPECT_EQ(front_end_.next_pc(), 601u);
}

// The client changes the frame after it was taken: the runner's copy stands.
TEST_F(FrontEndTest, WorksOnItsOwnCopy) {
  wire::FrameHeader* const frame =
      ring_.client().Begin(static_cast<std::uint16_t>(Op::kMemFree), 8, 0);
  const std::uint64_t address = 42;
  std::memcpy(RingClient::Args(frame), &address, 8);
  frame->slot = 1;
  ring_.client().Commit(frame);
  ASSERT_TRUE(front_end_.Step());
  frame->op = 999;
  frame->slot = 99;
  std::memset(RingClient::Args(frame), 0xff, 8);
  const ApiContext* const context = Pop();
  ASSERT_NE(context, nullptr);
  EXPECT_EQ(context->slot, 1u);
  EXPECT_EQ(context->Args<cuda::MemFreeArgs>().address, 42u);
}

TEST_F(FrontEndTest, FirstMalformedFrameEndsItOnceAndForAll) {
  Send(cuda::MemFreeArgs{}, 1);
  Send(cuda::MemFreeArgs{}, wire::kNoSlot);  // needs a slot
  Send(cuda::MemFreeArgs{}, 2);
  Send(cuda::MemFreeArgs{}, 77);
  while (front_end_.Step()) {
  }
  EXPECT_EQ(malformed_, 1);
  EXPECT_EQ(reason_.code(), Code::kProto);
  EXPECT_NE(Pop(), nullptr);
  EXPECT_EQ(Pop(), nullptr) << "nothing is taken behind a malformed frame";
  EXPECT_FALSE(front_end_.Step());
  EXPECT_TRUE(front_end_.Idle());
  EXPECT_TRUE(front_end_.Quiet());
  EXPECT_EQ(malformed_, 1);
}

TEST_F(FrontEndTest, ImpossibleSizeEndsIt) {
  ring_.client().Begin(1, 0, 0)->commit.store(24);
  EXPECT_FALSE(front_end_.Idle());
  EXPECT_FALSE(front_end_.Step());
  EXPECT_EQ(malformed_, 1);
}

TEST_F(FrontEndTest, ReservedButUncommittedIsNeitherQuietNorWork) {
  wire::FrameHeader* const frame = ring_.client().Begin(
      static_cast<std::uint16_t>(Op::kStreamWaitEvent), 16, 0);
  EXPECT_FALSE(front_end_.Step());
  EXPECT_TRUE(front_end_.Idle());
  EXPECT_FALSE(front_end_.Quiet());
  ring_.client().Commit(frame);
  EXPECT_FALSE(front_end_.Idle());
  EXPECT_TRUE(front_end_.Step());
  EXPECT_TRUE(front_end_.Quiet());
}

class SmallPoolTest : public FrontEndTest {
 protected:
  SmallPoolTest() : FrontEndTest(4) {}
};

TEST_F(SmallPoolTest, WaitsForContextsAndGoesOn) {
  for (int i = 0; i < 10; ++i) Send(cuda::MemFreeArgs{}, 1);
  while (front_end_.Step()) {
  }
  std::vector<ApiContext*> out;
  while (ApiContext* context = Pop()) out.push_back(context);
  EXPECT_EQ(out.size(), 4u);
  EXPECT_FALSE(front_end_.Idle()) << "there is work that cannot proceed";
  pool_.Give(ContextPool::Lane::kWorker, out[0]);
  EXPECT_TRUE(front_end_.Step());
  EXPECT_EQ(Pop()->pc, 5u);
  // A cut empties the ring whatever the limit is.
  pool_.SetUnbounded(true);
  while (front_end_.Step()) {
  }
  EXPECT_TRUE(front_end_.Quiet());
}

TEST_F(FrontEndTest, FullQueueHoldsTheNextCallBack) {
  std::uint32_t woken = 0;
  front_end_.SetDownstreamWake([&woken] { ++woken; });
  constexpr std::uint32_t kCalls = kQueueCapacity + 10;
  std::thread client([&] {
    for (std::uint32_t i = 0; i < kCalls; ++i) {
      Send(cuda::StreamWaitEventArgs{.stream = i});
    }
  });
  const Deadline deadline = Deadline::AfterMs(20000);
  while (front_end_.next_pc() <= kQueueCapacity + 1 && !deadline.Passed()) {
    front_end_.Step();
  }
  EXPECT_FALSE(front_end_.Step());
  EXPECT_FALSE(front_end_.Idle());
  EXPECT_FALSE(front_end_.Quiet());
  EXPECT_EQ(woken, kQueueCapacity);
  for (std::uint32_t i = 0; i < kCalls; ++i) {
    const ApiContext* context = Pop();
    while (context == nullptr) {
      front_end_.Step();
      context = Pop();
    }
    ASSERT_EQ(context->Args<cuda::StreamWaitEventArgs>().stream, i);
  }
  client.join();
  front_end_.Step();
  EXPECT_TRUE(front_end_.Quiet());
}

TEST_F(FrontEndTest, PortFindsBulkInputWhereverItIs) {
  ShmPort port(&ring_.server());
  ApiContext* const context = pool_.Take();
  Send(cuda::CopyToDeviceArgs{.bytes = 5}, wire::kNoSlot,
       std::vector<std::byte>(5, std::byte{3}));
  front_end_.Step();
  const ApiContext* const inlined = Pop();
  ASSERT_NE(inlined, nullptr);
  EXPECT_EQ(port.BulkIn(*inlined).size(), 5u);
  EXPECT_TRUE(port.BulkOut(*inlined).empty());

  context->flags = wire::kFrameBulkIn;
  context->lease = 2;
  context->bulk_bytes = 100;
  ring_.client().leases()[2].store(1);
  EXPECT_EQ(port.BulkIn(*context).data(), ring_.server().Staging(2, 1).data());
  EXPECT_EQ(port.BulkIn(*context).size(), 100u);
  context->owned_bulk.assign(100, std::byte{1});
  EXPECT_EQ(port.BulkIn(*context).data(), context->owned_bulk.data());
  port.ReleaseBulkIn(context);
  EXPECT_EQ(ring_.client().leases()[2].load(), 0u);
  // Once only: the client may have lent the unit anew.
  ring_.client().leases()[2].store(1);
  port.ReleaseBulkIn(context);
  EXPECT_EQ(ring_.client().leases()[2].load(), 1u);
}

}  // namespace
}  // namespace pos
