// f32 and f64 arithmetic.
//
// Rounding to nearest without saturation has handlers of its own; everything
// else goes through a general one that looks at the flags when it runs.
#include "pos/cuda_impl/ptx/isa/float_ops.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

// Inst::flags say what a general handler has to do.
constexpr u32 kNotPlain = kRoundMask | kSat;

// ---- To nearest.
template <typename Op, typename T, bool kFlush>
struct Plain1 {
  static POS_INLINE T Do(T a) {
    if constexpr (kFlush) {
      const T in = Flush(a);
      return PickNan(Flush(Op::Do(in)), in);
    }
    return PickNan(Op::Do(a), a);
  }
};
template <typename Op, typename T, bool kFlush>
struct Plain2 {
  static POS_INLINE T Do(T a, T b) {
    if constexpr (kFlush) {
      return PickNan(Flush(Op::Do(Flush(a), Flush(b))), a, b);
    }
    return PickNan(Op::Do(a, b), a, b);
  }
};
template <typename Op, typename T, bool kFlush>
struct Plain3 {
  static POS_INLINE T Do(T a, T b, T c) {
    if constexpr (kFlush) {
      return PickNan(Flush(Op::Do(Flush(a), Flush(b), Flush(c))), a, b, c);
    }
    return PickNan(Op::Do(a, b, c), a, b, c);
  }
};

// ---- Any mode. Three steps: inputs, the operation, the result.
template <typename Op, typename T>
POS_OPAQUE void Apply1(const T* a, T* d) {
  POS_LANES(l) { d[l] = Op::Do(a[l]); }
}
template <typename Op, typename T>
POS_OPAQUE void Apply2(const T* a, const T* b, T* d) {
  POS_LANES(l) { d[l] = Op::Do(a[l], b[l]); }
}
template <typename Op, typename T>
POS_OPAQUE void Apply3(const T* a, const T* b, const T* c, T* d) {
  POS_LANES(l) { d[l] = Op::Do(a[l], b[l], c[l]); }
}

template <typename T>
POS_INLINE const T* Inputs(const Warp* w, const Inst* i, u32 operand,
                           T* flushed) {
  const T* a = In<T>(w, operand);
  if constexpr (sizeof(T) == 4) {
    if ((i->flags & kFtz) != 0) {
      POS_LANES(l) { flushed[l] = Flush(a[l]); }
      return flushed;
    }
  }
  return a;
}

template <typename T>
POS_INLINE void Finish(const Inst* i, T* d) {
  if constexpr (sizeof(T) == 4) {
    if ((i->flags & kFtz) != 0) {
      POS_LANES(l) { d[l] = Flush(d[l]); }
    }
  }
  if ((i->flags & kSat) != 0) {
    POS_LANES(l) { d[l] = Saturate(d[l]); }
  }
}

template <typename Op, typename T>
struct General1 {
  static const Inst* Run(Warp* w, const Inst* i) {
    alignas(64) T buffer[2][kLanes];
    const T* a = Inputs<T>(w, i, i->a, buffer[0]);
    T* r = buffer[1];
    {
      const RoundingScope scope(i->flags & kRoundMask);
      Apply1<Op, T>(a, r);
    }
    POS_LANES(l) { r[l] = PickNan(r[l], a[l]); }
    Finish<T>(i, r);
    T* d = Out<T>(w, i->d);
    POS_LANES(l) { d[l] = r[l]; }
    return i + 1;
  }
};
template <typename Op, typename T>
struct General2 {
  static const Inst* Run(Warp* w, const Inst* i) {
    alignas(64) T buffer[3][kLanes];
    const T* a = Inputs<T>(w, i, i->a, buffer[0]);
    const T* b = Inputs<T>(w, i, i->b, buffer[1]);
    T* r = buffer[2];
    {
      const RoundingScope scope(i->flags & kRoundMask);
      Apply2<Op, T>(a, b, r);
    }
    POS_LANES(l) { r[l] = PickNan(r[l], a[l], b[l]); }
    Finish<T>(i, r);
    T* d = Out<T>(w, i->d);
    POS_LANES(l) { d[l] = r[l]; }
    return i + 1;
  }
};
template <typename Nearest, typename Directed, typename T>
struct General3 {
  static const Inst* Run(Warp* w, const Inst* i) {
    alignas(64) T buffer[4][kLanes];
    const T* a = Inputs<T>(w, i, i->a, buffer[0]);
    const T* b = Inputs<T>(w, i, i->b, buffer[1]);
    const T* c = Inputs<T>(w, i, i->c, buffer[2]);
    T* r = buffer[3];
    if ((i->flags & kRoundMask) == kRoundNearest) {
      Apply3<Nearest, T>(a, b, c, r);
    } else {
      const RoundingScope scope(i->flags & kRoundMask);
      Apply3<Directed, T>(a, b, c, r);
    }
    POS_LANES(l) { r[l] = PickNan(r[l], a[l], b[l], c[l]); }
    Finish<T>(i, r);
    T* d = Out<T>(w, i->d);
    POS_LANES(l) { d[l] = r[l]; }
    return i + 1;
  }
};

