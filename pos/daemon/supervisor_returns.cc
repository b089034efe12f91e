// Detached clients: told to come back, waited for, or found to have ended.
#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/fd.h"
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
// pos-job writes the word at once, unless much else goes on; and not into a
// process that is just ending, which shows in a moment.
constexpr std::uint64_t kCallBackMs = 5'000;  // after all were tried once
constexpr std::uint64_t kCallBackPauseNs = 50'000'000;

}  // namespace

// A process that has nothing left to ask of the device may end while it is
// detached: that is no failure, of a checkpoint or of a restore.
Status Supervisor::BringBack(const JobPtr& job,
                             std::span<const JobSession> sessions,
                             std::uint32_t epoch, ReturnTimes* times) {
  job->ForgetReturns();
  Called called = CallBack(job, sessions, epoch);
  std::vector<const JobSession*>& waited = called.told;
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
    std::erase_if(waited, [&](const JobSession* session) {
      return !ProcessRuns(job, session->record);
    });
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
  return called.status;
}

Supervisor::Called Supervisor::CallBack(const JobPtr& job,
                                        std::span<const JobSession> sessions,
                                        std::uint32_t epoch) {
  Called called;
  std::vector<const JobSession*> left;
  for (const JobSession& session : sessions) left.push_back(&session);
  std::optional<Deadline> until;
  while (!left.empty() && !(until && until->Passed())) {
    if (until) SleepNs(kCallBackPauseNs);
    called.status = {};
    std::vector<const JobSession*> again;
    for (const JobSession* const session : left) {
      Status status = WriteVerdict(job, *session, epoch);
      if (status.ok()) {
        called.told.push_back(session);
      } else if (ProcessRuns(job, session->record)) {
        if (!until) {
          POS_LOG(kWarning, "a client is called back once more",
                  {{"job", job->name()},
                   {"session", session->record.session},
                   {"why", status.ToString()}});
        }
        again.push_back(session);
        called.status = std::move(status);
      }
    }
    left = std::move(again);
    if (!until) until = Deadline::AfterMs(kCallBackMs);
  }
  for (const JobSession* const session : left) {
    POS_LOG(kError, "a client could not be called back",
            {{"job", job->name()},
             {"session", session->record.session},
             {"why", called.status.ToString()}});
  }
  return called;
}

void Supervisor::AnswerLate(const JobPtr& job, const JobSession& session,
                            std::uint32_t epoch) {
  if (CallBack(job, {&session, 1}, epoch).told.empty()) return;
  POS_LOG(kInfo, "a client that detached late was called back",
          {{"job", job->name()}, {"session", session.record.session}});
}

bool Supervisor::ProcessRuns(const JobPtr& job,
                             const SessionRecordEntry& session) {
  const JobRecord record = job->record();
  if (!record.alive()) return false;
  const Result<std::uint64_t> inside = NamespaceInode(record.init_pid, "pid");
  if (!inside.ok()) return inside.status().code() != Code::kNoSuch;
  const auto runs = [&](pid_t pid) {
    const Result<UniqueFd> process = OpenPidFd(pid);
    const Result<std::uint64_t> space = NamespaceInode(pid, "pid");
    const Result<pid_t> ns_pid = InnermostPid(pid);
    return process.ok() && space.ok() && ns_pid.ok() && *space == *inside &&
           static_cast<std::uint64_t>(*ns_pid) == session.client_ns_pid &&
           !PidFdEnded(process->get());
  };
  // As it came to the attach socket; 0 in a restored job, until it has come.
  if (session.client_pid > 0 && runs(session.client_pid)) return true;
  const Result<pid_t> found =
      FindProcess(*inside, static_cast<pid_t>(session.client_ns_pid));
  return found.ok() ? runs(*found) : found.status().code() != Code::kNoSuch;
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
    if (ProcessRuns(job, session.record)) continue;
    EndSession(job, session.record.session);
  }
}

}  // namespace pos
