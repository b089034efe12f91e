// The order in which a function's basic blocks are laid out.
//
// Fragments that are behind run first, so "behind" must mean "on the way to
// where the others are": every block stands after its predecessors, but for
// the way back of a loop, and a loop's blocks stand together, before what
// follows the loop. (Bourdoncle's weak topological order, FMPA 1993: strongly
// connected components, recursively without their heads.) Where that leaves a
// choice, the order of the text is kept.
//
// Threads: pure functions.
#ifndef POS_CUDA_IMPL_PTX_LAYOUT_H_
#define POS_CUDA_IMPL_PTX_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "pos/cuda_impl/ptx/lower.h"

namespace pos::ptx {

struct BasicBlock {
  std::uint32_t begin = 0;  // instructions of LowFunction::code
  std::uint32_t end = 0;
  std::uint32_t fall = ast::kNone;        // block that follows without a jump
  std::vector<std::uint32_t> successors;  // `fall` among them, each once
  std::uint32_t predecessors = 0;
};

// Blocks in the order of the text; block 0 is where the function begins.
[[nodiscard]] std::vector<BasicBlock> FindBlocks(const LowFunction& function);
// Block that starts at each label.
[[nodiscard]] std::vector<std::uint32_t> BlocksOfLabels(
    const LowFunction& function, const std::vector<BasicBlock>& blocks);

// The blocks that can be reached, first block 0.
[[nodiscard]] std::vector<std::uint32_t> LayOut(
    const std::vector<std::vector<std::uint32_t>>& successors);

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_LAYOUT_H_
