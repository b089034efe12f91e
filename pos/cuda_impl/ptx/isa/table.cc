// The table of one level: handlers by row, and the loop that runs them.
#include "pos/cuda_impl/ptx/isa/handlers.h"
#include "pos/cuda_impl/ptx/isa/lanes.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

constexpr HandlerPair (*kPicks[])(const PickKey& key) = {
#define POS_PTX_OP(base, pattern, shape, operands, pick) &Pick##pick,
#include "pos/cuda_impl/ptx/opcodes.def"
#undef POS_PTX_OP
};

HandlerPair Pick(std::uint32_t row, const PickKey& key) {
  return kPicks[row](key);
}

void Run(Warp* warp, const Inst* at) {
  do {
    at = at->fn[warp->partial](warp, at);
  } while (at != nullptr);
}

}  // namespace

HandlerPair PickNone(const PickKey&) { return {}; }

extern const IsaTable kTable;
const IsaTable kTable = {&Pick, &Run};

}  // namespace pos::ptx::POS_PTX_ISA
