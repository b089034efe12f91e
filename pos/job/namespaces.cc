#include "pos/job/namespaces.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <span>
#include <string>

#include "pos/base/files.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace pos::job {
namespace {

// Kernel files take their content in one write.
Status WriteKernelFile(const std::string& path, const std::string& text) {
  POS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_WRONLY));
  return WriteFull(fd.get(), std::as_bytes(std::span(text)), path);
}

Status EnterUserNamespace() {
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWUSER) != 0) {
    return Denied("the kernel does not let an ordinary user make namespaces: " +
                      ErrnoStatus(errno, "unshare").message(),
                  "run posd as root");
  }
  POS_RETURN_IF_ERROR(WriteKernelFile("/proc/self/setgroups", "deny"));
  const auto map = [](unsigned id) {
    return std::to_string(id) + " " + std::to_string(id) + " 1";
  };
  POS_RETURN_IF_ERROR(WriteKernelFile("/proc/self/uid_map", map(uid)));
  return WriteKernelFile("/proc/self/gid_map", map(gid));
}

}  // namespace

Status PrepareNamespaces() {
  if (::geteuid() != 0) POS_RETURN_IF_ERROR(EnterUserNamespace());
  if (::unshare(CLONE_NEWTIME) != 0) {
    return Incompatible(
        "cannot make a time namespace: " +
            ErrnoStatus(errno, "unshare").message(),
        "jobs need Linux 5.6 or newer with CONFIG_TIME_NS, and the right to "
        "make namespaces");
  }
  if (::unshare(CLONE_NEWPID) != 0) {
    return ErrnoStatus(errno, "make a pid namespace");
  }
  return {};
}

Status EnterMounts() {
  if (::unshare(CLONE_NEWNS) != 0) {
    return ErrnoStatus(errno, "make a mount namespace");
  }
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return ErrnoStatus(errno, "make mounts private");
  }
  if (::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              nullptr) != 0) {
    return ErrnoStatus(errno, "mount /proc for the job");
  }
  return {};
}

Status SetLastPid(pid_t last_pid) {
  return WriteKernelFile("/proc/sys/kernel/ns_last_pid",
                         std::to_string(last_pid));
}

Result<pid_t> PidMax() {
  POS_ASSIGN_OR_RETURN(const std::string text,
                       ReadWholeFile("/proc/sys/kernel/pid_max"));
  pid_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  if (value <= 0) return Internal("odd /proc/sys/kernel/pid_max: " + text);
  return value;
}

Result<pid_t> ChooseLastPid(const std::vector<pid_t>& ids, pid_t pid_max) {
  std::vector<pid_t> sorted = ids;
  std::sort(sorted.begin(), sorted.end());
  // Above all of them, where there is room; else the first gap.
  const pid_t above =
      std::max(kFirstLastPid, sorted.empty() ? 0 : sorted.back());
  if (above < pid_max - kReservedPids) return above;
  pid_t start = kFirstLastPid;
  for (const pid_t id : sorted) {
    if (id <= start) continue;
    if (id - start > kReservedPids) return start;
    start = id;
  }
  return Incompatible("the image's process ids leave no room below pid_max " +
                          std::to_string(pid_max),
                      "raise /proc/sys/kernel/pid_max");
}

}  // namespace pos::job
