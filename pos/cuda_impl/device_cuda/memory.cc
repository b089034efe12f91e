#include "pos/cuda_impl/device_cuda/memory.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "pos/base/log.h"
#include "pos/cuda_impl/device_cuda/core.h"

namespace pos::cuda_device {
namespace {

constexpr std::uint64_t kGranule = Device::kMapGranularity;

std::string Span(std::uint64_t address, std::uint64_t bytes) {
  return Hex(address) + " + " + std::to_string(bytes) + " bytes";
}

CUmemAllocationProp Properties(CUdevice device) {
  CUmemAllocationProp prop{};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  prop.location.id = device;
  return prop;
}

// Whether ranges that touch each other hold all of [address, end).
bool Holds(const std::map<std::uint64_t, std::uint64_t>& ranges,
           std::uint64_t address, std::uint64_t end) {
  auto it = ranges.upper_bound(address);
  if (it == ranges.begin()) return false;
  --it;
  if (address >= it->second) return false;
  std::uint64_t at = it->second;
  while (at < end) {
    ++it;
    if (it == ranges.end() || it->first != at) return false;
    at = it->second;
  }
  return true;
}

}  // namespace

CudaMemory::~CudaMemory() {
  while (!mapped_.empty()) {
    const auto first = mapped_.begin();
    if (!Unmap(first->first, first->second->bytes()).ok()) {
      mapped_.erase(mapped_.begin());
    }
  }
  while (!host_.empty()) {
    const auto first = host_.begin();
    if (!UnmapHost(first->first, first->second - first->first).ok()) {
      host_.erase(host_.begin());
    }
  }
  if (bytes_ != 0) driver_.MemAddressFree(base_, bytes_);
}

Status CudaMemory::UseContext() const {
  return driver_.Check(MakeCurrent(driver_, context_, key_), "cuCtxSetCurrent");
}

Status CudaMemory::Reserve(std::uint64_t base, std::uint64_t bytes) {
  POS_RETURN_IF_ERROR(UseContext());
  std::size_t granularity = 0;
  const CUmemAllocationProp prop = Properties(device_);
  POS_RETURN_IF_ERROR(
      driver_.Check(driver_.MemGetGranularity(&granularity, &prop,
                                              CU_MEM_ALLOC_GRANULARITY_MINIMUM),
                    "cuMemGetAllocationGranularity"));
  if (granularity == 0 || kGranule % granularity != 0) {
    return Incompatible("the device maps memory in pieces of " +
                        std::to_string(granularity) + " bytes, POS in 2 MiB");
  }
  CUdeviceptr got = 0;
  POS_RETURN_IF_ERROR(
      driver_.Check(driver_.MemAddressReserve(&got, bytes, kGranule, base, 0),
                    "reserve device addresses " + Span(base, bytes)));
  if (got != base) {
    driver_.MemAddressFree(got, bytes);
    return Incompatible("the driver does not grant device addresses " +
                            Span(base, bytes) + "; it offers " + Hex(got),
                        "set arena.base to a range that it grants");
  }
  base_ = base;
  bytes_ = bytes;
  return {};
}

Status CudaMemory::Check() const {
  POS_RETURN_IF_ERROR(UseContext());
  std::size_t free_bytes = 0;
  std::size_t total = 0;
  POS_RETURN_IF_ERROR(
      driver_.Check(driver_.MemGetInfo(&free_bytes, &total), "cuMemGetInfo"));
  return driver_.Check(driver_.StreamSynchronize(nullptr),
                       "cuStreamSynchronize");
}

std::uint64_t CudaMemory::FreeBytes() const {
  std::size_t free_bytes = 0;
  std::size_t total = 0;
  if (!UseContext().ok() ||
      driver_.MemGetInfo(&free_bytes, &total) != CUDA_SUCCESS) {
    return 0;
  }
  return free_bytes;
}

std::uint64_t CudaMemory::Headroom(std::uint64_t promised) const {
  // What is free and what is held change together: read until they fit.
  std::uint64_t held = held_bytes_.load();
  std::uint64_t free_bytes = FreeBytes();
  for (int i = 0; i < 10 && held != held_bytes_.load(); ++i) {
    held = held_bytes_.load();
    free_bytes = FreeBytes();
  }
  const std::uint64_t owed = promised - std::min(promised, held);
  return free_bytes - std::min(free_bytes, owed);
}

Result<std::shared_ptr<DevicePhysical>> CudaMemory::CreatePhysical(
    std::uint64_t bytes) {
  POS_RETURN_IF_ERROR(UseContext());
  CUmemGenericAllocationHandle handle = 0;
  const CUmemAllocationProp prop = Properties(device_);
  POS_RETURN_IF_ERROR(
      driver_.Check(driver_.MemCreate(&handle, bytes, &prop, 0),
                    "cuMemCreate of " + std::to_string(bytes) + " bytes"));
  return std::shared_ptr<DevicePhysical>(
      std::make_shared<CudaPhysical>(driver_, handle, bytes, &held_bytes_));
}

Status CudaMemory::Map(DeviceAddress address, std::uint64_t bytes) {
  if ((address | bytes) % kGranule != 0 || bytes == 0 || address < base_ ||
      address - base_ > bytes_ || bytes > bytes_ - (address - base_)) {
    return Invalid("map of " + Span(address, bytes) +
                   ": not 2 MiB granules of the arena " + Span(base_, bytes_));
  }
  // Before memory is made for nothing.
  const auto next = mapped_.lower_bound(address);
  const bool taken =
      (next != mapped_.end() && next->first - address < bytes) ||
      (next != mapped_.begin() &&
       std::prev(next)->first + std::prev(next)->second->bytes() > address);
  if (taken) return Exists(Span(address, bytes) + " is mapped already");
  POS_ASSIGN_OR_RETURN(const std::shared_ptr<DevicePhysical> physical,
                       CreatePhysical(bytes));
  return MapPhysical(address, physical);
}

Status CudaMemory::MapPhysical(
    DeviceAddress address, const std::shared_ptr<DevicePhysical>& physical) {
  // The worker hands a device only what came from it.
  auto mine = std::static_pointer_cast<CudaPhysical>(physical);
  const std::uint64_t bytes = mine->bytes();
  POS_RETURN_IF_ERROR(UseContext());
  POS_RETURN_IF_ERROR(
      driver_.Check(driver_.MemMap(address, bytes, 0, mine->handle(), 0),
                    "cuMemMap of " + Span(address, bytes)));
  CUmemAccessDesc access{};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.location.id = device_;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  Status status =
      driver_.Check(driver_.MemSetAccess(address, bytes, &access, 1),
                    "cuMemSetAccess of " + Span(address, bytes));
  if (status.ok() && !mine->cleared) status = Clear(address, bytes);
  if (!status.ok()) {
    driver_.MemUnmap(address, bytes);
    return status;
  }
  mine->cleared = true;
  const MutexLock lock(&mappings_mu);
  mapped_[address] = std::move(mine);
  return {};
}

// Waits for it: work of other streams may use the range right after.
Status CudaMemory::Clear(DeviceAddress address, std::uint64_t bytes) {
  POS_RETURN_IF_ERROR(driver_.Check(
      driver_.MemsetD8Async(address, 0, bytes, nullptr), "clear memory"));
  return driver_.Check(driver_.StreamSynchronize(nullptr), "clear memory");
}

Status CudaMemory::Unmap(DeviceAddress address, std::uint64_t bytes) {
  const auto it = mapped_.find(address);
  if (it == mapped_.end() || it->second->bytes() != bytes) {
    return Invalid("unmap of " + Span(address, bytes) +
                   ", which Map did not back");
  }
  POS_RETURN_IF_ERROR(UseContext());
  const MutexLock lock(&mappings_mu);
  POS_RETURN_IF_ERROR(driver_.Check(driver_.MemUnmap(address, bytes),
                                    "cuMemUnmap of " + Span(address, bytes)));
  mapped_.erase(it);
  return {};
}

void CudaMemory::AddAllocation(DeviceAddress address, std::uint64_t bytes) {
  allocations_[address] = address + bytes;
}
void CudaMemory::RemoveAllocation(DeviceAddress address) {
  allocations_.erase(address);
}
void CudaMemory::AddVariable(DeviceAddress address, std::uint64_t bytes) {
  const MutexLock lock(&mappings_mu);
  variables_[address] = address + bytes;
}
void CudaMemory::RemoveVariable(DeviceAddress address) {
  const MutexLock lock(&mappings_mu);
  variables_.erase(address);
}

Status CudaMemory::MapHost(DeviceAddress address, std::uint64_t bytes) {
  void* const memory = reinterpret_cast<void*>(address);  // NOLINT
  POS_RETURN_IF_ERROR(UseContext());
  POS_RETURN_IF_ERROR(driver_.Check(
      driver_.MemHostRegister(
          memory, bytes,
          CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP),
      "pin host memory " + Span(address, bytes)));
  CUdeviceptr at = 0;
  Status status = driver_.Check(driver_.MemHostGetDevicePointer(&at, memory, 0),
                                "pinned host memory");
  if (status.ok() && at != address) {
    status = Incompatible(
        "the device sees host memory at other addresses "
        "than the host: " +
        Hex(address) + " at " + Hex(at));
  }
  if (!status.ok()) {
    driver_.MemHostUnregister(memory);
    return status;
  }
  host_[address] = address + bytes;
  return {};
}

Status CudaMemory::UnmapHost(DeviceAddress address, std::uint64_t bytes) {
  const auto it = host_.find(address);
  if (it == host_.end() || it->second != address + bytes) {
    return NoSuch("host memory " + Span(address, bytes) + " is not pinned");
  }
  POS_RETURN_IF_ERROR(UseContext());
  POS_RETURN_IF_ERROR(driver_.Check(
      driver_.MemHostUnregister(reinterpret_cast<void*>(address)),  // NOLINT
      "unpin host memory"));
  host_.erase(it);
  return {};
}

Status CudaMemory::CheckMapped(DeviceAddress address,
                               std::uint64_t bytes) const {
  if (Holds(variables_, address, address + bytes)) return {};
  std::uint64_t at = address;
  const std::uint64_t end = address + bytes;
  auto it = mapped_.upper_bound(address);
  if (it == mapped_.begin()) {
    return Invalid(Span(address, bytes) + " is not mapped");
  }
  for (--it; at < end; ++it) {
    if (it == mapped_.end() || it->first > at ||
        it->first + it->second->bytes() <= at) {
      return Invalid(Span(address, bytes) + " is not mapped");
    }
    at = it->first + it->second->bytes();
  }
  return {};
}

CudaMemory::Mapped CudaMemory::FindMapped(DeviceAddress address,
                                          std::uint64_t bytes) const {
  if (bytes == 0) return Mapped::kYes;
  if (bytes > ~address) return Mapped::kNo;
  if (Holds(variables_, address, address + bytes)) return Mapped::kVariable;
  return CheckMapped(address, bytes).ok() ? Mapped::kYes : Mapped::kNo;
}

Status CudaMemory::Read(DeviceAddress src, std::span<std::byte> dst) {
  if (dst.empty()) return {};
  POS_RETURN_IF_ERROR(CheckMapped(src, dst.size()));
  POS_RETURN_IF_ERROR(UseContext());
  return driver_.Check(driver_.MemcpyDtoH(dst.data(), src, dst.size()),
                       "read " + Span(src, dst.size()));
}

Status CudaMemory::Write(DeviceAddress dst, std::span<const std::byte> src) {
  if (src.empty()) return {};
  POS_RETURN_IF_ERROR(CheckMapped(dst, src.size()));
  return WriteMapped(dst, src);
}

// In the primary context, on whose streams nothing of a session's runs.
Status CudaMemory::WriteMapped(DeviceAddress dst,
                               std::span<const std::byte> src) const {
  if (src.empty()) return {};
  POS_RETURN_IF_ERROR(UseContext());
  POS_RETURN_IF_ERROR(
      driver_.Check(driver_.MemcpyHtoD(dst, src.data(), src.size()),
                    "write " + Span(dst, src.size())));
  // A copy of little memory may return before it is there.
  return driver_.Check(driver_.StreamSynchronize(nullptr), "write memory");
}

CudaMemory::Where CudaMemory::Find(DeviceAddress address,
                                   std::uint64_t bytes) const {
  const std::uint64_t end = address + std::max<std::uint64_t>(bytes, 1);
  if (end < address) return Where::kNowhere;
  if (Holds(allocations_, address, end) || Holds(variables_, address, end)) {
    return Where::kDevice;
  }
  if (address < base_ + bytes_ && end > base_) return Where::kNowhere;
  if (Holds(host_, address, end)) return Where::kPinned;
  // Half in pinned memory is an error of the caller's arithmetic.
  constexpr std::uint64_t kLowest = 64 << 10;
  constexpr std::uint64_t kHighest = std::uint64_t{1} << 47;
  return address < kLowest || end > kHighest ? Where::kNowhere
                                             : Where::kProcess;
}

}  // namespace pos::cuda_device
