// Memory of a session: out of memory, frees and unloads that wait for work,
// contexts that end meanwhile. The device does its work when the test says so.
#include <cuda.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tests/support/client_kernels.h"
#include "tests/support/manual_device.h"
#include "tests/support/session_client.h"
#include "tests/support/test_session.h"

namespace pos {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

class SessionMemory : public ::testing::TestWithParam<int> {
 protected:
  SessionMemory() { session_->Start(); }
  ~SessionMemory() override {
    device_.SetManual(false);
    device_.Release();
    session_.Destroy();
    EXPECT_TRUE(device_.Violations().empty()) << device_.Violations().front();
    EXPECT_EQ(device_.MappedBytes(), 0u) << "memory was left behind";
  }
  // Work on `context`'s default stream that goes on until Release.
  void StartWork(const SessionClient::Context& context, std::uint64_t block) {
    device_.SetManual(true);
    const std::size_t before = device_.Waiting();
    PostWork(context, block);
    AwaitWaiting(before + 1);
    device_.SetManual(false);
  }
  void PostWork(const SessionClient::Context& context, std::uint64_t block) {
    client_.Post(cuda::FillArgs{.stream = context.stream,
                                .dst = block,
                                .count = 1,
                                .rows = 1,
                                .pitch = 0,
                                .value = 0,
                                .width = 1});
  }
  // Until the device holds `count` pieces of work.
  void AwaitWaiting(std::size_t count) {
    const Deadline deadline = Deadline::AfterMs(20000);
    Backoff backoff;
    while (device_.Waiting() < count && !deadline.Passed()) backoff.Wait();
    ASSERT_GE(device_.Waiting(), count);
  }

  std::uint64_t MakeBlob(std::uint64_t bytes) {
    EXPECT_EQ(client_.Call(cuda::BlobCreateArgs{.bytes = bytes}), 0);
    return client_.Result<cuda::BlobCreateOut>().blob;
  }
  // A blob's size is that of the module's variable.
  std::uint64_t LoadModule(const SessionClient::Context& context,
                           std::uint64_t blob) {
    EXPECT_EQ(
        client_.Call(cuda::ModuleLoadArgs{.context = context.id, .blob = blob}),
        0);
    return client_.Result<cuda::ModuleLoadOut>().module;
  }
  std::int32_t CallModuleFunction(std::uint64_t module, std::string_view name) {
    std::uint64_t function = 0;
    return pos::CallModuleFunction(&client_, module, name, &function);
  }

  ManualDevice device_{1ull << 30};
  TestSession session_{TestOptions(GetParam()), {&device_}};
  SessionClient client_{session_.ring()};
};

TEST_P(SessionMemory, OutOfMemoryIsToldAtTheCallAndCanBeRecoveredFrom) {
  session_.ledger().SetLimit(64 * kMiB);
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t block = client_.Alloc(context, 40 * kMiB);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client_.Call(cuda::MemAllocArgs{.context = context.id,
                                              .bytes = 40 * kMiB}),
              CUDA_ERROR_OUT_OF_MEMORY);
  }
  EXPECT_EQ(client_.Sync(context.stream), 0) << "nothing is poisoned";
  EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = block}), 0);
  EXPECT_EQ(client_.Alloc(context, 40 * kMiB), block);
  EXPECT_EQ(session_.ledger().used(), 40 * kMiB);
}

TEST_P(SessionMemory, RefusedAddressesGiveTheirMemoryBack) {
  // The part of a device is 240 MiB here; the ledger would grant more.
  const SessionClient::Context context = client_.MakeContext();
  EXPECT_EQ(client_.Call(
                cuda::MemAllocArgs{.context = context.id, .bytes = 512 * kMiB}),
            CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(session_.ledger().used(), 0u);
}

// Memory that is on its way back is waited for, not told as missing; and what
// the other threads do meanwhile goes on.
TEST_P(SessionMemory, AllocationWaitsForAFreeThatIsUnderWay) {
  session_.ledger().SetLimit(64 * kMiB);
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t block = client_.Alloc(context, 40 * kMiB);
  const std::uint64_t event = client_.MakeEvent(context);
  StartWork(context, block);
  const std::uint32_t free = client_.Begin(cuda::MemFreeArgs{.address = block});
  AwaitWaiting(2);
  const std::uint32_t alloc = client_.Begin(
      cuda::MemAllocArgs{.context = context.id, .bytes = 40 * kMiB});
  const std::uint64_t asked_before = session_.ledger().asked();
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(client_.Call(cuda::EventQueryArgs{.event = event}), 0)
        << "other calls pass the one that waits";
  }
  EXPECT_FALSE(client_.Answered(free));
  EXPECT_FALSE(client_.Answered(alloc));
  EXPECT_LE(session_.ledger().asked(), asked_before + 1)
      << "the node is not asked again and again";
  device_.Release();
  EXPECT_EQ(client_.Await(free), 0);
  EXPECT_EQ(client_.Await(alloc), 0);
  EXPECT_EQ(client_.Result<cuda::MemAllocOut>().address, block);
}

