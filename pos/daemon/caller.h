// Who asks posd for something, and the standard streams he hands over.
#ifndef POS_DAEMON_CALLER_H_
#define POS_DAEMON_CALLER_H_

#include <sys/types.h>

#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos {

// Who asks, as the kernel says.
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  pid_t pid = 0;
};

// The caller's standard streams; none: detached.
//
// They are the caller's own open files: a file system of his may answer any
// system call on them late or never. Hand them to the job's own process; do not
// even fstat(2) them on a thread that others depend on.
struct StdioFds {
  UniqueFd in;
  UniqueFd out;
  UniqueFd err;
};

// The process that connected `socket`, a Unix socket, as it was then
// (SO_PEERCRED, SO_PEERGROUPS).
Result<Caller> PeerOf(int socket);

}  // namespace pos

#endif  // POS_DAEMON_CALLER_H_
