#include "pos/cuda_impl/device_sim/function.h"

#include <cuda.h>

#include <algorithm>

#include "pos/base/log.h"
#include "pos/cuda_impl/device_sim/attributes.h"

namespace pos::sim {
namespace {

constexpr std::int32_t kSharedOptIn =
    static_cast<std::int32_t>(kSharedPerBlockOptIn);

// Registers are handed to warps in units of 256.
std::uint32_t ThreadsByRegisters(std::uint32_t registers) {
  if (registers == 0) return kMaxThreadsPerBlock;
  const std::uint32_t per_warp = (registers * 32 + 255) / 256 * 256;
  return std::min(kMaxThreadsPerBlock,
                  kRegistersPerMultiprocessor / per_warp * 32);
}

}  // namespace

SimFunction::SimFunction(const ptx::Entry& entry, int ptx_sm,
                         std::uint32_t device_sm, std::uint64_t constant_bytes,
                         std::shared_ptr<PtxKernel> kernel)
    : kernel_(std::move(kernel)) {
  info_.name = entry.name;
  for (const ptx::Param& param : entry.params) {
    info_.params.push_back({param.offset, param.size});
  }
  info_.params_bytes = entry.params_bytes;
  info_.prints = entry.prints;
  info_.uses_heap = entry.uses_heap;
  if (!entry.unsupported.empty()) {
    // On a GPU this PTX would meet the driver's compiler, and one that it
    // cannot compile is CUDA_ERROR_INVALID_PTX, under lazy loading at the
    // kernel's first use.
    info_.launch_error = CUDA_ERROR_INVALID_PTX;
    info_.launch_error_text =
        "the simulated device cannot run this kernel: " + entry.unsupported;
  }
  limits_.max_threads = std::min(entry.max_threads_per_block,
                                 ThreadsByRegisters(entry.registers));
  limits_.static_shared_bytes = entry.static_shared_bytes;
  limits_.registers = entry.registers;
  limits_.local_bytes = entry.local_bytes;
  limits_.constant_bytes = constant_bytes;
  limits_.ptx_version = ptx_sm;
  limits_.binary_version = static_cast<int>(device_sm);
  SetInfo(limits_);
}

SimFunction::SimFunction(const fatbin::CubinKernel& kernel,
                         std::uint32_t device_sm)
    : kernel_(nullptr) {
  info_.name = kernel.name;
  for (const fatbin::CubinParam& param : kernel.params) {
    info_.params.push_back({param.offset, param.bytes});
  }
  info_.params_bytes = kernel.params_bytes;
  info_.launch_error = CUDA_ERROR_NO_BINARY_FOR_GPU;
  info_.launch_error_text =
      "the simulated device needs PTX and the program carries machine code "
      "only for this kernel; build it with PTX (nvcc -gencode "
      "arch=compute_90,code=compute_90)";
  limits_.max_threads = kernel.max_threads != 0
                            ? kernel.max_threads
                            : ThreadsByRegisters(kernel.registers);
  limits_.static_shared_bytes = kernel.shared_bytes;
  limits_.registers = kernel.registers;
  limits_.local_bytes = kernel.frame_bytes;
  limits_.ptx_version = static_cast<int>(device_sm);
  limits_.binary_version = static_cast<int>(device_sm);
  SetInfo(limits_);
}

void SimFunction::SetInfo(const Limits& limits) {
  max_dynamic_shared_bytes_ =
      kSharedPerBlock - std::min(kSharedPerBlock, limits.static_shared_bytes);
  const auto number = [](std::uint64_t value) {
    return static_cast<std::int32_t>(
        std::min<std::uint64_t>(value, 0x7fffffff));
  };
  info_.attributes = {
      {CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, number(limits.max_threads)},
      {CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, number(limits.static_shared_bytes)},
      {CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES, number(limits.constant_bytes)},
      {CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, number(limits.local_bytes)},
      {CU_FUNC_ATTRIBUTE_NUM_REGS, number(limits.registers)},
      {CU_FUNC_ATTRIBUTE_PTX_VERSION, limits.ptx_version},
      {CU_FUNC_ATTRIBUTE_BINARY_VERSION, limits.binary_version},
      {CU_FUNC_ATTRIBUTE_CACHE_MODE_CA, 0},
      {CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
       number(max_dynamic_shared_bytes_)},
      {CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, -1},
      {CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET, 0},
      {CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH, 0},
      {CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT, 0},
      {CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH, 0},
      {CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 0},
      {CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE, 0},
  };
}

DeviceError SimFunction::SetAttribute(std::int32_t attribute,
                                      std::int32_t value) {
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      if (value < 0 ||
          value > kSharedOptIn -
                      static_cast<std::int32_t>(limits_.static_shared_bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      max_dynamic_shared_bytes_ = static_cast<std::uint32_t>(value);
      break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      if (value < -1 || value > 100) return CUDA_ERROR_INVALID_VALUE;
      break;
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
      if (value < 0) return CUDA_ERROR_INVALID_VALUE;
      break;
    default:  // read-only, or unknown
      return CUDA_ERROR_INVALID_VALUE;
  }
  for (auto& [number, current] : info_.attributes) {
    if (number == attribute) current = value;
  }
  return 0;
}

DeviceError SimFunction::CheckShape(const LaunchConfig& config) const {
  const auto& [bx, by, bz] = config.block;
  const auto& [gx, gy, gz] = config.grid;
  const std::uint64_t threads = std::uint64_t{bx} * by * bz;
  if (threads == 0 || bx > kMaxBlockX || by > kMaxBlockY || bz > kMaxBlockZ ||
      threads > kMaxThreadsPerBlock) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (gx == 0 || gy == 0 || gz == 0 || gx > kMaxGridX || gy > kMaxGridYZ ||
      gz > kMaxGridYZ) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  // Fits the device but not this kernel (registers, __launch_bounds__).
  if (threads > limits_.max_threads) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  if (config.dynamic_shared_bytes > max_dynamic_shared_bytes_) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (config.cooperative) {
    const std::uint64_t resident =
        std::uint64_t{kMultiprocessors} *
        ResidentBlocks(
            static_cast<std::uint32_t>(threads), limits_.registers,
            limits_.static_shared_bytes + config.dynamic_shared_bytes);
    if (std::uint64_t{gx} * gy * gz > resident) {
      return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    }
  }
  return 0;
}

DeviceError SimFunction::CheckLaunch(const LaunchConfig& config,
                                     std::span<const std::byte> params) {
  if (info_.launch_error == 0) {
    if (const DeviceError error = CheckShape(config)) return error;
    const auto& [cx, cy, cz] = config.cluster;
    if (std::uint64_t{cx} * cy * cz > 1) return CUDA_ERROR_NOT_SUPPORTED;
    if (params.size() < info_.params_bytes) return CUDA_ERROR_INVALID_VALUE;
    const Status ready = kernel_->Prepare();
    if (ready.ok()) return 0;
    info_.launch_error = CUDA_ERROR_INVALID_PTX;
    info_.launch_error_text =
        "the simulated device cannot run this kernel: " + ready.message();
  }
  if (!error_logged_) {
    error_logged_ = true;
    POS_LOG(kWarning, "kernel cannot be launched",
            {{"kernel", info_.name},
             {"error", info_.launch_error},
             {"reason", info_.launch_error_text}});
  }
  return info_.launch_error;
}

}  // namespace pos::sim