template <typename Op>
HandlerPair Pick1(const PickKey& k) {
  const bool plain = (k.flags & kNotPlain) == 0;
  if (k.type[0] == Type::kF64) {
    return plain ? Pair<Unary<Plain1<Op, double, false>, double, double>>()
                 : Pair<KeepOthers<General1<Op, double>, double>>();
  }
  if (!plain) return Pair<KeepOthers<General1<Op, float>, float>>();
  return (k.flags & kFtz) != 0
             ? Pair<Unary<Plain1<Op, float, true>, float, float>>()
             : Pair<Unary<Plain1<Op, float, false>, float, float>>();
}
template <typename Op>
HandlerPair Pick2(const PickKey& k) {
  const bool plain = (k.flags & kNotPlain) == 0;
  if (k.type[0] == Type::kF64) {
    return plain ? Pair<Binary<Plain2<Op, double, false>, double, double,
                               double>>()
                 : Pair<KeepOthers<General2<Op, double>, double>>();
  }
  if (!plain) return Pair<KeepOthers<General2<Op, float>, float>>();
  return (k.flags & kFtz) != 0
             ? Pair<Binary<Plain2<Op, float, true>, float, float, float>>()
             : Pair<Binary<Plain2<Op, float, false>, float, float, float>>();
}

// |b| beyond 2^126: the reciprocal that the hardware multiplies with is zero.
template <bool kFlush>
struct DivApprox {
  static POS_INLINE float Do(float a, float b) {
    const float x = FlushIf<kFlush>(a);
    const float y = FlushIf<kFlush>(b);
    const float zero = FloatOf((BitsOf(x) ^ BitsOf(y)) & 0x80000000);
    const u32 size = BitsOf(y) & 0x7fffffff;
    const bool beyond = (size > 0x7e800000) & (size < 0x7f800000);
    const float exact = FlushIf<kFlush>(x / y);
    const float small =
        (BitsOf(x) & 0x7f800000) == 0x7f800000 ? FloatOf(kNan32) : zero;
    return Canonical(beyond ? small : exact);
  }
};

template <bool kMax>
struct FMinMaxGeneral {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    alignas(64) float buffer[2][kLanes];
    const float* a = Inputs<float>(w, i, i->a, buffer[0]);
    const float* b = Inputs<float>(w, i, i->b, buffer[1]);
    const bool nan = (i->flags & kNanFlag) != 0;
    const u32 keep = (i->flags & kXorSign) != 0 ? 0x7fffffff : ~0u;
    Put<kPartial>(w, Out<float>(w, i->d), [=](unsigned l) {
      const u32 sign = (BitsOf(a[l]) ^ BitsOf(b[l])) & ~keep;
      const float x = FloatOf(BitsOf(a[l]) & keep);
      const float y = FloatOf(BitsOf(b[l]) & keep);
      const float result = FMinMax<kMax>::Do(x, y);
      const float signed_result = FloatOf(BitsOf(result) | sign);
      const bool any_nan = (x != x) | (y != y);
      const bool all_nan = (x != x) & (y != y);
      const bool no_number = (nan & any_nan) | all_nan;
      return no_number ? FloatOf(kNan32) : signed_result;
    });
    return i + 1;
  }
};
template <bool kMax>
HandlerPair PickMinMax(const PickKey& k) {
  using Op = FMinMax<kMax>;
  if (k.type[0] == Type::kF64)
    return Pair<Binary<Op, double, double, double>>();
  if ((k.flags & (kNanFlag | kXorSign | kFtz)) != 0) {
    return Pair<FMinMaxGeneral<kMax>>();
  }
  return Pair<Binary<Op, float, float, float>>();
}

template <bool kFlush>
struct FNeg {
  static POS_INLINE float Do(float a) {
    return FloatOf(BitsOf(FlushIf<kFlush>(a)) ^ 0x80000000);
  }
  static POS_INLINE double Do(double a) {
    return DoubleOf(BitsOf(a) ^ 0x8000000000000000);
  }
};
template <bool kFlush>
struct FAbs {
  static POS_INLINE float Do(float a) {
    return FloatOf(BitsOf(FlushIf<kFlush>(a)) & 0x7fffffff);
  }
  static POS_INLINE double Do(double a) {
    return DoubleOf(BitsOf(a) & 0x7fffffffffffffff);
  }
};
template <template <bool> class Op>
HandlerPair PickSign(const PickKey& k) {
  if (k.type[0] == Type::kF64) return Pair<Unary<Op<false>, double, double>>();
  return (k.flags & kFtz) != 0 ? Pair<Unary<Op<true>, float, float>>()
                               : Pair<Unary<Op<false>, float, float>>();
}

