// DIR/exit.json: how a job ended, for a posd that was not there.
//
// One object: reason ("exited", "signaled", "dumped", "start-failed", "lost"),
// exit_code, signal (null without), core_dumped, ended_at (ms since the epoch),
// message. Written whole and durably before posd is told.
//
// Threads: any. Test: tests/pos/job/exit_file_test.cc
#ifndef POS_JOB_EXIT_FILE_H_
#define POS_JOB_EXIT_FILE_H_

#include <string>

#include "pos/base/status.h"
#include "pos/job/job.pb.h"

namespace pos::job {

Status WriteExitFile(const std::string& directory, const ProgramEnded& ended);
// kNoSuch while the job runs, or when pos-job was killed.
Result<ProgramEnded> ReadExitFile(const std::string& directory);

// From a wait status.
[[nodiscard]] ProgramEnded EndedFromWait(int wait_status);

}  // namespace pos::job

#endif  // POS_JOB_EXIT_FILE_H_
