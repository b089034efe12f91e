// Holds what an analysis says of a launch against what the launch does.
//
//   writes  every byte of every allocation that is different afterwards lies
//           in the proven writes
//   reads   once more from the same memory, but with all bytes that are
//           neither read nor written, it is said, changed: it leaves the same
//
// Threads: one at a time.
#ifndef TESTS_POS_CUDA_IMPL_ACCESS_CHECKED_LAUNCH_H_
#define TESTS_POS_CUDA_IMPL_ACCESS_CHECKED_LAUNCH_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "pos/cuda_impl/access/kernel_access.h"
#include "tests/pos/cuda_impl/ptx/harness.h"

namespace pos::access::testing {

class TestMemoryMap final : public MemoryMap {
 public:
  explicit TestMemoryMap(ptx::testing::TestMemory* memory) : memory_(memory) {}
  Found Find(DeviceAddress address, MemoryRange* range) const override;

 private:
  ptx::testing::TestMemory* const memory_;
};

// Contents of memory by address.
using Contents = std::map<std::uint64_t, std::vector<std::byte>>;
Contents Snapshot(ptx::testing::TestMemory* memory);
void Restore(const Contents& contents);

// The first byte that differs and that no range holds; empty: there is none.
std::string FirstUnforeseen(const Contents& before, const Contents& after,
                            const std::vector<MemoryRange>& ranges);
// Changes all bytes outside of the ranges.
void Scramble(const Contents& contents, const std::vector<MemoryRange>& ranges);

struct CheckCounts {
  int proven = 0;
  int other = 0;  // nothing to check
};
const CheckCounts& Counts();

// From now on, every launch of a TestModule is checked: ADD_FAILURE otherwise.
void CheckAllLaunches();

}  // namespace pos::access::testing

#endif  // TESTS_POS_CUDA_IMPL_ACCESS_CHECKED_LAUNCH_H_
