#include "pos/daemon/hold_keeper.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "pos/base/clock.h"
#include "pos/base/log.h"

namespace pos {
namespace {

// Three of these may come to nothing before the hold ends.
constexpr std::uint64_t kBeatsPerHold = 4;

}  // namespace

void HoldKeeper::Start(std::uint64_t hold_ms, Extend extend) {
  Stop();
  {
    MutexLock lock(&mu_);
    stop_ = false;
    lost_ = {};
  }
  hold_ms_ = hold_ms;
  extend_ = std::move(extend);
  thread_ = std::thread([this] { Run(); });
}

void HoldKeeper::Stop() {
  {
    MutexLock lock(&mu_);
    stop_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

Status HoldKeeper::lost() const {
  MutexLock lock(&mu_);
  return lost_;
}

Status HoldKeeper::Check() {
  POS_RETURN_IF_ERROR(lost());
  return Ask();
}

Status HoldKeeper::Ask() {
  const Status status = extend_(hold_ms_);
  if (status.code() != Code::kNotReady && status.code() != Code::kNoSuch &&
      status.code() != Code::kClosed) {
    return status;
  }
  MutexLock lock(&mu_);
  lost_ = Timeout(
      "the job's processes were let go before the work on them was "
      "done: " +
      status.message());
  return lost_;
}

void HoldKeeper::Run() {
  const std::uint64_t beat_ms =
      std::max<std::uint64_t>(hold_ms_ / kBeatsPerHold, 1);
  for (;;) {
    {
      const Deadline next = Deadline::AfterMs(beat_ms);
      MutexLock lock(&mu_);
      while (!stop_ && !next.Passed()) {
        changed_.WaitFor(&mu_, std::chrono::nanoseconds(next.LeftNs()));
      }
      if (stop_ || !lost_.ok()) return;
    }
    const Status status = Ask();
    if (!status.ok() && lost().ok()) {
      POS_LOG(kWarning, "a hold could not be extended",
              {{"why", status.ToString()}});
    }
  }
}

}  // namespace pos
