#include "pos/daemon/caller.h"

#include <sys/socket.h>

#include <cerrno>

namespace pos {
namespace {

constexpr std::size_t kFewGroups = 32;
constexpr std::size_t kMaxGroups = 65536;  // NGROUPS_MAX

}  // namespace

Result<Caller> PeerOf(int socket) {
  ucred cred{};
  socklen_t size = sizeof(cred);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &size) != 0) {
    return ErrnoStatus(errno, "SO_PEERCRED");
  }
  Caller caller;
  caller.uid = cred.uid;
  caller.gid = cred.gid;
  caller.pid = cred.pid;
  for (std::size_t room = kFewGroups;;) {
    caller.groups.resize(room);
    size = static_cast<socklen_t>(room * sizeof(gid_t));
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, caller.groups.data(),
                     &size) == 0) {
      caller.groups.resize(size / sizeof(gid_t));
      return caller;
    }
    // ERANGE leaves the size that is needed.
    if (errno != ERANGE || room >= kMaxGroups) {
      return ErrnoStatus(errno, "SO_PEERGROUPS");
    }
    room = size / sizeof(gid_t) > room ? size / sizeof(gid_t) : kMaxGroups;
  }
}

}  // namespace pos
