// Dispatch, contexts, streams and events.
#include "pos/cuda_impl/parser/cuda_parser.h"

#include <cuda.h>

#include "pos/base/bytes.h"
#include "pos/base/log.h"

namespace pos::cuda {

ApiParser::Outcome CudaParser::Parse(ApiContext* context) {
  switch (static_cast<Op>(context->info->op)) {
#define POS_CALL(id, name, reply, payload, args, out) \
  case Op::k##name:                                   \
    return Parse##name(context, context->Args<name##Args>());
#include "pos/cuda_impl/api/calls.def"
#undef POS_CALL
  }
  return Refuse(context, CUDA_ERROR_NOT_SUPPORTED, "unknown call");
}

void CudaParser::OnNotice(const Notice& notice) {
  switch (notice.what) {
    case kNoticeHandleGone:
      state_->graph.Release(notice.handle);
      break;
    case kNoticeHandleMade:
      notice.handle->made = true;
      break;
    case kNoticeRangeFree:
      FreeBlock(notice.a);
      break;
    case kNoticeHostFree:
      state_->host.Free(notice.a);
      state_->allocations.Remove(notice.a);
      break;
    case kNoticeVariable: {
      Allocation variable;
      variable.address = notice.a;
      variable.bytes = notice.b;
      variable.block_bytes = notice.b;
      variable.kind = MemoryKind::kVariable;
      variable.device = static_cast<std::int32_t>(notice.c);
      variable.context = notice.handle->id;
      state_->allocations.Add(variable);
      break;
    }
    case kNoticeMappingGone:
    case kNoticeVariableGone:
      state_->allocations.Remove(notice.a);
      break;
    default:
      break;
  }
}

ApiParser::Outcome CudaParser::Refuse(ApiContext* context, std::int32_t error,
                                      const char* why) {
  context->result = error;
  if (!context->wants_reply()) {
    POS_LOG(kWarning, "call without a reply dropped",
            {{"call", context->info->name},
             {"pc", context->pc},
             {"error", error},
             {"why", why}});
    dropped_error_.store(error, std::memory_order_relaxed);
  }
  return Outcome::kAnswered;
}

Handle* CudaParser::Resolve(ApiContext* context, int place, HandleKind kind,
                            HandleId id) {
  Handle* const handle = state_->graph.Resolve(kind, id);
  context->handles[static_cast<std::size_t>(place)] = handle;
  return handle;
}

// A context's parser_word is its device; everything else is below a context.
int CudaParser::DeviceOf(const Handle* context) {
  return static_cast<int>(context->parser_word);
}

Handle* CudaParser::ContextOf(Handle* handle) {
  while (handle != nullptr && handle->kind != kContextHandle) {
    handle = handle->parents[0];
  }
  return handle;
}

ApiParser::Outcome CudaParser::CreateChild(ApiContext* context, HandleKind kind,
                                           HandleId parent,
                                           std::uint64_t* out_id) {
  Handle* const owner = Resolve(context, 0, kContextHandle, parent);
  if (owner == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_CONTEXT, "no such context");
  }
  Handle* const handle = state_->graph.Create(kind, owner);
  if (handle == nullptr) {
    return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "too many handles");
  }
  handle->made = false;
  context->handles[1] = handle;
  *out_id = handle->id;
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::Destroy(ApiContext* context, HandleKind kind,
                                       HandleId id) {
  Handle* const handle = Resolve(context, 0, kind, id);
  if (handle == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such handle");
  }
  state_->graph.Kill(handle);
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseDeviceTable(ApiContext* context,
                                                const DeviceTableArgs&) {
  ByteWriter table;
  for (const Device* device : state_->devices) {
    const DeviceInfo& info = device->info();
    DeviceRecord record{};
    info.name.copy(record.name, sizeof(record.name) - 1);
    for (std::size_t i = 0; i < info.uuid.size(); ++i) {
      record.uuid[i] = std::to_integer<std::uint8_t>(info.uuid[i]);
    }
    record.memory_bytes = info.memory_bytes;
    record.attribute_count = info.attributes.size();
    table.Put(record);
    for (const auto& [attribute, value] : info.attributes) {
      table.Put(DeviceAttribute{attribute, value});
    }
  }
  const std::span<std::byte> out = port_->BulkOut(*context);
  if (out.size() < table.bytes().size()) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "lease too small");
  }
  std::copy(table.bytes().begin(), table.bytes().end(), out.begin());
  context->reply_bulk_bytes = table.bytes().size();
  context->Out<DeviceTableOut>().count =
      static_cast<std::uint32_t>(state_->devices.size());
  return Outcome::kAnswered;
}

