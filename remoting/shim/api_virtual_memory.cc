// Virtual memory management: ranges of device addresses, memory without an
// address, the one mapped to the other.
//
// The program's handle of memory is this process's own: several references to
// one piece (cuMemRetainAllocationHandle) are one handle, counted here. The
// runner is told when the last is given back.
#include <map>

#include "remoting/shim/driver_state.h"

namespace pos::shim {
namespace {

constexpr std::uint64_t kGranularity = 2u << 20;

struct Mapping {
  std::uint64_t bytes = 0;
  std::uint64_t handle = 0;  // of Physical
  bool accessible = false;
};

// By address; the driver's virtual_mu.
std::map<std::uint64_t, Mapping>& Mappings() {
  static auto& mappings = *new std::map<std::uint64_t, Mapping>;
  return mappings;
}

bool InGranules(std::uint64_t address, std::uint64_t bytes) {
  return bytes != 0 && (address | bytes) % kGranularity == 0 &&
         address + bytes > address;
}

// What this driver can make: ordinary device memory that nobody exports.
CUresult CheckProperties(const CUmemAllocationProp* prop) {
  if (prop == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (prop->type != CU_MEM_ALLOCATION_TYPE_PINNED ||
      prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    return Driver::Unsupported("cuMemCreate of host memory");
  }
  if (prop->requestedHandleTypes != CU_MEM_HANDLE_TYPE_NONE) {
    return Driver::Unsupported("cuMemCreate of memory to be exported");
  }
  return Driver::Get().device(prop->location.id) == nullptr
             ? CUDA_ERROR_INVALID_DEVICE
             : CUDA_SUCCESS;
}

// The mappings that make up [address, address + bytes) exactly; false when
// there are gaps or a mapping reaches beyond.
bool Covers(std::uint64_t address, std::uint64_t bytes) {
  std::uint64_t at = address;
  while (at < address + bytes) {
    const auto it = Mappings().find(at);
    if (it == Mappings().end() || it->second.bytes > address + bytes - at) {
      return false;
    }
    at += it->second.bytes;
  }
  return true;
}

CUresult ReleaseIfUnused(Physical* physical) {
  if (physical->references != 0 || physical->mappings != 0) {
    return CUDA_SUCCESS;
  }
  physical->id.store(0, std::memory_order_release);
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace pos::shim

using namespace pos::shim;  // NOLINT: this file implements the driver's API

CUresult CUDAAPI cuMemGetAllocationGranularity(
    std::size_t* granularity, const CUmemAllocationProp* prop,
    CUmemAllocationGranularity_flags) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  if (granularity == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = CheckProperties(prop);
  if (result == CUDA_SUCCESS) *granularity = kGranularity;
  return result;
}

CUresult CUDAAPI cuMemAddressReserve(CUdeviceptr* out, std::size_t bytes,
                                     std::size_t alignment, CUdeviceptr wanted,
                                     unsigned long long flags) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  const Context* const context = driver.CurrentOrPrimary();
  pos::cuda::AddressReserveOut reply;
  const CUresult result = Call(
      pos::cuda::AddressReserveArgs{
          .bytes = bytes,
          .alignment = alignment,
          .address = wanted,
          .device = context == nullptr ? 0 : context->device},
      &reply);
  if (result == CUDA_SUCCESS) *out = reply.address;
  return result;
}

CUresult CUDAAPI cuMemAddressFree(CUdeviceptr address, std::size_t bytes) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  return CallNoOut(
      pos::cuda::AddressFreeArgs{.address = address, .bytes = bytes});
}

CUresult CUDAAPI cuMemCreate(CUmemGenericAllocationHandle* out,
                             std::size_t bytes, const CUmemAllocationProp* prop,
                             unsigned long long flags) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  if (out == nullptr || flags != 0 || bytes == 0 || bytes % kGranularity != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  CUresult result = CheckProperties(prop);
  if (result != CUDA_SUCCESS) return result;
  pos::cuda::PhysicalCreateOut reply;
  result = Call(pos::cuda::PhysicalCreateArgs{.bytes = bytes,
                                              .device = prop->location.id},
                &reply);
  if (result != CUDA_SUCCESS) return result;
  Physical* const physical = driver.physicals.Make(reply.physical);
  if (physical == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  pos::MutexLock lock(&driver.virtual_mu);
  physical->device = prop->location.id;
  physical->bytes = bytes;
  physical->runner_id = reply.physical;
  physical->references = 1;
  physical->mappings = 0;
  physical->id.store(reply.physical, std::memory_order_release);
  *out = reply.physical;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemRelease(CUmemGenericAllocationHandle handle) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  pos::MutexLock lock(&driver.virtual_mu);
  Physical* const physical = driver.physicals.Get(handle);
  if (physical == nullptr || physical->references == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (physical->references > 1 || physical->mappings != 0) {
    // The runner's handle stays while there are mappings: a program may ask
    // for it again by an address.
    --physical->references;
    return CUDA_SUCCESS;
  }
  const CUresult result =
      CallNoOut(pos::cuda::PhysicalReleaseArgs{.physical = physical->runner_id},
                {.despite_fault = true});
  if (result != CUDA_SUCCESS) return result;
  physical->references = 0;
  return ReleaseIfUnused(physical);
}

CUresult CUDAAPI cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* out,
                                             void* address) {
  Driver& driver = Driver::Get();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  pos::MutexLock lock(&driver.virtual_mu);
  auto it = Mappings().upper_bound(reinterpret_cast<std::uint64_t>(address));
  if (it == Mappings().begin()) return CUDA_ERROR_INVALID_VALUE;
  --it;
  if (reinterpret_cast<std::uint64_t>(address) - it->first >=
      it->second.bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Physical* const physical = driver.physicals.Get(it->second.handle);
  if (physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
  ++physical->references;
  *out = it->second.handle;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemMap(CUdeviceptr address, std::size_t bytes,
                          std::size_t offset,
                          CUmemGenericAllocationHandle handle,
                          unsigned long long flags) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  if (offset != 0 || flags != 0 || !InGranules(address, bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  pos::MutexLock lock(&driver.virtual_mu);
  Physical* const physical = driver.physicals.Get(handle);
  if (physical == nullptr || physical->bytes != bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const CUresult result = CallNoOut(pos::cuda::PhysicalMapArgs{
      .address = address, .bytes = bytes, .physical = physical->runner_id});
  if (result != CUDA_SUCCESS) return result;
  ++physical->mappings;
  Mappings()[address] = {bytes, handle, false};
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemUnmap(CUdeviceptr address, std::size_t bytes) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  if (!InGranules(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  pos::MutexLock lock(&driver.virtual_mu);
  if (!Covers(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = CallNoOut(
      pos::cuda::PhysicalUnmapArgs{.address = address, .bytes = bytes},
      {.despite_fault = true});
  if (result != CUDA_SUCCESS) return result;
  for (std::uint64_t at = address; at < address + bytes;) {
    const auto it = Mappings().find(at);
    at += it->second.bytes;
    driver.ranges.Remove(it->first);
    Physical* const physical = driver.physicals.Get(it->second.handle);
    Mappings().erase(it);
    if (physical == nullptr || --physical->mappings != 0 ||
        physical->references != 0) {
      continue;
    }
    const CUresult released = CallNoOut(
        pos::cuda::PhysicalReleaseArgs{.physical = physical->runner_id},
        {.despite_fault = true});
    if (result == CUDA_SUCCESS) result = released;
    ReleaseIfUnused(physical);
  }
  return result;
}

CUresult CUDAAPI cuMemSetAccess(CUdeviceptr address, std::size_t bytes,
                                const CUmemAccessDesc* desc,
                                std::size_t count) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  if (desc == nullptr || count == 0 || !InGranules(address, bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  pos::MutexLock lock(&driver.virtual_mu);
  if (!Covers(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  for (std::size_t i = 0; i < count; ++i) {
    if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
      return Driver::Unsupported("cuMemSetAccess for the host");
    }
    if (driver.device(desc[i].location.id) == nullptr) {
      return CUDA_ERROR_INVALID_DEVICE;
    }
    // Read-only access is not enforced: it admits writes.
    const bool allowed = desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE;
    const CUresult result =
        CallNoOut(pos::cuda::SetAccessArgs{.address = address,
                                           .bytes = bytes,
                                           .device = desc[i].location.id,
                                           .allowed = allowed ? 1u : 0u});
    if (result != CUDA_SUCCESS) return result;
    for (std::uint64_t at = address; at < address + bytes;) {
      Mapping& mapping = Mappings()[at];
      mapping.accessible = allowed;
      if (allowed) {
        driver.ranges.Add({.address = at,
                           .bytes = mapping.bytes,
                           .kind = Range::kMapped,
                           .device = desc[i].location.id,
                           .buffer_id = driver.NextUniqueId()});
      } else {
        driver.ranges.Remove(at);
      }
      at += mapping.bytes;
    }
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetAccess(unsigned long long* flags,
                                const CUmemLocation* location,
                                CUdeviceptr address) {
  Driver& driver = Driver::Get();
  if (flags == nullptr || location == nullptr) return CUDA_ERROR_INVALID_VALUE;
  pos::MutexLock lock(&driver.virtual_mu);
  auto it = Mappings().upper_bound(address);
  if (it == Mappings().begin()) return CUDA_ERROR_INVALID_VALUE;
  --it;
  const Physical* const physical = driver.physicals.Get(it->second.handle);
  if (address - it->first >= it->second.bytes || physical == nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool yes = it->second.accessible &&
                   location->type == CU_MEM_LOCATION_TYPE_DEVICE &&
                   location->id == physical->device;
  *flags =
      yes ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetAllocationPropertiesFromHandle(
    CUmemAllocationProp* prop, CUmemGenericAllocationHandle handle) {
  if (prop == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Physical* const physical = Driver::Get().physicals.Get(handle);
  if (physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *prop = {};
  prop->type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop->location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  prop->location.id = physical->device;
  return CUDA_SUCCESS;
}
