// The real driver: a library found at run time, its functions by name.
//
// POS's own client library has the same name and the same functions. It is
// recognized and refused unless the caller asked for it by path: a runner that
// took it for a driver by accident would be its own client.
//
// Threads: any, after Load. The library stays loaded.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_DRIVER_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_DRIVER_H_

#include <cuda.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "pos/base/status.h"

namespace pos::cuda_device {

// Drivers before CUDA 12.8 lack what driver.def needs.
inline constexpr int kOldestDriver = 12080;

struct Driver {
#define POS_DRIVER(member, symbol, version, need) decltype(&::symbol) member;
#include "pos/cuda_impl/device_cuda/driver.def"
#undef POS_DRIVER

  int version = 0;      // 13000 for CUDA 13.0
  bool is_pos = false;  // POS's client library, not a driver
  std::string path;

  // Loads and initializes the driver once a process; `library` "" is
  // libcuda.so.1 as the loader finds it. kNoSuch: no library; kIncompatible: it
  // is too old, lacks a function, or is POS's own and was not asked for;
  // kDeviceGone: it loads and does not start. Messages name what failed.
  static Result<const Driver*> Load(const std::string& library);

  // OK, or the driver's error with its name: "cuMemCreate:
  // CUDA_ERROR_OUT_OF_MEMORY (out of memory)". kOutOfMemory for that one,
  // kDeviceGone for faults of execution, kInternal else.
  [[nodiscard]] Status Check(CUresult result, std::string_view what) const;
  [[nodiscard]] std::string NameOf(CUresult result) const;
};

// Whether this error means that its context can no longer be used.
[[nodiscard]] bool IsFatal(CUresult result);

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_DRIVER_H_
