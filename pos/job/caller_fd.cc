#include "pos/job/caller_fd.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace pos::job {
namespace {

constexpr std::size_t kSmallPiece = 512;

}  // namespace

CallerFd CallerFd::Open(UniqueFd fd, Direction direction) {
  CallerFd caller;
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) {
    caller.fd_ = std::move(fd);
    return caller;
  }
  caller.terminal_ = ::isatty(fd.get()) == 1;
  caller.socket_ = S_ISSOCK(st.st_mode);
  if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
    const std::string path = "/proc/self/fd/" + std::to_string(fd.get());
    const int access = direction == Direction::kRead ? O_RDONLY : O_WRONLY;
    UniqueFd own(
        ::open(path.c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (own.valid()) {
      fd = std::move(own);
    } else if (errno == ENXIO && S_ISFIFO(st.st_mode)) {
      caller.broken_ = true;
    } else {
      caller.may_block_ = true;
    }
  }
  caller.fd_ = std::move(fd);
  return caller;
}

bool CallerFd::MayStep(short events) const {
  if (!may_block_) return true;
  pollfd p{fd_.get(), events, 0};
  return ::poll(&p, 1, 0) > 0;
}

CallerFd::Outcome CallerFd::Failed(int error) {
  if (error == EAGAIN || error == EINTR) {
    return Outcome::kWait;
  }
  error_ = ErrnoStatus(error, "the caller's descriptor").message();
  return error == EPIPE || error == ECONNRESET ? Outcome::kBroken
                                               : Outcome::kError;
}

CallerFd::Outcome CallerFd::Read(std::span<std::byte> buffer,
                                 std::size_t* moved) {
  *moved = 0;
  if (!MayStep(POLLIN)) return Outcome::kWait;
  const ssize_t n =
      socket_ ? ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT)
              : ::read(fd_.get(), buffer.data(), buffer.size());
  if (n < 0) return Failed(errno);
  if (n == 0) return Outcome::kEnd;
  *moved = static_cast<std::size_t>(n);
  return Outcome::kDone;
}

CallerFd::Outcome CallerFd::Write(std::span<const std::byte> bytes,
                                  std::size_t* moved) {
  *moved = 0;
  if (broken_) return Failed(EPIPE);
  if (!MayStep(POLLOUT)) return Outcome::kWait;
  if (may_block_) bytes = bytes.first(std::min(bytes.size(), kSmallPiece));
  const ssize_t n = socket_ ? ::send(fd_.get(), bytes.data(), bytes.size(),
                                     MSG_DONTWAIT | MSG_NOSIGNAL)
                            : ::write(fd_.get(), bytes.data(), bytes.size());
  if (n < 0) return Failed(errno);
  *moved = static_cast<std::size_t>(n);
  return n > 0 ? Outcome::kDone : Outcome::kWait;
}

}  // namespace pos::job
