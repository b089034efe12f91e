// Conversions.
//
// The common pairs have handlers of their own. The others go through three
// steps: every source type into 64-bit integers or doubles (both exact), the
// conversion with its rounding and clamping, and into the destination's width.
#include "pos/cuda_impl/ptx/isa/half_ops.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

struct Range {
  s64 low;
  u64 high;
};

POS_INLINE Range RangeOf(u32 bytes, bool is_signed) {
  const u32 bits = bytes * 8;
  const u64 all = bits == 64 ? ~0ull : (1ull << bits) - 1;
  if (!is_signed) return {0, all};
  return {-static_cast<s64>(all >> 1) - 1, all >> 1};
}

struct Lanes64 {
  alignas(64) u64 v[kLanes];
};
struct LanesDouble {
  alignas(64) double v[kLanes];
};

template <typename T>
POS_INLINE void LoadAs(const Warp* w, u32 operand, Lanes64* out) {
  const T* a = In<T>(w, operand);
  POS_LANES(l) { out->v[l] = static_cast<u64>(a[l]); }
}

// The low bits of the register that the type names, extended by its sign.
void LoadInt(const Warp* w, const Inst* i, Type type, u32 width, Lanes64* out) {
  switch (width) {
    case 2:
      LoadAs<u16>(w, i->a, out);
      break;
    case 4:
      LoadAs<u32>(w, i->a, out);
      break;
    default:
      LoadAs<u64>(w, i->a, out);
      break;
  }
  const u32 drop = 64 - 8 * Bytes(type);
  if (Signed(type)) {
    POS_LANES(l) {
      out->v[l] = static_cast<u64>(static_cast<s64>(out->v[l] << drop) >> drop);
    }
  } else {
    POS_LANES(l) { out->v[l] = out->v[l] << drop >> drop; }
  }
}

void LoadFloat(const Warp* w, const Inst* i, Type type, u32 width,
               LanesDouble* out) {
  if (type == Type::kF64) {
    const double* a = In<double>(w, i->a);
    POS_LANES(l) { out->v[l] = a[l]; }
    return;
  }
  if (type == Type::kF32) {
    const float* a = In<float>(w, i->a);
    const bool flush = (i->flags & kFtz) != 0;
    POS_LANES(l) {
      out->v[l] = static_cast<double>(flush ? Flush(a[l]) : a[l]);
    }
    return;
  }
  Lanes64 raw;
  LoadInt(w, i, Type::kU16, width, &raw);
  const bool bfloat = type == Type::kBf16;
  POS_LANES(l) {
    const u16 half = static_cast<u16>(raw.v[l]);
    out->v[l] =
        static_cast<double>(bfloat ? BfloatToFloat(half) : HalfToFloat(half));
  }
}

template <bool kPartial, typename T>
POS_INLINE void StoreAs(Warp* w, const Inst* i, const Lanes64& in) {
  const u64* v = &in.v[0];
  Put<kPartial>(w, Out<T>(w, i->d),
                [=](unsigned l) { return static_cast<T>(v[l]); });
}

// ---- Conversions proper, each on 32 lanes.

// Saturation to the destination's range.
void ClampInt(Lanes64* v, bool source_signed, Range range) {
  if (source_signed) {
    POS_LANES(l) {
      const s64 x = static_cast<s64>(v->v[l]);
      const u64 positive = v->v[l] > range.high ? range.high : v->v[l];
      const s64 negative = x < range.low ? range.low : x;
      v->v[l] = x < 0 ? static_cast<u64>(negative) : positive;
    }
  } else {
    POS_LANES(l) { v->v[l] = v->v[l] > range.high ? range.high : v->v[l]; }
  }
}

// To an integral value, in the processor's rounding mode: beyond 2^52 there is
// nothing to round, below it the sum leaves no place for a fraction.
POS_OPAQUE void RoundIntegral(const double* in, double* out) {
  constexpr double kMagic = 0x1p52;
  POS_LANES(l) {
    const double x = in[l];
    const u64 sign = BitsOf(x) & 0x8000000000000000;
    const double magic = DoubleOf(BitsOf(kMagic) | sign);
    const double rounded = (x + magic) - magic;
    const double size = DoubleOf(BitsOf(x) & ~0x8000000000000000);
    const u64 with_sign = (BitsOf(rounded) & ~0x8000000000000000) | sign;
    out[l] = size < kMagic ? DoubleOf(with_sign) : x;
  }
}

