// Clocks. Nanoseconds are std::uint64_t with a _ns suffix everywhere.
#ifndef POS_BASE_CLOCK_H_
#define POS_BASE_CLOCK_H_

#include <cstdint>

namespace pos {

[[nodiscard]] std::uint64_t MonotonicNs();  // CLOCK_MONOTONIC
[[nodiscard]] std::uint64_t WallClockMs();  // since the epoch
void SleepNs(std::uint64_t duration_ns);    // at least; not cut by signals

// A point in time by which something must be done.
class Deadline {
 public:
  static Deadline After(std::uint64_t duration_ns) {
    return Deadline(MonotonicNs() + duration_ns);
  }
  static Deadline AfterMs(std::uint64_t ms) { return After(ms * 1000000); }
  [[nodiscard]] bool Passed() const { return MonotonicNs() >= at_ns_; }
  // 0 when passed.
  [[nodiscard]] std::uint64_t LeftNs() const {
    const std::uint64_t now = MonotonicNs();
    return now >= at_ns_ ? 0 : at_ns_ - now;
  }
  // For poll(2): rounded up, so that a positive rest never becomes 0.
  [[nodiscard]] int LeftMs() const {
    const std::uint64_t ms = (LeftNs() + 999999) / 1000000;
    return ms > 0x7fffffff ? 0x7fffffff : static_cast<int>(ms);
  }

 private:
  explicit Deadline(std::uint64_t at_ns) : at_ns_(at_ns) {}
  std::uint64_t at_ns_;
};

}  // namespace pos

#endif  // POS_BASE_CLOCK_H_
