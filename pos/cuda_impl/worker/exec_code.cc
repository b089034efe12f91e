// Code: modules, functions, variables, launches.
#include <cuda.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "pos/base/log.h"
#include "pos/cuda_impl/worker/cuda_executor.h"
#include "pos/cuda_impl/worker/variable_placer.h"

namespace pos::cuda {
namespace {

template <typename T>
T* ObjectOf(const Handle* handle) {
  return static_cast<T*>(handle->object.get());
}

// What was placed and is not known to be constant.
std::vector<std::uint64_t> WritableOf(const ModuleObject& module) {
  std::vector<std::uint64_t> writable = module.placed;
  for (const GlobalInfo& global : module.module->Globals()) {
    if (global.constant) std::erase(writable, global.address);
  }
  std::sort(writable.begin(), writable.end());
  return writable;
}

}  // namespace

// The parser keeps blobs; nothing of them is on the device.
ApiExecutor::Outcome CudaExecutor::ExecBlobCreate(ApiContext* context,
                                                  const BlobCreateArgs&) {
  return Fail(context, CUDA_ERROR_NOT_SUPPORTED);
}
ApiExecutor::Outcome CudaExecutor::ExecBlobPut(ApiContext* context,
                                               const BlobPutArgs&) {
  return Fail(context, CUDA_ERROR_NOT_SUPPORTED);
}
ApiExecutor::Outcome CudaExecutor::ExecBlobDestroy(ApiContext* context,
                                                   const BlobDestroyArgs&) {
  Gone(context->handles[0]);
  return Outcome::kDone;
}

// The driver has placed them. A restored program holds their addresses, so
// they have to be where they were.
Status CudaExecutor::TakeVariables(ModuleObject* object, const Handle* owner,
                                   const std::vector<std::uint64_t>* recorded) {
  for (const GlobalInfo& global : object->module->Globals()) {
    const std::size_t index = object->placed.size();
    object->placed.push_back(global.address);
    if (recorded != nullptr) {
      if (index < recorded->size() && (*recorded)[index] == global.address) {
        continue;
      }
      return Incompatible("the driver put variable " + global.name + " at " +
                          Hex(global.address) + ", and the image has it " +
                          (index < recorded->size()
                               ? "at " + Hex((*recorded)[index])
                               : "nowhere"));
    }
    const std::uint64_t bytes = std::max<std::uint64_t>(global.bytes, 1);
    POS_RETURN_IF_ERROR(memory_.Map({.address = global.address,
                                     .bytes = bytes,
                                     .backing_address = global.address,
                                     .backing_bytes = bytes,
                                     .device = object->device,
                                     .context = owner->id,
                                     .foreign = true}));
  }
  return {};
}

Status CudaExecutor::MakeModule(Handle* handle,
                                const std::vector<std::uint64_t>* recorded,
                                DeviceError* error) {
  Handle* const owner = handle->parents[0];
  const auto* blob =
      static_cast<const Blob*>(handle->parents[1]->parser_data.get());
  auto* const context = ObjectOf<ContextObject>(owner);
  auto object = std::make_unique<ModuleObject>();
  object->device = context->device;
  VariablePlacer placer(&variables_[static_cast<std::size_t>(context->device)],
                        &memory_, state_->ledger, context->device, owner->id,
                        recorded);
  Result<std::unique_ptr<DeviceModule>> module =
      context->context->LoadModule(blob->bytes, &placer, error);
  object->placed = std::move(placer.placed());
  if (placer.heap() != 0) {
    // Whether or not the rest of the module loads.
    if (context->heap != 0) ReleaseRange(context->heap);
    context->heap = placer.heap();
    context->heap_bytes = placer.heap_bytes();
  }
  if (!module.ok()) {
    if (recorded == nullptr) {
      for (const std::uint64_t address : object->placed) ReleaseRange(address);
    }
    return module.status();
  }
  object->module = std::move(module).value();
  if (state_->devices[static_cast<std::size_t>(object->device)]
          ->PlacesVariables()) {
    POS_RETURN_IF_ERROR(TakeVariables(object.get(), owner, recorded));
  }
  if (recorded == nullptr) {
    for (const GlobalInfo& global : object->module->Globals()) {
      notices_->Post({.what = kNoticeVariable,
                      .a = global.address,
                      .b = std::max<std::uint64_t>(global.bytes, 1),
                      .c = static_cast<std::uint64_t>(object->device),
                      .handle = owner});
    }
  }
  object->writable = WritableOf(*object);
  const DeviceInfo& device =
      state_->devices[static_cast<std::size_t>(object->device)]->info();
  object->code = std::make_shared<ModuleCode>(
      &code_accesses_, blob->bytes, ChoiceOf(device), object->module.get());
  handle->object = std::move(object);
  return {};
}

ApiExecutor::Outcome CudaExecutor::ExecModuleLoad(ApiContext* context,
                                                  const ModuleLoadArgs&) {
  Handle* const handle = context->handles[1];
  DeviceError error = CUDA_ERROR_INVALID_IMAGE;
  const Status status = MakeModule(handle, nullptr, &error);
  if (!status.ok()) {
    // What the program may show as the compiler's log.
    const std::size_t bytes =
        std::min<std::size_t>(status.message().size(), context->reply.size());
    std::memcpy(context->reply.data(), status.message().data(), bytes);
    const Outcome outcome = Created(context, handle, status, error);
    context->reply_bytes = static_cast<std::uint32_t>(bytes);
    return outcome;
  }
  Made(handle);
  handle->recipe.Record(*context, 0, ObjectOf<ModuleObject>(handle)->placed);
  return Outcome::kDone;
}

void CudaExecutor::DestroyModule(Handle* handle,
                                 std::span<Handle* const> functions) {
  for (Handle* function : functions) Gone(function);
  if (const auto* object = ObjectOf<ModuleObject>(handle)) {
    for (const std::uint64_t address : object->placed) ReleaseRange(address);
  }
  Gone(handle);
}

// Kernels of the module may still run.
ApiExecutor::Outcome CudaExecutor::ExecModuleUnload(ApiContext* context,
                                                    const ModuleUnloadArgs&) {
  unloading_.push_back(context);
  const auto* const module = ObjectOf<ModuleObject>(context->handles[0]);
  for (const std::uint64_t address : module->placed) {
    memory_.MarkLeaving(address);
  }
  return WhenIdle(context, module->device);
}

Status CudaExecutor::MakeFunction(Handle* handle, std::string_view name) {
  DeviceFunction* const function =
      ObjectOf<ModuleObject>(handle->parents[0])->module->FindFunction(name);
  if (function == nullptr) {
    return NoSuch("kernel " + std::string(name));
  }
  auto object = std::make_unique<FunctionObject>();
  object->function = function;
  object->access = std::make_shared<CodeAccess>(
      ObjectOf<ModuleObject>(handle->parents[0])->code, state_->layout, name);
  handle->object = std::move(object);
  return {};
}

ApiExecutor::Outcome CudaExecutor::ExecModuleFunction(
    ApiContext* context, const ModuleFunctionArgs&) {
  Handle* const handle = context->handles[1];
  const Status status = MakeFunction(handle, context->InlineText());
  if (!status.ok()) {
    // A look-up that finds nothing is ordinary: no log line.
    Gone(handle);
    return Fail(context, CUDA_ERROR_NOT_FOUND);
  }
  const FunctionInfo& info = ObjectOf<FunctionObject>(handle)->function->info();
  ByteWriter list;
  for (const ParamInfo& param : info.params) {
    list.Put(FunctionParam{param.offset, param.size});
  }
  for (const auto& [attribute, value] : info.attributes) {
    list.Put(FunctionAttribute{attribute, value});
  }
  if (info.prints) list.Put(FunctionAttribute{kAttributePrints, 1});
  const std::span<std::byte> room = port_->BulkOut(*context);
  if (room.size() < list.bytes().size()) {
    Gone(handle);
    return Fail(context, CUDA_ERROR_INVALID_VALUE);
  }
  std::copy(list.bytes().begin(), list.bytes().end(), room.begin());
  context->reply_bulk_bytes = list.bytes().size();
  auto& out = context->Out<ModuleFunctionOut>();
  out.param_count = static_cast<std::uint32_t>(info.params.size());
  out.attribute_count = static_cast<std::uint32_t>(info.attributes.size()) +
                        (info.prints ? 1 : 0);
  out.params_bytes = info.params_bytes;
  out.launch_error = info.launch_error;
  if (info.launch_error != 0) {
    POS_LOG(kWarning, "kernel cannot be launched here",
            {{"kernel", info.name}, {"why", info.launch_error_text}});
  }
  return Created(context, handle, {}, 0);
}

ApiExecutor::Outcome CudaExecutor::ExecModuleGlobal(ApiContext* context,
                                                    const ModuleGlobalArgs&) {
  const auto* const object = ObjectOf<ModuleObject>(context->handles[0]);
  const std::string_view name = context->InlineText();
  for (const GlobalInfo& global : object->module->Globals()) {
    if (global.name != name) continue;
    auto& out = context->Out<ModuleGlobalOut>();
    out.address = global.address;
    out.bytes = global.bytes;
    out.constant = global.constant ? 1 : 0;
    out.managed = global.managed ? 1 : 0;
    return Outcome::kDone;
  }
  return Fail(context, CUDA_ERROR_NOT_FOUND);
}

ApiExecutor::Outcome CudaExecutor::ExecModuleFunctionNames(
    ApiContext* context, const ModuleFunctionNamesArgs&) {
  const std::vector<std::string> names =
      ObjectOf<ModuleObject>(context->handles[0])->module->FunctionNames();
  ByteWriter list;
  for (const std::string& name : names) list.PutString(name);
  auto& out = context->Out<ModuleFunctionNamesOut>();
  out.count = static_cast<std::uint32_t>(names.size());
  context->reply_bulk_bytes = list.bytes().size();
  const std::span<std::byte> room = port_->BulkOut(*context);
  // Too small: the client sees from the size how much it takes, and asks again.
  if (room.size() >= list.bytes().size()) {
    std::copy(list.bytes().begin(), list.bytes().end(), room.begin());
  }
  return Outcome::kDone;
}

ApiExecutor::Outcome CudaExecutor::ExecFunctionSetAttribute(
    ApiContext* context, const FunctionSetAttributeArgs& args) {
  Handle* const handle = context->handles[0];
  const DeviceError error =
      ObjectOf<FunctionObject>(handle)->function->SetAttribute(args.attribute,
                                                               args.value);
  if (error == 0) {
    handle->recipe.Record(*context, static_cast<std::uint64_t>(args.attribute),
                          {});
  }
  return Fail(context, error);
}

ApiExecutor::Outcome CudaExecutor::ExecLaunch(ApiContext* context,
                                              const LaunchArgs& args) {
  DeviceFunction* const function =
      ObjectOf<FunctionObject>(context->handles[1])->function;
  // A stream's parent is its context.
  auto* const owner = ObjectOf<ContextObject>(context->handles[0]->parents[0]);
  owner->heap_used = owner->heap_used || function->info().uses_heap;
  owner->output_used = owner->output_used || function->info().prints;
  LaunchConfig config;
  config.grid = {args.grid_x, args.grid_y, args.grid_z};
  config.block = {args.block_x, args.block_y, args.block_z};
  config.dynamic_shared_bytes = args.shared_bytes;
  config.cooperative = (args.cooperative & kLaunchCooperative) != 0;
  std::span<const std::byte> params = context->Inline();
  if ((args.cooperative & kLaunchExtended) != 0) {
    LaunchExtension more;
    if (params.size() < sizeof(more)) {
      return Fail(context, CUDA_ERROR_INVALID_VALUE);
    }
    params = params.first(params.size() - sizeof(more));
    std::memcpy(&more, params.data() + params.size(), sizeof(more));
    std::copy(std::begin(more.cluster), std::end(more.cluster),
              config.cluster.begin());
    config.cluster_policy = more.cluster_policy;
    if ((more.flags & kLaunchHasPriority) != 0) config.priority = more.priority;
    config.programmatic = (more.flags & kLaunchProgrammatic) != 0;
  }
  if (params.size() != function->info().params_bytes) {
    return Fail(context, CUDA_ERROR_INVALID_VALUE);
  }
  const DeviceError error =
      ObjectOf<StreamObject>(context->handles[0])
          ->stream->Launch(function, config, params, TokenOf(context));
  if (error != 0) return Fail(context, error);
  return Outcome::kInFlight;
}

}  // namespace pos::cuda
