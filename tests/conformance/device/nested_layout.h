// Addresses of the nested device: what the inner session has is what the outer
// device reserves.
#ifndef POS_TESTS_CONFORMANCE_DEVICE_NESTED_LAYOUT_H_
#define POS_TESTS_CONFORMANCE_DEVICE_NESTED_LAYOUT_H_

#include <cstdint>

#include "pos/runner/session.h"

namespace pos::conformance {

inline constexpr std::uint64_t kNestedMemoryBytes = 256ull << 20;

inline SessionOptions NestedOptions() {
  SessionOptions options;
  options.layout.arena_base = 0x200000000000;
  options.layout.arena_bytes = 128ull << 30;
  options.layout.host_base = 0x300000000000;
  options.layout.host_bytes = 4ull << 30;
  options.stage_threads = 1;
  options.ring.staging_bytes = 16 << 20;
  return options;
}

}  // namespace pos::conformance

#endif  // POS_TESTS_CONFORMANCE_DEVICE_NESTED_LAYOUT_H_
