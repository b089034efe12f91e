// Modules, libraries, kernels, functions.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "remoting/shim/code.h"
#include "remoting/shim/driver_state.h"
#include "remoting/shim/output.h"

namespace pos::shim {
namespace {

// Where a program wants the compiler's words (cuModuleLoadDataEx).
struct JitLogs {
  char* error = nullptr;
  std::size_t error_bytes = 0;
  void** error_used = nullptr;  // option value that receives the length
  void** info_used = nullptr;
};

JitLogs ReadOptions(unsigned count, const CUjit_option* options,
                    void** values) {
  JitLogs logs;
  for (unsigned i = 0; i < count && options != nullptr && values != nullptr;
       ++i) {
    switch (options[i]) {
      case CU_JIT_ERROR_LOG_BUFFER:
        logs.error = static_cast<char*>(values[i]);
        break;
      case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
        logs.error_bytes = reinterpret_cast<std::size_t>(values[i]);
        logs.error_used = &values[i];
        break;
      case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
        logs.info_used = &values[i];
        break;
      default:
        break;  // how to compile: nothing to decide here
    }
  }
  return logs;
}

void WriteLog(const JitLogs& logs, const std::string& message) {
  std::size_t used = 0;
  if (logs.error != nullptr && logs.error_bytes != 0) {
    used = std::min(message.size(), logs.error_bytes - 1);
    std::memcpy(logs.error, message.data(), used);
    logs.error[used] = '\0';
  }
  if (logs.error_used != nullptr) {
    *logs.error_used = reinterpret_cast<void*>(used);
  }
  if (logs.info_used != nullptr) *logs.info_used = nullptr;
}

CUresult LoadImage(CUmodule* out, const void* image, const JitLogs& logs) {
  const OutputFlush flush;
  if (out == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Context* context = nullptr;
  CUresult result = Driver::Get().Current(&context);
  if (result != CUDA_SUCCESS) return result;
  std::uint64_t blob = 0;
  result = UploadImage(image, &blob);
  if (result != CUDA_SUCCESS) return result;
  std::uint64_t module = 0;
  std::string message;
  result = LoadModule(context, blob, 0, &module, &message);
  WriteLog(logs, message);
  if (result != CUDA_SUCCESS) {
    DropBlob(blob);
    return result;
  }
  *out = reinterpret_cast<CUmodule>(module);
  return CUDA_SUCCESS;
}

// A file's bytes with a NUL behind them (PTX text needs one).
CUresult ReadFile(const char* path, std::vector<char>* bytes) {
  if (path == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::ifstream in(path, std::ios::binary);
  if (!in) return CUDA_ERROR_FILE_NOT_FOUND;
  bytes->assign(std::istreambuf_iterator<char>(in), {});
  if (bytes->empty()) return CUDA_ERROR_INVALID_IMAGE;
  bytes->push_back('\0');
  return CUDA_SUCCESS;
}

Module* FindModule(CUmodule handle) {
  return Driver::Get().modules.Get(reinterpret_cast<std::uint64_t>(handle));
}
Library* FindLibrary(CUlibrary handle) {
  return Driver::Get().libraries.Get(reinterpret_cast<std::uint64_t>(handle));
}
Kernel* FindKernel(CUkernel handle) {
  return Driver::Get().kernels.Get(reinterpret_cast<std::uint64_t>(handle));
}

CUresult LoadLibrary(CUlibrary* out, const void* image) {
  const OutputFlush flush;
  if (out == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  std::uint64_t blob = 0;
  const CUresult result = UploadImage(image, &blob);
  if (result != CUDA_SUCCESS) return result;
  const std::uint64_t id = (std::uint64_t{cuda::kLibraryHandle} << 56) |
                           driver.libraries.NextIndex();
  Library* const library = driver.libraries.Make(id);
  if (library == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  library->blob = blob;
  library->modules.clear();
  library->kernels.clear();
  library->id.store(id, std::memory_order_release);
  *out = reinterpret_cast<CUlibrary>(id);
  return CUDA_SUCCESS;
}

CUresult UnloadLibrary(CUlibrary handle) {
  const OutputFlush flush;
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  Library* const library = FindLibrary(handle);
  if (library == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  std::vector<std::uint64_t> modules;
  {
    MutexLock lock(&driver.code_mu);
    for (const auto& [key, module] : library->modules) {
      modules.push_back(module);
    }
    for (const auto& [name, kernel] : library->kernels) {
      if (Kernel* const object = driver.kernels.Get(kernel)) {
        object->id.store(0, std::memory_order_release);
      }
    }
    library->id.store(0, std::memory_order_release);
  }
  for (const std::uint64_t id : modules) {
    if (Module* const module = driver.modules.Get(id)) UnloadModule(module);
  }
  DropBlob(library->blob);
  return CUDA_SUCCESS;
}

// The kernel handle of that name; the kernel is looked up in the current
// context, so that an unknown name is told at once.
CUresult GetKernel(CUkernel* out, CUlibrary handle, const char* name) {
  if (out == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  Library* const library = FindLibrary(handle);
  if (library == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  {
    MutexLock lock(&driver.code_mu);
    const auto it = library->kernels.find(name);
    if (it != library->kernels.end()) {
      *out = reinterpret_cast<CUkernel>(it->second);
      return CUDA_SUCCESS;
    }
  }
  // Libraries belong to no context, and the runtime asks for kernels before a
  // thread has one. Whether there is such a kernel is known where the library
  // is loaded; without any context the launch will say.
  Function* function = nullptr;
  if (Context* const context = driver.CurrentOrPrimary()) {
    Module* module = nullptr;
    CUresult result = ModuleOf(library, context, &module);
    if (result == CUDA_SUCCESS) result = FindFunction(module, name, &function);
    if (result != CUDA_SUCCESS) return result;
  }

  MutexLock lock(&driver.code_mu);
  std::uint64_t& known = library->kernels[name];
  if (known == 0) {
    const std::uint64_t id =
        (std::uint64_t{cuda::kKernelHandle} << 56) | driver.kernels.NextIndex();
    Kernel* const kernel = driver.kernels.Make(id);
    if (kernel == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    kernel->library = library->id.load(std::memory_order_relaxed);
    kernel->name = name;
    kernel->last_generation.store(0);
    kernel->id.store(id, std::memory_order_release);
    known = id;
  }
  if (function != nullptr) function->kernel = known;
  *out = reinterpret_cast<CUkernel>(known);
  return CUDA_SUCCESS;
}

// The function behind a CUfunction or CUkernel, in the current context.
CUresult FindAnyFunction(CUfunction handle, Function** function) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  return result != CUDA_SUCCESS
             ? result
             : Driver::Get().ResolveFunction(handle, context, function);
}

CUresult GetAttribute(int* value, CUfunction_attribute attribute,
                      CUfunction handle) {
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (attribute < 0 || attribute >= CU_FUNC_ATTRIBUTE_MAX) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Function* function = nullptr;
  const CUresult result = FindAnyFunction(handle, &function);
  if (result != CUDA_SUCCESS) return result;
  MutexLock lock(&Driver::Get().code_mu);
  const auto it = function->attributes.find(attribute);
  *value = it == function->attributes.end() ? 0 : it->second;
  return CUDA_SUCCESS;
}

CUresult SetAttribute(CUfunction handle, CUfunction_attribute attribute,
                      int value) {
  Function* function = nullptr;
  const CUresult result = FindAnyFunction(handle, &function);
  return result != CUDA_SUCCESS
             ? result
             : SetFunctionAttribute(function, attribute, value);
}

CUresult ParamInfo(CUfunction handle, std::size_t index, std::size_t* offset,
                   std::size_t* bytes) {
  if (offset == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Function* function = nullptr;
  const CUresult result = FindAnyFunction(handle, &function);
  if (result != CUDA_SUCCESS) return result;
  if (index >= function->params.size()) return CUDA_ERROR_INVALID_VALUE;
  *offset = function->params[index].offset;
  if (bytes != nullptr) *bytes = function->params[index].bytes;
  return CUDA_SUCCESS;
}

CUresult EnumerateModule(CUfunction* out, unsigned count, CUmodule handle) {
  Module* const module = FindModule(handle);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  std::vector<std::string> names;
  CUresult result = FunctionNames(module, &names);
  for (unsigned i = 0; i < count && i < names.size(); ++i) {
    Function* function = nullptr;
    if (result == CUDA_SUCCESS)
      result = FindFunction(module, names[i], &function);
    if (result != CUDA_SUCCESS) return result;
    out[i] = reinterpret_cast<CUfunction>(
        function->id.load(std::memory_order_acquire));
  }
  return result;
}

CUresult LibraryModule(CUlibrary handle, Module** module) {
  Context* context = nullptr;
  const CUresult result = Driver::Get().Current(&context);
  if (result != CUDA_SUCCESS) return result;
  Library* const library = FindLibrary(handle);
  return library == nullptr ? CUDA_ERROR_INVALID_HANDLE
                            : ModuleOf(library, context, module);
}

}  // namespace
}  // namespace pos::shim

using namespace pos::shim;  // NOLINT: this file implements the driver's API

CUresult CUDAAPI cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  if (mode == nullptr) return CUDA_ERROR_INVALID_VALUE;
  // With eager loading cuBLAS alone sends thousands of images at start.
  *mode = CU_MODULE_LAZY_LOADING;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleLoadData(CUmodule* module, const void* image) {
  return LoadImage(module, image, {});
}
CUresult CUDAAPI cuModuleLoadDataEx(CUmodule* module, const void* image,
                                    unsigned count, CUjit_option* options,
                                    void** values) {
  return LoadImage(module, image, ReadOptions(count, options, values));
}
CUresult CUDAAPI cuModuleLoadFatBinary(CUmodule* module, const void* image) {
  return LoadImage(module, image, {});
}
CUresult CUDAAPI cuModuleLoad(CUmodule* module, const char* path) {
  std::vector<char> bytes;
  const CUresult result = ReadFile(path, &bytes);
  return result != CUDA_SUCCESS ? result : LoadImage(module, bytes.data(), {});
}
CUresult CUDAAPI cuModuleUnload(CUmodule handle) {
  const OutputFlush flush;
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  Module* const module = FindModule(handle);
  if (module == nullptr || module->library != 0) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  return UnloadModule(module);
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction* out, CUmodule handle,
                                     const char* name) {
  if (out == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* const module = FindModule(handle);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Function* function = nullptr;
  const CUresult result = FindFunction(module, name, &function);
  if (result != CUDA_SUCCESS) return result;
  *out = reinterpret_cast<CUfunction>(
      function->id.load(std::memory_order_acquire));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetGlobal_v2(CUdeviceptr* address, std::size_t* bytes,
                                      CUmodule handle, const char* name) {
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Module* const module = FindModule(handle);
  return module == nullptr ? CUDA_ERROR_INVALID_HANDLE
                           : FindGlobal(module, name, address, bytes);
}

CUresult CUDAAPI cuModuleGetFunctionCount(unsigned* count, CUmodule handle) {
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Module* const module = FindModule(handle);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  std::vector<std::string> names;
  const CUresult result = FunctionNames(module, &names);
  *count = static_cast<unsigned>(names.size());
  return result;
}
CUresult CUDAAPI cuModuleEnumerateFunctions(CUfunction* out, unsigned count,
                                            CUmodule handle) {
  return out == nullptr ? CUDA_ERROR_INVALID_VALUE
                        : EnumerateModule(out, count, handle);
}

CUresult CUDAAPI cuLibraryLoadData(CUlibrary* library, const void* image,
                                   CUjit_option*, void**, unsigned,
                                   CUlibraryOption*, void**, unsigned) {
  return LoadLibrary(library, image);
}
CUresult CUDAAPI cuLibraryLoadFromFile(CUlibrary* library, const char* path,
                                       CUjit_option*, void**, unsigned,
                                       CUlibraryOption*, void**, unsigned) {
  std::vector<char> bytes;
  const CUresult result = ReadFile(path, &bytes);
  return result != CUDA_SUCCESS ? result : LoadLibrary(library, bytes.data());
}
CUresult CUDAAPI cuLibraryUnload(CUlibrary library) {
  return UnloadLibrary(library);
}
CUresult CUDAAPI cuLibraryGetKernel(CUkernel* kernel, CUlibrary library,
                                    const char* name) {
  return GetKernel(kernel, library, name);
}
CUresult CUDAAPI cuLibraryGetModule(CUmodule* out, CUlibrary handle) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* module = nullptr;
  const CUresult result = LibraryModule(handle, &module);
  if (result != CUDA_SUCCESS) return result;
  *out = reinterpret_cast<CUmodule>(module->id.load(std::memory_order_acquire));
  return CUDA_SUCCESS;
}
CUresult CUDAAPI cuLibraryGetGlobal(CUdeviceptr* address, std::size_t* bytes,
                                    CUlibrary handle, const char* name) {
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* module = nullptr;
  const CUresult result = LibraryModule(handle, &module);
  return result != CUDA_SUCCESS ? result
                                : FindGlobal(module, name, address, bytes);
}
CUresult CUDAAPI cuLibraryGetKernelCount(unsigned* count, CUlibrary handle) {
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* module = nullptr;
  CUresult result = LibraryModule(handle, &module);
  if (result != CUDA_SUCCESS) return result;
  std::vector<std::string> names;
  result = FunctionNames(module, &names);
  *count = static_cast<unsigned>(names.size());
  return result;
}
CUresult CUDAAPI cuLibraryEnumerateKernels(CUkernel* out, unsigned count,
                                           CUlibrary handle) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* module = nullptr;
  CUresult result = LibraryModule(handle, &module);
  std::vector<std::string> names;
  if (result == CUDA_SUCCESS) result = FunctionNames(module, &names);
  for (unsigned i = 0; i < count && i < names.size(); ++i) {
    if (result == CUDA_SUCCESS) {
      result = GetKernel(&out[i], handle, names[i].c_str());
    }
  }
  return result;
}

CUresult CUDAAPI cuKernelGetFunction(CUfunction* out, CUkernel kernel) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Function* function = nullptr;
  const CUresult result =
      FindAnyFunction(reinterpret_cast<CUfunction>(kernel), &function);
  if (result != CUDA_SUCCESS) return result;
  *out = reinterpret_cast<CUfunction>(
      function->id.load(std::memory_order_acquire));
  return CUDA_SUCCESS;
}
CUresult CUDAAPI cuKernelGetLibrary(CUlibrary* out, CUkernel handle) {
  const Kernel* const kernel = FindKernel(handle);
  if (out == nullptr || kernel == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUlibrary>(kernel->library);
  return CUDA_SUCCESS;
}
CUresult CUDAAPI cuKernelGetName(const char** name, CUkernel handle) {
  const Kernel* const kernel = FindKernel(handle);
  if (name == nullptr || kernel == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *name = kernel->name.c_str();
  return CUDA_SUCCESS;
}
CUresult CUDAAPI cuKernelGetAttribute(int* value,
                                      CUfunction_attribute attribute,
                                      CUkernel kernel, CUdevice) {
  return GetAttribute(value, attribute, reinterpret_cast<CUfunction>(kernel));
}
CUresult CUDAAPI cuKernelSetAttribute(CUfunction_attribute attribute, int value,
                                      CUkernel kernel, CUdevice) {
  return SetAttribute(reinterpret_cast<CUfunction>(kernel), attribute, value);
}
CUresult CUDAAPI cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache,
                                        CUdevice) {
  return FindKernel(kernel) == nullptr ? CUDA_ERROR_INVALID_HANDLE
                                       : CUDA_SUCCESS;
}
CUresult CUDAAPI cuKernelGetParamInfo(CUkernel kernel, std::size_t index,
                                      std::size_t* offset, std::size_t* bytes) {
  return ParamInfo(reinterpret_cast<CUfunction>(kernel), index, offset, bytes);
}

CUresult CUDAAPI cuFuncGetAttribute(int* value, CUfunction_attribute attribute,
                                    CUfunction function) {
  return GetAttribute(value, attribute, function);
}
CUresult CUDAAPI cuFuncSetAttribute(CUfunction function,
                                    CUfunction_attribute attribute, int value) {
  return SetAttribute(function, attribute, value);
}
CUresult CUDAAPI cuFuncSetCacheConfig(CUfunction handle, CUfunc_cache) {
  Function* function = nullptr;
  return FindAnyFunction(handle, &function);
}
CUresult CUDAAPI cuFuncSetSharedMemConfig(CUfunction handle, CUsharedconfig) {
  Function* function = nullptr;
  return FindAnyFunction(handle, &function);
}
CUresult CUDAAPI cuFuncGetModule(CUmodule* out, CUfunction handle) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Function* function = nullptr;
  const CUresult result = FindAnyFunction(handle, &function);
  if (result != CUDA_SUCCESS) return result;
  *out = reinterpret_cast<CUmodule>(function->module);
  return CUDA_SUCCESS;
}
CUresult CUDAAPI cuFuncGetName(const char** name, CUfunction handle) {
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Function* function = nullptr;
  const CUresult result = FindAnyFunction(handle, &function);
  if (result != CUDA_SUCCESS) return result;
  *name = function->name.c_str();
  return CUDA_SUCCESS;
}
CUresult CUDAAPI cuFuncGetParamInfo(CUfunction function, std::size_t index,
                                    std::size_t* offset, std::size_t* bytes) {
  return ParamInfo(function, index, offset, bytes);
}
CUresult CUDAAPI cuFuncIsLoaded(CUfunctionLoadingState* state,
                                CUfunction handle) {
  if (state == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Function* function = nullptr;
  const CUresult result = FindAnyFunction(handle, &function);
  if (result == CUDA_SUCCESS) *state = CU_FUNCTION_LOADING_STATE_LOADED;
  return result;
}
CUresult CUDAAPI cuFuncLoad(CUfunction handle) {
  Function* function = nullptr;
  return FindAnyFunction(handle, &function);
}
