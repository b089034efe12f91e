// Device conformance: modules, functions, launches, faults, cancellation.
#include <thread>

#include "tests/conformance/device/fixture.h"

namespace pos::conformance {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

// Function attribute numbers of the API.
constexpr std::int32_t kMaxThreads = 0;
constexpr std::int32_t kSharedSize = 1;
constexpr std::int32_t kMaxDynamicShared = 8;

std::int32_t Attribute(DeviceFunction* function, std::int32_t number) {
  for (const auto& [n, value] : function->info().attributes) {
    if (n == number) return value;
  }
  return -1000;
}

TEST_F(DeviceTest, FindsFunctionsByName) {
  DeviceModule* module = Load(kBasic);
  EXPECT_THAT(module->FunctionNames(),
              UnorderedElementsAre("empty", "affine", "wait", "endless", "poke",
                                   "trapped", "bounded"));
  DeviceFunction* affine = module->FindFunction("affine");
  ASSERT_NE(affine, nullptr);
  EXPECT_EQ(module->FindFunction("affine"), affine);
  EXPECT_EQ(module->FindFunction("nothing"), nullptr);
  EXPECT_EQ(affine->info().name, "affine");
  ASSERT_THAT(affine->info().params, SizeIs(4));
  EXPECT_EQ(affine->info().params[0].size, 8u);
  EXPECT_EQ(affine->info().params[3].offset, 16u);
  EXPECT_EQ(affine->info().params[3].size, 4u);
  EXPECT_EQ(affine->info().params_bytes, 20u);
  EXPECT_EQ(affine->info().launch_error, 0);
  EXPECT_EQ(Attribute(module->FindFunction("bounded"), kMaxThreads), 64);
}

TEST_F(DeviceTest, PlacesVariablesAndTheirInitialValues) {
  DeviceModule* module = Load(kVariables);
  std::map<std::string, GlobalInfo> globals;
  for (const GlobalInfo& global : module->Globals()) {
    globals[global.name] = global;
  }
  ASSERT_EQ(globals.count("counter") + globals.count("zeros") +
                globals.count("values") + globals.count("link") +
                globals.count("factor"),
            5u);
  EXPECT_EQ(globals["zeros"].bytes, 128u);
  EXPECT_EQ(globals["zeros"].address % 16, 0u);
  EXPECT_TRUE(globals["factor"].constant);
  EXPECT_FALSE(globals["counter"].constant);
  EXPECT_EQ(ReadWord(globals["counter"].address), 7u);
  EXPECT_EQ(ReadWord(globals["factor"].address), 5u);
  EXPECT_EQ(Read<std::uint32_t>(globals["values"].address, 3),
            (std::vector<std::uint32_t>{1, 2, 3}));
  EXPECT_EQ(Read<std::uint64_t>(globals["link"].address, 1)[0],
            globals["values"].address + 4);
  EXPECT_EQ(Read<std::uint32_t>(globals["zeros"].address, 32),
            std::vector<std::uint32_t>(32, 0));
}

TEST_F(DeviceTest, KernelsShareVariablesWithCopies) {
  DeviceModule* module = Load(kVariables);
  DeviceFunction* step = module->FindFunction("step");
  ASSERT_NE(step, nullptr);
  std::map<std::string, DeviceAddress> at;
  for (const GlobalInfo& global : module->Globals()) {
    at[global.name] = global.address;
  }
  const DeviceAddress out = Allocate(64);
  DeviceStream* stream = Stream();
  Run(stream, step, Params(out));
  Run(stream, step, Params(out));
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(Read<std::uint32_t>(out, 3),
            (std::vector<std::uint32_t>{45, 2, 2}));
  // As cudaMemcpyToSymbol does it.
  const std::uint32_t factor = 100;
  stream->Copy(at["factor"], reinterpret_cast<DeviceAddress>(&factor), 4, 0);
  Run(stream, step, Params(out));
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(ReadWord(out), 1000u);
}

TEST_F(DeviceTest, EachLoadHasVariablesOfItsOwn) {
  DeviceModule* a = Load(kVariables);
  DeviceModule* b = Load(kVariables);
  const DeviceAddress out = Allocate(64);
  DeviceStream* stream = Stream();
  Run(stream, a->FindFunction("step"), Params(out));
  Run(stream, a->FindFunction("step"), Params(out));
  Run(stream, b->FindFunction("step"), Params(out + 16));
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(ReadWord(out), 45u);
  EXPECT_EQ(ReadWord(out + 16), 40u);
}

TEST_F(DeviceTest, UnloadDoesNotDisturbQueuedLaunches) {
  const DeviceAddress out = Allocate(64);
  DeviceStream* stream = Stream();
  const Gate gate = Hold(stream);
  DeviceModule* module = Load(kVariables);
  Run(stream, module->FindFunction("step"), Params(out));
  modules_.pop_back();
  Release(gate);
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(ReadWord(out), 40u);
}

TEST_F(DeviceTest, RefusesWhatIsNoCode) {
  for (const std::string& image :
       {std::string("not code\0", 9),
        std::string("\x7f"
                    "ELF\2\1\1"),
        std::string("\x50\xed\x55\xba\1\0\x10\0\xff\xff\0\0\0\0\0\0", 16),
        std::string(1, '\0'), std::string()}) {
    DeviceError error = 0;
    auto module =
        context_->LoadModule(std::as_bytes(std::span(image)), this, &error);
    EXPECT_FALSE(module.ok());
    EXPECT_EQ(error, harness_->errors().invalid_image);
  }
  std::string bad(kBasic);
  bad.replace(bad.find("mad.lo.u32"), 10, "mad lo u32");
  DeviceError error = 0;
  auto module =
      context_->LoadModule(std::as_bytes(std::span(bad)), this, &error);
  EXPECT_FALSE(module.ok());
  EXPECT_EQ(error, harness_->errors().invalid_ptx);
}

TEST_F(DeviceTest, RefusesCodeForNewerDevicesOnly) {
  std::string newer(kBasic);
  newer.replace(newer.find("sm_75"), 5, "sm_999");
  DeviceError error = 0;
  auto module =
      context_->LoadModule(std::as_bytes(std::span(newer)), this, &error);
  EXPECT_FALSE(module.ok());
  EXPECT_EQ(error, harness_->errors().no_binary);
}

TEST_F(DeviceTest, PassesParametersOfAllKinds) {
  DeviceModule* module = Load(kArguments);
  DeviceFunction* pack = module->FindFunction("pack");
  ASSERT_NE(pack, nullptr);
  ASSERT_THAT(pack->info().params, SizeIs(3));
  EXPECT_EQ(pack->info().params[0].size, 24u);
  EXPECT_EQ(pack->info().params[1].offset, 24u);
  EXPECT_EQ(pack->info().params[2].offset, 32u);
  const DeviceAddress out = Allocate(4);
  struct View {
    signed char tag = -3;
    char pad[7] = {};
    DeviceAddress p = 0;
    std::int16_t s = 1000;
    char pad2[6] = {};
  } view;
  view.p = out;
  std::vector<std::byte> params(40);
  std::memcpy(params.data(), &view, sizeof(view));
  params[24] = std::byte{20};
  const std::uint64_t last = 5;
  std::memcpy(&params[32], &last, 8);
  DeviceStream* stream = Stream();
  Run(stream, pack, params);
  // The block is copied before the call returns.
  params.assign(40, std::byte{0});
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(ReadWord(out), 1022u);
}

TEST_F(DeviceTest, DynamicSharedMemoryUpToTheOptInLimit) {
  DeviceFunction* reverse = Load(kArguments)->FindFunction("reverse");
  ASSERT_NE(reverse, nullptr);
  const std::uint32_t n = 1024 * 3;
  const DeviceAddress data = Allocate(n * 4);
  std::vector<std::uint32_t> values(n);
  for (std::uint32_t i = 0; i < n; ++i) values[i] = i;
  Write(data, values);
  DeviceStream* stream = Stream();
  LaunchConfig config = Threads(1024, 3);
  config.dynamic_shared_bytes = 4096;
  Run(stream, reverse, Params(data), 0, config);
  ASSERT_EQ(Await(stream), 0);
  const auto got = Read<std::uint32_t>(data, n);
  for (std::uint32_t i = 0; i < n; ++i) {
    ASSERT_EQ(got[i], i / 1024 * 1024 + 1023 - i % 1024);
  }
  EXPECT_EQ(Attribute(reverse, kSharedSize), 0);
  EXPECT_EQ(Attribute(reverse, kMaxDynamicShared), 48 << 10);
  config.dynamic_shared_bytes = 48 << 10;
  EXPECT_EQ(stream->Launch(reverse, config, Params(data), 0), 0);
  config.dynamic_shared_bytes += 4;
  EXPECT_EQ(stream->Launch(reverse, config, Params(data), 1001),
            harness_->errors().invalid_value);
  EXPECT_EQ(reverse->SetAttribute(kMaxDynamicShared, 1 << 20),
            harness_->errors().invalid_value);
  ASSERT_EQ(reverse->SetAttribute(kMaxDynamicShared, 64 << 10), 0);
  EXPECT_EQ(Attribute(reverse, kMaxDynamicShared), 64 << 10);
  EXPECT_EQ(stream->Launch(reverse, config, Params(data), 0), 0);
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(sink_.Times(1001), 0);
  // Read-only and unknown ones.
  EXPECT_NE(reverse->SetAttribute(kMaxThreads, 5), 0);
  EXPECT_NE(reverse->SetAttribute(12345, 5), 0);
}

TEST_F(DeviceTest, LaunchChecksAreReportedAtTheCallAndDoNotStick) {
  DeviceStream* stream = Stream();
  DeviceFunction* empty = Basic("empty");
  const DeviceError invalid = harness_->errors().invalid_value;
  const auto launch = [&](std::array<std::uint32_t, 3> grid,
                          std::array<std::uint32_t, 3> block) {
    LaunchConfig config;
    config.grid = grid;
    config.block = block;
    return stream->Launch(empty, config, {}, 1001);
  };
  EXPECT_EQ(launch({1, 1, 1}, {1025, 1, 1}), invalid);
  EXPECT_EQ(launch({1, 1, 1}, {32, 33, 1}), invalid);
  EXPECT_EQ(launch({1, 1, 1}, {1, 1, 65}), invalid);
  EXPECT_EQ(launch({1, 1, 1}, {0, 1, 1}), invalid);
  EXPECT_EQ(launch({0, 1, 1}, {1, 1, 1}), invalid);
  EXPECT_EQ(launch({1, 65536, 1}, {1, 1, 1}), invalid);
  EXPECT_EQ(launch({1, 1, 65536}, {1, 1, 1}), invalid);
  EXPECT_EQ(launch({0x80000000u, 1, 1}, {1, 1, 1}), invalid);
  EXPECT_NE(stream->Launch(Basic("bounded"), Threads(65), {}, 1001), 0);
  EXPECT_EQ(stream->Launch(Basic("bounded"), Threads(64), {}, 0), 0);
  EXPECT_EQ(launch({3, 2, 2}, {8, 4, 2}), 0);
  EXPECT_EQ(sink_.Await(1001), 0);
  EXPECT_EQ(sink_.Times(1001), 1);
  EXPECT_EQ(context_->sticky_error(), 0);
}

TEST_F(DeviceTest, StrayStoreIsAStickyFaultOfItsContextAlone) {
  Sink other_sink;
  auto other = device_->CreateContext(0, &other_sink);
  ASSERT_TRUE(other.ok());
  const DeviceError illegal = harness_->errors().illegal_address;
  DeviceStream* stream = Stream();
  DeviceStream* bystander = Stream();
  const DeviceAddress data = Allocate(4);
  DeviceEvent* before = Event();
  bystander->RecordEvent(before, 0);
  ASSERT_EQ(Await(bystander), 0);
  Run(bystander, Basic("endless"), {}, 1001);
  Run(stream, Basic("poke"), Params(std::uint64_t{64}, std::uint32_t{1}), 1002);
  Affine(stream, data, 1, 1, 5, 1003);
  EXPECT_EQ(sink_.Await(1002), illegal);
  EXPECT_EQ(sink_.Await(1003), illegal);
  EXPECT_EQ(sink_.Await(1001), illegal);
  EXPECT_EQ(context_->sticky_error(), illegal);
  EXPECT_EQ(stream->Query(), illegal);
  EXPECT_EQ(before->Query(), illegal);
  bystander->Notify(1004);
  EXPECT_EQ(sink_.Await(1004), illegal);
  EXPECT_EQ(AwaitIdle(), illegal);
  EXPECT_EQ(ReadWord(data), 0u);  // was not run
  EXPECT_EQ((*other)->sticky_error(), 0);
  (*other)->default_stream()->Fill(data, 3, 4, 1, 1, 0, 1);
  EXPECT_EQ(other_sink.Await(1), 0);
  EXPECT_EQ(ReadWord(data), 3u);
}

TEST_F(DeviceTest, AccessPastAnAllocationFaults) {
  const DeviceAddress data = Allocate(1000);  // 1024 with rounding
  DeviceStream* stream = Stream();
  Run(stream, Basic("poke"), Params(data + 1020, std::uint32_t{1}));
  ASSERT_EQ(Await(stream), 0);
  const std::uint64_t past =
      harness_->exact_bounds() ? 1024 : Device::kMapGranularity;
  Run(stream, Basic("poke"), Params(data + past, std::uint32_t{1}));
  EXPECT_EQ(Await(stream), harness_->errors().illegal_address);
}

TEST_F(DeviceTest, TrapIsAStickyFault) {
  DeviceStream* stream = Stream();
  Run(stream, Basic("trapped"), {});
  const DeviceError error = Await(stream);
  EXPECT_GT(error, 0);
  EXPECT_EQ(context_->sticky_error(), error);
}

TEST_F(DeviceTest, CancelEndsAnEndlessKernel) {
  DeviceStream* stream = Stream();
  const DeviceAddress data = Allocate(4);
  Run(stream, Basic("endless"), {}, 1001, Threads(64, 4));
  Affine(stream, data, 1, 1, 1, 1002);
  context_->default_stream()->Notify(1003);
  std::thread([this] { context_->Cancel(); }).join();
  EXPECT_GT(sink_.Await(1001), 0);
  EXPECT_GT(sink_.Await(1002), 0);
  EXPECT_GT(sink_.Await(1003), -1);
  EXPECT_GT(context_->sticky_error(), 0);
  EXPECT_EQ(ReadWord(data), 0u);
}

TEST_F(DeviceTest, DestroyingAContextEndsItsWorkAndReportsIt) {
  Sink sink;
  auto context = device_->CreateContext(0, &sink);
  ASSERT_TRUE(context.ok());
  {
    std::string image(kBasic);
    DeviceError error = 0;
    auto module =
        (*context)->LoadModule(std::as_bytes(std::span(image)), this, &error);
    ASSERT_TRUE(module.ok());
    auto stream = (*context)->CreateStream(kStreamDefault, 0);
    ASSERT_TRUE(stream.ok());
    Run(stream->get(), (*module)->FindFunction("endless"), {}, 1);
    (*stream)->Notify(2);
    (*context)->default_stream()->Notify(3);
    (*context)->NotifyIdle(4);
  }
  context->reset();
  for (std::uint64_t token = 1; token <= 4; ++token) {
    EXPECT_EQ(sink.Times(token), 1) << token;
  }
  // The device goes on.
  const DeviceAddress data = Allocate(4);
  Affine(Stream(), data, 1, 1, 2);
  ASSERT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(ReadWord(data), 2u);
}

TEST_F(DeviceTest, PrintsWhatKernelsPrint) {
  DeviceFunction* say = Load(kPrinting)->FindFunction("say");
  ASSERT_NE(say, nullptr);
  DeviceStream* stream = Stream();
  Run(stream, say, {}, 0, Threads(2));
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(sink_.Output(), "hello from the device\nhello from the device\n");
}

TEST_F(DeviceTest, LargeGridsRunEveryThreadOnce) {
  const std::uint32_t n = 300000;
  const DeviceAddress data = Allocate(n * 4);
  DeviceStream* stream = Stream();
  Affine(stream, data, n, 1, 1);
  Affine(stream, data, n, 1, 1);
  ASSERT_EQ(Await(stream), 0);
  for (const std::uint32_t value : Read<std::uint32_t>(data, n)) {
    ASSERT_EQ(value, 2u);
  }
}

}  // namespace
}  // namespace pos::conformance
