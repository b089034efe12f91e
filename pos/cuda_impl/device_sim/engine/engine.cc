#include "pos/cuda_impl/device_sim/engine/engine.h"

#include <cuda.h>
#include <pthread.h>

#include <chrono>
#include <string>
#include <system_error>
#include <utility>

namespace pos::sim {
namespace {

// Commands completed under the mutex before their reports go out.
constexpr std::size_t kPumpBatch = 256;

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Create(EngineOptions options,
                                               SimMemory* memory) {
  if (options.copy_engines < 1 || options.copy_engines > kMaxCopyEngines) {
    return Invalid("simulated device: " + std::to_string(options.copy_engines) +
                   " copy engines; 1 to " + std::to_string(kMaxCopyEngines) +
                   " are possible");
  }
  if (options.compute_threads == 0) {
    options.compute_threads = std::max(1u, std::thread::hardware_concurrency());
  }
  if (options.compute_threads + options.copy_engines > SimMemory::kMaxReaders) {
    return Invalid(
        "simulated device: " + std::to_string(options.compute_threads) +
        " compute threads are too many");
  }
  std::unique_ptr<Engine> engine(new Engine(std::move(options), memory));
  POS_RETURN_IF_ERROR(engine->StartThreads());
  return engine;
}

Engine::Engine(EngineOptions options, SimMemory* memory)
    : options_(std::move(options)),
      memory_(memory),
      pacer_(options_.copy_bytes_per_second),
      may_spin_(std::thread::hardware_concurrency() > 1),
      scheduler_(&Engine::EngineOf, this) {}

Status Engine::StartThreads() {
  const auto start = [this](ThreadKind kind, std::size_t index) {
    auto& threads = kind == ThreadKind::kCompute ? compute_ : copiers_;
    threads.push_back(std::make_unique<Thread>());
    Thread* self = threads.back().get();
    self->kind = kind;
    self->index = index;
    self->reader = memory_->NewReader();
  };
  for (std::size_t i = 0; i < options_.compute_threads; ++i) {
    start(ThreadKind::kCompute, i);
  }
  for (std::size_t i = 0; i < options_.copy_engines; ++i) {
    start(ThreadKind::kCopy, i);
  }
  try {
    for (const auto* threads : {&compute_, &copiers_}) {
      for (const auto& one : *threads) {
        Thread* self = one.get();
        self->thread = std::thread([this, self] { ThreadMain(self); });
        const std::string name =
            (self->kind == ThreadKind::kCompute ? "sim-compute-"
                                                : "sim-copy-") +
            std::to_string(self->index);
        ::pthread_setname_np(self->thread.native_handle(), name.c_str());
      }
    }
  } catch (const std::system_error& error) {
    return Internal(std::string("simulated device: thread: ") + error.what());
  }
  return OkStatus();
}

Engine::~Engine() {
  {
    const MutexLock lock(&mu_);
    stopping_.store(true, std::memory_order_release);
  }
  for (const auto* threads : {&compute_, &copiers_}) {
    for (const auto& one : *threads) Wake(one.get());
    for (const auto& one : *threads) {
      if (one->thread.joinable()) one->thread.join();
    }
  }
}

ContextState* Engine::OpenContext(CompletionSink* sink) {
  auto* context = new ContextState;
  context->sink = sink;
  const MutexLock lock(&mu_);
  scheduler_.OpenContext(context);
  return context;
}

void Engine::CloseContext(ContextState* context) {
  {
    const MutexLock lock(&mu_);
    Fault(context, CUDA_ERROR_CONTEXT_IS_DESTROYED);
  }
  Settle(nullptr);
  {
    const MutexLock lock(&mu_);
    ++closing_;
    while (!context->live.empty() || context->unreported != 0) {
      changed_.WaitFor(&mu_, std::chrono::seconds(1));
    }
    --closing_;
    scheduler_.CloseContext(context);
  }
  delete context;
}

void Engine::CancelContext(ContextState* context) {
  Thread* wake = nullptr;
  {
    const MutexLock lock(&mu_);
    Fault(context, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    // The queues are worked off by a compute thread, not here.
    PublishHints();
    if (coming_ == 0) wake = parked_compute_.PopFront();
  }
  if (wake != nullptr) Wake(wake);
}

void Engine::Fault(ContextState* context, DeviceError error) {
  scheduler_.Poison(context, error);
  for (Command* grid = scheduler_.active.front(); grid != nullptr;
       grid = Scheduler::ActiveList::Next(grid)) {
    if (grid->context != context) continue;
    grid->grid->Cancel();
    grid->no_work_left = false;
  }
}

StreamState* Engine::NewStream(ContextState* context, bool blocking,
                               std::int32_t priority) {
  const MutexLock lock(&mu_);
  return scheduler_.NewStream(context, blocking, priority);
}

void Engine::ReleaseStream(StreamState* stream) {
  {
    const MutexLock lock(&mu_);
    scheduler_.DetachStream(stream);
  }
  Settle(nullptr);
}

std::optional<DeviceError> Engine::QueryStream(StreamState* stream) {
  const MutexLock lock(&mu_);
  const ContextState* context = stream->context;
  const DeviceError sticky = context->sticky.load(std::memory_order_relaxed);
  if (sticky != 0) return sticky;
  if (!stream->queue.empty()) return std::nullopt;
  // The default stream stands for all that it waits for.
  if (stream->is_default && context->blocking_pending != 0) {
    return std::nullopt;
  }
  return 0;
}

void Engine::SubmitNotify(StreamState* stream, std::uint64_t token) {
  {
    const MutexLock lock(&mu_);
    scheduler_.Submit(stream,
                      scheduler_.NewCommand(CommandKind::kNotify, token));
  }
  Settle(nullptr);
}

void Engine::SubmitCopy(StreamState* stream, DeviceAddress dst,
                        DeviceAddress src, std::uint64_t bytes,
                        std::uint64_t token) {
  {
    const MutexLock lock(&mu_);
    Command* command = scheduler_.NewCommand(CommandKind::kCopy, token);
    command->dst = dst;
    command->src = src;
    command->bytes = bytes;
    scheduler_.Submit(stream, command);
  }
  Settle(nullptr);
}

void Engine::SubmitFill(StreamState* stream, const FillArguments& fill,
                        std::uint64_t token) {
  {
    const MutexLock lock(&mu_);
    Command* command = scheduler_.NewCommand(CommandKind::kFill, token);
    command->dst = fill.dst;
    command->value = fill.value;
    command->width = fill.width;
    command->bytes = fill.count;
    command->rows = fill.rows;
    command->pitch = fill.pitch;
    scheduler_.Submit(stream, command);
  }
  Settle(nullptr);
}

void Engine::SubmitLaunch(StreamState* stream,
                          std::shared_ptr<GridSource> source,
                          const LaunchConfig& config,
                          std::span<const std::byte> params,
                          std::uint64_t token) {
  {
    const MutexLock lock(&mu_);
    Command* command = scheduler_.NewCommand(CommandKind::kLaunch, token);
    command->source = std::move(source);
    command->config = config;
    command->params->bytes.assign(params.begin(), params.end());
    command->slice_budget = 0;
    command->runners = 0;
    command->grid_finished = false;
    command->no_work_left = false;
    scheduler_.Submit(stream, command);
  }
  Settle(nullptr);
}

void Engine::SubmitRecord(StreamState* stream, Record** latest,
                          std::uint64_t token) {
  {
    const MutexLock lock(&mu_);
    Record* record = scheduler_.NewRecord();
    Scheduler::Reference(record);
    scheduler_.Release(*latest);
    *latest = record;
    Command* command = scheduler_.NewCommand(CommandKind::kRecord, token);
    command->record = record;
    scheduler_.Submit(stream, command);
  }
  Settle(nullptr);
}

void Engine::SubmitWait(StreamState* stream, Record* record,
                        std::uint64_t token) {
  {
    const MutexLock lock(&mu_);
    Command* command = scheduler_.NewCommand(CommandKind::kWait, token);
    if (record != nullptr) Scheduler::Reference(record);
    command->record = record;
    scheduler_.Submit(stream, command);
  }
  Settle(nullptr);
}

void Engine::SubmitIdle(ContextState* context, std::uint64_t token) {
  {
    const MutexLock lock(&mu_);
    scheduler_.SubmitIdle(context,
                          scheduler_.NewCommand(CommandKind::kNotify, token));
  }
  Settle(nullptr);
}

void Engine::SubmitToRecord(ContextState* context, Record* record,
                            std::uint64_t token) {
  {
    const MutexLock lock(&mu_);
    scheduler_.SubmitToRecord(
        context, record, scheduler_.NewCommand(CommandKind::kNotify, token));
  }
  Settle(nullptr);
}

bool Engine::RecordComplete(Record* record, std::uint64_t* timestamp_ns) {
  const MutexLock lock(&mu_);
  if (!record->complete) return false;
  if (timestamp_ns != nullptr) *timestamp_ns = record->timestamp_ns;
  return true;
}

Record* Engine::NewCompleteRecord(std::uint64_t timestamp_ns) {
  const MutexLock lock(&mu_);
  Record* record = scheduler_.NewRecord();
  record->complete = true;
  record->timestamp_ns = timestamp_ns;
  return record;
}

void Engine::ReleaseRecord(Record* record) {
  const MutexLock lock(&mu_);
  scheduler_.Release(record);
}

void Engine::Settle(Thread* self) {
  for (bool again = true; again;) {
    CommandQueue completed;
    Sleepers sleepers;
    {
      const MutexLock lock(&mu_);
      if (self != nullptr) SetComing(self, true);
      scheduler_.Pump(kPumpBatch);
      if (!reporting_ && !scheduler_.completions.empty()) {
        completed = scheduler_.completions;
        scheduler_.completions = {};
        reporting_ = true;
      }
      // The submitting thread does one round; a device thread does the rest.
      again = self != nullptr && (scheduler_.NeedsPump() || !completed.empty());
      TakeSleepers(&sleepers);
      PublishHints();
    }
    for (std::size_t i = 0; i < sleepers.count; ++i) Wake(sleepers.threads[i]);
    if (!completed.empty() && Report(&completed)) {
      Sleepers more;
      {
        const MutexLock lock(&mu_);
        TakeSleepers(&more);
        PublishHints();
      }
      for (std::size_t i = 0; i < more.count; ++i) Wake(more.threads[i]);
    }
  }
}

bool Engine::Report(CommandQueue* completed) {
  for (Command* command = completed->front(); command != nullptr;
       command = CommandQueue::Next(command)) {
    // Frees what a launch used before anybody learns that it is over.
    command->grid.reset();
    command->source.reset();
    if (command->token != 0) {
      command->context->sink->OnComplete(command->token, command->error);
    }
  }
  const MutexLock lock(&mu_);
  while (Command* command = completed->PopFront()) {
    --command->context->unreported;
    scheduler_.FreeCommand(command);
  }
  reporting_ = false;
  if (closing_ != 0) changed_.NotifyAll();
  return !scheduler_.completions.empty();
}

std::size_t Engine::EngineOf(const void* self, const Command& command) {
  const auto* engine = static_cast<const Engine*>(self);
  const std::size_t count = engine->options_.copy_engines;
  switch (DirectionOf(*engine->memory_, command)) {
    case Direction::kHostToDevice:
    case Direction::kHostToHost:
      return 0;
    case Direction::kDeviceToHost:
      return 1 % count;
    case Direction::kDeviceToDevice:
      break;
  }
  return 2 % count;
}

}  // namespace pos::sim
