// Cuts with calls under way: what is pending is in the image, is carried out
// once, in order, after it was loaded, and answers whom it did not answer
// before.
#include <cuda.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "pos/base/sanitizers.h"
#include "tests/ckpt/engine/disturber.h"

namespace pos {
namespace {

constexpr std::uint64_t kStride = kSanitized ? 7 : 1;

cuda::FillArgs Fill(std::uint64_t stream, std::uint64_t dst,
                    std::uint64_t bytes, std::uint32_t value) {
  return {.stream = stream,
          .dst = dst,
          .count = bytes,
          .rows = 1,
          .pitch = 0,
          .value = value,
          .width = 1};
}

std::vector<std::byte> Pattern(std::size_t bytes, std::uint64_t seed) {
  std::vector<std::byte> out(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    out[i] = static_cast<std::byte>(seed * 31 + i * 7);
  }
  return out;
}

class CutTest : public ::testing::TestWithParam<int> {
 protected:
  CutTest() {
    context_ = client_.MakeContext();
    stream_ = client_.MakeStream(context_);
    block_ = client_.Alloc(context_, kBytes);
    client_.Post(Fill(stream_, block_, kBytes, 0));
    EXPECT_EQ(client_.Sync(stream_), 0);
  }
  static constexpr std::uint64_t kBytes = 1 << 20;

