#include "pos/daemon/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace pos {
namespace {

constexpr int kChannelFd = 3;

// In the child of a process with threads: only async-signal-safe calls.
[[noreturn]] void RunChild(int channel, int null_fd, char* const* argv) {
  ::setsid();
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGCHLD}) {
    ::signal(signal, SIG_DFL);
  }
  ::dup2(null_fd, STDIN_FILENO);
  ::dup2(null_fd, STDOUT_FILENO);
  if (channel != kChannelFd) {
    ::dup2(channel, kChannelFd);
  } else {
    ::fcntl(channel, F_SETFD, 0);
  }
  ::close_range(kChannelFd + 1, ~0u, 0);
  ::execv(argv[0], argv);
  ::_exit(127);
}

}  // namespace

Result<pid_t> SpawnWithChannel(const std::vector<std::string>& argv,
                               UniqueFd channel) {
  std::vector<char*> args;
  args.reserve(argv.size() + 1);
  for (const std::string& arg : argv) {
    args.push_back(const_cast<char*>(arg.c_str()));
  }
  args.push_back(nullptr);
  UniqueFd null_fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null_fd.valid()) return ErrnoStatus(errno, "open /dev/null");
  if (::access(argv[0].c_str(), X_OK) != 0) {
    return ErrnoStatus(errno, argv[0]);
  }
  const pid_t pid = ::fork();
  if (pid < 0) return ErrnoStatus(errno, "fork");
  if (pid == 0) RunChild(channel.get(), null_fd.get(), args.data());
  return pid;
}

void ReapChildren() {
  while (::waitpid(-1, nullptr, WNOHANG) > 0) {
  }
}

}  // namespace pos