TEST_P(SessionMemory, PendingAnswerOfTheLedgerHoldsUpOnlyItsCall) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t event = client_.MakeEvent(context);
  session_.ledger().SetPending(true);
  const std::uint32_t alloc =
      client_.Begin(cuda::MemAllocArgs{.context = context.id, .bytes = kMiB});
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(client_.Call(cuda::EventQueryArgs{.event = event}), 0);
  }
  EXPECT_FALSE(client_.Answered(alloc));
  session_.ledger().SetPending(false);
  session_->Wake();
  EXPECT_EQ(client_.Await(alloc), 0);
}

// The stream-ordered free returns at once; its range is not handed out before
// the stream is done with it, and then it is.
TEST_P(SessionMemory, FreeAsyncKeepsTheRangeUntilItsStreamIsDone) {
  const SessionClient::Context context = client_.MakeContext();
  const auto allocate = [&](std::uint64_t stream) {
    EXPECT_EQ(client_.Call(
                  cuda::MemAllocAsyncArgs{.stream = stream, .bytes = 4 * kMiB}),
              0);
    return client_.Result<cuda::MemAllocAsyncOut>().address;
  };
  const std::uint64_t other = client_.MakeStream(context);
  const std::uint64_t block = allocate(context.stream);
  StartWork(context, block);
  EXPECT_EQ(client_.Call(cuda::MemFreeAsyncArgs{.stream = context.stream,
                                                .address = block}),
            0)
      << "answered though the work goes on";
  EXPECT_EQ(client_.Call(cuda::MemFreeAsyncArgs{.stream = context.stream,
                                                .address = block}),
            CUDA_ERROR_INVALID_VALUE);
  const std::uint64_t second = allocate(other);
  EXPECT_NE(second, block) << "still in use by the first stream";
  device_.Release();
  EXPECT_EQ(client_.Sync(context.stream), 0);
  EXPECT_EQ(allocate(other), block);
}

TEST_P(SessionMemory, SmallBlocksShareTheirBacking) {
  const SessionClient::Context context = client_.MakeContext();
  std::vector<std::uint64_t> blocks;
  for (int i = 0; i < 64; ++i) blocks.push_back(client_.Alloc(context, 4096));
  EXPECT_EQ(client_.Sync(context.stream), 0);
  EXPECT_EQ(device_.MappedBytes(), 2 * kMiB);
  EXPECT_EQ(session_.ledger().used(), 2 * kMiB);
  for (const std::uint64_t block : blocks) {
    EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = block}), 0);
  }
  client_.Settle(context);
  EXPECT_EQ(device_.MappedBytes(), 0u);
  EXPECT_EQ(session_.ledger().used(), 0u);
}

// A free waits for work of another context of the device; meanwhile the
// context that owns the block is destroyed and the address is wanted again.
// The late free must not take the new block away.
TEST_P(SessionMemory, FreeThatEndsAfterItsContextFreesNothingOfOthers) {
  const SessionClient::Context owner = client_.MakeContext();
  const SessionClient::Context other = client_.MakeContext();
  const std::uint64_t busy = client_.Alloc(other, 4 * kMiB);
  const std::uint64_t block = client_.Alloc(owner, 4 * kMiB);
  StartWork(other, busy);
  const std::uint32_t free = client_.Begin(cuda::MemFreeArgs{.address = block});
  AwaitWaiting(2);
  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = owner.id}), 0);
  EXPECT_FALSE(client_.Answered(free));
  std::vector<std::uint64_t> fresh;
  for (int i = 0; i < 3; ++i) fresh.push_back(client_.Alloc(other, 4 * kMiB));
  for (const std::uint64_t address : fresh) {
    EXPECT_NE(address, block) << "the free has not ended";
  }
  const std::uint64_t used = session_.ledger().used();
  device_.Release();
  EXPECT_EQ(client_.Await(free), 0);
  client_.Settle(other);
  EXPECT_EQ(session_.ledger().used(), used - 4 * kMiB);
  // The new blocks are there and can be used and freed.
  for (const std::uint64_t address : fresh) {
    EXPECT_EQ(client_.Call(cuda::FillArgs{.stream = other.stream,
                                          .dst = address,
                                          .count = 4 * kMiB,
                                          .rows = 1,
                                          .pitch = 0,
                                          .value = 0,
                                          .width = 1}),
              0);
    EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = address}), 0);
  }
  EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = busy}), 0);
  client_.Settle(other);
  EXPECT_EQ(session_.ledger().used(), 0u);
}