// An integral double to an integer, clamped. NaN: zero, or the top bit where
// the source is f64 or the destination has 64 bits.
void IntegralToInt(const LanesDouble& in, bool is_signed, u32 bytes,
                   bool from_f64, Lanes64* out) {
  const Range range = RangeOf(bytes, is_signed);
  const u64 nan = from_f64 || bytes == 8 ? 1ull << (8 * bytes - 1) : 0;
  const double low = static_cast<double>(range.low);
  // One beyond the highest value, a power of two.
  const double beyond = is_signed || bytes != 8
                            ? static_cast<double>(range.high / 2 + 1) * 2.0
                            : 0x1p64;
  for (unsigned l = 0; l < kLanes; ++l) {
    const double x = in.v[l];
    if (!(x == x)) {
      out->v[l] = nan;
    } else if (x < low) {
      out->v[l] = static_cast<u64>(range.low);
    } else if (x >= beyond) {
      out->v[l] = range.high;
    } else if (x < 0) {
      out->v[l] = static_cast<u64>(static_cast<s64>(x));
    } else {
      out->v[l] = static_cast<u64>(x);
    }
  }
}

// In the processor's rounding mode. Zero is +0 in every mode.
template <typename F>
POS_OPAQUE void IntToFloat(const u64* in, bool is_signed, F* out) {
  for (unsigned l = 0; l < kLanes; ++l) {
    const F value = is_signed ? static_cast<F>(static_cast<s64>(in[l]))
                              : static_cast<F>(in[l]);
    out[l] = in[l] == 0 ? F{0} : value;
  }
}
POS_OPAQUE void NarrowToFloat(const double* in, float* out) {
  POS_LANES(l) { out[l] = static_cast<float>(in[l]); }
}

// Exact enough for a format with at most 40 bits: bits that do not fit into a
// double are gathered in one that does.
void IntToSticky(const Lanes64& in, bool is_signed, LanesDouble* out) {
  for (unsigned l = 0; l < kLanes; ++l) {
    const bool negative = is_signed && static_cast<s64>(in.v[l]) < 0;
    const u64 size = negative ? 0 - in.v[l] : in.v[l];
    const u64 sticky = (size & ~0xfffull) | ((size & 0xfff) != 0 ? 0x1000 : 0);
    const u64 fits = size < 1ull << 52 ? size : sticky;
    const double value = static_cast<double>(fits);
    out->v[l] = negative ? -value : value;
  }
}

// ---- The general handler.

// From Inst::imm: the types and register widths.
struct Pair64 {
  Type to;
  Type from;
  u32 to_width;
  u32 from_width;
  bool integral;
};
POS_INLINE Pair64 Unpack(const Inst* i) {
  const u64 bits = static_cast<u64>(i->imm);
  return {static_cast<Type>(bits & 0xff), static_cast<Type>(bits >> 8 & 0xff),
          static_cast<u32>(bits >> 16 & 0xff),
          static_cast<u32>(bits >> 24 & 0xff), (bits >> 32 & 1) != 0};
}
POS_INLINE bool IsFloat(Type type) {
  return type == Type::kF16 || type == Type::kBf16 || type == Type::kF32 ||
         type == Type::kF64;
}

// The result as the bits of the destination type.
void FinishHalf(const Inst* i, Type to, LanesDouble* in, Lanes64* out) {
  const u32 mode = i->flags & kRoundMask;
  if ((i->flags & kSat) != 0) {
    POS_LANES(l) { in->v[l] = Saturate(in->v[l]); }
  }
  if (to == Type::kF16) {
    POS_LANES(l) { out->v[l] = RoundTo<HalfFormat>(BitsOf(in->v[l]), mode); }
  } else {
    POS_LANES(l) { out->v[l] = RoundTo<BfloatFormat>(BitsOf(in->v[l]), mode); }
  }
}
void FinishFloat(const Inst* i, float* v, Lanes64* out) {
  const bool flush = (i->flags & kFtz) != 0;
  const bool saturate = (i->flags & kSat) != 0;
  POS_LANES(l) {
    const float x = Canonical(v[l]);
    const float flushed = flush ? Flush(x) : x;
    out->v[l] = BitsOf(saturate ? Saturate(flushed) : flushed);
  }
}
void FinishDouble(const Inst* i, const double* v, Lanes64* out) {
  const bool saturate = (i->flags & kSat) != 0;
  POS_LANES(l) { out->v[l] = BitsOf(saturate ? Saturate(v[l]) : v[l]); }
}

