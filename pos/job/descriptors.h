// What a process of a job has open and mapped, read from /proc.
//
// Threads: any. Needs the right to ptrace the process.
#ifndef POS_JOB_DESCRIPTORS_H_
#define POS_JOB_DESCRIPTORS_H_

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pos/base/status.h"

namespace pos::job {

struct Descriptor {
  int number = -1;
  std::string target;  // "/path", "pipe:[1]", "anon_inode:[eventfd]", …
  int flags = 0;       // as open(2) takes them
  int mount_id = -1;
  struct stat st {};
};
// Descriptors that are closed meanwhile are left out.
Result<std::vector<Descriptor>> ListDescriptors(pid_t pid);

struct Mapping {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  bool writable = false;
  bool shared = false;
  std::uint64_t inode = 0;
  std::uint64_t device = 0;  // as in st_dev
  std::string target;        // empty for anonymous memory
};
Result<std::vector<Mapping>> ListMappings(pid_t pid);

// "/path (deleted)" as /proc spells a removed file; a file whose name really
// ends so is not meant.
[[nodiscard]] bool IsDeletedTarget(const std::string& target);

// Ids of the mounts that a process sees (/proc/PID/mountinfo).
Result<std::vector<int>> ListMountIds(pid_t pid);

}  // namespace pos::job

#endif  // POS_JOB_DESCRIPTORS_H_
