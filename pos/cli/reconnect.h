// posd may end and come back while its jobs go on (`posd --keep-jobs`, an
// upgrade): who waits for a job goes on waiting.
#ifndef POS_CLI_RECONNECT_H_
#define POS_CLI_RECONNECT_H_

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "pos/base/clock.h"
#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/cli/client.h"

namespace pos::cli {

// How long posd may be away when nothing is known of the job meanwhile.
inline constexpr int kReconnectMs = 30'000;
// How long after the job's end.
inline constexpr int kReconnectAfterEndMs = 2'000;

// One process of a job, watched without posd.
class JobProcess {
 public:
  // 0, or a process that cannot be watched: nothing is known.
  explicit JobProcess(pid_t pid);

  [[nodiscard]] bool known() const { return pidfd_.valid(); }
  [[nodiscard]] bool ended() const;

 private:
  UniqueFd pidfd_;
};

// Tries until there is a posd at `path` again. kClosed when it stays away: for
// as long as `process` lives, or kReconnectMs where that is not known. kAborted
// as soon as `cancelled` returns true.
Result<std::unique_ptr<PosClient>> ConnectAgain(
    const std::string& path, const JobProcess& process,
    const std::function<bool()>& cancelled);

}  // namespace pos::cli

#endif  // POS_CLI_RECONNECT_H_
