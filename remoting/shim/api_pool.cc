#include <map>

#include "remoting/shim/driver_state.h"
#include "remoting/shim/pools.h"

namespace pos::shim {
namespace {

struct Pool {
  std::atomic<std::uint64_t> id{0};
  int device = 0;
  bool is_default = false;
  std::atomic<std::int64_t> used{0};
  std::atomic<std::int64_t> used_high{0};
  Mutex mu;
  // Attributes that can be set: CUmemPool_attribute → value.
  std::map<int, std::uint64_t> set POS_GUARDED_BY(mu);
};

struct Pools {
  IdTable<Pool> table;
  Mutex mu;
  std::map<int, Pool*> defaults POS_GUARDED_BY(mu);
  std::map<int, std::uint64_t> current POS_GUARDED_BY(mu);
};

Pools& All() {
  static Pools* const pools = new Pools;
  return *pools;
}

Pool* NewPool(int device, bool is_default) {
  const std::uint64_t id =
      (std::uint64_t{cuda::kMemPoolHandle} << 56) | All().table.NextIndex();
  Pool* const pool = All().table.Make(id);
  if (pool == nullptr) return nullptr;
  pool->device = device;
  pool->is_default = is_default;
  pool->used.store(0);
  pool->used_high.store(0);
  pool->id.store(id, std::memory_order_release);
  return pool;
}

Pool* DefaultOf(int device) {
  Pools& pools = All();
  MutexLock lock(&pools.mu);
  Pool*& pool = pools.defaults[device];
  if (pool == nullptr) pool = NewPool(device, true);
  return pool;
}

Pool* Find(CUmemoryPool handle) {
  return All().table.Get(reinterpret_cast<std::uint64_t>(handle));
}

CUmemoryPool HandleOf(const Pool* pool) {
  return reinterpret_cast<CUmemoryPool>(
      pool->id.load(std::memory_order_relaxed));
}

CUresult CheckDevice(CUdevice device) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  return Driver::Get().device(device) == nullptr ? CUDA_ERROR_INVALID_DEVICE
                                                 : CUDA_SUCCESS;
}

}  // namespace

std::uint64_t DefaultPool() {
  Context* context = nullptr;
  if (Driver::Get().Current(&context) != CUDA_SUCCESS) return 0;
  const Pool* const pool = DefaultOf(context->device);
  Pools& pools = All();
  MutexLock lock(&pools.mu);
  const auto it = pools.current.find(context->device);
  return it != pools.current.end() ? it->second
                                   : pool->id.load(std::memory_order_relaxed);
}

bool KnownPool(CUmemoryPool pool) { return Find(pool) != nullptr; }

void BookPool(std::uint64_t handle, std::int64_t bytes) {
  Pool* const pool = All().table.Get(handle);
  if (pool == nullptr) return;
  const std::int64_t used = pool->used.fetch_add(bytes) + bytes;
  std::int64_t high = pool->used_high.load();
  while (used > high && !pool->used_high.compare_exchange_weak(high, used)) {
  }
}

}  // namespace pos::shim

using namespace pos::shim;  // NOLINT: this file implements the driver's API

CUresult CUDAAPI cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice dev) {
  if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = CheckDevice(dev);
  if (result == CUDA_SUCCESS) *pool = HandleOf(DefaultOf(dev));
  return result;
}

CUresult CUDAAPI cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice dev) {
  if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = CheckDevice(dev);
  if (result != CUDA_SUCCESS) return result;
  const Pool* const fallback = DefaultOf(dev);
  pos::MutexLock lock(&All().mu);
  const auto it = All().current.find(dev);
  *pool = it != All().current.end() ? reinterpret_cast<CUmemoryPool>(it->second)
                                    : HandleOf(fallback);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceSetMemPool(CUdevice dev, CUmemoryPool handle) {
  const CUresult result = CheckDevice(dev);
  if (result != CUDA_SUCCESS) return result;
  const Pool* const pool = Find(handle);
  if (pool == nullptr || pool->device != dev) return CUDA_ERROR_INVALID_VALUE;
  pos::MutexLock lock(&All().mu);
  All().current[dev] = reinterpret_cast<std::uint64_t>(handle);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolCreate(CUmemoryPool* out,
                                 const CUmemPoolProps* props) {
  if (out == nullptr || props == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (props->handleTypes != CU_MEM_HANDLE_TYPE_NONE ||
      props->location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    return Driver::Unsupported("cuMemPoolCreate of this kind");
  }
  const CUresult result = CheckDevice(props->location.id);
  if (result != CUDA_SUCCESS) return result;
  const Pool* const pool = NewPool(props->location.id, false);
  if (pool == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *out = HandleOf(pool);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolDestroy(CUmemoryPool handle) {
  Pool* const pool = Find(handle);
  if (pool == nullptr || pool->is_default) return CUDA_ERROR_INVALID_VALUE;
  pool->id.store(0, std::memory_order_release);
  pos::MutexLock lock(&All().mu);
  const auto it = All().current.find(pool->device);
  if (it != All().current.end() &&
      it->second == reinterpret_cast<std::uint64_t>(handle)) {
    All().current.erase(it);
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolTrimTo(CUmemoryPool handle, std::size_t) {
  // Nothing is kept back: freed memory returns at once.
  return Find(handle) == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolSetAttribute(CUmemoryPool handle,
                                       CUmemPool_attribute attribute,
                                       void* value) {
  Pool* const pool = Find(handle);
  if (pool == nullptr || value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES: {
      pos::MutexLock lock(&pool->mu);
      pool->set[attribute] =
          static_cast<std::uint64_t>(*static_cast<int*>(value));
      return CUDA_SUCCESS;
    }
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: {
      pos::MutexLock lock(&pool->mu);
      pool->set[attribute] = *static_cast<cuuint64_t*>(value);
      return CUDA_SUCCESS;
    }
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      // Only resetting to 0 is allowed: the mark starts again from now.
      if (*static_cast<cuuint64_t*>(value) != 0) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      pool->used_high.store(pool->used.load());
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult CUDAAPI cuMemPoolGetAttribute(CUmemoryPool handle,
                                       CUmemPool_attribute attribute,
                                       void* value) {
  Pool* const pool = Find(handle);
  if (pool == nullptr || value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES: {
      pos::MutexLock lock(&pool->mu);
      const auto it = pool->set.find(attribute);
      *static_cast<int*>(value) =
          it == pool->set.end() ? 1 : static_cast<int>(it->second);
      return CUDA_SUCCESS;
    }
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: {
      pos::MutexLock lock(&pool->mu);
      *static_cast<cuuint64_t*>(value) = pool->set[attribute];
      return CUDA_SUCCESS;
    }
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
      *static_cast<cuuint64_t*>(value) =
          static_cast<cuuint64_t>(pool->used.load());
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      *static_cast<cuuint64_t*>(value) =
          static_cast<cuuint64_t>(pool->used_high.load());
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult CUDAAPI cuMemPoolSetAccess(CUmemoryPool handle,
                                    const CUmemAccessDesc* map,
                                    std::size_t count) {
  const Pool* const pool = Find(handle);
  if (pool == nullptr || (map == nullptr && count != 0)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (map[i].location.id != pool->device) {
      return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
    }
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolGetAccess(CUmemAccess_flags* flags,
                                    CUmemoryPool handle,
                                    CUmemLocation* location) {
  const Pool* const pool = Find(handle);
  if (pool == nullptr || flags == nullptr || location == nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *flags = location->id == pool->device ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                        : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  return CUDA_SUCCESS;
}
