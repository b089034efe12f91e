// The worker's share of an image, written and read.
#include <cuda.h>

#include <optional>
#include <string>
#include <string_view>

#include "pos/base/log.h"
#include "pos/cuda_impl/worker/cuda_executor.h"

namespace pos::cuda {
namespace {

template <typename T>
Result<T> ArgsOf(const RecipeStep& step) {
  if (step.args.size() != kWireBytes<T>) {
    return Corrupt("recipe step " + std::to_string(step.op) + " has " +
                   std::to_string(step.args.size()) + " bytes of arguments");
  }
  T args{};
  if constexpr (kWireBytes<T> != 0) {
    std::memcpy(&args, step.args.data(), sizeof(T));
  }
  return args;
}

std::string_view Text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

void CudaExecutor::Save(const HandleGraph& graph, ByteWriter* out) const {
  memory_.Save(out);
  for (const BlockAllocator& allocator : variables_) allocator.Save(out);
  out->Put(static_cast<std::uint64_t>(host_blocks_.size()));
  for (const auto& [address, bytes] : host_blocks_) {
    out->Put(address);
    out->Put(bytes);
  }
  out->Put(sticky_);
  out->Put(dropped_error_->load(std::memory_order_relaxed));
  output_.Save(out);
  out->Put(static_cast<std::uint64_t>(contexts_.size()));
  for (const Handle* handle : contexts_) {
    const auto* object = static_cast<ContextObject*>(handle->object.get());
    out->Put(handle->id);
    out->Put(object->heap);
    out->Put(object->heap_bytes);
    out->Put(static_cast<std::uint8_t>(object->heap_used));
    out->Put(static_cast<std::uint8_t>(object->output_used));
  }
  // Times of events, as distances to now, which is the cut.
  const std::uint64_t now =
      state_->devices.empty() ? 0 : state_->devices[0]->NowNs();
  graph.ForEach([&](Handle* handle) {
    if (handle->kind != kEventHandle || !handle->materialized) return;
    const std::optional<std::uint64_t> at =
        static_cast<EventObject*>(handle->object.get())->event->TimestampNs();
    out->Put(static_cast<std::uint8_t>(at.has_value()));
    out->Put(at.has_value() ? static_cast<std::int64_t>(now - *at)
                            : std::int64_t{0});
  });
}

Status CudaExecutor::Restore(HandleGraph* graph, ByteReader* in) {
  // What is mapped has to be there before.
  Status status;
  graph->ForEach([&](Handle* handle) {
    if (status.ok() && handle->materialized &&
        handle->kind == kPhysicalHandle) {
      status = Replay(handle);
    }
  });
  POS_RETURN_IF_ERROR(status);
  POS_RETURN_IF_ERROR(memory_.Load(
      in, [this](HandleId physical) { return FindPhysical(physical); }));
  for (BlockAllocator& allocator : variables_) {
    POS_RETURN_IF_ERROR(allocator.Load(in));
  }
  const auto host_count = in->Get<std::uint64_t>();
  for (std::uint64_t i = 0; i < host_count && in->ok(); ++i) {
    const auto address = in->Get<std::uint64_t>();
    const auto bytes = in->Get<std::uint64_t>();
    POS_RETURN_IF_ERROR(host_->Map(address, bytes));
    host_blocks_[address] = bytes;
    for (Device* device : state_->devices) {
      POS_RETURN_IF_ERROR(device->MapHost(address, bytes));
    }
  }
  sticky_ = in->Get<DeviceError>();
  dropped_error_->store(in->Get<DeviceError>(), std::memory_order_relaxed);
  if (!in->ok()) return Corrupt("worker state ends early");
  POS_RETURN_IF_ERROR(output_.Load(in));
  const auto contexts = in->Get<std::uint64_t>();
  for (std::uint64_t i = 0; i < contexts && in->ok(); ++i) {
    SavedContext& saved = saved_contexts_[in->Get<HandleId>()];
    saved.heap = in->Get<std::uint64_t>();
    saved.heap_bytes = in->Get<std::uint64_t>();
    saved.heap_used = in->Get<std::uint8_t>() != 0;
    saved.output_used = in->Get<std::uint8_t>() != 0;
  }
  if (!in->ok()) return Corrupt("states of contexts end early");

  graph->ForEach([&](Handle* handle) {
    if (status.ok() && handle->materialized &&
        handle->kind != kPhysicalHandle) {
      status = Replay(handle);
    }
  });
  saved_contexts_.clear();
  POS_RETURN_IF_ERROR(status);
  const std::uint64_t now =
      state_->devices.empty() ? 0 : state_->devices[0]->NowNs();
  graph->ForEach([&](Handle* handle) {
    if (handle->kind != kEventHandle || !handle->materialized) return;
    const bool recorded = in->Get<std::uint8_t>() != 0;
    const auto ago = in->Get<std::int64_t>();
    if (!recorded) return;
    static_cast<EventObject*>(handle->object.get())
        ->event->SetRecorded(now - static_cast<std::uint64_t>(ago));
  });
  if (!in->ok()) return Corrupt("event states end early");
  if (sticky_ != 0) port_->SetSticky(sticky_);
  return {};
}

Status CudaExecutor::ReplayFunction(Handle* handle) {
  for (const RecipeStep& step : handle->recipe.steps()) {
    if (static_cast<Op>(step.op) == Op::kModuleFunction) {
      POS_RETURN_IF_ERROR(MakeFunction(handle, Text(step.inline_data)));
      continue;
    }
    POS_ASSIGN_OR_RETURN(const auto args,
                         ArgsOf<FunctionSetAttributeArgs>(step));
    if (handle->object == nullptr) return Corrupt("recipe without a creation");
    const DeviceError error =
        static_cast<FunctionObject*>(handle->object.get())
            ->function->SetAttribute(args.attribute, args.value);
    if (error != 0) {
      return Incompatible("function attribute " +
                          std::to_string(args.attribute) + " refused here");
    }
  }
  return {};
}

Status CudaExecutor::ReplayContext(Handle* handle) {
  const std::vector<RecipeStep>& steps = handle->recipe.steps();
  POS_ASSIGN_OR_RETURN(const auto args, ArgsOf<CtxCreateArgs>(steps.front()));
  Handle* stream = nullptr;
  state_->graph.ForEach([&](Handle* h) {
    if (h->kind == kStreamHandle && h->parents[0] == handle &&
        h->parser_word == kDefaultStream) {
      stream = h;
    }
  });
  if (stream == nullptr || args.device < 0 ||
      static_cast<std::size_t>(args.device) >= state_->devices.size()) {
    return Corrupt("context without a default stream or device");
  }
  POS_RETURN_IF_ERROR(MakeContext(handle, stream, args));
  for (std::size_t i = 1; i < steps.size(); ++i) {
    POS_ASSIGN_OR_RETURN(const auto limit, ArgsOf<CtxSetLimitArgs>(steps[i]));
    std::uint64_t in_effect = 0;
    if (SetLimit(handle, limit, &in_effect) != 0) {
      return Incompatible("limit " + std::to_string(limit.limit) +
                          " of a context refused here");
    }
  }
  // After the limits: they would place an existing heap anew.
  auto* const object = static_cast<ContextObject*>(handle->object.get());
  const SavedContext& saved = saved_contexts_[handle->id];
  object->heap_used = saved.heap_used;
  object->output_used = saved.output_used;
  if (saved.heap == 0) return {};
  const WorkerBlock* const block = memory_.Find(saved.heap);
  if (block == nullptr || block->context != handle->id ||
      saved.heap_bytes > block->bytes) {
    return Corrupt("a context's heap lies outside its memory");
  }
  object->heap = saved.heap;
  object->heap_bytes = saved.heap_bytes;
  object->context->RestoreHeap(saved.heap, saved.heap_bytes);
  return {};
}

Status CudaExecutor::Replay(Handle* handle) {
  if (handle->kind == kBlobHandle) return {};
  if (handle->kind == kStreamHandle && handle->parser_word == kDefaultStream) {
    // It comes with its context.
    return handle->object != nullptr ? Status()
                                     : Corrupt("stream without a recipe");
  }
  if (handle->recipe.empty()) return Corrupt("handle without a recipe");
  const RecipeStep& first = handle->recipe.steps().front();
  for (const Handle* parent : handle->parents) {
    if (parent != nullptr && parent->kind != kBlobHandle &&
        parent->object == nullptr) {
      return Corrupt("handle of a parent that is not there");
    }
  }
  switch (handle->kind) {
    case kContextHandle:
      return ReplayContext(handle);
    case kStreamHandle: {
      POS_ASSIGN_OR_RETURN(const auto args, ArgsOf<StreamCreateArgs>(first));
      return MakeStream(handle, args);
    }
    case kEventHandle: {
      POS_ASSIGN_OR_RETURN(const auto args, ArgsOf<EventCreateArgs>(first));
      return MakeEvent(handle, args);
    }
    case kModuleHandle: {
      DeviceError error = 0;
      return MakeModule(handle, &first.values, &error);
    }
    case kFunctionHandle:
      return ReplayFunction(handle);
    case kPhysicalHandle: {
      POS_ASSIGN_OR_RETURN(const auto args, ArgsOf<PhysicalCreateArgs>(first));
      return MakePhysical(handle, args);
    }
    default:
      return Corrupt("handle of unknown kind");
  }
}

}  // namespace pos::cuda
