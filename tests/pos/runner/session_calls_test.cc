// A whole session in one process: calls through the ring to a simulated device.
#include <cuda.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>
#include <vector>

#include "tests/support/random.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"

namespace pos {
namespace {

std::vector<std::byte> Bytes(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random.Next() >> 56);
  return bytes;
}

class SessionCalls : public ::testing::TestWithParam<int> {
 protected:
  SimSession session_{GetParam()};
  SessionClient client_{session_.ring()};
};

TEST_P(SessionCalls, DataOfEverySizeComesBackAsItWent) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t block = client_.Alloc(context, 2 << 20);
  for (const std::size_t bytes :
       {1u, 232u, 233u, 8192u, 8193u, 65536u, 65537u, 1u << 20}) {
    SCOPED_TRACE(bytes);
    const std::vector<std::byte> data = Bytes(bytes, bytes);
    client_.CopyIn(context.stream, block + 512, data);
    EXPECT_EQ(client_.CopyOut(context.stream, block + 512, bytes), data);
  }
  EXPECT_EQ(client_.leases().UsedUnits(&client_.ring()), 0u)
      << "staging is free again";
}

TEST_P(SessionCalls, CopiesAndFillsWithinTheDevice) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t a = client_.Alloc(context, 100000);
  const std::uint64_t b = client_.Alloc(context, 100000);
  const std::vector<std::byte> data = Bytes(100000, 5);
  client_.CopyIn(context.stream, a, data);
  client_.Post(cuda::CopyArgs{
      .stream = context.stream, .dst = b + 8, .src = a, .bytes = 50000});
  // A pitched fill inside: 3 rows of 4 elements of 2 bytes, 100 bytes apart.
  client_.Post(cuda::FillArgs{.stream = context.stream,
                              .dst = b + 8,
                              .count = 4,
                              .rows = 3,
                              .pitch = 100,
                              .value = 0xabcd1234,
                              .width = 2});
  std::vector<std::byte> expected(data.begin(), data.begin() + 50000);
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t i = 0; i < 4; ++i) {
      expected[row * 100 + i * 2] = std::byte{0x34};
      expected[row * 100 + i * 2 + 1] = std::byte{0x12};
    }
  }
  EXPECT_EQ(client_.CopyOut(context.stream, b + 8, 50000), expected);
}

TEST_P(SessionCalls, MemoryWithoutAddressesIsTakenUntilItIsReleased) {
  const auto expect_taken = [this](std::uint64_t bytes) {
    ASSERT_TRUE(session_->Quiesce(Deadline::AfterMs(20000)).ok());
    EXPECT_EQ(session_->TakenBytes(0), bytes);
    EXPECT_EQ(session_.ledger().used(), bytes);
    session_->Resume();
  };
  ASSERT_EQ(client_.Call(cuda::PhysicalCreateArgs{
                .bytes = 4 << 20, .device = 0, .reserved = 0}),
            0);
  const auto physical = client_.Result<cuda::PhysicalCreateOut>().physical;
  expect_taken(4 << 20);
  ASSERT_EQ(client_.Call(cuda::PhysicalReleaseArgs{.physical = physical}), 0);
  expect_taken(0);
}

