// `pos-cli run`.
//
// In the foreground pos-cli stands in for the program: posd's pos-job has
// pos-cli's own standard streams, signals are passed on, and the exit status is
// the job's.
//
//   stdin is a terminal     raw while this process is in the foreground, else
//                           the job is told to leave standard input alone
//   Ctrl-C and the like     keys for the job's terminal; without one the
//                           terminal's signal, for all processes of the job
//   kill PID-of-pos-cli     the same signal for the program
//   SIGTSTP                 the job is stopped, then pos-cli; SIGCONT undoes it
//   SIGWINCH                the job's terminal gets the new size
//
// Signals that come while the job is being started, or while posd is away, are
// passed on afterwards; a second one that would end a program ends pos-cli.
//
// Test: tests/pos/cli/run_test.cc, terminal_test.cc
#ifndef POS_CLI_RUN_H_
#define POS_CLI_RUN_H_

#include "pos/cli/console.h"
#include "pos/cli/options.h"

namespace pos::cli {

// Both return the exit status. Call before anything starts threads.
int RunDetached(const Options& options, Console* console);
int RunForeground(const Options& options, Console* console);

}  // namespace pos::cli

#endif  // POS_CLI_RUN_H_
