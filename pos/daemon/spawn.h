// Starting processes of our own.
#ifndef POS_DAEMON_SPAWN_H_
#define POS_DAEMON_SPAWN_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos {

// Runs `argv` (argv[0] a path) with standard streams from /dev/null but
// standard error, and `channel` as descriptor 3. No other descriptor, a
// session of its own, default signal handling. The caller reaps it
// (ReapChildren).
Result<pid_t> SpawnWithChannel(const std::vector<std::string>& argv,
                               UniqueFd channel);

// Collects children that have ended, so that none stays a zombie.
void ReapChildren();

}  // namespace pos

#endif  // POS_DAEMON_SPAWN_H_
