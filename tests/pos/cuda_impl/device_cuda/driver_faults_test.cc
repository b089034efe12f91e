// What the cuda device makes of a driver that is missing, too old, incomplete,
// or fails at one function: an error that says so, never a crash and never a
// wait without end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <set>
#include <string>
#include <vector>

#include "pos/base/files.h"
#include "pos/base/process.h"
#include "pos/cuda_impl/device_cuda/cuda_device.h"
#include "tests/conformance/device/fixture.h"
#include "tests/conformance/device/nested_layout.h"

namespace pos {
namespace {

using ::testing::HasSubstr;

enum Ends {
  kNoFault = 0,
  kRefused = 10,  // the device did not open
  kFailed = 11,   // it did, and its work failed
  kWrong = 12,    // the work gave something else than it should
};

struct NoPlacer : ModulePlacer {
  Result<DeviceAddress> Place(std::string_view, std::uint64_t,
                              std::uint64_t) override {
    return OutOfMemory("nobody places anything here");
  }
};

// Opens the device and uses all of it; returns how that went.
int UseDevice(const char* library) {
  const SessionOptions inner = conformance::NestedOptions();
  cuda_device::CudaOptions options;
  options.driver_library = library;
  options.arena_base = inner.layout.PartBase(0);
  options.arena_bytes = inner.layout.BlockBytes();
  auto opened = cuda_device::NewCudaDevice(options);
  if (!opened.ok()) {
    std::fprintf(stderr, "refused: %s\n", opened.status().ToString().c_str());
    return opened.status().message().empty() ? kWrong : kRefused;
  }
  Device* const device = opened->get();
  conformance::Sink sink;
  std::uint32_t word = 0;  // written until the context has ended
  const DeviceAddress at = options.arena_base;
  constexpr std::uint64_t kBytes = Device::kMapGranularity;
  bool failed = !device->Map(at, kBytes).ok() || device->FreeBytes() == 0;
  device->AddAllocation(at, kBytes);
  auto context = device->CreateContext(0, &sink);
  if (!context.ok()) return kFailed;
  {
    NoPlacer placer;
    DeviceError error = 0;
    std::string image(conformance::kVariables);
    image += '\0';
    auto module = (*context)->LoadModule(std::as_bytes(std::span(image)),
                                         &placer, &error);
    if (!module.ok()) return kFailed;
    failed = failed || (*module)->FunctionNames().size() != 1;
    DeviceFunction* const step = (*module)->FindFunction("step");
    auto stream = (*context)->CreateStream(kStreamNonBlocking, 0);
    auto second = (*context)->CreateStream(kStreamDefault, 0);
    auto event = (*context)->CreateEvent(0);
    if (step == nullptr || step->info().launch_error != 0 || !stream.ok() ||
        !second.ok() || !event.ok()) {
      return kFailed;
    }
    failed = failed || step->info().params_bytes != 8 ||
             step->info().attributes.empty() ||
             step->SetAttribute(8, 1024) != 0;
    std::uint64_t stack_bytes = 0;
    failed = failed ||
             (*context)->SetLimit(DeviceLimit::kStackBytes, 4096, nullptr,
                                  &stack_bytes) != 0 ||
             stack_bytes != 4096;
    const auto* const params = reinterpret_cast<const std::byte*>(&at);
    failed =
        failed || (*stream)->Launch(step, {}, std::span(params, 8), 1) != 0;
    LaunchConfig together;
    together.cooperative = true;
    failed = failed ||
             (*stream)->Launch(step, together, std::span(params, 8), 2) != 0;
    (*stream)->RecordEvent(event->get(), 3);
    (*second)->WaitEvent(event->get(), 4);
    for (const std::uint32_t width : {1u, 2u, 4u}) {
      (*second)->Fill(at + 4096, 7, width, 4, 1, 0, 4 + width);
      (*second)->Fill(at + 4096, 7, width, 4, 2, 64, 14 + width);
    }
    (*second)->Copy(reinterpret_cast<DeviceAddress>(&word), at, 4, 30);
    if (!failed) {
      for (const std::uint64_t token : {1, 2, 3, 4, 5, 6, 8, 15, 16, 18, 30}) {
        failed = failed || sink.Await(token) != 0;
      }
      failed = failed || !(*event)->TimestampNs() || word != 45;
      std::uint32_t read = 0;
      failed =
          failed ||
          !device->Read(at, std::as_writable_bytes(std::span(&read, 1))).ok() ||
          read != 45 ||
          !device->Write(at, std::as_bytes(std::span(&read, 1))).ok();
    }
  }
  context->reset();
  failed = failed || !device->Unmap(at, kBytes).ok();
  opened->reset();
  return failed ? kFailed : kNoFault;
}

cuda_device::CudaOptions OptionsFor(const char* library) {
  const SessionOptions inner = conformance::NestedOptions();
  cuda_device::CudaOptions options;
  options.driver_library = library;
  options.arena_base = inner.layout.PartBase(0);
  options.arena_bytes = inner.layout.BlockBytes();
  return options;
}

// Layouts of a kernel that is there as machine code alone.
int FindLayout(const char* library) {
  auto opened = cuda_device::NewCudaDevice(OptionsFor(library));
  if (!opened.ok()) return kRefused;
  conformance::Sink sink;
  auto context = (*opened)->CreateContext(0, &sink);
  if (!context.ok()) return kFailed;
  auto image = ReadWholeFile(POS_FATBIN_DATA "/sm90.cubin");
  NoPlacer placer;
  DeviceError error = 0;
  if (!image.ok()) return kFailed;
  auto module =
      (*context)->LoadModule(std::as_bytes(std::span(*image)), &placer, &error);
  if (!module.ok()) return kFailed;
  const DeviceFunction* const mixed =
      (*module)->FindFunction("_Z5mixedcsx6float31SPi");
  if (mixed == nullptr) return kFailed;
  const std::vector<ParamInfo>& params = mixed->info().params;
  const bool right = params.size() == 6 && params[3].offset == 16 &&
                     params[3].size == 12 && params[5].offset == 56 &&
                     mixed->info().params_bytes == 64;
  return right ? kNoFault : kWrong;
}

// A launch with all that it can ask for.
int LaunchWithAttributes(const char* library) {
  auto opened = cuda_device::NewCudaDevice(OptionsFor(library));
  if (!opened.ok()) return kRefused;
  Device* const device = opened->get();
  const DeviceAddress at = OptionsFor(library).arena_base;
  if (!device->Map(at, Device::kMapGranularity).ok()) return kFailed;
  device->AddAllocation(at, Device::kMapGranularity);
  conformance::Sink sink;
  auto context = device->CreateContext(0, &sink);
  if (!context.ok()) return kFailed;
  NoPlacer placer;
  DeviceError error = 0;
  std::string image(conformance::kVariables);
  image += '\0';
  auto module =
      (*context)->LoadModule(std::as_bytes(std::span(image)), &placer, &error);
  if (!module.ok()) return kFailed;
  LaunchConfig config;
  config.grid = {4, 2, 1};
  config.cooperative = true;
  config.cluster = {4, 2, 1};
  config.cluster_policy = 2;
  config.priority = -3;
  config.programmatic = true;
  const auto* const params = reinterpret_cast<const std::byte*>(&at);
  DeviceStream* const stream = (*context)->default_stream();
  if (stream->Launch((*module)->FindFunction("step"), config,
                     std::span(params, 8), 1) != 0) {
    return kFailed;
  }
  return sink.Await(1) == 0 ? kNoFault : kFailed;
}

// The same in a process of its own, with its own inner runner; the wait status.
int InProcess(const std::string& faulty, const char* missing = nullptr,
              int (*use)(const char*) = UseDevice) {
  std::fflush(nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const std::string path =
        "/tmp/pos-faults-" + std::to_string(::getpid()) + ".sock";
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) ::_exit(99);
    const pid_t inner = ::fork();
    if (inner == 0) {
      ::dup2(ends[1], 1);
      ::execl(POS_NESTED_RUNNER, POS_NESTED_RUNNER, path.c_str(), nullptr);
      ::_exit(98);
    }
    char ready = 0;
    if (::read(ends[0], &ready, 1) != 1) ::_exit(97);
    ::setenv("POS_ATTACH", path.c_str(), 1);
    ::setenv("POS_FAULTY_REAL", POS_SHIM_LIBRARY, 1);
    ::setenv("POS_FAULTY_CALL", faulty.c_str(), 1);
    if (missing != nullptr) ::setenv("POS_FAULTY_MISSING", missing, 1);
    const int result = use(POS_FAULTY_DRIVER);
    ::kill(inner, SIGKILL);
    ::waitpid(inner, nullptr, 0);
    ::unlink(path.c_str());
    ::_exit(result);
  }
  Result<UniqueFd> handle = OpenPidFd(pid);
  EXPECT_TRUE(handle.ok());
  if (!WaitPidFd(handle->get(), 30000)) {
    ADD_FAILURE() << "it hangs when " << faulty << " fails";
    ::kill(pid, SIGKILL);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return status;
}

std::vector<std::string> Calls() {
  return {
#define POS_DRIVER(member, symbol, version, need) #symbol,
#include "pos/cuda_impl/device_cuda/driver.def"
#undef POS_DRIVER
  };
}

// What is called only when things end, or where nothing depends on it.
const std::set<std::string> kQuiet = {
    "cuGetErrorName", "cuGetErrorString", "cuDevicePrimaryCtxRelease",
    "cuCtxDestroy", "cuStreamDestroy", "cuEventDestroy", "cuMemAddressFree",
    "cuMemRelease", "cuMemFreeHost", "cuModuleUnload", "cuMemHostUnregister",
    // Not used on memory that is not shared.
    "cuMemHostRegister", "cuMemHostGetDevicePointer"};

TEST(DriverFaults, SoundDriverIsUsed) {
  const int status = InProcess("none");
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), kNoFault);
}

