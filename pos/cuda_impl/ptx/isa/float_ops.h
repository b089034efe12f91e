// Floating-point arithmetic of one lane, to the bit.
//
// f32: subnormals count unless .ftz flushes them (inputs and results, sign
//   kept); every NaN result is 0x7fffffff.
// f64: a NaN input comes out quiet, the first one if there are several; an
//   invalid operation gives 0xfff8000000000000.
// Rounding modes other than to nearest run with MXCSR set (RoundingScope), in
// functions that the compiler must not look into.
#ifndef POS_CUDA_IMPL_PTX_ISA_FLOAT_OPS_H_
#define POS_CUDA_IMPL_PTX_ISA_FLOAT_OPS_H_

#include "pos/cuda_impl/ptx/isa/lanes.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

POS_INLINE u32 BitsOf(float x) { return __builtin_bit_cast(u32, x); }
POS_INLINE u64 BitsOf(double x) { return __builtin_bit_cast(u64, x); }
POS_INLINE float FloatOf(u32 bits) { return __builtin_bit_cast(float, bits); }
POS_INLINE double DoubleOf(u64 bits) {
  return __builtin_bit_cast(double, bits);
}

constexpr u32 kNan32 = 0x7fffffff;
constexpr u64 kNan64 = 0xfff8000000000000;
constexpr u64 kQuiet64 = 0x0008000000000000;

// Subnormals become zeros of the same sign.
POS_INLINE float Flush(float x) {
  const u32 bits = BitsOf(x);
  return FloatOf((bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits);
}
template <bool kFlush>
POS_INLINE float FlushIf(float x) {
  return kFlush ? Flush(x) : x;
}

POS_INLINE float Canonical(float x) { return x == x ? x : FloatOf(kNan32); }

// To [0, 1]; a NaN and -0 become +0.
POS_INLINE float Saturate(float x) {
  const float low = x > 0.0f ? x : 0.0f;
  return low < 1.0f ? low : 1.0f;
}
POS_INLINE double Saturate(double x) {
  const double low = x > 0.0 ? x : 0.0;
  return low < 1.0 ? low : 1.0;
}

POS_INLINE double Quiet(double x) { return DoubleOf(BitsOf(x) | kQuiet64); }
POS_INLINE double PickNan(double result, double a) {
  const double nan = a == a ? DoubleOf(kNan64) : Quiet(a);
  return result == result ? result : nan;
}
POS_INLINE double PickNan(double result, double a, double b) {
  const double second = b == b ? DoubleOf(kNan64) : Quiet(b);
  const double nan = a == a ? second : Quiet(a);
  return result == result ? result : nan;
}
POS_INLINE double PickNan(double result, double a, double b, double c) {
  const double third = c == c ? DoubleOf(kNan64) : Quiet(c);
  const double second = b == b ? third : Quiet(b);
  const double nan = a == a ? second : Quiet(a);
  return result == result ? result : nan;
}
// f32 has one NaN.
POS_INLINE float PickNan(float result, float) { return Canonical(result); }
POS_INLINE float PickNan(float result, float, float) {
  return Canonical(result);
}
POS_INLINE float PickNan(float result, float, float, float) {
  return Canonical(result);
}

// a + b in double, rounded to odd: what is left out makes the last bit 1, so
// that rounding once more to a format with two bits less cannot err.
POS_INLINE double AddToOdd(double a, double b) {
  const double sum = a + b;
  const double part = sum - a;
  const double error = (a - (sum - part)) + (b - part);
  const u64 bits = BitsOf(sum);
  const u64 toward = (error > 0) == (sum > 0) ? bits + 1 : bits - 1;
  const bool inexact = (error > 0) | (error < 0);
  const bool adjust = inexact & ((bits & 1) == 0);
  return DoubleOf(adjust ? toward : bits);
}

struct FAdd {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return a + b;
  }
};
struct FSub {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return a - b;
  }
};
struct FMul {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return a * b;
  }
};
struct FDiv {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return a / b;
  }
};
// Rounding to nearest.
struct Fma {
  static POS_INLINE float Do(float a, float b, float c) {
#if defined(__FMA__)
    return __builtin_fmaf(a, b, c);
#else
    // The product is exact in double.
    return static_cast<float>(
        AddToOdd(static_cast<double>(a) * static_cast<double>(b),
                 static_cast<double>(c)));
#endif
  }
  static POS_INLINE double Do(double a, double b, double c) {
    return __builtin_fma(a, b, c);
  }
};
// The other modes: rounding twice in the same direction is rounding once.
struct FmaDirected {
  static POS_INLINE float Do(float a, float b, float c) {
#if defined(__FMA__)
    return __builtin_fmaf(a, b, c);
#else
    return static_cast<float>(static_cast<double>(a) * static_cast<double>(b) +
                              static_cast<double>(c));
#endif
  }
  static POS_INLINE double Do(double a, double b, double c) {
    return __builtin_fma(a, b, c);
  }
};
struct FSqrt {
  static POS_INLINE float Do(float a) { return __builtin_sqrtf(a); }
  static POS_INLINE double Do(double a) { return __builtin_sqrt(a); }
};
struct FRcp {
  template <typename T>
  static POS_INLINE T Do(T a) {
    return T{1} / a;
  }
};

// Orders as reals do, with -0 before +0.
POS_INLINE s32 OrderKey(float x) {
  const s32 bits = __builtin_bit_cast(s32, x);
  return bits ^ static_cast<s32>(static_cast<u32>(bits >> 31) >> 1);
}
POS_INLINE s64 OrderKey(double x) {
  const s64 bits = __builtin_bit_cast(s64, x);
  return bits ^ static_cast<s64>(static_cast<u64>(bits >> 63) >> 1);
}
// One NaN loses against a number.
template <bool kMax>
struct FMinMax {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    const bool first =
        kMax ? OrderKey(a) > OrderKey(b) : OrderKey(a) < OrderKey(b);
    const T ordered = first ? a : b;
    const T right = b == b ? ordered : a;
    const T result = a == a ? right : b;
    return PickNan(result, a, b);
  }
};

// Sets the rounding mode of SSE arithmetic. Only calls to POS_OPAQUE functions
// may stand in its scope.
class RoundingScope {
 public:
  explicit POS_INLINE RoundingScope(u32 mode) {
    asm volatile("stmxcsr %0" : "=m"(saved_));
    const u32 wanted = (saved_ & ~0x6000u) | mode << 13;
    asm volatile("ldmxcsr %0" : : "m"(wanted) : "memory");
  }
  POS_INLINE ~RoundingScope() {
    asm volatile("ldmxcsr %0" : : "m"(saved_) : "memory");
  }
  RoundingScope(const RoundingScope&) = delete;
  RoundingScope& operator=(const RoundingScope&) = delete;

 private:
  u32 saved_;
};

}  // namespace
}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_FLOAT_OPS_H_
