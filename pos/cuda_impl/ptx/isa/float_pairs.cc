// Arithmetic on two floats in a register, and on floats with f16 and bf16
// operands. All of it is of compute capability 10 and later, so it is written
// once, for every rounding mode and modifier.
#include "pos/cuda_impl/ptx/isa/float_ops.h"
#include "pos/cuda_impl/ptx/isa/half_lanes.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

template <typename Op, unsigned kCount>
POS_OPAQUE void Apply2(const float* a, const float* b, float* d) {
  POS_COUNT(n, kCount) { d[n] = Op::Do(a[n], b[n]); }
}
template <typename Op, unsigned kCount>
POS_OPAQUE void Apply3(const float* a, const float* b, const float* c,
                       float* d) {
  POS_COUNT(n, kCount) { d[n] = Op::Do(a[n], b[n], c[n]); }
}

template <unsigned kCount>
POS_INLINE void LoadFloats(const Warp* w, const Inst* i, u32 operand,
                           float* out) {
  const float* in = In<float>(w, operand);
  const bool flush = (i->flags & kFtz) != 0;
  POS_COUNT(n, kCount) { out[n] = flush ? Flush(in[n]) : in[n]; }
}
POS_INLINE void LoadMixed(const Warp* w, const Inst* i, u32 operand,
                          float* out) {
  const u16* in = In<u16>(w, operand);
  if ((static_cast<u64>(i->imm) & kFromBfloat) != 0) {
    WidenHalves<BfloatFormat, kLanes>(in, out);
  } else {
    WidenHalves<HalfFormat, kLanes>(in, out);
  }
}

template <bool kPartial, unsigned kCount>
POS_INLINE void StoreFloats(const Warp* w, const Inst* i, float* r) {
  const bool flush = (i->flags & kFtz) != 0;
  const bool saturate = (i->flags & kSat) != 0;
  POS_COUNT(n, kCount) {
    const float value = Canonical(flush ? Flush(r[n]) : r[n]);
    r[n] = saturate ? Saturate(value) : value;
  }
  if constexpr (kCount == kLanes) {
    Put<kPartial>(w, Out<float>(w, i->d), [=](unsigned l) { return r[l]; });
  } else {
    const u64* pairs = reinterpret_cast<const u64*>(r);
    Put<kPartial>(w, Out<u64>(w, i->d), [=](unsigned l) { return pairs[l]; });
  }
}

template <unsigned kCount>
POS_INLINE void ComputeFma(const Inst* i, const float* a, const float* b,
                           const float* c, float* r) {
  const u32 mode = i->flags & kRoundMask;
  if (mode == kRoundNearest) {
    Apply3<Fma, kCount>(a, b, c, r);
  } else {
    const RoundingScope scope(mode);
    Apply3<FmaDirected, kCount>(a, b, c, r);
  }
}

template <typename Op>
struct Pairs2 {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    constexpr unsigned kCount = 2 * kLanes;
    alignas(64) float a[kCount];
    alignas(64) float b[kCount];
    alignas(64) float r[kCount];
    LoadFloats<kCount>(w, i, i->a, a);
    LoadFloats<kCount>(w, i, i->b, b);
    {
      const RoundingScope scope(i->flags & kRoundMask);
      Apply2<Op, kCount>(a, b, r);
    }
    StoreFloats<kPartial, kCount>(w, i, r);
    return i + 1;
  }
};
struct PairsFma {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    constexpr unsigned kCount = 2 * kLanes;
    alignas(64) float a[kCount];
    alignas(64) float b[kCount];
    alignas(64) float c[kCount];
    alignas(64) float r[kCount];
    LoadFloats<kCount>(w, i, i->a, a);
    LoadFloats<kCount>(w, i, i->b, b);
    LoadFloats<kCount>(w, i, i->c, c);
    ComputeFma<kCount>(i, a, b, c, r);
    StoreFloats<kPartial, kCount>(w, i, r);
    return i + 1;
  }
};

// d = a + c, d = a - c with a narrow a.
template <typename Op>
struct Mixed2 {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    alignas(64) float a[kLanes];
    alignas(64) float r[kLanes];
    LoadMixed(w, i, i->a, a);
    {
      const RoundingScope scope(i->flags & kRoundMask);
      Apply2<Op, kLanes>(a, In<float>(w, i->b), r);
    }
    StoreFloats<kPartial, kLanes>(w, i, r);
    return i + 1;
  }
};
// d = a * b + c with narrow a and b.
struct MixedFma {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    alignas(64) float a[kLanes];
    alignas(64) float b[kLanes];
    alignas(64) float r[kLanes];
    LoadMixed(w, i, i->a, a);
    LoadMixed(w, i, i->b, b);
    ComputeFma<kLanes>(i, a, b, In<float>(w, i->c), r);
    StoreFloats<kPartial, kLanes>(w, i, r);
    return i + 1;
  }
};

}  // namespace

HandlerPair PickFAddX2(const PickKey&) { return Pair<Pairs2<FAdd>>(); }
HandlerPair PickFSubX2(const PickKey&) { return Pair<Pairs2<FSub>>(); }
HandlerPair PickFMulX2(const PickKey&) { return Pair<Pairs2<FMul>>(); }
HandlerPair PickFmaX2(const PickKey&) { return Pair<PairsFma>(); }
HandlerPair PickMixedAdd(const PickKey&) { return Pair<Mixed2<FAdd>>(); }
HandlerPair PickMixedSub(const PickKey&) { return Pair<Mixed2<FSub>>(); }
HandlerPair PickMixedFma(const PickKey&) { return Pair<MixedFma>(); }

}  // namespace pos::ptx::POS_PTX_ISA
