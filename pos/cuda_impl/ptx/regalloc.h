// Places of virtual registers in a function's frame.
//
// PTX has a new virtual register for almost every value; a frame that held them
// all would not fit the caches. Registers whose lifetimes (intervals over the
// laid-out code) do not overlap share a place, within their class. That is
// right for each lane on its own, and lanes never share: a handler writes only
// the lanes that execute it, or lanes that have exited.
//
// Threads: pure function.
#ifndef POS_CUDA_IMPL_PTX_REGALLOC_H_
#define POS_CUDA_IMPL_PTX_REGALLOC_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "pos/cuda_impl/ptx/layout.h"
#include "pos/cuda_impl/ptx/lower.h"

namespace pos::ptx {

struct RegisterPlaces {
  std::vector<std::uint32_t> offset;  // in the frame, by virtual register
  std::uint32_t frame_bytes = 0;
  // Bytes to clear when a frame is made: registers that a path may read before
  // it has written them.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> zero;
};

[[nodiscard]] RegisterPlaces AllocateRegisters(
    const LowFunction& function, const std::vector<BasicBlock>& blocks,
    const std::vector<std::uint32_t>& order);

// Calls use(reg) for every register that `inst` reads and define(reg) for every
// one that it writes.
template <typename Use, typename Define>
void ForEachRegister(const LowFunction& function, std::uint32_t index, Use use,
                     Define define) {
  const LowInst& inst = function.code[index];
  const auto read = [&](const Ref& ref) {
    if (ref.kind == Ref::Kind::kVirtual) use(ref.value);
  };
  const auto write = [&](const Ref& ref) {
    if (ref.kind == Ref::Kind::kVirtual) define(ref.value);
  };
  for (const Ref* ref :
       {&inst.guard, &inst.a, &inst.b, &inst.c, &inst.e, &inst.x}) {
    read(*ref);
  }
  for (std::uint32_t i = 0; i < inst.list_count; ++i) {
    const Ref& ref = function.lists[inst.list_first + i];
    if (i >= inst.list_defined) read(ref);
    if (i < inst.list_defined) write(ref);
  }
  write(inst.d);
  write(inst.d2);
}

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_REGALLOC_H_
