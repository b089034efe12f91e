#include "pos/daemon/caller_pipe.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace pos {
namespace {

constexpr int kPollMs = 100;
// Of our own pipe: how much goes in one step. What the system allows, if less.
constexpr int kPipeBytes = 1 << 20;

// Until the pipe is ready or its other end is gone.
Status Await(int fd, short events) {
  pollfd polled{fd, events, 0};
  const int n = ::poll(&polled, 1, kPollMs);
  if (n < 0 && errno != EINTR) return ErrnoStatus(errno, "poll");
  return {};
}

}  // namespace

Result<std::unique_ptr<CallerPipe>> CallerPipe::Create(
    int fd, std::function<Status()> go_on) {
  // Asked without touching what else the descriptor might be: a file system of
  // the caller's may never answer.
  if (fd < 0 || ::fcntl(fd, F_GETPIPE_SZ) < 0) {
    return Invalid("the image has to come, or go, through a pipe");
  }
  std::unique_ptr<CallerPipe> pipe(new CallerPipe(fd, std::move(go_on)));
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "pipe");
  }
  pipe->read_end_.Reset(ends[0]);
  pipe->write_end_.Reset(ends[1]);
  // Refused to a user with many pipes: smaller steps do as well.
  [[maybe_unused]] const int size = ::fcntl(ends[1], F_SETPIPE_SZ, kPipeBytes);
  return pipe;
}

Status CallerPipe::Write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(write_end_.get(), bytes.data(),
                              std::min<std::size_t>(bytes.size(), kPipeBytes));
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "write the exported image");
    }
    POS_RETURN_IF_ERROR(Drain(static_cast<std::size_t>(n)));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Status CallerPipe::Drain(std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = ::splice(read_end_.get(), nullptr, fd_, nullptr, bytes,
                               SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (n > 0) {
      bytes -= static_cast<std::size_t>(n);
    } else if (n < 0 && errno == EPIPE) {
      return Closed("nobody reads the exported image any more");
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
      return ErrnoStatus(errno, "write the exported image");
    } else {
      POS_RETURN_IF_ERROR(go_on_());
      POS_RETURN_IF_ERROR(Await(fd_, POLLOUT));
    }
  }
  return {};
}

Result<std::size_t> CallerPipe::Read(std::span<std::byte> out) {
  if (out.empty()) return std::size_t{0};
  while (held_ == 0) {
    const ssize_t n = ::splice(fd_, nullptr, write_end_.get(), nullptr,
                               std::min<std::size_t>(out.size(), kPipeBytes),
                               SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (n == 0) return std::size_t{0};
    if (n > 0) {
      held_ = static_cast<std::size_t>(n);
    } else if (errno != EAGAIN && errno != EINTR) {
      return ErrnoStatus(errno, "read the exported image");
    } else {
      POS_RETURN_IF_ERROR(go_on_());
      POS_RETURN_IF_ERROR(Await(fd_, POLLIN));
    }
  }
  for (;;) {
    const ssize_t n =
        ::read(read_end_.get(), out.data(), std::min(out.size(), held_));
    if (n > 0) {
      held_ -= static_cast<std::size_t>(n);
      return static_cast<std::size_t>(n);
    }
    if (n < 0 && errno == EINTR) continue;
    return n < 0 ? ErrnoStatus(errno, "read the exported image")
                 : Internal("a pipe of our own has lost bytes");
  }
}

}  // namespace pos
