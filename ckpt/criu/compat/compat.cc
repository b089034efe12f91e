// Two answers that CRIU does not get from the kernel where it needs them.
// pos-job preloads this library into CRIU for a dump, and only then: nothing of
// the job's ever sees it.
//
// prlimit64: CRIU asks for the resource limits of every process that it dumps.
// The kernel answers only a process of the same user or one with
// CAP_SYS_RESOURCE, which root in a container usually lacks; without it root
// could not dump the jobs of other users. /proc/PID/limits says the same to
// everybody. (Giving CRIU the job's real user id works for the kernel, but
// libnftables, which CRIU links, ends every program whose real and effective
// user differ.)
//
// getsockopt: from Linux 6.16 on SO_PASSCRED and SO_PASSSEC do not exist for
// sockets that cannot receive credentials (EOPNOTSUPP); CRIU 4.1 asks every
// socket for them and gives up, so no job with a TCP or UDP socket could be
// dumped. What cannot be set is not set.
//
// Test: tests/ckpt/criu/compat_test.cc
#if !defined(__x86_64__)
#error "written for x86-64, as everything that POS knows about CUDA is"
#endif

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Limit {
  std::uint64_t soft;
  std::uint64_t hard;
};

constexpr std::uint64_t kUnlimited = ~0ull;
constexpr int kResources = 16;
// Columns of /proc/PID/limits, which the kernel prints with fixed widths.
constexpr std::size_t kSoftColumn = 26;
constexpr std::size_t kHardColumn = 47;

bool ParseNumber(const char* text, std::uint64_t* value) {
  if (std::strncmp(text, "unlimited", 9) == 0) {
    *value = kUnlimited;
    return true;
  }
  char* end = nullptr;
  *value = std::strtoull(text, &end, 10);
  return end != text;
}

// The line of a resource is its number, after one line of headings.
bool ReadLimit(int pid, int resource, Limit* limit) {
  if (resource < 0 || resource >= kResources) return false;
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/limits", pid);
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  char text[4096];
  const ssize_t size = ::read(fd, text, sizeof(text) - 1);
  ::close(fd);
  if (size <= 0) return false;
  text[size] = '\0';
  const char* line = text;
  for (int skip = 0; skip <= resource; ++skip) {
    line = std::strchr(line, '\n');
    if (line == nullptr) return false;
    ++line;
  }
  const char* end = std::strchr(line, '\n');
  return end != nullptr && static_cast<std::size_t>(end - line) > kHardColumn &&
         ParseNumber(line + kSoftColumn, &limit->soft) &&
         ParseNumber(line + kHardColumn, &limit->hard);
}

// A system call by the x86-64 convention: -errno on failure.
long Raw(long number, const long (&args)[6]) {
  long result = number;
  register long r10 __asm__("r10") = args[3];
  register long r8 __asm__("r8") = args[4];
  register long r9 __asm__("r9") = args[5];
  __asm__ __volatile__("syscall"
                       : "+a"(result)
                       : "D"(args[0]), "S"(args[1]), "d"(args[2]), "r"(r10),
                         "r"(r8), "r"(r9)
                       : "rcx", "r11", "memory");
  return result;
}

// 0, or -errno.
long GetOrSetLimit(const long (&args)[6]) {
  const long result = Raw(SYS_prlimit64, args);
  auto* present = reinterpret_cast<Limit*>(args[3]);
  if (result != -EPERM || args[2] != 0 || present == nullptr) return result;
  return ReadLimit(static_cast<int>(args[0]), static_cast<int>(args[1]),
                   present)
             ? 0
             : result;
}

// As the C library returns it.
long WithErrno(long result) {
  if (result >= 0 || result <= -4096) return result;
  errno = static_cast<int>(-result);
  return -1;
}

}  // namespace

#pragma GCC visibility push(default)

// CRIU asks for limits by syscall(2).
extern "C" long syscall(long number, ...) {
  long args[6];
  va_list list;
  va_start(list, number);
  for (long& arg : args) arg = va_arg(list, long);
  va_end(list);
  const long result =
      number == SYS_prlimit64 ? GetOrSetLimit(args) : Raw(number, args);
  return WithErrno(result);
}

extern "C" int getsockopt(int fd, int level, int option, void* value,
                          socklen_t* size) noexcept {
  const long args[6] = {fd,
                        level,
                        option,
                        reinterpret_cast<long>(value),
                        reinterpret_cast<long>(size),
                        0};
  const long result = Raw(SYS_getsockopt, args);
  if (result == -EOPNOTSUPP && level == SOL_SOCKET &&
      (option == SO_PASSCRED || option == SO_PASSSEC) && *size >= sizeof(int)) {
    const int unset = 0;
    std::memcpy(value, &unset, sizeof(unset));
    *size = sizeof(unset);
    return 0;
  }
  return static_cast<int>(WithErrno(result));
}

#pragma GCC visibility pop
