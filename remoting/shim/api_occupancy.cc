// Occupancy: how many blocks fit a multiprocessor. Computed here from what the
// device and the function say; the rules are those of the CUDA Programming
// Guide's "Compute Capabilities" tables and the occupancy calculator that ships
// with the toolkit (allocation units of compute capability 8.0 and later).
#include <algorithm>
#include <cstdint>

#include "remoting/shim/code.h"
#include "remoting/shim/driver_state.h"

namespace pos::shim {
namespace {

constexpr std::uint64_t kRegisterUnit = 256;  // registers, per warp
constexpr std::uint64_t kSharedUnit = 128;    // bytes, per block

std::uint64_t RoundUp(std::uint64_t n, std::uint64_t unit) {
  return (n + unit - 1) / unit * unit;
}

struct Inputs {
  const DeviceState* device = nullptr;
  std::uint64_t registers = 0;
  std::uint64_t static_shared = 0;
  std::uint64_t max_threads = 1024;
  std::uint64_t max_dynamic_shared = 0;

  [[nodiscard]] std::uint64_t Device(int attribute) const {
    return static_cast<std::uint64_t>(device->Attribute(attribute));
  }
};

CUresult Read(CUfunction handle, Inputs* inputs) {
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  CUresult result = driver.Current(&context);
  if (result != CUDA_SUCCESS) return result;
  Function* function = nullptr;
  result = driver.ResolveFunction(handle, context, &function);
  if (result != CUDA_SUCCESS) return result;
  inputs->device = driver.device(context->device);
  MutexLock lock(&driver.code_mu);
  const auto attribute = [&](int number) {
    const auto it = function->attributes.find(number);
    return it == function->attributes.end()
               ? std::uint64_t{0}
               : static_cast<std::uint64_t>(it->second);
  };
  inputs->registers = attribute(CU_FUNC_ATTRIBUTE_NUM_REGS);
  inputs->static_shared = attribute(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
  inputs->max_threads = function->max_threads.load(std::memory_order_relaxed);
  inputs->max_dynamic_shared =
      function->max_dynamic_shared.load(std::memory_order_relaxed);
  return CUDA_SUCCESS;
}

std::uint64_t BlocksPerProcessor(const Inputs& in, std::uint64_t threads,
                                 std::uint64_t dynamic_shared) {
  if (threads == 0 || threads > in.max_threads) return 0;
  const std::uint64_t warps = RoundUp(threads, 32) / 32;
  const std::uint64_t max_warps =
      in.Device(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR) / 32;
  std::uint64_t blocks =
      std::min(in.Device(CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR),
               max_warps / warps);
  if (in.registers != 0) {
    const std::uint64_t per_warp = RoundUp(in.registers * 32, kRegisterUnit);
    blocks = std::min(
        blocks,
        in.Device(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR) /
            (per_warp * warps));
  }
  const std::uint64_t shared = RoundUp(
      in.static_shared + dynamic_shared +
          in.Device(CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK),
      kSharedUnit);
  if (shared != 0) {
    blocks = std::min(
        blocks,
        in.Device(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR) /
            shared);
  }
  return blocks;
}

CUresult MaxPotential(int* grid, int* block, CUfunction function,
                      CUoccupancyB2DSize shared_of, std::size_t shared,
                      int limit) {
  if (grid == nullptr || block == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Inputs in;
  const CUresult result = Read(function, &in);
  if (result != CUDA_SUCCESS) return result;
  std::uint64_t top = in.max_threads;
  if (limit > 0) top = std::min(top, static_cast<std::uint64_t>(limit));
  std::uint64_t best_threads = 0;
  std::uint64_t best_block = 0;
  std::uint64_t best_blocks = 0;
  for (std::uint64_t size = RoundUp(top, 32); size >= 32; size -= 32) {
    const std::uint64_t threads = std::min(size, top);
    const std::size_t dynamic =
        shared_of != nullptr ? shared_of(static_cast<int>(threads)) : shared;
    const std::uint64_t blocks = BlocksPerProcessor(in, threads, dynamic);
    if (blocks * threads > best_threads) {
      best_threads = blocks * threads;
      best_block = threads;
      best_blocks = blocks;
    }
  }
  *block = static_cast<int>(best_block);
  *grid = static_cast<int>(best_blocks *
                           in.Device(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT));
  return CUDA_SUCCESS;
}

CUresult MaxActive(int* blocks, CUfunction function, int threads,
                   std::size_t shared) {
  if (blocks == nullptr || threads <= 0) return CUDA_ERROR_INVALID_VALUE;
  Inputs in;
  const CUresult result = Read(function, &in);
  if (result != CUDA_SUCCESS) return result;
  *blocks = static_cast<int>(
      BlocksPerProcessor(in, static_cast<std::uint64_t>(threads), shared));
  return CUDA_SUCCESS;
}

// Blocks of a cluster as `config` wants it; 0: the attribute makes no sense.
std::uint64_t ClusterBlocks(const CUlaunchConfig& config) {
  std::uint64_t blocks = 1;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    if (config.attrs[i].id != CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) continue;
    const auto& size = config.attrs[i].value.clusterDim;
    blocks = std::uint64_t{size.x} * size.y * size.z;
  }
  return blocks;
}

// Clusters of more than one block are not launched (api_launch.cc), so none of
// them are ever active: whoever asks, as cublasCreate does, goes without.
CUresult MaxActiveClusters(int* clusters, CUfunction function,
                           const CUlaunchConfig* config) {
  if (clusters == nullptr || config == nullptr ||
      (config->numAttrs != 0 && config->attrs == nullptr)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const std::uint64_t cluster_blocks = ClusterBlocks(*config);
  if (cluster_blocks == 0) return CUDA_ERROR_INVALID_CLUSTER_SIZE;
  const std::uint64_t threads =
      std::uint64_t{config->blockDimX} * config->blockDimY * config->blockDimZ;
  if (threads == 0) return CUDA_ERROR_INVALID_VALUE;
  Inputs in;
  const CUresult result = Read(function, &in);
  if (result != CUDA_SUCCESS) return result;
  *clusters =
      cluster_blocks > 1
          ? 0
          : static_cast<int>(
                BlocksPerProcessor(in, threads, config->sharedMemBytes) *
                in.Device(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT));
  return CUDA_SUCCESS;
}

CUresult MaxClusterSize(int* size, CUfunction function,
                        const CUlaunchConfig* config) {
  if (size == nullptr || config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Inputs in;
  const CUresult result = Read(function, &in);
  if (result == CUDA_SUCCESS) *size = 1;
  return result;
}

}  // namespace
}  // namespace pos::shim

using namespace pos::shim;  // NOLINT: this file implements the driver's API

CUresult CUDAAPI cuOccupancyMaxActiveBlocksPerMultiprocessor(
    int* blocks, CUfunction function, int threads, std::size_t shared) {
  return MaxActive(blocks, function, threads, shared);
}
CUresult CUDAAPI cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, CUfunction function, int threads, std::size_t shared,
    unsigned) {
  return MaxActive(blocks, function, threads, shared);
}
CUresult CUDAAPI cuOccupancyMaxPotentialBlockSize(int* grid, int* block,
                                                  CUfunction function,
                                                  CUoccupancyB2DSize shared_of,
                                                  std::size_t shared,
                                                  int limit) {
  return MaxPotential(grid, block, function, shared_of, shared, limit);
}
CUresult CUDAAPI cuOccupancyMaxPotentialBlockSizeWithFlags(
    int* grid, int* block, CUfunction function, CUoccupancyB2DSize shared_of,
    std::size_t shared, int limit, unsigned) {
  return MaxPotential(grid, block, function, shared_of, shared, limit);
}
CUresult CUDAAPI cuOccupancyAvailableDynamicSMemPerBlock(std::size_t* bytes,
                                                         CUfunction function,
                                                         int blocks,
                                                         int threads) {
  if (bytes == nullptr || blocks <= 0 || threads <= 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Inputs in;
  const CUresult result = Read(function, &in);
  if (result != CUDA_SUCCESS) return result;
  const std::uint64_t share =
      in.Device(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR) /
      static_cast<std::uint64_t>(blocks) / kSharedUnit * kSharedUnit;
  const std::uint64_t fixed =
      in.static_shared +
      in.Device(CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK);
  const std::uint64_t most =
      in.Device(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  *bytes =
      share <= fixed ? 0 : std::min(share - fixed, most - in.static_shared);
  return CUDA_SUCCESS;
}
CUresult CUDAAPI cuOccupancyMaxActiveClusters(int* clusters,
                                              CUfunction function,
                                              const CUlaunchConfig* config) {
  return MaxActiveClusters(clusters, function, config);
}
CUresult CUDAAPI cuOccupancyMaxPotentialClusterSize(
    int* size, CUfunction function, const CUlaunchConfig* config) {
  return MaxClusterSize(size, function, config);
}
