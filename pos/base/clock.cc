#include "pos/base/clock.h"

#include <cerrno>
#include <ctime>

namespace pos {
namespace {

std::uint64_t Read(clockid_t clock) {
  timespec ts{};
  ::clock_gettime(clock, &ts);
  return static_cast<std::uint64_t>(ts.tv_sec) * 1000000000u +
         static_cast<std::uint64_t>(ts.tv_nsec);
}

}  // namespace

std::uint64_t MonotonicNs() { return Read(CLOCK_MONOTONIC); }

std::uint64_t WallClockMs() { return Read(CLOCK_REALTIME) / 1000000; }

void SleepNs(std::uint64_t duration_ns) {
  timespec left{};
  left.tv_sec = static_cast<time_t>(duration_ns / 1000000000u);
  left.tv_nsec = static_cast<long>(duration_ns % 1000000000u);
  while (::clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
  }
}

}  // namespace pos
