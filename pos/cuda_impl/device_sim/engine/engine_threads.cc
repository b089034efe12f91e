// The engine's threads: what they pick, how they run it, how they wait.
#include <cuda.h>
#include <sched.h>

#include <algorithm>
#include <array>

#include "pos/base/clock.h"
#include "pos/base/futex.h"
#include "pos/base/log.h"
#include "pos/cuda_impl/device_sim/engine/engine.h"

namespace pos::sim {
namespace {

// Time that a grid runs before its thread looks for others, and how many warp
// instructions are tried first (about 40 us at 25 M/s): launches shorter than
// that are never offered to a second thread, whose waking would cost more.
constexpr std::uint64_t kSliceNs = 200000;
constexpr std::uint64_t kFirstBudget = 1000;
constexpr std::uint64_t kMinBudget = 100;
constexpr std::uint64_t kMaxBudget = 1 << 20;
// How long one idle thread looks for work before it sleeps.
constexpr std::uint64_t kSpinNs = 20000;
constexpr int kPausesPerYield = 30;  // about a microsecond
// How long a sleeping thread keeps its caches.
constexpr std::uint64_t kTrimAfterNs = 2000000000;
// Up to here a copy may also be made by an idle compute thread, which saves
// waking a copy thread.
constexpr std::uint64_t kSmallCopyBytes = 64 << 10;

}  // namespace

void Engine::ThreadMain(Thread* self) {
  if (self->kind == ThreadKind::kCompute && options_.new_worker) {
    self->worker = options_.new_worker();
  }
  while (!stopping_.load(std::memory_order_acquire)) {
    if (Step(self)) {
      self->has_spun = false;
    } else {
      Idle(self);
    }
  }
  self->worker.reset();
}

bool Engine::Step(Thread* self) {
  Command* command = nullptr;
  bool chores = false;
  {
    const MutexLock lock(&mu_);
    command = PickWork(self);
    if (command != nullptr) SetComing(self, false);
    chores = HasChores();
    PublishHints();
  }
  if (command == nullptr && !chores) return false;
  if (command != nullptr) {
    if (command->kind == CommandKind::kLaunch) {
      RunGrid(self, command);
    } else {
      RunCopyCommand(self, command);
    }
  }
  Settle(self);
  return true;
}

Command* Engine::PickWork(Thread* self) {
  if (self->kind == ThreadKind::kCopy) {
    return scheduler_.ready_copies[self->index].PopFront();
  }
  Command* command = PickGrid(self);
  return command != nullptr ? command : PickSmallCopy();
}

Command* Engine::BestActive(bool any_priority) {
  Command* best = nullptr;
  for (Command* grid = scheduler_.active.front(); grid != nullptr;
       grid = Scheduler::ActiveList::Next(grid)) {
    if (grid->no_work_left) continue;
    if (any_priority) return grid;
    if (best == nullptr || grid->stream->priority < best->stream->priority) {
      best = grid;
    }
  }
  return best;
}

Scheduler::ReadyQueue* Engine::MostUrgentLaunches() {
  if (scheduler_.active.size() >= kMaxActiveGrids) return nullptr;
  for (auto& queue : scheduler_.ready_launches) {
    if (!queue.empty()) return &queue;
  }
  return nullptr;
}

Command* Engine::PickGrid(Thread* self) {
  // Every fourth turn ignores priorities, so that an urgent kernel which waits
  // for a less urgent one gets what it waits for.
  const bool fair = ++self->turn % 4 == 0;
  Scheduler::ReadyQueue* launches = MostUrgentLaunches();
  Command* best = BestActive(fair);
  if (launches != nullptr && best != nullptr) {
    const std::int32_t urgent = launches->front()->stream->priority;
    const bool same = fair || urgent == best->stream->priority;
    if (same ? self->turn % 8 < 4 : urgent < best->stream->priority) {
      best = nullptr;
    }
  }
  if (best == nullptr) {
    Command* command = launches == nullptr ? nullptr : launches->PopFront();
    if (command != nullptr) command->runners = 1;
    return command;
  }
  scheduler_.active.Remove(best);
  scheduler_.active.PushBack(best);
  ++best->runners;
  return best;
}

bool Engine::IsSmallCopy(const Command& command) const {
  if (pacer_.limited()) return false;
  if (command.kind == CommandKind::kCopy) {
    return command.bytes <= kSmallCopyBytes;
  }
  return command.bytes <= kSmallCopyBytes && command.rows <= 4;
}

Command* Engine::PickSmallCopy() {
  for (std::size_t i = 0; i < options_.copy_engines; ++i) {
    Command* command = scheduler_.ready_copies[i].front();
    if (command != nullptr && IsSmallCopy(*command)) {
      scheduler_.ready_copies[i].Remove(command);
      return command;
    }
  }
  return nullptr;
}

void Engine::CrossLink(Direction direction, std::uint64_t bytes) {
  if (!pacer_.limited()) return;
  const std::uint64_t until = pacer_.Book(direction, bytes);
  const std::uint64_t now = MonotonicNs();
  if (until > now) SleepNs(until - now);
}

void Engine::RunCopyCommand(Thread* self, Command* command) {
  std::optional<std::uint64_t> bad;
  const DeviceError error =
      RunCopy(memory_, self->reader, &pacer_, *command, &bad);
  if (bad.has_value()) {
    POS_LOG(kWarning, "copy or fill outside of every allocation",
            {{"address", Hex(*bad)},
             {"dst", Hex(command->dst)},
             {"src", Hex(command->src)},
             {"bytes", command->bytes},
             {"error", error}});
  }
  const MutexLock lock(&mu_);
  if (bad.has_value()) Fault(command->context, error);
  scheduler_.Complete(command, error);
}

Status Engine::StartGrid(Command* command) {
  auto grid = command->source->Start(command->config, command->params->bytes);
  if (!grid.ok()) return grid.status();
  command->grid = *std::move(grid);
  command->slice_budget = kFirstBudget;
  return OkStatus();
}

void Engine::RunGrid(Thread* self, Command* command) {
  const DeviceError sticky =
      command->context->sticky.load(std::memory_order_acquire);
  // Only its first thread may look at `grid` without the mutex; further
  // threads come after it has been put on the active list.
  const bool is_new = command->grid == nullptr;
  if (is_new) {
    const Status started = sticky == 0 ? StartGrid(command) : OkStatus();
    if (sticky != 0 || !started.ok()) {
      if (!started.ok()) {
        POS_LOG(kError, "kernel did not start",
                {{"kernel", command->source->name()},
                 {"reason", started.ToString()}});
      }
      const MutexLock lock(&mu_);
      if (sticky == 0) Fault(command->context, CUDA_ERROR_LAUNCH_FAILED);
      scheduler_.Complete(command,
                          sticky != 0 ? sticky : CUDA_ERROR_LAUNCH_FAILED);
      return;
    }
  }
  std::uint64_t budget = kFirstBudget;
  if (!is_new) {
    const MutexLock lock(&mu_);
    budget = command->slice_budget;
  }
  const std::uint64_t start = MonotonicNs();
  self->reader->Enter(*memory_);
  const Grid::Step step = command->grid->Run(self->worker.get(), budget);
  self->reader->Leave();
  bool faulted = false;
  {
    const MutexLock lock(&mu_);
    faulted = AfterSlice(command, step, MonotonicNs() - start);
  }
  if (faulted) FinishFaultedGrid(command);
}

bool Engine::AfterSlice(Command* command, Grid::Step step,
                        std::uint64_t elapsed_ns) {
  --command->runners;
  switch (step) {
    case Grid::Step::kFinished:
      command->grid_finished = true;
      command->no_work_left = true;
      break;
    case Grid::Step::kNothingForYou:
      // Checked here, under the mutex: a thread that gives a block back does so
      // before it comes here, so either it is seen now or it comes later.
      command->no_work_left =
          command->grid_finished || !command->grid->HasWork();
      break;
    case Grid::Step::kMore: {
      command->no_work_left = command->grid_finished;
      const std::uint64_t budget = command->slice_budget;
      if (elapsed_ns > 2 * kSliceNs) {
        command->slice_budget = std::max(kMinBudget, budget / 2);
      } else if (elapsed_ns < kSliceNs / 2) {
        command->slice_budget = std::min(kMaxBudget, budget * 2);
      }
      break;
    }
  }
  const bool listed = Scheduler::ActiveList::Linked(command);
  if (command->grid_finished && command->runners == 0) {
    if (listed) scheduler_.active.Remove(command);
    if (command->grid->fault().error != 0) return true;
    // A grid that was cancelled reports what it was cancelled for.
    scheduler_.Complete(
        command, command->context->sticky.load(std::memory_order_relaxed));
    return false;
  }
  if (!listed) {
    scheduler_.active.PushBack(command);
    // A fault of its context may have come during the first slice.
    if (command->context->sticky.load(std::memory_order_relaxed) != 0) {
      command->grid->Cancel();
    }
  }
  return false;
}

void Engine::FinishFaultedGrid(Command* command) {
  const GridFault fault = command->grid->fault();
  POS_LOG(kWarning, "kernel faulted",
          {{"kernel", command->source->name()},
           {"error", fault.error},
           {"address", Hex(fault.address)},
           {"where", fault.text}});
  const MutexLock lock(&mu_);
  Fault(command->context, fault.error);
  // The context may have had a fault before.
  scheduler_.Complete(command,
                      command->context->sticky.load(std::memory_order_relaxed));
}

void Engine::SetComing(Thread* self, bool coming) {
  if (self->kind != ThreadKind::kCompute || self->coming == coming) return;
  self->coming = coming;
  coming_ += coming ? 1 : -1u;
}

bool Engine::HasChores() {
  return scheduler_.NeedsPump() ||
         (!reporting_ && !scheduler_.completions.empty());
}

std::uint32_t Engine::ComputeDemand() {
  std::uint32_t demand = HasChores() ? 1 : 0;
  if (scheduler_.active.size() < kMaxActiveGrids) {
    for (const auto& queue : scheduler_.ready_launches) {
      demand += static_cast<std::uint32_t>(queue.size());
    }
  }
  for (Command* grid = scheduler_.active.front(); grid != nullptr;
       grid = Scheduler::ActiveList::Next(grid)) {
    if (grid->no_work_left) continue;
    const auto& blocks = grid->config.grid;
    demand += blocks[0] > 1 || blocks[1] > 1 || blocks[2] > 1 ? 2 : 1;
  }
  return demand;
}

void Engine::TakeSleepers(Sleepers* out) {
  // Threads that are awake come by themselves. Each thread that wakes looks
  // again, so one at a time is enough.
  const std::uint32_t demand = ComputeDemand();
  if (demand > coming_ && !parked_compute_.empty()) {
    out->threads[out->count++] = parked_compute_.PopFront();
  }
  std::uint32_t spare = coming_ > demand ? coming_ - demand : 0;
  for (std::size_t i = 0; i < options_.copy_engines; ++i) {
    const Command* first = scheduler_.ready_copies[i].front();
    if (first == nullptr || !copy_parked_[i]) continue;
    if (spare > 0 && scheduler_.ready_copies[i].size() == 1 &&
        IsSmallCopy(*first)) {
      --spare;
      continue;
    }
    copy_parked_[i] = false;
    out->threads[out->count++] = copiers_[i].get();
  }
}

void Engine::PublishHints() {
  std::uint32_t small = 0;
  for (std::size_t i = 0; i < options_.copy_engines; ++i) {
    const auto& queue = scheduler_.ready_copies[i];
    copy_hint_[i].store(static_cast<std::uint32_t>(queue.size()),
                        std::memory_order_relaxed);
    if (!queue.empty() && IsSmallCopy(*queue.front())) ++small;
  }
  compute_hint_.store(ComputeDemand() + small, std::memory_order_relaxed);
}

bool Engine::HintFor(const Thread* self) const {
  return self->kind == ThreadKind::kCompute
             ? compute_hint_.load(std::memory_order_relaxed) != 0
             : copy_hint_[self->index].load(std::memory_order_relaxed) != 0;
}

void Engine::Idle(Thread* self) {
  bool spin = false;
  {
    const MutexLock lock(&mu_);
    PublishHints();
    if (HintFor(self) || stopping_.load(std::memory_order_relaxed)) return;
    spin = may_spin_ && spinner_ == nullptr && !self->has_spun;
    if (spin) {
      spinner_ = self;
    } else {
      self->wake.store(0, std::memory_order_relaxed);
      SetComing(self, false);
      if (self->kind == ThreadKind::kCompute) {
        parked_compute_.PushBack(self);
      } else {
        copy_parked_[self->index] = true;
      }
    }
  }
  if (spin) {
    Spin(self);
  } else {
    Sleep(self);
  }
}

void Engine::Spin(Thread* self) {
  const std::uint64_t until = MonotonicNs() + kSpinNs;
  while (!HintFor(self) && !stopping_.load(std::memory_order_relaxed) &&
         MonotonicNs() < until) {
    for (int i = 0; i < kPausesPerYield && !HintFor(self); ++i) CpuPause();
    if (!HintFor(self)) ::sched_yield();
  }
  self->has_spun = true;
  const MutexLock lock(&mu_);
  // From here on submitters wake somebody; what they left to this thread, it
  // finds when it looks again before it sleeps.
  spinner_ = nullptr;
}

void Engine::Sleep(Thread* self) {
  bool trimmed = self->worker == nullptr;
  while (self->wake.load(std::memory_order_acquire) == 0) {
    const bool woken = FutexWait(&self->wake, 0, FutexScope::kPrivate,
                                 trimmed ? 0 : kTrimAfterNs);
    if (!woken && !trimmed) {
      self->worker->Trim();
      trimmed = true;
    }
  }
}

void Engine::Wake(Thread* thread) {
  thread->wake.store(1, std::memory_order_release);
  FutexWake(&thread->wake, FutexScope::kPrivate, 1);
}

}  // namespace pos::sim
