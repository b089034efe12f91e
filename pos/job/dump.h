// A dump of the job, from the request to CRIU's end. See Dump in job.proto.
//
//   Start ── CRIU works ── post-dump: the tree is stopped and saved
//     │                      │ output drained, open files recorded, job.img
//     │                      ▼
//     │                    frozen ── verdict ──▶ resuming ── CRIU's end ── done
//     └── failure or time-out: the job runs on, done(error)
//
// A hold that ends without a verdict aborts. With until_told it does not end.
//
// Threads: the loop's.
#ifndef POS_JOB_DUMP_H_
#define POS_JOB_DUMP_H_

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
#include "pos/job/stdio.h"

namespace pos::job {

// What a dump needs to know about the job.
struct DumpSubject {
  std::string name;
  std::string work_directory;  // DIR/criu
  int log_level = 2;
  pid_t ns_pid = 0;  // of the program
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

class DumpOperation {
 public:
  struct Handlers {
    std::function<void(const Frozen&)> frozen;
    // The end. On success of a dump with verdict KILL the job has ended.
    std::function<void(const Status&, const Dumped&)> done;
  };

  DumpOperation(EventLoop* loop, InitLink* init, JobStdio* stdio,
                const LogFile* log, DumpSubject subject, std::uint64_t id,
                Dump request, UniqueFd images, Handlers handlers);
  DumpOperation(const DumpOperation&) = delete;
  DumpOperation& operator=(const DumpOperation&) = delete;

  // Fails before anything was touched.
  Status Start();
  // kNotReady unless frozen.
  Status Decide(Verdict::Kind kind);
  Status ChangeHold(const Hold& hold);

  [[nodiscard]] CriuRun* criu() { return criu_.get(); }
  [[nodiscard]] std::uint64_t id() const { return id_; }
  [[nodiscard]] Hello::State state() const { return state_; }
  [[nodiscard]] std::uint64_t hold_left_ms() const { return hold_.left_ms(); }
  [[nodiscard]] bool until_told() const { return hold_.until_told(); }

 private:
  CriuRun::Answer OnNotify(const std::string& script);
  void OnCriuDone(const Status& status);
  Status WriteImage(Frozen* frozen);
  Status KeepLinks(JobImage* image);
  void DropLinks();
  void OnHoldExpired(std::uint64_t ms);

  EventLoop* const loop_;
  InitLink* const init_;
  JobStdio* const stdio_;
  const LogFile* const log_;
  const DumpSubject subject_;
  const std::uint64_t id_;
  const Dump request_;
  const UniqueFd images_;
  const Handlers handlers_;
  std::string images_path_;
  UniqueFd work_;
  std::unique_ptr<CriuRun> criu_;
  Hello::State state_ = Hello::DUMPING;
  Verdict::Kind verdict_ = Verdict::RESUME;
  Status failure_;  // ours, goes before CRIU's
  std::vector<std::string> kept_links_;
  HoldTimer hold_;
  std::uint64_t started_ns_ = 0;
  std::uint64_t frozen_ns_ = 0;
  std::uint64_t decided_ns_ = 0;
};

}  // namespace pos::job

#endif  // POS_JOB_DUMP_H_
