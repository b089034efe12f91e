#include "pos/daemon/socket_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "pos/base/files.h"
#include "pos/daemon/stdio_offer.h"

namespace pos {
namespace {

Status OtherPosd(const std::string& path) {
  return Exists("another posd serves " + path,
                "stop it, or give this one another --socket and --state-dir");
}

// Nothing, or a socket that nobody listens on, may be at `path`; the latter is
// removed. The lock is held.
Status ClearPath(const std::string& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return {};
    return ErrnoStatus(errno, path);
  }
  if (!S_ISSOCK(st.st_mode)) {
    return Exists(path + " is there and is not a socket",
                  "remove it, or choose another --socket");
  }
  // Somebody without our lock: an unrelated program.
  const Result<UniqueFd> peer = ConnectToPosd(path, 0);
  if (peer.ok() || peer.status().code() == Code::kTimeout) {
    return OtherPosd(path);
  }
  return RemoveFile(path);
}

}  // namespace

std::string DefaultSocketPath() {
  if (::geteuid() == 0) return kSystemSocketPath;
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  const std::string directory = runtime != nullptr && *runtime != '\0'
                                    ? runtime
                                    : "/run/user/" + std::to_string(::getuid());
  return directory + "/pos/posd.sock";
}

Result<std::unique_ptr<SocketFile>> SocketFile::Listen(const std::string& path,
                                                       mode_t mode) {
  std::unique_ptr<SocketFile> file(new SocketFile);
  file->path_ = path;
  POS_RETURN_IF_ERROR(file->TakeLock());
  POS_RETURN_IF_ERROR(ClearPath(path));
  POS_RETURN_IF_ERROR(file->Bind(mode));
  return file;
}

Status SocketFile::TakeLock() {
  const std::string lock_path = path_ + ".lock";
  for (;;) {
    POS_ASSIGN_OR_RETURN(UniqueFd fd,
                         OpenFile(lock_path, O_RDWR | O_CREAT | O_NOFOLLOW));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return OtherPosd(path_);
      return ErrnoStatus(errno, "lock " + lock_path);
    }
    // Whoever had the lock may have removed the file in the meantime.
    struct stat ours {};
    struct stat there {};
    if (::fstat(fd.get(), &ours) != 0) return ErrnoStatus(errno, lock_path);
    if (::stat(lock_path.c_str(), &there) == 0 && ours.st_ino == there.st_ino &&
        ours.st_dev == there.st_dev) {
      lock_ = std::move(fd);
      return {};
    }
  }
}

Status SocketFile::Bind(mode_t mode) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.empty() || path_.size() >= sizeof(address.sun_path)) {
    return Invalid("the socket path \"" + path_ + "\" must have 1 to " +
                       std::to_string(sizeof(address.sun_path) - 1) + " bytes",
                   "choose a shorter --socket");
  }
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  socket_.Reset(
      ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket_.valid()) return ErrnoStatus(errno, "socket");
  if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address),
             sizeof(address)) != 0) {
    return ErrnoStatus(errno, "bind " + path_);
  }
  struct stat st {};
  if (::lstat(path_.c_str(), &st) != 0) return ErrnoStatus(errno, path_);
  device_ = st.st_dev;
  inode_ = st.st_ino;
  if (::chmod(path_.c_str(), mode) != 0) return ErrnoStatus(errno, path_);
  if (::listen(socket_.get(), SOMAXCONN) != 0) {
    return ErrnoStatus(errno, "listen on " + path_);
  }
  return {};
}

SocketFile::~SocketFile() {
  if (!lock_.valid()) return;
  struct stat st {};
  if (inode_ != 0 && ::lstat(path_.c_str(), &st) == 0 && st.st_dev == device_ &&
      st.st_ino == inode_) {
    ::unlink(path_.c_str());
  }
  ::unlink((path_ + ".lock").c_str());  // while it is still locked
}

}  // namespace pos
