// Carries one output stream of the job (a pipe or a terminal) to the caller
// and to output.log.
//
// Back-pressure: what the caller has not taken yet is kept, and nothing more is
// read from the job until it has been taken. So a slow caller slows the job, as
// a pipe would, and nothing is lost. The log is written as soon as bytes are
// read and never waits.
//
// A caller that is gone: what it has not taken goes to the log when the log has
// not got it already, and from then on everything does.
//
// Threads: the loop's.
#ifndef POS_JOB_OUTPUT_PUMP_H_
#define POS_JOB_OUTPUT_PUMP_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/job/caller_fd.h"
#include "pos/job/event_loop.h"
#include "pos/job/log_file.h"

namespace pos::job {

class OutputPump {
 public:
  struct Options {
    bool log_attached = false;  // write the log beside a caller, too
    bool break_pipe = false;    // a broken caller breaks the job's pipe
    bool terminal = false;      // the source is the master of a terminal
  };
  // Called once when the caller is gone, with the reason.
  using GoneHandler = std::function<void(const std::string& why)>;

  // `source`: our end, non-blocking; taken over. `caller` may be invalid.
  // `log` outlives the pump.
  OutputPump(EventLoop* loop, UniqueFd source, CallerFd caller, LogFile* log,
             const Options& options, GoneHandler gone);
  ~OutputPump();
  OutputPump(const OutputPump&) = delete;
  OutputPump& operator=(const OutputPump&) = delete;

  void Start();
  // Reads all that the job has written, whether the caller can take it or not.
  // For a job that is frozen or has ended: bounded by what the kernel holds.
  void Drain();
  // Drains, and reads no more: nothing of the job is left.
  void Finish();
  void DetachCaller();

  // Nothing more comes: end of file, or broken by `break_pipe`.
  [[nodiscard]] bool ended() const { return !source_.valid(); }
  // Broken by `break_pipe`.
  [[nodiscard]] bool broken() const { return broken_; }
  // The caller has everything that was read.
  [[nodiscard]] bool delivered() const { return pending_.empty(); }
  // Bytes that the caller took so far, to see progress.
  [[nodiscard]] std::uint64_t taken_bytes() const { return taken_bytes_; }
  [[nodiscard]] bool attached() const { return caller_.valid(); }
  [[nodiscard]] int source_fd() const { return source_.get(); }

 private:
  // One read; false when nothing is there now or the source ended.
  bool ReadOnce();
  void OnSource();
  void Deliver();
  void CallerIsGone(const std::string& why, bool was_broken);
  void UpdateWatches();
  void EndSource();

  EventLoop* const loop_;
  UniqueFd source_;
  CallerFd caller_;
  LogFile* const log_;
  const Options options_;
  GoneHandler gone_;
  std::vector<std::byte> pending_;  // read, not yet taken by the caller
  std::uint64_t taken_bytes_ = 0;
  bool started_ = false;
  bool broken_ = false;
};

}  // namespace pos::job

#endif  // POS_JOB_OUTPUT_PUMP_H_
