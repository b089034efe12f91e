#include "pos/cuda_impl/device_cuda/context.h"

#include <string>
#include <utility>

#include "pos/base/clock.h"
#include "pos/cuda_impl/device_cuda/context_impl.h"
#include "pos/cuda_impl/device_cuda/module.h"

namespace pos::cuda_device {

// Several tries: the one that took the shortest is known best.
Status CudaContext::StartClock() {
  MutexLock use(&core_->use_mu);
  const Driver& d = core_->driver;
  if (!core_->Enter()) return Internal("a new context cannot be used");
  POS_RETURN_IF_ERROR(
      d.Check(d.StreamCreate(&clock_stream_, CU_STREAM_NON_BLOCKING, 0),
              "create a stream"));
  std::uint64_t best = ~std::uint64_t{0};
  for (int i = 0; i < 5; ++i) {
    auto clock = std::make_shared<Clock>();
    CUresult result = CUDA_SUCCESS;
    clock->mark = core_->NewMark(/*timed=*/true, &result);
    POS_RETURN_IF_ERROR(d.Check(result, "create an event"));
    const std::uint64_t before = MonotonicNs();
    POS_RETURN_IF_ERROR(d.Check(
        d.EventRecord(clock->mark->event, clock_stream_), "record an event"));
    POS_RETURN_IF_ERROR(
        d.Check(d.EventSynchronize(clock->mark->event), "wait for an event"));
    const std::uint64_t after = MonotonicNs();
    if (after - before >= best) continue;
    best = after - before;
    clock->mark->passed.store(true);
    clock->made_ns = after;
    clock->ns =
        static_cast<double>(before) + static_cast<double>(after - before) / 2;
    clock_ = std::move(clock);
  }
  return {};
}

std::shared_ptr<Clock> CudaContext::CurrentClock() {
  const std::uint64_t now = MonotonicNs();
  if (now - clock_->made_ns < kClockNs) return clock_;
  auto next = std::make_shared<Clock>();
  CUresult result = CUDA_SUCCESS;
  next->mark = core_->NewMark(/*timed=*/true, &result);
  if (next->mark == nullptr ||
      core_->driver.EventRecord(next->mark->event, clock_stream_) !=
          CUDA_SUCCESS) {
    return clock_;  // less exact
  }
  next->made_ns = now;
  // Chains stay short: one link is resolved when the next is made.
  TimeOf(clock_.get());
  next->before = clock_;
  clock_ = std::move(next);
  return clock_;
}

std::optional<double> CudaContext::TimeOf(Clock* clock) {
  if (clock->before == nullptr) return clock->ns;
  const std::optional<double> base = TimeOf(clock->before.get());
  float ms = 0;
  if (!base ||
      core_->driver.EventSynchronize(clock->mark->event) != CUDA_SUCCESS ||
      core_->driver.EventElapsedTime(&ms, clock->before->mark->event,
                                     clock->mark->event) != CUDA_SUCCESS) {
    return std::nullopt;
  }
  clock->ns = *base + double{ms} * 1e6;
  clock->before.reset();
  return clock->ns;
}

Result<std::unique_ptr<DeviceStream>> CudaContext::CreateStream(
    std::uint32_t flags, std::int32_t priority) {
  if ((flags & ~std::uint32_t{kStreamNonBlocking}) != 0) {
    return Invalid("stream flags " + std::to_string(flags));
  }
  const bool blocking = (flags & kStreamNonBlocking) == 0;
  CUstream stream = nullptr;
  {
    MutexLock use(&core_->use_mu);
    if (core_->Enter()) {
      const CUresult result = core_->driver.StreamCreate(
          &stream, blocking ? CU_STREAM_DEFAULT : CU_STREAM_NON_BLOCKING,
          priority);
      if (!core_->EndsContext(result)) {
        POS_RETURN_IF_ERROR(core_->driver.Check(result, "create a stream"));
      }
    }
    if (stream == nullptr) {
      return Status(Code::kDeviceGone, "the context has failed");
    }
  }
  return std::unique_ptr<DeviceStream>(
      std::make_unique<CudaStream>(this, stream, blocking));
}

Result<std::unique_ptr<DeviceEvent>> CudaContext::CreateEvent(
    std::uint32_t flags) {
  constexpr std::uint32_t kKnown = kEventBlockingSync | kEventDisableTiming;
  if ((flags & ~kKnown) != 0) {
    return Invalid("event flags " + std::to_string(flags));
  }
  return std::unique_ptr<DeviceEvent>(
      std::make_unique<CudaEvent>(this, (flags & kEventDisableTiming) == 0));
}

Result<std::unique_ptr<DeviceModule>> CudaContext::LoadModule(
    std::span<const std::byte> image, ModulePlacer*, DeviceError* error) {
  return LoadCudaModule(core_, parts_.memory, image, error);
}

DeviceError CudaContext::SetLimit(DeviceLimit limit, std::uint64_t value,
                                  ModulePlacer*, std::uint64_t* in_effect) {
  const CUlimit name = limit == DeviceLimit::kStackBytes ? CU_LIMIT_STACK_SIZE
                       : limit == DeviceLimit::kOutputBytes
                           ? CU_LIMIT_PRINTF_FIFO_SIZE
                           : CU_LIMIT_MALLOC_HEAP_SIZE;
  MutexLock use(&core_->use_mu);
  if (!core_->Enter()) return core_->sticky.load(std::memory_order_acquire);
  CUresult result = core_->driver.CtxSetLimit(name, value);
  std::size_t now = 0;
  if (result == CUDA_SUCCESS) result = core_->driver.CtxGetLimit(&now, name);
  core_->EndsContext(result);
  *in_effect = now;
  return result;
}

Result<std::unique_ptr<DeviceContext>> NewCudaContext(
    const ContextParts& parts, std::shared_ptr<ContextCore> core) {
  auto context = std::make_unique<CudaContext>(parts, std::move(core));
  POS_RETURN_IF_ERROR(context->StartClock());
  return std::unique_ptr<DeviceContext>(std::move(context));
}

}  // namespace pos::cuda_device
