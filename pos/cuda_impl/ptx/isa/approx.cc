// The instructions that the hardware approximates: reciprocals, square roots,
// powers of two, logarithms, sines.
//
// Here they are computed in double and rounded once, which is correct rounding
// but for a few arguments in 2^20 and so within every error bound that the PTX
// ISA gives (the tightest is 2^-22.5 relative). Only multiplications, additions
// and divisions are used, so that every level and processor gives the same
// bits. Polynomials are Taylor series: the terms left out are below 2^-30.
#include "pos/cuda_impl/ptx/isa/half_lanes.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

// x + kRound has the nearest integer in its last bits.
constexpr double kRound = 0x1.8p52;

// 2^x for |x| <= 300.
POS_INLINE double Exp2(double x) {
  const double shifted = x + kRound;
  const double r = x - (shifted - kRound);
  double p = 0x1.62c0223a5c824p-20;   // ln2^8 / 8!
  p = p * r + 0x1.ffcbfc588b0c7p-17;  // ln2^7 / 7!
  p = p * r + 0x1.430912f86c787p-13;
  p = p * r + 0x1.5d87fe78a6731p-10;
  p = p * r + 0x1.3b2ab6fba4e77p-7;
  p = p * r + 0x1.c6b08d704a0cp-5;
  p = p * r + 0x1.ebfbdff82c58fp-3;
  p = p * r + 0x1.62e42fefa39efp-1;  // ln2
  p = p * r + 1.0;
  const u64 n = BitsOf(shifted) - BitsOf(kRound);
  return p * DoubleOf((n + 1023) << 52);
}

struct Ex2 {
  static POS_INLINE float Do(float a) {
    const double x = static_cast<double>(a);
    const double low = x > -200.0 ? x : -200.0;
    const double clamped = low < 200.0 ? low : 200.0;
    return a == a ? static_cast<float>(Exp2(clamped)) : a;
  }
};

struct Lg2 {
  static POS_INLINE float Do(float a) {
    const u64 bits = BitsOf(static_cast<double>(a));
    // The mantissa in [sqrt(1/2), sqrt(2)): subtract the exponent that does it.
    const u64 half_root = 0x3fe6a09e667f3bcd;
    const u64 exponent = (bits - half_root) & 0xfff0000000000000;
    const double m = DoubleOf(bits - exponent);
    // The exponent has 12 bits and a sign; biased, it is the low end of a
    // double.
    const u64 biased = (exponent >> 52) + 2048;
    const double e =
        DoubleOf(0x4330000000000000 | (biased & 0xfff)) - (0x1p52 + 2048.0);
    const double f = (m - 1.0) / (m + 1.0);
    const double g = f * f;
    double p = 2.885390081777927 / 13.0;
    p = p * g + 2.885390081777927 / 11.0;
    p = p * g + 2.885390081777927 / 9.0;
    p = p * g + 2.885390081777927 / 7.0;
    p = p * g + 2.885390081777927 / 5.0;
    p = p * g + 2.885390081777927 / 3.0;
    p = p * g + 2.885390081777927;  // 2 / ln 2
    const float value = static_cast<float>(e + p * f);
    const float infinite = FloatOf(a == 0.0f ? 0xff800000 : 0x7f800000);
    const bool special = (a == 0.0f) | (a == FloatOf(0x7f800000));
    const float result = special ? infinite : value;
    return a >= 0.0f ? result : FloatOf(kNan32);
  }
};

