// The namespaces of a job: pid, mount (all mounts private, /proc its own) and
// time.
//
// Who is who: the monitor (the process that posd starts) stays outside; init is
// its child and the first process inside; the program is init's child. When
// init ends the kernel kills everything inside, and init ends with the monitor.
//
// Without root the namespaces are made inside a user namespace that maps the
// own user and group alone. Jobs then run, but cannot be dumped.
#ifndef POS_JOB_NAMESPACES_H_
#define POS_JOB_NAMESPACES_H_

#include <sys/types.h>

#include <vector>

#include "pos/base/status.h"

namespace pos::job {

// Monitor: the next child is the first process of new pid and time namespaces.
// The calling process itself stays where it is, and can have no threads then.
Status PrepareNamespaces();

// Init: takes the mount namespace, mounts /proc.
Status EnterMounts();

// Init: the next process inside gets a pid above `last_pid`.
Status SetLastPid(pid_t last_pid);

// First value for ns_last_pid of a new job; below are pos-job's own.
inline constexpr pid_t kFirstLastPid = 1000;

// A value for ns_last_pid such that the next kReservedPids processes get none
// of `ids`. kIncompatible when `pid_max` leaves no such gap.
inline constexpr pid_t kReservedPids = 256;
Result<pid_t> ChooseLastPid(const std::vector<pid_t>& ids, pid_t pid_max);
Result<pid_t> PidMax();

}  // namespace pos::job

#endif  // POS_JOB_NAMESPACES_H_