TEST_P(SessionCalls, EventsTellTimeAndOrder) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t first = client_.MakeStream(context);
  const std::uint64_t second = client_.MakeStream(context);
  const std::uint64_t start = client_.MakeEvent(context);
  const std::uint64_t end = client_.MakeEvent(context);
  EXPECT_EQ(client_.Call(cuda::EventElapsedArgs{.start = start, .end = end}),
            CUDA_ERROR_INVALID_HANDLE)
      << "never recorded";
  const std::uint64_t block = client_.Alloc(context, 8 << 20);
  client_.Post(cuda::EventRecordArgs{.event = start, .stream = first});
  client_.Post(cuda::FillArgs{.stream = first,
                              .dst = block,
                              .count = 8 << 20,
                              .rows = 1,
                              .pitch = 0,
                              .value = 0x77,
                              .width = 1});
  client_.Post(cuda::EventRecordArgs{.event = end, .stream = first});
  client_.Post(cuda::StreamWaitEventArgs{.stream = second, .event = end});
  // The second stream sees what the first had done before the event.
  const std::vector<std::byte> tail =
      client_.CopyOut(second, block + (8 << 20) - 100, 100);
  EXPECT_EQ(tail, std::vector<std::byte>(100, std::byte{0x77}));
  EXPECT_EQ(client_.Call(cuda::EventSynchronizeArgs{.event = end}), 0);
  EXPECT_EQ(client_.Call(cuda::EventQueryArgs{.event = end}), 0);
  EXPECT_EQ(client_.Call(cuda::EventElapsedArgs{.start = start, .end = end}),
            0);
  const float ms = client_.Result<cuda::EventElapsedOut>().ms;
  EXPECT_GT(ms, 0.0f);
  EXPECT_LT(ms, 60000.0f);
  for (const std::uint64_t event : {start, end}) {
    EXPECT_EQ(client_.Call(cuda::EventDestroyArgs{.event = event}), 0);
    EXPECT_EQ(client_.Call(cuda::EventDestroyArgs{.event = event}),
              CUDA_ERROR_INVALID_HANDLE);
  }
  EXPECT_EQ(client_.Call(cuda::StreamDestroyArgs{.stream = first}), 0);
  EXPECT_EQ(client_.Sync(first), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(client_.Sync(second), 0);
  EXPECT_EQ(client_.Call(cuda::CtxSynchronizeArgs{.context = context.id}), 0);
}

