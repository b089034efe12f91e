#include "pos/cuda_impl/device_cuda/core.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "pos/base/backoff.h"
#include "pos/base/log.h"

namespace pos::cuda_device {
namespace {

constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
constexpr std::uint64_t kLongestSleepNs = 200'000;  // of who looks at a device

thread_local std::uint64_t current = 0;  // key of the thread's context

std::uint64_t NewKey() {
  static std::atomic<std::uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

CUresult MakeCurrent(const Driver& driver, CUcontext context,
                     std::uint64_t key) {
  if (current == key) return CUDA_SUCCESS;
  const CUresult result = driver.CtxSetCurrent(context);
  if (result == CUDA_SUCCESS) current = key;
  return result;
}

void ForgetCurrent() { current = 0; }

Mark::~Mark() {
  MutexLock lock(&core->events_mu_);
  core->events_[timed ? 1 : 0].push_back(event);
}

ContextCore::ContextCore(const Driver& driver_in, Completer* completer_in,
                         CUcontext context_in, CompletionSink* sink_in)
    : driver(driver_in),
      completer(completer_in),
      sink(sink_in),
      key(NewKey()),
      context(context_in) {}

bool ContextCore::Enter() {
  return context != nullptr && sticky.load(std::memory_order_acquire) == 0 &&
         !EndsContext(MakeCurrent(driver, context, key));
}

MarkPtr ContextCore::NewMark(bool timed, CUresult* result) {
  CUevent event = nullptr;
  {
    MutexLock lock(&events_mu_);
    auto& spare = events_[timed ? 1 : 0];
    if (!spare.empty()) {
      event = spare.back();
      spare.pop_back();
    }
  }
  *result = CUDA_SUCCESS;
  if (event == nullptr) {
    *result = driver.EventCreate(
        &event, timed ? CU_EVENT_DEFAULT : CU_EVENT_DISABLE_TIMING);
  }
  if (*result != CUDA_SUCCESS) return nullptr;
  return std::make_shared<Mark>(shared_from_this(), event, timed);
}

bool ContextCore::EndsContext(CUresult result) {
  if (result == CUDA_SUCCESS || !IsFatal(result)) return false;
  completer->End(this, static_cast<DeviceError>(result));
  return true;
}

Completer::~Completer() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void Completer::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Completer::Add(const std::shared_ptr<ContextCore>& core) {
  MutexLock lock(&mu_);
  cores_.push_back(core);
}

void Completer::End(ContextCore* core, DeviceError error) {
  DeviceError none = 0;
  core->sticky.compare_exchange_strong(none, error);
  MutexLock lock(&mu_);
  changed_.NotifyAll();
}

void Completer::AwaitEnd(ContextCore* core) {
  MutexLock lock(&mu_);
  core->closing = true;
  changed_.NotifyAll();
  while (!core->ended) {
    changed_.WaitFor(&mu_, std::chrono::milliseconds(100));
  }
}

std::shared_ptr<Lane> Completer::NewLane(ContextCore* core) {
  auto lane = std::make_shared<Lane>();
  MutexLock lock(&mu_);
  core->lanes.push_back(lane);
  return lane;
}

void Completer::DropLane(ContextCore* core, Lane* lane) {
  MutexLock lock(&mu_);
  // What it waits for still is to be reported.
  for (Pending& pending : lane->pending) {
    core->loose.push_back(std::move(pending));
  }
  lane->pending.clear();
  std::erase_if(core->lanes,
                [lane](const auto& held) { return held.get() == lane; });
}

void Completer::Submit(ContextCore* core, Lane* lane, Pending pending) {
  MutexLock lock(&mu_);
  pending.order = next_order_++;
  const bool was_idle = !HasWork();
  (lane != nullptr ? lane->pending : core->loose).push_back(std::move(pending));
  if (was_idle) changed_.NotifyAll();
}

void Completer::Retire(ContextCore* core, CUmodule module) {
  MutexLock lock(&mu_);
  if (core->destroyed) return;
  core->retired.push_back(module);
  changed_.NotifyAll();
}

bool Completer::HasPending(const ContextCore& core) {
  return !core.loose.empty() ||
         std::any_of(core.lanes.begin(), core.lanes.end(),
                     [](const auto& lane) { return !lane->pending.empty(); });
}

bool Completer::HasWork() const {
  return std::any_of(cores_.begin(), cores_.end(), [](const auto& core) {
    return HasPending(*core) || !core->retired.empty() || core->closing ||
           (core->sticky.load() != 0 && !core->destroyed);
  });
}

void Completer::Run() {
  Spinner spinner;
  std::uint64_t sleep_ns = 20'000;
  for (;;) {
    std::vector<std::shared_ptr<ContextCore>> cores;
    {
      MutexLock lock(&mu_);
      while (!stopping_ && !HasWork()) changed_.Wait(&mu_);
      if (stopping_) return;
      cores = cores_;
    }
    std::vector<Done> done;
    Pass(&done, kNoLimit);
    if (!done.empty()) {
      // What this work waited for came before it and may have passed between
      // two looks: it is to be reported first.
      std::uint64_t latest = 0;
      for (const Done& d : done) latest = std::max(latest, d.pending.order);
      Pass(&done, latest);
    }
    const bool progress = !done.empty();
    Report(&done);
    for (const auto& core : cores) {
      if (core->sticky.load() != 0) {
        Finish(core);
      } else {
        UnloadRetired(core.get());
      }
    }
    if (progress) {
      spinner = Spinner();
      sleep_ns = 20'000;
    } else if (!spinner.Spin()) {
      SleepNs(sleep_ns);
      sleep_ns = std::min(sleep_ns * 2, kLongestSleepNs);
    }
  }
}

void Completer::Pass(std::vector<Done>* done, std::uint64_t before) {
  std::vector<std::pair<std::shared_ptr<ContextCore>, std::shared_ptr<Lane>>>
      lanes;
  std::vector<std::shared_ptr<ContextCore>> cores;
  {
    MutexLock lock(&mu_);
    for (const auto& core : cores_) {
      if (core->sticky.load() != 0) continue;
      if (!core->loose.empty()) cores.push_back(core);
      for (const auto& lane : core->lanes) {
        if (!lane->pending.empty()) lanes.emplace_back(core, lane);
      }
    }
  }
  for (const auto& [core, lane] : lanes) {
    PassLane(core, lane.get(), done, before);
  }
  for (const auto& core : cores) PassLoose(core, done);
}

// Only this thread takes from lanes, so that their fronts stay where they are;
// DropLane may move all of them to `loose`.
void Completer::PassLane(const std::shared_ptr<ContextCore>& core, Lane* lane,
                         std::vector<Done>* done, std::uint64_t before) {
  for (;;) {
    std::vector<MarkPtr> marks;
    std::uint64_t order = 0;
    {
      MutexLock lock(&mu_);
      if (lane->pending.empty()) return;
      order = lane->pending.front().order;
      if (order >= before) return;
      marks = lane->pending.front().marks;
    }
    if (AllPassed(core.get(), &marks) != Passed::kYes) return;
    MutexLock lock(&mu_);
    if (lane->pending.empty() || lane->pending.front().order != order) return;
    done->push_back({core, std::move(lane->pending.front())});
    lane->pending.pop_front();
  }
}

void Completer::PassLoose(const std::shared_ptr<ContextCore>& core,
                          std::vector<Done>* done) {
  std::vector<std::pair<std::uint64_t, std::vector<MarkPtr>>> waiting;
  {
    MutexLock lock(&mu_);
    for (const Pending& pending : core->loose) {
      waiting.emplace_back(pending.order, pending.marks);
    }
  }
  for (auto& [order, marks] : waiting) {
    const Passed passed = AllPassed(core.get(), &marks);
    if (passed == Passed::kFault) return;
    if (passed == Passed::kNo) continue;
    MutexLock lock(&mu_);
    const auto it = std::find_if(
        core->loose.begin(), core->loose.end(),
        [wanted = order](const Pending& p) { return p.order == wanted; });
    if (it == core->loose.end()) continue;
    done->push_back({core, std::move(*it)});
    core->loose.erase(it);
  }
}

Completer::Passed Completer::AllPassed(ContextCore* core,
                                       std::vector<MarkPtr>* marks) {
  for (const MarkPtr& mark : *marks) {
    if (mark->passed.load(std::memory_order_acquire)) continue;
    CUresult result = core->EnterFromCompleter();
    if (result == CUDA_SUCCESS) result = driver_.EventQuery(mark->event);
    if (result == CUDA_ERROR_NOT_READY) return Passed::kNo;
    if (result != CUDA_SUCCESS) {
      // The text of a failed assertion comes with a call that synchronizes; in
      // a context that has failed it waits for nothing.
      if (core->output.load(std::memory_order_acquire) != nullptr) {
        driver_.EventSynchronize(mark->event);
      }
      // Whether the work was done cannot be known any more.
      if (!core->EndsContext(result)) {
        POS_LOG(kError, "an event cannot be looked at",
                {{"error", driver_.NameOf(result)}});
        End(core, static_cast<DeviceError>(result));
      }
      return Passed::kFault;
    }
    mark->passed.store(true, std::memory_order_release);
  }
  return Passed::kYes;
}

void Completer::FlushOutput(const std::vector<Done>& done) {
  std::vector<const ContextCore*> flushed;
  for (const Done& d : done) {
    ContextCore* const core = d.core.get();
    DriverOutput* const output = core->output.load(std::memory_order_acquire);
    if (output == nullptr || core->printing.load() == 0 ||
        d.pending.marks.empty() ||
        std::find(flushed.begin(), flushed.end(), core) != flushed.end()) {
      continue;
    }
    flushed.push_back(core);
    // The driver writes when something synchronizes. It has passed: no wait.
    CUresult result = core->EnterFromCompleter();
    if (result == CUDA_SUCCESS) {
      result = driver_.EventSynchronize(d.pending.marks.back()->event);
    }
    core->EndsContext(result);
    output->Drain(core->sink);
  }
}

void Completer::Report(std::vector<Done>* done) {
  FlushOutput(*done);
  std::sort(done->begin(), done->end(), [](const Done& a, const Done& b) {
    return a.pending.order < b.pending.order;
  });
  std::vector<const ContextCore*> faulted;
  for (Done& d : *done) {
    ContextCore* const core = d.core.get();
    if (d.pending.fault != 0) {
      End(core, d.pending.fault);
      faulted.push_back(core);
    }
    if (std::find(faulted.begin(), faulted.end(), core) != faulted.end()) {
      // Behind the fault: Finish reports it, with everything else.
      d.pending.copy_to = nullptr;
      MutexLock lock(&mu_);
      core->loose.push_back(std::move(d.pending));
      continue;
    }
    if (d.pending.copy_to != nullptr) {
      std::memcpy(d.pending.copy_to, d.pending.buffer.data(),
                  d.pending.copy_bytes);
    }
    if (d.pending.prints) core->printing.fetch_sub(1);
    if (d.pending.token != 0) {
      core->sink->OnComplete(d.pending.token, d.pending.refused);
    }
  }
}

// Ends what runs, then reports everything that is pending.
void Completer::Finish(const std::shared_ptr<ContextCore>& core) {
  const DeviceError error = core->sticky.load();
  CUcontext context = nullptr;
  {
    MutexLock use(&core->use_mu);
    std::swap(context, core->context);
    if (context != nullptr) {
      const CUresult result = driver_.CtxDestroy(context);
      if (result != CUDA_SUCCESS && !IsFatal(result)) {
        POS_LOG(kWarning, "a context does not end",
                {{"error", driver_.NameOf(result)}});
      }
      DriverOutput* const output = core->output.load(std::memory_order_acquire);
      if (output != nullptr) output->Drain(core->sink);
    }
  }
  std::vector<Pending> all;
  bool closing = false;
  {
    MutexLock lock(&mu_);
    core->destroyed = true;
    // Nothing is submitted any more once this is seen.
    closing = core->closing;
    const auto take = [&all](std::deque<Pending>* from) {
      for (Pending& pending : *from) all.push_back(std::move(pending));
      from->clear();
    };
    take(&core->loose);
    for (const auto& lane : core->lanes) take(&lane->pending);
    core->retired.clear();
  }
  std::sort(all.begin(), all.end(), [](const Pending& a, const Pending& b) {
    return a.order < b.order;
  });
  for (const Pending& pending : all) {
    if (pending.token != 0) core->sink->OnComplete(pending.token, error);
  }
  all.clear();
  if (!closing) return;
  MutexLock lock(&mu_);
  core->ended = true;
  std::erase(cores_, core);
  changed_.NotifyAll();
}

// The driver may wait for the device when it unloads: only while nothing runs.
void Completer::UnloadRetired(ContextCore* core) {
  std::vector<CUmodule> modules;
  {
    MutexLock lock(&mu_);
    if (core->retired.empty() || HasPending(*core)) return;
    modules.swap(core->retired);
  }
  MutexLock use(&core->use_mu);
  if (!core->Enter()) return;
  for (CUmodule const module : modules) {
    core->EndsContext(driver_.ModuleUnload(module));
  }
}

}  // namespace pos::cuda_device
