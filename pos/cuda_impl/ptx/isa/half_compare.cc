// setp and set of f16 and bf16, alone or two in a register.
#include "pos/cuda_impl/ptx/isa/compare_ops.h"
#include "pos/cuda_impl/ptx/isa/half_lanes.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

template <unsigned kCount>
POS_INLINE void LoadEither(const Warp* w, const Inst* i, u32 operand,
                           float* out) {
  if ((static_cast<u64>(i->imm) & kFromBfloat) != 0) {
    LoadHalves<BfloatFormat, kCount>(In<u16>(w, operand), 0, out);
  } else {
    LoadHalves<HalfFormat, kCount>(In<u16>(w, operand), i->flags, out);
  }
}

// A bit per lane: the comparisons of the first numbers, and with kCount = 64
// those of the second ones.
struct Masks {
  u32 low;
  u32 high;
};

// Every comparison is some of: less, equal, greater, unordered.
POS_INLINE u32 Holding(const Inst* i, u32 less, u32 equal, u32 greater) {
  const u32 relation = static_cast<u32>(i->imm >> kRelationAt) & 15;
  return ((relation & kRelationLess) != 0 ? less : 0) |
         ((relation & kRelationEqual) != 0 ? equal : 0) |
         ((relation & kRelationGreater) != 0 ? greater : 0) |
         ((relation & kRelationNan) != 0 ? ~(less | equal | greater) : 0);
}
template <unsigned kCount, unsigned kFirst>
POS_INLINE u32 CompareEach(const Inst* i, const float* a, const float* b) {
  constexpr unsigned kStep = kCount / kLanes;
  const u32 less = MaskWhere([=](unsigned l) {
    return a[l * kStep + kFirst] < b[l * kStep + kFirst];
  });
  const u32 equal = MaskWhere([=](unsigned l) {
    return a[l * kStep + kFirst] == b[l * kStep + kFirst];
  });
  const u32 greater = MaskWhere([=](unsigned l) {
    return a[l * kStep + kFirst] > b[l * kStep + kFirst];
  });
  return Holding(i, less, equal, greater);
}
template <unsigned kCount>
POS_INLINE Masks CompareHalves(const Warp* w, const Inst* i) {
  alignas(64) float a[kCount];
  alignas(64) float b[kCount];
  LoadEither<kCount>(w, i, i->a, a);
  LoadEither<kCount>(w, i, i->b, b);
  return {
      CompareEach<kCount, 0>(i, a, b),
      kCount == kLanes ? 0 : CompareEach<kCount, kCount / kLanes - 1>(i, a, b)};
}

// p; of two numbers p and q.
template <unsigned kCount>
struct SetpHalves {
  static const Inst* Run(Warp* w, const Inst* i) {
    const Masks masks = CompareHalves<kCount>(w, i);
    const u32 p = Combine(masks.low, w, i);
    const u32 q = Combine(kCount == kLanes ? ~masks.low : masks.high, w, i);
    SetPredicate(w, i->d, p);
    SetPredicate(w, i->n, q);
    return i + 1;
  }
};

template <unsigned kCount>
struct SetHalves {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const Masks masks = CompareHalves<kCount>(w, i);
    const u32 p = Combine(masks.low, w, i);
    if constexpr (kCount == kLanes) {
      SetLanes<kPartial>(w, i, p);
      return i + 1;
    }
    const u32 q = Combine(masks.high, w, i);
    const u32 low = static_cast<u32>(i->imm) & 0xffff;
    const u32 high = static_cast<u32>(i->imm) & 0xffff0000;
    Put<kPartial>(w, Out<u32>(w, i->d), [=](unsigned l) {
      return (On(p, l) ? low : 0) | (On(q, l) ? high : 0);
    });
    return i + 1;
  }
};

}  // namespace

HandlerPair PickSetpHalf(const PickKey& k) {
  return Bytes(k.type[0]) == 4 ? Same<SetpHalves<64>>()
                               : Same<SetpHalves<32>>();
}
HandlerPair PickSetHalf(const PickKey& k) {
  return Bytes(k.type[1]) == 4 ? Pair<SetHalves<64>>() : Pair<SetHalves<32>>();
}

}  // namespace pos::ptx::POS_PTX_ISA
