// Initialization, devices and contexts.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "remoting/shim/driver_state.h"
#include "remoting/shim/output.h"

namespace pos::shim {
namespace {

// The driver version that programs see: that of the headers built against.
constexpr int kDriverVersion = CUDA_VERSION;

CUresult ReadyDevice(CUdevice ordinal, const DeviceState** device) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  *device = Driver::Get().device(ordinal);
  return *device == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

template <typename T>
CUresult Store(T* out, T value) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = value;
  return CUDA_SUCCESS;
}

CUresult CreateContext(CUcontext* out, unsigned flags, CUdevice ordinal) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const DeviceState* device = nullptr;
  CUresult result = ReadyDevice(ordinal, &device);
  if (result != CUDA_SUCCESS) return result;
  Driver& driver = Driver::Get();
  Context* const context = driver.NewContext(ordinal, flags, false);
  if (context == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  result = driver.Activate(context);
  if (result != CUDA_SUCCESS) {
    context->id.store(0, std::memory_order_release);
    return result;
  }
  CurrentThread()->contexts.push_back(context);
  *out = Driver::HandleOf(context);
  return CUDA_SUCCESS;
}

CUresult DestroyContext(CUcontext handle) {
  const OutputFlush flush;
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  Context* const context = driver.FindContext(handle);
  if (context == nullptr || context->primary) return CUDA_ERROR_INVALID_CONTEXT;
  std::vector<Context*>& stack = CurrentThread()->contexts;
  if (!stack.empty() && stack.back() == context) stack.pop_back();
  const CUresult result = driver.Deactivate(context);
  context->id.store(0, std::memory_order_release);
  return result;
}

CUresult Retain(CUcontext* out, CUdevice ordinal) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const DeviceState* device = nullptr;
  CUresult result = ReadyDevice(ordinal, &device);
  if (result != CUDA_SUCCESS) return result;
  Driver& driver = Driver::Get();
  Context* const context = driver.primary(ordinal);
  MutexLock lock(&context->mu);
  if (context->runner_id.load(std::memory_order_acquire) == 0) {
    result = driver.Activate(context);
    if (result != CUDA_SUCCESS) return result;
  }
  ++context->retained;
  *out = Driver::HandleOf(context);
  return CUDA_SUCCESS;
}

CUresult ReleasePrimary(CUdevice ordinal, bool reset) {
  const OutputFlush flush;
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(ordinal, &device);
  if (result != CUDA_SUCCESS) return result;
  Context* const context = Driver::Get().primary(ordinal);
  {
    MutexLock lock(&context->mu);
    if (!reset) {
      if (context->retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
      if (--context->retained != 0) return CUDA_SUCCESS;
    }
    context->limits.clear();
  }
  return Driver::Get().Deactivate(context);
}

CUresult PopCurrent(CUcontext* out) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  std::vector<Context*>& stack = CurrentThread()->contexts;
  if (stack.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (out != nullptr) *out = Driver::HandleOf(stack.back());
  stack.pop_back();
  return CUDA_SUCCESS;
}

CUresult Synchronize(Context* context) {
  const OutputFlush flush;
  return CallNoOut(cuda::CtxSynchronizeArgs{
      .context = context->runner_id.load(std::memory_order_acquire)});
}

}  // namespace
}  // namespace pos::shim

using namespace pos::shim;  // NOLINT: this file implements the driver's API

CUresult CUDAAPI cuInit(unsigned flags) {
  return flags != 0 ? CUDA_ERROR_INVALID_VALUE : Driver::Get().Init();
}

CUresult CUDAAPI cuDriverGetVersion(int* version) {
  return Store(version, kDriverVersion);
}

CUresult CUDAAPI cuDeviceGetCount(int* count) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  return Store(count, Driver::Get().device_count());
}

CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
  const DeviceState* state = nullptr;
  const CUresult result = ReadyDevice(ordinal, &state);
  return result != CUDA_SUCCESS ? result : Store(device, CUdevice{ordinal});
}

