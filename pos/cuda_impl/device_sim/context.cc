#include "pos/cuda_impl/device_sim/context.h"

#include <cuda.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "pos/cuda_impl/device_sim/module.h"

namespace pos::sim {
namespace {

// Defaults of CU_LIMIT_STACK_SIZE and CU_LIMIT_MALLOC_HEAP_SIZE, and what is
// possible. 512 KiB is the most .local that a thread can have.
constexpr std::uint32_t kStackBytes = 1024;
constexpr std::uint32_t kLeastStackBytes = 256;
constexpr std::uint32_t kMostStackBytes = 512 << 10;
constexpr std::uint64_t kHeapBytes = 8 << 20;
constexpr std::uint64_t kMostHeapBytes = std::uint64_t{1} << 40;
constexpr std::uint64_t kHeapAlignment = 4096;
constexpr std::string_view kHeapName = ".heap";

class SimEvent : public DeviceEvent {
 public:
  SimEvent(Engine* engine, ContextState* context, bool timing)
      : engine_(engine), context_(context), timing_(timing) {}
  ~SimEvent() override {
    if (latest_ != nullptr) engine_->ReleaseRecord(latest_);
  }

  std::optional<DeviceError> Query() override {
    const DeviceError sticky = context_->sticky.load(std::memory_order_acquire);
    if (sticky != 0) return sticky;
    if (latest_ == nullptr || engine_->RecordComplete(latest_, nullptr)) {
      return 0;
    }
    return std::nullopt;
  }
  void Notify(std::uint64_t token) override {
    engine_->SubmitToRecord(context_, latest_, token);
  }
  std::optional<std::uint64_t> TimestampNs() override {
    std::uint64_t when = 0;
    if (!timing_ || latest_ == nullptr ||
        !engine_->RecordComplete(latest_, &when)) {
      return std::nullopt;
    }
    return when;
  }
  void SetRecorded(std::uint64_t timestamp_ns) override {
    if (latest_ != nullptr) engine_->ReleaseRecord(latest_);
    latest_ = engine_->NewCompleteRecord(timestamp_ns);
  }

 private:
  friend class SimStream;
  Engine* const engine_;
  ContextState* const context_;
  const bool timing_;
  Record* latest_ = nullptr;  // one reference
};

class SimStream : public DeviceStream {
 public:
  // `stack_bytes`: of the context, which changes it on the same thread.
  SimStream(Engine* engine, StreamState* state,
            const std::uint32_t* stack_bytes, bool owned)
      : engine_(engine),
        state_(state),
        stack_bytes_(stack_bytes),
        owned_(owned) {}
  ~SimStream() override {
    if (owned_) engine_->ReleaseStream(state_);
  }

  void Copy(DeviceAddress dst, DeviceAddress src, std::uint64_t bytes,
            std::uint64_t token) override {
    engine_->SubmitCopy(state_, dst, src, bytes, token);
  }
  // NOLINTNEXTLINE(readability-function-size): the interface's parameters
  void Fill(DeviceAddress dst, std::uint32_t value, std::uint32_t width,
            std::uint64_t count, std::uint64_t rows, std::uint64_t pitch,
            std::uint64_t token) override {
    engine_->SubmitFill(state_, {dst, value, width, count, rows, pitch}, token);
  }
  DeviceError Launch(DeviceFunction* function, const LaunchConfig& config,
                     std::span<const std::byte> params,
                     std::uint64_t token) override {
    // The worker hands a device only what came from it.
    auto* mine = static_cast<SimFunction*>(function);
    if (const DeviceError error = mine->CheckLaunch(config, params)) {
      return error;
    }
    LaunchConfig limited = config;
    limited.stack_bytes = *stack_bytes_;
    engine_->SubmitLaunch(state_, mine->kernel(), limited, params, token);
    return 0;
  }
  void RecordEvent(DeviceEvent* event, std::uint64_t token) override {
    engine_->SubmitRecord(state_, &static_cast<SimEvent*>(event)->latest_,
                          token);
  }
  void WaitEvent(DeviceEvent* event, std::uint64_t token) override {
    engine_->SubmitWait(state_, static_cast<SimEvent*>(event)->latest_, token);
  }
  void Notify(std::uint64_t token) override {
    engine_->SubmitNotify(state_, token);
  }
  [[nodiscard]] std::optional<DeviceError> Query() override {
    return engine_->QueryStream(state_);
  }

 private:
  Engine* const engine_;
  StreamState* const state_;
  const std::uint32_t* const stack_bytes_;
  const bool owned_;
};

// What the kernels of one context see of memory. Any thread.
class ContextMemory : public ptx::MemoryView {
 public:
  explicit ContextMemory(SimMemory* memory) : memory_(memory) {}
  Range Find(std::uint64_t address) override { return memory_->Find(address); }
  std::uint64_t Generation() override { return memory_->Generation(); }
  std::uint64_t Malloc(std::uint64_t bytes) override {
    return heap_.Malloc(bytes);
  }
  bool Free(std::uint64_t address) override { return heap_.Free(address); }
  DeviceHeap* heap() { return &heap_; }

