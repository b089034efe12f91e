// What a runner can no longer do once it serves a client.
#ifndef POS_RUNNER_SANDBOX_H_
#define POS_RUNNER_SANDBOX_H_

#include "pos/base/status.h"

namespace pos {

// No new privileges, and a seccomp filter that refuses (EPERM) the system
// calls by which a process gets at others or at the system: a fault in the
// parsers that handle the client's bytes gains little. For the whole process,
// for ever.
Status EnterSandbox();

}  // namespace pos

#endif  // POS_RUNNER_SANDBOX_H_
