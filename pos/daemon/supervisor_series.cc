// Periodic checkpoints. What is to be done when is part of a job's record, so
// the next posd goes on with it. One thread waits for the next time; the
// checkpoints run on a pool of their own: attaches, which a checkpoint waits
// for, must not wait for checkpoints.
#include <algorithm>
#include <array>
#include <chrono>

#include "pos/base/bytes.h"
#include "pos/base/log.h"
#include "pos/daemon/checkpoint.h"
#include "pos/daemon/supervisor.h"

namespace pos {
namespace {

constexpr std::size_t kSeriesThreads = 2;
constexpr std::uint64_t kLeastEveryMs = 100;
constexpr std::uint64_t kLookAgainMs = 60'000;
constexpr std::array<const char*, 5> kModes = {"", "auto", "stop", "cow",
                                               "recopy"};

std::string NewSeries() {
  std::array<std::byte, 8> random{};
  RandomBytes(random);
  return "s" + HexBytes(random);
}

// Whether nobody has changed what is to be done since.
bool SameSeries(const JobRecord& a, const JobRecord& b) {
  return a.series == b.series && a.series_every_ms == b.series_every_ms &&
         a.series_keep == b.series_keep && a.series_mode == b.series_mode;
}

void PutSeriesBack(const JobRecord& from, JobRecord* to) {
  to->series = from.series;
  to->series_every_ms = from.series_every_ms;
  to->series_keep = from.series_keep;
  to->series_mode = from.series_mode;
  to->series_next_at = from.series_next_at;
  to->series_last_image = from.series_last_image;
  to->series_last_error = from.series_last_error;
}

}  // namespace

Status Supervisor::SetSeries(const Caller& caller,
                             const v1::SetSeriesRequest& request) {
  POS_ASSIGN_OR_RETURN(const JobPtr job, FindJob(caller, request.job()));
  if (!job->record().alive()) {
    return NotReady("job " + job->name() + " has ended");
  }
  const std::uint64_t every_ms = request.every_ms();
  if (every_ms != 0 && every_ms < kLeastEveryMs) {
    return Invalid(
        "a checkpoint every " + std::to_string(every_ms) + " ms",
        "at most one every " + std::to_string(kLeastEveryMs) + " ms");
  }
  if (std::find(kModes.begin(), kModes.end(), request.mode()) == kModes.end()) {
    return Invalid("there is no checkpoint mode '" + request.mode() + "'");
  }
  JobRecord before;
  JobRecord set;
  job->Update([&](JobRecord* r) {
    before = *r;
    if (every_ms == 0) {
      r->series.clear();
    } else if (r->series.empty()) {
      r->series = NewSeries();
      r->series_last_image.clear();
    }
    r->series_every_ms = every_ms;
    r->series_keep = request.keep();
    r->series_mode = request.mode();
    r->series_next_at = every_ms == 0 ? 0 : WallClockMs() + every_ms;
    r->series_last_error.clear();
    set = *r;
  });
  // What the next posd would not know of is not promised; what was promised
  // before still is.
  if (const Status status = job->Journal(); !status.ok()) {
    job->Update([&](JobRecord* r) {
      if (SameSeries(*r, set)) PutSeriesBack(before, r);
    });
    return status;
  }
  POS_LOG(
      kInfo,
      every_ms == 0 ? "no more periodic checkpoints" : "periodic checkpoints",
      {{"job", job->name()}, {"every_ms", every_ms}});
  MutexLock lock(&mu_);
  series_changed_ = true;
  series_wake_.NotifyAll();
  return {};
}

void Supervisor::StartSeries() {
  series_tasks_ = std::make_unique<TaskPool>(kSeriesThreads);
  series_thread_ = std::thread([this] { RunSeries(); });
}

void Supervisor::StopSeries() {
  leaving_soon_.store(true);  // gives up what is under way
  {
    MutexLock lock(&mu_);
    series_stop_ = true;
    series_wake_.NotifyAll();
  }
  if (series_thread_.joinable()) series_thread_.join();
  if (series_tasks_ != nullptr) series_tasks_->Stop();
}

void Supervisor::RunSeries() {
  for (;;) {
    const std::uint64_t wait_ms = BeginDueSeries();
    const Deadline until = Deadline::AfterMs(wait_ms);
    MutexLock lock(&mu_);
    while (!series_stop_ && !series_changed_ && !until.Passed()) {
      series_wake_.WaitFor(&mu_, std::chrono::nanoseconds(until.LeftNs()));
    }
    if (series_stop_) return;
    series_changed_ = false;
  }
}

std::uint64_t Supervisor::BeginDueSeries() {
  std::vector<JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    for (const auto& [name, job] : jobs_) jobs.push_back(job);
  }
  std::uint64_t wait_ms = kLookAgainMs;
  for (const JobPtr& job : jobs) {
    const JobRecord record = job->record();
    if (!record.alive() || record.series_every_ms == 0) continue;
    const std::uint64_t now = WallClockMs();
    // A clock that was set back does not put checkpoints off.
    const std::uint64_t at =
        std::min(record.series_next_at, now + record.series_every_ms);
    if (at > now) {
      wait_ms = std::min(wait_ms, at - now);
      continue;
    }
    job->Update([now](JobRecord* r) {
      if (r->series_every_ms != 0) r->series_next_at = now + r->series_every_ms;
    });
    wait_ms = std::min(wait_ms, record.series_every_ms);
    {
      MutexLock lock(&mu_);
      // One that takes longer than the period is not begun twice.
      if (!series_running_.insert(job->name()).second) continue;
    }
    const bool posted = series_tasks_->Post([this, job] {
      CheckpointOfSeries(job);
      MutexLock lock(&mu_);
      series_running_.erase(job->name());
    });
    if (posted) continue;
    MutexLock lock(&mu_);
    series_running_.erase(job->name());
  }
  return wait_ms;
}

void Supervisor::CheckpointOfSeries(const JobPtr& job) {
  const JobRecord record = job->record();
  if (!record.alive() || record.series_every_ms == 0) return;
  if (leaving_soon_.load()) return;
  v1::CheckpointRequest request;
  request.set_job(job->name());
  request.set_mode(record.series_mode);
  CheckpointRun run(this, job, request, [this](const v1::Progress&) {
    return !leaving_soon_.load();
  });
  run.SetSeries(record.series);
  const Result<v1::CheckpointResult> result = run.Run();
  // A job that ends meanwhile is no failure of the series.
  if (!result.ok() && (!job->record().alive() || leaving_soon_.load())) return;
  // What is kept is what is asked for now, of the series that there is now.
  std::uint32_t keep = 0;
  job->Update([&](JobRecord* r) {
    if (r->series != record.series) return;  // ended, or begun anew
    keep = r->series_keep;
    if (result.ok()) r->series_last_image = result->image();
    r->series_last_error = result.ok() ? "" : result.status().ToString();
  });
  if (!result.ok()) {
    POS_LOG(kWarning, "a periodic checkpoint failed; the next one comes",
            {{"job", job->name()}, {"why", result.status().ToString()}});
    return;
  }
  if (keep == 0) return;
  const Result<std::vector<std::string>> removed =
      store_->ExpireSeries(record.uid, record.series, keep);
  if (!removed.ok()) {
    POS_LOG(kWarning, "older images of a series could not be removed",
            {{"job", job->name()}, {"why", removed.status().ToString()}});
  } else if (!removed->empty()) {
    CollectGarbage();
  }
}

}  // namespace pos
