// Conversions to and from narrow formats: packed f16 and bf16, tf32, fp8, fp6,
// fp4, ue8m0, and packed integers.
//
// .relu turns what is below zero, -0 included, into +0; a NaN stays one.
// .satfinite gives the largest finite number of the format in place of one
// beyond it. A NaN gives the canonical NaN of the format; formats without one
// give their largest number, as the conversions in NVIDIA's cuda_fp4.hpp and
// cuda_fp6.hpp do. ue8m0 drops the sign, as in cuda_fp8.hpp.
#include "pos/cuda_impl/ptx/isa/half_ops.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

// ---- f16 and bf16 from f32.
template <typename Format, u32 kMode, bool kFinite, bool kClip>
struct ToHalf {
  static POS_INLINE u16 Do(float x) {
    u16 rounded = 0;
    if constexpr (kMode != kRoundNearest) {
      rounded = RoundTo<Format>(BitsOf(static_cast<double>(x)), kMode);
    } else if constexpr (Format::kMantissa == HalfFormat::kMantissa) {
      rounded = FloatToHalf(x);
    } else {
      rounded = FloatToBfloat(x);
    }
    if constexpr (kFinite) {
      const bool infinite = (rounded & 0x7fff) == Format::kInfinity16;
      rounded = static_cast<u16>(infinite ? rounded - 1 : rounded);
    }
    if constexpr (kClip) rounded = (rounded & 0x8000) != 0 ? u16{0} : rounded;
    return rounded;
  }
  // The first operand goes to the upper half.
  static POS_INLINE u32 Do(float a, float b) {
    return static_cast<u32>(Do(a)) << 16 | Do(b);
  }
};

template <typename Op>
HandlerPair PickOneOrTwo(const PickKey& k) {
  return Bytes(k.type[0]) == 2 ? Pair<Unary<Op, u16, float>>()
                               : Pair<Binary<Op, u32, float, float>>();
}
template <typename Format, u32 kMode>
HandlerPair PickToHalf(const PickKey& k) {
  const bool clip = (k.flags & kRelu) != 0;
  if ((k.words & kSatFinite) != 0) {
    return clip ? PickOneOrTwo<ToHalf<Format, kMode, true, true>>(k)
                : PickOneOrTwo<ToHalf<Format, kMode, true, false>>(k);
  }
  return clip ? PickOneOrTwo<ToHalf<Format, kMode, false, true>>(k)
              : PickOneOrTwo<ToHalf<Format, kMode, false, false>>(k);
}

// ---- tf32: an f32 with 10 bits of mantissa; the others are zero.
template <bool kFinite, bool kClip>
struct ToTf32 {
  static POS_INLINE u32 Round(u32 bits, u32 add) {
    const u32 size = bits & 0x7fffffff;
    const u32 cut = (size + add) & 0xffffe000;
    const u32 largest = kFinite ? 0x7f7fe000 : 0x7f800000;
    const u32 value = cut >= 0x7f800000 ? largest : cut;
    const u32 sign = bits & 0x80000000;
    const u32 number = kClip && sign != 0 ? 0 : sign | value;
    return size > 0x7f800000 ? kNan32 : number;
  }
};
template <bool kFinite, bool kClip>
struct ToTf32Nearest {
  static POS_INLINE u32 Do(u32 a) {
    return ToTf32<kFinite, kClip>::Round(a, 0xfff + (a >> 13 & 1));
  }
};
template <bool kFinite, bool kClip>
struct ToTf32Away {  // ties away from zero
  static POS_INLINE u32 Do(u32 a) {
    return ToTf32<kFinite, kClip>::Round(a, 0x1000);
  }
};
template <bool kFinite, bool kClip>
struct ToTf32Zero {
  static POS_INLINE u32 Do(u32 a) {
    return ToTf32<kFinite, kClip>::Round(a, 0);
  }
};
template <template <bool, bool> class Op>
HandlerPair PickTf32(const PickKey& k) {
  const bool clip = (k.flags & kRelu) != 0;
  if ((k.words & kSatFinite) != 0) {
    return clip ? Pair<Unary<Op<true, true>, u32, u32>>()
                : Pair<Unary<Op<true, false>, u32, u32>>();
  }
  return clip ? Pair<Unary<Op<false, true>, u32, u32>>()
              : Pair<Unary<Op<false, false>, u32, u32>>();
}

