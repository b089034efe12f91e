// One descriptor of the caller's (of pos-cli), read or written without ever
// blocking pos-job and without changing it for the caller.
//
// O_NONBLOCK belongs to the open file description, which the caller's shell
// shares, so it is never set there. Pipes and terminals are opened a second
// time through /proc/self/fd, which gives a description of our own; sockets
// take MSG_DONTWAIT; regular files do not block. Where the second opening fails
// (a terminal that belongs to another user, /dev/tty) small pieces are moved
// when poll(2) says that they fit.
//
// Threads: one.
#ifndef POS_JOB_CALLER_FD_H_
#define POS_JOB_CALLER_FD_H_

#include <cstddef>
#include <span>
#include <string>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos::job {

class CallerFd {
 public:
  enum class Direction { kRead, kWrite };
  enum class Outcome {
    kDone,    // `moved` bytes, at least one
    kWait,    // nothing now; poll
    kEnd,     // reading: end of file
    kBroken,  // a pipe or socket that nobody reads any more
    kError,   // anything else; last_error()
  };

  CallerFd() = default;
  // Takes `fd`. A second opening that fails because nobody reads the pipe is
  // not an error here: the first Write reports kBroken.
  static CallerFd Open(UniqueFd fd, Direction direction);

  [[nodiscard]] bool valid() const { return fd_.valid(); }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool is_terminal() const { return terminal_; }

  Outcome Read(std::span<std::byte> buffer, std::size_t* moved);
  Outcome Write(std::span<const std::byte> bytes, std::size_t* moved);
  // What kError was.
  [[nodiscard]] const std::string& last_error() const { return error_; }
  void Close() { fd_.Reset(); }

 private:
  // Whether one step may block: then only kSmallPiece bytes and only after
  // poll(2) said yes.
  bool MayStep(short events) const;
  Outcome Failed(int error);

  UniqueFd fd_;
  bool socket_ = false;
  bool may_block_ = false;
  bool terminal_ = false;
  bool broken_ = false;
  std::string error_;
};

}  // namespace pos::job

#endif  // POS_JOB_CALLER_FD_H_
