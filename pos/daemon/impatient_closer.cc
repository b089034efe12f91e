#include "pos/daemon/impatient_closer.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace pos {
namespace {

constexpr int kSignal = SIGURG;
constexpr long kPatienceNs = 1'000'000;

void DoNothing(int) {}

}  // namespace

ImpatientCloser::~ImpatientCloser() {
  if (have_timer_) ::timer_delete(timer_);
}

Status ImpatientCloser::Prepare() {
  struct sigaction old {};
  if (::sigaction(kSignal, nullptr, &old) != 0) {
    return ErrnoStatus(errno, "sigaction");
  }
  if ((old.sa_flags & SA_SIGINFO) == 0 &&
      (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN)) {
    struct sigaction action {};
    action.sa_handler = DoNothing;  // no SA_RESTART: it has to interrupt
    if (::sigaction(kSignal, &action, nullptr) != 0) {
      return ErrnoStatus(errno, "sigaction");
    }
  }
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, kSignal);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = kSignal;
  event.sigev_notify_thread_id = ::gettid();
  if (::timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0) {
    return ErrnoStatus(errno, "timer_create");
  }
  have_timer_ = true;
  return {};
}

void ImpatientCloser::Close(UniqueFd fd) {
  if (!fd.valid()) return;
  if (!have_timer_) return;  // the destructor closes
  itimerspec soon{};
  soon.it_value.tv_nsec = kPatienceNs;
  soon.it_interval.tv_nsec = kPatienceNs;
  ::timer_settime(timer_, 0, &soon, nullptr);
  fd.Reset();
  const itimerspec never{};
  ::timer_settime(timer_, 0, &never, nullptr);
}

}  // namespace pos