// sin(x + quadrant * pi / 2) for |x| <= 2^30.
POS_INLINE double SineOf(double x, u64 quadrant) {
  const double shifted = x * 0x1.45f306dc9c883p-1 + kRound;  // 2 / pi
  const double n = shifted - kRound;
  // pi / 2 in parts of 33 bits: the products are exact while n has 20 bits,
  // and lose nothing that a float could show up to 2^30.
  double r = x - n * 0x1.921fb544p+0;
  r = r - n * 0x1.0b4611a6p-34;
  r = r - n * 0x1.3198a2e037073p-69;
  const u64 q = BitsOf(shifted) - BitsOf(kRound) + quadrant;
  const double g = r * r;
  double s = 1.0 / 6227020800.0;
  s = s * g - 1.0 / 39916800.0;
  s = s * g + 1.0 / 362880.0;
  s = s * g - 1.0 / 5040.0;
  s = s * g + 1.0 / 120.0;
  s = s * g - 1.0 / 6.0;
  s = r + r * (s * g);
  double c = -1.0 / 87178291200.0;
  c = c * g + 1.0 / 479001600.0;
  c = c * g - 1.0 / 3628800.0;
  c = c * g + 1.0 / 40320.0;
  c = c * g - 1.0 / 720.0;
  c = c * g + 1.0 / 24.0;
  c = c * g - 1.0 / 2.0;
  c = 1.0 + c * g;
  const double value = (q & 1) != 0 ? c : s;
  return DoubleOf(BitsOf(value) ^ (q & 2) << 62);
}

// Beyond 2^30 the ISA promises nothing but a result; the remainder by a
// rounded 2 pi is one.
POS_INLINE double BringNear(float a) {
  const double x = static_cast<double>(a);
  if (x >= -0x1p30 && x <= 0x1p30) return x;
  return __builtin_fmod(x, 0x1.921fb54442d18p+2);
}

template <u64 kQuadrant, bool kFlush>
struct Sine {
  static const Inst* Run(Warp* w, const Inst* i) {
    const float* a = In<float>(w, i->a);
    float* d = Out<float>(w, i->d);
    alignas(64) double x[kLanes];
    bool far = false;
    POS_LANES(l) { x[l] = static_cast<double>(FlushIf<kFlush>(a[l])); }
    for (unsigned l = 0; l < kLanes; ++l) {
      far = far | !(x[l] >= -0x1p30 && x[l] <= 0x1p30);
    }
    if (far) {
      for (unsigned l = 0; l < kLanes; ++l) x[l] = BringNear(a[l]);
    }
    POS_LANES(l) {
      const float value = static_cast<float>(SineOf(x[l], kQuadrant));
      // The sine of -0 is -0; of an infinity there is none.
      const float zero =
          kQuadrant == 0 && x[l] == 0.0 ? static_cast<float>(x[l]) : value;
      d[l] = Canonical(FlushIf<kFlush>(zero));
    }
    return i + 1;
  }
};

struct Tanh {
  static POS_INLINE float Do(float a) {
    const double x = static_cast<double>(a);
    const double size = x < 0 ? -x : x;
    const double near = size < 20.0 ? size : 20.0;
    const double e = Exp2(near * -2.8853900817779268);  // exp(-2 |x|)
    const double large = (1.0 - e) / (1.0 + e);
    const double g = x * x;
    const double small = size - size * g * (1.0 / 3.0 - g * (2.0 / 15.0));
    const double value = size < 0x1p-6 ? small : large;
    return Canonical(a == a ? static_cast<float>(x < 0 ? -value : value) : a);
  }
};
struct TanhKeepsZero {
  static POS_INLINE float Do(float a) { return a == 0.0f ? a : Tanh::Do(a); }
};

struct Rsqrt {
  static POS_INLINE float Do(float a) {
    return static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(a)));
  }
  static POS_INLINE double Do(double a) { return 1.0 / __builtin_sqrt(a); }
};

