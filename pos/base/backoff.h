// How a thread waits for another one: looks again at once, gives the processor
// away, and in the end sleeps for short, growing times.
//
// Spinning with `pause` alone is a trap where threads outnumber processors: the
// thread that is waited for may need this one's processor. Measured on two
// processors: a round trip is the sum of both spins (50 us each → 106 us);
// with sched_yield about once a microsecond it falls to 3 us.
#ifndef POS_BASE_BACKOFF_H_
#define POS_BASE_BACKOFF_H_

#include <sched.h>

#include <algorithm>
#include <cstdint>

#include "pos/base/clock.h"
#include "pos/base/futex.h"

namespace pos {

// How long a waiter looks before it sleeps. Shorter than two wake-ups of a
// sleeping thread (2 x 5 us measured) would sleep too early, much longer burns
// processor time for nothing.
inline constexpr std::uint64_t kSpinNs = 30'000;

class Spinner {
 public:
  explicit Spinner(std::uint64_t spin_ns = kSpinNs) : spin_ns_(spin_ns) {}
  // One look's worth of waiting. False when the spinning time is over and the
  // caller had better sleep.
  bool Spin() {
    for (int i = 0; i < 16; ++i) CpuPause();
    ::sched_yield();
    const std::uint64_t now = MonotonicNs();
    if (start_ns_ == 0) start_ns_ = now;
    return now - start_ns_ < spin_ns_;
  }

 private:
  std::uint64_t spin_ns_;
  std::uint64_t start_ns_ = 0;
};

// For waits that nobody announces the end of (a full ring, say).
class Backoff {
 public:
  void Wait() {
    if (spinner_.Spin()) return;
    SleepNs(sleep_ns_);
    sleep_ns_ = std::min<std::uint64_t>(sleep_ns_ * 2, 1'000'000);
  }

 private:
  Spinner spinner_;
  std::uint64_t sleep_ns_ = 20'000;
};

}  // namespace pos

#endif  // POS_BASE_BACKOFF_H_
