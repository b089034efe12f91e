// Lazy restores after their job was admitted: what still loads, and the pin
// that keeps the image's data meanwhile.
#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/log.h"
#include "pos/daemon/restore.h"
#include "pos/daemon/supervisor.h"

namespace pos {
namespace {

constexpr std::uint64_t kStateMs = 10'000;
constexpr std::uint64_t kPollNs = 50'000'000;
// Without a byte more for this long, nobody waits any longer.
constexpr std::uint64_t kStallMs = 600'000;

}  // namespace

void Supervisor::OnSessionLoaded(const JobPtr& job, std::uint64_t number,
                                 std::uint64_t at_ns) {
  job->NoteLoaded(at_ns);
  job->UpdateSession(number, [](JobSession* s) { s->loading = false; });
  DropPinIfLoaded(job);
}

void Supervisor::DropPinIfLoaded(const JobPtr& job) {
  DropPin(job, job->TakePinIfLoaded());
}

void Supervisor::DropPin(const JobPtr& job, const std::string& pin) {
  if (pin.empty()) return;
  const Status status = store_->Drop(pin);
  if (!status.ok() && status.code() != Code::kNoSuch) {
    POS_LOG(kWarning, "a pin stays until posd is started again",
            {{"job", job->name()}, {"why", status.ToString()}});
  }
  job->Journal().IgnoreError();
}

void Supervisor::SweepPins() {
  std::vector<JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    for (const auto& [name, job] : jobs_) jobs.push_back(job);
  }
  std::set<std::string> known;
  for (const JobPtr& job : jobs) {
    // What a runner said before its session was known here is lost: ask again.
    LoadProgress progress;
    PollLoading(job, &progress);
    DropPinIfLoaded(job);
    known.insert(job->record().pin);
  }
  for (const ckpt::PinInfo& pin : store_->Pins()) {
    if (pin.pin.empty() || known.contains(pin.pin)) continue;
    {
      MutexLock lock(&mu_);
      if (unreadable_.contains(pin.holder)) continue;
    }
    POS_LOG(kInfo, "a pin of no job is dropped",
            {{"pin", pin.pin}, {"image", pin.image}});
    store_->Drop(pin.pin).IgnoreError();
  }
}

bool Supervisor::PollLoading(const JobPtr& job, LoadProgress* progress) {
  bool loading = false;
  for (const JobSession& session : job->sessions()) {
    loading = loading || session.silent;
    if (!session.loading || session.runner == nullptr) continue;
    runner::ToRunner ping;
    ping.mutable_ping();
    const auto reply = session.runner->Call(ping, {}, kStateMs);
    // A runner that is gone takes its session along in a moment.
    loading = true;
    if (!reply.ok()) continue;
    const runner::State& state = reply->body.state();
    auto& [done, total] = progress->sessions[session.record.session];
    if (state.loading()) {
      done = state.loaded_bytes();
      total = state.load_bytes();
    } else {
      done = total;
      OnSessionLoaded(job, session.record.session, MonotonicNs());
    }
  }
  return loading;
}

Status Supervisor::WaitLoaded(const JobPtr& job, const OnLoadProgress& report) {
  LoadProgress progress;
  std::uint64_t latest = 0;
  Deadline stalled = Deadline::AfterMs(kStallMs);
  while (PollLoading(job, &progress)) {
    std::uint64_t done = 0;
    std::uint64_t total = 0;
    for (const auto& [number, bytes] : progress.sessions) {
      done += bytes.first;
      total += bytes.second;
    }
    POS_RETURN_IF_ERROR(report(done, total));
    if (leaving_soon_.load()) return Aborted("posd is ending");
    if (done != latest) stalled = Deadline::AfterMs(kStallMs);
    latest = done;
    if (stalled.Passed()) {
      return Timeout(
          "loading the job's memory does not get on: " + std::to_string(done) +
          " of " + std::to_string(total) + " bytes are there");
    }
    job->WaitLoadChange(Deadline::AfterMs(kPollNs / 1'000'000));
  }
  return job->load_error();
}

Status RestoreRun::WaitLoaded() {
  const Status status = supervisor_->WaitLoaded(
      job_, [this](std::uint64_t done, std::uint64_t total) {
        if (Report("load", done, total).ok()) return Status();
        return Status(Code::kAborted,
                      "no longer waiting for the rest of the memory",
                      "job " + job_->name() + " runs, and goes on loading");
      });
  loaded_ns_ = job_->loaded_ns() != 0 ? job_->loaded_ns() : MonotonicNs();
  return status.WithContext("image " + request_.image());
}

}  // namespace pos
