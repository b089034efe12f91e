// The end of a pipe that a caller handed over, to write an image to or read one
// from.
//
// The caller keeps the same open file description and is not trusted: whether
// it is non-blocking is the caller's to change at any time. So nothing here
// relies on it, or changes it: bytes go through a pipe of our own and are moved
// with splice(SPLICE_F_NONBLOCK), which says for each call that it must not
// wait. (Opening the pipe anew, by /proc/self/fd, would ask the file system
// that a FIFO is on, which may be the caller's, and needs rights that an
// unprivileged posd does not have.)
//
// Threads:  one at a time.
// Blocking: Write and Read wait for the other end, and ask `go_on` before each
//           wait and then every 100 ms; its error ends them.
// Errors:   kInvalid for what is no pipe, kClosed when nobody reads any more,
//           else go_on's.
#ifndef POS_DAEMON_CALLER_PIPE_H_
#define POS_DAEMON_CALLER_PIPE_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "ckpt/format/record.h"
#include "ckpt/format/record_stream.h"
#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos {

class CallerPipe final : public ckpt::ByteSink, public ckpt::ByteFeed {
 public:
  // `fd`: the caller's, one end of a pipe or FIFO; outlives this.
  static Result<std::unique_ptr<CallerPipe>> Create(
      int fd, std::function<Status()> go_on);

  // All of `bytes`.
  Status Write(std::span<const std::byte> bytes) override;
  // Up to out.size(); 0 at the end.
  Result<std::size_t> Read(std::span<std::byte> out) override;

 private:
  CallerPipe(int fd, std::function<Status()> go_on)
      : fd_(fd), go_on_(std::move(go_on)) {}
  // Everything that is in our own pipe.
  Status Drain(std::size_t bytes);

  const int fd_;
  const std::function<Status()> go_on_;
  UniqueFd read_end_;  // of our own pipe, non-blocking
  UniqueFd write_end_;
  std::size_t held_ = 0;  // bytes in it, of Read
};

}  // namespace pos

#endif  // POS_DAEMON_CALLER_PIPE_H_
