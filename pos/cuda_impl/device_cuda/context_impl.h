// The classes behind context.h; for context.cc and stream.cc alone.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_CONTEXT_IMPL_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_CONTEXT_IMPL_H_

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "pos/cuda_impl/device_cuda/context.h"

namespace pos::cuda_device {

// The driver tells the time between two events, in float milliseconds. A Clock
// is an event whose time on the host's clock is known; a new one is made now
// and then, since a float is too coarse for long spans.
constexpr std::uint64_t kClockNs = 2'000'000'000;

struct Clock {
  MarkPtr mark;
  std::shared_ptr<Clock> before;  // until `ns` is known
  double ns = 0;                  // of MonotonicNs
  std::uint64_t made_ns = 0;
};

class CudaContext;

class CudaEvent : public DeviceEvent {
 public:
  CudaEvent(CudaContext* context, bool timing)
      : context_(context), timing_(timing) {}

  std::optional<DeviceError> Query() override;
  void Notify(std::uint64_t token) override;
  std::optional<std::uint64_t> TimestampNs() override;
  void SetRecorded(std::uint64_t timestamp_ns) override {
    mark_.reset();
    restored_ns_ = timestamp_ns;
  }

 private:
  friend class CudaStream;
  CudaContext* const context_;
  const bool timing_;
  MarkPtr mark_;  // of the latest record
  std::shared_ptr<Clock> clock_;
  std::optional<std::uint64_t> restored_ns_;
};

class CudaStream : public DeviceStream {
 public:
  // `stream` null: the context's default stream.
  CudaStream(CudaContext* context, CUstream stream, bool blocking);
  ~CudaStream() override;

  void Copy(DeviceAddress dst, DeviceAddress src, std::uint64_t bytes,
            std::uint64_t token) override;
  void Fill(DeviceAddress dst, std::uint32_t value, std::uint32_t width,
            std::uint64_t count, std::uint64_t rows, std::uint64_t pitch,
            std::uint64_t token) override;
  DeviceError Launch(DeviceFunction* function, const LaunchConfig& config,
                     std::span<const std::byte> params,
                     std::uint64_t token) override;
  void RecordEvent(DeviceEvent* event, std::uint64_t token) override;
  void WaitEvent(DeviceEvent* event, std::uint64_t token) override;
  void Notify(std::uint64_t token) override;
  [[nodiscard]] std::optional<DeviceError> Query() override;

  // What has to pass for this stream to be idle, but for what has passed.
  void Collect(std::vector<MarkPtr>* marks) const {
    if (lane_->last != nullptr && !lane_->last->passed.load()) {
      marks->push_back(lane_->last);
    }
  }
  [[nodiscard]] bool blocking() const { return blocking_; }

 private:
  struct Ends {
    CudaMemory::Where dst;
    CudaMemory::Where src;
  };
  CUresult CopyBetween(const Ends& ends, DeviceAddress dst, DeviceAddress src,
                       std::uint64_t bytes, Pending* pending)
      POS_REQUIRES(core_->use_mu);
  CUresult LaunchHere(CUfunction function, const LaunchConfig& config,
                      void** params) POS_REQUIRES(core_->use_mu);
  // Marks the end of what was just submitted with `result`, and has it
  // reported.
  void Done(CUresult result, Pending pending) POS_REQUIRES(core_->use_mu);
  void Done(CUresult result, Pending pending, MarkPtr mark)
      POS_REQUIRES(core_->use_mu);
  void Failed(CUresult result, Pending pending);
  [[nodiscard]] std::vector<MarkPtr> AllBefore() const;

  CudaContext* const context_;
  ContextCore* const core_;
  const CUstream stream_;
  const bool blocking_;
  const std::shared_ptr<Lane> lane_;
};

class CudaContext : public DeviceContext {
 public:
  CudaContext(const ContextParts& parts, std::shared_ptr<ContextCore> core)
      : parts_(parts), core_(std::move(core)) {
    parts_.completer->Add(core_);
    default_ = std::make_unique<CudaStream>(this, nullptr, false);
  }
  ~CudaContext() override {
    Cancel();
    parts_.completer->AwaitEnd(core_.get());
    clock_.reset();
    default_.reset();
  }

  Status StartClock();
  // Both with the core's use_mu held (callers have it under another name): the
  // clock to use for an event that is recorded now.
  std::shared_ptr<Clock> CurrentClock() POS_NO_THREAD_SAFETY;
  // nullopt when the driver does not say.
  std::optional<double> TimeOf(Clock* clock) POS_NO_THREAD_SAFETY;

  [[nodiscard]] DeviceStream* default_stream() override {
    return default_.get();
  }
  Result<std::unique_ptr<DeviceStream>> CreateStream(
      std::uint32_t flags, std::int32_t priority) override;
  Result<std::unique_ptr<DeviceEvent>> CreateEvent(
      std::uint32_t flags) override;
  Result<std::unique_ptr<DeviceModule>> LoadModule(
      std::span<const std::byte> image, ModulePlacer* placer,
      DeviceError* error) override;
  DeviceError SetLimit(DeviceLimit limit, std::uint64_t value,
                       ModulePlacer* placer, std::uint64_t* in_effect) override;
  // The heap is the driver's own: placed nowhere, so nothing to restore.
  void RestoreHeap(DeviceAddress, std::uint64_t) override {}
  void NotifyIdle(std::uint64_t token) override {
    Pending pending;
    pending.token = token;
    pending.marks = Marks(/*blocking_only=*/false);
    parts_.completer->Submit(core_.get(), nullptr, std::move(pending));
  }
  [[nodiscard]] DeviceError sticky_error() const override {
    return core_->sticky.load(std::memory_order_acquire);
  }
  void Cancel() override {
    parts_.completer->End(core_.get(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
  }

  [[nodiscard]] std::vector<MarkPtr> Marks(bool blocking_only) const {
    std::vector<MarkPtr> marks;
    default_->Collect(&marks);
    for (const CudaStream* stream : streams_) {
      if (!blocking_only || stream->blocking()) stream->Collect(&marks);
    }
    for (const Orphan& orphan : orphans_) {
      if (blocking_only && !orphan.blocking) continue;
      if (!orphan.mark->passed.load()) marks.push_back(orphan.mark);
    }
    return marks;
  }
  void AddStream(CudaStream* stream) { streams_.push_back(stream); }
  // Its work goes on.
  void RemoveStream(CudaStream* stream, bool blocking, MarkPtr last) {
    std::erase(streams_, stream);
    std::erase_if(orphans_,
                  [](const Orphan& o) { return o.mark->passed.load(); });
    if (last != nullptr && !last->passed.load()) {
      orphans_.push_back({std::move(last), blocking});
    }
  }
  [[nodiscard]] const ContextParts& parts() const { return parts_; }
  [[nodiscard]] ContextCore* core() const { return core_.get(); }

 private:
  const ContextParts parts_;
  const std::shared_ptr<ContextCore> core_;
  std::unique_ptr<CudaStream> default_;
  std::vector<CudaStream*> streams_;  // but the default one
  struct Orphan {
    MarkPtr mark;
    bool blocking;
  };
  std::vector<Orphan> orphans_;  // ends of streams that are gone
  CUstream clock_stream_ = nullptr;
  std::shared_ptr<Clock> clock_;
};

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_CONTEXT_IMPL_H_
