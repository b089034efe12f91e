// From what the operator configured to what posd's parts take.
//
// Threads: any. No blocking.
#ifndef POS_DAEMON_SETTINGS_H_
#define POS_DAEMON_SETTINGS_H_

#include <string>

#include "conf/config.h"
#include "pos/daemon/supervisor.h"

namespace pos {

// $XDG_STATE_HOME/pos, ~/.local/state/pos; /var/lib/pos for root.
[[nodiscard]] std::string DefaultStateDirectory();

// `program_dir` is where posd lies: pos-runner and pos-job are beside it, the
// client library below ../lib/pos.
[[nodiscard]] SupervisorOptions OptionsOf(const conf::Config& config,
                                          const std::string& program_dir);
[[nodiscard]] SupervisorTunables TunablesOf(const conf::Config& config);

}  // namespace pos

#endif  // POS_DAEMON_SETTINGS_H_
