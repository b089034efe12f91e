#include "pos/job/file_copy.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "pos/base/files.h"

namespace pos::job {
namespace {

constexpr std::uint64_t kPieceBytes = 64u << 20;

Result<UniqueFd> OpenRegular(const std::string& path, int flags,
                             struct stat* st) {
  // Non-blocking: a fifo in its place must not make us wait.
  POS_ASSIGN_OR_RETURN(UniqueFd fd,
                       OpenFile(path, flags | O_NONBLOCK | O_NOCTTY));
  if (::fstat(fd.get(), st) != 0) return ErrnoStatus(errno, "stat " + path);
  if (!S_ISREG(st->st_mode)) return Invalid(path + " is not a regular file");
  return fd;
}

Status CopyBytes(int from, int to, std::uint64_t size_bytes,
                 const std::string& what) {
  bool kernel_copies = true;
  while (size_bytes > 0) {
    const auto want =
        static_cast<std::size_t>(std::min(size_bytes, kPieceBytes));
    ssize_t n = -1;
    if (kernel_copies) {
      n = ::copy_file_range(from, nullptr, to, nullptr, want, 0);
      if (n < 0 && errno != EINTR && errno != ENOSPC && errno != EIO) {
        kernel_copies = false;  // not between these two file systems
        continue;
      }
    } else {
      n = ::sendfile(to, from, nullptr, want);
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "copy to " + what);
    if (n == 0) return Corrupt("copy to " + what + ": the file got shorter");
    size_bytes -= static_cast<std::uint64_t>(n);
  }
  return {};
}

}  // namespace

bool IsWrittenByOthers(const std::string& path) {
  struct stat st {};
  const Result<UniqueFd> fd = OpenRegular(path, O_RDONLY, &st);
  if (!fd.ok()) return false;
  if (::fcntl(fd->get(), F_SETLEASE, F_RDLCK) == 0) {
    ::fcntl(fd->get(), F_SETLEASE, F_UNLCK);
    return false;
  }
  return errno == EAGAIN;
}

Status CutFile(const std::string& path, std::uint64_t size_bytes) {
  struct stat st {};
  POS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenRegular(path, O_WRONLY, &st));
  if (static_cast<std::uint64_t>(st.st_size) < size_bytes) {
    return Invalid(path + " got shorter than " + std::to_string(size_bytes) +
                   " bytes");
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) {
    return ErrnoStatus(errno, "cut " + path);
  }
  return {};
}

Status CopyFile(const std::string& from, const std::string& to,
                std::uint64_t size_bytes) {
  struct stat st {};
  POS_ASSIGN_OR_RETURN(const UniqueFd source, OpenRegular(from, O_RDONLY, &st));
  POS_RETURN_IF_ERROR(MakeDirectories(std::filesystem::path(to).parent_path()));
  POS_ASSIGN_OR_RETURN(
      const UniqueFd target,
      OpenFile(to, O_WRONLY | O_CREAT | O_EXCL, st.st_mode & 07777));
  Status status = CopyBytes(source.get(), target.get(), size_bytes, to);
  if (status.ok() && ::fchmod(target.get(), st.st_mode & 07777) != 0) {
    status = ErrnoStatus(errno, "set the mode of " + to);
  }
  if (!status.ok()) ::unlink(to.c_str());
  return status;
}

}  // namespace pos::job
