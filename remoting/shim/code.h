// Code images: sending them to the runner, finding kernels and variables.
#ifndef REMOTING_SHIM_CODE_H_
#define REMOTING_SHIM_CODE_H_

#include <cstdint>
#include <string>

#include "remoting/shim/driver_state.h"

namespace pos::shim {

// Sends the image that a program points at (fatbin wrapper, fatbin, cubin or
// PTX text). CUDA_ERROR_INVALID_IMAGE when it is none of these.
CUresult UploadImage(const void* image, std::uint64_t* blob);
void DropBlob(std::uint64_t blob);

// Loads `blob` into `context`. `message` gets the reason of a failure.
CUresult LoadModule(Context* context, std::uint64_t blob, std::uint64_t library,
                    std::uint64_t* module, std::string* message);
CUresult UnloadModule(Module* module);

// The function of that name, looked up once a module.
CUresult FindFunction(Module* module, const std::string& name,
                      Function** function);
CUresult FindGlobal(const Module* module, const std::string& name,
                    CUdeviceptr* address, std::size_t* bytes);
// Names of all kernels.
CUresult FunctionNames(const Module* module, std::vector<std::string>* names);

// The module of `library` in `context`, loaded at first use.
CUresult ModuleOf(Library* library, Context* context, Module** module);
CUresult FunctionOf(Kernel* kernel, Context* context, Function** function);

CUresult SetFunctionAttribute(Function* function, std::int32_t attribute,
                              std::int32_t value);

}  // namespace pos::shim

#endif  // REMOTING_SHIM_CODE_H_
