// Single tasks of init; see init.h.
#ifndef POS_JOB_INIT_TASKS_H_
#define POS_JOB_INIT_TASKS_H_

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/job/init.h"
#include "pos/job/job.pb.h"
#include "pos/job/program.h"

namespace pos::job {

// Which endpoint serves which stream of the program.
[[nodiscard]] ProgramStreams Streams(const std::vector<JobEnd>& ends);

// Opens a replacement and makes sure that it is the file that was meant.
Result<UniqueFd> OpenReplacement(const ReplacementFile& file);

// Kills what is left of a process group and waits, up to a second, until
// nothing is.
void EndGroup(pid_t group);

// Sets the file size limit of a CRIU that dumps (it ignores SIGXFSZ) to zero.
void MakeWritesFail(pid_t criu);

Status WriteIntoProcess(const Poke& poke);
Result<UniqueFd> OpenForJob(const OpenInside& request);

// `criu swrk` as a child of this process.
struct CriuLaunch {
  std::string criu;
  std::string plugin_directory;
  // Descriptor here, number it gets there. The work directory is
  // kWorkFdInInit; CRIU's standard output and error go to criu.out in it.
  std::vector<std::pair<int, int>> inherit;
  // Preloaded for a dump; see ckpt/criu/compat. Empty: none.
  std::string compat_library;
  bool dumps = false;

  // The other end of CRIU's RPC socket. The pair is made by this process,
  // whose /proc/PID/fd CRIU looks up descriptors in.
  Result<UniqueFd> Start(pid_t* pid) const;
};

}  // namespace pos::job

#endif  // POS_JOB_INIT_TASKS_H_
