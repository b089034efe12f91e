// Errors of a session on the simulated device, as they come out of the ring:
// what is told at the call, what at the next call that waits, and what stays.
#include <cuda.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string_view>
#include <vector>

#include "tests/support/client_kernels.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"

namespace pos {
namespace {

constexpr std::string_view kKernels = R"(
.version 8.0
.target sm_90
.address_size 64
.visible .entry store(.param .u64 address, .param .u32 value) {
  .reg .u64 %a;
  .reg .u32 %v;
  ld.param.u64 %a, [address];
  ld.param.u32 %v, [value];
  st.global.u32 [%a], %v;
  ret;
}
)";

class SessionErrors : public ::testing::TestWithParam<int> {
 protected:
  struct Loaded {
    SessionClient::Context context;
    std::uint64_t module = 0;
    std::uint64_t store = 0;
    std::uint64_t block = 0;
  };
  Loaded Load() {
    Loaded l;
    l.context = client_.MakeContext();
    EXPECT_EQ(LoadModule(l.context, kKernels, &l.module), 0);
    EXPECT_EQ(Function(l.module, "store", &l.store), 0);
    l.block = client_.Alloc(l.context, 4096);
    return l;
  }
  std::int32_t LoadModule(const SessionClient::Context& context,
                          std::string_view text, std::uint64_t* module) {
    return CallModuleLoad(&client_, context, text, module);
  }
  std::int32_t Function(std::uint64_t module, std::string_view name,
                        std::uint64_t* function) {
    return CallModuleFunction(&client_, module, name, function);
  }
  void Store(const Loaded& l, std::uint64_t address, std::uint32_t value,
             std::uint32_t threads = 1, std::size_t params_bytes = 12) {
    std::vector<std::byte> params(params_bytes);
    std::memcpy(params.data(), &address, sizeof(address));
    if (params_bytes >= 12) {
      std::memcpy(params.data() + 8, &value, sizeof(value));
    }
    PostLaunch(&client_, l.context.stream, l.store, 1, threads, params);
  }
  std::uint32_t Word(const Loaded& l) {
    std::uint32_t value = 0;
    const auto bytes = client_.CopyOut(l.context.stream, l.block, 4);
    std::memcpy(&value, bytes.data(), 4);
    return value;
  }

