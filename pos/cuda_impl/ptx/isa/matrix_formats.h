// The floating-point elements of matrices (matrix_float.cc). Included only by
// isa/*.cc.
#ifndef POS_CUDA_IMPL_PTX_ISA_MATRIX_FORMATS_H_
#define POS_CUDA_IMPL_PTX_ISA_MATRIX_FORMATS_H_

#include "pos/cuda_impl/ptx/isa/half_ops.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

// `some` where `which` is not zero. By masks: the compiler must not make
// branches of it, which are not vector code.
POS_INLINE u32 Choose(u32 which, u32 some, u32 none) {
  const u32 mask = 0u - static_cast<u32>(which != 0);
  return (some & mask) | (none & ~mask);
}

// Each format has Split: the value, 2^exponent (0 for a zero), and whether the
// slow way is needed; Value and Exponent are for that one.

struct F16 {
  using Raw = u16;
  static POS_INLINE u32 Split(u32 raw, float* value, float* power) {
    const u32 rest = raw & 0x7fff;
    const u32 top = raw & 0x7c00;
    const float tiny = static_cast<float>(static_cast<s32>(rest)) * 0x1p-24f;
    const u32 bits = Choose(top, (rest << 13) + (112u << 23), BitsOf(tiny));
    *value = FloatOf(bits | (raw & 0x8000) << 16);
    const u32 least = Choose(rest, 113u << 23, 0);
    *power = FloatOf(Choose(top, (top << 13) + (112u << 23), least));
    return top == 0x7c00 ? 1 : 0;
  }
  static double Value(u16 raw) { return static_cast<double>(HalfToFloat(raw)); }
  static s32 Exponent(u16 raw) {
    const s32 field = raw >> 10 & 31;
    return (field != 0 ? field : 1) - 15;
  }
};

// f32 of which some bits count.
POS_INLINE u32 SplitWide(u32 bits, float* value, float* power) {
  const u32 top = bits & 0x7f800000;
  *value = FloatOf(bits);
  *power = FloatOf(top);
  const bool moderate = top - (77u << 23) <= 100u << 23;
  const bool zero = (bits & 0x7fffffff) == 0;
  return static_cast<u32>(!zero & !moderate);
}
POS_INLINE s32 ExponentWide(u32 bits) {
  const s32 field = static_cast<s32>(bits >> 23 & 255);
  return (field != 0 ? field : 1) - 127;
}
struct Bf16 {
  using Raw = u16;
  static POS_INLINE u32 Split(u32 raw, float* value, float* power) {
    return SplitWide(raw << 16, value, power);
  }
  static double Value(u16 raw) {
    return static_cast<double>(FloatOf(static_cast<u32>(raw) << 16));
  }
  static s32 Exponent(u16 raw) {
    return ExponentWide(static_cast<u32>(raw) << 16);
  }
};
struct Tf32 {
  using Raw = u32;
  static constexpr u32 kKept = 0xffffe000;
  static POS_INLINE u32 Split(u32 raw, float* value, float* power) {
    return SplitWide(raw & kKept, value, power);
  }
  static double Value(u32 raw) {
    const bool nan = (raw & 0x7fffffff) > 0x7f800000;
    return static_cast<double>(FloatOf(nan ? kNan32 : raw & kKept));
  }
  static s32 Exponent(u32 raw) { return ExponentWide(raw); }
};
struct E4m3 {
  using Raw = u8;
  static POS_INLINE u32 Split(u32 raw, float* value, float* power) {
    const u32 rest = raw & 0x7f;
    const u32 top = raw & 0x78;
    const float tiny = static_cast<float>(static_cast<s32>(rest)) * 0x1p-9f;
    const u32 bits = Choose(top, (rest << 20) + (120u << 23), BitsOf(tiny));
    *value = FloatOf(bits | (raw & 0x80) << 24);
    const u32 least = Choose(rest, 121u << 23, 0);
    *power = FloatOf(Choose(top, (top << 20) + (120u << 23), least));
    return rest == 0x7f ? 1 : 0;
  }
  static double Value(u8 raw) {
    float value = 0;
    float power = 0;
    const u32 nan = Split(raw, &value, &power);
    return static_cast<double>(nan != 0 ? FloatOf(kNan32) : value);
  }
  static s32 Exponent(u8 raw) {
    const s32 field = raw >> 3 & 15;
    return (field != 0 ? field : 1) - 7;
  }
};
struct E5m2 {
  using Raw = u8;
  static POS_INLINE u16 Half(u8 raw) { return static_cast<u16>(raw << 8); }
  static POS_INLINE u32 Split(u32 raw, float* value, float* power) {
    return F16::Split(raw << 8, value, power);
  }
  static double Value(u8 raw) { return F16::Value(Half(raw)); }
  static s32 Exponent(u8 raw) { return F16::Exponent(Half(raw)); }
};

// f(format) for the format of `type`.
template <typename F>
POS_INLINE u32 WithFormat(Type type, F f) {
  switch (type) {
    case Type::kF16:
      return f(F16());
    case Type::kBf16:
      return f(Bf16());
    case Type::kTf32:
      return f(Tf32());
    case Type::kE4m3:
      return f(E4m3());
    default:
      return f(E5m2());
  }
}

}  // namespace
}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_MATRIX_FORMATS_H_
