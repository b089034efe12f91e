// What pos-cli does once its command line is understood.
#ifndef POS_CLI_COMMANDS_H_
#define POS_CLI_COMMANDS_H_

#include "pos/cli/console.h"
#include "pos/cli/options.h"

namespace pos::cli {

// Returns the exit status. Call before anything starts threads.
//
// Commands that take time can be interrupted (SIGINT, SIGTERM, SIGHUP): the
// first signal asks posd to give up, a second ends pos-cli at once.
int Execute(const Options& options, Console* console);

}  // namespace pos::cli

#endif  // POS_CLI_COMMANDS_H_
