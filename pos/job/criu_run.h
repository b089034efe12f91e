// One operation of CRIU inside the job, seen from the monitor: a request over
// init, notifications that may be held, an end.
//
// Threads: the loop's.
#ifndef POS_JOB_CRIU_RUN_H_
#define POS_JOB_CRIU_RUN_H_

#include <functional>
#include <string>

#include "ckpt/criu/rpc.h"
#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/job/event_loop.h"
#include "pos/job/init_link.h"

namespace pos::job {

class CriuRun {
 public:
  enum class Answer { kGoOn, kGiveUp, kHold };
  struct Plan {
    std::string what;     // for messages: "dump of job a"
    std::string request;  // encoded
    RunCriu command;
    int images_fd = -1;  // descriptors here; handed to init
    int work_fd = -1;
    std::string log_path;          // CRIU's log, in the work directory
    std::string output_path;       // what it writes otherwise
    std::uint64_t timeout_ms = 0;  // holds are not counted
    bool dump = false;
  };
  struct Handlers {
    // A notification; kHold keeps CRIU, and the tree, waiting for Decide.
    std::function<Answer(const std::string& script)> notify;
    // The end, after CRIU has exited. Called once. OK: it said so and exited
    // with 0.
    std::function<void(const Status&)> done;
  };

  CriuRun(EventLoop* loop, InitLink* init, Plan plan, Handlers handlers);
  ~CriuRun();
  CriuRun(const CriuRun&) = delete;
  CriuRun& operator=(const CriuRun&) = delete;

  void Start();
  // Answers a held notification.
  void Decide(bool go_on);
  // Makes CRIU give up, bounded in time.
  //
  // A dump is not ended by SIGKILL at once. The kernel would let go of the
  // tree, and CRIU's code inside mostly returns by itself, but there is a
  // moment, while that code is being put in place, in which a task would run
  // into a breakpoint and die of SIGTRAP (seen in 1 of 100 kills). So its next
  // write to a file is made to fail first: then it cleans up as after any
  // error. Only a CRIU that does not end within kGraceMs is killed.
  void Kill(const Status& why);

  // Reports of init's that concern CRIU.
  void OnStarted(UniqueFd rpc);
  void OnExited(int wait_status);
  // Init has ended.
  void OnGone();

 private:
  void OnRpc();
  void StartTimer();
  void KillNow();
  void Finish(const Status& status);

  EventLoop* const loop_;
  InitLink* const init_;
  const Plan plan_;
  const Handlers handlers_;
  UniqueFd rpc_;
  EventLoop::TimerId timer_ = 0;
  bool touched_ = false;  // CRIU has begun with the tree
  bool said_success_ = false;
  bool finished_ = false;
  Status killed_;  // why, when we ended it
};

}  // namespace pos::job

#endif  // POS_JOB_CRIU_RUN_H_
