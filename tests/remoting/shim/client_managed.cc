// Managed memory: what is allowed, what is told of it, when it goes.
#include <array>
#include <cstring>

#include "tests/remoting/shim/client_check.h"

namespace pos::client {
namespace {

CUmemLocation On(CUmemLocationType type, int id) {
  CUmemLocation location{};
  location.type = type;
  location.id = id;
  return location;
}

template <typename T>
T Pointer(CUpointer_attribute attribute, CUdeviceptr pointer) {
  T value{};
  OK(cuPointerGetAttribute(&value, attribute, pointer));
  return value;
}

int RangeOf(CUmem_range_attribute attribute, CUdeviceptr at,
            std::size_t bytes) {
  int value = -77;
  OK(cuMemRangeGetAttribute(&value, sizeof(value), attribute, at, bytes));
  return value;
}

void Attributes(CUdeviceptr block, CUdeviceptr pinned) {
  WANT(1, Pointer<int>(CU_POINTER_ATTRIBUTE_IS_MANAGED, block + 7));
  WANT(0, Pointer<int>(CU_POINTER_ATTRIBUTE_IS_MANAGED, pinned));
  WANT(CU_MEMORYTYPE_DEVICE,
       Pointer<unsigned>(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, block));
  TRUE(Pointer<void*>(CU_POINTER_ATTRIBUTE_HOST_POINTER, block + 7) ==
       reinterpret_cast<void*>(block + 7));
  TRUE(Pointer<CUdeviceptr>(CU_POINTER_ATTRIBUTE_DEVICE_POINTER, block + 7) ==
       block + 7);
  CUdeviceptr base = 0;
  std::size_t bytes = 0;
  OK(cuMemGetAddressRange(&base, &bytes, block + 100));
  TRUE(base == block && bytes == 40000);
  unsigned flags = 0;
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemHostGetFlags(&flags, reinterpret_cast<void*>(block)));
}

void AdviceAndPrefetches(CUdeviceptr block, CUdeviceptr device) {
  const CUmemLocation gpu = On(CU_MEM_LOCATION_TYPE_DEVICE, 0);
  const CUmemLocation cpu = On(CU_MEM_LOCATION_TYPE_HOST, 0);
  WANT(CUDA_ERROR_INVALID_DEVICE,
       cuMemPrefetchAsync(block, 4096, On(CU_MEM_LOCATION_TYPE_DEVICE, 7), 0,
                          nullptr));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemPrefetchAsync(block, 4096, gpu, 1, nullptr));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemPrefetchAsync(block, 40001, gpu, 0, nullptr));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemPrefetchAsync(device, 4096, gpu, 0, nullptr));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemAdvise(block, 4096, static_cast<CUmem_advise>(7), gpu));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemAdvise(device, 4096, CU_MEM_ADVISE_SET_READ_MOSTLY, gpu));
  constexpr auto kMostly = CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY;
  constexpr auto kPreferred = CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION;
  constexpr auto kFetched = CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION;
  WANT(0, RangeOf(kMostly, block, 40000));
  WANT(CU_DEVICE_INVALID, RangeOf(kPreferred, block, 40000));
  OK(cuMemAdvise(block, 40000, CU_MEM_ADVISE_SET_READ_MOSTLY, gpu));
  // The second and third page.
  OK(cuMemAdvise(block + 5000, 4096, CU_MEM_ADVISE_UNSET_READ_MOSTLY, gpu));
  OK(cuMemAdvise(block, 8192, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, gpu));
  OK(cuMemPrefetchAsync(block, 40000, cpu, 0, nullptr));
  WANT(0, RangeOf(kMostly, block, 40000));
  WANT(1, RangeOf(kMostly, block, 4096));
  WANT(0, RangeOf(kMostly, block, 4097));
  WANT(0, RangeOf(kMostly, block + 12287, 2));
  WANT(1, RangeOf(kMostly, block + 12288, 40000 - 12288));
  WANT(0, RangeOf(kPreferred, block, 8192));
  WANT(CU_DEVICE_INVALID, RangeOf(kPreferred, block, 8193));
  WANT(CU_MEM_LOCATION_TYPE_DEVICE,
       RangeOf(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE, block, 1));
  WANT(CU_DEVICE_CPU, RangeOf(kFetched, block, 40000));
  OK(cuMemAdvise(block, 40000, CU_MEM_ADVISE_SET_ACCESSED_BY, gpu));
  OK(cuMemAdvise(block, 4096, CU_MEM_ADVISE_SET_ACCESSED_BY, cpu));
  std::array<int, 3> who{};
  OK(cuMemRangeGetAttribute(who.data(), sizeof(who),
                            CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, block, 4096));
  TRUE((who == std::array<int, 3>{CU_DEVICE_CPU, 0, CU_DEVICE_INVALID}));
  OK(cuMemRangeGetAttribute(who.data(), sizeof(who),
                            CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, block, 40000));
  TRUE((who == std::array<int, 3>{0, CU_DEVICE_INVALID, CU_DEVICE_INVALID}));
  int mostly = -1;
  int fetched = -9;
  void* data[] = {&mostly, &fetched};
  std::size_t sizes[] = {4, 4};
  CUmem_range_attribute attributes[] = {kMostly, kFetched};
  OK(cuMemRangeGetAttributes(data, sizes, attributes, 2, block, 4096));
  TRUE(mostly == 1 && fetched == CU_DEVICE_CPU);
  sizes[1] = 8;
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemRangeGetAttributes(data, sizes, attributes, 2, block, 4096));
}

}  // namespace