TEST_P(SessionMemory, StreamOrderedFreesEndWithTheirContext) {
  const SessionClient::Context context = client_.MakeContext();
  const SessionClient::Context other = client_.MakeContext();
  const std::uint64_t block = client_.Alloc(context, 4 * kMiB);
  StartWork(context, block);
  EXPECT_EQ(client_.Call(cuda::MemFreeAsyncArgs{.stream = context.stream,
                                                .address = block}),
            0);
  AwaitWaiting(2);
  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = context.id}), 0);
  for (int i = 0; i < 50; ++i) {
    const std::uint64_t again = client_.Alloc(other, 4 * kMiB);
    EXPECT_EQ(client_.Sync(other.stream), 0);
    EXPECT_EQ(device_.MappedBytes(), 4 * kMiB);
    EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = again}), 0);
  }
  client_.Settle(other);
  EXPECT_EQ(session_.ledger().used(), 0u);
}

TEST_P(SessionMemory, FreesThatFailWithTheirContextStillFree) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t block = client_.Alloc(context, 4 * kMiB);
  StartWork(context, block);
  const std::uint32_t free = client_.Begin(cuda::MemFreeArgs{.address = block});
  AwaitWaiting(2);
  device_.Fault(CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(client_.Await(free), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(client_.ring().sticky_error(), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(device_.MappedBytes(), 0u);
  // The client gets rid of the fault with the context.
  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = context.id}), 0);
  EXPECT_EQ(client_.ring().sticky_error(), 0);
  const SessionClient::Context fresh = client_.MakeContext();
  EXPECT_EQ(client_.Sync(fresh.stream), 0);
}

// The ledger promised the memory and the device has none: the program was told
// an address already, so all that is left is a sticky error, which stays.
TEST_P(SessionMemory, BrokenPromiseOfTheDeviceStaysSticky) {
  const SessionClient::Context context = client_.MakeContext();
  const SessionClient::Context second = client_.MakeContext();
  device_.FailNextMap();
  const std::uint64_t block = client_.Alloc(context, 4 * kMiB);
  EXPECT_NE(block, 0u);
  client_.Call(cuda::CtxSynchronizeArgs{.context = context.id});
  EXPECT_EQ(client_.ring().sticky_error(), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = second.id}), 0);
  EXPECT_EQ(client_.ring().sticky_error(), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = context.id}), 0);
  EXPECT_EQ(client_.ring().sticky_error(), 0);
  client_.Settle(client_.MakeContext());
  EXPECT_EQ(session_.ledger().used(), 0u);
}

// Both calls are sent before the session looks at either. The free finds the
// range in the parser's table; by the time it is executed the allocation has
// failed, and the range is handed out again.
TEST_P(SessionMemory, FreeOfPinnedMemoryThatWasRefusedFreesNothing) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t busy = client_.Alloc(context, kMiB);
  const cuda::HostAllocArgs want{.context = context.id, .bytes = 100000};
  ASSERT_EQ(client_.Call(want), 0);
  const auto first = client_.Result<cuda::HostAllocOut>().address;
  ASSERT_EQ(client_.Call(cuda::HostFreeArgs{.address = first}), 0);
  ASSERT_TRUE(session_->Quiesce(Deadline::AfterMs(20000)).ok());
  device_.SetManual(true);
  PostWork(context, busy);
  device_.FailNextMapHost();
  const std::uint32_t alloc = client_.Begin(want);
  const std::uint32_t free =
      client_.Begin(cuda::HostFreeArgs{.address = first});
  session_->Resume();
  EXPECT_EQ(client_.Await(alloc), CUDA_ERROR_OUT_OF_MEMORY);
  ASSERT_EQ(client_.Call(want), 0);
  EXPECT_EQ(client_.Result<cuda::HostAllocOut>().address, first);
  device_.Release();
  EXPECT_EQ(client_.Await(free), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(client_.Call(want), 0);
  EXPECT_NE(client_.Result<cuda::HostAllocOut>().address, first);
  EXPECT_EQ(client_.Call(cuda::HostFreeArgs{.address = first}), 0);
}

TEST_P(SessionMemory, ModuleWhoseVariablesFindNoMemoryLeavesNothing) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t blob = MakeBlob(3 * kMiB);
  for (int i = 0; i < 3; ++i) {
    device_.FailNextMap();
    EXPECT_NE(
        client_.Call(cuda::ModuleLoadArgs{.context = context.id, .blob = blob}),
        0);
    client_.Settle(context);
    EXPECT_EQ(session_.ledger().used(), 0u);
    EXPECT_EQ(device_.MappedBytes(), 0u);
  }
  const std::uint64_t module = LoadModule(context, blob);
  EXPECT_EQ(session_.ledger().used(), 4 * kMiB);
  EXPECT_EQ(client_.Call(cuda::ModuleUnloadArgs{.module = module}), 0);
  client_.Settle(context);
  EXPECT_EQ(session_.ledger().used(), 0u);
}

