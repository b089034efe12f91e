// The threads of a simulated device and what they work on.
//
//   worker thread ── Submit… ──> Scheduler ──> compute threads: kernels
//                                         └──> copy threads: copies and fills
//
// Kernels: a grid runs in slices of about 0.2 ms; compute threads take turns
//   over all running grids (up to kMaxActiveGrids), so a kernel that waits for
//   another one, for a copy or for the host gets what it waits for. Grids of
//   more urgent streams get three turns of four.
// Waiting: a thread that runs out of work yields for 20 microseconds (at most
//   one thread of the device at a time: with few cores more would keep others
//   from running), then sleeps on a futex. An idle device uses no CPU.
// Latency: work that needs no thread (markers, event records and waits whose
//   turn has come) is completed inside the submitting call.
// Reports go out in the order of completion, one at a time.
//
// Threads: the Submit family, contexts, streams and records: one thread at a
//   time. CancelContext: any thread. Sinks are called without any lock.
// Blocking: only CloseContext and the destructor.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_ENGINE_ENGINE_H_
#define POS_CUDA_IMPL_DEVICE_SIM_ENGINE_ENGINE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/cuda_impl/device_sim/engine/copy.h"
#include "pos/cuda_impl/device_sim/engine/grid.h"
#include "pos/cuda_impl/device_sim/engine/memory.h"
#include "pos/cuda_impl/device_sim/engine/scheduler.h"

namespace pos::sim {

struct EngineOptions {
  unsigned compute_threads = 0;  // 0: one per hardware thread
  unsigned copy_engines = 2;     // 1 to kMaxCopyEngines
  std::uint64_t copy_bytes_per_second = 0;
  // Makes the state of one compute thread; called by that thread.
  std::function<std::unique_ptr<GridWorker>()> new_worker;
};

class Engine {
 public:
  static constexpr std::size_t kMaxActiveGrids = 128;  // as compute 9.0 has

  // `memory` outlives the engine. Starts the threads.
  static Result<std::unique_ptr<Engine>> Create(EngineOptions options,
                                                SimMemory* memory);
  // Every context is closed.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  ContextState* OpenContext(CompletionSink* sink);
  // Stops the context's work and waits until its last report has been made.
  void CloseContext(ContextState* context);
  // Sticky error CUDA_ERROR_CONTEXT_IS_DESTROYED. Any thread; reports are made
  // by the device's threads.
  void CancelContext(ContextState* context);

  StreamState* NewStream(ContextState* context, bool blocking,
                         std::int32_t priority);
  void ReleaseStream(StreamState* stream);
  [[nodiscard]] std::optional<DeviceError> QueryStream(StreamState* stream);

  void SubmitNotify(StreamState* stream, std::uint64_t token);
  void SubmitCopy(StreamState* stream, DeviceAddress dst, DeviceAddress src,
                  std::uint64_t bytes, std::uint64_t token);
  struct FillArguments {
    DeviceAddress dst;
    std::uint32_t value;
    std::uint32_t width;
    std::uint64_t count;
    std::uint64_t rows;
    std::uint64_t pitch;
  };
  void SubmitFill(StreamState* stream, const FillArguments& fill,
                  std::uint64_t token);
  void SubmitLaunch(StreamState* stream, std::shared_ptr<GridSource> source,
                    const LaunchConfig& config,
                    std::span<const std::byte> params, std::uint64_t token);
  // Replaces *latest (nullptr: never recorded) by a new record, whose reference
  // the caller gets.
  void SubmitRecord(StreamState* stream, Record** latest, std::uint64_t token);
  void SubmitWait(StreamState* stream, Record* record, std::uint64_t token);
  void SubmitIdle(ContextState* context, std::uint64_t token);
  void SubmitToRecord(ContextState* context, Record* record,
                      std::uint64_t token);

  // nullopt: pending. `timestamp_ns` may be nullptr.
  [[nodiscard]] bool RecordComplete(Record* record,
                                    std::uint64_t* timestamp_ns);
  Record* NewCompleteRecord(std::uint64_t timestamp_ns);
  void ReleaseRecord(Record* record);

  // For a copy that is made without the engine: waits for as long as the link
  // takes for it, besides the others in that direction. Any thread.
  void CrossLink(Direction direction, std::uint64_t bytes);

 private:
  Engine(EngineOptions options, SimMemory* memory);
  Status StartThreads();

