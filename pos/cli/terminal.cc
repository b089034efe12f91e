#include "pos/cli/terminal.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>

namespace pos::cli {
namespace {

constexpr std::array<int, 9> kCrashSignals = {SIGSEGV, SIGBUS,  SIGFPE,
                                              SIGILL,  SIGABRT, SIGSYS,
                                              SIGTRAP, SIGXCPU, SIGXFSZ};

// What the crash handler gives back; -1: nothing. A signal handler has nothing
// but globals. Written before the signal handlers are set, and only then.
std::atomic<int> crash_fd{-1};
termios crash_settings;

void OnCrash(int signal) {
  const int fd = crash_fd.exchange(-1);
  // Both are async-signal-safe. SA_RESETHAND: the second time is the last.
  if (fd >= 0) ::tcsetattr(fd, TCSANOW, &crash_settings);
  ::raise(signal);
}

void CatchCrashes() {
  struct sigaction action {};
  action.sa_handler = OnCrash;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
  for (const int signal : kCrashSignals) {
    ::sigaction(signal, &action, nullptr);
  }
}

// Setting a terminal from the background would stop this process otherwise.
bool SetQuietly(int fd, const termios& settings) {
  sigset_t set;
  sigset_t before;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTTOU);
  ::pthread_sigmask(SIG_BLOCK, &set, &before);
  int result = 0;
  do {
    // Not TCSADRAIN: that waits for a terminal that nobody reads.
    result = ::tcsetattr(fd, TCSANOW, &settings);
  } while (result != 0 && errno == EINTR);
  const int error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return result == 0;
}

}  // namespace

Terminal::Terminal(int fd) : fd_(fd), is_terminal_(::isatty(fd) == 1) {}

Terminal::~Terminal() { Restore(); }

bool Terminal::InForeground() const {
  if (!is_terminal_) return false;
  const pid_t group = ::tcgetpgrp(fd_);
  return group < 0 ? errno == ENOTTY : group == ::getpgrp();
}

Status Terminal::MakeRaw(bool raw_output) {
  if (!is_terminal_ || raw_) return {};
  if (::tcgetattr(fd_, &saved_) != 0) {
    return ErrnoStatus(errno, "the terminal's settings");
  }
  termios settings = saved_;
  ::cfmakeraw(&settings);
  if (!raw_output) settings.c_oflag = saved_.c_oflag;
  crash_settings = saved_;
  crash_fd.store(fd_);
  CatchCrashes();
  if (!SetQuietly(fd_, settings)) {
    return ErrnoStatus(errno, "the terminal's settings");
  }
  raw_ = true;
  return {};
}

void Terminal::Restore() {
  if (!raw_) return;
  SetQuietly(fd_, saved_);
  Forget();
}

void Terminal::Forget() {
  crash_fd.store(-1);
  raw_ = false;
}

std::optional<winsize> TerminalSize() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    winsize size{};
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0) return size;
  }
  return std::nullopt;
}

}  // namespace pos::cli