TEST_P(SessionCalls, PinnedMemoryIsSharedByClientRunnerAndDevice) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t block = client_.Alloc(context, 1 << 20);
  ASSERT_EQ(
      client_.Call(cuda::HostAllocArgs{.context = context.id, .bytes = 100000}),
      0);
  const auto pinned = client_.Result<cuda::HostAllocOut>();
  EXPECT_EQ(pinned.mapped_bytes, 102400u);
  auto* const host = reinterpret_cast<std::byte*>(pinned.address);
  const std::vector<std::byte> data = Bytes(100000, 9);
  std::copy(data.begin(), data.end(), host);
  EXPECT_EQ(client_.Call(cuda::CopyArgs{.stream = context.stream,
                                        .dst = block,
                                        .src = pinned.address,
                                        .bytes = 100000}),
            0);
  EXPECT_EQ(client_.CopyOut(context.stream, block, 100000), data);
  std::fill(host, host + 100000, std::byte{0});
  EXPECT_EQ(client_.Call(cuda::CopyArgs{.stream = context.stream,
                                        .dst = pinned.address,
                                        .src = block,
                                        .bytes = 100000}),
            0);
  EXPECT_TRUE(std::equal(data.begin(), data.end(), host));
  EXPECT_EQ(client_.Call(cuda::HostFreeArgs{.address = pinned.address}), 0);
  EXPECT_EQ(client_.Call(cuda::HostFreeArgs{.address = pinned.address}),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(client_.Call(cuda::HostAllocArgs{.context = context.id,
                                             .bytes = 1ull << 40}),
            CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(
      client_.Call(cuda::HostAllocArgs{.context = context.id, .bytes = 100000}),
      0);
  EXPECT_EQ(client_.Result<cuda::HostAllocOut>().address, pinned.address)
      << "the range is used again";
}

TEST_P(SessionCalls, BadArgumentsAreToldAndChangeNothing) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t block = client_.Alloc(context, 1000);
  const std::uint64_t stream = context.stream;
  const std::uint64_t event = client_.MakeEvent(context);
  const auto expect = [this](std::int32_t error, const auto& args) {
    EXPECT_EQ(client_.Call(args), error);
  };
  expect(CUDA_ERROR_INVALID_DEVICE, cuda::CtxCreateArgs{.device = 1});
  expect(CUDA_ERROR_INVALID_DEVICE, cuda::CtxCreateArgs{.device = -1});
  expect(CUDA_ERROR_INVALID_CONTEXT, cuda::CtxDestroyArgs{.context = stream});
  expect(CUDA_ERROR_INVALID_CONTEXT, cuda::MemAllocArgs{.bytes = 1});
  expect(CUDA_ERROR_INVALID_VALUE,
         cuda::MemAllocArgs{.context = context.id, .bytes = 0});
  expect(CUDA_ERROR_OUT_OF_MEMORY,
         cuda::MemAllocArgs{.context = context.id, .bytes = ~0ull});
  expect(CUDA_ERROR_OUT_OF_MEMORY,
         cuda::MemAllocArgs{.context = context.id, .bytes = 1ull << 41});
  expect(CUDA_ERROR_INVALID_VALUE, cuda::MemFreeArgs{.address = block + 1});
  expect(CUDA_ERROR_INVALID_VALUE, cuda::MemFreeArgs{.address = 0});
  expect(CUDA_ERROR_INVALID_VALUE, cuda::HostFreeArgs{.address = block});
  expect(CUDA_ERROR_INVALID_HANDLE,
         cuda::StreamDestroyArgs{.stream = stream});  // the default stream
  expect(CUDA_ERROR_INVALID_HANDLE, cuda::StreamSynchronizeArgs{});
  expect(CUDA_ERROR_INVALID_HANDLE,
         cuda::EventSynchronizeArgs{.event = stream});
  expect(CUDA_ERROR_INVALID_HANDLE,
         cuda::EventElapsedArgs{.start = event, .end = stream});
  // Copies and fills one byte outside, at both ends, and far away.
  for (const std::uint64_t at : {block - 1, block + 1, block + 1000}) {
    expect(CUDA_ERROR_INVALID_VALUE,
           cuda::CopyArgs{
               .stream = stream, .dst = at, .src = block, .bytes = 1000});
    expect(CUDA_ERROR_INVALID_VALUE,
           cuda::CopyArgs{
               .stream = stream, .dst = block, .src = at, .bytes = 1000});
    expect(CUDA_ERROR_INVALID_VALUE, cuda::FillArgs{.stream = stream,
                                                    .dst = at,
                                                    .count = 1000,
                                                    .rows = 1,
                                                    .pitch = 0,
                                                    .value = 0,
                                                    .width = 1});
  }
  // Shapes that overflow or do not fit.
  for (const cuda::FillArgs& fill : std::initializer_list<cuda::FillArgs>{
           {stream, block, ~0ull, 1, 0, 0, 1},
           {stream, block, 1, ~0ull, 1, 0, 1},
           {stream, block, 1, ~0ull, 0, 0, 1},
           {stream, block, 1ull << 62, 1, 0, 0, 4},
           {stream, block, 100, 2, 99, 0, 1},
           {stream, block, 10, 2, 995, 0, 1},
           {stream, block, 10, 1, 0, 0, 3},
           {stream, block, 10, 1, 0, 0, 8},
           {stream, block + 1, 10, 1, 0, 0, 2},
           {stream, block, 0, 1, 0, 0, 1},
           {stream, block, 2, 1ull << 63, 1ull << 63, 0, 1}}) {
    expect(CUDA_ERROR_INVALID_VALUE, fill);
  }
  // Output that does not fit what the caller gave.
  expect(
      CUDA_ERROR_INVALID_VALUE,
      cuda::CopyFromDeviceArgs{.stream = stream, .src = block, .bytes = 1000});
  expect(CUDA_ERROR_INVALID_VALUE, cuda::DeviceTableArgs{});
  EXPECT_EQ(client_.Sync(stream), 0) << "none of it was an execution error";
}

