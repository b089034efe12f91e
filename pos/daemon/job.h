// A job as posd sees it: its record, its pos-job, its sessions.
//
// Threads: any. Fields behind the lock are read and changed through methods;
//   the lock is never held across a call to another process or a write to disk,
//   except the journal's: Update writes the record before it returns, in order.
// Operations: one checkpoint, restore or stop at a time (TryBegin).
#ifndef POS_DAEMON_JOB_H_
#define POS_DAEMON_JOB_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/daemon/job_record.h"
#include "pos/daemon/runner_pool.h"
#include "pos/job/client.h"
#include "pos/job/job.pb.h"

namespace pos {

// A session and the runner that serves it.
struct JobSession {
  SessionRecordEntry record;
  std::shared_ptr<Runner> runner;
  bool ready = false;    // its client has mapped everything
  bool loading = false;  // its runner still loads memory of an image
  // Its runner was left behind by an earlier posd and has not said yet how it
  // is: `ready` and `loading` are not known.
  bool silent = false;
};

class Job {
 public:
  // `directory`: DIR/jobs/NAME.
  Job(JobRecord record, std::string directory);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] uid_t uid() const { return uid_; }
  [[nodiscard]] std::string LogPath() const;

  [[nodiscard]] JobRecord record() const POS_EXCLUDES(mu_);
  // Changes the record and writes the journal. A journal that cannot be written
  // is logged, and the change holds: the job is more important than its
  // journal, and the next change tries again.
  // Writes the record down. What follows from it must not happen when that
  // fails; Update and the like only log it, and the next change tries again.
  Status Journal() POS_EXCLUDES(mu_, journal_mu_);
  void Update(const std::function<void(JobRecord*)>& change)
      POS_EXCLUDES(mu_, journal_mu_);

  // The directory goes, or belongs to another job now: from here on nothing is
  // written there.
  void Retire() POS_EXCLUDES(journal_mu_);

  // Sessions.
  [[nodiscard]] std::vector<JobSession> sessions() const POS_EXCLUDES(mu_);
  // Not OK: it is added, but a later posd would not know of it.
  Status AddSession(JobSession session) POS_EXCLUDES(mu_, journal_mu_);
  // In the place of those that are known: what a journal named.
  void SetSessions(std::vector<JobSession> sessions)
      POS_EXCLUDES(mu_, journal_mu_);
  // Changes the session with that number; no effect when there is none.
  void UpdateSession(std::uint64_t number,
                     const std::function<void(JobSession*)>& change)
      POS_EXCLUDES(mu_, journal_mu_);
  // Takes it out and returns it.
  std::optional<JobSession> RemoveSession(std::uint64_t number)
      POS_EXCLUDES(mu_, journal_mu_);
  // The session that `runner` serves.
  std::optional<JobSession> SessionOf(const Runner* runner) const
      POS_EXCLUDES(mu_);

