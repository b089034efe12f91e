#include "pos/base/fd.h"

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>

namespace pos {

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) {
    // Not retried on EINTR: on Linux the descriptor is gone either way.
    ::close(fd_);
  }
  fd_ = fd;
}

Status WriteFull(int fd, std::span<const std::byte> bytes,
                 const std::string& what) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "write " + what);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Status PwriteFull(int fd, std::span<const std::byte> bytes,
                  std::uint64_t offset, const std::string& what) {
  while (!bytes.empty()) {
    const ssize_t n =
        ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "write " + what);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

Status PreadFull(int fd, std::span<std::byte> bytes, std::uint64_t offset,
                 const std::string& what) {
  while (!bytes.empty()) {
    const ssize_t n =
        ::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "read " + what);
    }
    if (n == 0) {
      return Corrupt("read " + what + ": file ends at byte " +
                     std::to_string(offset) + ", " +
                     std::to_string(bytes.size()) + " bytes too early");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

Result<std::size_t> ReadSome(int fd, std::span<std::byte> bytes,
                             const std::string& what) {
  for (;;) {
    const ssize_t n = ::read(fd, bytes.data(), bytes.size());
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno != EINTR) return ErrnoStatus(errno, "read " + what);
  }
}

Result<UniqueFd> DuplicateFd(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy.valid()) return ErrnoStatus(errno, "duplicate a descriptor");
  return copy;
}

namespace {

Status ChangeFlag(int fd, int get, int set, int flag, bool on) {
  const int flags = ::fcntl(fd, get);
  if (flags < 0) return ErrnoStatus(errno, "fcntl");
  const int wanted = on ? (flags | flag) : (flags & ~flag);
  if (wanted != flags && ::fcntl(fd, set, wanted) < 0) {
    return ErrnoStatus(errno, "fcntl");
  }
  return {};
}

}  // namespace

Status SetNonBlocking(int fd, bool on) {
  return ChangeFlag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

Status SetCloseOnExec(int fd, bool on) {
  return ChangeFlag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

}  // namespace pos
