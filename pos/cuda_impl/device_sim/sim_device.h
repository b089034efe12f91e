// The simulated device: device memory in host memory, kernels run by the PTX
// interpreter, streams as asynchronous as a GPU's. See pos/device/device.h for
// the contract and engine/engine.h for how work is carried out.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_SIM_DEVICE_H_
#define POS_CUDA_IMPL_DEVICE_SIM_SIM_DEVICE_H_

#include <memory>

#include "pos/base/status.h"
#include "pos/cuda_impl/device_sim/options.h"
#include "pos/device/device.h"

namespace pos::sim {

// Starts the device's threads. kInvalid for options that make no sense. The
// arena stays reserved by the caller until the device is destroyed.
Result<std::unique_ptr<Device>> NewSimDevice(const SimOptions& options);

// What the device of `options` will say of itself, without starting one.
[[nodiscard]] DeviceInfo SimDeviceInfo(const SimOptions& options);

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_SIM_DEVICE_H_
