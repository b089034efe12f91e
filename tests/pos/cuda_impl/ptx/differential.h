// Runs one kernel on the second machine (machine.h) and on the interpreter, in
// every way that it has, and compares what they leave in memory.
#ifndef TESTS_POS_CUDA_IMPL_PTX_DIFFERENTIAL_H_
#define TESTS_POS_CUDA_IMPL_PTX_DIFFERENTIAL_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "harness.h"
#include "random_kernel.h"

namespace pos::ptx::testing {

// One way of running a kernel.
struct Way {
  IsaLevel level = BestIsaLevel();
  LanePolicy lanes = LanePolicy::kTogether;
  int threads = 1;
  std::uint64_t budget = 100000;
};
std::vector<Way> AllWays();

struct Comparison {
  enum class Kind {
    kAgrees,
    kTooLong,  // for the second machine
    kRefused,  // it is not a kernel that both must run; `text` says why
    kDiffers,  // in what it leaves; `text` says where
    kFaults,   // in the interpreter; `text` says how
    kHangs     // in the interpreter
  };
  Kind kind = Kind::kAgrees;
  std::string text;
  Way way;  // that disagrees
  [[nodiscard]] bool disagrees() const { return kind >= Kind::kDiffers; }
  std::uint64_t steps = 0;  // of the second machine
};
Comparison Compare(const RandomKernel& kernel, const std::vector<Way>& ways);

// Takes out lines while `found.way` still disagrees in the same manner, for
// `limit` at most.
RandomKernel Reduced(RandomKernel kernel, const Comparison& found,
                     std::chrono::seconds limit);

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_DIFFERENTIAL_H_
