// Local memory that is taken while a function runs: alloca, stacksave,
// stackrestore. It is taken from the end of a lane's local memory downwards,
// above what is set aside for the frames of functions.
#include <bit>
#include <cstring>

#include "pos/cuda_impl/ptx/block.h"
#include "pos/cuda_impl/ptx/control.h"

namespace pos::ptx::control {
namespace {

std::uint64_t LaneOf(const Warp& warp, const Inst& inst, std::uint32_t lane) {
  std::uint64_t value = 0;
  std::memcpy(
      &value,
      warp.base[inst.a & 3] + (inst.a >> 2) + std::size_t{lane} * inst.n,
      inst.n);
  return value;
}

void SetLane(const Warp& warp, const Inst& inst, std::uint32_t lane,
             std::uint64_t value) {
  std::memcpy(warp.base[kInFrame] + inst.d + std::size_t{lane} * inst.n, &value,
              inst.n);
}

}  // namespace

const Inst* Alloca(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    const std::uint64_t bytes = LaneOf(*warp, *inst, lane);
    const std::uint64_t top = warp->stack[lane];
    const auto mask = static_cast<std::uint64_t>(inst->imm - 1);
    const std::uint64_t at = bytes > top ? 0 : (top - bytes) & ~mask;
    if (bytes > top || at < warp->local_frames) {
      return RaiseFault(warp, inst, lane, kErrorHardwareStack, bytes,
                        "the stack is too small for an alloca");
    }
    warp->stack[lane] = static_cast<std::uint32_t>(at);
    SetLane(*warp, *inst, lane, at);
  }
  return inst + 1;
}

const Inst* StackSave(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    SetLane(*warp, *inst, lane, warp->stack[lane]);
  }
  return inst + 1;
}

const Inst* StackRestore(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    const std::uint64_t to = LaneOf(*warp, *inst, lane);
    if (to < warp->local_frames || to > warp->local_stride) {
      return RaiseFault(warp, inst, lane, kErrorLaunchFailed, to,
                        "restores a stack that was not saved");
    }
    warp->stack[lane] = static_cast<std::uint32_t>(to);
  }
  return inst + 1;
}

}  // namespace pos::ptx::control
