// Memory: allocation, pinned memory, pointers, pools.
#include <algorithm>
#include <cstring>

#include "remoting/shim/copy.h"
#include "remoting/shim/driver_state.h"
#include "remoting/shim/managed.h"
#include "remoting/shim/pools.h"

namespace pos::shim {
namespace {

// Pitch of cuMemAllocPitch: what coalesced access wants.
constexpr std::size_t kPitchAlign = 512;

CUresult Allocate(CUdeviceptr* out, std::size_t bytes) {
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  CUresult result = driver.Current(&context);
  if (result != CUDA_SUCCESS) return result;
  cuda::MemAllocOut reply;
  result = Call(cuda::MemAllocArgs{.context = context->runner_id.load(
                                       std::memory_order_acquire),
                                   .bytes = bytes},
                &reply);
  if (result != CUDA_SUCCESS) return result;
  driver.ranges.Add({.address = reply.address,
                     .bytes = bytes,
                     .kind = Range::kDevice,
                     .context = context,
                     .device = context->device,
                     .buffer_id = driver.NextUniqueId()});
  *out = reply.address;
  return CUDA_SUCCESS;
}

CUresult Free(CUdeviceptr address) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  if (address == 0) return CUDA_SUCCESS;
  Range range;
  if (!driver.ranges.Find(address, &range) || range.address != address ||
      (range.kind != Range::kDevice && range.kind != Range::kAsync &&
       !range.managed)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  // Removed first: the moment the runner has freed it, another thread may get
  // the same address.
  if (!driver.ranges.Remove(address)) return CUDA_ERROR_INVALID_VALUE;
  if (range.managed) return ReleaseHost(range);
  BookPool(range.pool, -static_cast<std::int64_t>(range.bytes));
  return CallNoOut(cuda::MemFreeArgs{.address = address});
}

CUresult FreeHost(void* pointer) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  const auto address = reinterpret_cast<std::uint64_t>(pointer);
  Range range;
  if (!driver.ranges.Find(address, &range) || range.address != address ||
      range.kind != Range::kHost || range.managed ||
      !driver.ranges.Remove(address)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return ReleaseHost(range);
}

CUresult AllocateAsync(CUdeviceptr* out, std::size_t bytes, std::uint64_t pool,
                       CUstream handle, bool per_thread) {
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  std::uint64_t stream = 0;
  CUresult result = driver.Resolve(handle, per_thread, &context, &stream);
  if (result != CUDA_SUCCESS) return result;
  cuda::MemAllocAsyncOut reply;
  result =
      Call(cuda::MemAllocAsyncArgs{.stream = stream, .bytes = bytes}, &reply);
  if (result != CUDA_SUCCESS) return result;
  driver.ranges.Add({.address = reply.address,
                     .bytes = bytes,
                     .kind = Range::kAsync,
                     .context = context,
                     .device = context->device,
                     .buffer_id = driver.NextUniqueId(),
                     .pool = pool});
  BookPool(pool, static_cast<std::int64_t>(bytes));
  *out = reply.address;
  return CUDA_SUCCESS;
}

CUresult FreeAsync(CUdeviceptr address, CUstream handle, bool per_thread) {
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  std::uint64_t stream = 0;
  const CUresult result = driver.Resolve(handle, per_thread, &context, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (address == 0) return CUDA_SUCCESS;
  Range range;
  if (!driver.ranges.Find(address, &range) || range.address != address ||
      (range.kind != Range::kDevice && range.kind != Range::kAsync) ||
      !driver.ranges.Remove(address)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  BookPool(range.pool, -static_cast<std::int64_t>(range.bytes));
  return CallNoOut(
      cuda::MemFreeAsyncArgs{.stream = stream, .address = address});
}

// One attribute of a pointer. A pointer that CUDA does not know gives its
// "nothing" value where that exists, else CUDA_ERROR_INVALID_VALUE.
CUresult PointerAttribute(void* data, CUpointer_attribute attribute, bool known,
                          const Range& range, CUdeviceptr pointer) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      if (!known) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<CUcontext*>(data) = Driver::HandleOf(range.context);
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      if (!known) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<unsigned*>(data) = range.IsHost() && !range.managed
                                          ? CU_MEMORYTYPE_HOST
                                          : CU_MEMORYTYPE_DEVICE;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      if (!known) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<CUdeviceptr*>(data) = pointer;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      if (!known || !range.IsHost()) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<void**>(data) = reinterpret_cast<void*>(pointer);
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      if (!known) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<int*>(data) = 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      *static_cast<int*>(data) = known && range.managed ? 1 : 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      if (!known) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<unsigned long long*>(data) = range.buffer_id;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      if (!known) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<int*>(data) = range.device;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      if (!known) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<CUdeviceptr*>(data) = range.address;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
      if (!known) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<std::size_t*>(data) = range.bytes;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      if (!known) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<CUdeviceptr*>(data) = range.address;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
      *static_cast<int*>(data) = known ? 1 : 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
      *static_cast<unsigned long long*>(data) = 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
      if (!known) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<unsigned*>(data) =
          CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      if (!known || range.kind != Range::kAsync) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      *static_cast<CUmemoryPool*>(data) =
          reinterpret_cast<CUmemoryPool>(range.pool);
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

// What cuPointerGetAttributes stores for a pointer that CUDA does not know:
// zeros of the attribute's size, so that callers read "not ours".
void StoreNothing(void* data, CUpointer_attribute attribute) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      std::memset(data, 0, sizeof(unsigned));
      break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(data) = -2;  // cudaInvalidDeviceId, as the driver says
      break;
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
      break;
    default:
      std::memset(data, 0, sizeof(std::uint64_t));
      break;
  }
}

}  // namespace

CUresult AllocateHost(void** out, std::size_t bytes, unsigned flags,
                      bool managed) {
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  constexpr unsigned kKnown = CU_MEMHOSTALLOC_PORTABLE |
                              CU_MEMHOSTALLOC_DEVICEMAP |
                              CU_MEMHOSTALLOC_WRITECOMBINED;
  if ((flags & ~kKnown) != 0) return CUDA_ERROR_INVALID_VALUE;
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  CUresult result = driver.Current(&context);
  if (result != CUDA_SUCCESS) return result;
  cuda::HostAllocOut reply;
  result = Call(cuda::HostAllocArgs{.context = context->runner_id.load(
                                        std::memory_order_acquire),
                                    .bytes = bytes},
                &reply);
  if (result != CUDA_SUCCESS) return result;
  if (!Client::Get().MapHost(reply.address, reply.mapped_bytes).ok()) {
    CallNoOut(cuda::HostFreeArgs{.address = reply.address});
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  driver.ranges.Add({.address = reply.address,
                     .bytes = bytes,
                     .kind = Range::kHost,
                     .context = context,
                     .device = context->device,
                     .flags = flags,
                     .managed = managed,
                     .mapped_bytes = reply.mapped_bytes,
                     .buffer_id = driver.NextUniqueId()});
  *out = reinterpret_cast<void*>(reply.address);
  return CUDA_SUCCESS;
}

CUresult ReleaseHost(const Range& range, const Payload& payload) {
  if (range.managed) ForgetAdvice(range.address, range.bytes);
  Client::Get().UnmapHost(range.address, range.mapped_bytes);
  return CallNoOut(cuda::HostFreeArgs{.address = range.address}, payload);
}

}  // namespace pos::shim

using namespace pos::shim;  // NOLINT: this file implements the driver's API

CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr* out, std::size_t bytes) {
  return Allocate(out, bytes);
}
CUresult CUDAAPI cuMemFree_v2(CUdeviceptr address) { return Free(address); }