void ConvertFromInt(const Inst* i, const Pair64& types, Lanes64* v) {
  const bool is_signed = Signed(types.from);
  if (!IsFloat(types.to)) {
    if ((i->flags & kSat) != 0) {
      ClampInt(v, is_signed, RangeOf(Bytes(types.to), Signed(types.to)));
    }
    return;
  }
  alignas(64) float single[kLanes];
  LanesDouble wide;
  if (types.to == Type::kF32) {
    {
      const RoundingScope scope(i->flags & kRoundMask);
      IntToFloat<float>(v->v, is_signed, single);
    }
    FinishFloat(i, single, v);
  } else if (types.to == Type::kF64) {
    {
      const RoundingScope scope(i->flags & kRoundMask);
      IntToFloat<double>(v->v, is_signed, wide.v);
    }
    FinishDouble(i, wide.v, v);
  } else {
    IntToSticky(*v, is_signed, &wide);
    FinishHalf(i, types.to, &wide, v);
  }
}

void ConvertFromFloat(const Inst* i, const Pair64& types, LanesDouble* in,
                      Lanes64* out) {
  LanesDouble rounded;
  LanesDouble* value = in;
  if (types.integral || !IsFloat(types.to)) {
    const RoundingScope scope(i->flags & kRoundMask);
    RoundIntegral(in->v, rounded.v);
    value = &rounded;
  }
  if (!IsFloat(types.to)) {
    IntegralToInt(*value, Signed(types.to), Bytes(types.to),
                  types.from == Type::kF64, out);
    return;
  }
  if (types.to == Type::kF64) {
    // A NaN of f64 comes out quiet, as a conversion of f32 makes it.
    POS_LANES(l) {
      const double x = value->v[l];
      value->v[l] = x == x ? x : Quiet(x);
    }
    FinishDouble(i, value->v, out);
    return;
  }
  if (types.to == Type::kF32) {
    alignas(64) float single[kLanes];
    {
      const RoundingScope scope(types.integral ? u32{kRoundNearest}
                                               : i->flags & kRoundMask);
      NarrowToFloat(value->v, single);
    }
    FinishFloat(i, single, out);
    return;
  }
  FinishHalf(i, types.to, value, out);
}

struct Cvt {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const Pair64 types = Unpack(i);
    Lanes64 bits;
    if (IsFloat(types.from)) {
      LanesDouble value;
      LoadFloat(w, i, types.from, types.from_width, &value);
      ConvertFromFloat(i, types, &value, &bits);
    } else {
      LoadInt(w, i, types.from, types.from_width, &bits);
      ConvertFromInt(i, types, &bits);
    }
    // Narrow results are extended to the register's width by their own sign.
    const u32 drop = 64 - 8 * Bytes(types.to);
    if (Signed(types.to)) {
      POS_LANES(l) {
        bits.v[l] =
            static_cast<u64>(static_cast<s64>(bits.v[l] << drop) >> drop);
      }
    } else {
      POS_LANES(l) { bits.v[l] = bits.v[l] << drop >> drop; }
    }
    switch (types.to_width) {
      case 2:
        StoreAs<kPartial, u16>(w, i, bits);
        break;
      case 4:
        StoreAs<kPartial, u32>(w, i, bits);
        break;
      default:
        StoreAs<kPartial, u64>(w, i, bits);
        break;
    }
    return i + 1;
  }
};

// ---- The common pairs.
template <typename S>
struct Extend {  // through S, whose sign counts
  template <typename D, typename A>
  struct Op {
    static POS_INLINE D Do(A a) { return static_cast<D>(static_cast<S>(a)); }
  };
};
template <typename S, typename D, typename A>
HandlerPair PickExtend() {
  return Pair<Unary<typename Extend<S>::template Op<D, A>, D, A>>();
}

struct FloatFromS32 {
  static POS_INLINE float Do(s32 a) { return static_cast<float>(a); }
};
struct FloatFromU32 {  // through double, which is exact
  static POS_INLINE float Do(u32 a) {
    return static_cast<float>(static_cast<double>(a));
  }
};
struct DoubleFromS32 {
  static POS_INLINE double Do(s32 a) { return static_cast<double>(a); }
};
struct S32FromFloat {  // .rzi
  static POS_INLINE s32 Do(float a) {
    const bool fits = (a > -2147483904.0f) & (a < 2147483648.0f);
    const s32 value = static_cast<s32>(fits ? a : 0.0f);
    const s32 limit = a >= 2147483648.0f ? 2147483647
                      : a < 0.0f         ? -2147483647 - 1
                                         : 0;
    return fits ? value : limit;
  }
};
struct DoubleFromFloat {
  static POS_INLINE double Do(float a) { return static_cast<double>(a); }
};
struct FloatFromDouble {
  static POS_INLINE float Do(double a) {
    return Canonical(static_cast<float>(a));
  }
};
struct FloatFromHalf {
  static POS_INLINE float Do(u16 a) { return HalfToFloat(a); }
};
struct FloatFromBfloat {
  static POS_INLINE float Do(u16 a) { return BfloatToFloat(a); }
};
struct HalfFromFloat {
  static POS_INLINE u16 Do(float a) { return FloatToHalf(a); }
};
struct BfloatFromFloat {
  static POS_INLINE u16 Do(float a) { return FloatToBfloat(a); }
};

