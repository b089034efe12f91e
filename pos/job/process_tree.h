// The processes of a job, read from /proc.
//
// Everything below the first process of the job's pid namespace belongs to the
// job (orphans become its children). Reading a tree that runs is a snapshot
// with the usual races; a frozen tree is read exactly.
//
// Threads: any.
#ifndef POS_JOB_PROCESS_TREE_H_
#define POS_JOB_PROCESS_TREE_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "pos/base/status.h"

namespace pos::job {

struct ProcessInfo {
  pid_t pid = 0;            // as seen here
  pid_t ns_pid = 0;         // inside the job
  pid_t parent_ns_pid = 0;  // inside the job
  char state = '?';         // letter of /proc/PID/stat
  std::string name;
};

// All processes below `init` (a pid as seen here), parents before children;
// without init itself. Processes that end meanwhile are left out.
Result<std::vector<ProcessInfo>> ListJobProcesses(pid_t init);

// The process of that ns_pid below `init`; kNoSuch when there is none.
Result<ProcessInfo> FindJobProcess(pid_t init, pid_t ns_pid);

// "1042 (python3)": how processes are named in messages.
[[nodiscard]] std::string Describe(const ProcessInfo& process);

// One line "Key:\tvalue" of /proc/PID/status; empty when it is not there.
[[nodiscard]] std::string StatusField(pid_t pid, const std::string& key);

}  // namespace pos::job

#endif  // POS_JOB_PROCESS_TREE_H_
