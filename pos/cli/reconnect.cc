#include "pos/cli/reconnect.h"

#include <optional>
#include <utility>

#include "pos/base/process.h"

namespace pos::cli {
namespace {

constexpr std::uint64_t kRetryNs = 100'000'000;

}  // namespace

JobProcess::JobProcess(pid_t pid) {
  if (pid <= 0) return;
  Result<UniqueFd> pidfd = OpenPidFd(pid);
  if (pidfd.ok()) pidfd_ = *std::move(pidfd);
}

bool JobProcess::ended() const {
  return pidfd_.valid() && PidFdEnded(pidfd_.get());
}

Result<std::unique_ptr<PosClient>> ConnectAgain(
    const std::string& path, const JobProcess& process,
    const std::function<bool()>& cancelled) {
  std::optional<Deadline> deadline;
  if (!process.known()) deadline = Deadline::AfterMs(kReconnectMs);
  for (;;) {
    if (cancelled()) return Aborted("no longer waiting for posd");
    Result<std::unique_ptr<PosClient>> client = PosClient::Connect(path);
    if (client.ok()) return client;
    if (!deadline && process.ended()) {
      deadline = Deadline::AfterMs(kReconnectAfterEndMs);
    }
    if (deadline && deadline->Passed()) {
      return Closed(process.ended()
                        ? "posd at " + path +
                              " is gone and the job has ended; its exit "
                              "status is not known"
                        : "posd at " + path + " is gone",
                    "start posd again: `pos-cli ps` shows what became of it");
    }
    SleepNs(kRetryNs);
  }
}

}  // namespace pos::cli
