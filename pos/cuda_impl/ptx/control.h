// Handlers that decide where lanes go: compiled once, for they compute nothing.
//
// Threads: as warp.h.
#ifndef POS_CUDA_IMPL_PTX_CONTROL_H_
#define POS_CUDA_IMPL_PTX_CONTROL_H_

#include <cstddef>
#include <string_view>

#include "pos/cuda_impl/ptx/isa/isa.h"
#include "pos/cuda_impl/ptx/warp.h"

namespace pos::ptx::control {

// Executes the next instruction for the lanes where predicate a holds, and goes
// on after it.
const Inst* Guard(Warp* warp, const Inst* inst);
// imm: index of the target. cost: instructions since the last branch.
const Inst* Jump(Warp* warp, const Inst* inst);
// a: predicate (kNegateA); imm: index of the target; falls through otherwise.
const Inst* Branch(Warp* warp, const Inst* inst);
// a: 32-bit index; imm: branch table of the program.
const Inst* Switch(Warp* warp, const Inst* inst);
// imm: call site; n: function of the program.
const Inst* Call(Warp* warp, const Inst* inst);
// imm: call site; a: 64-bit address of a function.
const Inst* CallIndirect(Warp* warp, const Inst* inst);
const Inst* Return(Warp* warp, const Inst* inst);
const Inst* Exit(Warp* warp, const Inst* inst);
const Inst* Trap(Warp* warp, const Inst* inst);
// Ends every program: running off it is a fault.
const Inst* OffTheEnd(Warp* warp, const Inst* inst);

// d = (address of the frame's .local variables) + imm; n: 4 or 8 bytes.
const Inst* LocalAddress(Warp* warp, const Inst* inst);
// d = special register `imm`, one that changes; n: 4 or 8 bytes.
const Inst* ReadSpecial(Warp* warp, const Inst* inst);
// d = lanes that are executing this.
const Inst* Activemask(Warp* warp, const Inst* inst);
const Inst* Fence(Warp* warp, const Inst* inst);
const Inst* Nanosleep(Warp* warp, const Inst* inst);

// d = address of a bytes of local memory, a multiple of imm; n: 4 or 8 bytes.
const Inst* Alloca(Warp* warp, const Inst* inst);
// d = where the next one would begin; back to a. n: 4 or 8 bytes.
const Inst* StackSave(Warp* warp, const Inst* inst);
const Inst* StackRestore(Warp* warp, const Inst* inst);

// a: barrier; b: threads (kHasCount) ; c: predicate (kBarRed…)
const Inst* Barrier(Warp* warp, const Inst* inst);
// The barrier of the cluster, which is this block, in two halves: a thread that
// has arrived waits until all have.
const Inst* ClusterArrive(Warp* warp, const Inst* inst);
const Inst* ClusterWait(Warp* warp, const Inst* inst);
// e: member mask
const Inst* WarpBarrier(Warp* warp, const Inst* inst);

// Bits of Inst::flags of Barrier, from kHandlerShift on.
enum BarrierFlags : std::uint32_t {
  kBarHasCount = 1u << 16,
  kBarArrive = 1u << 17,  // does not wait
  kBarPopc = 1u << 18,    // reductions, into d (popc) or predicate d
  kBarAnd = 1u << 19,
  kBarOr = 1u << 20,
};

constexpr std::uint32_t kBarriers = 16;  // that a program can name
constexpr std::uint32_t kClusterBarrier = kBarriers;

}  // namespace pos::ptx::control

// Functions that the driver provides to every module.
namespace pos::ptx::builtin {

// lists[e …]: offset in the frame's parameter bytes of the result, then of each
// argument, as the name requires.
const Inst* Vprintf(Warp* warp, const Inst* inst);
const Inst* Malloc(Warp* warp, const Inst* inst);
const Inst* Free(Warp* warp, const Inst* inst);
const Inst* AssertFail(Warp* warp, const Inst* inst);

// nullptr when there is none of that name.
Handler Find(std::string_view name);
// How many results and parameters together it has.
std::size_t Operands(std::string_view name);

}  // namespace pos::ptx::builtin

#endif  // POS_CUDA_IMPL_PTX_CONTROL_H_
