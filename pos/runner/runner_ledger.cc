#include "pos/runner/runner_ledger.h"

#include <algorithm>
#include <utility>

namespace pos {

void RunnerLedger::SetSend(Send want, Send give_back) {
  MutexLock lock(&mu_);
  want_ = std::move(want);
  give_back_ = std::move(give_back);
}

void RunnerLedger::SetWake(std::function<void()> wake) {
  MutexLock lock(&mu_);
  wake_ = std::move(wake);
}

void RunnerLedger::SetHeadroom(Headroom headroom) {
  MutexLock lock(&mu_);
  headroom_ = std::move(headroom);
}

void RunnerLedger::SetGranted(int device, std::uint64_t bytes,
                              std::uint64_t used) {
  MutexLock lock(&mu_);
  PerDevice& d = devices_[static_cast<std::size_t>(device)];
  d.granted = bytes;
  d.used = std::min(used, bytes);
}

void RunnerLedger::OnAnswer(int device, std::uint64_t granted,
                            std::uint64_t device_free) {
  std::function<void()> wake;
  {
    MutexLock lock(&mu_);
    if (device < 0 || static_cast<std::size_t>(device) >= devices_.size()) {
      return;
    }
    PerDevice& d = devices_[static_cast<std::size_t>(device)];
    d.granted += granted;
    d.device_free = device_free;
    d.denied = granted == 0;
    d.asked = false;
    wake = wake_;
  }
  if (wake) wake();
}

void RunnerLedger::OnFree(int device, std::uint64_t device_free) {
  std::function<void()> wake;
  {
    MutexLock lock(&mu_);
    if (device < 0 || static_cast<std::size_t>(device) >= devices_.size()) {
      return;
    }
    PerDevice& d = devices_[static_cast<std::size_t>(device)];
    d.device_free = device_free;
    d.fresh = d.refreshing;
    d.refreshing = false;
    wake = wake_;
  }
  if (wake) wake();
}

MemoryLedger::Answer RunnerLedger::Refresh(int device) {
  Send want;
  {
    MutexLock lock(&mu_);
    PerDevice& d = devices_[static_cast<std::size_t>(device)];
    if (d.fresh) {
      d.fresh = false;
      return Answer::kGranted;
    }
    if (d.refreshing) {
      if (MonotonicNs() - d.refreshing_since_ns < kAnswerMs * 1'000'000) {
        return Answer::kPending;
      }
      d.refreshing = false;
      return Answer::kDenied;
    }
    d.refreshing = true;
    d.refreshing_since_ns = MonotonicNs();
    want = want_;
  }
  if (want && want(device, 0)) return Answer::kPending;
  MutexLock lock(&mu_);
  devices_[static_cast<std::size_t>(device)].refreshing = false;
  return Answer::kDenied;
}

void RunnerLedger::SetReclaim(std::function<bool(int device)> reclaim) {
  MutexLock lock(&mu_);
  reclaim_ = std::move(reclaim);
}

MemoryLedger::Answer RunnerLedger::Take(int device, std::uint64_t bytes) {
  Headroom headroom;
  std::uint64_t promised = 0;
  {
    MutexLock lock(&mu_);
    const PerDevice& d = devices_[static_cast<std::size_t>(device)];
    if (d.granted - d.used >= bytes) headroom = headroom_;
    promised = d.used;
  }
  // The device is asked without the lock. Only one thread takes.
  if (headroom && headroom(device, promised) < bytes) {
    MutexLock lock(&mu_);
    return reclaim_ && reclaim_(device) ? Answer::kPending : Answer::kDenied;
  }
  Send want;
  std::uint64_t ask = 0;
  {
    MutexLock lock(&mu_);
    PerDevice& d = devices_[static_cast<std::size_t>(device)];
    if (d.granted - d.used >= bytes) {
      d.used += bytes;
      d.denied = false;
      return Answer::kGranted;
    }
    if (d.denied || d.reclaiming) {
      // What was reclaimed may be enough, or what posd has by then.
      const bool again = d.reclaiming;
      d.denied = false;
      d.reclaiming = reclaim_ && reclaim_(device);
      if (d.reclaiming) return Answer::kPending;
      if (!again) return Answer::kDenied;
    }
    if (d.asked) {
      if (MonotonicNs() - d.asked_at_ns < kAnswerMs * 1'000'000) {
        return Answer::kPending;
      }
      d.asked = false;
      return Answer::kDenied;
    }
    d.asked = true;
    d.asked_at_ns = MonotonicNs();
    ask = bytes - (d.granted - d.used);
    want = want_;
  }
  if (want && want(device, ask)) return Answer::kPending;
  MutexLock lock(&mu_);
  devices_[static_cast<std::size_t>(device)].asked = false;
  return Answer::kDenied;
}

void RunnerLedger::GiveBack(int device, std::uint64_t bytes) {
  Send give_back;
  std::uint64_t surplus = 0;
  {
    MutexLock lock(&mu_);
    PerDevice& d = devices_[static_cast<std::size_t>(device)];
    d.used -= std::min(d.used, bytes);
    const std::uint64_t spare = d.granted - d.used;
    if (spare < 2 * kPiece || !give_back_) return;
    surplus = spare - kPiece;
    d.granted -= surplus;
    d.device_free += surplus;
    give_back = give_back_;
  }
  if (give_back(device, surplus)) return;
  MutexLock lock(&mu_);
  PerDevice& d = devices_[static_cast<std::size_t>(device)];
  d.granted += surplus;
  d.device_free -= std::min(d.device_free, surplus);
}

std::uint64_t RunnerLedger::FreeBytes(int device) const {
  Headroom headroom;
  std::uint64_t promised = 0;
  std::uint64_t free_bytes = 0;
  {
    MutexLock lock(&mu_);
    const PerDevice& d = devices_[static_cast<std::size_t>(device)];
    headroom = headroom_;
    promised = d.used;
    free_bytes = d.device_free + d.granted - d.used;
  }
  return headroom ? std::min(free_bytes, headroom(device, promised))
                  : free_bytes;
}

std::uint64_t RunnerLedger::Used(int device) const {
  MutexLock lock(&mu_);
  return devices_[static_cast<std::size_t>(device)].used;
}

std::uint64_t RunnerLedger::Granted(int device) const {
  MutexLock lock(&mu_);
  return devices_[static_cast<std::size_t>(device)].granted;
}

}  // namespace pos