void ManagedMemory() {
  const Program p = Program::Start();
  CUdeviceptr block = 0;
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemAllocManaged(&block, 100, 0));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemAllocManaged(&block, 100, CU_MEM_ATTACH_SINGLE));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemAllocManaged(&block, 0, CU_MEM_ATTACH_GLOBAL));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemAllocManaged(nullptr, 100, CU_MEM_ATTACH_GLOBAL));
  WANT(CUDA_ERROR_OUT_OF_MEMORY,
       cuMemAllocManaged(&block, std::size_t{1} << 50, CU_MEM_ATTACH_GLOBAL));
  OK(cuMemAllocManaged(&block, 40000, CU_MEM_ATTACH_GLOBAL));
  auto* const words = reinterpret_cast<volatile unsigned*>(block);
  WANT(0, words[9999]);
  words[0] = 5;
  p.Store(block + 4, 6);
  OK(cuCtxSynchronize());
  TRUE(words[0] == 5 && words[1] == 6);
  void* pinned = nullptr;
  OK(cuMemHostAlloc(&pinned, 4096, 0));
  CUdeviceptr device = 0;
  OK(cuMemAlloc(&device, 8192));
  Attributes(block, reinterpret_cast<CUdeviceptr>(pinned));
  AdviceAndPrefetches(block, device);
  OK(cuStreamAttachMemAsync(nullptr, block, 0, CU_MEM_ATTACH_SINGLE));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuStreamAttachMemAsync(nullptr, block, 7, CU_MEM_ATTACH_SINGLE));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuStreamAttachMemAsync(nullptr, device, 0, CU_MEM_ATTACH_SINGLE));
  // Each kind of memory has its own way to go.
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(reinterpret_cast<void*>(block)));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuMemFree(reinterpret_cast<CUdeviceptr>(pinned)));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemFree(block + 8));
  OK(cuMemFree(block));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemFree(block));
  // What was advised is forgotten, and what lay there is.
  CUdeviceptr again = 0;
  OK(cuMemAllocManaged(&again, 40000, CU_MEM_ATTACH_HOST));
  WANT(0, RangeOf(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, again, 4096));
  WANT(0, reinterpret_cast<volatile unsigned*>(again)[1]);
  // It goes with its context; pinned memory stays.
  OK(cuDevicePrimaryCtxReset(0));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemFree(again));
  OK(cuMemFreeHost(pinned));
}

}  // namespace pos::client