  // pos-job.
  void SetClient(std::unique_ptr<job::JobClient> client) POS_EXCLUDES(mu_);
  // Its events may come before it is set.
  [[nodiscard]] bool has_client() const POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    return client_ != nullptr;
  }
  // A request and its answer (pos/job/client.h). Not from its handlers.
  Result<job::Reply> Call(const job::ToJob& request, std::span<const int> fds,
                          std::uint64_t timeout_ms, UniqueFd* opened = nullptr,
                          const std::atomic<bool>* given_up = nullptr)
      POS_EXCLUDES(mu_);
  // A stopped tree stays stopped for `ms` from now on, whatever was said
  // before.
  Status ExtendHold(std::uint64_t ms) POS_EXCLUDES(mu_);
  // The end of the job is on record here: pos-job may go.
  void AckExit() POS_EXCLUDES(mu_);
  // Tells a tree that a dump has stopped, or will stop, to go on or to end;
  // waits for CRIU to come so far. No dump, no error.
  Status LetGo(job::Verdict::Kind kind, std::uint64_t limit_ms)
      POS_EXCLUDES(mu_);
  void OnEvent(const job::Event& event) POS_EXCLUDES(mu_, journal_mu_);
  // Its connection ended without the job's end having been reported.
  void OnLost(const std::string& why) POS_EXCLUDES(mu_, journal_mu_);

  // Waits. False when `until` passed or `cancelled` returned true before.
  bool WaitEnded(const Deadline& until, const std::function<bool()>& cancelled)
      POS_EXCLUDES(mu_);
  // Until the program runs or cannot be started.
  Status WaitStarted(const Deadline& until) POS_EXCLUDES(mu_);
  // Before a dump: an earlier one may have been given up before it froze.
  void ForgetFrozen() POS_EXCLUDES(mu_);
  // Until the tree is frozen by the dump that is under way, or `gave_up`.
  bool WaitFrozen(const Deadline& until, const std::function<bool()>& gave_up)
      POS_EXCLUDES(mu_);
  bool WaitRestoreHeld(const Deadline& until,
                       const std::function<bool()>& gave_up) POS_EXCLUDES(mu_);
  // Sessions that have come back since ForgetReturns, and when
  // (CLOCK_MONOTONIC).
  using Returns = std::map<std::uint64_t, std::uint64_t>;
  // Until there are `count` of them, or the job has ended.
  Returns WaitReturned(std::size_t count, const Deadline& until)
      POS_EXCLUDES(mu_);
  void ForgetReturns() POS_EXCLUDES(mu_);
  void NoteReturn(std::uint64_t session, std::uint64_t at_ns) POS_EXCLUDES(mu_);

  // A client that was asked to detach waits for a verdict, or will, until it is
  // known to be back or to have stayed. If its runner ends before that,
  // somebody has to write one. In memory alone: a later posd asks the runners.
  void NoteLeaving(std::uint64_t session, std::uint32_t epoch)
      POS_EXCLUDES(mu_);
  // Forgets it; its epoch, if it was noted.
  std::optional<std::uint32_t> TakeLeaving(std::uint64_t session)
      POS_EXCLUDES(mu_);

  // What its checkpoints have shown so far, under this posd.
  struct CopyHistory {
    bool unforeseen = false;  // it writes what its calls do not name
    bool too_fast = false;    // recopy did not converge
  };
  [[nodiscard]] CopyHistory copy_history() const POS_EXCLUDES(mu_);
  void NoteUnforeseen() POS_EXCLUDES(mu_);
  void NoteTooFast() POS_EXCLUDES(mu_);
  // Lazy restores. The pin, which is no longer the record's, unless a session
  // still loads; the caller writes the journal.
  std::string TakePinIfLoaded() POS_EXCLUDES(mu_);
  std::string TakePin() POS_EXCLUDES(mu_);
  void NoteLoaded(std::uint64_t at_ns) POS_EXCLUDES(mu_);
  void NoteLoadError(Status status) POS_EXCLUDES(mu_);
  // When the last session was loaded; 0: not yet.
  [[nodiscard]] std::uint64_t loaded_ns() const POS_EXCLUDES(mu_);
  [[nodiscard]] Status load_error() const POS_EXCLUDES(mu_);
  // Until the runners of all sessions have said how they are, or the job has
  // ended. False when `until` passed or `cancelled` returned true before.
  bool WaitAnswered(const Deadline& until,
                    const std::function<bool()>& cancelled) POS_EXCLUDES(mu_);
  // Until no session loads, or `until`.
  void WaitLoadChange(const Deadline& until) POS_EXCLUDES(mu_);

  // One operation at a time. `what` is shown to who comes second.
  Status TryBegin(const std::string& what) POS_EXCLUDES(mu_);
  void End() POS_EXCLUDES(mu_);
  // Whether an operation is under way during which no process may attach.
  [[nodiscard]] bool attach_closed() const {
    return attach_closed_.load(std::memory_order_acquire);
  }
  void SetAttachClosed(bool closed) {
    attach_closed_.store(closed, std::memory_order_release);
  }
  [[nodiscard]] job::Frozen last_frozen() const POS_EXCLUDES(mu_);
  [[nodiscard]] std::uint64_t restore_us() const POS_EXCLUDES(mu_);

 private:
  [[nodiscard]] bool Loading() const POS_REQUIRES(mu_);
  void OnStarted(const job::ProgramStarted& started) POS_EXCLUDES(mu_);
  void OnStartFailed(const job::StatusMessage& error) POS_EXCLUDES(mu_);
  void OnEnded(const job::ProgramEnded& ended) POS_EXCLUDES(mu_);
  template <typename Condition>
  bool WaitUntil(const Condition& condition, const Deadline& until,
                 const std::function<bool()>& cancelled) POS_EXCLUDES(mu_);

  const std::string name_;
  const std::string directory_;
  const uid_t uid_;
  std::atomic<bool> attach_closed_{false};

  // Journal writes, in the order of the changes. Before mu_.
  Mutex journal_mu_;
  bool retired_ POS_GUARDED_BY(journal_mu_) = false;
  mutable Mutex mu_;
  CondVar changed_;
  JobRecord record_ POS_GUARDED_BY(mu_);
  std::vector<JobSession> sessions_ POS_GUARDED_BY(mu_);
  std::shared_ptr<job::JobClient> client_ POS_GUARDED_BY(mu_);
  std::string operation_ POS_GUARDED_BY(mu_);
  CopyHistory copy_history_ POS_GUARDED_BY(mu_);
  bool started_ POS_GUARDED_BY(mu_) = false;
  Status start_error_ POS_GUARDED_BY(mu_);
  bool frozen_ POS_GUARDED_BY(mu_) = false;
  job::Frozen last_frozen_ POS_GUARDED_BY(mu_);
  bool restore_held_ POS_GUARDED_BY(mu_) = false;
  std::uint64_t restore_us_ POS_GUARDED_BY(mu_) = 0;
  Returns returns_ POS_GUARDED_BY(mu_);
  // Epochs, by session.
  std::map<std::uint64_t, std::uint32_t> leaving_ POS_GUARDED_BY(mu_);
  std::uint64_t loaded_ns_ POS_GUARDED_BY(mu_) = 0;
  Status load_error_ POS_GUARDED_BY(mu_);
};

}  // namespace pos

#endif  // POS_DAEMON_JOB_H_