 private:
  SimMemory* const memory_;
  DeviceHeap heap_;
};

class SimContext : public DeviceContext, private ptx::KernelOutput {
 public:
  SimContext(const ContextParts& parts, CompletionSink* sink)
      : parts_(parts),
        view_(parts.memory),
        sink_(sink),
        state_(parts.engine->OpenContext(sink)),
        default_stream_(parts.engine, state_->default_stream, &stack_bytes_,
                        /*owned=*/false) {}
  ~SimContext() override { parts_.engine->CloseContext(state_); }

  [[nodiscard]] DeviceStream* default_stream() override {
    return &default_stream_;
  }

  Result<std::unique_ptr<DeviceStream>> CreateStream(
      std::uint32_t flags, std::int32_t priority) override {
    if ((flags & ~std::uint32_t{kStreamNonBlocking}) != 0) {
      return Invalid("stream flags " + std::to_string(flags));
    }
    StreamState* state = parts_.engine->NewStream(
        state_, /*blocking=*/(flags & kStreamNonBlocking) == 0, priority);
    return std::unique_ptr<DeviceStream>(
        std::make_unique<SimStream>(parts_.engine, state, &stack_bytes_,
                                    /*owned=*/true));
  }

  Result<std::unique_ptr<DeviceEvent>> CreateEvent(
      std::uint32_t flags) override {
    constexpr std::uint32_t kKnown = kEventBlockingSync | kEventDisableTiming;
    if ((flags & ~kKnown) != 0) {
      return Invalid("event flags " + std::to_string(flags));
    }
    return std::unique_ptr<DeviceEvent>(std::make_unique<SimEvent>(
        parts_.engine, state_, (flags & kEventDisableTiming) == 0));
  }

  Result<std::unique_ptr<DeviceModule>> LoadModule(
      std::span<const std::byte> image, ModulePlacer* placer,
      DeviceError* error) override {
    POS_ASSIGN_OR_RETURN(std::shared_ptr<const CodeImage> code,
                         parts_.images->Get(image, error));
    // The heap is the context's; the first module that needs it has it placed.
    if (code->uses_heap && !view_.heap()->has_range()) {
      *error = CUDA_ERROR_OUT_OF_MEMORY;
      POS_RETURN_IF_ERROR(PlaceHeap(placer, heap_bytes_));
    }
    POS_ASSIGN_OR_RETURN(std::unique_ptr<SimModule> module,
                         SimModule::Load(std::move(code),
                                         {parts_.memory, &view_, this, placer,
                                          parts_.compute_capability},
                                         error));
    return std::unique_ptr<DeviceModule>(std::move(module));
  }

  DeviceError SetLimit(DeviceLimit limit, std::uint64_t value,
                       ModulePlacer* placer,
                       std::uint64_t* in_effect) override {
    if (limit == DeviceLimit::kStackBytes) {
      stack_bytes_ = static_cast<std::uint32_t>(
                         std::clamp<std::uint64_t>(value, kLeastStackBytes,
                                                   kMostStackBytes) +
                         15) &
                     ~15u;
      *in_effect = stack_bytes_;
      return 0;
    }
    if (limit == DeviceLimit::kOutputBytes) {
      *in_effect = value;
      return 0;
    }
    if (value > kMostHeapBytes) return CUDA_ERROR_OUT_OF_MEMORY;
    const std::uint64_t bytes =
        (std::max<std::uint64_t>(value, 1) + kHeapAlignment - 1) &
        ~(kHeapAlignment - 1);
    if (view_.heap()->has_range() && !PlaceHeap(placer, bytes).ok()) {
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    heap_bytes_ = bytes;
    *in_effect = bytes;
    return 0;
  }
  void RestoreHeap(DeviceAddress address, std::uint64_t bytes) override {
    view_.heap()->SetRange(address, bytes);
  }

  void NotifyIdle(std::uint64_t token) override {
    parts_.engine->SubmitIdle(state_, token);
  }
  [[nodiscard]] DeviceError sticky_error() const override {
    return state_->sticky.load(std::memory_order_acquire);
  }
  void Cancel() override { parts_.engine->CancelContext(state_); }

 private:
  void Print(std::string_view text) override {
    sink_->OnDeviceOutput(OutputKind::kPrinted, text);
  }
  void PrintFailure(std::string_view text) override {
    sink_->OnDeviceOutput(OutputKind::kFailed, text);
  }
  Status PlaceHeap(ModulePlacer* placer, std::uint64_t bytes) {
    POS_ASSIGN_OR_RETURN(const std::uint64_t heap,
                         placer->Place(kHeapName, bytes, kHeapAlignment));
    // Anything else there could be taken for a heap.
    const std::array<std::byte, 64> zeros{};
    POS_RETURN_IF_ERROR(parts_.memory->Write(heap, zeros));
    view_.heap()->SetRange(heap, bytes);
    return OkStatus();
  }

  const ContextParts parts_;
  ContextMemory view_;
  std::uint32_t stack_bytes_ = kStackBytes;
  std::uint64_t heap_bytes_ = kHeapBytes;
  CompletionSink* const sink_;
  ContextState* const state_;
  SimStream default_stream_;
};

}  // namespace

std::unique_ptr<DeviceContext> NewSimContext(const ContextParts& parts,
                                             CompletionSink* sink) {
  return std::make_unique<SimContext>(parts, sink);
}

}  // namespace pos::sim
