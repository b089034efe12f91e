// Limits of contexts (cuCtxSetLimit). The runner's device obeys those of the
// stack, of the printf FIFO and of the heap; the others change nothing that a
// program could tell, and are kept for whoever asks.
#include <algorithm>

#include "remoting/shim/driver_state.h"

namespace pos::shim {
namespace {

// CUDA's defaults for a device of this kind, in bytes or counts.
std::uint64_t DefaultLimit(std::int32_t limit) {
  switch (limit) {
    case CU_LIMIT_STACK_SIZE:
      return 1024;
    case CU_LIMIT_PRINTF_FIFO_SIZE:
      return 1u << 20;
    case CU_LIMIT_MALLOC_HEAP_SIZE:
      return 8u << 20;
    case CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH:
      return 2;
    case CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT:
      return 2048;
    case CU_LIMIT_MAX_L2_FETCH_GRANULARITY:
      return 128;
    default:
      return 0;
  }
}

// Limits that a context of this device has.
bool HasLimit(const Context& context, std::int32_t limit) {
  if (limit == CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH) {
    // Kernels of later devices cannot synchronize with their children.
    return Driver::Get()
               .device(context.device)
               ->Attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) < 9;
  }
  return limit >= CU_LIMIT_STACK_SIZE &&
         limit <= CU_LIMIT_PERSISTING_L2_CACHE_SIZE;
}

// What becomes of the value; an error for one that cannot be.
CUresult ApplyLimit(Context* context, std::int32_t limit,
                    std::uint64_t* value) {
  switch (limit) {
    case CU_LIMIT_STACK_SIZE:
    case CU_LIMIT_PRINTF_FIFO_SIZE:
    case CU_LIMIT_MALLOC_HEAP_SIZE: {
      cuda::CtxSetLimitOut out;
      const CUresult result = Call(
          cuda::CtxSetLimitArgs{
              .context = context->runner_id.load(std::memory_order_acquire),
              .value = *value,
              .limit = limit},
          &out);
      *value = out.in_effect;
      return result;
    }
    case CU_LIMIT_MAX_L2_FETCH_GRANULARITY:
      *value = std::min<std::uint64_t>(*value, 128);
      return CUDA_SUCCESS;
    case CU_LIMIT_PERSISTING_L2_CACHE_SIZE:
      *value = std::min<std::uint64_t>(
          *value,
          static_cast<std::uint64_t>(
              Driver::Get()
                  .device(context->device)
                  ->Attribute(
                      CU_DEVICE_ATTRIBUTE_MAX_PERSISTING_L2_CACHE_SIZE)));
      return CUDA_SUCCESS;
    default:  // kernels launch none: kept, for whoever asks
      return CUDA_SUCCESS;
  }
}

}  // namespace
}  // namespace pos::shim

using namespace pos::shim;  // NOLINT: this file implements the driver's API

CUresult CUDAAPI cuCtxSetLimit(CUlimit limit, std::size_t value) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  if (result != CUDA_SUCCESS) return result;
  if (!HasLimit(*context, limit)) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  std::uint64_t in_effect = value;
  const CUresult applied = ApplyLimit(context, limit, &in_effect);
  if (applied != CUDA_SUCCESS) return applied;
  pos::MutexLock lock(&context->mu);
  context->limits[limit] = in_effect;
  return CUDA_SUCCESS;
}
CUresult CUDAAPI cuCtxGetLimit(std::size_t* value, CUlimit limit) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  if (result != CUDA_SUCCESS) return result;
  if (!HasLimit(*context, limit)) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  pos::MutexLock lock(&context->mu);
  const auto it = context->limits.find(limit);
  *value = it == context->limits.end() ? DefaultLimit(limit) : it->second;
  return CUDA_SUCCESS;
}
