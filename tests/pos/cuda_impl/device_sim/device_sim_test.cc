// What the simulated device reports and which code images it takes; running
// kernels is tested by tests/conformance/device.
#include <cuda.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "pos/base/files.h"
#include "pos/cuda_impl/device_sim/attributes.h"
#include "pos/cuda_impl/device_sim/code_image.h"
#include "pos/cuda_impl/device_sim/function.h"
#include "pos/cuda_impl/device_sim/sim_device.h"

namespace pos::sim {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

std::map<std::int32_t, std::int32_t> Attributes(const SimOptions& options) {
  const DeviceInfo info = SimDeviceInfo(options);
  return {info.attributes.begin(), info.attributes.end()};
}

std::string Sample(const std::string& name) {
  auto file = ReadWholeFile(std::string(POS_FATBIN_DATA) + "/" + name);
  EXPECT_TRUE(file.ok()) << name;
  return file.ok() ? *file : std::string();
}

TEST(SimDeviceInfo, IsAnH200ByLimitsAndHonestByName) {
  const auto values = Attributes({});
  EXPECT_EQ(values.at(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR), 9);
  EXPECT_EQ(values.at(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR), 0);
  EXPECT_EQ(values.at(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT), 132);
  EXPECT_EQ(values.at(CU_DEVICE_ATTRIBUTE_WARP_SIZE), 32);
  EXPECT_EQ(values.at(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 1024);
  EXPECT_EQ(values.at(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
            227 * 1024);
  EXPECT_EQ(values.at(CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT), 2);
  EXPECT_EQ(SimDeviceInfo({}).name, "POS Simulated Device");
  EXPECT_EQ(SimDeviceInfo({}).kind, "sim");
}

TEST(SimDeviceInfo, AnswersEveryAttributeThatExists) {
  const auto values = Attributes({});
  for (int i = 1; i < CU_DEVICE_ATTRIBUTE_MAX; ++i) {
    EXPECT_EQ(values.count(i), 1u) << i;
  }
}

TEST(SimDeviceInfo, TellsOrdinalsApartAndIsStable) {
  std::set<std::array<std::byte, 16>> uuids;
  std::set<std::int32_t> buses;
  for (int ordinal = 0; ordinal < 300; ++ordinal) {
    SimOptions options;
    options.ordinal = ordinal;
    uuids.insert(SimDeviceInfo(options).uuid);
    buses.insert(Attributes(options).at(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID));
    EXPECT_EQ(SimDeviceInfo(options).uuid, SimDeviceInfo(options).uuid);
  }
  EXPECT_EQ(uuids.size(), 300u);
  EXPECT_EQ(buses.size(), 300u);
}

TEST(SimDeviceInfo, TakesAnotherComputeCapability) {
  SimOptions options;
  options.compute_capability = 86;
  const auto values = Attributes(options);
  EXPECT_EQ(values.at(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR), 8);
  EXPECT_EQ(values.at(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR), 6);
}

// Values of NVIDIA's occupancy table for compute capability 9.0.
TEST(ResidentBlocks, FollowsThreadsRegistersAndSharedMemory) {
  EXPECT_EQ(ResidentBlocks(1024, 0, 0), 2u);
  EXPECT_EQ(ResidentBlocks(256, 32, 0), 8u);
  EXPECT_EQ(ResidentBlocks(32, 0, 0), 32u);
  EXPECT_EQ(ResidentBlocks(33, 0, 0), 32u);
  EXPECT_EQ(ResidentBlocks(128, 255, 0), 2u);
  EXPECT_EQ(ResidentBlocks(256, 64, 0), 4u);
  EXPECT_EQ(ResidentBlocks(128, 0, 48 << 10), 4u);
  EXPECT_EQ(ResidentBlocks(128, 0, 227 << 10), 1u);
}

TEST(SimDevice, RefusesOptionsThatMakeNoSense) {
  SimOptions options;
  options.arena_base = 0x0f0000000000;  // where shared memory's window is
  options.arena_bytes = 1ull << 40;
  EXPECT_EQ(NewSimDevice(options).status().code(), Code::kInvalid);
  options = {};
  options.copy_engines = 0;
  EXPECT_EQ(NewSimDevice(options).status().code(), Code::kInvalid);
  options = {};
  options.compute_capability = 9;
  EXPECT_EQ(NewSimDevice(options).status().code(), Code::kInvalid);
  options = {};
  options.arena_base += 4096;
  EXPECT_EQ(NewSimDevice(options).status().code(), Code::kInvalid);
}

TEST(CodeImageCache, ParsesOneImageOnce) {
  CodeImageCache cache(90);
  const std::string image = Sample("zstd.fatbin");
  DeviceError error = -1;
  const auto first = cache.Get(std::as_bytes(std::span(image)), &error);
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_EQ(error, 0);
  ASSERT_THAT((*first)->units, SizeIs(1));
  EXPECT_FALSE((*first)->uses_heap);
  const std::string copy = image;
  const auto again = cache.Get(std::as_bytes(std::span(copy)), &error);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*first, *again);
}

TEST(CodeImageCache, LoadsAtTheSameAddressesShareTheirCode) {
  CodeImageCache cache(90);
  const std::string image =
      ".version 8.0\n.target sm_80\n.address_size 64\n"
      ".global .u32 word;\n"
      ".visible .entry k() {\n.reg .b32 %r;\n"
      "ld.global.u32 %r, [word];\nst.global.u32 [word], %r;\nret;\n}\n";
  DeviceError error = 0;
  const auto code = cache.Get(std::as_bytes(std::span(image)), &error);
  ASSERT_TRUE(code.ok()) << code.status().ToString();
  const auto first = (*code)->Load(0, {0x1000});
  const auto kernel = first->GetKernel("k");
  ASSERT_TRUE(kernel.ok()) << kernel.status().ToString();
  EXPECT_EQ((*code)->Load(0, {0x1000}), first);
  const auto elsewhere = (*code)->Load(0, {0x2000});
  EXPECT_NE(elsewhere, first) << "its code has other addresses";
  EXPECT_NE(*elsewhere->GetKernel("k"), *kernel);
  // However often it is loaded elsewhere, little is kept.
  const std::weak_ptr<ptx::LoadedModule> dropped = (*code)->Load(0, {0x3000});
  for (std::uint64_t at = 1; at <= 100; ++at) (*code)->Load(0, {at << 20});
  EXPECT_TRUE(dropped.expired());
}

TEST(CodeImageCache, GivesTheErrorsOfTheDriver) {
  CodeImageCache cache(90);
  const std::map<std::string, DeviceError> want = {
      {Sample("newer.fatbin"), CUDA_ERROR_NO_BINARY_FOR_GPU},
      {Sample("sm75.cubin"), CUDA_ERROR_NO_BINARY_FOR_GPU},
      {Sample("zstd.fatbin").substr(0, 1000), CUDA_ERROR_INVALID_IMAGE},
      {"hello", CUDA_ERROR_INVALID_IMAGE},
      {".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry",
       CUDA_ERROR_INVALID_PTX},
  };
  for (const auto& [image, code] : want) {
    DeviceError error = 0;
    EXPECT_FALSE(cache.Get(std::as_bytes(std::span(image)), &error).ok());
    EXPECT_EQ(error, code) << image.substr(0, 20);
  }
}

TEST(CodeImageCache, SeesDeviceSideMalloc) {
  CodeImageCache cache(90);
  const std::string head = ".version 8.0\n.target sm_80\n.address_size 64\n";
  const std::string image =
      head +
      ".extern .func (.param .b64 r) malloc(.param .b64 bytes);\n"
      ".visible .entry k() { ret; }\n";
  DeviceError error = 0;
  const auto code = cache.Get(std::as_bytes(std::span(image)), &error);
  ASSERT_TRUE(code.ok()) << code.status().ToString();
  EXPECT_TRUE((*code)->uses_heap);
}

TEST(CodeImageCache, ListsKernelsThatHaveNoPtx) {
  CodeImageCache cache(90);
  const std::string image = Sample("sm90.cubin");
  DeviceError error = 0;
  const auto code = cache.Get(std::as_bytes(std::span(image)), &error);
  ASSERT_TRUE(code.ok()) << code.status().ToString();
  ASSERT_THAT((*code)->cubin_kernels, SizeIs(7));
  SimFunction function((*code)->cubin_kernels[0], 90);
  EXPECT_EQ(function.info().launch_error, CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_THAT(function.info().launch_error_text, HasSubstr("needs PTX"));
  EXPECT_EQ(function.CheckLaunch({}, {}), CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_FALSE(function.info().params.empty() &&
               function.info().params_bytes != 0);
}

}  // namespace
}  // namespace pos::sim