  enum class ThreadKind : std::uint8_t { kCompute, kCopy };
  struct Thread {
    ThreadKind kind = ThreadKind::kCompute;
    std::size_t index = 0;
    SimMemory::ReaderSlot* reader = nullptr;
    std::unique_ptr<GridWorker> worker;
    Link<Thread> parked;
    std::atomic<std::uint32_t> wake{0};
    std::uint32_t turn = 0;  // compute: counts picks
    bool has_spun = false;   // since it last had work
    // Compute, under mu_: done with its work and about to look for more.
    bool coming = false;
    std::thread thread;
  };
  using ParkedList = List<Thread, &Thread::parked>;
  // Threads to wake after the mutex has been released.
  struct Sleepers {
    std::array<Thread*, kMaxCopyEngines + 1> threads{};
    std::size_t count = 0;
  };

  void ThreadMain(Thread* self);
  // Runs one piece of work; false when there was none.
  bool Step(Thread* self) POS_EXCLUDES(mu_);
  // nullptr when there is nothing for this thread.
  Command* PickWork(Thread* self) POS_REQUIRES(mu_);
  Command* PickGrid(Thread* self) POS_REQUIRES(mu_);
  Command* BestActive(bool any_priority) POS_REQUIRES(mu_);
  Scheduler::ReadyQueue* MostUrgentLaunches() POS_REQUIRES(mu_);
  Command* PickSmallCopy() POS_REQUIRES(mu_);
  [[nodiscard]] bool IsSmallCopy(const Command& command) const;
  void RunCopyCommand(Thread* self, Command* command) POS_EXCLUDES(mu_);
  // Starts a grid or runs a further slice of one.
  void RunGrid(Thread* self, Command* command) POS_EXCLUDES(mu_);
  Status StartGrid(Command* command) POS_EXCLUDES(mu_);
  // True when the grid is over, this thread was its last and it faulted.
  bool AfterSlice(Command* command, Grid::Step step, std::uint64_t elapsed_ns)
      POS_REQUIRES(mu_);
  void FinishFaultedGrid(Command* command) POS_EXCLUDES(mu_);
  void Fault(ContextState* context, DeviceError error) POS_REQUIRES(mu_);

  // Advances streams, reports what has completed and wakes threads for what
  // became ready. `self`: nullptr on the submitting thread.
  void Settle(Thread* self) POS_EXCLUDES(mu_);
  // Only while this thread has set reporting_, so that reports go out in the
  // order of completion. True when more has completed meanwhile.
  bool Report(CommandQueue* completed) POS_EXCLUDES(mu_);
  void TakeSleepers(Sleepers* out) POS_REQUIRES(mu_);
  // Streams to advance or completions to report that no thread is at.
  [[nodiscard]] bool HasChores() POS_REQUIRES(mu_);
  void SetComing(Thread* self, bool coming) POS_REQUIRES(mu_);
  // How many compute threads could work now, more or less.
  [[nodiscard]] std::uint32_t ComputeDemand() POS_REQUIRES(mu_);
  void PublishHints() POS_REQUIRES(mu_);
  [[nodiscard]] bool HintFor(const Thread* self) const;
  void Idle(Thread* self) POS_EXCLUDES(mu_);
  void Spin(Thread* self) POS_EXCLUDES(mu_);
  void Sleep(Thread* self);
  static void Wake(Thread* thread);
  static std::size_t EngineOf(const void* self, const Command& command);

  const EngineOptions options_;
  SimMemory* const memory_;
  LinkPacer pacer_;
  const bool may_spin_;

  Mutex mu_;
  CondVar changed_;  // a context may have become empty
  Scheduler scheduler_ POS_GUARDED_BY(mu_);
  ParkedList parked_compute_ POS_GUARDED_BY(mu_);
  std::array<bool, kMaxCopyEngines> copy_parked_ POS_GUARDED_BY(mu_){};
  Thread* spinner_ POS_GUARDED_BY(mu_) = nullptr;
  std::uint32_t coming_ POS_GUARDED_BY(mu_) = 0;   // threads with `coming`
  bool reporting_ POS_GUARDED_BY(mu_) = false;     // a thread is in Report
  std::uint32_t closing_ POS_GUARDED_BY(mu_) = 0;  // CloseContext calls waiting
  std::atomic<bool> stopping_{false};
  // Hints for the spinning thread, which does not take the mutex.
  std::atomic<std::uint32_t> compute_hint_{0};
  std::array<std::atomic<std::uint32_t>, kMaxCopyEngines> copy_hint_{};

  // Fixed after construction.
  std::vector<std::unique_ptr<Thread>> compute_;
  std::vector<std::unique_ptr<Thread>> copiers_;
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_ENGINE_ENGINE_H_
