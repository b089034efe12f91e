// Integer arithmetic.
#include "pos/cuda_impl/ptx/isa/handlers.h"
#include "pos/cuda_impl/ptx/isa/int_ops.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

// Sums with the carry flag. A subtraction adds the complement, so its flag says
// that there was no borrow: the ISA's text leaves that open, but nvcc reads the
// flag of sub.cc by addc (its division of 128 bits does).
template <typename T, bool kSubtract, bool kIn, bool kOut>
struct Carried {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const T* a = In<T>(w, i->a);
    const T* b = In<T>(w, i->b);
    const u32 in = !kIn ? 0 : kSubtract ? ~Carry(w) : Carry(w);
    const u32 out = MaskWhere([=](unsigned l) {
      const T one = On(in, l) ? T{1} : T{0};
      const T first = static_cast<T>(kSubtract ? a[l] - b[l] : a[l] + b[l]);
      const bool over = kSubtract ? a[l] < b[l] : first < a[l];
      const bool again =
          kSubtract ? first < one : static_cast<T>(first + one) < first;
      return over | again;
    });
    Put<kPartial>(w, Out<T>(w, i->d), [=](unsigned l) {
      const T one = On(in, l) ? T{1} : T{0};
      return static_cast<T>(kSubtract ? a[l] - b[l] - one : a[l] + b[l] + one);
    });
    if (kOut) SetPredicate(w, 0, kSubtract ? ~out : out);
    return i + 1;
  }
};

template <bool kSubtract>
HandlerPair PickCarried(const PickKey& k) {
  const bool in = (k.words & kCarryIn) != 0;
  const bool out = (k.words & kCarryOut) != 0;
  if (Bytes(k.type[0]) == 8) {
    if (!in) return Pair<Carried<u64, kSubtract, false, true>>();
    return out ? Pair<Carried<u64, kSubtract, true, true>>()
               : Pair<Carried<u64, kSubtract, true, false>>();
  }
  if (!in) return Pair<Carried<u32, kSubtract, false, true>>();
  return out ? Pair<Carried<u32, kSubtract, true, true>>()
             : Pair<Carried<u32, kSubtract, true, false>>();
}

// A half of a product plus c plus the carry flag.
template <typename T, bool kHigh, bool kSign, bool kIn, bool kOut>
struct MadCarried {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const T* a = In<T>(w, i->a);
    const T* b = In<T>(w, i->b);
    const T* c = In<T>(w, i->c);
    alignas(64) T half[kLanes];
    alignas(64) T sum[kLanes];
    const u32 in = kIn ? Carry(w) : 0;
    POS_LANES(l) {
      half[l] = kHigh ? MulHi<kSign>::template Do<T>(a[l], b[l])
                      : MulLo::Do<T>(a[l], b[l]);
    }
    const T* product = &half[0];
    const u32 out = MaskWhere([=](unsigned l) {
      const T one = On(in, l) ? T{1} : T{0};
      const T first = static_cast<T>(product[l] + c[l]);
      return (first < c[l]) | (static_cast<T>(first + one) < first);
    });
    POS_LANES(l) {
      sum[l] = static_cast<T>(half[l] + c[l] + (On(in, l) ? T{1} : T{0}));
    }
    const T* result = &sum[0];
    Put<kPartial>(w, Out<T>(w, i->d), [=](unsigned l) { return result[l]; });
    if (kOut) SetPredicate(w, 0, out);
    return i + 1;
  }
};

template <typename T, bool kHigh, bool kSign>
HandlerPair PickMadFlags(const PickKey& k) {
  const bool in = (k.words & kCarryIn) != 0;
  const bool out = (k.words & kCarryOut) != 0;
  if (!in) return Pair<MadCarried<T, kHigh, kSign, false, true>>();
  return out ? Pair<MadCarried<T, kHigh, kSign, true, true>>()
             : Pair<MadCarried<T, kHigh, kSign, true, false>>();
}

template <typename T>
HandlerPair PickMadCarried(const PickKey& k) {
  if ((k.words & kHi) == 0) return PickMadFlags<T, false, false>(k);
  return Signed(k.type[0]) ? PickMadFlags<T, true, true>(k)
                           : PickMadFlags<T, true, false>(k);
}

// The low 24 bits of each factor; .hi is bits 16 to 47 of the product.
template <bool kSign, bool kHigh>
struct Mul24 {
  static POS_INLINE u32 Do(u32 a, u32 b) {
    const s64 l = kSign ? static_cast<s32>(a << 8) >> 8 : s64{a & 0xffffff};
    const s64 r = kSign ? static_cast<s32>(b << 8) >> 8 : s64{b & 0xffffff};
    const u64 product = static_cast<u64>(l * r);
    return static_cast<u32>(kHigh ? product >> 16 : product);
  }
  static POS_INLINE u32 Do(u32 a, u32 b, u32 c) { return Do(a, b) + c; }
};
struct Mad24HiSat {
  static POS_INLINE u32 Do(u32 a, u32 b, u32 c) {
    return AddSat<false>::Do(Mul24<true, true>::Do(a, b), c);
  }
};

template <bool kSign>
HandlerPair PickMul(const PickKey& k) {
  if ((k.words & kWide) != 0) {
    return Bytes(k.type[0]) == 2
               ? Pair<Binary<MulWide<kSign>, u32, u16, u16>>()
               : Pair<Binary<MulWide<kSign>, u64, u32, u32>>();
  }
  return (k.words & kHi) != 0 ? Binary16To64<MulHi<kSign>>(k)
                              : Binary16To64<MulLo>(k);
}