// A call without a reply slot that is refused is told by the next call that
// synchronizes, once.
TEST_P(SessionCalls, ErrorOfACallWithoutReplyIsToldLaterAndOnce) {
  const SessionClient::Context context = client_.MakeContext();
  client_.Post(cuda::EventRecordArgs{.event = 12345, .stream = context.stream});
  EXPECT_EQ(client_.Sync(context.stream), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(client_.Sync(context.stream), 0);
}

TEST_P(SessionCalls, DeviceTableDescribesTheDevices) {
  const std::uint32_t lease = client_.AwaitLease(65536);
  ASSERT_EQ(
      client_.Call(cuda::DeviceTableArgs{}, {.inline_data = {},
                                             .lease = lease,
                                             .bulk_bytes = 65536,
                                             .flags = wire::kFrameBulkOut}),
      0);
  EXPECT_EQ(client_.Result<cuda::DeviceTableOut>().count, 1u);
  const std::byte* const at = client_.ring().Staging(lease);
  cuda::DeviceRecord record;
  std::memcpy(&record, at, sizeof(record));
  const DeviceInfo& info = session_.device().info();
  EXPECT_EQ(record.name, info.name);
  EXPECT_EQ(record.memory_bytes, info.memory_bytes);
  ASSERT_EQ(record.attribute_count, info.attributes.size());
  EXPECT_EQ(
      client_.reply_bulk_bytes(),
      sizeof(record) + info.attributes.size() * sizeof(cuda::DeviceAttribute));
}

TEST_P(SessionCalls, ContextsTakeTheirChildrenAlong) {
  const SessionClient::Context kept = client_.MakeContext();
  const SessionClient::Context gone = client_.MakeContext();
  const std::uint64_t stream = client_.MakeStream(gone);
  const std::uint64_t event = client_.MakeEvent(gone);
  const std::uint64_t block = client_.Alloc(gone, 3 << 20);
  const std::uint64_t kept_block = client_.Alloc(kept, 1000);
  const std::uint64_t before = session_.ledger().used();
  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = gone.id}), 0);
  EXPECT_EQ(client_.Sync(stream), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(client_.Sync(gone.stream), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(client_.Call(cuda::EventQueryArgs{.event = event}),
            CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = block}),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = gone.id}),
            CUDA_ERROR_INVALID_CONTEXT);
  client_.Settle(kept);
  EXPECT_EQ(session_.ledger().used(), before - (4u << 20));
  const std::vector<std::byte> data = Bytes(1000, 1);
  client_.CopyIn(kept.stream, kept_block, data);
  EXPECT_EQ(client_.CopyOut(kept.stream, kept_block, 1000), data);
}

// Many threads, each with its own stream and block, at once.
TEST_P(SessionCalls, ThreadsDoNotDisturbEachOther) {
  const SessionClient::Context context = client_.MakeContext();
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      SessionClient mine(session_.ring(), 64 + t * 32, 32);
      const std::uint64_t stream = mine.MakeStream(context);
      for (std::uint64_t i = 0; i < 60; ++i) {
        const std::size_t bytes = 100 + (i * 777 + t * 31) % 7000;
        const std::uint64_t block = mine.Alloc(context, bytes);
        const std::vector<std::byte> data = Bytes(bytes, i * 10 + t);
        mine.CopyIn(stream, block, data);
        std::vector<std::byte> back;
        for (std::size_t at = 0; at < bytes; at += 200) {
          const std::vector<std::byte> piece = mine.CopyOut(
              stream, block + at, std::min<std::size_t>(200, bytes - at));
          back.insert(back.end(), piece.begin(), piece.end());
        }
        ASSERT_EQ(back, data);
        const std::uint64_t event = mine.MakeEvent(context);
        mine.Post(cuda::EventRecordArgs{.event = event, .stream = stream});
        ASSERT_EQ(mine.Call(cuda::EventSynchronizeArgs{.event = event}), 0);
        ASSERT_EQ(mine.Call(cuda::EventDestroyArgs{.event = event}), 0);
        ASSERT_EQ(mine.Call(cuda::MemFreeArgs{.address = block}), 0);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  client_.Settle(context);
  EXPECT_EQ(session_.ledger().used(), 0u);
}

INSTANTIATE_TEST_SUITE_P(StageThreads, SessionCalls, ::testing::Values(1, 2, 3),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace pos
