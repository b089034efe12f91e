#include "pos/cuda_impl/device_cuda/cuda_device.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "pos/base/clock.h"
#include "pos/cuda_impl/device_cuda/context.h"
#include "pos/cuda_impl/device_cuda/core.h"
#include "pos/cuda_impl/device_cuda/digester.h"
#include "pos/cuda_impl/device_cuda/driver.h"
#include "pos/cuda_impl/device_cuda/memory.h"
#include "pos/cuda_impl/device_cuda/pinned_pool.h"

namespace pos::cuda_device {
namespace {

// Contexts' keys are counted from 1; primary contexts have theirs from the top.
constexpr std::uint64_t kPrimaryKey = std::uint64_t{1} << 63;

Result<DeviceInfo> ReadInfo(const Driver& driver, CUdevice device) {
  DeviceInfo info;
  info.kind = "cuda";
  std::array<char, 256> name{};
  POS_RETURN_IF_ERROR(
      driver.Check(driver.DeviceGetName(name.data(), name.size() - 1, device),
                   "cuDeviceGetName"));
  info.name = name.data();
  CUuuid uuid{};
  POS_RETURN_IF_ERROR(
      driver.Check(driver.DeviceGetUuid(&uuid, device), "cuDeviceGetUuid"));
  std::memcpy(info.uuid.data(), uuid.bytes, info.uuid.size());
  std::size_t memory = 0;
  POS_RETURN_IF_ERROR(
      driver.Check(driver.DeviceTotalMem(&memory, device), "cuDeviceTotalMem"));
  info.memory_bytes = memory;
  int value = 0;
  POS_RETURN_IF_ERROR(driver.Check(
      driver.DeviceGetAttribute(
          &value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device),
      "cuDeviceGetAttribute"));
  for (int i = 1; i < CU_DEVICE_ATTRIBUTE_MAX; ++i) {
    // An older driver does not know all.
    if (driver.DeviceGetAttribute(&value, static_cast<CUdevice_attribute>(i),
                                  device) == CUDA_SUCCESS) {
      info.attributes.emplace_back(i, value);
    }
  }
  return info;
}

class CudaDevice : public Device {
 public:
  CudaDevice(const Driver& driver, CUdevice device, CUcontext primary,
             DeviceInfo info)
      : driver_(driver),
        device_(device),
        info_(std::move(info)),
        primary_(driver, device),
        memory_(driver, device, primary, PrimaryKey()),
        pinned_(driver, primary, PrimaryKey()),
        digester_(driver, primary, PrimaryKey(), &memory_, &pinned_),
        completer_(driver) {}

  Status Start(const CudaOptions& options) {
    POS_RETURN_IF_ERROR(
        memory_.Reserve(options.arena_base, options.arena_bytes));
    completer_.Start();
    return {};
  }

  [[nodiscard]] const DeviceInfo& info() const override { return info_; }
  [[nodiscard]] bool PlacesVariables() const override { return true; }
  [[nodiscard]] std::uint64_t FreeBytes() const override {
    return memory_.FreeBytes();
  }
  [[nodiscard]] std::uint64_t Headroom(std::uint64_t promised) const override {
    return memory_.Headroom(promised);
  }
  Status Map(DeviceAddress address, std::uint64_t bytes) override {
    return memory_.Map(address, bytes);
  }
  Status Unmap(DeviceAddress address, std::uint64_t bytes) override {
    return memory_.Unmap(address, bytes);
  }
  Result<std::shared_ptr<DevicePhysical>> CreatePhysical(
      std::uint64_t bytes) override {
    return memory_.CreatePhysical(bytes);
  }
  Status MapPhysical(DeviceAddress address,
                     const std::shared_ptr<DevicePhysical>& physical) override {
    return memory_.MapPhysical(address, physical);
  }
  void AddAllocation(DeviceAddress address, std::uint64_t bytes) override {
    memory_.AddAllocation(address, bytes);
  }
  void RemoveAllocation(DeviceAddress address) override {
    memory_.RemoveAllocation(address);
  }
  Status MapHost(DeviceAddress address, std::uint64_t bytes) override {
    return memory_.MapHost(address, bytes);
  }
  Status UnmapHost(DeviceAddress address, std::uint64_t bytes) override {
    return memory_.UnmapHost(address, bytes);
  }
  Result<std::unique_ptr<DeviceContext>> CreateContext(
      std::uint32_t flags, CompletionSink* sink) override {
    CUcontext context = nullptr;
    POS_RETURN_IF_ERROR(driver_.Check(
        driver_.CtxCreate(&context, nullptr, flags, device_), "cuCtxCreate"));
    // It is current now; the key says of this thread that it is not.
    driver_.CtxSetCurrent(nullptr);
    ForgetCurrent();
    return NewCudaContext(
        {&driver_, &completer_, &memory_, &pinned_},
        std::make_shared<ContextCore>(driver_, &completer_, context, sink));
  }
  Status Read(DeviceAddress src, std::span<std::byte> dst) override {
    return memory_.Read(src, dst);
  }
  Status Write(DeviceAddress dst, std::span<const std::byte> src) override {
    return memory_.Write(dst, src);
  }
  Status WriteBeside(DeviceAddress dst,
                     std::span<const std::byte> src) override {
    return memory_.WriteMapped(dst, src);
  }
  Status Digest(std::span<const MemoryRange> ranges, std::uint64_t seed,
                std::span<ckpt::Digest> digests) override {
    return digester_.Digest(ranges, seed, digests);
  }
  [[nodiscard]] std::uint64_t NowNs() const override { return MonotonicNs(); }

