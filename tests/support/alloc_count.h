// Counts allocations of the whole process, from any thread, by replacing the
// global operator new. Link pos_test_alloc_count.
#ifndef POS_TESTS_SUPPORT_ALLOC_COUNT_H_
#define POS_TESTS_SUPPORT_ALLOC_COUNT_H_

#include <cstdint>

namespace pos {

// Calls of operator new so far.
[[nodiscard]] std::uint64_t AllocationCount();

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_ALLOC_COUNT_H_
