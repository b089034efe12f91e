// pos-job: one per job, started by posd. See monitor.h.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/job/messages.h"
#include "pos/job/monitor.h"

namespace pos::job {
namespace {

constexpr int kBeginTimeoutMs = 30000;
constexpr std::uint64_t kConfigLimitBytes = 64u << 20;

constexpr const char* kUsage =
    "usage: pos-job --channel FD\n"
    "\n"
    "Runs one job. posd starts it and sends the configuration on descriptor\n"
    "FD; it is not meant to be started by hand. pos/job/job.proto has the\n"
    "protocol.\n";

int ParseChannel(int argc, char** argv) {
  int fd = -1;
  if (argc != 3 || std::strcmp(argv[1], "--channel") != 0) return -1;
  const char* end = argv[2] + std::strlen(argv[2]);
  const auto [stop, error] = std::from_chars(argv[2], end, fd);
  return error == std::errc() && stop == end && fd > 2 ? fd : -1;
}

// Whatever posd had open and forgot to close.
void CloseOthers(int channel) {
  const auto kept = static_cast<unsigned>(channel);
  if (kept > 3) ::syscall(SYS_close_range, 3, kept - 1, 0);
  ::syscall(SYS_close_range, kept + 1, ~0u, 0);
}

Result<JobConfig> ReadConfig(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return ErrnoStatus(errno, "configuration");
  // Sealed: it cannot change or shrink while we read.
  const int wanted = F_SEAL_WRITE | F_SEAL_SHRINK;
  if ((::fcntl(fd, F_GET_SEALS) & wanted) != wanted) {
    return Proto("the configuration is not a sealed memfd");
  }
  if (static_cast<std::uint64_t>(st.st_size) > kConfigLimitBytes) {
    return Proto("the configuration is too large");
  }
  std::string bytes(static_cast<std::size_t>(st.st_size), '\0');
  POS_RETURN_IF_ERROR(PreadFull(fd, std::as_writable_bytes(std::span(bytes)), 0,
                                "configuration"));
  return ParseMessage<JobConfig>(bytes);
}

// From here on standard error is the job's own file: posd's may go away.
void RedirectLog(const std::string& directory) {
  const Result<UniqueFd> log =
      OpenFile(JoinPath(directory, "pos-job.log"),
               O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW);
  if (log.ok()) ::dup2(log->get(), STDERR_FILENO);
  const Result<UniqueFd> null = OpenFile("/dev/null", O_RDWR);
  if (!null.ok()) return;
  ::dup2(null->get(), STDIN_FILENO);
  ::dup2(null->get(), STDOUT_FILENO);
}

void Protect() {
  ::setsid();
  ::umask(077);
  // A service that is stopped signals everything in its control group; when the
  // job ends is posd's decision.
  for (const int number : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGUSR1,
                           SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU}) {
    ::signal(number, SIG_IGN);
  }
  // SIGCHLD as usual, whatever posd does with it.
  ::signal(SIGCHLD, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::prctl(PR_SET_PDEATHSIG, 0);
  [[maybe_unused]] const int ignored = ::chdir("/");
}

Result<ControlChannel::Message> ReceiveBegin(int connection) {
  POS_RETURN_IF_ERROR(SetCloseOnExec(connection, true));
  POS_ASSIGN_OR_RETURN(UniqueFd copy, DuplicateFd(connection));
  ControlChannel channel(std::move(copy));
  return channel.Receive(kBeginTimeoutMs);
}

int Main(int channel_fd) {
  SetLogName("pos-job");
  CloseOthers(channel_fd);
  Protect();
  UniqueFd connection(channel_fd);
  Result<ControlChannel::Message> begin = ReceiveBegin(connection.get());
  if (!begin.ok() || begin->fds.empty()) {
    POS_LOG(kError, "no configuration from posd");
    return 2;
  }
  const Result<Begin> header = ParseMessage<Begin>(begin->bytes);
  if (!header.ok() || header->version() != kProtocolVersion) {
    POS_LOG(kError, "posd speaks another version of the protocol");
    return 2;
  }
  Result<JobConfig> config = ReadConfig(begin->fds[0].get());
  if (!config.ok()) {
    POS_LOG(kError, config.status().ToString());
    return 2;
  }
  RedirectLog(config->directory());
  begin->fds.erase(begin->fds.begin());
  Monitor monitor(std::move(*config), std::move(begin->fds),
                  std::move(connection));
  const Status status = monitor.Run();
  if (!status.ok()) POS_LOG(kError, status.ToString());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace pos::job

int main(int argc, char** argv) {
  const int channel = pos::job::ParseChannel(argc, argv);
  if (channel < 0) {
    std::fputs(pos::job::kUsage, stderr);
    return 64;
  }
  return pos::job::Main(channel);
}
