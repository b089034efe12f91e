// Code: blobs, modules, functions, launches.
#include <cuda.h>

#include <cstring>
#include <memory>

#include "pos/cuda_impl/handles/objects.h"
#include "pos/cuda_impl/parser/cuda_parser.h"

namespace pos::cuda {
namespace {

// Code images of NVIDIA's largest libraries stay well below this.
constexpr std::uint64_t kMaxBlobBytes = std::uint64_t{1} << 30;

Blob* BlobOf(Handle* handle) {
  return static_cast<Blob*>(handle->parser_data.get());
}

}  // namespace

ApiParser::Outcome CudaParser::ParseBlobCreate(ApiContext* context,
                                               const BlobCreateArgs& args) {
  if (args.bytes == 0 || args.bytes > kMaxBlobBytes) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "blob size");
  }
  std::shared_ptr<Blob> blob = state_->code.NewBlob(args.bytes);
  if (blob == nullptr) {
    return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "too much code");
  }
  Handle* const handle = state_->graph.Create(kBlobHandle);
  if (handle == nullptr) {
    return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "too many handles");
  }
  handle->parser_data = std::move(blob);
  context->Out<BlobCreateOut>().blob = handle->id;
  return Outcome::kAnswered;
}

ApiParser::Outcome CudaParser::ParseBlobPut(ApiContext* context,
                                            const BlobPutArgs& args) {
  Handle* const handle = Resolve(context, 0, kBlobHandle, args.blob);
  if (handle == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such blob");
  }
  Blob* const blob = BlobOf(handle);
  const std::span<const std::byte> in = port_->BulkIn(*context);
  if (blob->sealed || in.size() != args.bytes ||
      args.offset > blob->bytes.size() ||
      in.size() > blob->bytes.size() - args.offset) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "bad range");
  }
  std::memcpy(blob->bytes.data() + args.offset, in.data(), in.size());
  return Outcome::kAnswered;
}

ApiParser::Outcome CudaParser::ParseBlobDestroy(ApiContext* context,
                                                const BlobDestroyArgs& args) {
  return Destroy(context, kBlobHandle, args.blob);
}

ApiParser::Outcome CudaParser::ParseModuleLoad(ApiContext* context,
                                               const ModuleLoadArgs& args) {
  Handle* const owner = Resolve(context, 0, kContextHandle, args.context);
  Handle* const blob = state_->graph.Resolve(kBlobHandle, args.blob);
  if (owner == nullptr || blob == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such handle");
  }
  BlobOf(blob)->sealed = true;
  Handle* const module = state_->graph.Create(kModuleHandle, owner, blob);
  if (module == nullptr) {
    return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "too many handles");
  }
  module->made = false;
  context->handles = {owner, module, blob};
  context->Out<ModuleLoadOut>().module = module->id;
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseModuleUnload(ApiContext* context,
                                                 const ModuleUnloadArgs& args) {
  Handle* const module = Resolve(context, 0, kModuleHandle, args.module);
  if (module == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such module");
  }
  state_->graph.ForEach([&](Handle* handle) {
    if (handle->parents[0] != module || !handle->alive) return;
    state_->graph.Kill(handle);
    context->family.push_back(handle);
  });
  state_->graph.Kill(module);
  context->handles[1] = ContextOf(module);
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseModuleFunction(
    ApiContext* context, const ModuleFunctionArgs& args) {
  Handle* const module = Resolve(context, 0, kModuleHandle, args.module);
  if (module == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such module");
  }
  Handle* const function = state_->graph.Create(kFunctionHandle, module);
  if (function == nullptr) {
    return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "too many handles");
  }
  function->made = false;
  context->handles[1] = function;
  context->Out<ModuleFunctionOut>().function = function->id;
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseModuleGlobal(ApiContext* context,
                                                 const ModuleGlobalArgs& args) {
  if (Resolve(context, 0, kModuleHandle, args.module) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such module");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseModuleFunctionNames(
    ApiContext* context, const ModuleFunctionNamesArgs& args) {
  if (Resolve(context, 0, kModuleHandle, args.module) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such module");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseFunctionSetAttribute(
    ApiContext* context, const FunctionSetAttributeArgs& args) {
  if (Resolve(context, 0, kFunctionHandle, args.function) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such function");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseLaunch(ApiContext* context,
                                           const LaunchArgs& args) {
  if (Resolve(context, 0, kStreamHandle, args.stream) == nullptr ||
      Resolve(context, 1, kFunctionHandle, args.function) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such handle");
  }
  return Outcome::kForward;
}

}  // namespace pos::cuda
