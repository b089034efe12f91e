#include "pos/runner/stage_thread.h"

#include <pthread.h>

#include <chrono>
#include <utility>

#include "pos/base/backoff.h"

namespace pos {
namespace {

// How long a thread naps when a stage has work that cannot proceed. The queues
// between stages are deep enough to keep the next one busy for longer.
constexpr std::uint64_t kNapNs = 300'000;

}  // namespace

StageThread::StageThread(std::string name, std::vector<Stage*> stages,
                         Parker* parker, std::uint64_t spin_ns)
    : name_(std::move(name)),
      stages_(std::move(stages)),
      parker_(parker),
      spin_ns_(spin_ns) {}

void StageThread::Start() {
  thread_ = std::thread([this] { Run(); });
  ::pthread_setname_np(thread_.native_handle(), name_.substr(0, 15).c_str());
}

void StageThread::Stop() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(&mu_);
    stop_wanted_ = true;
    pause_wanted_ = false;
    request_.store(true, std::memory_order_release);
    changed_.NotifyAll();
    RouseUntil(&ended_);
  }
  thread_.join();
}

void StageThread::RouseUntil(const bool* done) {
  while (!*done) {
    parker_->Rouse();
    changed_.WaitFor(&mu_, std::chrono::milliseconds(kRouseMs));
  }
}

void StageThread::Pause() {
  MutexLock lock(&mu_);
  pause_wanted_ = true;
  request_.store(true, std::memory_order_release);
  RouseUntil(&paused_);
}

void StageThread::Resume() {
  MutexLock lock(&mu_);
  pause_wanted_ = false;
  changed_.NotifyAll();
  while (paused_) changed_.Wait(&mu_);
}

bool StageThread::ObeyRequests() {
  MutexLock lock(&mu_);
  request_.store(false, std::memory_order_relaxed);
  if (pause_wanted_) {
    paused_ = true;
    changed_.NotifyAll();
    while (pause_wanted_) changed_.Wait(&mu_);
    paused_ = false;
    changed_.NotifyAll();
  }
  if (stop_wanted_) {
    ended_ = true;
    changed_.NotifyAll();
  }
  return !stop_wanted_;
}

void StageThread::SleepUnlessWork() {
  parker_->Prepare();
  // Work that came before Prepare was not announced to a sleeper: look again.
  bool progress = request_.load(std::memory_order_acquire);
  for (Stage* stage : stages_) progress = stage->Step() || progress;
  if (progress) {
    parker_->Cancel();
    return;
  }
  bool idle = true;
  for (Stage* stage : stages_) idle = stage->Idle() && idle;
  parker_->Sleep(idle ? 0 : kNapNs);
}

void StageThread::Run() {
  for (;;) {
    Spinner spinner(spin_ns_);
    for (;;) {
      if (request_.load(std::memory_order_acquire)) break;
      bool progress = false;
      for (Stage* stage : stages_) progress = stage->Step() || progress;
      if (progress) {
        spinner = Spinner(spin_ns_);
      } else if (!spinner.Spin()) {
        break;
      }
    }
    if (request_.load(std::memory_order_acquire)) {
      if (!ObeyRequests()) return;
      continue;
    }
    SleepUnlessWork();
  }
}

}  // namespace pos
