// Floating-point arithmetic: the host's, one operation at a time, in the wanted
// rounding mode. Compiled with -frounding-math.
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>

#include "reference.h"

namespace pos::ptx::testing {
namespace {

constexpr std::uint64_t kNan32 = 0x7fffffff;
constexpr std::uint64_t kNan64 = 0xfff8000000000000;

template <typename T>
struct BitsFor;
template <>
struct BitsFor<float> {
  using type = std::uint32_t;
};
template <>
struct BitsFor<double> {
  using type = std::uint64_t;
};

template <typename T>
T FromBits(std::uint64_t bits) {
  return std::bit_cast<T>(static_cast<typename BitsFor<T>::type>(bits));
}
template <typename T>
std::uint64_t ToBits(T value) {
  return std::bit_cast<typename BitsFor<T>::type>(value);
}

template <typename T>
T Apply(std::string_view base, const volatile T* in) {
  if (base == "add") return in[0] + in[1];
  if (base == "sub") return in[0] - in[1];
  if (base == "mul") return in[0] * in[1];
  if (base == "div") return in[0] / in[1];
  if (base == "fma" || base == "mad") return std::fma(in[0], in[1], in[2]);
  if (base == "rcp") return T{1} / in[0];
  return std::sqrt(in[0]);
}

bool IsArithmetic(std::string_view base) {
  return base == "add" || base == "sub" || base == "mul" || base == "div" ||
         base == "fma" || base == "mad" || base == "rcp" || base == "sqrt";
}

// f32 has one NaN; f64 keeps the first NaN operand, made quiet.
template <typename T>
std::uint64_t NanOf(Sources in) {
  if (sizeof(T) == 4) return kNan32;
  for (const std::uint64_t bits : in) {
    if (std::isnan(FromBits<T>(bits))) return bits | 0x0008000000000000;
  }
  return kNan64;
}

template <typename T>
T Flushed(const OpcodeInfo& op, T value) {
  if constexpr (sizeof(T) == 4) {
    if (op.Has("ftz")) return FlushSubnormal(value);
  }
  return value;
}

template <typename T>
Want Arithmetic(const OpcodeInfo& op, Sources in) {
  volatile T operands[3] = {};
  for (std::size_t i = 0; i < in.size(); ++i) {
    operands[i] = Flushed(op, FromBits<T>(in[i]));
  }
  const int caller = std::fegetround();
  std::fesetround(RoundingModeOf(op));
  volatile T computed = Apply<T>(op.base, operands);
  std::fesetround(caller);
  T result = computed;
  Want want;
  if (op.Has("sat")) {
    if (!(result > T{0})) result = T{0};
    if (result > T{1}) result = T{1};
    want.bits = ToBits(Flushed(op, result));
    return want;
  }
  want.bits = std::isnan(result) ? NanOf<T>(in) : ToBits(Flushed(op, result));
  return want;
}

// -0 is less than +0.
template <typename T>
bool Less(T a, T b) {
  return a == b ? std::signbit(a) && !std::signbit(b) : a < b;
}

template <typename T>
Want MinMax(const OpcodeInfo& op, Sources in) {
  const T a = Flushed(op, FromBits<T>(in[0]));
  const T b = Flushed(op, FromBits<T>(in[1]));
  Want want;
  const bool nans = std::isnan(a) && std::isnan(b);
  if (nans || (op.Has("NaN") && (std::isnan(a) || std::isnan(b)))) {
    want.bits = sizeof(T) == 4 ? kNan32 : kNan64;
    want.any_nan = sizeof(T) == 8;
    return want;
  }
  const bool magnitudes = op.Has("xorsign");
  const T x = magnitudes ? std::fabs(a) : a;
  const T y = magnitudes ? std::fabs(b) : b;
  T result = x;
  if (std::isnan(x) ||
      (!std::isnan(y) && (op.base == "min" ? Less(y, x) : Less(x, y)))) {
    result = y;
  }
  if (magnitudes && std::signbit(a) != std::signbit(b)) result = -result;
  want.bits = ToBits(result);
  return want;
}

template <typename T>
Want SignOf(const OpcodeInfo& op, Sources in) {
  const T a = Flushed(op, FromBits<T>(in[0]));
  Want want;
  want.any_nan = op.base != "copysign" && std::isnan(a);
  if (op.base == "neg") want.bits = ToBits(-a);
  if (op.base == "abs") want.bits = ToBits(std::fabs(a));
  if (op.base == "copysign") {
    want.bits = ToBits(std::copysign(FromBits<T>(in[1]), a));
  }
  return want;
}

template <typename T>
Want Test(const OpcodeInfo& op, Sources in) {
  const T a = FromBits<T>(in[0]);
  bool holds = false;
  if (op.Has("finite")) holds = std::isfinite(a);
  if (op.Has("infinite")) holds = std::isinf(a);
  if (op.Has("number")) holds = !std::isnan(a);
  if (op.Has("notanumber")) holds = std::isnan(a);
  // "As a special case, positive and negative zero are considered normal".
  if (op.Has("normal")) holds = std::isnormal(a) || a == 0;
  if (op.Has("subnormal")) holds = std::fpclassify(a) == FP_SUBNORMAL;
  Want want;
  want.bits = holds ? 1 : 0;
  return want;
}

template <typename T>
std::optional<Want> ForType(const OpcodeInfo& op, Sources in) {
  if (IsArithmetic(op.base)) return Arithmetic<T>(op, in);
  if (op.base == "min" || op.base == "max") return MinMax<T>(op, in);
  if (op.base == "neg" || op.base == "abs" || op.base == "copysign") {
    return SignOf<T>(op, in);
  }
  if (op.base == "testp") return Test<T>(op, in);
  return std::nullopt;
}

}  // namespace

float FlushSubnormal(float value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value)
                                                : value;
}

int RoundingModeOf(const OpcodeInfo& op) {
  if (op.Has("rz") || op.Has("rzi")) return FE_TOWARDZERO;
  if (op.Has("rm") || op.Has("rmi")) return FE_DOWNWARD;
  if (op.Has("rp") || op.Has("rpi")) return FE_UPWARD;
  return FE_TONEAREST;
}

std::optional<Want> ReferenceFloat(const OpcodeInfo& op, Sources in) {
  if (op.Has("approx") || op.Has("full")) return ReferenceApprox(op, in);
  if (op.key.type[0] == Type::kF32) return ForType<float>(op, in);
  if (op.key.type[0] == Type::kF64) return ForType<double>(op, in);
  return std::nullopt;
}

}  // namespace pos::ptx::testing