  SimSession session_{GetParam()};
  SessionClient client_{session_.ring()};
};

TEST_P(SessionErrors, UnknownKernelAndBadCodeAreToldAtTheCall) {
  const Loaded l = Load();
  std::uint64_t id = 0;
  EXPECT_EQ(Function(l.module, "absent", &id), CUDA_ERROR_NOT_FOUND);
  EXPECT_EQ(Function(l.module, "", &id), CUDA_ERROR_NOT_FOUND);
  EXPECT_EQ(LoadModule(l.context, ".version 8.0\n.target sm_90\nnonsense", &id),
            CUDA_ERROR_INVALID_PTX);
  EXPECT_EQ(LoadModule(l.context, "no code at all", &id),
            CUDA_ERROR_INVALID_IMAGE);
  Store(l, l.block, 5);
  EXPECT_EQ(Word(l), 5u);
}

// A client that does not check what CUDA checks at the call: nothing runs, the
// next call that waits says so, once.
TEST_P(SessionErrors, LaunchesThatCannotBeAreToldOnceAndDoNotPoison) {
  const Loaded l = Load();
  for (const std::uint32_t threads : {0u, 1025u, 100000u}) {
    SCOPED_TRACE(threads);
    Store(l, l.block, 6, threads);
    EXPECT_EQ(client_.Sync(l.context.stream), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(client_.Sync(l.context.stream), 0);
  }
  for (const std::size_t bytes : {8u, 11u, 13u, 64u}) {
    SCOPED_TRACE(bytes);
    Store(l, l.block, 6, 1, bytes);
    EXPECT_EQ(client_.Sync(l.context.stream), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(client_.Sync(l.context.stream), 0);
  }
  EXPECT_EQ(client_.ring().sticky_error(), 0);
  Store(l, l.block, 7);
  EXPECT_EQ(Word(l), 7u);
}

TEST_P(SessionErrors, FaultsPoisonTheirContextUntilItEnds) {
  for (const std::int32_t error :
       {CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_MISALIGNED_ADDRESS}) {
    SCOPED_TRACE(error);
    const Loaded l = Load();
    const SessionClient::Context other = client_.MakeContext();
    const std::uint64_t kept = client_.Alloc(other, 64);
    Store(l, l.block, 8);
    EXPECT_EQ(Word(l), 8u);
    Store(l, error == CUDA_ERROR_ILLEGAL_ADDRESS ? 0x10 : l.block + 1, 9);
    Store(l, l.block, 10);
    EXPECT_EQ(client_.Sync(l.context.stream), error);
    EXPECT_EQ(client_.ring().sticky_error(), error);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(client_.Call(cuda::CtxSynchronizeArgs{.context = l.context.id}),
                error);
    }
    EXPECT_EQ(client_.Call(cuda::CopyFromDeviceArgs{
                  .stream = l.context.stream, .src = l.block, .bytes = 4}),
              error);
    EXPECT_EQ(client_.Call(cuda::StreamQueryArgs{.stream = l.context.stream}),
              error);
    // The client library holds everything back but the end of the context.
    EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = l.context.id}), 0);
    EXPECT_EQ(client_.ring().sticky_error(), 0);
    EXPECT_EQ(client_.CopyOut(other.stream, kept, 64).size(), 64u);
    EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = kept}), 0);
    EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = other.id}), 0);
  }
  client_.Settle(client_.MakeContext());
  EXPECT_EQ(session_.ledger().used(), 0u);
}

// Calls that were under way when the fault came end with it, each once.
TEST_P(SessionErrors, EverythingBehindAFaultEndsWithIt) {
  const Loaded l = Load();
  const std::uint64_t event = client_.MakeEvent(l.context);
  Store(l, 0x10, 1);
  client_.Post(
      cuda::EventRecordArgs{.event = event, .stream = l.context.stream});
  std::vector<std::uint32_t> slots;
  for (int i = 0; i < 10; ++i) {
    slots.push_back(
        client_.Begin(cuda::StreamSynchronizeArgs{.stream = l.context.stream}));
    slots.push_back(client_.Begin(cuda::EventSynchronizeArgs{.event = event}));
  }
  slots.push_back(client_.Begin(cuda::MemFreeArgs{.address = l.block}));
  for (const std::uint32_t slot : slots) {
    EXPECT_EQ(client_.Await(slot), CUDA_ERROR_ILLEGAL_ADDRESS);
  }
  EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = l.block}),
            CUDA_ERROR_INVALID_VALUE)
      << "it was freed all the same";
}

TEST_P(SessionErrors, WrongDevicesAndMemoryThatIsNotThereAreToldAtTheCall) {
  for (const std::int32_t device : {-1, 1, 8, 1 << 30}) {
    EXPECT_EQ(client_.Call(cuda::CtxCreateArgs{.device = device, .flags = 0}),
              CUDA_ERROR_INVALID_DEVICE);
  }
  const Loaded l = Load();
  for (const std::uint64_t bytes :
       {std::uint64_t{1} << 30, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
    EXPECT_EQ(client_.Call(
                  cuda::MemAllocArgs{.context = l.context.id, .bytes = bytes}),
              CUDA_ERROR_OUT_OF_MEMORY);
  }
  EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = l.block}), 0);
  EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = l.block}),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(client_.Sync(l.context.stream), 0);
}

INSTANTIATE_TEST_SUITE_P(StageThreads, SessionErrors,
                         ::testing::Values(1, 2, 3),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace pos
