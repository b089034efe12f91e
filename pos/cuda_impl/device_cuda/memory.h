// Device memory of the cuda device: what is mapped where, what is an
// allocation, which host memory is pinned.
//
// Threads: the worker's, but for FreeBytes and WriteMapped (any), and for
//   FindMapped by whoever holds mappings_mu: meanwhile nothing is unmapped.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_MEMORY_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_MEMORY_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>

#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/cuda_impl/device_cuda/driver.h"
#include "pos/device/device.h"

namespace pos::cuda_device {

// A piece of the driver's physical memory.
class CudaPhysical : public DevicePhysical {
 public:
  // `held`: of the device, counts what there is; outlives this.
  CudaPhysical(const Driver& driver, CUmemGenericAllocationHandle handle,
               std::uint64_t bytes, std::atomic<std::uint64_t>* held)
      : driver_(driver), handle_(handle), bytes_(bytes), held_(held) {
    held_->fetch_add(bytes_);
  }
  ~CudaPhysical() override {
    driver_.MemRelease(handle_);
    held_->fetch_sub(bytes_);
  }
  [[nodiscard]] std::uint64_t bytes() const override { return bytes_; }
  [[nodiscard]] CUmemGenericAllocationHandle handle() const { return handle_; }
  bool cleared = false;  // the driver gives memory as it was

 private:
  const Driver& driver_;
  const CUmemGenericAllocationHandle handle_;
  const std::uint64_t bytes_;
  std::atomic<std::uint64_t>* const held_;
};

class CudaMemory {
 public:
  // Where an address lies, for a copy or a fill.
  enum class Where {
    kDevice,   // inside allocations
    kPinned,   // host memory that the driver knows
    kProcess,  // other memory of this process
    kNowhere,  // device addresses outside allocations
  };

  // `context`: of the device, for what needs one; outlives this.
  CudaMemory(const Driver& driver, CUdevice device, CUcontext context,
             std::uint64_t key)
      : driver_(driver), device_(device), context_(context), key_(key) {}
  ~CudaMemory();
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  // Reserves exactly these addresses, once.
  Status Reserve(std::uint64_t base, std::uint64_t bytes);

  // Whether the driver answers, and has nothing to complain about.
  [[nodiscard]] Status Check() const;
  [[nodiscard]] std::uint64_t FreeBytes() const;
  [[nodiscard]] std::uint64_t Headroom(std::uint64_t promised) const;
  Status Map(DeviceAddress address, std::uint64_t bytes);
  Status Unmap(DeviceAddress address, std::uint64_t bytes);
  Result<std::shared_ptr<DevicePhysical>> CreatePhysical(std::uint64_t bytes);
  Status MapPhysical(DeviceAddress address,
                     const std::shared_ptr<DevicePhysical>& physical);
  void AddAllocation(DeviceAddress address, std::uint64_t bytes);
  void RemoveAllocation(DeviceAddress address);
  // Variables of modules, which the driver has placed.
  void AddVariable(DeviceAddress address, std::uint64_t bytes);
  void RemoveVariable(DeviceAddress address);
  Status MapHost(DeviceAddress address, std::uint64_t bytes);
  Status UnmapHost(DeviceAddress address, std::uint64_t bytes);
  Status Read(DeviceAddress src, std::span<std::byte> dst);
  Status Write(DeviceAddress dst, std::span<const std::byte> src);
  // As Write, any thread: whether the range is mapped is the caller's to know.
  Status WriteMapped(DeviceAddress dst, std::span<const std::byte> src) const;

  enum class Mapped { kNo, kYes, kVariable };
  // Held while mappings and variables change.
  Mutex mappings_mu;
  // Whether all of it is mapped memory, or lies in variables. No bytes: kYes.
  [[nodiscard]] Mapped FindMapped(DeviceAddress address,
                                  std::uint64_t bytes) const
      POS_REQUIRES(mappings_mu);

  [[nodiscard]] Where Find(DeviceAddress address, std::uint64_t bytes) const;

 private:
  using Ranges = std::map<std::uint64_t, std::uint64_t>;  // begin -> end
  Status MapNew(DeviceAddress address, const std::shared_ptr<CudaPhysical>& p);
  Status Clear(DeviceAddress address, std::uint64_t bytes);
  [[nodiscard]] Status UseContext() const;
  [[nodiscard]] Status CheckMapped(DeviceAddress address,
                                   std::uint64_t bytes) const;

  const Driver& driver_;
  const CUdevice device_;
  const CUcontext context_;
  const std::uint64_t key_;
  std::uint64_t base_ = 0;
  std::uint64_t bytes_ = 0;
  std::atomic<std::uint64_t> held_bytes_{0};
  // Changed by the worker under mappings_mu, and read by it without.
  std::map<std::uint64_t, std::shared_ptr<CudaPhysical>> mapped_;
  Ranges variables_;

  Ranges allocations_;
  Ranges host_;
};

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_MEMORY_H_
