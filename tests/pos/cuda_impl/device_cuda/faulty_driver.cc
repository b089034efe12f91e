// A driver of which one function always fails: passes the look-ups of functions
// on to the library POS_FAULTY_REAL, but for the function POS_FAULTY_CALL,
// which is replaced. Other words for it: "old" (the version), "tell"
// (says what launches ask for), "none".
#include <cuda.h>
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace {

using Find = CUresult (*)(const char*, void**, int, cuuint64_t,
                          CUdriverProcAddressQueryResult*);

// Any signature: the caller cleans up its arguments.
CUresult Fail() { return CUDA_ERROR_NOT_PERMITTED; }
CUresult OldVersion(int* version) {
  *version = 11020;
  return CUDA_SUCCESS;
}

// Tells on standard error what a launch asks for, and launches without it: what
// the library behind cannot do reaches this far.
CUresult LaunchAndTell(const CUlaunchConfig* config, CUfunction function,
                       void** params, void** extra) {
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const CUlaunchAttributeValue& value = config->attrs[i].value;
    switch (config->attrs[i].id) {
      case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
        std::fprintf(stderr, "cooperative %d\n", value.cooperative);
        break;
      case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
        std::fprintf(stderr, "cluster %u %u %u\n", value.clusterDim.x,
                     value.clusterDim.y, value.clusterDim.z);
        break;
      case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        std::fprintf(stderr, "policy %d\n",
                     static_cast<int>(value.clusterSchedulingPolicyPreference));
        break;
      case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        std::fprintf(stderr, "priority %d\n", value.priority);
        break;
      case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
        std::fprintf(stderr, "programmatic %d\n",
                     value.programmaticStreamSerializationAllowed);
        break;
      default:
        std::fprintf(stderr, "attribute %d\n",
                     static_cast<int>(config->attrs[i].id));
    }
  }
  static const auto launch = reinterpret_cast<decltype(&::cuLaunchKernel)>(
      ::dlsym(::dlopen(std::getenv("POS_FAULTY_REAL"), RTLD_NOW),
              "cuLaunchKernel"));
  return launch(function, config->gridDimX, config->gridDimY, config->gridDimZ,
                config->blockDimX, config->blockDimY, config->blockDimZ,
                config->sharedMemBytes, config->hStream, params, extra);
}

// --- A device that goes away while the file POS_FAULTY_SWITCH is there ---

const char* Switch() {
  static const char* const file = std::getenv("POS_FAULTY_SWITCH");
  return file;
}
void* real_info = nullptr;
void* real_retain = nullptr;
CUresult Info(std::size_t* free_bytes, std::size_t* total) {
  if (::access(Switch(), F_OK) == 0) return CUDA_ERROR_DEVICE_UNAVAILABLE;
  return reinterpret_cast<decltype(&::cuMemGetInfo)>(real_info)(free_bytes,
                                                                total);
}
CUresult Retain(CUcontext* context, CUdevice device) {
  if (::access(Switch(), F_OK) == 0) return CUDA_ERROR_DEVICE_UNAVAILABLE;
  return reinterpret_cast<decltype(&::cuDevicePrimaryCtxRetain)>(real_retain)(
      context, device);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) CUresult cuGetProcAddress_v2(
    const char* name, void** function, int version, cuuint64_t flags,
    CUdriverProcAddressQueryResult* status) {
  static void* const real = ::dlopen(std::getenv("POS_FAULTY_REAL"), RTLD_NOW);
  static const auto find =
      reinterpret_cast<Find>(::dlsym(real, "cuGetProcAddress_v2"));
  const char* const faulty = std::getenv("POS_FAULTY_CALL");
  if (std::strcmp(faulty, "old") == 0 &&
      std::strcmp(name, "cuDriverGetVersion") == 0) {
    *function = reinterpret_cast<void*>(&OldVersion);
    return CUDA_SUCCESS;
  }
  const char* const missing = std::getenv("POS_FAULTY_MISSING");
  if (missing != nullptr && std::strcmp(missing, name) == 0) {
    *function = nullptr;
    return CUDA_ERROR_NOT_FOUND;
  }
  if (std::strcmp(faulty, "tell") == 0 &&
      std::strcmp(name, "cuLaunchKernelEx") == 0) {
    *function = reinterpret_cast<void*>(&LaunchAndTell);
    return CUDA_SUCCESS;
  }
  if (std::strcmp(faulty, name) == 0) {
    *function = reinterpret_cast<void*>(&Fail);
    return CUDA_SUCCESS;
  }
  const CUresult result = find(name, function, version, flags, status);
  if (result == CUDA_SUCCESS && Switch() != nullptr) {
    if (std::strcmp(name, "cuMemGetInfo") == 0) {
      real_info = std::exchange(*function, reinterpret_cast<void*>(&Info));
    } else if (std::strcmp(name, "cuDevicePrimaryCtxRetain") == 0) {
      real_retain = std::exchange(*function, reinterpret_cast<void*>(&Retain));
    }
  }
  return result;
}
