#include "pos/base/process.h"

#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <sstream>
#include <system_error>

#include "pos/base/clock.h"
#include "pos/base/files.h"

namespace pos {

Result<UniqueFd> OpenPidFd(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "pidfd_open " + std::to_string(pid));
  }
  return fd;
}

Status SignalPidFd(int pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) != 0) {
    return errno == ESRCH ? NoSuch("the process has ended")
                          : ErrnoStatus(errno, "pidfd_send_signal");
  }
  return {};
}

bool PidFdEnded(int pidfd) { return WaitPidFd(pidfd, 0); }

bool WaitPidFd(int pidfd, int timeout_ms) {
  const Deadline deadline = Deadline::AfterMs(
      timeout_ms < 0 ? 0 : static_cast<std::uint64_t>(timeout_ms));
  for (;;) {
    pollfd p{pidfd, POLLIN, 0};
    const int rc = ::poll(&p, 1, deadline.LeftMs());
    if (rc > 0) return true;
    if (rc == 0) return false;
    if (errno != EINTR) return false;
  }
}

Result<std::uint64_t> ProcessStartTicks(pid_t pid) {
  POS_ASSIGN_OR_RETURN(const std::string stat,
                       ReadWholeFile("/proc/" + std::to_string(pid) + "/stat"));
  // The name in field 2 may hold spaces and parentheses: count from the last.
  const std::size_t close = stat.rfind(')');
  if (close == std::string::npos) return Internal("odd /proc stat line");
  std::istringstream fields(stat.substr(close + 1));
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;
  if (!fields) return Internal("odd /proc stat line");
  return std::stoull(field);
}

Result<char> ProcessState(pid_t pid) {
  POS_ASSIGN_OR_RETURN(const std::string stat,
                       ReadWholeFile("/proc/" + std::to_string(pid) + "/stat"));
  const std::size_t close = stat.rfind(')');
  if (close == std::string::npos || close + 2 >= stat.size()) {
    return Internal("odd /proc stat line");
  }
  return stat[close + 2];
}

Result<std::uint64_t> NamespaceInode(pid_t pid, const std::string& name) {
  struct stat st {};
  const std::string path = "/proc/" + std::to_string(pid) + "/ns/" + name;
  if (::stat(path.c_str(), &st) != 0) return ErrnoStatus(errno, path);
  return static_cast<std::uint64_t>(st.st_ino);
}

Result<pid_t> InnermostPid(pid_t pid) {
  POS_ASSIGN_OR_RETURN(
      const std::string status,
      ReadWholeFile("/proc/" + std::to_string(pid) + "/status"));
  const std::size_t at = status.find("\nNSpid:");
  if (at == std::string::npos) return Internal("no NSpid in /proc status");
  std::istringstream line(
      status.substr(at + 7, status.find('\n', at + 1) - at - 7));
  pid_t inner = 0;
  for (pid_t p = 0; line >> p;) inner = p;
  if (inner <= 0) return Internal("empty NSpid in /proc status");
  return inner;
}

Result<pid_t> FindProcess(std::uint64_t pid_namespace, pid_t inner) {
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory("/proc"));
  for (const std::string& name : names) {
    pid_t pid = 0;
    const char* const end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data(), end, pid);
    if (error != std::errc() || rest != end) continue;
    const Result<std::uint64_t> space = NamespaceInode(pid, "pid");
    if (!space.ok() || *space != pid_namespace) continue;
    const Result<pid_t> inside = InnermostPid(pid);
    if (inside.ok() && *inside == inner) return pid;
  }
  return NoSuch("no process has the number " + std::to_string(inner) +
                " in its pid namespace");
}

Result<std::vector<pid_t>> ChildrenOf(pid_t pid) {
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory(tasks));
  std::vector<pid_t> children;
  for (const std::string& tid : names) {
    Result<std::string> list = ReadWholeFile(tasks + "/" + tid + "/children");
    if (!list.ok()) continue;  // the thread ended meanwhile
    std::istringstream in(*list);
    for (pid_t p = 0; in >> p;) children.push_back(p);
  }
  return children;
}

bool IsSafeName(const std::string& name) {
  if (name.empty() || name.size() > 64 || name[0] == '.' || name[0] == '-') {
    return false;
  }
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

}  // namespace pos
