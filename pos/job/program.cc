#include "pos/job/program.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/files.h"
#include "pos/job/init.pb.h"
#include "pos/job/messages.h"

namespace pos::job {
namespace {

void ResetSignals() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) {
    // KILL, STOP and two that the C library keeps refuse.
    ::sigaction(number, &action, nullptr);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

Status ConnectStreams(const ProgramStreams& streams) {
  if (streams.terminal >= 0 && ::ioctl(streams.terminal, TIOCSCTTY, 0) != 0) {
    return ErrnoStatus(errno, "take the controlling terminal");
  }
  for (int number = 0; number < 3; ++number) {
    int from = streams.fds[static_cast<std::size_t>(number)];
    if (from < 0) {
      from = ::open("/dev/null", O_RDWR | O_CLOEXEC);
      if (from < 0) return ErrnoStatus(errno, "open /dev/null");
    }
    if (::dup2(from, number) < 0) return ErrnoStatus(errno, "dup2");
  }
  // Nothing but the standard streams reaches the program.
  if (::syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "close_range");
  }
  return {};
}

// The caller's limits. Where they are above what may be set they are lowered,
// which is a note and not an error: the service has less than the caller.
Status SetLimits(const StartProgram& program, StartOutcome* outcome) {
  for (const ResourceLimit& limit : program.limits()) {
    const auto resource = static_cast<__rlimit_resource_t>(limit.resource());
    rlimit wanted{limit.soft(), limit.hard()};
    if (::setrlimit(resource, &wanted) == 0) continue;
    if (errno != EPERM) return ErrnoStatus(errno, "set a resource limit");
    rlimit present{};
    if (::getrlimit(resource, &present) != 0) {
      return ErrnoStatus(errno, "get a resource limit");
    }
    wanted.rlim_max = std::min(wanted.rlim_max, present.rlim_max);
    wanted.rlim_cur = std::min(wanted.rlim_cur, wanted.rlim_max);
    if (::setrlimit(resource, &wanted) != 0) {
      return ErrnoStatus(errno, "set a resource limit");
    }
    outcome->add_note("resource limit " + std::to_string(limit.resource()) +
                      " is " + std::to_string(wanted.rlim_max) +
                      " instead of " + std::to_string(limit.hard()) +
                      ": posd may not set more");
  }
  return {};
}

Status TakeIdentity(const StartProgram& program) {
  if (::geteuid() == 0) {
    const std::vector<gid_t> groups(program.groups().begin(),
                                    program.groups().end());
    if (::setgroups(groups.size(), groups.data()) != 0) {
      return ErrnoStatus(errno, "set the caller's groups");
    }
    if (::setresgid(program.gid(), program.gid(), program.gid()) != 0 ||
        ::setresuid(program.uid(), program.uid(), program.uid()) != 0) {
      return ErrnoStatus(errno, "become user " + std::to_string(program.uid()));
    }
    return {};
  }
  if (program.uid() != ::geteuid() || program.gid() != ::getegid()) {
    return Denied(
        "posd does not run as root and cannot start programs of "
        "other users");
  }
  return {};
}

std::vector<char*> Pointers(
    const google::protobuf::RepeatedPtrField<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& text : strings) {
    pointers.push_back(const_cast<char*>(text.c_str()));
  }
  pointers.push_back(nullptr);
  return pointers;
}

Status Prepare(const StartProgram& program, const ProgramStreams& streams,
               StartOutcome* outcome) {
  POS_RETURN_IF_ERROR(ConnectStreams(streams));
  POS_RETURN_IF_ERROR(SetLimits(program, outcome));
  ::umask(program.umask());
  if (program.adopt_orphans() && ::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
    return ErrnoStatus(errno, "adopt orphans");
  }
  // Address randomization stays on, whatever posd itself runs with.
  ::personality(PER_LINUX);
  POS_RETURN_IF_ERROR(TakeIdentity(program));
  // With the caller's rights: it may be his alone, on a file server.
  if (::chdir(program.directory().c_str()) != 0) {
    return ErrnoStatus(errno, "change to directory " + program.directory());
  }
  return {};
}

Status Execute(const StartProgram& program) {
  if (program.argv().empty()) return Invalid("no program to run");
  std::vector<char*> argv = Pointers(program.argv());
  std::vector<char*> environment = Pointers(program.environment());
  // execvpe searches the PATH of this process.
  const char* path = nullptr;
  for (const std::string& variable : program.environment()) {
    if (variable.compare(0, 5, "PATH=") == 0) path = variable.c_str() + 5;
  }
  if (path != nullptr) {
    ::setenv("PATH", path, 1);
  } else {
    ::unsetenv("PATH");
  }
  ::execvpe(argv[0], argv.data(), environment.data());
  return ErrnoStatus(errno, "run " + program.argv(0));
}

void Report(int fd, const StartOutcome& outcome) {
  const std::string bytes = outcome.SerializeAsString();
  WriteFull(fd, std::as_bytes(std::span(bytes)), "the start's outcome")
      .IgnoreError();
}

}  // namespace

void BecomeProgram(const StartProgram& program, const ProgramStreams& streams,
                   int gate_fd, int outcome_fd) {
  ::setsid();
  ResetSignals();
  char go = 0;
  ssize_t n = -1;
  do {
    n = ::read(gate_fd, &go, 1);
  } while (n < 0 && errno == EINTR);
  if (n != 1) ::_exit(126);  // init gave up
  StartOutcome outcome;
  Status status = Prepare(program, streams, &outcome);
  if (status.ok()) {
    if (outcome.note_size() > 0) Report(outcome_fd, outcome);
    status = Execute(program);
  }
  StartOutcome failure;
  *failure.mutable_error() = ToMessage(status);
  Report(outcome_fd, failure);
  ::_exit(126);
}

}  // namespace pos::job
