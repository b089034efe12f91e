// From a forked child of init to the caller's program.
#ifndef POS_JOB_PROGRAM_H_
#define POS_JOB_PROGRAM_H_

#include <array>

#include "pos/job/job.pb.h"

namespace pos::job {

struct ProgramStreams {
  // Descriptors for 0, 1, 2; -1: /dev/null.
  std::array<int, 3> fds = {-1, -1, -1};
  int terminal = -1;  // becomes the controlling terminal; -1: none
};

// In the child: waits for one byte on `gate_fd`, becomes what `program` asks
// for and executes it. What could not be done exactly as asked, and why it
// failed, goes to `outcome_fd` as StartOutcome messages; that descriptor closes
// by itself when the program runs. Never returns.
[[noreturn]] void BecomeProgram(const StartProgram& program,
                                const ProgramStreams& streams, int gate_fd,
                                int outcome_fd);

}  // namespace pos::job

#endif  // POS_JOB_PROGRAM_H_
