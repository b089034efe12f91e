// What `pos-cli run` asks of posd, and what it makes of a refusal.
#ifndef POS_CLI_RUN_REQUEST_H_
#define POS_CLI_RUN_REQUEST_H_

#include <string>

#include "pos/base/status.h"
#include "pos/cli/options.h"
#include "pos/daemon/pos.pb.h"

namespace pos::cli {

// Everything that a program has from its parent, but its standard streams.
// Call before anything starts threads (the umask can only be read by setting
// it).
Result<v1::RunRequest> MakeRunRequest(const Options& options);

// The exit status after posd has refused to start `program`: a shell's 126 and
// 127 when the program is the reason. It is looked for where execvp(3) would.
[[nodiscard]] int ExitStatusFor(const Status& status,
                                const std::string& program);

}  // namespace pos::cli

#endif  // POS_CLI_RUN_REQUEST_H_
