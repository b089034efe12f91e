// A driver with nothing behind it: two devices that can be looked at and do
// nothing. POS_LONE_DRIVER says what is wrong with it: "old" (its version),
// "empty" (no devices), "lacks" (a function), "refuses" and "crashes" (its
// start); anything else: nothing is.
#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

bool Is(const char* word) {
  const char* const is = std::getenv("POS_LONE_DRIVER");
  return is != nullptr && std::strcmp(is, word) == 0;
}

// Any signature: the caller cleans up its arguments.
CUresult Succeed() { return CUDA_SUCCESS; }
CUresult Init(unsigned) {
  if (Is("crashes")) std::abort();
  return Is("refuses") ? CUDA_ERROR_SYSTEM_DRIVER_MISMATCH : CUDA_SUCCESS;
}
CUresult Version(int* version) {
  *version = Is("old") ? 11020 : 13000;
  return CUDA_SUCCESS;
}
CUresult Count(int* count) {
  *count = Is("empty") ? 0 : 2;
  return CUDA_SUCCESS;
}
CUresult Number(CUdevice* device, int ordinal) {
  *device = ordinal;
  return CUDA_SUCCESS;
}
CUresult Name(char* name, int bytes, CUdevice device) {
  std::snprintf(name, static_cast<std::size_t>(bytes), "Stand-in %d", device);
  return CUDA_SUCCESS;
}
CUresult Memory(std::size_t* bytes, CUdevice) {
  *bytes = std::size_t{16} << 30;
  return CUDA_SUCCESS;
}
CUresult Attribute(int* value, CUdevice_attribute attribute, CUdevice) {
  *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 8
           : attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT   ? 108
                                                                     : 0;
  return CUDA_SUCCESS;
}
CUresult ErrorName(CUresult, const char** name) {
  *name = "CUDA_ERROR_OF_THE_STAND_IN";
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) CUresult cuGetProcAddress_v2(
    const char* name, void** function, int, cuuint64_t,
    CUdriverProcAddressQueryResult*) {
  const struct {
    const char* name;
    void* function;
  } functions[] = {
      {"cuPosClientLibrary", nullptr},
      {"cuMemAddressReserve",
       Is("lacks") ? nullptr : reinterpret_cast<void*>(&Succeed)},
      {"cuInit", reinterpret_cast<void*>(&Init)},
      {"cuDriverGetVersion", reinterpret_cast<void*>(&Version)},
      {"cuDeviceGetCount", reinterpret_cast<void*>(&Count)},
      {"cuDeviceGet", reinterpret_cast<void*>(&Number)},
      {"cuDeviceGetName", reinterpret_cast<void*>(&Name)},
      {"cuDeviceTotalMem", reinterpret_cast<void*>(&Memory)},
      {"cuDeviceGetAttribute", reinterpret_cast<void*>(&Attribute)},
      {"cuGetErrorName", reinterpret_cast<void*>(&ErrorName)},
      {"cuGetErrorString", reinterpret_cast<void*>(&ErrorName)},
  };
  *function = reinterpret_cast<void*>(&Succeed);
  for (const auto& f : functions) {
    if (std::strcmp(f.name, name) == 0) *function = f.function;
  }
  return *function != nullptr ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