CUresult CUDAAPI cuDeviceGetName(char* name, int len, CUdevice dev) {
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(dev, &device);
  if (result != CUDA_SUCCESS) return result;
  if (name == nullptr || len <= 0) return CUDA_ERROR_INVALID_VALUE;
  std::snprintf(name, static_cast<std::size_t>(len), "%s",
                device->name.c_str());
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceTotalMem_v2(std::size_t* bytes, CUdevice dev) {
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(dev, &device);
  return result != CUDA_SUCCESS
             ? result
             : Store(bytes, std::size_t{device->memory_bytes});
}

CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute,
                                      CUdevice dev) {
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(dev, &device);
  if (result != CUDA_SUCCESS) return result;
  if (attribute <= 0 || attribute >= CU_DEVICE_ATTRIBUTE_MAX) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return Store(value, static_cast<int>(device->Attribute(attribute)));
}

CUresult CUDAAPI cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice dev) {
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(dev, &device);
  if (result != CUDA_SUCCESS) return result;
  if (uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::memcpy(uuid->bytes, device->uuid.data(), device->uuid.size());
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetUuid(CUuuid* uuid, CUdevice dev) {
  return cuDeviceGetUuid_v2(uuid, dev);
}

CUresult CUDAAPI cuDeviceComputeCapability(int* major, int* minor,
                                           CUdevice dev) {
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(dev, &device);
  if (result != CUDA_SUCCESS) return result;
  if (major == nullptr || minor == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *major = device->Attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  *minor = device->Attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetProperties(CUdevprop* prop, CUdevice dev) {
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(dev, &device);
  if (result != CUDA_SUCCESS) return result;
  if (prop == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *prop = {};
  prop->maxThreadsPerBlock =
      device->Attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
  for (int i = 0; i < 3; ++i) {
    prop->maxThreadsDim[i] =
        device->Attribute(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X + i);
    prop->maxGridSize[i] =
        device->Attribute(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X + i);
  }
  prop->sharedMemPerBlock =
      device->Attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK);
  prop->totalConstantMemory =
      device->Attribute(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY);
  prop->SIMDWidth = device->Attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE);
  prop->memPitch = device->Attribute(CU_DEVICE_ATTRIBUTE_MAX_PITCH);
  prop->regsPerBlock =
      device->Attribute(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK);
  prop->clockRate = device->Attribute(CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
  prop->textureAlign = device->Attribute(CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetPCIBusId(char* text, int len, CUdevice dev) {
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(dev, &device);
  if (result != CUDA_SUCCESS) return result;
  if (text == nullptr || len <= 0) return CUDA_ERROR_INVALID_VALUE;
  std::snprintf(text, static_cast<std::size_t>(len), "%04x:%02x:%02x.0",
                device->Attribute(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID),
                device->Attribute(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID),
                device->Attribute(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetByPCIBusId(CUdevice* dev, const char* text) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  if (dev == nullptr || text == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (int i = 0; i < Driver::Get().device_count(); ++i) {
    std::array<char, 32> known{};
    cuDeviceGetPCIBusId(known.data(), known.size(), i);
    // Programs write the address with or without its domain, in either case.
    const std::size_t skip = std::strlen(text) < 12 ? 5 : 0;
    if (::strcasecmp(known.data() + skip, text) == 0) return Store(dev, i);
  }
  return CUDA_ERROR_INVALID_DEVICE;
}

CUresult CUDAAPI cuDeviceCanAccessPeer(int* can, CUdevice a, CUdevice b) {
  const DeviceState* device = nullptr;
  CUresult result = ReadyDevice(a, &device);
  if (result == CUDA_SUCCESS) result = ReadyDevice(b, &device);
  return result != CUDA_SUCCESS ? result : Store(can, 0);
}

CUresult CUDAAPI cuDeviceGetP2PAttribute(int* value,
                                         CUdevice_P2PAttribute attribute,
                                         CUdevice a, CUdevice b) {
  const DeviceState* device = nullptr;
  CUresult result = ReadyDevice(a, &device);
  if (result == CUDA_SUCCESS) result = ReadyDevice(b, &device);
  if (result != CUDA_SUCCESS) return result;
  if (attribute <= 0 || a == b) return CUDA_ERROR_INVALID_VALUE;
  return Store(value, 0);
}

CUresult CUDAAPI cuDeviceGetTexture1DLinearMaxWidth(std::size_t* out,
                                                    CUarray_format, unsigned,
                                                    CUdevice dev) {
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(dev, &device);
  return result != CUDA_SUCCESS ? result : Store(out, std::size_t{1} << 28);
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice dev) {
  return Retain(context, dev);
}
CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice dev) {
  return ReleasePrimary(dev, false);
}
CUresult CUDAAPI cuDevicePrimaryCtxRelease_v2(CUdevice dev) {
  return ReleasePrimary(dev, false);
}
CUresult CUDAAPI cuDevicePrimaryCtxReset(CUdevice dev) {
  return ReleasePrimary(dev, true);
}
CUresult CUDAAPI cuDevicePrimaryCtxReset_v2(CUdevice dev) {
  return ReleasePrimary(dev, true);
}

CUresult CUDAAPI cuDevicePrimaryCtxGetState(CUdevice dev, unsigned* flags,
                                            int* active) {
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(dev, &device);
  if (result != CUDA_SUCCESS) return result;
  if (flags == nullptr || active == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Context* const context = Driver::Get().primary(dev);
  *flags = context->flags.load(std::memory_order_relaxed);
  *active = context->runner_id.load(std::memory_order_acquire) != 0 ? 1 : 0;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned flags) {
  const DeviceState* device = nullptr;
  const CUresult result = ReadyDevice(dev, &device);
  if (result != CUDA_SUCCESS) return result;
  Driver::Get().primary(dev)->flags.store(flags, std::memory_order_relaxed);
  return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned flags) {
  return cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}

CUresult CUDAAPI cuCtxCreate_v2(CUcontext* context, unsigned flags,
                                CUdevice dev) {
  return CreateContext(context, flags, dev);
}
CUresult CUDAAPI cuCtxCreate_v3(CUcontext* context,
                                CUexecAffinityParam* affinity, int count,
                                unsigned flags, CUdevice dev) {
  if (affinity != nullptr && count != 0) {
    return Driver::Unsupported("cuCtxCreate_v3 with execution affinity");
  }
  return CreateContext(context, flags, dev);
}
CUresult CUDAAPI cuCtxCreate_v4(CUcontext* context, CUctxCreateParams* params,
                                unsigned flags, CUdevice dev) {
  if (params != nullptr &&
      (params->numExecAffinityParams != 0 || params->cigParams != nullptr)) {
    return Driver::Unsupported("cuCtxCreate_v4 with parameters");
  }
  return CreateContext(context, flags, dev);
}
CUresult CUDAAPI cuCtxDestroy_v2(CUcontext context) {
  return DestroyContext(context);
}
CUresult CUDAAPI cuCtxDestroy(CUcontext context) {
  return DestroyContext(context);
}

CUresult CUDAAPI cuCtxPushCurrent_v2(CUcontext handle) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  Context* const context = Driver::Get().FindContext(handle);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  CurrentThread()->contexts.push_back(context);
  return CUDA_SUCCESS;
}
CUresult CUDAAPI cuCtxPushCurrent(CUcontext handle) {
  return cuCtxPushCurrent_v2(handle);
}
CUresult CUDAAPI cuCtxPopCurrent_v2(CUcontext* context) {
  return PopCurrent(context);
}
CUresult CUDAAPI cuCtxPopCurrent(CUcontext* context) {
  return PopCurrent(context);
}

CUresult CUDAAPI cuCtxSetCurrent(CUcontext handle) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  std::vector<Context*>& stack = CurrentThread()->contexts;
  if (handle == nullptr) {
    if (!stack.empty()) stack.pop_back();
    return CUDA_SUCCESS;
  }
  Context* const context = Driver::Get().FindContext(handle);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (stack.empty()) {
    stack.push_back(context);
  } else {
    stack.back() = context;
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetCurrent(CUcontext* context) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  const std::vector<Context*>& stack = CurrentThread()->contexts;
  return Store(context, stack.empty() ? CUcontext{nullptr}
                                      : Driver::HandleOf(stack.back()));
}

CUresult CUDAAPI cuCtxGetDevice(CUdevice* device) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  return result != CUDA_SUCCESS ? result : Store(device, context->device);
}
CUresult CUDAAPI cuCtxGetDevice_v2(CUdevice* device, CUcontext handle) {
  if (handle == nullptr) return cuCtxGetDevice(device);
  const Context* const context = Driver::Get().FindContext(handle);
  return context == nullptr ? CUDA_ERROR_INVALID_CONTEXT
                            : Store(device, context->device);
}

CUresult CUDAAPI cuCtxGetFlags(unsigned* flags) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  return result != CUDA_SUCCESS
             ? result
             : Store(flags, context->flags.load(std::memory_order_relaxed));
}
CUresult CUDAAPI cuCtxSetFlags(unsigned flags) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  if (result != CUDA_SUCCESS) return result;
  context->flags.store(flags, std::memory_order_relaxed);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetId(CUcontext handle, unsigned long long* id) {
  Context* context = nullptr;
  if (handle == nullptr) {
    const CUresult result = Driver::Get().Current(&context);
    if (result != CUDA_SUCCESS) return result;
  } else {
    context = Driver::Get().FindContext(handle);
  }
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  return Store(id, static_cast<unsigned long long>(context->unique_id));
}

CUresult CUDAAPI cuCtxGetApiVersion(CUcontext handle, unsigned* version) {
  if (handle != nullptr && Driver::Get().FindContext(handle) == nullptr) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  return Store(version, 3020u);  // what the driver reports for all contexts
}

CUresult CUDAAPI cuCtxSynchronize(void) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  return result != CUDA_SUCCESS ? result : Synchronize(context);
}
CUresult CUDAAPI cuCtxSynchronize_v2(CUcontext handle) {
  if (handle == nullptr) return cuCtxSynchronize();
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  Context* const context = Driver::Get().FindContext(handle);
  return context == nullptr ? CUDA_ERROR_INVALID_CONTEXT : Synchronize(context);
}

// Preferences without effect on results.
CUresult CUDAAPI cuCtxGetCacheConfig(CUfunc_cache* config) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  return result != CUDA_SUCCESS ? result
                                : Store(config, CU_FUNC_CACHE_PREFER_NONE);
}
CUresult CUDAAPI cuCtxSetCacheConfig(CUfunc_cache) {
  Context* context = nullptr;
  return Driver::Get().Current(&context);
}
CUresult CUDAAPI cuCtxGetSharedMemConfig(CUsharedconfig* config) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  return result != CUDA_SUCCESS
             ? result
             : Store(config, CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE);
}
CUresult CUDAAPI cuCtxSetSharedMemConfig(CUsharedconfig) {
  Context* context = nullptr;
  return Driver::Get().Current(&context);
}
CUresult CUDAAPI cuCtxResetPersistingL2Cache(void) {
  Context* context = nullptr;
  return Driver::Get().Current(&context);
}

CUresult CUDAAPI cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  if (result != CUDA_SUCCESS) return result;
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;  // as devices since Pascal
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxEnablePeerAccess(CUcontext, unsigned) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  return result != CUDA_SUCCESS ? result : CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
}
CUresult CUDAAPI cuCtxDisablePeerAccess(CUcontext) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  return result != CUDA_SUCCESS ? result : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
}

CUresult CUDAAPI cuProfilerStart(void) { return CUDA_SUCCESS; }
CUresult CUDAAPI cuProfilerStop(void) { return CUDA_SUCCESS; }
