// Runners that are kept warm, and devices that fail.
#include <algorithm>
#include <chrono>
#include <utility>

#include "pos/base/clock.h"
#include "pos/base/log.h"
#include "pos/daemon/runner_pool.h"

namespace pos {

void RunnerPool::KeepWarm() {
  MutexLock lock(&mu_);
  if (closed_ || filling_ || warm_.size() >= options_.warm) return;
  filling_ = true;
  if (filler_.joinable()) filler_.join();  // it has returned
  filler_ = std::thread([this] { FillWarm(); });
}

void RunnerPool::FillWarm() {
  for (;;) {
    const std::shared_ptr<const DeviceSnapshot> snapshot = devices_->snapshot();
    const auto device =
        std::find_if(snapshot->devices.begin(), snapshot->devices.end(),
                     [](const NodeDevice& d) { return d.state == "ready"; });
    {
      MutexLock lock(&mu_);
      // Without a device: TryFailedDevices comes when one works again.
      if (closed_ || warm_.size() >= options_.warm ||
          device == snapshot->devices.end()) {
        filling_ = false;
        return;
      }
    }
    Result<std::shared_ptr<Runner>> runner = StartRunner({device->ordinal});
    MutexLock lock(&mu_);
    if (!runner.ok()) {
      POS_LOG(kError, "cannot keep a runner warm",
              {{"why", runner.status().ToString()}});
      FillWarmLater();
      filling_ = false;
      return;
    }
    if ((*runner)->gone()) {  // OnGone did not find it
      FillWarmLater();
      filling_ = false;
      return;
    }
    warm_.push_back(std::move(*runner));
  }
}

void RunnerPool::FillWarmLater() {
  if (refill_due_ || closed_) return;
  refill_due_ = true;
  loop_->After(refill_ms_, [this] {
    {
      MutexLock lock(&mu_);
      refill_due_ = false;
    }
    KeepWarm();
  });
  refill_ms_ = std::min(2 * refill_ms_, kRefillMostMs);
}

bool RunnerPool::IsBeingKilled(int device) {
  MutexLock lock(&mu_);
  return std::any_of(killed_.begin(), killed_.end(),
                     [device](const std::shared_ptr<Runner>& r) {
                       return r->opening_.load() == device;
                     });
}

void RunnerPool::NoteFailure(const Runner& runner, std::vector<int> failed,
                             const Status& status) {
  switch (status.code()) {
    case Code::kDeviceGone:
    case Code::kInternal:
    case Code::kNoSuch:
      break;
    case Code::kTimeout:
      failed = {runner.opening_.load()};
      break;
    default:  // full, not as configured, or somebody has killed the runner
      return;
  }
  bool any = false;
  for (const NodeDevice& device : devices_->snapshot()->devices) {
    if (device.kind != "cuda" || std::find(failed.begin(), failed.end(),
                                           device.ordinal) == failed.end()) {
      continue;
    }
    if (device.state != "failed") {
      POS_LOG(kError, "a device does not work",
              {{"device", device.ordinal}, {"why", status.message()}});
    }
    devices_->SetWorks(device.ordinal, status.message());
    any = true;
  }
  MutexLock lock(&mu_);
  if (!any || closed_ || trying_) return;
  trying_ = true;
  if (trier_.joinable()) trier_.join();  // it has returned
  trier_ = std::thread([this] { TryFailedDevices(); });
}

void RunnerPool::TryFailedDevices() {
  for (;;) {
    {
      MutexLock lock(&mu_);
      const Deadline until = Deadline::AfterMs(options_.try_again_ms);
      while (!closed_ && !until.Passed()) {
        changed_.WaitFor(&mu_, std::chrono::nanoseconds(until.LeftNs()));
      }
    }
    bool left = false;
    for (const NodeDevice& device : devices_->snapshot()->devices) {
      if (device.state != "failed") continue;
      {
        MutexLock lock(&mu_);
        if (closed_) break;
      }
      // One that does not end although it was killed hangs in the driver, and
      // the next would, too.
      if (IsBeingKilled(device.ordinal)) {
        left = true;
        continue;
      }
      const Result<std::shared_ptr<Runner>> runner =
          StartRunner({device.ordinal});
      if (!runner.ok()) {
        left = true;
        continue;
      }
      POS_LOG(kInfo, "a device works again", {{"device", device.ordinal}});
      devices_->SetWorks(device.ordinal, "");
      End(*runner);
      KeepWarm();
    }
    MutexLock lock(&mu_);
    if (left && !closed_) continue;
    trying_ = false;
    return;
  }
}

}  // namespace pos