ApiParser::Outcome CudaParser::ParseCtxCreate(ApiContext* context,
                                              const CtxCreateArgs& args) {
  if (args.device < 0 ||
      static_cast<std::size_t>(args.device) >= state_->devices.size()) {
    return Refuse(context, CUDA_ERROR_INVALID_DEVICE, "no such device");
  }
  Handle* const handle = state_->graph.Create(kContextHandle);
  Handle* const stream =
      handle == nullptr ? nullptr : state_->graph.Create(kStreamHandle, handle);
  if (stream == nullptr) {
    return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "too many handles");
  }
  handle->parser_word = static_cast<std::uint64_t>(args.device);
  stream->parser_word = kDefaultStream;
  handle->made = false;
  stream->made = false;
  context->handles = {handle, stream, nullptr};
  auto& out = context->Out<CtxCreateOut>();
  out.context = handle->id;
  out.stream = stream->id;
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseCtxDestroy(ApiContext* context,
                                               const CtxDestroyArgs& args) {
  Handle* const handle = Resolve(context, 0, kContextHandle, args.context);
  if (handle == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_CONTEXT, "no such context");
  }
  // Everything that was made in the context ends with it.
  state_->graph.ForEach([&](Handle* member) {
    if (member == handle || ContextOf(member) != handle) return;
    if (member->alive) {
      state_->graph.Kill(member);
      context->family.push_back(member);
    }
  });
  state_->graph.Kill(handle);
  for (const auto& [address, allocation] : state_->allocations.all()) {
    if (allocation.context == handle->id && !allocation.releasing) {
      state_->allocations.At(address)->releasing = true;
      if (allocation.kind == MemoryKind::kDevice) ++state_->releasing;
    }
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseCtxSynchronize(
    ApiContext* context, const CtxSynchronizeArgs& args) {
  if (Resolve(context, 0, kContextHandle, args.context) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_CONTEXT, "no such context");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseStreamCreate(ApiContext* context,
                                                 const StreamCreateArgs& args) {
  return CreateChild(context, kStreamHandle, args.context,
                     &context->Out<StreamCreateOut>().stream);
}

ApiParser::Outcome CudaParser::ParseStreamDestroy(
    ApiContext* context, const StreamDestroyArgs& args) {
  const Handle* const stream =
      state_->graph.Resolve(kStreamHandle, args.stream);
  if (stream != nullptr && stream->parser_word == kDefaultStream) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "default stream");
  }
  return Destroy(context, kStreamHandle, args.stream);
}

ApiParser::Outcome CudaParser::ParseStreamSynchronize(
    ApiContext* context, const StreamSynchronizeArgs& args) {
  if (Resolve(context, 0, kStreamHandle, args.stream) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such stream");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseStreamQuery(ApiContext* context,
                                                const StreamQueryArgs& args) {
  if (Resolve(context, 0, kStreamHandle, args.stream) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such stream");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseStreamWaitEvent(
    ApiContext* context, const StreamWaitEventArgs& args) {
  if (Resolve(context, 0, kStreamHandle, args.stream) == nullptr ||
      Resolve(context, 1, kEventHandle, args.event) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such handle");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseEventCreate(ApiContext* context,
                                                const EventCreateArgs& args) {
  return CreateChild(context, kEventHandle, args.context,
                     &context->Out<EventCreateOut>().event);
}

ApiParser::Outcome CudaParser::ParseEventDestroy(ApiContext* context,
                                                 const EventDestroyArgs& args) {
  return Destroy(context, kEventHandle, args.event);
}

ApiParser::Outcome CudaParser::ParseEventRecord(ApiContext* context,
                                                const EventRecordArgs& args) {
  if (Resolve(context, 0, kEventHandle, args.event) == nullptr ||
      Resolve(context, 1, kStreamHandle, args.stream) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such handle");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseEventSynchronize(
    ApiContext* context, const EventSynchronizeArgs& args) {
  if (Resolve(context, 0, kEventHandle, args.event) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such event");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseEventQuery(ApiContext* context,
                                               const EventQueryArgs& args) {
  if (Resolve(context, 0, kEventHandle, args.event) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such event");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseEventElapsed(ApiContext* context,
                                                 const EventElapsedArgs& args) {
  if (Resolve(context, 0, kEventHandle, args.start) == nullptr ||
      Resolve(context, 1, kEventHandle, args.end) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such event");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseCtxSetLimit(ApiContext* context,
                                                const CtxSetLimitArgs& args) {
  if (Resolve(context, 0, kContextHandle, args.context) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_CONTEXT, "no such context");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseDeviceOutput(ApiContext*,
                                                 const DeviceOutputArgs&) {
  return Outcome::kForward;
}

}  // namespace pos::cuda
