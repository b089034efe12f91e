// What the simulated device says about itself: an H200's CUdevice_attribute
// values, with honest ones where the simulation differs.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_ATTRIBUTES_H_
#define POS_CUDA_IMPL_DEVICE_SIM_ATTRIBUTES_H_

#include <cstdint>

#include "pos/cuda_impl/device_sim/options.h"
#include "pos/device/device.h"

namespace pos::sim {

// Limits of compute capability 9.0 (CUDA C++ Programming Guide 13.0, table
// "Technical Specifications per Compute Capability").
inline constexpr std::uint32_t kMaxThreadsPerBlock = 1024;
inline constexpr std::uint32_t kMaxBlockX = 1024;
inline constexpr std::uint32_t kMaxBlockY = 1024;
inline constexpr std::uint32_t kMaxBlockZ = 64;
inline constexpr std::uint32_t kMaxGridX = 0x7fffffff;
inline constexpr std::uint32_t kMaxGridYZ = 65535;
inline constexpr std::uint32_t kSharedPerBlock = 48 << 10;
inline constexpr std::uint32_t kSharedPerBlockOptIn = 227 << 10;
inline constexpr std::uint32_t kSharedPerMultiprocessor = 228 << 10;
inline constexpr std::uint32_t kSharedReserved = 1 << 10;
inline constexpr std::uint32_t kMultiprocessors = 132;
inline constexpr std::uint32_t kThreadsPerMultiprocessor = 2048;
inline constexpr std::uint32_t kBlocksPerMultiprocessor = 32;
inline constexpr std::uint32_t kRegistersPerMultiprocessor = 65536;

[[nodiscard]] DeviceInfo MakeDeviceInfo(const SimOptions& options);

// Blocks of a kernel that one multiprocessor holds at once.
[[nodiscard]] std::uint32_t ResidentBlocks(std::uint32_t threads_per_block,
                                           std::uint32_t registers_per_thread,
                                           std::uint32_t shared_bytes);

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_ATTRIBUTES_H_
