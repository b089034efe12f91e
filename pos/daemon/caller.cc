#include "pos/daemon/caller.h"

#include <sys/socket.h>

#include <cerrno>

namespace pos {
namespace {

constexpr std::size_t kFewGroups = 32;
constexpr std::size_t kMaxGroups = 65536;  // NGROUPS_MAX

}  // namespace

Result<Caller> PeerOf(int socket) {
  int domain = 0;
  socklen_t size = sizeof(domain);
  if (::getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
    return ErrnoStatus(errno, "SO_DOMAIN");
  }
  if (domain != AF_UNIX) return Internal("not a Unix socket");
  ucred cred{};
  size = sizeof(cred);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &size) != 0) {
    return ErrnoStatus(errno, "SO_PEERCRED");
  }
  // Of a socket that nobody connected, or a user unknown to this namespace.
  if (cred.uid == static_cast<uid_t>(-1)) return Internal("peer has no uid");
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
