// Arithmetic on f16 and bf16, alone or two in a register.
//
// 32 or 64 numbers are widened to float, computed, and rounded once more. That
// equals rounding the exact result once:
// * A float has 24 bits, at least 2p + 2 for the p = 11 of f16 and the p = 8 of
//   bf16: rounding a sum or a product twice cannot err (Figueroa, "When is
//   double rounding innocuous?", 1995). Sums never fall between subnormals of
//   the narrow format; products that do are exact floats, or below half of the
//   smallest subnormal on both sides of the first rounding.
// * fma is rounded to odd first, which leaves the second rounding everything it
//   has to know while the wider format has two bits more. f16: the product is
//   an exact float. bf16: it is, too, unless it leaves the range of float;
//   then doubles hold it, and the sum is rounded to odd twice.
//
// Every NaN result is 0x7fff. The hot loops are free of branches.
#include "pos/cuda_impl/ptx/isa/half_lanes.h"
#include "pos/cuda_impl/ptx/isa/half_ops.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

// Rounding to odd: where something was left out, the last bit of the result
// becomes 1. `near` is the result to nearest; `error`, what was left out,
// counts by its sign. No conditions, so that the loops become vector code.
POS_INLINE float MakeOdd(float near, float error) {
  const u32 bits = BitsOf(near);
  const u32 inexact = __builtin_fabsf(error) > 0.0f ? 1 : 0;  // not for NaNs
  const u32 adjust = inexact & ~bits;
  const u32 inward = (BitsOf(error) ^ bits) >> 31 & adjust;
  return FloatOf(bits + adjust - (inward << 1));
}
POS_INLINE double MakeOdd(double near, double error) {
  const u64 bits = BitsOf(near);
  const u64 inexact = __builtin_fabs(error) > 0.0 ? 1 : 0;
  const u64 adjust = inexact & ~bits;
  const u64 inward = (BitsOf(error) ^ bits) >> 63 & adjust;
  return DoubleOf(bits + adjust - (inward << 1));
}
// The error of a sum is a number of the same type (Knuth).
template <typename T>
POS_INLINE T SumToOdd(T a, T b) {
  const T sum = a + b;
  const T part = sum - a;
  return MakeOdd(sum, (a - (sum - part)) + (b - part));
}
// x, which may have been rounded to odd itself, in float.
POS_INLINE float FloatToOdd(double x) {
  const float near = static_cast<float>(x);
  const double error = x - static_cast<double>(near);
  // Only its sign, which a float can hold.
  const double unit =
      DoubleOf((BitsOf(error) & 0x8000000000000000) | 0x3ff0000000000000);
  const double sign = __builtin_fabs(error) > 0.0 ? unit : 0.0;
  return MakeOdd(near, static_cast<float>(sign));
}

struct HAdd {
  template <typename Format>
  static POS_INLINE float Do(float a, float b) {
    return a + b;
  }
};
struct HSub {
  template <typename Format>
  static POS_INLINE float Do(float a, float b) {
    return a - b;
  }
};
struct HMul {
  template <typename Format>
  static POS_INLINE float Do(float a, float b) {
    return a * b;
  }
};

// a * b + c for all numbers.
template <typename Format, unsigned kCount>
POS_INLINE void FmaAll(const float* a, const float* b, const float* c,
                       float* d) {
  u32 unsafe = 0;
  POS_COUNT(n, kCount) {
    const float product = a[n] * b[n];
    d[n] = SumToOdd(product, c[n]);
    // Of bf16 the product is exact, too, unless it is too small or too large.
    const u32 size = BitsOf(product) & 0x7fffffff;
    const u32 beyond = size - 0x00800000 >= 0x7f000000 ? 1 : 0;
    const u32 left = (BitsOf(a[n]) << 1) != 0 ? beyond : 0;
    unsafe |= (BitsOf(b[n]) << 1) != 0 ? left : 0;
  }
  if (Format::kMantissa == HalfFormat::kMantissa || unsafe == 0) return;
  POS_COUNT(n, kCount) {
    const double product =
        static_cast<double>(a[n]) * static_cast<double>(b[n]);
    d[n] = FloatToOdd(SumToOdd(product, static_cast<double>(c[n])));
  }
}

template <typename Format, typename Op, unsigned kCount, bool kPlain>
struct Half2 {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    alignas(64) float a[kCount];
    alignas(64) float b[kCount];
    const u32 flags = kPlain ? 0 : i->flags;
    LoadHalves<Format, kCount>(In<u16>(w, i->a), flags, a);
    LoadHalves<Format, kCount>(In<u16>(w, i->b), flags, b);
    POS_COUNT(n, kCount) {
      a[n] = Canonical(Op::template Do<Format>(a[n], b[n]));
    }
    StoreHalves<kPartial, Format, kCount>(w, i->d, flags, a);
    return i + 1;
  }
};
struct HFma;
template <typename Format, typename, unsigned kCount, bool kPlain>
struct Half3 {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    alignas(64) float a[kCount];
    alignas(64) float b[kCount];
    alignas(64) float c[kCount];
    alignas(64) float d[kCount];
    const u32 flags = kPlain ? 0 : i->flags;
    LoadHalves<Format, kCount>(In<u16>(w, i->a), flags, a);
    LoadHalves<Format, kCount>(In<u16>(w, i->b), flags, b);
    LoadHalves<Format, kCount>(In<u16>(w, i->c), flags, c);
    FmaAll<Format, kCount>(a, b, c, d);
    POS_COUNT(n, kCount) { d[n] = Canonical(d[n]); }
    StoreHalves<kPartial, Format, kCount>(w, i->d, flags, d);
    return i + 1;
  }
};

