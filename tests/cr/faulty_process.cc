// A library for LD_PRELOAD in posd's environment: what happens to posd, pos-job
// or pos-runner at a moment that a test cannot hit from outside. The programs
// of jobs do not get posd's environment.
//
//   POS_FAULTY_DETACH   what a pos-runner does when it has sent the DETACH of a
//                       job's first attempt (epoch 1):
//                         end       ends at once
//                         answered  ends when the client has answered, without
//                                   having read that
//                         slow      stands still for 35 s
//   POS_FAULTY_POKES    how many writes into processes fail at first, in each
//                       job, as if the process were just ending
//   POS_FAULTY_CHILDREN set: to posd, no process has children
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "remoting/wire/attach.h"

namespace {

constexpr int kAnswerMs = 5'000;
constexpr unsigned kSlowSeconds = 35;

template <typename Function>
Function Real(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

std::string_view Wanted(const char* program, const char* variable) {
  const char* const value = std::getenv(variable);
  if (value == nullptr ||
      std::strcmp(program_invocation_short_name, program) != 0) {
    return {};
  }
  return value;
}

bool IsFirstDetach(const msghdr* message) {
  pos::wire::SessionRecord record;
  if (message->msg_iovlen != 1 ||
      message->msg_iov[0].iov_len != sizeof(record)) {
    return false;
  }
  std::memcpy(&record, message->msg_iov[0].iov_base, sizeof(record));
  return record.type == pos::wire::SessionRecordType::kDetach &&
         record.epoch == 1;
}

}  // namespace

extern "C" {

ssize_t sendmsg(int socket, const msghdr* message, int flags) {
  static const auto real = Real<decltype(&::sendmsg)>("sendmsg");
  const ssize_t n = real(socket, message, flags);
  const std::string_view how = Wanted("pos-runner", "POS_FAULTY_DETACH");
  if (how.empty() || !IsFirstDetach(message)) return n;
  if (how == "slow") {
    ::sleep(kSlowSeconds);
    return n;
  }
  pollfd p{socket, POLLIN, 0};
  if (how == "answered") ::poll(&p, 1, kAnswerMs);
  ::_exit(1);
}

ssize_t process_vm_writev(pid_t pid, const iovec* local, unsigned long locals,
                          const iovec* remote, unsigned long remotes,
                          unsigned long flags) {
  static const auto real =
      Real<decltype(&::process_vm_writev)>("process_vm_writev");
  static std::atomic<int> left = [] {
    const std::string_view count = Wanted("pos-job", "POS_FAULTY_POKES");
    return count.empty() ? 0 : std::atoi(count.data());
  }();
  if (left.fetch_sub(1) > 0) {
    errno = ESRCH;
    return -1;
  }
  left.store(0);
  return real(pid, local, locals, remote, remotes, flags);
}

int open(const char* path, int flags, ...) {
  static const auto real = Real<int (*)(const char*, int, ...)>("open");
  std::va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if (std::string_view(path).ends_with("/children") &&
      !Wanted("posd", "POS_FAULTY_CHILDREN").empty()) {
    errno = ENOENT;
    return -1;
  }
  return real(path, flags, mode);
}

}  // extern "C"
