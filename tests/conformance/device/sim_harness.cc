// The conformance suite's simulated device.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <vector>

#include "pos/cuda_impl/device_sim/sim_device.h"
#include "tests/conformance/device/harness.h"

namespace pos::conformance {
namespace {

// Under ThreadSanitizer only such addresses are free for a fixed mapping.
constexpr std::uint64_t kBase = 0x7e8000000000;
constexpr std::uint64_t kArenaBytes = 8ull << 30;
constexpr std::uint64_t kMemoryBytes = 1ull << 30;

class SimHarness : public Harness {
 public:
  SimHarness() {
    void* got = ::mmap(
        reinterpret_cast<void*>(kBase), kArenaBytes, PROT_NONE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
        0);
    EXPECT_EQ(got, reinterpret_cast<void*>(kBase));
    sim::SimOptions options;
    options.memory_bytes = kMemoryBytes;
    options.arena_base = kBase;
    options.arena_bytes = kArenaBytes;
    auto device = sim::NewSimDevice(options);
    EXPECT_TRUE(device.ok()) << device.status().ToString();
    device_ = *std::move(device);
  }
  ~SimHarness() override {
    device_.reset();
    for (const auto& [memory, bytes] : host_) ::munmap(memory, bytes);
    ::munmap(reinterpret_cast<void*>(kBase), kArenaBytes);
  }

  Device* device() override { return device_.get(); }
  DeviceAddress ReserveAddresses(std::uint64_t bytes) override {
    const DeviceAddress address = next_;
    constexpr std::uint64_t kGranule = Device::kMapGranularity;
    next_ += (bytes + kGranule - 1) / kGranule * kGranule;
    EXPECT_LE(next_, kBase + kArenaBytes);
    return address;
  }
  void* HostMemory(std::size_t bytes) override {
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    host_.emplace_back(memory, bytes);
    return memory;
  }
  std::uint64_t memory_bytes() override { return kMemoryBytes; }
  bool exact_bounds() override { return true; }

 private:
  std::unique_ptr<Device> device_;
  DeviceAddress next_ = kBase;
  std::vector<std::pair<void*, std::size_t>> host_;
};

}  // namespace

std::unique_ptr<Harness> NewHarness() { return std::make_unique<SimHarness>(); }

}  // namespace pos::conformance
