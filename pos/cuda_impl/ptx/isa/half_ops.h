// f16 and bf16: to and from wider formats, by integer arithmetic, so that every
// level gives the same bits.
#ifndef POS_CUDA_IMPL_PTX_ISA_HALF_OPS_H_
#define POS_CUDA_IMPL_PTX_ISA_HALF_OPS_H_

#include "pos/cuda_impl/ptx/isa/float_ops.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

constexpr u16 kNan16 = 0x7fff;  // of both formats

// Exact. A NaN becomes the canonical one.
POS_INLINE float HalfToFloat(u16 half) {
  const u32 sign = static_cast<u32>(half & 0x8000) << 16;
  const u32 rest = half & 0x7fff;
  // Subnormals: the value is rest * 2^-24, which the product gives exactly.
  const float tiny = static_cast<float>(static_cast<s32>(rest)) * 0x1p-24f;
  const u32 normal = (rest << 13) + (112u << 23);
  const u32 infinite = 0x7f800000;
  const u32 finite = rest < 0x400 ? BitsOf(tiny) : normal;
  const u32 special = rest == 0x7c00 ? infinite : kNan32;
  return rest > 0x7c00 ? FloatOf(kNan32)
                       : FloatOf(sign | (rest >= 0x7c00 ? special : finite));
}
POS_INLINE float BfloatToFloat(u16 bits) {
  const float wide = FloatOf(static_cast<u32>(bits) << 16);
  return Canonical(wide);
}

// What a narrow format looks like.
struct HalfFormat {
  static constexpr u32 kMantissa = 10;
  static constexpr s32 kMinExponent = -14;
  static constexpr u64 kInfinity = 0x7c00;
  static constexpr u16 kInfinity16 = 0x7c00;
};
struct BfloatFormat {
  static constexpr u32 kMantissa = 7;
  static constexpr s32 kMinExponent = -126;
  static constexpr u64 kInfinity = 0x7f80;
  static constexpr u16 kInfinity16 = 0x7f80;
};

// `bits` of a double, rounded once to the format; a NaN gives the canonical
// one.
template <typename Format>
POS_INLINE u16 RoundTo(u64 bits, u32 mode) {
  const bool negative = (bits >> 63) != 0;
  const u64 size = bits & 0x7fffffffffffffff;
  const s32 biased = static_cast<s32>(size >> 52);
  const s32 exponent = biased - 1023;
  const u64 mantissa =
      (size & 0x000fffffffffffff) | (biased != 0 ? 1ull << 52 : 0);
  const s32 below = Format::kMinExponent - exponent;
  const u32 extra = below > 0 ? static_cast<u32>(below) : 0;
  const u32 wanted = 52 - Format::kMantissa + extra;
  const u32 shift = wanted < 62 ? wanted : 62;
  const u64 kept = mantissa >> shift;
  const u64 rest = mantissa & ((1ull << shift) - 1);
  const u64 half = 1ull << (shift - 1);
  const bool nearest = (rest > half) | ((rest == half) & ((kept & 1) != 0));
  const bool away = mode == kRoundUp ? !negative : negative;
  const bool directed = (mode != kRoundZero) & away & (rest != 0);
  const bool up = mode == kRoundNearest ? nearest : directed;
  // The implicit bit of a normal number adds one to the exponent field.
  const s32 field = exponent - Format::kMinExponent;
  const u64 base = field > 0 ? static_cast<u64>(field) << Format::kMantissa : 0;
  const u64 rounded = base + kept + (up ? 1 : 0);
  const bool keeps_finite =
      (mode == kRoundZero) | ((mode != kRoundNearest) & !away);
  const u64 too_large =
      keeps_finite ? Format::kInfinity - 1 : Format::kInfinity;
  const u64 finite = rounded >= Format::kInfinity ? too_large : rounded;
  const u64 value = size == 0x7ff0000000000000 ? Format::kInfinity : finite;
  const u64 sign = negative ? 0x8000 : 0;
  return static_cast<u16>(size > 0x7ff0000000000000 ? kNan16 : sign | value);
}

// To nearest from float, the common case: 32-bit lanes all the way.
POS_INLINE u16 FloatToHalf(float x) {
  const u32 bits = BitsOf(x);
  const u32 sign = bits >> 16 & 0x8000;
  const u32 size = bits & 0x7fffffff;
  // Normal results: round the 13 bits that go.
  const u32 odd = size >> 13 & 1;
  const u32 normal = ((size - (112u << 23)) + 0xfff + odd) >> 13;
  // Below 2^-14: adding 0.5 makes the processor round at bit 2^-24.
  const float tiny = FloatOf(size) + 0.5f;
  const u32 subnormal = BitsOf(tiny) - 0x3f000000;
  const u32 finite = size < 0x38800000 ? subnormal : normal;
  const u32 value = size >= 0x477ff000 ? 0x7c00 : finite;
  return static_cast<u16>(size > 0x7f800000 ? kNan16 : sign | value);
}
POS_INLINE u16 FloatToBfloat(float x) {
  const u32 bits = BitsOf(x);
  const u32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<u16>((bits & 0x7fffffff) > 0x7f800000 ? kNan16 : rounded);
}

}  // namespace
}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_HALF_OPS_H_
