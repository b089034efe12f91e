// Init: first process of a job's namespaces. It starts the program, reaps
// orphans, runs CRIU, and does what has to be done inside: signals, writing
// into processes, opening files through the job's mounts.
//
// It is a fork of the monitor, single-threaded, and ends with it: the kernel
// kills it when the monitor dies (PR_SET_PDEATHSIG), and it ends by itself at
// end of file on the link. When init ends the kernel kills every process of the
// namespace. When the main program ends, init ends: what is left of the job
// ends with its program, as in a container.
#ifndef POS_JOB_INIT_H_
#define POS_JOB_INIT_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/job/job.pb.h"
#include "pos/job/stdio.h"

namespace pos::job {

// Numbers of descriptors that both sides know. CRIU opens its directories
// through init's (/proc/1/fd/N).
inline constexpr int kImagesFdInInit = 200;
inline constexpr int kWorkFdInInit = 201;
inline constexpr int kRpcFdInCriu = 100;
inline constexpr int kFirstInheritFdInCriu = 300;

// What CRIU writes to its standard output and error, in its work directory.
inline constexpr const char* kCriuOutput = "criu.out";

// A file that takes the place of one in an image. Opened again by init, through
// the job's mounts: a later dump of the restored job needs that.
struct ReplacementFile {
  std::string image_path;  // as recorded
  std::string path;        // of the new file
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

struct InitPlan {
  UniqueFd link;  // init's end of the channel to the monitor
  pid_t last_pid = 0;
  std::vector<JobEnd> ends;
  const StartProgram* program = nullptr;  // null: a restore follows
  std::vector<ReplacementFile> replacements;
  std::string criu;
  std::string plugin_directory;  // an empty directory: no CRIU plugins
  std::string compat_library;    // see CriuLaunch
};

// The body of the process. Never returns.
[[noreturn]] void RunInit(InitPlan plan);

}  // namespace pos::job

#endif  // POS_JOB_INIT_H_