  [[nodiscard]] Status Check() const { return memory_.Check(); }

 private:
  // Given back last.
  class Primary {
   public:
    Primary(const Driver& driver, CUdevice device)
        : driver_(driver), device_(device) {}
    ~Primary() { driver_.DevicePrimaryCtxRelease(device_); }
    Primary(const Primary&) = delete;
    Primary& operator=(const Primary&) = delete;

   private:
    const Driver& driver_;
    const CUdevice device_;
  };
  [[nodiscard]] std::uint64_t PrimaryKey() const {
    return kPrimaryKey + static_cast<std::uint64_t>(device_);
  }

  const Driver& driver_;
  const CUdevice device_;
  const DeviceInfo info_;
  const Primary primary_;
  CudaMemory memory_;
  PinnedPool pinned_;
  Digester digester_;
  Completer completer_;  // ends before what it uses
};

}  // namespace

Result<std::unique_ptr<Device>> NewCudaDevice(const CudaOptions& options) {
  POS_ASSIGN_OR_RETURN(const Driver* const driver,
                       Driver::Load(options.driver_library));
  int count = 0;
  POS_RETURN_IF_ERROR(
      driver->Check(driver->DeviceGetCount(&count), "cuDeviceGetCount"));
  if (options.ordinal < 0 || options.ordinal >= count) {
    return NoSuch("the driver has " + std::to_string(count) +
                  " devices, no device " + std::to_string(options.ordinal));
  }
  CUdevice device = 0;
  POS_RETURN_IF_ERROR(driver->Check(driver->DeviceGet(&device, options.ordinal),
                                    "cuDeviceGet"));
  POS_ASSIGN_OR_RETURN(DeviceInfo info, ReadInfo(*driver, device));
  CUcontext primary = nullptr;
  POS_RETURN_IF_ERROR(
      driver->Check(driver->DevicePrimaryCtxRetain(&primary, device),
                    "start a context on " + info.name));
  auto made =
      std::make_unique<CudaDevice>(*driver, device, primary, std::move(info));
  POS_RETURN_IF_ERROR(made->Start(options));
  return std::unique_ptr<Device>(std::move(made));
}

Result<std::vector<DeviceInfo>> ListCudaDevices(
    const std::string& driver_library) {
  POS_ASSIGN_OR_RETURN(const Driver* const driver,
                       Driver::Load(driver_library));
  int count = 0;
  POS_RETURN_IF_ERROR(
      driver->Check(driver->DeviceGetCount(&count), "cuDeviceGetCount"));
  std::vector<DeviceInfo> devices;
  for (int i = 0; i < count; ++i) {
    CUdevice device = 0;
    POS_RETURN_IF_ERROR(
        driver->Check(driver->DeviceGet(&device, i), "cuDeviceGet"));
    POS_ASSIGN_OR_RETURN(DeviceInfo info, ReadInfo(*driver, device));
    devices.push_back(std::move(info));
  }
  return devices;
}

Status CheckCudaDevice(const Device& device) {
  return static_cast<const CudaDevice&>(device).Check();
}

}  // namespace pos::cuda_device
