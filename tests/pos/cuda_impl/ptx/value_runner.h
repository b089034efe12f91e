// Runs one instruction on many operands and compares with the reference.
#ifndef TESTS_POS_CUDA_IMPL_PTX_VALUE_RUNNER_H_
#define TESTS_POS_CUDA_IMPL_PTX_VALUE_RUNNER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "harness.h"

namespace pos::ptx::testing {

// How the instruction stands in the kernel.
enum class Use {
  kFull,       // all lanes
  kGuarded,    // some lanes: the others keep what the destination held
  kImmediate,  // the last source is a literal
};

// Whether the shape of opcodes.def's row is one that this can run.
bool CanRunValues(std::size_t row);

// One row per thread: the register contents of the sources.
using Rows = std::vector<std::vector<std::uint64_t>>;
Rows MakeOperands(const std::string& opcode);

// `spelling`: an opcode; of a video instruction also marks of its operands,
// destination first: "vadd.u32.u32.u32 .b0 _ .h1", "vmad.s32.u32.u32 _ -.b0".
// Fails the test at the first thread whose result is not what the reference
// wants.
void CheckValues(const std::string& spelling, Use use, IsaLevel level);

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_VALUE_RUNNER_H_