// The sign of a and the rest of b.
struct Copysign {
  static POS_INLINE u32 Do(u32 a, u32 b) {
    return (a & 0x80000000) | (b & 0x7fffffff);
  }
  static POS_INLINE u64 Do(u64 a, u64 b) {
    return (a & 0x8000000000000000) | (b & 0x7fffffffffffffff);
  }
};

enum class Test : u32 {
  kFinite,
  kInfinite,
  kNumber,
  kNotANumber,
  kNormal,
  kSubnormal
};
template <typename T, typename U>
struct Testp {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    constexpr U kExponent = sizeof(T) == 4 ? static_cast<U>(0x7f800000)
                                           : static_cast<U>(0x7ff0000000000000);
    constexpr U kAll = static_cast<U>(~U{0} >> 1);
    const Test test = static_cast<Test>(i->flags >> kHandlerShift);
    const U* a = In<U>(w, i->a);
    u32 mask = 0;
    for (unsigned l = 0; l < kLanes; ++l) {
      const U size = a[l] & kAll;
      const bool holds =
          test == Test::kFinite       ? size < kExponent
          : test == Test::kInfinite   ? size == kExponent
          : test == Test::kNumber     ? size <= kExponent
          : test == Test::kNotANumber ? size > kExponent
          // Zeros count as normal.
          : test == Test::kNormal
              ? size == 0 || (size < kExponent && (size & kExponent) != 0)
              : size != 0 && (size & kExponent) == 0;
      mask |= static_cast<u32>(holds) << l;
    }
    SetPredicate(w, i->d, mask);
    return i + 1;
  }
};

}  // namespace

HandlerPair PickFAdd(const PickKey& k) { return Pick2<FAdd>(k); }
HandlerPair PickFSub(const PickKey& k) { return Pick2<FSub>(k); }
HandlerPair PickFMul(const PickKey& k) { return Pick2<FMul>(k); }
HandlerPair PickFDiv(const PickKey& k) { return Pick2<FDiv>(k); }
HandlerPair PickFSqrt(const PickKey& k) { return Pick1<FSqrt>(k); }
HandlerPair PickFRcp(const PickKey& k) { return Pick1<FRcp>(k); }
HandlerPair PickFma(const PickKey& k) {
  const bool plain = (k.flags & kNotPlain) == 0;
  if (k.type[0] == Type::kF64) {
    return plain
               ? Pair<Ternary<Plain3<Fma, double, false>, double, double,
                              double, double>>()
               : Pair<KeepOthers<General3<Fma, FmaDirected, double>, double>>();
  }
  if (!plain)
    return Pair<KeepOthers<General3<Fma, FmaDirected, float>, float>>();
  return (k.flags & kFtz) != 0 ? Pair<Ternary<Plain3<Fma, float, true>, float,
                                              float, float, float>>()
                               : Pair<Ternary<Plain3<Fma, float, false>, float,
                                              float, float, float>>();
}
HandlerPair PickFDivApprox(const PickKey& k) {
  const bool flush = (k.flags & kFtz) != 0;
  if ((k.words & kFull) != 0) return Pick2<FDiv>(k);
  return flush ? Pair<Binary<DivApprox<true>, float, float, float>>()
               : Pair<Binary<DivApprox<false>, float, float, float>>();
}
HandlerPair PickFMin(const PickKey& k) { return PickMinMax<false>(k); }
HandlerPair PickFMax(const PickKey& k) { return PickMinMax<true>(k); }
HandlerPair PickFNeg(const PickKey& k) { return PickSign<FNeg>(k); }
HandlerPair PickFAbs(const PickKey& k) { return PickSign<FAbs>(k); }
HandlerPair PickCopysign(const PickKey& k) {
  return k.type[0] == Type::kF64 ? Pair<Binary<Copysign, u64, u64, u64>>()
                                 : Pair<Binary<Copysign, u32, u32, u32>>();
}
HandlerPair PickTestp(const PickKey& k) {
  return k.type[0] == Type::kF64 ? Pair<Testp<double, u64>>()
                                 : Pair<Testp<float, u32>>();
}

}  // namespace pos::ptx::POS_PTX_ISA