// Input and output flushed, results with 20 bits of mantissa: the low word of
// what the hardware gives is zero.
POS_INLINE double FlushDouble(double a) {
  const u64 bits = BitsOf(a);
  return DoubleOf((bits & 0x7ff0000000000000) == 0 ? bits & 0x8000000000000000
                                                   : bits);
}
POS_INLINE double HighWord(double a) {
  const u64 rounded = (BitsOf(a) + 0x80000000) & 0xffffffff00000000;
  const double result = FlushDouble(DoubleOf(rounded));
  return a == a ? result : DoubleOf(0x7fffffff00000000);
}
struct RcpApprox64 {
  static POS_INLINE double Do(double a) {
    return HighWord(1.0 / FlushDouble(a));
  }
};
struct RsqrtApprox64 {
  static POS_INLINE double Do(double a) {
    return HighWord(1.0 / __builtin_sqrt(FlushDouble(a)));
  }
};

template <typename Op, bool kFlush>
struct Flushed {
  static POS_INLINE float Do(float a) {
    return Canonical(FlushIf<kFlush>(Op::Do(FlushIf<kFlush>(a))));
  }
};
template <typename Op>
HandlerPair PickUnary(const PickKey& k) {
  return (k.flags & kFtz) != 0
             ? Pair<Unary<Flushed<Op, true>, float, float>>()
             : Pair<Unary<Flushed<Op, false>, float, float>>();
}
// Rounded twice, which these leave open. bf16 has .ftz, where float flushes.
template <typename Format, typename Op, unsigned kCount>
struct HalfUnary {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    alignas(64) float x[kCount];
    const bool flush = (i->flags & kFtz) != 0;
    LoadHalves<Format, kCount>(In<u16>(w, i->a), 0, x);
    POS_COUNT(n, kCount) {
      const float in = flush ? Flush(x[n]) : x[n];
      const float value = Canonical(Op::Do(in));
      x[n] = flush ? Flush(value) : value;
    }
    StoreHalves<kPartial, Format, kCount>(w, i->d, 0, x);
    return i + 1;
  }
};
template <typename Op>
HandlerPair PickHalfUnary(const PickKey& k) {
  switch (k.type[0]) {
    case Type::kF16:
      return Pair<HalfUnary<HalfFormat, Op, 32>>();
    case Type::kF16x2:
      return Pair<HalfUnary<HalfFormat, Op, 64>>();
    case Type::kBf16:
      return Pair<HalfUnary<BfloatFormat, Op, 32>>();
    case Type::kBf16x2:
      return Pair<HalfUnary<BfloatFormat, Op, 64>>();
    default:
      return {};
  }
}
template <u64 kQuadrant>
HandlerPair PickSine(const PickKey& k) {
  return (k.flags & kFtz) != 0
             ? Pair<KeepOthers<Sine<kQuadrant, true>, float>>()
             : Pair<KeepOthers<Sine<kQuadrant, false>, float>>();
}
struct Rsqrt64 {
  static POS_INLINE double Do(double a) { return PickNan(Rsqrt::Do(a), a); }
};

}  // namespace

HandlerPair PickFEx2(const PickKey& k) { return PickUnary<Ex2>(k); }
HandlerPair PickFLg2(const PickKey& k) { return PickUnary<Lg2>(k); }
HandlerPair PickFTanh(const PickKey& k) { return PickUnary<TanhKeepsZero>(k); }
HandlerPair PickHEx2(const PickKey& k) { return PickHalfUnary<Ex2>(k); }
HandlerPair PickHTanh(const PickKey& k) {
  return PickHalfUnary<TanhKeepsZero>(k);
}
HandlerPair PickFSin(const PickKey& k) { return PickSine<0>(k); }
HandlerPair PickFCos(const PickKey& k) { return PickSine<1>(k); }
HandlerPair PickFRsqrt(const PickKey& k) {
  if (k.type[0] == Type::kF64) return Pair<Unary<Rsqrt64, double, double>>();
  return PickUnary<Rsqrt>(k);
}
HandlerPair PickFRcpApprox64(const PickKey&) {
  return Pair<Unary<RcpApprox64, double, double>>();
}
HandlerPair PickFRsqrtApprox64(const PickKey&) {
  return Pair<Unary<RsqrtApprox64, double, double>>();
}

}  // namespace pos::ptx::POS_PTX_ISA
