// Conversions and comparisons. Every value of every source type is exact in a
// long double (64 bits of mantissa); the result is that value put on the
// destination's grid.
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>

#include "reference.h"

namespace pos::ptx::testing {
namespace {

using Real = long double;

struct Format {
  int mantissa;  // bits, with the implicit one
  int min_exponent;
  int max_exponent;
};
Format FormatOf(Type type) {
  switch (type) {
    case Type::kF16:
      return {11, -14, 15};
    case Type::kBf16:
      return {8, -126, 127};
    case Type::kF32:
      return {24, -126, 127};
    default:
      return {53, -1022, 1023};
  }
}

Real InMode(int mode, Real value) {
  const int caller = std::fegetround();
  std::fesetround(mode);
  volatile Real in = value;
  volatile Real out = std::rint(in);
  std::fesetround(caller);
  return out;
}

Real DecodeSmall(std::uint64_t bits, int mantissa, int bias) {
  const auto exponent =
      static_cast<int>(bits >> mantissa & ((1u << (15 - mantissa)) - 1));
  const auto fraction = static_cast<Real>(bits & ((1u << mantissa) - 1));
  const Real scale = std::ldexp(Real{1}, -mantissa);
  const int top = (1 << (15 - mantissa)) - 1;
  Real size = 0;
  if (exponent == top) {
    size = fraction == 0 ? std::numeric_limits<Real>::infinity()
                         : std::numeric_limits<Real>::quiet_NaN();
  } else if (exponent == 0) {
    size = std::ldexp(fraction * scale, 1 - bias);
  } else {
    size = std::ldexp(1 + fraction * scale, exponent - bias);
  }
  return (bits & 0x8000) != 0 ? -size : size;
}

Real Decode(Type type, std::uint64_t bits, bool flush) {
  switch (type) {
    case Type::kF16:
      return DecodeSmall(bits, 10, 15);
    case Type::kBf16:
      return DecodeSmall(bits, 7, 127);
    case Type::kF32: {
      const float value =
          std::bit_cast<float>(static_cast<std::uint32_t>(bits));
      return static_cast<Real>(flush ? FlushSubnormal(value) : value);
    }
    case Type::kF64:
      return static_cast<Real>(std::bit_cast<double>(bits));
    default: {
      const Wide value = IntegerOf(bits, type);
      return static_cast<Real>(value);
    }
  }
}

// The nearest number of the format in the given mode.
Real PutOnGrid(Real value, const Format& format, int mode) {
  if (value == 0 || !std::isfinite(value)) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const int unit = std::max(exponent - format.mantissa,
                            format.min_exponent - (format.mantissa - 1));
  const Real on_grid = std::ldexp(InMode(mode, std::ldexp(value, -unit)), unit);
  const Real largest = std::ldexp(2 - std::ldexp(Real{1}, 1 - format.mantissa),
                                  format.max_exponent);
  if (std::fabs(on_grid) <= largest) return on_grid;
  const bool negative = std::signbit(value);
  const bool stops = mode == FE_TOWARDZERO || (mode == FE_UPWARD && negative) ||
                     (mode == FE_DOWNWARD && !negative);
  return std::copysign(stops ? largest : std::numeric_limits<Real>::infinity(),
                       value);
}

std::uint64_t Encode(Type type, Real value) {
  if (type == Type::kF32) {
    return std::bit_cast<std::uint32_t>(static_cast<float>(value));
  }
  if (type == Type::kF64) {
    return std::bit_cast<std::uint64_t>(static_cast<double>(value));
  }
  // Through f32, in which both are exact: bf16 is its upper half.
  const std::uint64_t sign = std::signbit(value) ? 0x8000 : 0;
  if (type == Type::kBf16) {
    return std::bit_cast<std::uint32_t>(static_cast<float>(value)) >> 16;
  }
  const Real size = std::fabs(value);
  if (std::isinf(value)) return sign | 0x7c00;
  if (size < std::ldexp(Real{1}, -14)) {
    return sign | static_cast<std::uint64_t>(std::ldexp(size, 24));
  }
  int exponent = 0;
  const Real fraction = std::frexp(size, &exponent);
  return sign | static_cast<std::uint64_t>(exponent - 1 + 15) << 10 |
         (static_cast<std::uint64_t>(std::ldexp(fraction, 11)) & 0x3ff);
}

std::uint64_t ToInteger(const OpcodeInfo& op, Real value) {
  const Type to = op.key.type[0];
  const std::uint32_t bytes = TypeBytes(to);
  if (std::isnan(value)) {
    const bool top = op.key.type[1] == Type::kF64 || bytes == 8;
    return top ? 1ull << (8 * bytes - 1) : 0;
  }
  const bool is_signed = ClassOf(to) == TypeClass::kSigned;
  const Wide high = (Wide{1} << (8 * bytes - (is_signed ? 1 : 0))) - 1;
  const Wide low = is_signed ? -high - 1 : 0;
  const Real whole = InMode(RoundingModeOf(op), value);
  Wide result = high;
  if (whole < static_cast<Real>(high)) {
    result = whole <= static_cast<Real>(low) ? low : static_cast<Wide>(whole);
  }
  return CutTo(result, bytes);
}

Want ToFloat(const OpcodeInfo& op, Real value) {
  const Type to = op.key.type[0];
  const bool integral =
      op.Has("rni") || op.Has("rzi") || op.Has("rmi") || op.Has("rpi");
  Want want;
  if (std::isnan(value)) {
    want.bits = to == Type::kF32   ? 0x7fffffff
                : to == Type::kF64 ? 0x7ff8000000000000
                                   : 0x7fff;
    want.any_nan = to == Type::kF64;
    if (op.Has("sat")) want = Want();
    return want;
  }
  const int mode = RoundingModeOf(op);
  Real result = integral ? InMode(mode, value) : value;
  result = PutOnGrid(result, FormatOf(to), integral ? FE_TONEAREST : mode);
  if (result == 0) result = std::copysign(Real{0}, value);
  if (op.Has("ftz") && to == Type::kF32) {
    result = static_cast<Real>(FlushSubnormal(static_cast<float>(result)));
  }
  if (op.Has("sat")) {
    if (!(result > 0)) result = 0;
    if (result > 1) result = 1;
  }
  want.bits = Encode(to, result);
  return want;
}

bool Ordered(std::string_view relation, Real a, Real b) {
  if (relation == "eq") return a == b;
  if (relation == "ne") return a != b && !std::isnan(a) && !std::isnan(b);
  if (relation == "lt" || relation == "lo") return a < b;
  if (relation == "le" || relation == "ls") return a <= b;
  if (relation == "gt" || relation == "hi") return a > b;
  if (relation == "ge" || relation == "hs") return a >= b;
  if (relation == "num") return !std::isnan(a) && !std::isnan(b);
  if (relation == "nan") return std::isnan(a) || std::isnan(b);
  // equ, neu, ltu, leu, gtu, geu: true with a NaN, too.
  const bool nan = std::isnan(a) || std::isnan(b);
  return nan ||
         (relation == "neu" ? a != b : Ordered(relation.substr(0, 2), a, b));
}

}  // namespace

Want ReferenceCvt(const OpcodeInfo& op, std::uint64_t in) {
  const Type to = op.key.type[0];
  const Type from = op.key.type[1];
  const bool to_float = ClassOf(to) == TypeClass::kFloat;
  if (!to_float && ClassOf(from) != TypeClass::kFloat) {
    Wide value = IntegerOf(in, from);
    const std::uint32_t bits = 8 * TypeBytes(to);
    const bool is_signed = ClassOf(to) == TypeClass::kSigned;
    if (op.Has("sat")) {
      const Wide high = (Wide{1} << (bits - (is_signed ? 1 : 0))) - 1;
      const Wide low = is_signed ? -high - 1 : 0;
      value = value > high ? high : value < low ? low : value;
    }
    Want want;
    // Narrow results are extended to the register.
    want.bits =
        static_cast<std::uint64_t>(IntegerOf(CutTo(value, TypeBytes(to)), to));
    return want;
  }
  const Real value = Decode(from, in, op.Has("ftz"));
  if (to_float) return ToFloat(op, value);
  Want want;
  want.bits = static_cast<std::uint64_t>(IntegerOf(ToInteger(op, value), to));
  return want;
}

// setp, set, slct: what is compared has the last type.
std::optional<Want> ReferenceCompare(const OpcodeInfo& op, Sources in) {
  Want want;
  if (op.base == "slct") {
    const Type by = op.key.type[1];
    const Real c = by == Type::kF32 ? Decode(by, in[2], op.Has("ftz"))
                                    : static_cast<Real>(IntegerOf(in[2], by));
    want.bits = c >= 0 ? in[0] : in[1];
    return want;
  }
  if (op.base != "setp" && op.base != "set") return std::nullopt;
  Type type = op.key.type[op.base == "set" ? 1 : 0];
  const std::string_view relation = op.words.front();
  const bool as_unsigned = relation == "lo" || relation == "ls" ||
                           relation == "hi" || relation == "hs";
  if (as_unsigned && ClassOf(type) == TypeClass::kSigned) return std::nullopt;
  const Real a = Decode(type, in[0], op.Has("ftz"));
  const Real b = Decode(type, in[1], op.Has("ftz"));
  const bool holds = Ordered(relation, a, b);
  const auto combine = [&](bool x) {
    if (in.size() < 3) return x;
    const bool c = in[2] != 0;
    if (op.Has("and")) return x && c;
    return op.Has("or") ? x || c : x != c;
  };
  if (op.base == "setp") {
    want.bits = combine(holds) ? 1 : 0;
    want.predicate = combine(!holds);
    return want;
  }
  std::uint64_t yes = 0xffffffff;
  if (op.key.type[0] == Type::kF32) yes = 0x3f800000;
  if (op.key.type[0] == Type::kF16) yes = 0x3c00;
  if (op.key.type[0] == Type::kBf16) yes = 0x3f80;
  want.bits = combine(holds) ? yes : 0;
  return want;
}

}  // namespace pos::ptx::testing
