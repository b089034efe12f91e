// Launches. The path of a launch: resolve stream and function, check limits,
// write the frame in place in the ring.
#include <cstring>

#include "remoting/shim/code.h"
#include "remoting/shim/driver_log.h"
#include "remoting/shim/driver_state.h"
#include "remoting/shim/output.h"

namespace pos::shim {
namespace {

struct Shape {
  unsigned grid[3];
  unsigned block[3];
  unsigned shared_bytes;
  bool cooperative;
  bool extended = false;  // `more` is to be sent, too
  cuda::LaunchExtension more{};
};

// What cuLaunchKernel checks at the call.
CUresult CheckShape(const Shape& shape, const Function& function) {
  for (int i = 0; i < 3; ++i) {
    if (shape.grid[i] == 0 || shape.block[i] == 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  // Limits of every device of compute capability 3.0 and later.
  if (shape.grid[0] > 0x7fffffffu || shape.grid[1] > 65535 ||
      shape.grid[2] > 65535 || shape.block[0] > 1024 || shape.block[1] > 1024 ||
      shape.block[2] > 64) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const std::uint64_t threads =
      std::uint64_t{shape.block[0]} * shape.block[1] * shape.block[2];
  if (threads > 1024) return CUDA_ERROR_INVALID_VALUE;
  if (threads > function.max_threads.load(std::memory_order_relaxed)) {
    return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  }
  if (shape.shared_bytes >
      function.max_dynamic_shared.load(std::memory_order_relaxed)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!shape.extended || shape.more.cluster[0] == 0) return CUDA_SUCCESS;
  std::uint64_t blocks = 1;
  for (int i = 0; i < 3; ++i) {
    const std::uint32_t side = shape.more.cluster[i];
    if (side == 0 || shape.grid[i] % side != 0) return CUDA_ERROR_INVALID_VALUE;
    blocks *= side;
  }
  const DeviceState* const device =
      Driver::Get().device(function.context->device);
  if (blocks > 1 &&
      device->Attribute(CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH) == 0) {
    return Driver::Unsupported("cuLaunchKernelEx with clusters");
  }
  return CUDA_SUCCESS;
}

// Where the parameter bytes come from: an array of pointers, or one packed
// buffer (the `extra` form).
struct Params {
  void** pointers = nullptr;
  const std::byte* packed = nullptr;
  std::size_t packed_bytes = 0;
};

CUresult ReadExtra(void** extra, Params* params) {
  for (std::size_t i = 0; i < 16; i += 2) {
    if (extra[i] == CU_LAUNCH_PARAM_END) return CUDA_SUCCESS;
    if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER) {
      params->packed = static_cast<const std::byte*>(extra[i + 1]);
    } else if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE) {
      params->packed_bytes = *static_cast<const std::size_t*>(extra[i + 1]);
    } else {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult Launch(CUfunction handle, const Shape& shape, CUstream stream_handle,
                bool per_thread, void** pointers, void** extra) {
  const OutputFlush flush;
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  std::uint64_t stream = 0;
  CUresult result =
      driver.Resolve(stream_handle, per_thread, &context, &stream);
  if (result != CUDA_SUCCESS) return result;
  Function* function = nullptr;
  result = driver.ResolveFunction(handle, context, &function);
  if (result != CUDA_SUCCESS) return result;
  if (function->launch_error != 0) {
    DriverLog::Get().Add(
        CU_LOG_LEVEL_ERROR,
        "no code that this device can run: kernel " + function->name);
    return static_cast<CUresult>(function->launch_error);
  }
  if (function->context != context) return CUDA_ERROR_INVALID_HANDLE;
  result = CheckShape(shape, *function);
  if (result != CUDA_SUCCESS) return result;

  Params params{.pointers = pointers};
  if (pointers == nullptr && extra != nullptr) {
    result = ReadExtra(extra, &params);
    if (result != CUDA_SUCCESS) return result;
  }
  const std::uint32_t params_bytes = function->params_bytes;
  const bool given =
      params.pointers != nullptr ||
      (params.packed != nullptr && params.packed_bytes >= params_bytes);
  if (params_bytes != 0 && !given) return CUDA_ERROR_INVALID_VALUE;

  if (function->prints) context->prints.store(true, std::memory_order_relaxed);
  const std::uint32_t more_bytes = shape.extended ? sizeof(shape.more) : 0;
  wire::FrameHeader* frame = nullptr;
  const std::int32_t error = Client::Get().BeginFrame(
      static_cast<std::uint16_t>(cuda::Op::kLaunch), sizeof(cuda::LaunchArgs),
      params_bytes + more_bytes, false, &frame);
  if (error != 0) return static_cast<CUresult>(error);
  std::byte* const at = RingClient::Args(frame);
  *reinterpret_cast<cuda::LaunchArgs*>(at) = {
      .stream = stream,
      .function = function->id.load(std::memory_order_relaxed),
      .grid_x = shape.grid[0],
      .grid_y = shape.grid[1],
      .grid_z = shape.grid[2],
      .block_x = shape.block[0],
      .block_y = shape.block[1],
      .block_z = shape.block[2],
      .shared_bytes = shape.shared_bytes,
      .cooperative = (shape.cooperative ? cuda::kLaunchCooperative : 0) |
                     (shape.extended ? cuda::kLaunchExtended : 0)};
  std::byte* const block = at + sizeof(cuda::LaunchArgs);
  if (params.pointers != nullptr) {
    for (std::size_t i = 0; i < function->params.size(); ++i) {
      const cuda::FunctionParam& param = function->params[i];
      std::memcpy(block + param.offset, params.pointers[i], param.bytes);
    }
  } else if (params_bytes != 0) {
    std::memcpy(block, params.packed, params_bytes);
  }
  if (shape.extended) {
    std::memcpy(block + params_bytes, &shape.more, sizeof(shape.more));
  }
  Client::Get().EndFrame(frame);
  return CUDA_SUCCESS;
}

CUresult LaunchEx(const CUlaunchConfig* config, CUfunction function,
                  void** pointers, void** extra, bool per_thread) {
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Shape shape{{config->gridDimX, config->gridDimY, config->gridDimZ},
              {config->blockDimX, config->blockDimY, config->blockDimZ},
              config->sharedMemBytes,
              false};
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const CUlaunchAttribute& attribute = config->attrs[i];
    switch (attribute.id) {
      case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
        shape.cooperative = attribute.value.cooperative != 0;
        break;
      case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION: {
        const auto& dim = attribute.value.clusterDim;
        if (dim.x == 0) return CUDA_ERROR_INVALID_VALUE;
        shape.extended = true;
        shape.more.cluster[0] = dim.x;
        shape.more.cluster[1] = dim.y;
        shape.more.cluster[2] = dim.z;
        break;
      }
      case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        shape.extended = true;
        shape.more.cluster_policy = static_cast<std::uint32_t>(
            attribute.value.clusterSchedulingPolicyPreference);
        break;
      case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        shape.extended = true;
        shape.more.flags |= cuda::kLaunchHasPriority;
        shape.more.priority = attribute.value.priority;
        break;
      case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
        if (attribute.value.programmaticStreamSerializationAllowed != 0) {
          shape.extended = true;
          shape.more.flags |= cuda::kLaunchProgrammatic;
        }
        break;
      // Hints: they change speed, not results.
      case CU_LAUNCH_ATTRIBUTE_IGNORE:
      case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
      case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
      case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
      case CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING:
      case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
      case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
      case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        break;
      case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
        return Driver::Unsupported(
            "cuLaunchKernelEx with a programmatic event");
      case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
        return Driver::Unsupported(
            "cuLaunchKernelEx with an event at its start");
      case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
        return CUDA_ERROR_INVALID_VALUE;  // of graphs only
      default:
        return Driver::Unsupported("cuLaunchKernelEx with this attribute");
    }
  }
  return Launch(function, shape, config->hStream, per_thread, pointers, extra);
}

}  // namespace
}  // namespace pos::shim

using pos::shim::Launch;
using pos::shim::LaunchEx;

// Exported; contracts are the driver API's.
// NOLINTBEGIN(readability-function-size)
#define POS_LAUNCH_(suffix, per_thread)                                        \
  CUresult CUDAAPI cuLaunchKernel##suffix(                                     \
      CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,        \
      unsigned by, unsigned bz, unsigned shared_bytes, CUstream stream,        \
      void** params, void** extra) {                                           \
    return Launch(f, {{gx, gy, gz}, {bx, by, bz}, shared_bytes, false},        \
                  stream, per_thread, params, extra);                          \
  }                                                                            \
  CUresult CUDAAPI cuLaunchCooperativeKernel##suffix(                          \
      CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,        \
      unsigned by, unsigned bz, unsigned shared_bytes, CUstream stream,        \
      void** params) {                                                         \
    return Launch(f, {{gx, gy, gz}, {bx, by, bz}, shared_bytes, true}, stream, \
                  per_thread, params, nullptr);                                \
  }                                                                            \
  CUresult CUDAAPI cuLaunchKernelEx##suffix(const CUlaunchConfig* config,      \
                                            CUfunction f, void** params,       \
                                            void** extra) {                    \
    return LaunchEx(config, f, params, extra, per_thread);                     \
  }
POS_LAUNCH_(, false)
POS_LAUNCH_(_ptsz, true)
#undef POS_LAUNCH_
// NOLINTEND(readability-function-size)
