// Managed memory: allocation, advice, prefetches.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <vector>

#include "remoting/shim/managed.h"

namespace pos::shim {
namespace {

constexpr std::uint64_t kPage = 4096;

struct Location {
  CUmemLocationType type = CU_MEM_LOCATION_TYPE_INVALID;
  int id = 0;
  bool operator==(const Location&) const = default;
};

// As the attributes of ranges have it.
constexpr int kNoDevice = CU_DEVICE_INVALID;

struct Advice {
  bool read_mostly = false;
  Location preferred;
  Location prefetched;
  std::vector<int> accessed_by;  // devices, CU_DEVICE_CPU; ascending
  bool operator==(const Advice&) const = default;
};

// Advice by page; what has none was never advised.
class AdviceMap {
 public:
  template <typename F>
  void Change(std::uint64_t begin, std::uint64_t end, const F& change) {
    const MutexLock lock(&mu_);
    Split(begin);
    Split(end);
    std::uint64_t at = begin;
    while (at < end) {
      auto it = pieces_.lower_bound(at);
      if (it == pieces_.end() || it->first != at) {
        const std::uint64_t to =
            it == pieces_.end() ? end : std::min(end, it->first);
        it = pieces_.emplace_hint(it, at, Piece{to, {}});
      }
      change(&it->second.advice);
      at = it->second.end;
    }
  }
  void Forget(std::uint64_t begin, std::uint64_t end) {
    const MutexLock lock(&mu_);
    Split(begin);
    Split(end);
    pieces_.erase(pieces_.lower_bound(begin), pieces_.lower_bound(end));
  }
  // What the pages of [begin, end) have, one entry for each piece of them.
  std::vector<Advice> Of(std::uint64_t begin, std::uint64_t end) {
    const MutexLock lock(&mu_);
    Split(begin);
    Split(end);
    std::vector<Advice> all;
    std::uint64_t at = begin;
    for (auto it = pieces_.lower_bound(begin);
         it != pieces_.end() && it->first < end; ++it) {
      if (it->first != at) all.emplace_back();
      all.push_back(it->second.advice);
      at = it->second.end;
    }
    if (at != end) all.emplace_back();
    return all;
  }

 private:
  struct Piece {
    std::uint64_t end;
    Advice advice;
  };
  // No piece has `address` inside.
  void Split(std::uint64_t address) POS_REQUIRES(mu_) {
    auto it = pieces_.lower_bound(address);
    if (it == pieces_.begin()) return;
    --it;
    if (it->second.end <= address) return;
    pieces_[address] = {it->second.end, it->second.advice};
    it->second.end = address;
  }

