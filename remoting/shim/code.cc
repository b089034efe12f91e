#include "remoting/shim/code.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "pos/cuda_impl/fatbin/image_length.h"
#include "remoting/shim/driver_log.h"

namespace pos::shim {
namespace {

// A piece of an image: small enough to leave staging for others.
constexpr std::uint64_t kPieceBytes = 2u << 20;
// Parts that a wrapper may have: the linked image and one for each object.
constexpr std::size_t kMaxParts = 4096;

CUresult PutBlob(std::uint64_t blob, std::uint64_t offset,
                 const std::byte* data, std::uint64_t bytes) {
  while (bytes != 0) {
    const std::uint64_t piece =
        std::min({bytes, kPieceBytes, Client::Get().staging_bytes() / 4});
    const std::uint32_t lease = Client::Get().AcquireLease(piece);
    if (lease == wire::kNoLease) return static_cast<CUresult>(kLostError);
    if (!Client::Get().WithStaging(lease, [&](std::byte* staged) {
          std::memcpy(staged, data, piece);
        })) {
      return static_cast<CUresult>(kLostError);
    }
    const CUresult result = CallNoOut(
        cuda::BlobPutArgs{.blob = blob, .offset = offset, .bytes = piece},
        {.inline_data = {},
         .lease = lease,
         .bulk_bytes = piece,
         .flags = wire::kFrameBulkIn});
    if (result != CUDA_SUCCESS) return result;
    data += piece;
    offset += piece;
    bytes -= piece;
  }
  return CUDA_SUCCESS;
}

void FillFunction(Function* function, const cuda::ModuleFunctionOut& out,
                  std::span<const std::byte> list) {
  ByteReader in(list);
  function->params.clear();
  for (std::uint32_t i = 0; i < out.param_count && in.ok(); ++i) {
    function->params.push_back(in.Get<cuda::FunctionParam>());
  }
  function->attributes.clear();
  for (std::uint32_t i = 0; i < out.attribute_count && in.ok(); ++i) {
    const auto attribute = in.Get<cuda::FunctionAttribute>();
    function->attributes[attribute.attribute] = attribute.value;
  }
  function->params_bytes = out.params_bytes;
  function->launch_error = out.launch_error;
  const auto word = [&](std::int32_t attribute, std::uint32_t fallback) {
    const auto it = function->attributes.find(attribute);
    return it == function->attributes.end()
               ? fallback
               : static_cast<std::uint32_t>(it->second);
  };
  function->prints = word(cuda::kAttributePrints, 0) != 0;
  function->max_threads.store(
      word(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024),
      std::memory_order_relaxed);
  function->max_dynamic_shared.store(
      word(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 48 * 1024),
      std::memory_order_relaxed);
}

}  // namespace

CUresult UploadImage(const void* image, std::uint64_t* blob) {
  std::array<fatbin::ImageSpan, 1> single;
  std::vector<fatbin::ImageSpan> parts(1);
  const std::size_t count = fatbin::Unwrap(image, single);
  if (count == 0 || count > kMaxParts) return CUDA_ERROR_INVALID_IMAGE;
  parts.resize(count);
  if (fatbin::Unwrap(image, parts) != count) return CUDA_ERROR_INVALID_IMAGE;
  std::uint64_t total = 0;
  for (const fatbin::ImageSpan& part : parts) total += part.bytes;
  if (total == 0) return CUDA_ERROR_INVALID_IMAGE;

  cuda::BlobCreateOut out;
  CUresult result = Call(cuda::BlobCreateArgs{.bytes = total}, &out);
  if (result != CUDA_SUCCESS) return result;
  std::uint64_t offset = 0;
  for (const fatbin::ImageSpan& part : parts) {
    result = PutBlob(out.blob, offset, static_cast<const std::byte*>(part.data),
                     part.bytes);
    if (result != CUDA_SUCCESS) {
      DropBlob(out.blob);
      return result;
    }
    offset += part.bytes;
  }
  *blob = out.blob;
  return CUDA_SUCCESS;
}

void DropBlob(std::uint64_t blob) {
  if (blob != 0) CallNoOut(cuda::BlobDestroyArgs{.blob = blob});
}

CUresult LoadModule(Context* context, std::uint64_t blob, std::uint64_t library,
                    std::uint64_t* module, std::string* message) {
  Driver& driver = Driver::Get();
  const cuda::ModuleLoadArgs args{
      .context = context->runner_id.load(std::memory_order_acquire),
      .blob = blob};
  Reply reply;
  const auto result = static_cast<CUresult>(
      Client::Get().Call(static_cast<std::uint16_t>(cuda::Op::kModuleLoad),
                         std::as_bytes(std::span(&args, 1)), {}, &reply));
  if (result != CUDA_SUCCESS) {
    message->assign(reinterpret_cast<const char*>(reply.data.data()),
                    reply.bytes);
    if (!message->empty()) {
      DriverLog::Get().Add(CU_LOG_LEVEL_ERROR, "code refused: " + *message);
    }
    return result;
  }
  cuda::ModuleLoadOut out;
  std::memcpy(&out, reply.data.data(), sizeof(out));
  Module* const object = driver.modules.Make(out.module);
  if (object == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  object->context = context;
  object->library = library;
  object->blob = library == 0 ? blob : 0;
  object->functions.clear();
  object->id.store(out.module, std::memory_order_release);
  *module = out.module;
  return CUDA_SUCCESS;
}

CUresult UnloadModule(Module* module) {
  Driver& driver = Driver::Get();
  const std::uint64_t id = module->id.exchange(0, std::memory_order_acq_rel);
  if (id == 0) return CUDA_ERROR_INVALID_HANDLE;
  driver.functions.ForEach([id](Function* function) {
    if (function->module == id) {
      function->id.store(0, std::memory_order_release);
    }
  });
  const CUresult result = CallNoOut(cuda::ModuleUnloadArgs{.module = id});
  DropBlob(module->blob);
  return result;
}

CUresult FindFunction(Module* module, const std::string& name,
                      Function** function) {
  Driver& driver = Driver::Get();
  {
    MutexLock lock(&driver.code_mu);
    const auto it = module->functions.find(name);
    if (it != module->functions.end()) {
      *function = driver.functions.Get(it->second);
      if (*function != nullptr) return CUDA_SUCCESS;
    }
  }
  if (name.size() > wire::kMaxInlineBytes) return CUDA_ERROR_NOT_FOUND;
  const StagedAnswer staged(wire::kLeaseBytes);
  if (!staged.ok()) return static_cast<CUresult>(kLostError);
  Payload payload = staged.AsPayload();
  payload.inline_data = std::as_bytes(std::span(name));
  const cuda::ModuleFunctionArgs args{
      .module = module->id.load(std::memory_order_acquire)};
  Reply reply;
  const auto result = static_cast<CUresult>(
      Client::Get().Call(static_cast<std::uint16_t>(cuda::Op::kModuleFunction),
                         std::as_bytes(std::span(&args, 1)), payload, &reply));
  if (result != CUDA_SUCCESS) return result;
  cuda::ModuleFunctionOut out;
  std::memcpy(&out, reply.data.data(), sizeof(out));
  const std::vector<std::byte> list = staged.Take(reply.bulk_bytes);

  MutexLock lock(&driver.code_mu);
  Function* const object = driver.functions.Make(out.function);
  if (object == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  object->context = module->context;
  object->module = args.module;
  object->kernel = 0;
  object->name = name;
  FillFunction(object, out, list);
  object->id.store(out.function, std::memory_order_release);
  module->functions[name] = out.function;
  *function = object;
  return CUDA_SUCCESS;
}

CUresult FindGlobal(const Module* module, const std::string& name,
                    CUdeviceptr* address, std::size_t* bytes) {
  if (name.size() > wire::kMaxInlineBytes) return CUDA_ERROR_NOT_FOUND;
  cuda::ModuleGlobalOut out;
  const CUresult result = Call(
      cuda::ModuleGlobalArgs{.module =
                                 module->id.load(std::memory_order_acquire)},
      &out, {.inline_data = std::as_bytes(std::span(name))});
  if (result != CUDA_SUCCESS) return result;
  Driver& driver = Driver::Get();
  Range range;
  if (!driver.ranges.Find(out.address, &range)) {
    driver.ranges.Add({.address = out.address,
                       .bytes = std::max<std::uint64_t>(out.bytes, 1),
                       .kind = Range::kVariable,
                       .context = module->context,
                       .device = module->context->device,
                       .buffer_id = driver.NextUniqueId()});
  }
  if (address != nullptr) *address = out.address;
  if (bytes != nullptr) *bytes = out.bytes;
  return CUDA_SUCCESS;
}

CUresult FunctionNames(const Module* module, std::vector<std::string>* names) {
  std::uint64_t room = wire::kLeaseBytes;
  for (int attempt = 0; attempt < 2; ++attempt) {
    const StagedAnswer staged(room);
    if (!staged.ok()) return static_cast<CUresult>(kLostError);
    const cuda::ModuleFunctionNamesArgs args{
        .module = module->id.load(std::memory_order_acquire)};
    Reply reply;
    const auto result = static_cast<CUresult>(Client::Get().Call(
        static_cast<std::uint16_t>(cuda::Op::kModuleFunctionNames),
        std::as_bytes(std::span(&args, 1)), staged.AsPayload(), &reply));
    if (result != CUDA_SUCCESS) return result;
    if (reply.bulk_bytes > room) {
      room = reply.bulk_bytes;
      continue;
    }
    cuda::ModuleFunctionNamesOut out;
    std::memcpy(&out, reply.data.data(), sizeof(out));
    const std::vector<std::byte> list = staged.Take(reply.bulk_bytes);
    ByteReader in(list);
    for (std::uint32_t i = 0; i < out.count && in.ok(); ++i) {
      names->push_back(in.GetString());
    }
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_UNKNOWN;
}

CUresult ModuleOf(Library* library, Context* context, Module** module) {
  Driver& driver = Driver::Get();
  const std::pair<std::uint64_t, std::uint64_t> key(
      context->id.load(std::memory_order_relaxed),
      context->generation.load(std::memory_order_acquire));
  const std::uint64_t library_id = library->id.load(std::memory_order_acquire);
  const auto known = [&] {
    MutexLock lock(&driver.code_mu);
    const auto it = library->modules.find(key);
    *module =
        it == library->modules.end() ? nullptr : driver.modules.Get(it->second);
    return *module != nullptr;
  };
  if (known()) return CUDA_SUCCESS;
  std::uint64_t id = 0;
  std::string message;
  const CUresult result =
      LoadModule(context, library->blob, library_id, &id, &message);
  if (result != CUDA_SUCCESS) return result;
  bool lost_race = false;
  {
    MutexLock lock(&driver.code_mu);
    const auto [it, inserted] = library->modules.emplace(key, id);
    lost_race = !inserted && driver.modules.Get(it->second) != nullptr;
    if (!inserted && !lost_race) it->second = id;
  }
  // Another thread was faster; there must be one module, since its variables
  // are the library's in this context.
  if (lost_race) UnloadModule(driver.modules.Get(id));
  return known() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult FunctionOf(Kernel* kernel, Context* context, Function** function) {
  Driver& driver = Driver::Get();
  const std::uint64_t generation =
      context->generation.load(std::memory_order_acquire);
  if (kernel->last_generation.load(std::memory_order_acquire) == generation) {
    *function = driver.functions.Get(
        kernel->last_function.load(std::memory_order_acquire));
    if (*function != nullptr && (*function)->context == context) {
      return CUDA_SUCCESS;
    }
  }
  Library* const library = driver.libraries.Get(kernel->library);
  if (library == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Module* module = nullptr;
  CUresult result = ModuleOf(library, context, &module);
  if (result != CUDA_SUCCESS) return result;
  result = FindFunction(module, kernel->name, function);
  if (result != CUDA_SUCCESS) return result;
  (*function)->kernel = kernel->id.load(std::memory_order_relaxed);
  kernel->last_generation.store(0, std::memory_order_release);
  kernel->last_function.store((*function)->id.load(std::memory_order_acquire),
                              std::memory_order_release);
  kernel->last_generation.store(generation, std::memory_order_release);
  return CUDA_SUCCESS;
}

CUresult SetFunctionAttribute(Function* function, std::int32_t attribute,
                              std::int32_t value) {
  const CUresult result = CallNoOut(cuda::FunctionSetAttributeArgs{
      .function = function->id.load(std::memory_order_acquire),
      .attribute = attribute,
      .value = value});
  if (result != CUDA_SUCCESS) return result;
  Driver& driver = Driver::Get();
  MutexLock lock(&driver.code_mu);
  function->attributes[attribute] = value;
  if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
    function->max_dynamic_shared.store(static_cast<std::uint32_t>(value),
                                       std::memory_order_relaxed);
  }
  return CUDA_SUCCESS;
}

CUresult Driver::ResolveFunction(CUfunction handle, Context* context,
                                 Function** function) {
  const auto id = reinterpret_cast<std::uint64_t>(handle);
  if (id >> 56 == cuda::kKernelHandle) {
    Kernel* const kernel = kernels.Get(id);
    if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return FunctionOf(kernel, context, function);
  }
  *function = functions.Get(id);
  return *function == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

}  // namespace pos::shim