// ---- fp8, fp6, fp4.
struct E4m3 {
  static constexpr u32 kMantissa = 3;
  static constexpr u32 kBias = 7;
  static constexpr u32 kLargest = 0x7e;  // finite
  static constexpr u32 kNan = 0x7f;
  static constexpr u32 kSign = 0x80;
  static constexpr u32 kStep = 8;  // bits from one number to the next
};
struct E5m2 {
  static constexpr u32 kMantissa = 2;
  static constexpr u32 kBias = 15;
  static constexpr u32 kLargest = 0x7b;
  static constexpr u32 kNan = 0x7f;
  static constexpr u32 kSign = 0x80;
  static constexpr u32 kStep = 8;
};
struct E2m3 {
  static constexpr u32 kMantissa = 3;
  static constexpr u32 kBias = 1;
  static constexpr u32 kLargest = 0x1f;
  static constexpr u32 kNan = 0x1f;
  static constexpr u32 kSign = 0x20;
  static constexpr u32 kStep = 8;
};
struct E3m2 {
  static constexpr u32 kMantissa = 2;
  static constexpr u32 kBias = 3;
  static constexpr u32 kLargest = 0x1f;
  static constexpr u32 kNan = 0x1f;
  static constexpr u32 kSign = 0x20;
  static constexpr u32 kStep = 8;
};
struct E2m1 {
  static constexpr u32 kMantissa = 1;
  static constexpr u32 kBias = 1;
  static constexpr u32 kLargest = 0x7;
  static constexpr u32 kNan = 0x7;
  static constexpr u32 kSign = 0x8;
  static constexpr u32 kStep = 4;
};

// To nearest, at most the largest finite number.
template <typename Format, bool kClip>
POS_INLINE u32 ToSmall(float x) {
  const u32 bits = BitsOf(x);
  const u32 size = bits & 0x7fffffff;
  const s32 exponent = static_cast<s32>(size >> 23);
  const u32 mantissa = (size & 0x7fffff) | 0x800000;
  // Exponent of the smallest normal number, biased as in f32.
  const s32 smallest = 128 - static_cast<s32>(Format::kBias);
  const s32 below = smallest - exponent;
  const u32 wanted =
      23 - Format::kMantissa + static_cast<u32>(below > 0 ? below : 0);
  const u32 shift = wanted < 25 ? wanted : 25;
  const u32 kept = mantissa >> shift;
  const u32 rest = mantissa & ((1u << shift) - 1);
  const u32 half = 1u << (shift - 1);
  const bool up = (rest > half) | ((rest == half) & ((kept & 1) != 0));
  // The implicit bit of a normal number adds one to the exponent field.
  const u32 base =
      below < 0 ? static_cast<u32>(-below) << Format::kMantissa : 0;
  const u32 rounded = base + kept + (up ? 1 : 0);
  const u32 finite = rounded > Format::kLargest ? Format::kLargest : rounded;
  const bool negative = (bits & 0x80000000) != 0;
  const u32 number =
      negative ? (kClip ? 0 : finite | u32{Format::kSign}) : finite;
  return size > 0x7f800000 ? u32{Format::kNan} : number;
}
template <typename Format, bool kClip>
struct SmallFromFloats {
  static POS_INLINE u16 Do(float a, float b) {
    return static_cast<u16>(ToSmall<Format, kClip>(a) << Format::kStep |
                            ToSmall<Format, kClip>(b));
  }
};
template <typename Format, bool kClip>
struct SmallFromHalves {
  static POS_INLINE u16 Do(u32 a) {
    return SmallFromFloats<Format, kClip>::Do(
        HalfToFloat(static_cast<u16>(a >> 16)),
        HalfToFloat(static_cast<u16>(a)));
  }
};