template <template <typename, typename, unsigned, bool> class H, typename Op>
HandlerPair PickHalf(const PickKey& k) {
  const bool plain = (k.flags & (kFtz | kSat | kRelu)) == 0;
  switch (k.type[0]) {
    case Type::kF16:
      return plain ? Pair<H<HalfFormat, Op, 32, true>>()
                   : Pair<H<HalfFormat, Op, 32, false>>();
    case Type::kF16x2:
      return plain ? Pair<H<HalfFormat, Op, 64, true>>()
                   : Pair<H<HalfFormat, Op, 64, false>>();
    case Type::kBf16:
      return plain ? Pair<H<BfloatFormat, Op, 32, true>>()
                   : Pair<H<BfloatFormat, Op, 32, false>>();
    case Type::kBf16x2:
      return plain ? Pair<H<BfloatFormat, Op, 64, true>>()
                   : Pair<H<BfloatFormat, Op, 64, false>>();
    default:
      return {};
  }
}

// ---- Signs, minima and maxima: on the bits.

enum class SignOp { kNegate, kMagnitude };
template <SignOp kOp, unsigned kCount>
struct HalfSign {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const u16* a = In<u16>(w, i->a);
    const bool flush = (i->flags & kFtz) != 0;
    alignas(64) u16 out[kCount];
    POS_COUNT(n, kCount) {
      const u16 in = flush ? FlushHalf(a[n]) : a[n];
      out[n] =
          static_cast<u16>(kOp == SignOp::kNegate ? in ^ 0x8000 : in & 0x7fff);
    }
    PutHalves<kPartial, kCount>(w, i->d, out);
    return i + 1;
  }
};
template <SignOp kOp>
HandlerPair PickHalfSign(const PickKey& k) {
  return Bytes(k.type[0]) == 2 ? Pair<HalfSign<kOp, 32>>()
                               : Pair<HalfSign<kOp, 64>>();
}

// Orders as the numbers do, with -0 before +0.
POS_INLINE s16 OrderKey(u16 half) {
  const u16 below = static_cast<u16>(half & 0x7fff);
  return static_cast<s16>((half & 0x8000) != 0 ? ~below : below);
}

// One NaN loses against a number, unless .NaN is written.
template <bool kMax, typename Format, unsigned kCount>
struct HalfMinMax {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const u16* a = In<u16>(w, i->a);
    const u16* b = In<u16>(w, i->b);
    const bool flush = (i->flags & kFtz) != 0;
    const bool nan = (i->flags & kNanFlag) != 0;
    const u16 keep = (i->flags & kXorSign) != 0 ? 0x7fff : 0xffff;
    alignas(64) u16 out[kCount];
    POS_COUNT(n, kCount) {
      const u16 left = flush ? FlushHalf(a[n]) : a[n];
      const u16 right = flush ? FlushHalf(b[n]) : b[n];
      const u16 sign = static_cast<u16>((left ^ right) & ~keep);
      const u16 x = static_cast<u16>(left & keep);
      const u16 y = static_cast<u16>(right & keep);
      const bool x_nan = (x & 0x7fff) > Format::kInfinity16;
      const bool y_nan = (y & 0x7fff) > Format::kInfinity16;
      const bool first =
          kMax ? OrderKey(x) > OrderKey(y) : OrderKey(x) < OrderKey(y);
      const u16 ordered = first ? x : y;
      const u16 number = x_nan ? y : y_nan ? x : ordered;
      const bool no_number = (x_nan & y_nan) | (nan & (x_nan | y_nan));
      out[n] = no_number ? kNan16 : static_cast<u16>(number | sign);
    }
    PutHalves<kPartial, kCount>(w, i->d, out);
    return i + 1;
  }
};
template <bool kMax>
HandlerPair PickHalfMinMax(const PickKey& k) {
  switch (k.type[0]) {
    case Type::kF16:
      return Pair<HalfMinMax<kMax, HalfFormat, 32>>();
    case Type::kF16x2:
      return Pair<HalfMinMax<kMax, HalfFormat, 64>>();
    case Type::kBf16:
      return Pair<HalfMinMax<kMax, BfloatFormat, 32>>();
    case Type::kBf16x2:
      return Pair<HalfMinMax<kMax, BfloatFormat, 64>>();
    default:
      return {};
  }
}

}  // namespace

HandlerPair PickHAdd(const PickKey& k) { return PickHalf<Half2, HAdd>(k); }
HandlerPair PickHSub(const PickKey& k) { return PickHalf<Half2, HSub>(k); }
HandlerPair PickHMul(const PickKey& k) { return PickHalf<Half2, HMul>(k); }
HandlerPair PickHFma(const PickKey& k) { return PickHalf<Half3, HFma>(k); }
HandlerPair PickHNeg(const PickKey& k) {
  return PickHalfSign<SignOp::kNegate>(k);
}
HandlerPair PickHAbs(const PickKey& k) {
  return PickHalfSign<SignOp::kMagnitude>(k);
}
HandlerPair PickHMin(const PickKey& k) { return PickHalfMinMax<false>(k); }
HandlerPair PickHMax(const PickKey& k) { return PickHalfMinMax<true>(k); }

}  // namespace pos::ptx::POS_PTX_ISA