template <bool kSign>
HandlerPair PickMad(const PickKey& k) {
  if ((k.words & kWide) != 0) {
    return Bytes(k.type[0]) == 2
               ? Pair<Ternary<MadWide<kSign>, u32, u16, u16, u32>>()
               : Pair<Ternary<MadWide<kSign>, u64, u32, u32, u64>>();
  }
  return (k.words & kHi) != 0 ? Ternary16To64<MadHi<kSign>>(k)
                              : Ternary16To64<MadLo>(k);
}

template <bool kRemainder>
HandlerPair PickDivision(const PickKey& k) {
  return Signed(k.type[0]) ? Binary16To64<Div<true, kRemainder>>(k)
                           : Binary16To64<Div<false, kRemainder>>(k);
}

// Two 16-bit halves, each on its own.
template <typename Op>
struct Halves {
  static POS_INLINE u32 Do(u32 a, u32 b) {
    const u16 low =
        Op::template Do<u16>(static_cast<u16>(a), static_cast<u16>(b));
    const u16 high = Op::template Do<u16>(static_cast<u16>(a >> 16),
                                          static_cast<u16>(b >> 16));
    return static_cast<u32>(low) | static_cast<u32>(high) << 16;
  }
};
template <typename Op>
HandlerPair PickHalves() {
  return Pair<Binary<Halves<Op>, u32, u32, u32>>();
}

}  // namespace

HandlerPair PickAdd(const PickKey& k) { return Binary16To64<Add>(k); }
HandlerPair PickSub(const PickKey& k) { return Binary16To64<Sub>(k); }
HandlerPair PickAddX2(const PickKey&) { return PickHalves<Add>(); }
HandlerPair PickSubX2(const PickKey&) { return PickHalves<Sub>(); }
HandlerPair PickAddSat(const PickKey&) {
  return Pair<Binary<AddSat<false>, u32, u32, u32>>();
}
HandlerPair PickSubSat(const PickKey&) {
  return Pair<Binary<AddSat<true>, u32, u32, u32>>();
}
HandlerPair PickAddCarry(const PickKey& k) { return PickCarried<false>(k); }
HandlerPair PickSubCarry(const PickKey& k) { return PickCarried<true>(k); }
HandlerPair PickMadCarry(const PickKey& k) {
  return Bytes(k.type[0]) == 8 ? PickMadCarried<u64>(k)
                               : PickMadCarried<u32>(k);
}
HandlerPair PickMul(const PickKey& k) {
  return Signed(k.type[0]) ? PickMul<true>(k) : PickMul<false>(k);
}
HandlerPair PickMad(const PickKey& k) {
  return Signed(k.type[0]) ? PickMad<true>(k) : PickMad<false>(k);
}
HandlerPair PickMadHiSat(const PickKey&) {
  return Pair<Ternary<MadHiSat, u32, u32, u32, u32>>();
}
HandlerPair PickMul24(const PickKey& k) {
  const bool high = (k.words & kHi) != 0;
  if (Signed(k.type[0])) {
    return high ? Pair<Binary<Mul24<true, true>, u32, u32, u32>>()
                : Pair<Binary<Mul24<true, false>, u32, u32, u32>>();
  }
  return high ? Pair<Binary<Mul24<false, true>, u32, u32, u32>>()
              : Pair<Binary<Mul24<false, false>, u32, u32, u32>>();
}
HandlerPair PickMad24(const PickKey& k) {
  if ((k.flags & kSat) != 0) {
    return Pair<Ternary<Mad24HiSat, u32, u32, u32, u32>>();
  }
  const bool high = (k.words & kHi) != 0;
  if (Signed(k.type[0])) {
    return high ? Pair<Ternary<Mul24<true, true>, u32, u32, u32, u32>>()
                : Pair<Ternary<Mul24<true, false>, u32, u32, u32, u32>>();
  }
  return high ? Pair<Ternary<Mul24<false, true>, u32, u32, u32, u32>>()
              : Pair<Ternary<Mul24<false, false>, u32, u32, u32, u32>>();
}
HandlerPair PickDiv(const PickKey& k) { return PickDivision<false>(k); }
HandlerPair PickRem(const PickKey& k) { return PickDivision<true>(k); }
HandlerPair PickSad(const PickKey& k) {
  return Signed(k.type[0]) ? Ternary16To64<Sad<true>>(k)
                           : Ternary16To64<Sad<false>>(k);
}
HandlerPair PickNeg(const PickKey& k) { return Unary16To64<Neg>(k); }
HandlerPair PickAbs(const PickKey& k) { return Unary16To64<Abs>(k); }
HandlerPair PickMin(const PickKey& k) {
  if ((k.flags & kRelu) != 0) return Binary16To64<Relu<MinS>>(k);
  return Signed(k.type[0]) ? Binary16To64<MinS>(k) : Binary16To64<MinU>(k);
}
HandlerPair PickMax(const PickKey& k) {
  if ((k.flags & kRelu) != 0) return Binary16To64<Relu<MaxS>>(k);
  return Signed(k.type[0]) ? Binary16To64<MaxS>(k) : Binary16To64<MaxU>(k);
}
HandlerPair PickMinX2(const PickKey& k) {
  if ((k.flags & kRelu) != 0) return PickHalves<Relu<MinS>>();
  return Signed(k.type[0]) ? PickHalves<MinS>() : PickHalves<MinU>();
}
HandlerPair PickMaxX2(const PickKey& k) {
  if ((k.flags & kRelu) != 0) return PickHalves<Relu<MaxS>>();
  return Signed(k.type[0]) ? PickHalves<MaxS>() : PickHalves<MaxU>();
}

}  // namespace pos::ptx::POS_PTX_ISA
