// Inputs that a target's reader has accepted, for its mutator to start from.
// Nearly everything that bytes are changed to at random is refused early, and
// libFuzzer keeps it all for its ways of being refused: what is accepted would
// hardly ever be tried further.
//
// Threads: one; libFuzzer calls targets from one.
#ifndef TESTS_FUZZ_ACCEPTED_H_
#define TESTS_FUZZ_ACCEPTED_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

// Defined by libFuzzer only.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size,
                                        std::size_t max_size)
    __attribute__((weak));

namespace pos::fuzz {

class Accepted {
 public:
  // Forgets the oldest beyond 256 inputs; long ones are not kept.
  void Add(std::string_view input) {
    if (input.size() > kMostBytes) return;
    if (inputs_.size() < kMost) {
      inputs_.emplace_back(input);
    } else {
      inputs_[next_++ % kMost] = input;
    }
  }
  [[nodiscard]] bool empty() const { return inputs_.empty(); }
  // Not when empty.
  [[nodiscard]] const std::string& Any(std::minstd_rand* random) const {
    return inputs_[(*random)() % inputs_.size()];
  }

  // A custom mutator: half of the time from an accepted input.
  std::size_t Mutate(std::uint8_t* data, std::size_t size, std::size_t max_size,
                     unsigned seed) const {
    std::minstd_rand random(seed);
    if (!empty() && random() % 2 == 0) {
      const std::string& input = Any(&random);
      size = std::min(input.size(), max_size);
      std::copy_n(input.begin(), size, data);
    }
    return LLVMFuzzerMutate(data, size, max_size);
  }

 private:
  static constexpr std::size_t kMost = 256;
  static constexpr std::size_t kMostBytes = 8192;
  std::vector<std::string> inputs_;
  std::size_t next_ = 0;
};

inline Accepted& AcceptedInputs() {
  static Accepted accepted;
  return accepted;
}

}  // namespace pos::fuzz

#endif  // TESTS_FUZZ_ACCEPTED_H_