// Exact. As an f16 with the same fields a number is too small by the
// difference of the biases.
template <typename Format, bool kClip>
POS_INLINE u32 SmallToHalf(u32 small) {
  const u32 size = small & (Format::kSign - 1);
  const bool negative = (small & Format::kSign) != 0;
  const float fields =
      HalfToFloat(static_cast<u16>(size << (10 - Format::kMantissa)));
  const float scale = static_cast<float>(1u << (15 - Format::kBias));
  const u32 half = FloatToHalf(fields * scale);
  const u32 number = negative ? (kClip ? 0 : half | 0x8000) : half;
  // e5m2 has infinities below its NaNs, e4m3 one NaN, the others have none.
  const u32 first_nan = Format::kBias == 15  ? 0x7d
                        : Format::kBias == 7 ? 0x7f
                                             : 0xff;
  return size >= first_nan ? u32{kNan16} : number;
}
template <typename Format, bool kClip>
struct HalvesFromSmall {
  static POS_INLINE u32 Do(u16 a) {
    constexpr u32 kMask = (1u << Format::kStep) - 1;
    const u32 bits = a;
    return SmallToHalf<Format, kClip>(bits >> Format::kStep & kMask) << 16 |
           SmallToHalf<Format, kClip>(bits & kMask);
  }
};

enum class Way { kFromFloats, kFromHalves, kToHalves };
template <Way kWay, typename Format, bool kClip>
HandlerPair PickWay() {
  if constexpr (kWay == Way::kFromFloats) {
    return Pair<Binary<SmallFromFloats<Format, kClip>, u16, float, float>>();
  } else if constexpr (kWay == Way::kFromHalves) {
    return Pair<Unary<SmallFromHalves<Format, kClip>, u16, u32>>();
  } else {
    return Pair<Unary<HalvesFromSmall<Format, kClip>, u32, u16>>();
  }
}
template <Way kWay, bool kClip>
HandlerPair PickSmallFormat(Type type) {
  switch (type) {
    case Type::kE4m3x2:
      return PickWay<kWay, E4m3, kClip>();
    case Type::kE5m2x2:
      return PickWay<kWay, E5m2, kClip>();
    case Type::kE2m3x2:
      return PickWay<kWay, E2m3, kClip>();
    case Type::kE3m2x2:
      return PickWay<kWay, E3m2, kClip>();
    case Type::kE2m1x2:
      return PickWay<kWay, E2m1, kClip>();
    default:
      return {};
  }
}
template <Way kWay>
HandlerPair PickSmall(const PickKey& k, Type type) {
  return (k.flags & kRelu) != 0 ? PickSmallFormat<kWay, true>(type)
                                : PickSmallFormat<kWay, false>(type);
}

// ---- ue8m0: powers of two from 2^-127, and a NaN.
template <bool kUp, bool kFinite>
struct ToUe8m0 {
  static POS_INLINE u32 One(float x) {
    const u32 size = BitsOf(x) & 0x7fffffff;
    const u32 exponent = size >> 23;
    const u32 mantissa = size & 0x7fffff;
    const bool more = exponent == 0 ? mantissa > 0x400000 : mantissa != 0;
    const bool up = kUp & more & (size < 0x7f800000);
    const u32 value = exponent + (up ? 1 : 0);
    const bool too_large = (value == 0xff) & (size <= 0x7f800000);
    return kFinite && too_large ? 0xfe : value;
  }
  static POS_INLINE u16 Do(float a, float b) {
    return static_cast<u16>(One(a) << 8 | One(b));
  }
  static POS_INLINE u16 Do(u32 bfloats) {
    return Do(FloatOf(bfloats & 0xffff0000), FloatOf(bfloats << 16));
  }
};
template <bool kUp, bool kFinite>
HandlerPair PickToUe8m0(const PickKey& k) {
  using Op = ToUe8m0<kUp, kFinite>;
  return k.type[1] == Type::kF32 ? Pair<Binary<Op, u16, float, float>>()
                                 : Pair<Unary<Op, u16, u32>>();
}
struct FromUe8m0 {
  static POS_INLINE u32 One(u32 exponent) {
    const u32 finite = exponent == 0 ? 0x40 : exponent << 7;
    return exponent == 0xff ? u32{kNan16} : finite;
  }
  static POS_INLINE u32 Do(u16 a) {
    const u32 bits = a;
    return One(bits >> 8) << 16 | One(bits & 0xff);
  }
};

