// The file of posd's Unix socket: where it is, and who may have it.
#ifndef POS_DAEMON_SOCKET_FILE_H_
#define POS_DAEMON_SOCKET_FILE_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos {

inline constexpr char kSystemSocketPath[] = "/run/pos/posd.sock";

// Where this user's posd listens unless told otherwise: root's at
// kSystemSocketPath, others' in $XDG_RUNTIME_DIR/pos, or /run/user/UID/pos.
[[nodiscard]] std::string DefaultSocketPath();

// A listening socket at a path, for one process at a time.
//
// One posd per path: "PATH.lock" is locked (flock) for as long as the object
// lives, so that of two posds that start at once one gets kExists. A socket
// file that a dead posd left behind is replaced; anything else at the path is
// not touched (kExists). The parent directory has to exist. Both files are
// removed at the end.
class SocketFile {
 public:
  // `mode`: of the socket file. Who may do what is decided by the peer's uid,
  // so 0666 lets everybody ask.
  static Result<std::unique_ptr<SocketFile>> Listen(const std::string& path,
                                                    mode_t mode);
  ~SocketFile();
  SocketFile(const SocketFile&) = delete;
  SocketFile& operator=(const SocketFile&) = delete;

  // Non-blocking, SOCK_STREAM.
  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  SocketFile() = default;
  Status TakeLock();
  Status Bind(mode_t mode);

  std::string path_;
  UniqueFd lock_;
  UniqueFd socket_;
  // Of the file, to remove no other; 0: not bound.
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace pos

#endif  // POS_DAEMON_SOCKET_FILE_H_
