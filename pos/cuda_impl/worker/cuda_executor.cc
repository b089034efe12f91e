// Dispatch, contexts, streams, events.
#include "pos/cuda_impl/worker/cuda_executor.h"

#include <cuda.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "pos/base/log.h"

namespace pos::cuda {
namespace {

template <typename T>
T* ObjectOf(const Handle* handle) {
  return static_cast<T*>(handle->object.get());
}

}  // namespace

CudaExecutor::CudaExecutor(const SessionState* state, ClientPort* port,
                           NoticeBoard* notices, CompletionSink* sink,
                           HostWindow* host,
                           std::atomic<std::int32_t>* dropped_error)
    : state_(state),
      port_(port),
      notices_(notices),
      sink_(sink),
      host_(host),
      dropped_error_(dropped_error),
      memory_(state->devices),
      accesses_(state->layout, &memory_) {
  for (std::size_t i = 0; i < state->devices.size(); ++i) {
    variables_.emplace_back(state->layout.VariableBase(static_cast<int>(i)),
                            state->layout.VariableBytes(),
                            Device::kMapGranularity);
  }
  output_.SetReady([this](bool waiting) { port_->SetOutput(waiting); });
}

CudaExecutor::~CudaExecutor() {
  CancelAll();
  // Children before parents: functions and streams lean on contexts.
  std::vector<Handle*> handles;
  state_->graph.ForEach([&](Handle* h) { handles.push_back(h); });
  std::for_each(handles.rbegin(), handles.rend(),
                [](Handle* h) { h->object.reset(); });
  while (!memory_.blocks().empty()) {
    memory_.Unmap(memory_.blocks().begin()->first);
  }
  DropHostMemory();
}

void CudaExecutor::CancelAll() {
  MutexLock lock(&contexts_mu_);
  for (Handle* handle : contexts_) {
    ObjectOf<ContextObject>(handle)->context->Cancel();
  }
}

ApiExecutor::Outcome CudaExecutor::Execute(ApiContext* context) {
  if (watch_ != nullptr && !MayGo(*context)) [[unlikely]] {
    return Outcome::kBlocked;
  }
  switch (static_cast<Op>(context->info->op)) {
#define POS_CALL(id, name, reply, payload, args, out) \
  case Op::k##name:                                   \
    return Exec##name(context, context->Args<name##Args>());
#include "pos/cuda_impl/api/calls.def"
#undef POS_CALL
  }
  return Fail(context, CUDA_ERROR_NOT_SUPPORTED);
}

ApiExecutor::Outcome CudaExecutor::Complete(ApiContext* context,
                                            DeviceError error) {
  if (error != 0) {
    context->result = error;
    CheckFaults();
  }
  const Op op = static_cast<Op>(context->info->op);
  switch (op) {
    case Op::kMemFree:
    case Op::kMemFreeAsync:
    case Op::kHostFree:
    case Op::kModuleUnload:
    case Op::kCtxSynchronize:
      // Waits for several contexts: one token each.
      if (--context->scratch[3] != 0) return Outcome::kInFlight;
      break;
    default:
      break;
  }
  switch (op) {
    case Op::kMemFree:
      ReleaseRange(context->Args<MemFreeArgs>().address);
      break;
    case Op::kMemFreeAsync:
      ReleaseRange(context->Args<MemFreeAsyncArgs>().address);
      break;
    case Op::kHostFree:
      ReleaseHost(context->Args<HostFreeArgs>().address);
      break;
    case Op::kModuleUnload:
      // Unless its context has taken it along meanwhile.
      if (std::erase(unloading_, context) != 0) {
        DestroyModule(context->handles[0], context->family);
      }
      break;
    case Op::kCopyFromDevice:
      if (error != 0) break;
      if ((context->flags & wire::kFrameBulkOut) != 0) {
        context->reply_bulk_bytes = context->Args<CopyFromDeviceArgs>().bytes;
      } else {
        context->reply_bytes = static_cast<std::uint32_t>(
            context->Args<CopyFromDeviceArgs>().bytes);
      }
      break;
    default:
      break;
  }
  if (context->result == 0 && context->wants_reply() && !context->answered) {
    context->result = TakeDropped();
  }
  return Outcome::kDone;
}

ApiExecutor::Outcome CudaExecutor::Fail(ApiContext* context,
                                        DeviceError error) {
  context->result = error;
  if (!context->wants_reply() && error != 0) {
    POS_LOG(
        kWarning, "call failed on the device",
        {{"call", context->info->name}, {"pc", context->pc}, {"error", error}});
    dropped_error_->store(error, std::memory_order_relaxed);
  }
  return Outcome::kDone;
}

DeviceError CudaExecutor::TakeDropped() {
  if (dropped_error_->load(std::memory_order_relaxed) == 0) return 0;
  return dropped_error_->exchange(0, std::memory_order_relaxed);
}

void CudaExecutor::CheckFaults() {
  DeviceError error = 0;
  for (const Handle* handle : contexts_) {
    error = ObjectOf<ContextObject>(handle)->context->sticky_error();
    if (error != 0) break;
  }
  if (error == 0 && broken_ != 0) error = CUDA_ERROR_OUT_OF_MEMORY;
  if (error == sticky_) return;
  sticky_ = error;
  port_->SetSticky(error);
}

void CudaExecutor::Made(Handle* handle) {
  handle->materialized = true;
  notices_->Post({.what = kNoticeHandleMade, .handle = handle});
}

void CudaExecutor::Gone(Handle* handle) {
  handle->object.reset();
  handle->materialized = false;
  notices_->Post({.what = kNoticeHandleGone, .handle = handle});
}

ApiExecutor::Outcome CudaExecutor::Created(ApiContext* context, Handle* handle,
                                           const Status& status,
                                           DeviceError error) {
  if (status.ok()) {
    Made(handle);
    handle->recipe.Record(*context, 0, {});
    return Outcome::kDone;
  }
  POS_LOG(kWarning, "cannot create",
          {{"call", context->info->name}, {"status", status.ToString()}});
  // Dead for the client: it never learns the id.
  Gone(handle);
  return Fail(context, error);
}

ApiExecutor::Outcome CudaExecutor::WhenIdle(ApiContext* context, int device) {
  std::uint64_t waits = 0;
  for (const Handle* handle : contexts_) {
    if (device < 0 || ObjectOf<ContextObject>(handle)->device == device) {
      ++waits;
    }
  }
  context->scratch[3] = waits;
  if (waits == 0) {
    context->scratch[3] = 1;
    return Complete(context, 0);
  }
  for (const Handle* handle : contexts_) {
    auto* const object = ObjectOf<ContextObject>(handle);
    if (device < 0 || object->device == device) {
      object->context->NotifyIdle(TokenOf(context));
    }
  }
  return Outcome::kInFlight;
}

// --- Contexts ---

ApiExecutor::Outcome CudaExecutor::ExecDeviceTable(ApiContext* context,
                                                   const DeviceTableArgs&) {
  return Fail(context, CUDA_ERROR_NOT_SUPPORTED);  // the parser answers it
}

Status CudaExecutor::MakeContext(Handle* handle, Handle* stream,
                                 const CtxCreateArgs& args) {
  auto object = std::make_unique<ContextObject>();
  object->device = args.device;
  object->sink = std::make_unique<ContextSink>(sink_, &output_, handle->id);
  POS_ASSIGN_OR_RETURN(
      object->context,
      state_->devices[static_cast<std::size_t>(args.device)]->CreateContext(
          args.flags, object->sink.get()));
  auto stream_object = std::make_unique<StreamObject>();
  stream_object->context = object->context.get();
  stream_object->stream = object->context->default_stream();
  handle->object = std::move(object);
  stream->object = std::move(stream_object);
  handle->materialized = true;
  stream->materialized = true;
  MutexLock lock(&contexts_mu_);
  contexts_.push_back(handle);
  return {};
}

ApiExecutor::Outcome CudaExecutor::ExecCtxCreate(ApiContext* context,
                                                 const CtxCreateArgs& args) {
  Handle* const handle = context->handles[0];
  Handle* const stream = context->handles[1];
  const Status status = MakeContext(handle, stream, args);
  status.ok() ? Made(stream) : Gone(stream);
  return Created(context, handle, status, CUDA_ERROR_OUT_OF_MEMORY);
}

void CudaExecutor::DestroyContext(Handle* handle,
                                  std::span<Handle* const> family) {
  // Latest first: functions before their modules. Objects of a handle that was
  // never made are null. Memory of modules goes with the context's, below:
  // their kernels may run until the context has ended.
  for (auto it = family.rbegin(); it != family.rend(); ++it) Gone(*it);
  std::erase_if(unloading_, [this, handle](const ApiContext* call) {
    if (call->handles[1] != handle) return false;
    for (Handle* function : call->family) Gone(function);
    Gone(call->handles[0]);
    return true;
  });
  {
    MutexLock lock(&contexts_mu_);
    std::erase(contexts_, handle);
  }
  const HandleId id = handle->id;
  Gone(handle);
  output_.Close(id);
  std::vector<std::uint64_t> ranges;
  for (const auto& [address, block] : memory_.blocks()) {
    if (block.context == id && !block.releasing) ranges.push_back(address);
  }
  if (broken_ == id) broken_ = 0;
  for (const std::uint64_t address : ranges) ReleaseRange(address);
}

ApiExecutor::Outcome CudaExecutor::ExecCtxDestroy(ApiContext* context,
                                                  const CtxDestroyArgs&) {
  Handle* const handle = context->handles[0];
  ObjectOf<ContextObject>(handle)->context->Cancel();
  DestroyContext(handle, context->family);
  CheckFaults();
  return Outcome::kDone;
}

ApiExecutor::Outcome CudaExecutor::ExecCtxSynchronize(
    ApiContext* context, const CtxSynchronizeArgs&) {
  context->scratch[3] = 1;
  ObjectOf<ContextObject>(context->handles[0])
      ->context->NotifyIdle(TokenOf(context));
  return Outcome::kInFlight;
}

// --- Streams ---

Status CudaExecutor::MakeStream(Handle* handle, const StreamCreateArgs& args) {
  DeviceContext* const owner =
      ObjectOf<ContextObject>(handle->parents[0])->context.get();
  auto object = std::make_unique<StreamObject>();
  POS_ASSIGN_OR_RETURN(object->owned,
                       owner->CreateStream(args.flags, args.priority));
  object->context = owner;
  object->stream = object->owned.get();
  handle->object = std::move(object);
  return {};
}

ApiExecutor::Outcome CudaExecutor::ExecStreamCreate(
    ApiContext* context, const StreamCreateArgs& args) {
  Handle* const handle = context->handles[1];
  return Created(context, handle, MakeStream(handle, args),
                 CUDA_ERROR_OUT_OF_MEMORY);
}

ApiExecutor::Outcome CudaExecutor::ExecStreamDestroy(ApiContext* context,
                                                     const StreamDestroyArgs&) {
  Gone(context->handles[0]);
  return Outcome::kDone;
}

ApiExecutor::Outcome CudaExecutor::ExecStreamSynchronize(
    ApiContext* context, const StreamSynchronizeArgs&) {
  ObjectOf<StreamObject>(context->handles[0])->stream->Notify(TokenOf(context));
  return Outcome::kInFlight;
}

ApiExecutor::Outcome CudaExecutor::ExecStreamQuery(ApiContext* context,
                                                   const StreamQueryArgs&) {
  const std::optional<DeviceError> state =
      ObjectOf<StreamObject>(context->handles[0])->stream->Query();
  return Fail(context, state.value_or(CUDA_ERROR_NOT_READY));
}

ApiExecutor::Outcome CudaExecutor::ExecStreamWaitEvent(
    ApiContext* context, const StreamWaitEventArgs&) {
  ObjectOf<StreamObject>(context->handles[0])
      ->stream->WaitEvent(
          ObjectOf<EventObject>(context->handles[1])->event.get(),
          TokenOf(context));
  return Outcome::kInFlight;
}

// --- Events ---

Status CudaExecutor::MakeEvent(Handle* handle, const EventCreateArgs& args) {
  auto object = std::make_unique<EventObject>();
  POS_ASSIGN_OR_RETURN(object->event,
                       ObjectOf<ContextObject>(handle->parents[0])
                           ->context->CreateEvent(args.flags));
  handle->object = std::move(object);
  return {};
}

ApiExecutor::Outcome CudaExecutor::ExecEventCreate(
    ApiContext* context, const EventCreateArgs& args) {
  Handle* const handle = context->handles[1];
  return Created(context, handle, MakeEvent(handle, args),
                 CUDA_ERROR_OUT_OF_MEMORY);
}

ApiExecutor::Outcome CudaExecutor::ExecEventDestroy(ApiContext* context,
                                                    const EventDestroyArgs&) {
  Gone(context->handles[0]);
  return Outcome::kDone;
}

ApiExecutor::Outcome CudaExecutor::ExecEventRecord(ApiContext* context,
                                                   const EventRecordArgs&) {
  ObjectOf<StreamObject>(context->handles[1])
      ->stream->RecordEvent(
          ObjectOf<EventObject>(context->handles[0])->event.get(),
          TokenOf(context));
  return Outcome::kInFlight;
}

ApiExecutor::Outcome CudaExecutor::ExecEventSynchronize(
    ApiContext* context, const EventSynchronizeArgs&) {
  ObjectOf<EventObject>(context->handles[0])->event->Notify(TokenOf(context));
  return Outcome::kInFlight;
}

ApiExecutor::Outcome CudaExecutor::ExecEventQuery(ApiContext* context,
                                                  const EventQueryArgs&) {
  const std::optional<DeviceError> state =
      ObjectOf<EventObject>(context->handles[0])->event->Query();
  return Fail(context, state.value_or(CUDA_ERROR_NOT_READY));
}

ApiExecutor::Outcome CudaExecutor::ExecEventElapsed(ApiContext* context,
                                                    const EventElapsedArgs&) {
  DeviceEvent* const start =
      ObjectOf<EventObject>(context->handles[0])->event.get();
  DeviceEvent* const end =
      ObjectOf<EventObject>(context->handles[1])->event.get();
  if (!start->Query() || !end->Query()) {
    return Fail(context, CUDA_ERROR_NOT_READY);
  }
  const std::optional<std::uint64_t> from = start->TimestampNs();
  const std::optional<std::uint64_t> to = end->TimestampNs();
  if (!from || !to) return Fail(context, CUDA_ERROR_INVALID_HANDLE);
  const double ns = static_cast<double>(*to) - static_cast<double>(*from);
  context->Out<EventElapsedOut>().ms = static_cast<float>(ns / 1e6);
  return Outcome::kDone;
}

}  // namespace pos::cuda
