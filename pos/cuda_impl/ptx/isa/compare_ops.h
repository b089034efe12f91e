// What setp and set share: comparisons of one lane, combination with a
// predicate, and the values that set writes.
#ifndef POS_CUDA_IMPL_PTX_ISA_COMPARE_OPS_H_
#define POS_CUDA_IMPL_PTX_ISA_COMPARE_OPS_H_

#include "pos/cuda_impl/ptx/isa/float_ops.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

template <Compare kCompare, typename T>
POS_INLINE bool Holds(T a, T b) {
  switch (kCompare) {
    case Compare::kEq:
      return a == b;
    case Compare::kNe:
      return (a < b) | (a > b);
    case Compare::kLt:
    case Compare::kLo:
      return a < b;
    case Compare::kLe:
    case Compare::kLs:
      return a <= b;
    case Compare::kGt:
    case Compare::kHi:
      return a > b;
    case Compare::kGe:
    case Compare::kHs:
      return a >= b;
    case Compare::kEqu:
      return !((a < b) | (a > b));
    case Compare::kNeu:
      return !(a == b);
    case Compare::kLtu:
      return !(a >= b);
    case Compare::kLeu:
      return !(a > b);
    case Compare::kGtu:
      return !(a <= b);
    case Compare::kGeu:
      return !(a < b);
    case Compare::kNum:
      return (a == a) & (b == b);
    case Compare::kNan:
      return !((a == a) & (b == b));
    case Compare::kNone:
      return false;
  }
  return false;
}

POS_INLINE u32 Combine(u32 mask, const Warp* w, const Inst* i) {
  const BoolOp op = static_cast<BoolOp>(i->flags >> kHandlerShift);
  if (op == BoolOp::kNone) return mask;
  const u32 c = Predicate(w, i->c, (i->flags & kNegateC) != 0);
  if (op == BoolOp::kAnd) return mask & c;
  return op == BoolOp::kOr ? mask | c : mask ^ c;
}

// Writes what set gives where the bit of `p` is one: the low bits of Inst::imm,
// into a register of 16 bits if kNarrowResult says so.
template <bool kPartial>
POS_INLINE void SetLanes(const Warp* w, const Inst* i, u32 p) {
  const u32 yes = static_cast<u32>(i->imm);
  if ((static_cast<u64>(i->imm) & kNarrowResult) != 0) {
    Put<kPartial>(w, Out<u16>(w, i->d), [=](unsigned l) {
      return On(p, l) ? static_cast<u16>(yes) : u16{0};
    });
    return;
  }
  Put<kPartial>(w, Out<u32>(w, i->d),
                [=](unsigned l) { return On(p, l) ? yes : 0; });
}

}  // namespace
}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_COMPARE_OPS_H_
