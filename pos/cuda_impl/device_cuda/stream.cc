// Streams and events.
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "pos/base/log.h"
#include "pos/cuda_impl/device_cuda/context_impl.h"
#include "pos/cuda_impl/device_cuda/module.h"

namespace pos::cuda_device {
namespace {

// 0: all have passed; nullopt: not yet.
std::optional<DeviceError> QueryMarks(ContextCore* core,
                                      const std::vector<MarkPtr>& marks) {
  MutexLock use(&core->use_mu);
  for (const MarkPtr& mark : marks) {
    if (mark->passed.load(std::memory_order_acquire)) continue;
    if (!core->Enter()) break;
    const CUresult result = core->driver.EventQuery(mark->event);
    if (result == CUDA_ERROR_NOT_READY) return std::nullopt;
    core->EndsContext(result);
  }
  return core->sticky.load(std::memory_order_acquire);
}

}  // namespace

// --- Events ---

std::optional<DeviceError> CudaEvent::Query() {
  ContextCore* const core = context_->core();
  if (const DeviceError sticky = core->sticky.load()) return sticky;
  if (mark_ == nullptr) return 0;
  return QueryMarks(core, {mark_});
}

void CudaEvent::Notify(std::uint64_t token) {
  Pending pending;
  pending.token = token;
  if (mark_ != nullptr) pending.marks.push_back(mark_);
  context_->parts().completer->Submit(context_->core(), nullptr,
                                      std::move(pending));
}

std::optional<std::uint64_t> CudaEvent::TimestampNs() {
  if (mark_ == nullptr) return timing_ ? restored_ns_ : std::nullopt;
  if (!timing_ || clock_ == nullptr) return std::nullopt;
  // Events that completed before a fault keep their times.
  if (restored_ns_) return restored_ns_;
  ContextCore* const core = context_->core();
  MutexLock use(&core->use_mu);
  if (!core->Enter()) return std::nullopt;
  if (!mark_->passed.load(std::memory_order_acquire)) {
    if (core->driver.EventQuery(mark_->event) != CUDA_SUCCESS) {
      return std::nullopt;
    }
    mark_->passed.store(true, std::memory_order_release);
  }
  const std::optional<double> base = context_->TimeOf(clock_.get());
  float ms = 0;
  if (!base || core->driver.EventElapsedTime(&ms, clock_->mark->event,
                                             mark_->event) != CUDA_SUCCESS) {
    return std::nullopt;
  }
  restored_ns_ = static_cast<std::uint64_t>(*base + double{ms} * 1e6);
  return restored_ns_;
}

// --- Streams ---

CudaStream::CudaStream(CudaContext* context, CUstream stream, bool blocking)
    : context_(context),
      core_(context->core()),
      stream_(stream),
      blocking_(blocking),
      lane_(core_->completer->NewLane(core_)) {
  if (stream_ != nullptr) context_->AddStream(this);
}

CudaStream::~CudaStream() {
  core_->completer->DropLane(core_, lane_.get());
  if (stream_ == nullptr) return;
  context_->RemoveStream(this, blocking_, lane_->last);
  MutexLock use(&core_->use_mu);
  if (core_->Enter()) {
    core_->EndsContext(core_->driver.StreamDestroy(stream_));
  }
}

void CudaStream::Failed(CUresult result, Pending pending) {
  // Out of the ordinary and not the context's end: the work was refused.
  if (result != CUDA_SUCCESS && !core_->EndsContext(result)) {
    POS_LOG(kWarning, "the driver refuses work",
            {{"error", core_->driver.NameOf(result)}});
    pending.refused = static_cast<DeviceError>(result);
  }
  if (lane_->last != nullptr) pending.marks.push_back(lane_->last);
  core_->completer->Submit(core_, lane_.get(), std::move(pending));
}

void CudaStream::Done(CUresult result, Pending pending) {
  if (result != CUDA_SUCCESS) return Failed(result, std::move(pending));
  MarkPtr mark = core_->NewMark(/*timed=*/false, &result);
  if (mark == nullptr) return Failed(result, std::move(pending));
  Done(result, std::move(pending), std::move(mark));
}

void CudaStream::Done(CUresult result, Pending pending, MarkPtr mark) {
  if (result == CUDA_SUCCESS) {
    result = core_->driver.EventRecord(mark->event, stream_);
  }
  if (result != CUDA_SUCCESS) return Failed(result, std::move(pending));
  pending.marks.push_back(mark);
  lane_->last = std::move(mark);
  core_->completer->Submit(core_, lane_.get(), std::move(pending));
}

CUresult CudaStream::CopyBetween(const Ends& ends, DeviceAddress dst,
                                 DeviceAddress src, std::uint64_t bytes,
                                 Pending* pending) {
  using Where = CudaMemory::Where;
  const Driver& driver = core_->driver;
  if (ends.dst != Where::kProcess && ends.src != Where::kProcess) {
    return driver.MemcpyAsync(dst, src, bytes, stream_);
  }
  CUresult taken = CUDA_SUCCESS;
  pending->buffer = context_->parts().pinned->Take(bytes, &taken);
  void* const piece = pending->buffer.data();
  if (piece == nullptr) return taken;
  // The pool may have made its own context current.
  const CUresult entered = MakeCurrent(driver, core_->context, core_->key);
  if (entered != CUDA_SUCCESS) return entered;
  const auto at = reinterpret_cast<DeviceAddress>(piece);
  if (ends.src == Where::kProcess) {
    std::memcpy(piece, reinterpret_cast<const void*>(src), bytes);  // NOLINT
    if (ends.dst != Where::kProcess) {
      return driver.MemcpyAsync(dst, at, bytes, stream_);
    }
  } else {
    const CUresult result = driver.MemcpyAsync(at, src, bytes, stream_);
    if (result != CUDA_SUCCESS) return result;
  }
  pending->copy_to = reinterpret_cast<void*>(dst);  // NOLINT
  pending->copy_bytes = bytes;
  return CUDA_SUCCESS;
}

void CudaStream::Copy(DeviceAddress dst, DeviceAddress src, std::uint64_t bytes,
                      std::uint64_t token) {
  using Where = CudaMemory::Where;
  Pending pending;
  pending.token = token;
  MutexLock use(&core_->use_mu);
  if (!core_->Enter()) return Failed(CUDA_SUCCESS, std::move(pending));
  if (bytes == 0) return Done(CUDA_SUCCESS, std::move(pending));
  const CudaMemory& memory = *context_->parts().memory;
  const Ends ends{memory.Find(dst, bytes), memory.Find(src, bytes)};
  if (ends.dst == Where::kNowhere || ends.src == Where::kNowhere) {
    pending.fault = CUDA_ERROR_ILLEGAL_ADDRESS;
    return Done(CUDA_SUCCESS, std::move(pending));
  }
  const CUresult result = CopyBetween(ends, dst, src, bytes, &pending);
  Done(result, std::move(pending));
}

// NOLINTNEXTLINE(readability-function-size): the interface's parameters
void CudaStream::Fill(DeviceAddress dst, std::uint32_t value,
                      std::uint32_t width, std::uint64_t count,
                      std::uint64_t rows, std::uint64_t pitch,
                      std::uint64_t token) {
  Pending pending;
  pending.token = token;
  MutexLock use(&core_->use_mu);
  if (!core_->Enter()) return Failed(CUDA_SUCCESS, std::move(pending));
  if (count == 0 || rows == 0) return Done(CUDA_SUCCESS, std::move(pending));
  const std::uint64_t extent = (rows - 1) * pitch + count * width;
  const CudaMemory::Where where = context_->parts().memory->Find(dst, extent);
  if (where != CudaMemory::Where::kDevice &&
      where != CudaMemory::Where::kPinned) {
    pending.fault = CUDA_ERROR_ILLEGAL_ADDRESS;
    return Done(CUDA_SUCCESS, std::move(pending));
  }
  const Driver& d = core_->driver;
  const auto byte = static_cast<unsigned char>(value);
  const auto half = static_cast<unsigned short>(value);
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  if (width == 1) {
    result = rows == 1
                 ? d.MemsetD8Async(dst, byte, count, stream_)
                 : d.MemsetD2D8Async(dst, pitch, byte, count, rows, stream_);
  } else if (width == 2) {
    result = rows == 1
                 ? d.MemsetD16Async(dst, half, count, stream_)
                 : d.MemsetD2D16Async(dst, pitch, half, count, rows, stream_);
  } else if (width == 4) {
    result = rows == 1
                 ? d.MemsetD32Async(dst, value, count, stream_)
                 : d.MemsetD2D32Async(dst, pitch, value, count, rows, stream_);
  }
  Done(result, std::move(pending));
}

CUresult CudaStream::LaunchHere(CUfunction function, const LaunchConfig& config,
                                void** params) {
  const auto& [gx, gy, gz] = config.grid;
  const auto& [bx, by, bz] = config.block;
  std::array<CUlaunchAttribute, 5> attributes{};
  unsigned count = 0;
  const auto add = [&](CUlaunchAttributeID id) -> CUlaunchAttributeValue& {
    attributes[count].id = id;
    return attributes[count++].value;
  };
  if (config.cooperative) {
    add(CU_LAUNCH_ATTRIBUTE_COOPERATIVE).cooperative = 1;
  }
  if (config.cluster[0] != 0) {
    auto& dim = add(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION).clusterDim;
    dim.x = config.cluster[0];
    dim.y = config.cluster[1];
    dim.z = config.cluster[2];
  }
  if (config.cluster_policy != 0) {
    add(CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE)
        .clusterSchedulingPolicyPreference =
        static_cast<CUclusterSchedulingPolicy>(config.cluster_policy);
  }
  if (config.priority) {
    add(CU_LAUNCH_ATTRIBUTE_PRIORITY).priority = *config.priority;
  }
  if (config.programmatic) {
    add(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION)
        .programmaticStreamSerializationAllowed = 1;
  }
  if (count == 0) {
    return core_->driver.LaunchKernel(function, gx, gy, gz, bx, by, bz,
                                      config.dynamic_shared_bytes, stream_,
                                      params, nullptr);
  }
  const CUlaunchConfig all{.gridDimX = gx,
                           .gridDimY = gy,
                           .gridDimZ = gz,
                           .blockDimX = bx,
                           .blockDimY = by,
                           .blockDimZ = bz,
                           .sharedMemBytes = config.dynamic_shared_bytes,
                           .hStream = stream_,
                           .attrs = attributes.data(),
                           .numAttrs = count};
  return core_->driver.LaunchKernelEx(&all, function, params, nullptr);
}

DeviceError CudaStream::Launch(DeviceFunction* function,
                               const LaunchConfig& config,
                               std::span<const std::byte> params,
                               std::uint64_t token) {
  // The worker hands a device only what came from it.
  const auto* const mine = static_cast<const CudaFunction*>(function);
  const FunctionInfo& info = mine->info();
  if (info.launch_error != 0) return info.launch_error;
  if (params.size() < info.params_bytes) return CUDA_ERROR_INVALID_VALUE;
  Pending pending;
  pending.token = token;
  MutexLock use(&core_->use_mu);
  if (!core_->Enter()) {
    Failed(CUDA_SUCCESS, std::move(pending));
    return 0;
  }
  // The driver reads the parameters before it returns; it does not write them.
  std::vector<void*> pointers;
  pointers.reserve(info.params.size());
  for (const ParamInfo& param : info.params) {
    pointers.push_back(const_cast<std::byte*>(params.data() + param.offset));
  }
  const CUresult result = LaunchHere(mine->function(), config, pointers.data());
  if (result != CUDA_SUCCESS && !IsFatal(result)) {
    return static_cast<DeviceError>(result);
  }
  if (info.prints) {
    pending.prints = true;
    core_->printing.fetch_add(1);
  }
  Done(result, std::move(pending));
  return 0;
}

void CudaStream::RecordEvent(DeviceEvent* event, std::uint64_t token) {
  auto* const mine = static_cast<CudaEvent*>(event);
  Pending pending;
  pending.token = token;
  MutexLock use(&core_->use_mu);
  if (!core_->Enter()) return Failed(CUDA_SUCCESS, std::move(pending));
  CUresult result = CUDA_SUCCESS;
  MarkPtr mark = core_->NewMark(mine->timing_, &result);
  if (mark == nullptr) return Failed(result, std::move(pending));
  mine->mark_ = mark;
  mine->restored_ns_.reset();
  mine->clock_ = mine->timing_ ? context_->CurrentClock() : nullptr;
  Done(CUDA_SUCCESS, std::move(pending), std::move(mark));
}

void CudaStream::WaitEvent(DeviceEvent* event, std::uint64_t token) {
  const MarkPtr mark = static_cast<CudaEvent*>(event)->mark_;
  Pending pending;
  pending.token = token;
  MutexLock use(&core_->use_mu);
  if (!core_->Enter()) return Failed(CUDA_SUCCESS, std::move(pending));
  CUresult result = CUDA_SUCCESS;
  if (mark != nullptr && !mark->passed.load(std::memory_order_acquire)) {
    result = core_->driver.StreamWaitEvent(stream_, mark->event, 0);
  }
  Done(result, std::move(pending));
}

std::vector<MarkPtr> CudaStream::AllBefore() const {
  if (stream_ == nullptr) return context_->Marks(/*blocking_only=*/true);
  std::vector<MarkPtr> marks;
  Collect(&marks);
  return marks;
}

void CudaStream::Notify(std::uint64_t token) {
  Pending pending;
  pending.token = token;
  pending.marks = AllBefore();
  // The default stream's waits for others: its later work must not wait for it.
  core_->completer->Submit(core_, stream_ == nullptr ? nullptr : lane_.get(),
                           std::move(pending));
}

std::optional<DeviceError> CudaStream::Query() {
  if (const DeviceError sticky = core_->sticky.load()) return sticky;
  return QueryMarks(core_, AllBefore());
}

}  // namespace pos::cuda_device