HandlerPair PickPlainInt(const PickKey& k) {
  const u32 to = Bytes(k.type[0]);
  const u32 from = Bytes(k.type[1]);
  const bool is_signed = Signed(k.type[1]);
  if (to != k.width[0] || from > k.width[1]) return {};
  if (from == 1) {  // 8 bits out of a wider register
    if (to == 4 && k.width[1] == 4) {
      return is_signed ? PickExtend<s8, u32, u32>()
                       : PickExtend<u8, u32, u32>();
    }
    if (to == 4 && k.width[1] == 2) {
      return is_signed ? PickExtend<s8, u32, u16>()
                       : PickExtend<u8, u32, u16>();
    }
    return {};
  }
  if (from != k.width[1]) return {};
  if (to == 8 && from == 4) {
    return is_signed ? PickExtend<s32, u64, u32>()
                     : PickExtend<u32, u64, u32>();
  }
  if (to == 4 && from == 2) {
    return is_signed ? PickExtend<s16, u32, u16>()
                     : PickExtend<u16, u32, u16>();
  }
  if (to == 4 && from == 8) return PickExtend<u64, u32, u64>();
  if (to == 2 && from == 4) return PickExtend<u32, u16, u32>();
  if (to == 2 && from == 8) return PickExtend<u64, u16, u64>();
  if (to == 4 && from == 4) return PickExtend<u32, u32, u32>();
  if (to == 8 && from == 8) return PickExtend<u64, u64, u64>();
  return {};
}

// Pairs without saturation and flushing; {} for one that is not here.
HandlerPair PickPlainFloat(const PickKey& k) {
  const Type to = k.type[0];
  const Type from = k.type[1];
  const bool nearest = (k.flags & kRoundMask) == kRoundNearest;
  const bool integral = (k.words & kIntegral) != 0;
  if (to == Type::kS32 && from == Type::kF32) {
    return (k.flags & kRoundMask) == kRoundZero && k.width[0] == 4
               ? Pair<Unary<S32FromFloat, s32, float>>()
               : HandlerPair{};
  }
  if (integral || !nearest) return {};
  const bool reg32 = k.width[1] == 4;
  const bool reg16 = k.width[1] == 2;
  if (to == Type::kF32) {
    if (from == Type::kS32 && reg32)
      return Pair<Unary<FloatFromS32, float, s32>>();
    if (from == Type::kU32 && reg32)
      return Pair<Unary<FloatFromU32, float, u32>>();
    if (from == Type::kF64)
      return Pair<Unary<FloatFromDouble, float, double>>();
    if (from == Type::kF16 && reg16)
      return Pair<Unary<FloatFromHalf, float, u16>>();
    if (from == Type::kBf16 && reg16)
      return Pair<Unary<FloatFromBfloat, float, u16>>();
  }
  if (to == Type::kF64) {
    if (from == Type::kS32 && reg32)
      return Pair<Unary<DoubleFromS32, double, s32>>();
    if (from == Type::kF32)
      return Pair<Unary<DoubleFromFloat, double, float>>();
  }
  if (from == Type::kF32 && k.width[0] == 2) {
    if (to == Type::kF16) return Pair<Unary<HalfFromFloat, u16, float>>();
    if (to == Type::kBf16) return Pair<Unary<BfloatFromFloat, u16, float>>();
  }
  return {};
}

}  // namespace

HandlerPair PickCvt(const PickKey& k) {
  const bool any_float = IsFloat(k.type[0]) || IsFloat(k.type[1]);
  HandlerPair found;
  if ((k.flags & (kSat | kFtz)) == 0) {
    found = any_float ? PickPlainFloat(k) : PickPlainInt(k);
  }
  return found.full != nullptr ? found : Pair<Cvt>();
}

}  // namespace pos::ptx::POS_PTX_ISA
