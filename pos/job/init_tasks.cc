#include "pos/job/init_tasks.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "remoting/control/channel.h"

namespace pos::job {
namespace {

constexpr std::size_t kPokeLimit = 4096;

[[noreturn]] void BecomeCriu(const CriuLaunch& launch, int rpc) {
  ::setsid();
  const UniqueFd out(::openat(kWorkFdInInit, kCriuOutput,
                              O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  ::dup2(out.get(), STDOUT_FILENO);
  ::dup2(out.get(), STDERR_FILENO);
  // First all close on exec, then copies that do not.
  ::syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
  ::dup2(rpc, kRpcFdInCriu);
  for (const auto& [from, number] : launch.inherit) ::dup2(from, number);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  // For MakeWritesFail. Not at a restore: the restored tree would have it, too.
  if (launch.dumps) ::signal(SIGXFSZ, SIG_IGN);
  const std::string number = std::to_string(kRpcFdInCriu);
  const std::string plugins = "CRIU_LIBS_DIR=" + launch.plugin_directory;
  const std::array<const char*, 4> argv = {launch.criu.c_str(), "swrk",
                                           number.c_str(), nullptr};
  const std::string preload = "LD_PRELOAD=" + launch.compat_library;
  const bool preloads = launch.dumps && !launch.compat_library.empty();
  const std::array<const char*, 4> environment = {
      "PATH=/usr/sbin:/usr/bin:/sbin:/bin", plugins.c_str(),
      preloads ? preload.c_str() : nullptr, nullptr};
  ::execve(argv[0], const_cast<char* const*>(argv.data()),
           const_cast<char* const*>(environment.data()));
  ::_exit(127);
}

}  // namespace

ProgramStreams Streams(const std::vector<JobEnd>& ends) {
  ProgramStreams streams;
  for (const JobEnd& end : ends) {
    for (std::size_t stream = 0; stream < 3; ++stream) {
      if ((end.streams & (1u << stream)) != 0) streams.fds[stream] = end.fd;
    }
    if (end.kind == StdioEndpoint::TERMINAL) streams.terminal = end.fd;
  }
  return streams;
}

Result<UniqueFd> OpenReplacement(const ReplacementFile& file) {
  POS_ASSIGN_OR_RETURN(UniqueFd fd,
                       OpenFile(file.path, O_RDWR | O_NOFOLLOW | O_NONBLOCK));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) {
    return ErrnoStatus(errno, "stat " + file.path);
  }
  if (!S_ISREG(st.st_mode) || st.st_dev != file.device ||
      st.st_ino != file.inode) {
    return Invalid(file.path +
                       " inside the job is not the file that was "
                       "handed over to replace " +
                       file.image_path,
                   "it has to lie on a file system that was mounted before "
                   "pos-job started");
  }
  return fd;
}

void EndGroup(pid_t group) {
  const Deadline deadline = Deadline::AfterMs(1000);
  while (::kill(-group, SIGKILL) == 0 && !deadline.Passed()) {
    // Children of ours by now: they have to be reaped to be gone.
    while (::waitpid(-group, nullptr, WNOHANG) > 0) {
    }
    SleepNs(1000000);
  }
}

void MakeWritesFail(pid_t criu) {
  rlimit limit{};
  if (::prlimit(criu, RLIMIT_FSIZE, nullptr, &limit) != 0) return;
  limit.rlim_cur = 0;
  ::prlimit(criu, RLIMIT_FSIZE, &limit, nullptr);
}

Status WriteIntoProcess(const Poke& poke) {
  const auto pid = static_cast<pid_t>(poke.ns_pid());
  if (pid <= 1) return Invalid("no process of the job has that id");
  const std::size_t size = poke.data().size();
  if (size == 0 || size > kPokeLimit ||
      (!poke.expected().empty() && poke.expected().size() != size)) {
    return Invalid("between 1 and " + std::to_string(kPokeLimit) +
                   " bytes can be written into a process");
  }
  std::string buffer(size, '\0');
  iovec local{buffer.data(), size};
  iovec remote{reinterpret_cast<void*>(poke.address()), size};  // NOLINT
  const std::string what = "write into process " + std::to_string(pid);
  if (!poke.expected().empty()) {
    const ssize_t n = ::process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (n < 0) return ErrnoStatus(errno, what);
    if (static_cast<std::size_t>(n) != size || buffer != poke.expected()) {
      return Invalid(what + ": its memory does not hold what was expected");
    }
  }
  buffer = poke.data();
  const ssize_t n = ::process_vm_writev(pid, &local, 1, &remote, 1, 0);
  if (n < 0) return ErrnoStatus(errno, what);
  if (static_cast<std::size_t>(n) != size) {
    return Internal(what + ": only " + std::to_string(n) + " of " +
                    std::to_string(size) + " bytes went in");
  }
  return {};
}

Result<UniqueFd> OpenForJob(const OpenInside& request) {
  const bool creates = (request.flags() & O_CREAT) != 0;
  UniqueFd fd;
  if (creates) {
    // A file that is made gets its owner before anybody can open it otherwise.
    POS_ASSIGN_OR_RETURN(
        fd, OpenFile(request.path(),
                     request.flags() | O_EXCL | O_NOFOLLOW | O_NOCTTY,
                     static_cast<mode_t>(request.mode())));
    if (::fchown(fd.get(), request.uid(), request.gid()) != 0) {
      const Status status =
          ErrnoStatus(errno, "change the owner of " + request.path());
      ::unlink(request.path().c_str());
      return status;
    }
    return fd;
  }
  return OpenFile(request.path(),
                  request.flags() | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
}

Result<UniqueFd> CriuLaunch::Start(pid_t* pid) const {
  UniqueFd ours;
  UniqueFd theirs;
  POS_RETURN_IF_ERROR(ControlChannel::MakePair(&ours, &theirs));
  const pid_t child = ::fork();
  if (child < 0) return ErrnoStatus(errno, "fork");
  if (child == 0) BecomeCriu(*this, theirs.get());
  *pid = child;
  return ours;
}

}  // namespace pos::job
