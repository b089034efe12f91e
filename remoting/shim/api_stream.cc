// Streams and events.
#include <algorithm>

#include "remoting/shim/driver_state.h"
#include "remoting/shim/output.h"

namespace pos::shim {
namespace {

template <typename T>
CUresult Store(T* out, T value) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = value;
  return CUDA_SUCCESS;
}

CUresult CreateStream(CUstream* out, unsigned flags, int priority) {
  if (out == nullptr || (flags & ~unsigned{CU_STREAM_NON_BLOCKING}) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  CUresult result = driver.Current(&context);
  if (result != CUDA_SUCCESS) return result;
  cuda::StreamCreateOut reply;
  // Priorities outside the device's range are clamped, as CUDA does.
  const int clamped = std::clamp(priority, -5, 0);
  result = Call(cuda::StreamCreateArgs{.context = context->runner_id.load(
                                           std::memory_order_acquire),
                                       .flags = flags,
                                       .priority = clamped},
                &reply);
  if (result != CUDA_SUCCESS) return result;
  Stream* const stream = driver.streams.Make(reply.stream);
  if (stream == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  stream->context = context;
  stream->flags = flags;
  stream->priority = clamped;
  stream->unique_id = driver.NextUniqueId();
  stream->id.store(reply.stream, std::memory_order_release);
  *out = reinterpret_cast<CUstream>(reply.stream);
  return CUDA_SUCCESS;
}

CUresult DestroyStream(CUstream handle) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  const auto id = reinterpret_cast<std::uint64_t>(handle);
  Stream* const stream = driver.streams.Get(id);
  if (stream == nullptr ||
      id == stream->context->default_stream.load(std::memory_order_acquire)) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  stream->id.store(0, std::memory_order_release);
  return CallNoOut(cuda::StreamDestroyArgs{.stream = id});
}

// The stream object behind any handle, default streams included.
CUresult FindStream(CUstream handle, bool own, Stream** stream) {
  Context* context = nullptr;
  std::uint64_t id = 0;
  const CUresult result = Driver::Get().Resolve(handle, own, &context, &id);
  if (result != CUDA_SUCCESS) return result;
  *stream = Driver::Get().streams.Get(id);
  return *stream == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

CUresult Synchronize(CUstream handle, bool own) {
  const OutputFlush flush;
  Stream* stream = nullptr;
  const CUresult result = FindStream(handle, own, &stream);
  if (result != CUDA_SUCCESS) return result;
  return CallNoOut(cuda::StreamSynchronizeArgs{
      .stream = stream->id.load(std::memory_order_acquire)});
}

CUresult Query(CUstream handle, bool own) {
  Stream* stream = nullptr;
  const CUresult result = FindStream(handle, own, &stream);
  if (result != CUDA_SUCCESS) return result;
  return CallNoOut(cuda::StreamQueryArgs{
      .stream = stream->id.load(std::memory_order_acquire)});
}

CUresult WaitEvent(CUstream handle, CUevent event, unsigned flags, bool own) {
  if ((flags & ~unsigned{CU_EVENT_WAIT_EXTERNAL}) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Stream* stream = nullptr;
  const CUresult result = FindStream(handle, own, &stream);
  if (result != CUDA_SUCCESS) return result;
  const auto id = reinterpret_cast<std::uint64_t>(event);
  if (Driver::Get().events.Get(id) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return Post(cuda::StreamWaitEventArgs{
      .stream = stream->id.load(std::memory_order_acquire), .event = id});
}

CUresult StreamProperties(CUstream handle, bool own, unsigned* flags,
                          int* priority) {
  Stream* stream = nullptr;
  const CUresult result = FindStream(handle, own, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (flags != nullptr) *flags = stream->flags;
  if (priority != nullptr) *priority = stream->priority;
  return CUDA_SUCCESS;
}

CUresult StreamContext(CUstream handle, bool own, CUcontext* context) {
  Stream* stream = nullptr;
  const CUresult result = FindStream(handle, own, &stream);
  return result != CUDA_SUCCESS
             ? result
             : Store(context, Driver::HandleOf(stream->context));
}

CUresult StreamId(CUstream handle, bool own, unsigned long long* id) {
  Stream* stream = nullptr;
  const CUresult result = FindStream(handle, own, &stream);
  return result != CUDA_SUCCESS
             ? result
             : Store(id, static_cast<unsigned long long>(stream->unique_id));
}

CUresult StreamDevice(CUstream handle, bool own, CUdevice* device) {
  Stream* stream = nullptr;
  const CUresult result = FindStream(handle, own, &stream);
  return result != CUDA_SUCCESS ? result
                                : Store(device, stream->context->device);
}

// No stream is ever captured: capture is refused at its begin.
CUresult NotCapturing(CUstream handle, bool own,
                      CUstreamCaptureStatus* status) {
  Stream* stream = nullptr;
  const CUresult result = FindStream(handle, own, &stream);
  return result != CUDA_SUCCESS ? result
                                : Store(status, CU_STREAM_CAPTURE_STATUS_NONE);
}

CUresult Record(CUevent event, CUstream handle, unsigned flags, bool own) {
  if ((flags & ~unsigned{CU_EVENT_RECORD_EXTERNAL}) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  std::uint64_t stream = 0;
  const CUresult result = driver.Resolve(handle, own, &context, &stream);
  if (result != CUDA_SUCCESS) return result;
  const auto id = reinterpret_cast<std::uint64_t>(event);
  const Event* const object = driver.events.Get(id);
  if (object == nullptr || object->context != context) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  return Post(cuda::EventRecordArgs{.event = id, .stream = stream});
}

CUresult FindEvent(CUevent event, std::uint64_t* id) {
  if (const CUresult ready = Driver::Get().Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  *id = reinterpret_cast<std::uint64_t>(event);
  return Driver::Get().events.Get(*id) == nullptr ? CUDA_ERROR_INVALID_HANDLE
                                                  : CUDA_SUCCESS;
}

CUresult DestroyEvent(CUevent event) {
  std::uint64_t id = 0;
  const CUresult result = FindEvent(event, &id);
  if (result != CUDA_SUCCESS) return result;
  Driver::Get().events.Get(id)->id.store(0, std::memory_order_release);
  return CallNoOut(cuda::EventDestroyArgs{.event = id});
}

CUresult Elapsed(float* ms, CUevent start, CUevent end) {
  if (ms == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  CUresult result = FindEvent(start, &from);
  if (result == CUDA_SUCCESS) result = FindEvent(end, &to);
  if (result != CUDA_SUCCESS) return result;
  cuda::EventElapsedOut out;
  result = Call(cuda::EventElapsedArgs{.start = from, .end = to}, &out);
  if (result == CUDA_SUCCESS) *ms = out.ms;
  return result;
}

}  // namespace
}  // namespace pos::shim

using namespace pos::shim;  // NOLINT: this file implements the driver's API

CUresult CUDAAPI cuStreamCreate(CUstream* stream, unsigned flags) {
  return CreateStream(stream, flags, 0);
}
CUresult CUDAAPI cuStreamCreateWithPriority(CUstream* stream, unsigned flags,
                                            int priority) {
  return CreateStream(stream, flags, priority);
}
CUresult CUDAAPI cuStreamDestroy_v2(CUstream s) { return DestroyStream(s); }
CUresult CUDAAPI cuStreamDestroy(CUstream s) { return DestroyStream(s); }

#define POS_STREAM_CALLS_(suffix, own)                                         \
  CUresult CUDAAPI cuStreamSynchronize##suffix(CUstream s) {                   \
    return Synchronize(s, own);                                                \
  }                                                                            \
  CUresult CUDAAPI cuStreamQuery##suffix(CUstream s) { return Query(s, own); } \
  CUresult CUDAAPI cuStreamWaitEvent##suffix(CUstream s, CUevent e,            \
                                             unsigned flags) {                 \
    return WaitEvent(s, e, flags, own);                                        \
  }                                                                            \
  CUresult CUDAAPI cuStreamGetFlags##suffix(CUstream s, unsigned* flags) {     \
    if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;                     \
    return StreamProperties(s, own, flags, nullptr);                           \
  }                                                                            \
  CUresult CUDAAPI cuStreamGetPriority##suffix(CUstream s, int* priority) {    \
    if (priority == nullptr) return CUDA_ERROR_INVALID_VALUE;                  \
    return StreamProperties(s, own, nullptr, priority);                        \
  }                                                                            \
  CUresult CUDAAPI cuStreamGetCtx##suffix(CUstream s, CUcontext* context) {    \
    return StreamContext(s, own, context);                                     \
  }                                                                            \
  CUresult CUDAAPI cuStreamGetId##suffix(CUstream s, unsigned long long* id) { \
    return StreamId(s, own, id);                                               \
  }                                                                            \
  CUresult CUDAAPI cuStreamGetDevice##suffix(CUstream s, CUdevice* device) {   \
    return StreamDevice(s, own, device);                                       \
  }                                                                            \
  CUresult CUDAAPI cuStreamIsCapturing##suffix(                                \
      CUstream s, CUstreamCaptureStatus* status) {                             \
    return NotCapturing(s, own, status);                                       \
  }                                                                            \
  CUresult CUDAAPI cuStreamGetCaptureInfo##suffix(                             \
      CUstream s, CUstreamCaptureStatus* status, cuuint64_t* id) {             \
    if (id != nullptr) *id = 0;                                                \
    return NotCapturing(s, own, status);                                       \
  }                                                                            \
  CUresult CUDAAPI cuStreamGetCaptureInfo_v2##suffix(                          \
      CUstream s, CUstreamCaptureStatus* status, cuuint64_t* id,               \
      CUgraph* graph, const CUgraphNode** nodes, std::size_t* count) {         \
    if (id != nullptr) *id = 0;                                                \
    if (graph != nullptr) *graph = nullptr;                                    \
    if (nodes != nullptr) *nodes = nullptr;                                    \
    if (count != nullptr) *count = 0;                                          \
    return NotCapturing(s, own, status);                                       \
  }                                                                            \
  CUresult CUDAAPI cuStreamGetCaptureInfo_v3##suffix(                          \
      CUstream s, CUstreamCaptureStatus* status, cuuint64_t* id,               \
      CUgraph* graph, const CUgraphNode** nodes, const CUgraphEdgeData** data, \
      std::size_t* count) {                                                    \
    if (data != nullptr) *data = nullptr;                                      \
    return cuStreamGetCaptureInfo_v2##suffix(s, status, id, graph, nodes,      \
                                             count);                           \
  }                                                                            \
  CUresult CUDAAPI cuEventRecord##suffix(CUevent e, CUstream s) {              \
    return Record(e, s, 0, own);                                               \
  }                                                                            \
  CUresult CUDAAPI cuEventRecordWithFlags##suffix(CUevent e, CUstream s,       \
                                                  unsigned flags) {            \
    return Record(e, s, flags, own);                                           \
  }
