#include "pos/base/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace pos {

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

bool FutexWait(const std::atomic<std::uint32_t>* word, std::uint32_t expected,
               FutexScope scope, std::uint64_t timeout_ns) {
  timespec timeout{};
  timeout.tv_sec = static_cast<time_t>(timeout_ns / 1000000000u);
  timeout.tv_nsec = static_cast<long>(timeout_ns % 1000000000u);
  const int op =
      scope == FutexScope::kPrivate ? FUTEX_WAIT_PRIVATE : FUTEX_WAIT;
  const long rc = ::syscall(SYS_futex, word, op, expected,
                            timeout_ns == 0 ? nullptr : &timeout, nullptr, 0);
  return !(rc != 0 && errno == ETIMEDOUT);
}

void FutexWake(std::atomic<std::uint32_t>* word, FutexScope scope, int count) {
  const int op =
      scope == FutexScope::kPrivate ? FUTEX_WAKE_PRIVATE : FUTEX_WAKE;
  ::syscall(SYS_futex, word, op, count, nullptr, nullptr, 0);
}

}  // namespace pos
