// One checkpoint of one job, from request to sealed image or abort.
//
//   preflight what CRIU cannot carry is refused; the job has not noticed
//   quiesce   every session: gate closed, device at rest, calls pending
//   detach    every client leaves all that it shares
//   dump      CRIU stops and saves the process tree; meanwhile each runner
//             copies its device memory
//   host      pinned memory, while the tree is frozen
//   resume    the tree runs, clients come back, gates open   (or: it ends)
//   seal      indexes, fsync, manifest, rename
//
// Whatever fails before "resume" is undone in the opposite order: the job runs
// on as if no checkpoint had been asked for, and the draft is gone. With --stop
// the image is sealed while the tree is frozen, and only then the job ends.
//
// Threads: one runs Run. Jobs are worked on one at a time (Job::TryBegin).
#ifndef POS_DAEMON_CHECKPOINT_H_
#define POS_DAEMON_CHECKPOINT_H_

#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "ckpt/store/draft.h"
#include "ckpt/store/store.h"
#include "pos/daemon/supervisor.h"
#include "pos/daemon/trace_recorder.h"

namespace pos {

class CheckpointRun {
 public:
  CheckpointRun(Supervisor* supervisor, std::shared_ptr<Job> job,
                v1::CheckpointRequest request, ProgressFunction progress);

  // Before Run: the image is one of this series.
  void SetSeries(const std::string& series) { series_ = series; }
  Result<v1::CheckpointResult> Run();

 private:
  struct Member {
    JobSession session;
    ckpt::SessionFiles files;
    runner::Quiesced quiesced;
    bool is_quiesced = false;
    bool detached = false;
    bool saving = false;
    std::uint64_t copied_bytes = 0;
    Status status;  // of the step that ran last
  };

  Status Steps();
  Status TakeMembers();
  // What CRIU would refuse, asked while the job still runs undisturbed.
  Status Preflight();
  Status Quiesce();
  Status QuiesceOnce(std::uint64_t drain_ms);
  // Lets the job run for a while before the next attempt.
  Status Pause(std::uint64_t ms);
  Status Detach();
  Status OpenDraft();
  Status DumpAndCopy();
  Status Dump();
  Status SaveHost();
  Status ResumeTree(job::Verdict::Kind kind);
  Status ResumeSessions();
  Status FinishSaves();
  Status Seal();
  // Puts everything back as it was, as far as it had gone.
  void Undo();

  // Runs `step` for every member at once; the first error.
  Status ForEach(const std::function<Status(Member*)>& step);
  Status CallRunner(Member* member, const runner::ToRunner& request,
                    std::span<const int> fds, std::uint64_t timeout_ms,
                    runner::FromRunner* reply = nullptr);
  Status Report(const std::string& phase, std::uint64_t done_bytes = 0,
                std::uint64_t total_bytes = 0);
  [[nodiscard]] bool Cancelled();
  void FillManifest();
  [[nodiscard]] std::uint64_t CpuDumpUs() const;
  [[nodiscard]] v1::CheckpointResult MakeResult() const;

  Supervisor* const supervisor_;
  const SupervisorTunables tunables_;
  const std::shared_ptr<Job> job_;
  const v1::CheckpointRequest request_;
  const ProgressFunction progress_;
  const std::uint64_t started_ns_;
  std::uint32_t epoch_ = 0;
  std::vector<Member> members_;
  std::unique_ptr<ckpt::Draft> draft_;
  std::string criu_dir_;
  ckpt::Manifest manifest_;
  v1::Progress shown_;
  bool cancelled_ = false;
  bool frozen_ = false;       // the tree waits for a verdict
  bool dump_failed_ = false;  // the Dump request has been answered
  std::future<Result<job::Reply>> dump_;
  job::Dumped dumped_;
  std::uint64_t dump_asked_ns_ = 0;
  std::uint64_t frozen_us_ = 0;  // from the Dump request on
  std::uint64_t gate_closed_ns_ = 0;
  std::uint64_t gate_opened_ns_ = 0;
  std::uint32_t attempts_ = 0;   // to bring the job to rest
  std::uint64_t failed_ns_ = 0;  // that it stood still in those that failed
  std::string series_;
  TraceRecorder trace_;
};

}  // namespace pos

#endif  // POS_DAEMON_CHECKPOINT_H_
