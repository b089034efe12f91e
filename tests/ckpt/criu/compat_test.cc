// The library that answers CRIU where the kernel does not: loaded here, asked
// in a process without CAP_SYS_RESOURCE.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

namespace pos {
namespace {

using SyscallFunction = long (*)(long, ...);

void DropResourceCapability() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  ::syscall(SYS_capget, &header, data.data());
  data[CAP_TO_INDEX(CAP_SYS_RESOURCE)].effective &=
      ~CAP_TO_MASK(CAP_SYS_RESOURCE);
  ::syscall(SYS_capset, &header, data.data());
}

// In a child: what the library says about `pid` equals what `pid` set.
int AskAbout(pid_t pid) {
  DropResourceCapability();
  void* library = ::dlopen(POS_TEST_COMPAT_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return 10;
  const auto call =
      reinterpret_cast<SyscallFunction>(::dlsym(library, "syscall"));
  if (call == nullptr) return 11;
  rlimit limit{};
  if (::prlimit(pid, RLIMIT_NOFILE, nullptr, &limit) == 0) return 12;
  if (call(SYS_prlimit64, pid, RLIMIT_NOFILE, nullptr, &limit) != 0) return 13;
  if (limit.rlim_cur != 111 || limit.rlim_max != 222) return 14;
  if (call(SYS_prlimit64, pid, RLIMIT_FSIZE, nullptr, &limit) != 0) return 15;
  if (limit.rlim_cur != 4096 || limit.rlim_max != RLIM_INFINITY) return 16;
  for (int resource = 0; resource < 16; ++resource) {
    if (call(SYS_prlimit64, pid, resource, nullptr, &limit) != 0) return 17;
  }
  // Setting stays refused, and so does what does not exist.
  if (call(SYS_prlimit64, pid, RLIMIT_FSIZE, &limit, nullptr) != -1 ||
      errno != EPERM) {
    return 18;
  }
  if (call(SYS_prlimit64, pid, 99, nullptr, &limit) == 0) return 19;
  // Everything else is passed on.
  if (call(SYS_getpid) != ::getpid()) return 20;
  if (call(SYS_close, -1) != -1 || errno != EBADF) return 21;
  return 0;
}

TEST(CriuCompat, LimitsAreReadWhereTheKernelDoesNotTell) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root for another user's process";
  const pid_t other = ::fork();
  if (other == 0) {
    const rlimit files{111, 222};
    const rlimit size{4096, RLIM_INFINITY};
    ::setrlimit(RLIMIT_NOFILE, &files);
    ::setrlimit(RLIMIT_FSIZE, &size);
    if (::setuid(12345) != 0) ::_exit(1);
    ::raise(SIGSTOP);  // until killed
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(other, &status, WUNTRACED), other);
  ASSERT_TRUE(WIFSTOPPED(status));
  const pid_t asking = ::fork();
  if (asking == 0) ::_exit(AskAbout(other));
  ASSERT_EQ(::waitpid(asking, &status, 0), asking);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ::kill(other, SIGKILL);
  ::waitpid(other, &status, 0);
}

TEST(CriuCompat, SocketsThatCannotPassCredentialsDoNot) {
  using Function = int (*)(int, int, int, void*, socklen_t*);
  void* library = ::dlopen(POS_TEST_COMPAT_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << ::dlerror();
  const auto get = reinterpret_cast<Function>(::dlsym(library, "getsockopt"));
  ASSERT_NE(get, nullptr);
  const int tcp = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int local = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ASSERT_EQ(::setsockopt(local, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
  int value = -1;
  socklen_t size = sizeof(value);
  EXPECT_EQ(get(tcp, SOL_SOCKET, SO_PASSCRED, &value, &size), 0);
  EXPECT_EQ(value, 0);
  EXPECT_EQ(get(local, SOL_SOCKET, SO_PASSCRED, &value, &size), 0);
  EXPECT_EQ(value, 1);
  EXPECT_EQ(get(tcp, SOL_SOCKET, SO_TYPE, &value, &size), 0);
  EXPECT_EQ(value, SOCK_STREAM);
  EXPECT_EQ(get(tcp, SOL_SOCKET, 9999, &value, &size), -1);
  EXPECT_EQ(errno, ENOPROTOOPT);
  EXPECT_EQ(get(-1, SOL_SOCKET, SO_TYPE, &value, &size), -1);
  EXPECT_EQ(errno, EBADF);
  ::close(tcp);
  ::close(local);
}

}  // namespace
}  // namespace pos