// ---- Integers, clamped; what is left of the result comes from c.
template <u32 kBits, bool kSigned>
struct PackInts {
  static POS_INLINE u32 Clamp(s32 x) {
    constexpr s32 kHigh = (1 << (kSigned ? kBits - 1 : kBits)) - 1;
    constexpr s32 kLow = kSigned ? -kHigh - 1 : 0;
    const s32 clamped = x < kLow ? kLow : x > kHigh ? kHigh : x;
    return static_cast<u32>(clamped) & ((1u << kBits) - 1);
  }
  static POS_INLINE u32 Do(s32 a, s32 b) {
    return Clamp(a) << kBits | Clamp(b);
  }
  static POS_INLINE u32 Do(s32 a, s32 b, u32 c) {
    return Do(a, b) | static_cast<u32>(u64{c} << (2 * kBits));
  }
};
template <u32 kBits, bool kSigned>
HandlerPair PickPack3() {
  return Pair<Ternary<PackInts<kBits, kSigned>, u32, s32, s32, u32>>();
}

}  // namespace

HandlerPair PickCvtHalf(const PickKey& k) {
  const bool zero = (k.flags & kRoundMask) == kRoundZero;
  if (k.type[0] == Type::kF16 || k.type[0] == Type::kF16x2) {
    return zero ? PickToHalf<HalfFormat, kRoundZero>(k)
                : PickToHalf<HalfFormat, kRoundNearest>(k);
  }
  return zero ? PickToHalf<BfloatFormat, kRoundZero>(k)
              : PickToHalf<BfloatFormat, kRoundNearest>(k);
}
HandlerPair PickCvtTf32(const PickKey& k) {
  if ((k.words & kRoundAway) != 0) return PickTf32<ToTf32Away>(k);
  return (k.flags & kRoundMask) == kRoundZero ? PickTf32<ToTf32Zero>(k)
                                              : PickTf32<ToTf32Nearest>(k);
}
HandlerPair PickCvtToSmall(const PickKey& k) {
  return k.type[1] == Type::kF32 ? PickSmall<Way::kFromFloats>(k, k.type[0])
                                 : PickSmall<Way::kFromHalves>(k, k.type[0]);
}
HandlerPair PickCvtFromSmall(const PickKey& k) {
  return PickSmall<Way::kToHalves>(k, k.type[1]);
}
HandlerPair PickCvtToUe8m0(const PickKey& k) {
  const bool finite = (k.words & kSatFinite) != 0;
  if ((k.flags & kRoundMask) == kRoundUp) {
    return finite ? PickToUe8m0<true, true>(k) : PickToUe8m0<true, false>(k);
  }
  return finite ? PickToUe8m0<false, true>(k) : PickToUe8m0<false, false>(k);
}
HandlerPair PickCvtFromUe8m0(const PickKey&) {
  return Pair<Unary<FromUe8m0, u32, u16>>();
}
HandlerPair PickCvtPack(const PickKey& k) {
  switch (k.type[0]) {
    case Type::kU16:
      return Pair<Binary<PackInts<16, false>, u32, s32, s32>>();
    case Type::kS16:
      return Pair<Binary<PackInts<16, true>, u32, s32, s32>>();
    case Type::kU8:
      return PickPack3<8, false>();
    case Type::kS8:
      return PickPack3<8, true>();
    case Type::kU4:
      return PickPack3<4, false>();
    case Type::kS4:
      return PickPack3<4, true>();
    case Type::kU2:
      return PickPack3<2, false>();
    case Type::kS2:
      return PickPack3<2, true>();
    default:
      return {};
  }
}

}  // namespace pos::ptx::POS_PTX_ISA
