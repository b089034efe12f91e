// A restore of a job into the namespaces of a new pos-job.
//
//   Prepare: image read, files planned, nothing touched on failure
//   (endpoints are made, init starts)
//   Run: files cut or copied, CRIU; post-restore: the tree stands, stopped;
//        held if asked; then it runs
//
// Threads: the loop's.
#ifndef POS_JOB_RESTORE_H_
#define POS_JOB_RESTORE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/job/criu_run.h"
#include "pos/job/event_loop.h"
#include "pos/job/hold_timer.h"
#include "pos/job/init_link.h"
#include "pos/job/job.pb.h"
#include "pos/job/open_files.h"
#include "pos/job/stdio.h"

namespace pos::job {

class RestoreOperation {
 public:
  struct Handlers {
    std::function<void(pid_t pid, pid_t ns_pid)> held;
    // The tree runs. `pid` as seen here.
    std::function<void(pid_t pid, std::uint64_t restore_us)> done;
    std::function<void(const Status&)> failed;
  };

  // `fds`: the descriptors that `request` refers to, taken over.
  RestoreOperation(EventLoop* loop, StartRestore request,
                   std::vector<UniqueFd> fds, std::string work_directory,
                   std::string name, int log_level);
  RestoreOperation(const RestoreOperation&) = delete;
  RestoreOperation& operator=(const RestoreOperation&) = delete;

  // Reads and checks. After success the accessors below are valid.
  Status Prepare();
  [[nodiscard]] const JobImage& image() const { return image_; }
  [[nodiscard]] pid_t last_pid() const { return last_pid_; }
  [[nodiscard]] const std::vector<ReplacementFile>& replacements() const {
    return replacements_;
  }
  [[nodiscard]] const std::vector<std::string>& notes() const {
    return plan_.notes;
  }

  // Init is ready. Exactly one of done and failed follows.
  void Run(InitLink* init, const std::vector<JobEnd>& ends, Handlers handlers);
  Status Decide(Verdict::Kind kind);
  Status ChangeHold(const Hold& hold);

  [[nodiscard]] CriuRun* criu() { return criu_.get(); }
  [[nodiscard]] Hello::State state() const { return state_; }
  [[nodiscard]] std::uint64_t hold_left_ms() const { return hold_.left_ms(); }
  [[nodiscard]] bool until_told() const { return hold_.until_told(); }

 private:
  Status FindReplacements();
  Status RestoreLinks();
  void RemoveLinks();
  Status StartCriu(const std::vector<JobEnd>& ends);
  CriuRun::Answer OnNotify(const std::string& script);
  void OnCriuDone(const Status& status);
  void OnHoldExpired(std::uint64_t ms);

  EventLoop* const loop_;
  const StartRestore request_;
  const std::vector<UniqueFd> fds_;
  const std::string work_directory_;
  const std::string name_;
  const int log_level_;
  InitLink* init_ = nullptr;
  Handlers handlers_;
  std::string images_path_;
  UniqueFd images_;  // what CRIU reads: the image's or the adjusted directory
  UniqueFd work_;
  JobImage image_;
  FilePlan plan_;
  pid_t last_pid_ = 0;
  std::vector<ReplacementFile> replacements_;
  std::unique_ptr<CriuRun> criu_;
  Hello::State state_ = Hello::RESTORING;
  Status failure_;
  pid_t pid_ = 0;
  HoldTimer hold_;
  std::uint64_t started_ns_ = 0;
  std::uint64_t held_ns_ = 0;
  std::uint64_t held_since_ns_ = 0;
};

}  // namespace pos::job

#endif  // POS_JOB_RESTORE_H_
