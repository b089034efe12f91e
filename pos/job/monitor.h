// The monitor: the process that posd starts for a job, and the one of pos-job's
// two that stays outside the job's namespaces. It holds the outside ends of the
// job's streams, writes output.log and exit.json, drives CRIU, and talks with
// posd, whichever posd that is. Init (init.h) does what has to be done inside.
//
// Life: configuration → endpoints → init → program runs (or is restored) → it
// ends → init ends, and with it every process of the job → output is read to
// its end → exit.json → posd is told → acknowledged, or linger_ms → end. If the
// monitor dies the job dies: nothing could carry its streams or report its end.
//
// Threads: one.
#ifndef POS_JOB_MONITOR_H_
#define POS_JOB_MONITOR_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/job/dump.h"
#include "pos/job/event_loop.h"
#include "pos/job/init_link.h"
#include "pos/job/job.pb.h"
#include "pos/job/log_file.h"
#include "pos/job/posd_link.h"
#include "pos/job/restore.h"
#include "pos/job/stdio.h"

namespace pos::job {

class Monitor {
 public:
  // `fds`: the descriptors that `config` refers to. `posd`: the connection.
  Monitor(JobConfig config, std::vector<UniqueFd> fds, UniqueFd posd);
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  // Runs the job to its end. The status is for pos-job's own exit code: not OK
  // when the job could not be started.
  Status Run();

 private:
  // Start (monitor.cc).
  Status Setup();
  Status SetupStreams(JobStdio::CallerFds caller);
  Status StartInit();
  void FailStart(const Status& status);
  [[nodiscard]] UniqueFd TakeFd(std::uint32_t index);

  // Reports of init and their consequences (monitor.cc).
  void OnInitReport(const InitReport& report, std::vector<UniqueFd> fds);
  void OnForked(pid_t ns_pid, const std::vector<UniqueFd>& fds);
  void OnInitReady();
  void OnInitGone();
  void ProgramRuns(ProgramStarted started);
  void SetEnded(const ProgramEnded& ended);
  void DeliverRest();
  void ReportEnd();
  void MaybeStop();

  // Requests of posd (monitor_requests.cc).
  [[nodiscard]] Hello MakeHello() const;
  void OnRequest(const ToJob& request, std::vector<UniqueFd> fds);
  void HandleRunning(const ToJob& request, std::vector<UniqueFd> fds);
  void HandleSignal(std::uint64_t id, const Signal& signal);
  void HandlePreflight(std::uint64_t id, const Preflight& request);
  void HandleDump(std::uint64_t id, const Dump& dump,
                  std::vector<UniqueFd> fds);
  Status StartDump(std::uint64_t id, const Dump& dump,
                   std::vector<UniqueFd> fds);
  void OnDumpDone(std::uint64_t id, const Status& status, const Dumped& dumped);
  void HandleListProcesses(std::uint64_t id);
  void Answer(std::uint64_t id, const Status& status);
  Status Decide(const Verdict& verdict);
  Status ChangeHold(const Hold& hold);
  // The dump's own preflight.
  Status CheckDumpable(const Dump& dump) const;
  Result<std::vector<std::string>> Blockers(
      const Preflight& request, const std::string& attach_socket) const;
  void SendDeferredSignals();

  const JobConfig config_;
  std::vector<UniqueFd> fds_;
  UniqueFd first_connection_;
  EventLoop loop_;
  std::unique_ptr<PosdLink> posd_;
  LogFile log_;
  std::unique_ptr<JobStdio> stdio_;
  std::unique_ptr<RestoreOperation> restore_;
  std::unique_ptr<InitLink> init_;
  std::unique_ptr<DumpOperation> dump_;
  std::unique_ptr<Reply> last_dump_;

  Hello::State state_ = Hello::STARTING;
  pid_t pid_ = 0;
  pid_t ns_pid_ = 0;
  // What the end of init means when the program's end was not seen.
  ProgramEnded::Reason reason_of_kill_ = ProgramEnded::LOST;
  std::vector<std::pair<std::uint64_t, Signal>> deferred_signals_;
  std::unique_ptr<ProgramEnded> ended_;
  bool end_reported_ = false;
  bool may_stop_ = false;  // acknowledged, or lingered long enough
  std::uint64_t delivered_bytes_ = 0;
  std::uint64_t stalled_since_ns_ = 0;
  EventLoop::TimerId patience_timer_ = 0;
  Status start_status_;
};

}  // namespace pos::job

#endif  // POS_JOB_MONITOR_H_
