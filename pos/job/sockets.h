// What a socket of another process is, for the preflight of a dump.
//
// Threads: any. Needs the right to ptrace the process (pidfd_getfd).
#ifndef POS_JOB_SOCKETS_H_
#define POS_JOB_SOCKETS_H_

#include <sys/types.h>

#include <cstdint>
#include <set>
#include <string>

namespace pos::job {

// Why CRIU cannot carry descriptor `number` of `pid`, a socket; empty when it
// can, or when nothing could be found out (CRIU has the last word).
// `own_inodes`: inodes of all sockets of the job. `own_socket`: a Unix socket
// that is connected to one of this name is no blocker; empty: none.
// `attach_socket`: likewise, but then the answer is kBeingAttached, also when
// the connection has not been accepted yet.
inline constexpr char kBeingAttached[] = "is being attached to a device";
[[nodiscard]] std::string SocketBlocker(
    pid_t pid, int number, std::uint64_t inode,
    const std::set<std::uint64_t>& own_inodes, const std::string& own_socket,
    const std::string& attach_socket);

}  // namespace pos::job

#endif  // POS_JOB_SOCKETS_H_