POS_STREAM_CALLS_(, false)
POS_STREAM_CALLS_(_ptsz, true)
#undef POS_STREAM_CALLS_

CUresult CUDAAPI cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  if (mode == nullptr || static_cast<unsigned>(*mode) > 2) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  ThreadState* const thread = CurrentThread();
  const auto before = static_cast<CUstreamCaptureMode>(thread->capture_mode);
  thread->capture_mode = static_cast<unsigned>(*mode);
  *mode = before;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventCreate(CUevent* out, unsigned flags) {
  constexpr unsigned kKnown =
      CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
  if (out == nullptr || (flags & ~kKnown) != 0) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & CU_EVENT_INTERPROCESS) != 0) {
    return Driver::Unsupported("cuEventCreate for several processes");
  }
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  CUresult result = driver.Current(&context);
  if (result != CUDA_SUCCESS) return result;
  pos::cuda::EventCreateOut reply;
  result = Call(pos::cuda::EventCreateArgs{.context = context->runner_id.load(
                                               std::memory_order_acquire),
                                           .flags = flags},
                &reply);
  if (result != CUDA_SUCCESS) return result;
  Event* const event = driver.events.Make(reply.event);
  if (event == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  event->context = context;
  event->flags = flags;
  event->id.store(reply.event, std::memory_order_release);
  *out = reinterpret_cast<CUevent>(reply.event);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventDestroy_v2(CUevent event) {
  return DestroyEvent(event);
}
CUresult CUDAAPI cuEventDestroy(CUevent event) { return DestroyEvent(event); }

CUresult CUDAAPI cuEventQuery(CUevent event) {
  std::uint64_t id = 0;
  const CUresult result = FindEvent(event, &id);
  return result != CUDA_SUCCESS
             ? result
             : CallNoOut(pos::cuda::EventQueryArgs{.event = id});
}

CUresult CUDAAPI cuEventSynchronize(CUevent event) {
  const OutputFlush flush;
  std::uint64_t id = 0;
  const CUresult result = FindEvent(event, &id);
  return result != CUDA_SUCCESS
             ? result
             : CallNoOut(pos::cuda::EventSynchronizeArgs{.event = id});
}

CUresult CUDAAPI cuEventElapsedTime(float* ms, CUevent start, CUevent end) {
  return Elapsed(ms, start, end);
}
CUresult CUDAAPI cuEventElapsedTime_v2(float* ms, CUevent start, CUevent end) {
  return Elapsed(ms, start, end);
}
