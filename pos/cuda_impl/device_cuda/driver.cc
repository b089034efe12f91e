#include "pos/cuda_impl/device_cuda/driver.h"

#include <dlfcn.h>

#include <map>
#include <memory>
#include <utility>

#include "pos/base/mutex.h"

namespace pos::cuda_device {
namespace {

constexpr const char* kDefaultLibrary = "libcuda.so.1";
// remoting/shim/get_proc_address.cc answers it; no driver does.
constexpr const char* kPosMarker = "cuPosClientLibrary";

enum Need { kMust, kMay };

// dlsym's result as the function that it is.
template <typename F>
F FunctionAt(void* address) {
  return reinterpret_cast<F>(address);
}

Status LoadFunctions(Driver* driver, decltype(&::cuGetProcAddress) find) {
  Status status;
  const auto look = [&](const char* name, int version, Need need) -> void* {
    void* function = nullptr;
    CUdriverProcAddressQueryResult why{};
    const CUresult result =
        find(name, &function, version, CU_GET_PROC_ADDRESS_DEFAULT, &why);
    if (result == CUDA_SUCCESS && function != nullptr) return function;
    if (need == kMust && status.ok()) {
      status = Incompatible(driver->path + " has no " + name + " of CUDA " +
                                std::to_string(version / 1000) + "." +
                                std::to_string(version % 1000 / 10),
                            "POS needs a driver of CUDA 12.8 or later");
    }
    return nullptr;
  };
#define POS_DRIVER(member, symbol, version, need) \
  driver->member =                                \
      FunctionAt<decltype(&::symbol)>(look(#symbol, version, need));
#include "pos/cuda_impl/device_cuda/driver.def"
#undef POS_DRIVER
  return status;
}

Result<std::unique_ptr<Driver>> Open(const std::string& library) {
  auto driver = std::make_unique<Driver>();
  driver->path = library.empty() ? kDefaultLibrary : library;
  void* const handle = ::dlopen(driver->path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = ::dlerror();
    return NoSuch("no CUDA driver: " +
                  std::string(why != nullptr ? why : driver->path));
  }
  const auto find = FunctionAt<decltype(&::cuGetProcAddress)>(
      ::dlsym(handle, "cuGetProcAddress_v2"));
  if (find == nullptr) {
    return Incompatible(driver->path + " is too old: no cuGetProcAddress_v2",
                        "POS needs a driver of CUDA 12.8 or later");
  }
  void* marker = nullptr;
  driver->is_pos = find(kPosMarker, &marker, 13000, CU_GET_PROC_ADDRESS_DEFAULT,
                        nullptr) == CUDA_SUCCESS &&
                   marker != nullptr;
  if (driver->is_pos && library.empty()) {
    return Incompatible(
        std::string(kDefaultLibrary) +
            " is POS's own client library here, "
            "not a driver",
        "take POS's directory out of LD_LIBRARY_PATH, or name the driver in "
        "cuda.driver_library");
  }
  POS_RETURN_IF_ERROR(LoadFunctions(driver.get(), find));
  const CUresult started = driver->Init(0);
  if (started != CUDA_SUCCESS) {
    return Status(Code::kDeviceGone,
                  driver->path + ": cuInit: " + driver->NameOf(started));
  }
  POS_RETURN_IF_ERROR(driver->Check(driver->DriverGetVersion(&driver->version),
                                    "cuDriverGetVersion"));
  if (driver->version < kOldestDriver) {
    return Incompatible(driver->path + " is a driver of CUDA " +
                            std::to_string(driver->version / 1000) + "." +
                            std::to_string(driver->version % 1000 / 10),
                        "POS needs one of CUDA 12.8 or later");
  }
  return driver;
}

}  // namespace

Result<const Driver*> Driver::Load(const std::string& library) {
  static auto& mu = *new Mutex;
  static auto& loaded = *new std::map<std::string, std::unique_ptr<Driver>>;
  MutexLock lock(&mu);
  const auto it = loaded.find(library);
  if (it != loaded.end()) return static_cast<const Driver*>(it->second.get());
  POS_ASSIGN_OR_RETURN(std::unique_ptr<Driver> driver, Open(library));
  const Driver* const result = driver.get();
  loaded[library] = std::move(driver);
  return result;
}

std::string Driver::NameOf(CUresult result) const {
  const char* name = nullptr;
  const char* text = nullptr;
  if (GetErrorName(result, &name) != CUDA_SUCCESS || name == nullptr) {
    return "error " + std::to_string(static_cast<int>(result));
  }
  if (GetErrorString(result, &text) != CUDA_SUCCESS || text == nullptr) {
    return name;
  }
  return std::string(name) + " (" + text + ")";
}

Status Driver::Check(CUresult result, std::string_view what) const {
  if (result == CUDA_SUCCESS) return {};
  const std::string text = std::string(what) + ": " + NameOf(result);
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return OutOfMemory(text);
  return Status(IsFatal(result) ? Code::kDeviceGone : Code::kInternal, text);
}

bool IsFatal(CUresult result) {
  switch (result) {
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_CONTAINED:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_TENSOR_MEMORY_LEAK:
    case CUDA_ERROR_EXTERNAL_DEVICE:
    case CUDA_ERROR_SYSTEM_NOT_READY:
    case CUDA_ERROR_UNKNOWN:
      return true;
    default:
      return false;
  }
}

}  // namespace pos::cuda_device