// The unload waits for work of another context of the device; its own context
// goes meanwhile and takes the module along.
TEST_P(SessionMemory, UnloadThatEndsAfterItsContextUnloadsNothing) {
  const SessionClient::Context owner = client_.MakeContext();
  const SessionClient::Context other = client_.MakeContext();
  const std::uint64_t busy = client_.Alloc(other, 4 * kMiB);
  const std::uint64_t module = LoadModule(owner, MakeBlob(3 * kMiB));
  ASSERT_EQ(CallModuleFunction(module, "one"), 0);
  StartWork(other, busy);
  const std::uint32_t unload =
      client_.Begin(cuda::ModuleUnloadArgs{.module = module});
  AwaitWaiting(2);
  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = owner.id}), 0);
  EXPECT_FALSE(client_.Answered(unload));
  client_.Settle(other);
  EXPECT_EQ(session_.ledger().used(), 4 * kMiB) << "the variables are freed";
  const std::uint64_t second = LoadModule(other, MakeBlob(3 * kMiB));
  device_.Release();
  EXPECT_EQ(client_.Await(unload), 0);
  client_.Settle(other);
  EXPECT_EQ(session_.ledger().used(), 8 * kMiB) << "those of the new one stay";
  ASSERT_EQ(CallModuleFunction(second, "one"), 0);
}

// A client that guesses the id of what is being made, which then fails: the
// guess names nothing, whatever the order in which the stages see the calls.
TEST_P(SessionMemory, IdsCannotBeUsedBeforeTheyAreTold) {
  const auto next_id = [](std::uint64_t id) { return id + (1ull << 32); };
  const SessionClient::Context first = client_.MakeContext();
  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = first.id}), 0);
  client_.Call(cuda::MemGetInfoArgs{.context = first.id});  // settles
  ASSERT_TRUE(session_->Quiesce(Deadline::AfterMs(20000)).ok());
  device_.FailNextCreate();
  const std::uint64_t guess = next_id(first.id);
  const std::uint32_t context =
      client_.Begin(cuda::CtxCreateArgs{.device = 0, .flags = 0});
  std::vector<std::uint32_t> guesses = {
      client_.Begin(
          cuda::StreamCreateArgs{.context = guess, .flags = 0, .priority = 0}),
      client_.Begin(
          cuda::EventCreateArgs{.context = guess, .flags = 0, .reserved = 0}),
      client_.Begin(cuda::CtxSynchronizeArgs{.context = guess}),
      client_.Begin(cuda::MemAllocArgs{.context = guess, .bytes = 4096}),
      client_.Begin(cuda::CtxDestroyArgs{.context = guess}),
  };
  session_->Resume();
  EXPECT_EQ(client_.Await(context), CUDA_ERROR_OUT_OF_MEMORY);
  for (const std::uint32_t slot : guesses) {
    EXPECT_EQ(client_.Await(slot), CUDA_ERROR_INVALID_CONTEXT);
  }
  client_.Call(cuda::MemGetInfoArgs{.context = guess});
  const SessionClient::Context second = client_.MakeContext();
  EXPECT_EQ(second.id, next_id(guess)) << "the guess was none";
  EXPECT_EQ(session_.ledger().used(), 0u);
}

// What an image's session has taken is counted from what it holds.
TEST_P(SessionMemory, WhatASessionHoldsIsWhatItHasTaken) {
  const SessionClient::Context context = client_.MakeContext();
  const auto expect_same = [&](std::uint64_t at_least) {
    ASSERT_TRUE(session_->Quiesce(Deadline::AfterMs(20000)).ok());
    EXPECT_EQ(session_->TakenBytes(0), session_.ledger().used());
    EXPECT_GE(session_.ledger().used(), at_least);
    session_->Resume();
  };
  expect_same(0);
  const std::uint64_t small = client_.Alloc(context, 1000);
  client_.Alloc(context, 5 * kMiB);
  expect_same(5 * kMiB);
  LoadModule(context, MakeBlob(3 * kMiB));
  expect_same(8 * kMiB);
  ASSERT_EQ(client_.Call(cuda::AddressReserveArgs{.bytes = 64 * kMiB,
                                                  .alignment = 0,
                                                  .address = 0,
                                                  .device = 0,
                                                  .reserved = 0}),
            0);
  expect_same(8 * kMiB);
  EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = small}), 0);
  client_.Settle(context);
  expect_same(8 * kMiB);
}

INSTANTIATE_TEST_SUITE_P(StageThreads, SessionMemory,
                         ::testing::Values(1, 2, 3),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace pos
