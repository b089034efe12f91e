// At which times, and how patiently, a job's standstill is tried.
//
// Calls that only take their time come to rest if one waits long enough. Calls
// that wait for a later call of the same program (a kernel that spins on what
// the next copy sets) never do while the gate is closed: then every moment of
// the attempt is lost to the job, and only another instant helps. Nobody can
// tell the two apart from outside, so attempts begin short and double: what
// only takes its time costs less than three times that, and the others get many
// instants for little.
//
// Threads: a value.
#ifndef POS_DAEMON_QUIESCE_PLAN_H_
#define POS_DAEMON_QUIESCE_PLAN_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace pos {

struct QuiescePlan {
  // Each attempt is this much more patient than the one before.
  static constexpr std::uint64_t kGrowth = 2;
  // Pauses double up to this many times the first.
  static constexpr std::uint64_t kLongestPause = 4;

  std::uint64_t first_drain_ms = 20;
  std::uint64_t drain_ms = 2000;  // the longest
  std::uint32_t retries = 9;
  std::uint64_t backoff_ms = 200;

  [[nodiscard]] std::uint32_t attempts() const { return retries + 1; }
  // How long attempt `number` (from 0) waits for the device.
  [[nodiscard]] std::uint64_t DrainMs(std::uint32_t number) const {
    std::uint64_t ms = std::max<std::uint64_t>(first_drain_ms, 1);
    for (; number > 0 && ms < drain_ms; --number) ms *= kGrowth;
    return std::min(ms, drain_ms);
  }
  // How long the job then runs undisturbed; 0 after the last attempt.
  [[nodiscard]] std::uint64_t PauseMs(std::uint32_t number,
                                      std::size_t sessions) const {
    return sessions == 1 ? 0 : BetweenMs(number);
  }
  // How long the session of a job that has one is watched instead.
  [[nodiscard]] std::uint64_t WatchMs(std::uint32_t number,
                                      std::size_t sessions) const {
    return sessions == 1 ? BetweenMs(number) : 0;
  }

 private:
  [[nodiscard]] std::uint64_t BetweenMs(std::uint32_t number) const {
    if (number + 1 >= attempts()) return 0;
    std::uint64_t times = 1;
    for (; number > 0 && times < kLongestPause; --number) times *= 2;
    return backoff_ms * times;
  }
};

}  // namespace pos

#endif  // POS_DAEMON_QUIESCE_PLAN_H_
