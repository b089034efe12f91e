// A GPU behind the real driver. See pos/device/device.h for the contract.
//
// What the driver does not have, or has otherwise:
//   addresses   one reservation (cuMemAddressReserve) at the session's arena;
//               Map creates memory there and clears it
//   completion  the driver reports none: every piece of work is followed by an
//               event, and one thread looks at the oldest of each stream
//   copies      of memory that the driver has not pinned go through buffers of
//               this device's that it has, so that no submission waits
//   checks      allocations are this device's to know: a copy outside them ends
//               the context as it would on a device that checks
//   cancelling  a context that is to end is destroyed; the driver ends what
//               runs in it. Kernels that never end keep a real GPU's driver
//               waiting; the runner is killed then
//   output      of kernels: the driver writes it to this process's standard
//               streams when something synchronizes (driver_output.h)
//
// The primary context of the device is used for clearing, reading and writing
// memory; every DeviceContext is a context of its own.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_CUDA_DEVICE_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_CUDA_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "pos/base/status.h"
#include "pos/device/device.h"

namespace pos::cuda_device {

struct CudaOptions {
  std::string driver_library;  // "": libcuda.so.1 as the loader finds it
  int ordinal = 0;             // the driver's
  // Where Map may put memory. Nothing may lie there in this process.
  std::uint64_t arena_base = 0x200000000000;
  std::uint64_t arena_bytes = 480ull << 30;
};

// Starts the driver, if need be, and the device's context (0.3 to 3 s).
// kNoSuch: no driver or no such device; kIncompatible: the driver is too old,
// or does not grant the addresses; the message says which it gave instead.
Result<std::unique_ptr<Device>> NewCudaDevice(const CudaOptions& options);

// The devices of the driver, without a context on any.
Result<std::vector<DeviceInfo>> ListCudaDevices(
    const std::string& driver_library);

// Whether the driver still answers for a device that NewCudaDevice made, while
// no work runs there. Blocks for as long as the driver does.
Status CheckCudaDevice(const Device& device);

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_CUDA_DEVICE_H_