  RevivedSession session_{GetParam()};
  SessionClient& client_ = session_.client();
  SessionClient::Context context_;
  std::uint64_t stream_ = 0;
  std::uint64_t block_ = 0;
};

// Each call moves on what the one before left: any other order, a call that is
// lost and one that runs twice give another result.
TEST_P(CutTest, AnyNumberOfPendingCallsRunsOnceAndInOrder) {
  constexpr std::uint64_t kWindow = 500;
  std::vector<std::byte> want(kWindow + 1);
  std::uint64_t sent = 0;
  for (const std::uint64_t count : {0u, 1u, 9u, 10u, 11u, 100u, 3000u}) {
    session_.Hold();
    for (std::uint64_t i = 0; i < count; ++i, ++sent) {
      const std::uint64_t at = sent / 3 % kWindow;
      if (sent % 3 == 0) {
        client_.Post(Fill(stream_, block_ + at, 1,
                          static_cast<std::uint32_t>(sent & 0xff)));
        want[at] = static_cast<std::byte>(sent);
      } else {  // onwards, and then back
        const std::uint64_t from = sent % 3 == 1 ? at : (at * 7 + 3) % kWindow;
        const std::uint64_t to = sent % 3 == 1 ? at + 1 : at;
        client_.Post(cuda::CopyArgs{.stream = stream_,
                                    .dst = block_ + to,
                                    .src = block_ + from,
                                    .bytes = 1});
        want[to] = want[from];
      }
    }
    ASSERT_TRUE(session_.Revive());
    EXPECT_EQ(session_.pending(), count);
    EXPECT_EQ(client_.CopyOut(stream_, block_, want.size()), want) << count;
  }
}

// Threads that wait for an answer at the cut get it afterwards, once, with what
// belongs to it.
TEST_P(CutTest, WaitingCallersGetTheirAnswersOnce) {
  const std::uint64_t event = client_.MakeEvent(context_);
  session_.Hold();
  client_.Post(Fill(stream_, block_, kBytes, 0x5a));
  client_.Post(cuda::EventRecordArgs{.event = event, .stream = stream_});
  const std::uint64_t bulk = 200000;
  const std::uint32_t lease = client_.AwaitLease(bulk);
  const std::uint32_t large = client_.Begin(
      cuda::CopyFromDeviceArgs{
          .stream = stream_, .src = block_ + 5, .bytes = bulk},
      {.inline_data = {},
       .lease = lease,
       .bulk_bytes = bulk,
       .flags = wire::kFrameBulkOut});
  const std::uint32_t small = client_.Begin(cuda::CopyFromDeviceArgs{
      .stream = stream_, .src = block_ + 7, .bytes = 100});
  const std::array<std::uint32_t, 4> plain = {
      client_.Begin(cuda::StreamSynchronizeArgs{.stream = stream_}),
      client_.Begin(cuda::EventSynchronizeArgs{.event = event}),
      client_.Begin(cuda::CtxSynchronizeArgs{.context = context_.id}),
      client_.Begin(cuda::StreamCreateArgs{
          .context = context_.id, .flags = 1, .priority = 0})};
  for (const std::uint32_t slot : {large, small, plain[0], plain[3]}) {
    EXPECT_FALSE(client_.Answered(slot));
  }
  ASSERT_TRUE(session_.Revive());
  EXPECT_EQ(session_.pending(), 8u);
  EXPECT_EQ(client_.Await(large), 0);
  EXPECT_EQ(client_.reply_bulk_bytes(), bulk);
  const std::byte* const at = client_.ring().Staging(lease);
  EXPECT_EQ(std::vector<std::byte>(at, at + bulk),
            std::vector<std::byte>(bulk, std::byte{0x5a}));
  client_.leases().Release(&client_.ring(), lease);
  EXPECT_EQ(client_.Await(small), 0);
  EXPECT_EQ(client_.reply(), std::vector<std::byte>(100, std::byte{0x5a}));
  for (const std::uint32_t slot : plain) EXPECT_EQ(client_.Await(slot), 0);
  const auto made = client_.Result<cuda::StreamCreateOut>().stream;
  EXPECT_EQ(client_.Sync(made), 0) << "the one that was made after the cut";
  // Nothing comes a second time.
  EXPECT_EQ(client_.Call(cuda::CtxSynchronizeArgs{.context = context_.id}), 0);
  for (const std::uint32_t slot : {large, small, plain[0], plain[1]}) {
    EXPECT_EQ(client_.ring().slot(slot).state.load(), wire::kSlotFree);
  }
}

// An answer that came before the cut and that nobody has fetched.
TEST_P(CutTest, AnswersThatNobodyHasFetchedAreKept) {
  const std::uint32_t slot = client_.Begin(
      cuda::CopyFromDeviceArgs{.stream = stream_, .src = block_, .bytes = 64});
  const Deadline deadline = Deadline::AfterMs(20000);
  for (Backoff backoff; !client_.Answered(slot); backoff.Wait()) {
    ASSERT_FALSE(deadline.Passed());
  }
  ASSERT_TRUE(session_.Revive());
  EXPECT_EQ(session_.pending(), 0u);
  EXPECT_TRUE(client_.Answered(slot));
  client_.Post(Fill(stream_, block_, kBytes, 1));
  EXPECT_EQ(client_.Await(slot), 0);
  EXPECT_EQ(client_.reply(), std::vector<std::byte>(64));
}

// The bytes of a copy are those that the program gave, whatever is done with
// its staging after the cut.
TEST_P(CutTest, PayloadOfPendingCopiesTravelsAlong) {
  session_.Hold();
  std::vector<std::uint64_t> sizes = {1, 100, 8192, 8193, 65536, 300000};
  std::uint64_t at = 0;
  for (const std::uint64_t bytes : sizes) {
    client_.CopyIn(stream_, block_ + at, Pattern(bytes, bytes));
    at += bytes;
  }
  ASSERT_TRUE(session_.Revive());
  EXPECT_EQ(session_.pending(), sizes.size());
  at = 0;
  for (const std::uint64_t bytes : sizes) {
    EXPECT_EQ(client_.CopyOut(stream_, block_ + at, bytes),
              Pattern(bytes, bytes))
        << bytes;
    at += bytes;
  }
  // Their leases came back.
  EXPECT_EQ(client_.leases().UsedUnits(&client_.ring()), 0u);
}

// Cut again while what was pending at the first cut still is.
TEST_P(CutTest, PendingCallsOutliveSeveralCuts) {
  session_.Hold();
  client_.Post(Fill(stream_, block_, 100, 1));
  client_.CopyIn(stream_, block_ + 100, Pattern(20000, 3));
  const std::uint32_t slot =
      client_.Begin(cuda::StreamSynchronizeArgs{.stream = stream_});
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(session_.ReviveHeld());
    EXPECT_EQ(session_.pending(), 3u + static_cast<std::size_t>(i));
    client_.Post(
        Fill(stream_, block_ + 20100, 100 + static_cast<std::uint64_t>(i), 2));
  }
  session_.LetGo();
  EXPECT_EQ(client_.Await(slot), 0);
  EXPECT_EQ(client_.CopyOut(stream_, block_ + 100, 20000), Pattern(20000, 3));
}

TEST_P(CutTest, TimesOfEventsAreKept) {
  const std::uint64_t first = client_.MakeEvent(context_);
  const std::uint64_t second = client_.MakeEvent(context_);
  const std::uint64_t never = client_.MakeEvent(context_);
  client_.Post(cuda::EventRecordArgs{.event = first, .stream = stream_});
  client_.Post(Fill(stream_, block_, kBytes, 1));
  client_.Post(cuda::EventRecordArgs{.event = second, .stream = stream_});
  ASSERT_EQ(client_.Sync(stream_), 0);
  const cuda::EventElapsedArgs elapsed{.start = first, .end = second};
  ASSERT_EQ(client_.Call(elapsed), 0);
  const float before = client_.Result<cuda::EventElapsedOut>().ms;
  ASSERT_TRUE(session_.Revive());
  ASSERT_EQ(client_.Call(elapsed), 0);
  EXPECT_EQ(client_.Result<cuda::EventElapsedOut>().ms, before);
  EXPECT_EQ(client_.Call(cuda::EventElapsedArgs{.start = first, .end = never}),
            CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(client_.Call(cuda::EventQueryArgs{.event = never}), 0);
}

// A program that has faulted is told so after a restore, too, until it gives
// the context up.
TEST_P(CutTest, FaultsOutliveTheCut) {
  session_->CancelAll();
  const std::int32_t fault = client_.Sync(stream_);
  ASSERT_NE(fault, 0);
  const std::int32_t sticky = client_.ring().sticky_error();
  ASSERT_NE(sticky, 0);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(session_.Revive());
    EXPECT_EQ(client_.ring().sticky_error(), sticky);
  }
  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = context_.id}), 0);
  EXPECT_EQ(client_.ring().sticky_error(), 0);
  const SessionClient::Context fresh = client_.MakeContext();
  EXPECT_EQ(client_.Call(cuda::CtxSynchronizeArgs{.context = fresh.id}), 0);
}

