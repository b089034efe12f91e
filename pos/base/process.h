// Other processes: identity that survives pid reuse, waiting with a bound.
#ifndef POS_BASE_PROCESS_H_
#define POS_BASE_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos {

// A descriptor that becomes readable when the process ends (pidfd_open).
Result<UniqueFd> OpenPidFd(pid_t pid);
// True when the process behind a pidfd has ended (zombies count as ended).
[[nodiscard]] bool PidFdEnded(int pidfd);
// Waits up to `timeout_ms` for the process behind a pidfd to end.
[[nodiscard]] bool WaitPidFd(int pidfd, int timeout_ms);
// kNoSuch when it has ended and been waited for.
Status SignalPidFd(int pidfd, int signal);
// Start time in clock ticks since boot (/proc/PID/stat field 22); together
// with the pid it names a process for as long as the machine is up.
Result<std::uint64_t> ProcessStartTicks(pid_t pid);
// The letter of /proc/PID/stat: 'R', 'S', 'T' (stopped by a signal), 'Z', …
Result<char> ProcessState(pid_t pid);
// Inode of /proc/PID/ns/`name` ("pid", "mnt", …).
Result<std::uint64_t> NamespaceInode(pid_t pid, const std::string& name);
// The pid of `pid` (as seen here) inside its innermost pid namespace.
Result<pid_t> InnermostPid(pid_t pid);
// The process that is `inner` in the pid namespace of that inode: its pid as
// seen here, kNoSuch when there is none. Exact: one that lives all the while is
// found, whatever else begins, ends or gets another parent. Reads all of /proc.
Result<pid_t> FindProcess(std::uint64_t pid_namespace, pid_t inner);
// Direct children, as /proc/PID/task/TID/children lists them. Not exact while
// they begin and end: the list may then leave out some that live (proc(5)).
Result<std::vector<pid_t>> ChildrenOf(pid_t pid);
// Letters, digits, ".", "_" and "-", 1 to 64 of them, no leading "." or "-":
// fit for a directory of that name.
[[nodiscard]] bool IsSafeName(const std::string& name);

}  // namespace pos

#endif  // POS_BASE_PROCESS_H_