CUresult CUDAAPI cuMemAllocPitch_v2(CUdeviceptr* out, std::size_t* pitch,
                                    std::size_t width, std::size_t height,
                                    unsigned element) {
  if (pitch == nullptr || width == 0 || height == 0 ||
      (element != 4 && element != 8 && element != 16) ||
      width > (std::size_t{1} << 40) || height > (std::size_t{1} << 40)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const std::size_t row = (width + kPitchAlign - 1) / kPitchAlign * kPitchAlign;
  if (row > (std::size_t{1} << 46) / height) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult result = Allocate(out, row * height);
  if (result == CUDA_SUCCESS) *pitch = row;
  return result;
}

CUresult CUDAAPI cuMemGetInfo_v2(std::size_t* free_bytes,
                                 std::size_t* total_bytes) {
  Context* context = nullptr;
  CUresult result = Driver::Get().Current(&context);
  if (result != CUDA_SUCCESS) return result;
  pos::cuda::MemGetInfoOut out;
  result = Call(pos::cuda::MemGetInfoArgs{.context = context->runner_id.load(
                                              std::memory_order_acquire)},
                &out);
  if (result != CUDA_SUCCESS) return result;
  if (free_bytes != nullptr) *free_bytes = out.free_bytes;
  if (total_bytes != nullptr) *total_bytes = out.total_bytes;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetAddressRange_v2(CUdeviceptr* base, std::size_t* size,
                                         CUdeviceptr address) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  Range range;
  if (!Driver::Get().ranges.Find(address, &range)) return CUDA_ERROR_NOT_FOUND;
  if (base != nullptr) *base = range.address;
  if (size != nullptr) *size = range.bytes;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostAlloc(void** out, std::size_t bytes, unsigned flags) {
  return AllocateHost(out, bytes, flags, /*managed=*/false);
}
CUresult CUDAAPI cuMemAllocHost_v2(void** out, std::size_t bytes) {
  return AllocateHost(out, bytes, 0, /*managed=*/false);
}
CUresult CUDAAPI cuMemFreeHost(void* pointer) { return FreeHost(pointer); }

CUresult CUDAAPI cuMemHostGetDevicePointer_v2(CUdeviceptr* out, void* pointer,
                                              unsigned flags) {
  if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  Range range;
  const auto address = reinterpret_cast<std::uint64_t>(pointer);
  if (!Driver::Get().ranges.Find(address, &range) || !range.IsHost() ||
      range.managed) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = address;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostGetFlags(unsigned* flags, void* pointer) {
  Range range;
  if (flags == nullptr ||
      !Driver::Get().ranges.Find(reinterpret_cast<std::uint64_t>(pointer),
                                 &range) ||
      !range.IsHost() || range.managed) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  // With unified addressing all pinned memory is mapped and portable.
  *flags = range.flags | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_PORTABLE;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuPointerGetAttribute(void* data,
                                       CUpointer_attribute attribute,
                                       CUdeviceptr pointer) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  if (data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Range range;
  const bool known = Driver::Get().ranges.Find(pointer, &range);
  return PointerAttribute(data, attribute, known, range, pointer);
}

CUresult CUDAAPI cuPointerGetAttributes(unsigned count,
                                        CUpointer_attribute* attributes,
                                        void** data, CUdeviceptr pointer) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  if (attributes == nullptr || data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Range range;
  const bool known = Driver::Get().ranges.Find(pointer, &range);
  for (unsigned i = 0; i < count; ++i) {
    const CUresult result =
        PointerAttribute(data[i], attributes[i], known, range, pointer);
    if (result == CUDA_ERROR_NOT_SUPPORTED) return result;
    if (result != CUDA_SUCCESS) StoreNothing(data[i], attributes[i]);
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuPointerSetAttribute(const void* value,
                                       CUpointer_attribute attribute,
                                       CUdeviceptr pointer) {
  Range range;
  if (value == nullptr || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS ||
      !Driver::Get().ranges.Find(pointer, &range)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  // Copies here are always ordered as if it were set.
  return CUDA_SUCCESS;
}

#define POS_POOL_CALLS_(suffix, per_thread)                                    \
  CUresult CUDAAPI cuMemAllocAsync##suffix(CUdeviceptr* out,                   \
                                           std::size_t bytes, CUstream s) {    \
    return AllocateAsync(out, bytes, DefaultPool(), s, per_thread);            \
  }                                                                            \
  CUresult CUDAAPI cuMemAllocFromPoolAsync##suffix(                            \
      CUdeviceptr* out, std::size_t bytes, CUmemoryPool pool, CUstream s) {    \
    if (!KnownPool(pool)) return CUDA_ERROR_INVALID_VALUE;                     \
    return AllocateAsync(out, bytes, reinterpret_cast<std::uint64_t>(pool), s, \
                         per_thread);                                          \
  }                                                                            \
  CUresult CUDAAPI cuMemFreeAsync##suffix(CUdeviceptr address, CUstream s) {   \
    return FreeAsync(address, s, per_thread);                                  \
  }
POS_POOL_CALLS_(, false)
POS_POOL_CALLS_(_ptsz, true)
#undef POS_POOL_CALLS_
