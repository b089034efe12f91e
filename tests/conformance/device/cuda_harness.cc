// The conformance suite's cuda device. Without a GPU its driver is POS's own
// client library, whose session is on a simulated device in another process.
// POS_CONFORMANCE_DRIVER in the environment names a GPU's driver instead
// ("default": libcuda.so.1 as the loader finds it); there is no other process
// then.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/cuda_impl/device_cuda/cuda_device.h"
#include "tests/conformance/device/harness.h"
#include "tests/conformance/device/nested_layout.h"

namespace pos::conformance {
namespace {

// A file by its place relative to this program's: in a build tree and in a
// bundle it is the same.
std::string Beside(const std::string& relative) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() /
         relative;
}

// The inner process: one for all tests, since a client attaches once.
class Inner {
 public:
  static void Start() { static const Inner inner; }

 private:
  Inner() : path_("/tmp/pos-nested-" + std::to_string(::getpid()) + ".sock") {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    const UniqueFd out(ends[0]);
    {
      const UniqueFd in(ends[1]);
      posix_spawn_file_actions_t actions;
      ::posix_spawn_file_actions_init(&actions);
      ::posix_spawn_file_actions_adddup2(&actions, in.get(), 1);
      std::string runner = Beside("nested_runner");
      std::array<char*, 3> argv = {runner.data(), path_.data(), nullptr};
      EXPECT_EQ(::posix_spawn(&pid_, runner.c_str(), &actions, nullptr,
                              argv.data(), environ),
                0);
      ::posix_spawn_file_actions_destroy(&actions);
    }
    char c = 0;
    EXPECT_EQ(::read(out.get(), &c, 1), 1) << "the inner runner does not start";
    ::setenv("POS_ATTACH", path_.c_str(), 1);
  }
  ~Inner() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    ::unlink(path_.c_str());
  }
  std::string path_;
  pid_t pid_ = -1;
};

class CudaHarness : public Harness {
 public:
  CudaHarness() {
    cuda_device::CudaOptions options;
    const char* driver = std::getenv("POS_CONFORMANCE_DRIVER");
    if (driver != nullptr) {
      const std::string library = driver;
      options.driver_library = library == "default" ? "" : library;
    } else {
      Inner::Start();
      const SessionOptions inner = NestedOptions();
      options.driver_library = Beside("../lib/pos/libcuda.so.1");
      // Between the two: something that fails on purpose.
      if (const char* between = std::getenv("POS_CONFORMANCE_BETWEEN")) {
        ::setenv("POS_FAULTY_REAL", options.driver_library.c_str(), 1);
        options.driver_library = between;
      }
      options.arena_base = inner.layout.PartBase(0);
      options.arena_bytes = inner.layout.BlockBytes();
    }
    next_ = options.arena_base;
    end_ = next_ + options.arena_bytes;
    auto device = cuda_device::NewCudaDevice(options);
    EXPECT_TRUE(device.ok()) << device.status().ToString();
    if (device.ok()) device_ = *std::move(device);
    if (driver != nullptr && device_ != nullptr) {
      memory_bytes_ = device_->info().memory_bytes / Device::kMapGranularity *
                      Device::kMapGranularity;
    }
  }
  ~CudaHarness() override {
    device_.reset();
    for (const auto& [memory, bytes] : host_) ::munmap(memory, bytes);
  }

  Device* device() override { return device_.get(); }
  DeviceAddress ReserveAddresses(std::uint64_t bytes) override {
    const DeviceAddress address = next_;
    constexpr std::uint64_t kGranule = Device::kMapGranularity;
    next_ += (bytes + kGranule - 1) / kGranule * kGranule;
    EXPECT_LE(next_, end_);
    return address;
  }
  // A file's memory, as pinned memory of sessions is; the driver can be given
  // it.
  void* HostMemory(std::size_t bytes) override {
    files_.emplace_back(::memfd_create("pos-conformance", MFD_CLOEXEC));
    EXPECT_EQ(::ftruncate(files_.back().get(), static_cast<off_t>(bytes)), 0);
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                          files_.back().get(), 0);
    EXPECT_NE(memory, MAP_FAILED);
    host_.emplace_back(memory, bytes);
    return memory;
  }
  std::uint64_t memory_bytes() override { return memory_bytes_; }
  bool exact_bounds() override { return false; }

 private:
  std::unique_ptr<Device> device_;
  DeviceAddress next_ = 0;
  DeviceAddress end_ = 0;
  std::uint64_t memory_bytes_ = kNestedMemoryBytes;
  std::vector<UniqueFd> files_;
  std::vector<std::pair<void*, std::size_t>> host_;
};

}  // namespace

std::unique_ptr<Harness> NewHarness() {
  return std::make_unique<CudaHarness>();
}

}  // namespace pos::conformance
