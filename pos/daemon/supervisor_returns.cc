// Detached clients: told to come back, waited for, or found to have ended.
#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/base/process.h"
#include "pos/daemon/supervisor.h"

namespace pos {
namespace {

constexpr std::uint64_t kReturnMs = 60'000;
// How often it is looked whether those who are waited for still live.
constexpr std::uint64_t kReturnSliceMs = 50;
// A session that is gone while its process still runs: the process is just
// ending, or the runner has died, which this tells from that.
constexpr std::uint64_t kGoneNs = 1'000'000'000;
// pos-job writes the word at once unless it is being replaced or is ending.
constexpr int kLateTries = 3;
constexpr std::uint64_t kLatePauseNs = 100'000'000;

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
  const auto lost = [&](const JobSession* session) {
    const std::vector<JobSession> left = job->sessions();
    return std::none_of(left.begin(), left.end(), [&](const JobSession& s) {
      return s.record.session == session->record.session;
    });
  };
  const Deadline until = Deadline::AfterMs(kReturnMs);
  std::uint64_t gone_since_ns = 0;
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
    const auto without = std::find_if(waited.begin(), waited.end(), lost);
    if (without == waited.end()) {
      gone_since_ns = 0;
    } else if (gone_since_ns == 0) {
      gone_since_ns = MonotonicNs();
    } else if (MonotonicNs() - gone_since_ns >= kGoneNs) {
      // It was told so when it came, and will not come again.
      return Status(Code::kDeviceGone,
                    "the runner of process " +
                        std::to_string((*without)->record.client_ns_pid) +
                        " of the job has ended");
    }
    if (until.Passed()) {
      return Timeout("process " +
                     std::to_string(waited[0]->record.client_ns_pid) +
                     " of the job did not come back to its session");
    }
  }
  if (times->first_ns == 0) times->first_ns = times->last_ns = MonotonicNs();
  return {};
}

void Supervisor::AnswerLate(const JobPtr& job, const JobSession& session,
                            std::uint32_t epoch) {
  Status status;
  for (int i = 0; i < kLateTries; ++i) {
    status = WriteVerdict(job, session, epoch);
    if (status.ok() || !job->record().alive()) break;
    SleepNs(kLatePauseNs);
  }
  if (status.ok()) {
    POS_LOG(kInfo, "a client that detached late was called back",
            {{"job", job->name()}, {"session", session.record.session}});
  } else {
    POS_LOG(kError, "a client that detached late could not be called back",
            {{"job", job->name()}, {"why", status.ToString()}});
  }
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
  DropPinIfLoaded(job);
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