// The program that is cut at each of its calls, in turn: with everything that
// was sent on the device, or with what the last 40 calls left pending.
class CutEverywhere : public ::testing::TestWithParam<int> {};
TEST_P(CutEverywhere, EveryCallBoundaryIsACut) {
  Random random(20);
  const Script script = RandomScript(&random, 150);
  const Played want = PlayScript(script, GetParam(), {});
  ASSERT_GE(want.calls, 200u);
  std::size_t most_pending = 0;
  int revivals = 0;
  // Every boundary with one stage thread; the others have theirs between.
  const std::uint64_t stride = kStride * (GetParam() == 1 ? 1 : 11);
  for (std::uint64_t at = 1; at <= want.calls; at += stride) {
    const std::uint64_t lead = at % 2 == 0 ? 40 : 0;
    const std::uint64_t hold_at =
        lead == 0 ? 0 : std::max<std::uint64_t>(at, lead + 1) - lead;
    const Played got =
        PlayScript(script, GetParam(), {{.hold_at = hold_at, .cut_at = at}});
    ASSERT_EQ(Difference(want.log, got.log), "") << "cut before call " << at;
    revivals += got.revivals;
    most_pending = std::max(most_pending, got.most_pending);
    if (HasFailure()) return;
  }
  EXPECT_GE(most_pending, 5u);
  // But for the few instants at which it says that it cannot be.
  EXPECT_GE(revivals, static_cast<int>(want.calls / stride * 3 / 4));
}

INSTANTIATE_TEST_SUITE_P(StageThreads, CutEverywhere,
                         ::testing::Values(1, 2, 3),
                         ::testing::PrintToStringParamName());
INSTANTIATE_TEST_SUITE_P(StageThreads, CutTest, ::testing::Values(1, 2, 3),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace pos