  Mutex mu_;
  std::map<std::uint64_t, Piece> pieces_ POS_GUARDED_BY(mu_);
};

AdviceMap& TheAdvice() {
  static AdviceMap* const advice = new AdviceMap;  // leaked: exit handlers
  return *advice;
}

struct Pages {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// The pages of a span of managed memory.
CUresult ManagedPages(CUdeviceptr address, std::size_t bytes, Pages* pages) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  Range range;
  if (bytes == 0 || !driver.ranges.Find(address, &range) || !range.managed ||
      bytes > range.bytes - (address - range.address)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  pages->begin = address / kPage * kPage;
  pages->end = (address + bytes + kPage - 1) / kPage * kPage;
  return CUDA_SUCCESS;
}

// What the older forms of the calls name by a device's number.
CUmemLocation LocationOf(CUdevice device) {
  CUmemLocation location{};
  location.type = device == CU_DEVICE_CPU ? CU_MEM_LOCATION_TYPE_HOST
                                          : CU_MEM_LOCATION_TYPE_DEVICE;
  location.id = device;
  return location;
}

CUresult CheckLocation(const CUmemLocation& from, Location* to) {
  switch (from.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
      // CUDA refuses devices without concurrent access, too. Here that changes
      // nothing but whether programs run that do not ask.
      if (Driver::Get().device(from.id) == nullptr) {
        return CUDA_ERROR_INVALID_DEVICE;
      }
      *to = {from.type, from.id};
      return CUDA_SUCCESS;
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
      *to = {from.type, 0};
      return CUDA_SUCCESS;
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
      if (from.id < 0) return CUDA_ERROR_INVALID_VALUE;
      *to = {from.type, from.id};
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

int NumberOf(const Location& location) {
  if (location.type == CU_MEM_LOCATION_TYPE_INVALID) return kNoDevice;
  return location.type == CU_MEM_LOCATION_TYPE_DEVICE ? location.id
                                                      : CU_DEVICE_CPU;
}

CUresult AllocateManaged(CUdeviceptr* out, std::size_t bytes, unsigned flags) {
  if (out == nullptr ||
      (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  void* memory = nullptr;
  const CUresult result = AllocateHost(&memory, bytes, 0, /*managed=*/true);
  if (result == CUDA_SUCCESS) *out = reinterpret_cast<CUdeviceptr>(memory);
  return result;
}

CUresult Prefetch(CUdeviceptr address, std::size_t bytes,
                  const CUmemLocation& to, unsigned flags, CUstream handle,
                  bool per_thread) {
  Pages pages;
  CUresult result = ManagedPages(address, bytes, &pages);
  if (result != CUDA_SUCCESS) return result;
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  Location location;
  result = CheckLocation(to, &location);
  if (result != CUDA_SUCCESS) return result;
  Context* context = nullptr;
  std::uint64_t stream = 0;
  result = Driver::Get().Resolve(handle, per_thread, &context, &stream);
  if (result != CUDA_SUCCESS) return result;
  TheAdvice().Change(pages.begin, pages.end,
                     [&](Advice* a) { a->prefetched = location; });
  return CUDA_SUCCESS;
}

CUresult Advise(CUdeviceptr address, std::size_t bytes, CUmem_advise advice,
                const CUmemLocation& where) {
  Pages pages;
  CUresult result = ManagedPages(address, bytes, &pages);
  if (result != CUDA_SUCCESS) return result;
  Location location;
  // The others have no place.
  if (advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION ||
      advice == CU_MEM_ADVISE_SET_ACCESSED_BY ||
      advice == CU_MEM_ADVISE_UNSET_ACCESSED_BY) {
    result = CheckLocation(where, &location);
    if (result != CUDA_SUCCESS) return result;
  }
  const int number = NumberOf(location);
  const auto change = [&](Advice* a) {
    switch (advice) {
      case CU_MEM_ADVISE_SET_READ_MOSTLY:
      case CU_MEM_ADVISE_UNSET_READ_MOSTLY:
        a->read_mostly = advice == CU_MEM_ADVISE_SET_READ_MOSTLY;
        break;
      case CU_MEM_ADVISE_SET_PREFERRED_LOCATION:
      case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
        a->preferred = location;
        break;
      default:
        std::erase(a->accessed_by, number);
        if (advice == CU_MEM_ADVISE_SET_ACCESSED_BY) {
          a->accessed_by.insert(std::upper_bound(a->accessed_by.begin(),
                                                 a->accessed_by.end(), number),
                                number);
        }
    }
  };
  if (advice < CU_MEM_ADVISE_SET_READ_MOSTLY ||
      advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  TheAdvice().Change(pages.begin, pages.end, change);
  return CUDA_SUCCESS;
}

CUresult StoreAccessors(const std::vector<Advice>& all, void* data,
                        std::size_t bytes) {
  if (bytes == 0 || bytes % sizeof(int) != 0) return CUDA_ERROR_INVALID_VALUE;
  // Those that all pages have.
  std::vector<int> common = all.front().accessed_by;
  for (const Advice& advice : all) {
    std::vector<int> both;
    std::set_intersection(common.begin(), common.end(),
                          advice.accessed_by.begin(), advice.accessed_by.end(),
                          std::back_inserter(both));
    common = std::move(both);
  }
  common.resize(bytes / sizeof(int), kNoDevice);
  std::memcpy(data, common.data(), bytes);
  return CUDA_SUCCESS;
}

CUresult RangeAttribute(const Pages& pages, void* data, std::size_t bytes,
                        CUmem_range_attribute attribute) {
  if (data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const std::vector<Advice> all = TheAdvice().Of(pages.begin, pages.end);
  if (attribute == CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY) {
    return StoreAccessors(all, data, bytes);
  }
  if (bytes != sizeof(int)) return CUDA_ERROR_INVALID_VALUE;
  // Where pages differ, there is none.
  Location preferred = all.front().preferred;
  Location prefetched = all.front().prefetched;
  bool read_mostly = true;
  for (const Advice& advice : all) {
    read_mostly = read_mostly && advice.read_mostly;
    if (advice.preferred != preferred) preferred = {};
    if (advice.prefetched != prefetched) prefetched = {};
  }
  int value = 0;
  switch (attribute) {
    case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY:
      value = read_mostly ? 1 : 0;
      break;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION:
      value = NumberOf(preferred);
      break;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION:
      value = NumberOf(prefetched);
      break;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE:
      value = preferred.type;
      break;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID:
      value = preferred.id;
      break;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE:
      value = prefetched.type;
      break;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID:
      value = prefetched.id;
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  std::memcpy(data, &value, sizeof(value));
  return CUDA_SUCCESS;
}

// Which stream's work may use the memory: here all may, always.
CUresult Attach(CUstream handle, CUdeviceptr address, std::size_t bytes,
                unsigned flags, bool per_thread) {
  Range range;
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  std::uint64_t stream = 0;
  const CUresult result = driver.Resolve(handle, per_thread, &context, &stream);
  if (result != CUDA_SUCCESS) return result;
  if ((flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST &&
       flags != CU_MEM_ATTACH_SINGLE) ||
      !driver.ranges.Find(address, &range) || !range.managed ||
      range.address != address || (bytes != 0 && bytes != range.bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

}  // namespace

void ForgetAdvice(std::uint64_t address, std::uint64_t bytes) {
  TheAdvice().Forget(address / kPage * kPage,
                     (address + bytes + kPage - 1) / kPage * kPage);
}

}  // namespace pos::shim

using namespace pos::shim;  // NOLINT: this file implements the driver's API

CUresult CUDAAPI cuMemAllocManaged(CUdeviceptr* out, std::size_t bytes,
                                   unsigned flags) {
  return AllocateManaged(out, bytes, flags);
}

CUresult CUDAAPI cuMemAdvise(CUdeviceptr address, std::size_t bytes,
                             CUmem_advise advice, CUdevice device) {
  return Advise(address, bytes, advice, LocationOf(device));
}
CUresult CUDAAPI cuMemAdvise_v2(CUdeviceptr address, std::size_t bytes,
                                CUmem_advise advice, CUmemLocation location) {
  return Advise(address, bytes, advice, location);
}

CUresult CUDAAPI cuMemRangeGetAttribute(void* data, std::size_t bytes,
                                        CUmem_range_attribute attribute,
                                        CUdeviceptr address,
                                        std::size_t count) {
  Pages pages;
  const CUresult result = ManagedPages(address, count, &pages);
  return result != CUDA_SUCCESS ? result
                                : RangeAttribute(pages, data, bytes, attribute);
}

CUresult CUDAAPI cuMemRangeGetAttributes(void** data, std::size_t* bytes,
                                         CUmem_range_attribute* attributes,
                                         std::size_t count, CUdeviceptr address,
                                         std::size_t length) {
  Pages pages;
  CUresult result = ManagedPages(address, length, &pages);
  if (result != CUDA_SUCCESS) return result;
  if (data == nullptr || bytes == nullptr || attributes == nullptr ||
      count == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (std::size_t i = 0; i < count && result == CUDA_SUCCESS; ++i) {
    result = RangeAttribute(pages, data[i], bytes[i], attributes[i]);
  }
  return result;
}

#define POS_MANAGED_CALLS_(suffix, per_thread)                               \
  CUresult CUDAAPI cuMemPrefetchAsync##suffix(                               \
      CUdeviceptr address, std::size_t bytes, CUdevice device, CUstream s) { \
    return Prefetch(address, bytes, LocationOf(device), 0, s, per_thread);   \
  }                                                                          \
  CUresult CUDAAPI cuMemPrefetchAsync_v2##suffix(                            \
      CUdeviceptr address, std::size_t bytes, CUmemLocation to,              \
      unsigned flags, CUstream s) {                                          \
    return Prefetch(address, bytes, to, flags, s, per_thread);               \
  }                                                                          \
  CUresult CUDAAPI cuStreamAttachMemAsync##suffix(                           \
      CUstream s, CUdeviceptr address, std::size_t bytes, unsigned flags) {  \
    return Attach(s, address, bytes, flags, per_thread);                     \
  }
POS_MANAGED_CALLS_(, false)
extern "C" {
__attribute__((visibility("default"))) CUresult CUDAAPI
cuStreamAttachMemAsync_ptsz(CUstream s, CUdeviceptr address, std::size_t bytes,
                            unsigned flags);
__attribute__((visibility("default"))) CUresult CUDAAPI
cuMemPrefetchAsync_v2_ptsz(CUdeviceptr address, std::size_t bytes,
                           CUmemLocation to, unsigned flags, CUstream s);
}
POS_MANAGED_CALLS_(_ptsz, true)
#undef POS_MANAGED_CALLS_
