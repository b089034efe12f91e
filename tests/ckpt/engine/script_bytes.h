// What scripts write, and how they compare what they read.
#ifndef POS_TESTS_CKPT_ENGINE_SCRIPT_BYTES_H_
#define POS_TESTS_CKPT_ENGINE_SCRIPT_BYTES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "tests/support/random.h"

namespace pos {

// FNV-1a over words: what matters is that it is quick and sees everything.
inline std::uint64_t HashOf(std::span<const std::byte> bytes) {
  std::uint64_t hash = 1469598103934665603ull ^ bytes.size();
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i,
                std::min(sizeof(word), bytes.size() - i));
    hash = (hash ^ word) * 1099511628211ull;
    hash ^= hash >> 29;
  }
  return hash;
}

inline std::vector<std::byte> Pattern(std::uint64_t bytes, std::uint32_t seed) {
  Random random(seed);
  std::vector<std::byte> out(bytes);
  for (std::size_t i = 0; i < bytes; i += sizeof(std::uint64_t)) {
    const std::uint64_t word = random.Next();
    std::memcpy(out.data() + i, &word,
                std::min<std::size_t>(sizeof(word), bytes - i));
  }
  return out;
}

}  // namespace pos

#endif  // POS_TESTS_CKPT_ENGINE_SCRIPT_BYTES_H_
