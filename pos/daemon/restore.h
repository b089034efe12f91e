// One restore: from an image to a job that runs.
//
//   preflight  the image and all that it needs, before anything is touched
//   load       runners make handles and memory, CRIU makes the process tree;
//              both at once
//   admit      each client is told to come back; gates open
//   load       lazy: device memory follows, behind the job that runs
//
// What fails before "admit" leaves nothing behind: no job, no process, no file.
// After it the job is there, whoever waits for the rest.
//
// Threads: one runs Run.
#ifndef POS_DAEMON_RESTORE_H_
#define POS_DAEMON_RESTORE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ckpt/store/image.h"
#include "pos/daemon/first_error.h"
#include "pos/daemon/hold_keeper.h"
#include "pos/daemon/image_info.h"
#include "pos/daemon/supervisor.h"
#include "pos/daemon/trace_recorder.h"

namespace pos {

class RestoreRun {
 public:
  RestoreRun(Supervisor* supervisor, Caller caller, v1::RestoreRequest request,
             ProgressFunction progress);

  Result<v1::RestoreResult> Run();

 private:
  struct Member {
    SessionAttachment image;
    JobSession session;
    UniqueFd host_file;
  };

  Status Preflight();
  Status ChooseDevices();
  Status MakeJob();
  Status MakeMembers();
  Status Load();
  Status LoadMember(std::size_t number, Member* member);
  // Ends the runners: what they load, nobody needs.
  void GiveUpLoading();
  Status StartTree();
  Status Admit();
  void Undo(const Status& why);
  // Until a lazily restored job has all its memory.
  Status WaitLoaded();
  Status Report(const std::string& phase, std::uint64_t done_bytes = 0,
                std::uint64_t total_bytes = 0);
  bool Cancelled();

  Supervisor* const supervisor_;
  const SupervisorTunables tunables_;
  const Caller caller_;
  const v1::RestoreRequest request_;
  const ProgressFunction progress_;
  const std::uint64_t started_ns_;
  std::unique_ptr<ckpt::ImageHandle> image_;
  std::vector<int> devices_;
  std::shared_ptr<Job> job_;
  std::vector<Member> members_;
  std::uint64_t loaded_ns_ = 0;
  std::uint64_t admitted_ns_ = 0;
  v1::Progress shown_;
  // Of the members and the tree, which are made side by side.
  FirstError load_error_;
  std::atomic<bool> loading_given_up_{false};
  HoldKeeper hold_;            // from when the tree stands to the verdict
  bool tree_started_ = false;  // there is a pos-job
  bool cancelled_ = false;
  bool continues_ = false;  // an ended job's log
  TraceRecorder trace_;
};

}  // namespace pos

#endif  // POS_DAEMON_RESTORE_H_
