// Regular files that a job has open for writing: recorded at the cut, put in
// order before a restore.
//
// Why: CRIU refuses a restore when a file that is open for more than appending
// has another size than at the dump. The main use, periodic checkpoints, then a
// crash, then a restore, would fail for every file that the job went on
// writing. So grown files are cut back, or the image's sizes are adjusted, or
// the job goes on with copies; what can be none of these is refused by name,
// before anything is touched.
//
// What it cannot do: bring back bytes that were overwritten in place, or bytes
// beyond the end of a file that shrank. The first is said as a note, when the
// file's time of modification shows it; the second is refused.
//
// Threads: any. Files are opened with the job user's rights, so that a path
// which leads elsewhere by now gives that user nothing he has not got.
//
// Test: tests/pos/job/open_files_test.cc
#ifndef POS_JOB_OPEN_FILES_H_
#define POS_JOB_OPEN_FILES_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pos/base/status.h"
#include "pos/job/job.pb.h"

namespace pos::job {

// Adds the files that these processes (pids as seen here) have open or mapped
// shared for writing. Left out: removed files, files of /proc and the like, and
// what lies below one of `exclude`.
Status RecordOpenFiles(const std::vector<pid_t>& pids,
                       const std::vector<std::string>& exclude,
                       JobImage* image);

// What has to be done so that CRIU finds the files as they were.
struct FilePlan {
  struct Cut {
    std::string path;
    std::uint64_t size_bytes = 0;
  };
  struct Adjust {  // in CRIU's files.img
    std::string path;
    std::uint64_t size_bytes = 0;
  };
  struct Copy {
    std::string path;
    std::string to;
    std::uint64_t size_bytes = 0;  // the rest is not copied
  };
  std::vector<Cut> cut;
  std::vector<Adjust> adjust;
  std::vector<Copy> copy;
  std::vector<std::string> notes;  // for the user
};

// Looks at every file that the image in `directory` needs and touches nothing.
// kNoSuch: missing; kInvalid: shrank, or changed and cannot be adjusted;
// kBusy: would be cut while a process writes it; kExists: a copy is in the way.
// `replaced`: paths that other files take the place of, not looked at.
Result<FilePlan> PlanFiles(const JobImage& image, const std::string& directory,
                           StartRestore::FilePolicy policy,
                           const std::string& copy_directory,
                           const std::vector<std::string>& replaced);

// Cuts and copies.
Status ApplyFilePlan(const FilePlan& plan, const JobImage& image);

// The directory that CRIU is to read: `directory` itself, or, when entries of
// files.img have to change, `work` (made anew) with links to the image's files
// and a changed files.img.
Result<std::string> AdjustedImages(const FilePlan& plan,
                                   const std::string& directory,
                                   const std::string& work);

}  // namespace pos::job

#endif  // POS_JOB_OPEN_FILES_H_