TEST(DriverFaults, EachFunctionMayFail) {
  for (const std::string& call : Calls()) {
    SCOPED_TRACE(call);
    const int status = InProcess(call);
    ASSERT_TRUE(WIFEXITED(status)) << "ended by signal " << WTERMSIG(status);
    if (kQuiet.contains(call)) continue;
    EXPECT_THAT(WEXITSTATUS(status), testing::AnyOf(kRefused, kFailed));
  }
}

TEST(DriverFaults, LayoutsComeFromTheCubinWhereTheDriverDoesNotTell) {
  EXPECT_EQ(WEXITSTATUS(InProcess("none", nullptr, FindLayout)), kNoFault);
  EXPECT_EQ(WEXITSTATUS(InProcess("none", "cuFuncGetParamInfo", FindLayout)),
            kNoFault);
}

TEST(DriverFaults, LaunchAttributesReachTheDriver) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(WEXITSTATUS(InProcess("tell", nullptr, LaunchWithAttributes)),
            kNoFault);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("cooperative 1\ncluster 4 2 1\npolicy 2\n"
                        "priority -3\nprogrammatic 1\n"));
}

TEST(DriverFaults, MissingOldAndIncompleteDriversAreRefused) {
  auto opened = cuda_device::NewCudaDevice({.driver_library = "/no/such/file"});
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.status().code(), Code::kNoSuch);
  EXPECT_THAT(opened.status().message(), HasSubstr("/no/such/file"));
  EXPECT_EQ(WEXITSTATUS(InProcess("old")), kRefused);
  EXPECT_EQ(WEXITSTATUS(InProcess("none", "cuMemAddressReserve")), kRefused);
  // May be missing.
  EXPECT_EQ(WEXITSTATUS(InProcess("none", "cuFuncGetParamInfo")), kFailed);
}

}  // namespace
}  // namespace pos
