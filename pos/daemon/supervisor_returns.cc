// Detached clients: told to come back, waited for, or found to have ended.
#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/process.h"
#include "pos/daemon/supervisor.h"

namespace pos {
namespace {

constexpr std::uint64_t kReturnMs = 60'000;
// How often it is looked whether those who are waited for still live.
constexpr std::uint64_t kReturnSliceMs = 50;

}  // namespace

// A process that has nothing left to ask of the device may end while it is
// detached: that is no failure, of a checkpoint or of a restore.
Status Supervisor::BringBack(const JobPtr& job,
                             std::span<const JobSession> sessions,
                             std::uint32_t epoch, ReturnTimes* times) {
  job->ForgetReturns();
  const auto ended = [&](const JobSession& session) {
    return !job->record().alive() ||
           !ProcessRuns(job, static_cast<pid_t>(session.record.client_ns_pid));
  };
  std::vector<const JobSession*> waited;
  for (const JobSession& session : sessions) {
    const Status status = WriteVerdict(job, session, epoch);
    if (status.ok()) {
      waited.push_back(&session);
    } else if (!ended(session)) {
      return status;
    }
  }
  const Deadline until = Deadline::AfterMs(kReturnMs);
  for (;;) {
    const Job::Returns returns =
        job->WaitReturned(sessions.size(), Deadline::AfterMs(kReturnSliceMs));
    for (const auto& [session, at_ns] : returns) {
      if (times->first_ns == 0 || at_ns < times->first_ns) {
        times->first_ns = at_ns;
      }
      times->last_ns = std::max(times->last_ns, at_ns);
    }
    std::erase_if(waited, [&](const JobSession* session) {
      return returns.contains(session->record.session);
    });
    if (waited.empty()) break;
    // Nobody new for a while: are they still there?
    std::erase_if(waited,
                  [&](const JobSession* session) { return ended(*session); });
    if (waited.empty()) break;
    if (until.Passed()) {
      return Timeout("process " +
                     std::to_string(waited[0]->record.client_ns_pid) +
                     " of the job did not come back to its session");
    }
  }
  if (times->first_ns == 0) times->first_ns = times->last_ns = MonotonicNs();
  return {};
}

bool Supervisor::ProcessRuns(const JobPtr& job, pid_t ns_pid) {
  std::vector<pid_t> todo = {job->record().init_pid};
  while (!todo.empty()) {
    const pid_t parent = todo.back();
    todo.pop_back();
    const Result<std::vector<pid_t>> children = ChildrenOf(parent);
    if (!children.ok()) continue;
    for (const pid_t pid : *children) {
      todo.push_back(pid);
      const Result<pid_t> inside = InnermostPid(pid);
      if (!inside.ok() || *inside != ns_pid) continue;
      const Result<UniqueFd> process = OpenPidFd(pid);
      return process.ok() && !PidFdEnded(process->get());
    }
  }
  return false;
}

void Supervisor::EndSession(const JobPtr& job, std::uint64_t number) {
  const std::optional<JobSession> removed = job->RemoveSession(number);
  if (!removed) return;
  if (removed->runner != nullptr) runners_->End(removed->runner);
  RemoveFile(removed->record.host_file).IgnoreError();
}

void Supervisor::EndSessionsWithoutProcess(const JobPtr& job) {
  for (const JobSession& session : job->sessions()) {
    if (!session.ready || session.record.client_ns_pid == 0) continue;
    if (ProcessRuns(job, static_cast<pid_t>(session.record.client_ns_pid))) {
      continue;
    }
    EndSession(job, session.record.session);
  }
}

}  // namespace pos
