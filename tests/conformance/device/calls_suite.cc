// What the other parts leave out: forms of code images, ways to launch, limits,
// memory without an address. Each function that the cuda device calls of its
// driver is named by a case of the suite (driver_calls.tsv); a test checks
// that.
#include <algorithm>

#include "tests/conformance/device/fixture.h"

// The files of the fatbin library's tests, inside this binary: the suite runs
// on machines that have no source tree.
#define POS_EMBED(name, file)                                                \
  asm(".pushsection .rodata\n.balign 16\n"                                   \
      ".global " #name "\n.global " #name "_end\n" #name ": .incbin \"" file \
      "\"\n" #name                                                           \
      "_end: .byte 0\n"                                                      \
      ".popsection\n");                                                      \
  extern "C" const std::byte name[];                                         \
  extern "C" const std::byte name##_end[];
POS_EMBED(pos_plain_fatbin, POS_FATBIN_DATA "/plain.fatbin")
POS_EMBED(pos_zstd_fatbin, POS_FATBIN_DATA "/zstd.fatbin")
POS_EMBED(pos_sm90_cubin, POS_FATBIN_DATA "/sm90.cubin")

namespace pos::conformance {
namespace {

std::vector<std::byte> Bytes(const std::byte* begin, const std::byte* end) {
  return {begin, end};
}
std::vector<std::byte> Plain() {
  return Bytes(pos_plain_fatbin, pos_plain_fatbin_end);
}
std::vector<std::byte> Zstd() {
  return Bytes(pos_zstd_fatbin, pos_zstd_fatbin_end);
}
std::vector<std::byte> Cubin() {
  return Bytes(pos_sm90_cubin, pos_sm90_cubin_end);
}

class CallsTest : public DeviceTest {
 protected:
  std::unique_ptr<DeviceModule> LoadImage(const std::vector<std::byte>& image) {
    DeviceError error = -1;
    auto module = context_->LoadModule(image, this, &error);
    EXPECT_TRUE(module.ok()) << module.status().ToString();
    EXPECT_EQ(error, 0);
    return module.ok() ? *std::move(module) : nullptr;
  }
  // mixed(char, short, long long, float3, {char; double*; short}, int*).
  static void CheckMixed(DeviceModule* module) {
    ASSERT_NE(module, nullptr);
    EXPECT_THAT(module->FunctionNames(),
                testing::Contains("_Z5mixedcsx6float31SPi"));
    DeviceFunction* const mixed =
        module->FindFunction("_Z5mixedcsx6float31SPi");
    ASSERT_NE(mixed, nullptr);
    const FunctionInfo& info = mixed->info();
    const std::vector<std::pair<unsigned, unsigned>> want = {
        {0, 1}, {2, 2}, {8, 8}, {16, 12}, {32, 24}, {56, 8}};
    std::vector<std::pair<unsigned, unsigned>> got;
    for (const ParamInfo& param : info.params) {
      got.emplace_back(param.offset, param.size);
    }
    EXPECT_EQ(got, want);
    EXPECT_EQ(info.params_bytes, 64u);
  }
  void AddVectors(DeviceModule* module) {
    DeviceFunction* const add = module->FindFunction("_Z4vaddPKfS0_Pfi");
    ASSERT_NE(add, nullptr);
    const DeviceAddress a = Allocate(4096);
    const DeviceAddress c = Allocate(4096);
    Write(a, std::vector<float>(100, 1.5f));
    Run(Stream(), add, Params(a, a, c, 100), 0, Threads(128));
    ASSERT_EQ(AwaitIdle(), 0);
    EXPECT_EQ(Read<float>(c, 100), std::vector<float>(100, 3.0f));
  }
};

TEST_F(CallsTest, LoadsFatBinaries) {
  for (const auto& image : {Plain(), Zstd()}) {
    const auto module = LoadImage(image);
    CheckMixed(module.get());
    if (module != nullptr) AddVectors(module.get());
  }
}

// Without PTX: what it takes depends on the device, what it says does not.
TEST_F(CallsTest, MachineCodeAloneTellsOfItsKernels) {
  const auto module = LoadImage(Cubin());
  CheckMixed(module.get());
  if (module == nullptr || device_->info().kind == "cuda") return;
  DeviceFunction* const none = module->FindFunction("_Z8noparamsv");
  ASSERT_NE(none, nullptr);
  EXPECT_EQ(none->info().launch_error, harness_->errors().no_binary);
  EXPECT_EQ(Stream()->Launch(none, Threads(1), {}, 0),
            harness_->errors().no_binary);
}

TEST_F(CallsTest, CooperativeLaunchesRun) {
  const DeviceAddress data = Allocate(4096);
  Write(data, std::vector<std::uint32_t>(1024, 1));
  DeviceStream* const stream = Stream();
  LaunchConfig config = Threads(128, 8);
  config.cooperative = true;
  Run(stream, Basic("affine"), Params(data, 1024u, 2u, 3u), 0, config);
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(Read<std::uint32_t>(data, 1024),
            std::vector<std::uint32_t>(1024, 5));
}

TEST_F(CallsTest, LaunchesTakeHints) {
  const DeviceAddress data = Allocate(4096);
  Write(data, std::vector<std::uint32_t>(1024, 1));
  DeviceStream* const stream = Stream();
  LaunchConfig config = Threads(128, 8);
  config.priority = -1;
  config.cluster_policy = 1;
  config.programmatic = true;
  config.cluster = {1, 1, 1};
  Run(stream, Basic("affine"), Params(data, 1024u, 2u, 3u), 0, config);
  Run(stream, Basic("affine"), Params(data, 1024u, 2u, 3u), 0, config);
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(Read<std::uint32_t>(data, 1024),
            std::vector<std::uint32_t>(1024, 13));
}

TEST_F(CallsTest, ClustersAreRefusedWhereThereAreNone) {
  bool clusters = false;
  for (const auto& [attribute, value] : device_->info().attributes) {
    clusters = clusters || (attribute == 120 && value != 0);  // CLUSTER_LAUNCH
  }
  const DeviceAddress data = Allocate(4096);
  LaunchConfig config = Threads(128, 8);
  config.cluster = {2, 1, 1};
  DeviceStream* const stream = Stream();
  const DeviceError result =
      stream->Launch(Basic("affine"), config, Params(data, 1024u, 2u, 3u), 0);
  constexpr DeviceError kNotSupported = 801;
  EXPECT_EQ(result, clusters ? 0 : kNotSupported);
  EXPECT_EQ(Await(stream), 0);
}

TEST_F(CallsTest, LimitsAreObeyedAndTold) {
  std::uint64_t now = 0;
  EXPECT_EQ(context_->SetLimit(DeviceLimit::kStackBytes, 4096, nullptr, &now),
            0);
  EXPECT_GE(now, 4096u);
  EXPECT_EQ(
      context_->SetLimit(DeviceLimit::kOutputBytes, 2 << 20, nullptr, &now), 0);
  EXPECT_GE(now, 2u << 20);
}

TEST_F(CallsTest, MemoryKeepsItsContentBetweenMappings) {
  constexpr std::uint64_t kBytes = 2 * Device::kMapGranularity;
  const DeviceAddress first = harness_->ReserveAddresses(kBytes);
  const DeviceAddress second = harness_->ReserveAddresses(kBytes);
  auto physical = device_->CreatePhysical(kBytes);
  ASSERT_TRUE(physical.ok()) << physical.status().ToString();
  EXPECT_EQ((*physical)->bytes(), kBytes);
  ASSERT_TRUE(device_->MapPhysical(first, *physical).ok());
  device_->AddAllocation(first, kBytes);
  EXPECT_EQ(ReadWord(first + kBytes - 4), 0u);
  Affine(Stream(), first, 1000, 1, 7);
  ASSERT_EQ(AwaitIdle(), 0);
  // At both at once: one memory.
  ASSERT_TRUE(device_->MapPhysical(second, *physical).ok());
  device_->AddAllocation(second, kBytes);
  EXPECT_EQ(ReadWord(second + 999 * 4), 7u);
  Affine(Stream(), second, 1000, 3, 1);
  ASSERT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(ReadWord(first), 22u);
  device_->RemoveAllocation(first);
  EXPECT_TRUE(device_->Unmap(first, kBytes).ok());
  // Its last mapping keeps it.
  *physical = nullptr;
  EXPECT_EQ(ReadWord(second), 22u);
  device_->RemoveAllocation(second);
  EXPECT_TRUE(device_->Unmap(second, kBytes).ok());
  EXPECT_FALSE(device_->Unmap(second, kBytes).ok());
}

// What is promised and not there yet is nobody else's.
TEST_F(CallsTest, HeadroomCountsWhatIsPromised) {
  const std::uint64_t room = device_->Headroom(0);
  if (room == ~std::uint64_t{0}) return;  // its memory is this service's alone
  constexpr std::uint64_t kBytes = 8 * Device::kMapGranularity;
  EXPECT_GE(room, kBytes);
  EXPECT_LE(device_->Headroom(kBytes), room - kBytes);
  Allocate(kBytes);
  EXPECT_LE(device_->Headroom(0), room - kBytes);
  EXPECT_EQ(device_->Headroom(kBytes), device_->Headroom(0));
}

}  // namespace
}  // namespace pos::conformance
