// Carries the caller's standard input into the job's pipe or terminal.
//
// Remembers what it wrote last, so that at a cut the bytes which the job has
// not read yet can go into the image: the pipe itself does not.
//
// Threads: the loop's.
#ifndef POS_JOB_INPUT_PUMP_H_
#define POS_JOB_INPUT_PUMP_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "pos/base/fd.h"
#include "pos/job/caller_fd.h"
#include "pos/job/event_loop.h"

namespace pos::job {

class InputPump {
 public:
  // `sink`: our end, non-blocking, taken over. A pipe's is closed at the end of
  // the caller's input, or, without a valid caller, once `first` has gone in. A
  // terminal's (`terminal`: a duplicate of its master) is not.
  // `probe`: a read end of the pipe, to see how much the job has not read yet,
  // also after our end was closed; never read from.
  InputPump(EventLoop* loop, UniqueFd sink, UniqueFd probe, bool terminal,
            CallerFd caller, bool paused, std::string_view first);
  ~InputPump();
  InputPump(const InputPump&) = delete;
  InputPump& operator=(const InputPump&) = delete;

  void Start();
  void SetReading(bool reading);
  void DetachCaller();

  // The job has seen, or will see, end of file.
  [[nodiscard]] bool ended() const { return !sink_.valid(); }
  [[nodiscard]] int sink_fd() const { return sink_.get(); }
  // Written into the pipe and not yet read by the job, then what is still on
  // its way. Meant for a frozen job; empty for a terminal.
  [[nodiscard]] std::string Pending() const;

 private:
  void OnCaller();
  void OnSink();
  void CloseCaller();
  void EndSink();
  void UpdateWatches();

  EventLoop* const loop_;
  UniqueFd sink_;
  const UniqueFd probe_;
  const bool terminal_;
  CallerFd caller_;
  bool reading_;
  bool started_ = false;
  std::string queue_;    // read from the caller, not yet written
  std::string history_;  // the last bytes written, a pipe's capacity of them
};

}  // namespace pos::job

#endif  // POS_JOB_INPUT_PUMP_H_
