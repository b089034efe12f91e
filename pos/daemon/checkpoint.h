// One checkpoint of one job, from request to sealed image or abort.
//
//   preflight what CRIU cannot carry is refused; the job has not noticed
//   load      only after a lazy restore: what is not loaded yet
//   quiesce   every session: gate closed, device at rest, calls pending
//   detach    every client leaves all that it shares
//   dump      CRIU stops and saves the process tree; meanwhile each runner
//             copies its device memory
//   host      pinned memory, while the tree is frozen
//   resume    the tree runs, clients come back, gates open   (or: it ends)
//   seal      indexes, fsync, manifest, rename
//
// That is mode stop. Mode cow only finds out in the cut what memory holds, and
// copies it after "resume"; mode recopy copies rounds before "quiesce", and in
// the cut what has changed since. A cow that turns out to have missed a write
// goes on as a recopy: another cut, whose process image takes the place of the
// first.
//
// Whatever fails before "resume" is undone in the opposite order: the job runs
// on as if no checkpoint had been asked for, and the draft is gone. With --stop
// the image is sealed while the tree is frozen, and only then the job ends.
//
// Threads: one runs Run. Jobs are worked on one at a time (Job::TryBegin).
#ifndef POS_DAEMON_CHECKPOINT_H_
#define POS_DAEMON_CHECKPOINT_H_

#include <atomic>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "ckpt/store/draft.h"
#include "ckpt/store/store.h"
#include "pos/base/mutex.h"
#include "pos/daemon/first_error.h"
#include "pos/daemon/hold_keeper.h"
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
    bool unanswered = false;  // whether it is quiesced is not known
    bool detached = false;
    bool saving = false;
    runner::Saved saved;  // as far as is known
    Status status;        // of the step that ran last
  };

  static constexpr std::uint64_t kRunnerMs = 30'000;
  static constexpr std::uint64_t kJobMs = 30'000;
  // Copying and sealing may take as long as the disk does; each wait is for one
  // step, and a disk that stands still is noticed by the pack writer.
  static constexpr std::uint64_t kCopyMs = 24ull * 3600 * 1000;

  // The job runs, and has all its memory.
  Status AwaitReady();
  Status Steps();
  // The job is at rest, its tree saved, its memory as safe as mode_ has it.
  Status Cut();
  Status LetRun();
  Status TakeMembers();
  // Which mode, and why.
  Status ChooseMode();
  [[nodiscard]] ckpt::CheckpointMode ChooseAuto(std::uint64_t bytes);
  // Whether every session's memory could be copied beside the job; else it
  // becomes mode stop.
  bool Beside();
  // Rounds of copies while the job runs.
  Status CopyRounds();
  // The copies of a cow; true when all were foreseen.
  Result<bool> FinishCow();
  Status TurnToRecopy();
  // What CRIU would refuse, asked while the job still runs undisturbed.
  Status Preflight();
  Status Quiesce();
  Status QuiesceOnce(std::uint32_t number);
  // Lets the job run for a while before the next attempt.
  Status Pause(std::uint64_t ms);
  Status Detach();
  Status OpenDraft();
  Status DumpAndCopy();
  Status CopyInCut(Member* member);
  Status BeginSave(Member* member, runner::Save::Mode mode);
  // A request that is answered with Saved.
  Status CallSave(Member* member, const runner::ToRunner& request,
                  std::span<const int> fds = {});
  Status Dump();
  Status SaveHost();
  // The dump's answer, which comes after a verdict.
  Result<job::Reply> AwaitDump(std::uint64_t limit_ms);
  Status ResumeTree(job::Verdict::Kind kind);
  // The image is there: the tree ends. If it was let go meanwhile, the image
  // goes instead.
  Status EndTree();
  Status ResumeSessions();
  Status FinishSaves();
  Status Seal();
  // Puts everything back as it was, as far as it had gone.
  void Undo();

  [[nodiscard]] static std::string NameOf(const Member& member);
  // Runs `step` for every member at once; the first error.
  Status ForEach(const std::function<Status(Member*)>& step);
  // The same, and a cancel ends what the runners do, as does an error of one of
  // them, and whatever else makes it useless (WhyGiveUp).
  Status ForEachUntilCancelled(const std::function<Status(Member*)>& step);
  // OK: go on.
  Status WhyGiveUp();
  Status CallRunner(Member* member, const runner::ToRunner& request,
                    std::span<const int> fds, std::uint64_t timeout_ms,
                    runner::FromRunner* reply = nullptr);
  Status Report(const std::string& phase, std::uint64_t done_bytes = 0,
                std::uint64_t total_bytes = 0) POS_EXCLUDES(progress_mu_);
  [[nodiscard]] bool Cancelled() POS_EXCLUDES(progress_mu_);
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
  Mutex progress_mu_;  // held when progress_ is called
  v1::Progress shown_ POS_GUARDED_BY(progress_mu_);
  ckpt::CheckpointMode mode_ = ckpt::CheckpointMode::kStop;
  std::string reason_;
  std::uint64_t unforeseen_ = 0;  // chunks, in the first cut
  // Of the first cut when there was a second.
  std::uint64_t earlier_stall_ns_ = 0;
  std::uint64_t earlier_cpu_us_ = 0;
  std::atomic<bool> cancelled_{false};
  // What ends a cut: of the dump or of the copies, which go on side by side.
  FirstError cut_error_;
  HoldKeeper hold_;           // from the freeze to the verdict
  bool frozen_ = false;       // the tree waits for a verdict
  bool dump_failed_ = false;  // the Dump request has been answered
  std::future<Result<job::Reply>> dump_;
  // Who has given up waiting for dump_: then it is ready soon.
  std::shared_ptr<std::atomic<bool>> dump_given_up_;
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
