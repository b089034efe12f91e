#include "pos/cli/signal_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

namespace pos::cli {

Result<std::unique_ptr<SignalWatch>> SignalWatch::Start(
    const std::vector<int>& signals, Handlers handlers) {
  std::unique_ptr<SignalWatch> watch(new SignalWatch(std::move(handlers)));
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : signals) {
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) != 0) continue;
    if (action.sa_handler != SIG_IGN) ::sigaddset(&set, signal);
  }
  watch->signals_.Reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!watch->signals_.valid()) return ErrnoStatus(errno, "signalfd");
  watch->end_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!watch->end_.valid()) return ErrnoStatus(errno, "eventfd");
  ::pthread_sigmask(SIG_BLOCK, &set, &watch->blocked_before_);
  try {
    watch->thread_ = std::thread([w = watch.get()] { w->Watch(); });
  } catch (const std::system_error& error) {
    ::pthread_sigmask(SIG_SETMASK, &watch->blocked_before_, nullptr);
    return Internal(std::string("start a thread: ") + error.what());
  }
  return watch;
}

SignalWatch::~SignalWatch() {
  if (!thread_.joinable()) return;
  const std::uint64_t one = 1;
  // An eventfd that counts 0 takes a 1.
  static_cast<void>(!::write(end_.get(), &one, sizeof(one)));
  thread_.join();
  ::pthread_sigmask(SIG_SETMASK, &blocked_before_, nullptr);
}

void SignalWatch::Watch() {
  for (;;) {
    std::array<pollfd, 2> fds{};
    fds[0] = {signals_.get(), POLLIN, 0};
    fds[1] = {end_.get(), POLLIN, 0};
    const int timeout_ms = handlers_.tick_ms > 0 ? handlers_.tick_ms : -1;
    const int ready = ::poll(fds.data(), fds.size(), timeout_ms);
    if (ready < 0 && errno != EINTR) return;
    if ((fds[1].revents & POLLIN) != 0) return;
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof(info)) ==
           static_cast<ssize_t>(sizeof(info))) {
      handlers_.signal(info);
    }
    if (handlers_.tick_ms > 0) handlers_.tick();
  }
}

std::vector<int> InterruptSignals() { return {SIGINT, SIGTERM, SIGHUP}; }

std::vector<int> ForwardedSignals() {
  std::vector<int> signals = {SIGHUP,  SIGINT,    SIGQUIT, SIGTERM, SIGUSR1,
                              SIGUSR2, SIGALRM,   SIGPROF, SIGIO,   SIGPWR,
                              SIGTSTP, SIGVTALRM, SIGCONT, SIGWINCH};
  for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) {
    signals.push_back(signal);
  }
  return signals;
}

}  // namespace pos::cli
