// A small generator for tests: the same numbers on every machine and run.
#ifndef POS_TESTS_SUPPORT_RANDOM_H_
#define POS_TESTS_SUPPORT_RANDOM_H_

#include <cstdint>

namespace pos {

// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift
// generators, scrambled", 2016).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1dull;
  }
  // 0 … n - 1.
  std::uint32_t Below(std::uint32_t n) {
    return static_cast<std::uint32_t>((Next() >> 32) % n);
  }

 private:
  std::uint64_t state_;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_RANDOM_H_
