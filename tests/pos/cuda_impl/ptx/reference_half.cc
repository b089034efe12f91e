// f16 and bf16, alone and in pairs: the exact result, rounded once. Pairs of
// f32 and f32 with narrow operands: the parts as f32.
#include <array>
#include <bit>
#include <cmath>
#include <optional>

#include "exact.h"
#include "reference.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

constexpr u64 kNan = 0x7fff;

u64 InfinityOf(Type type) { return IsBrain(type) ? 0x7f80 : 0x7c00; }

u64 Flush16(u64 bits) { return (bits & 0x7c00) == 0 ? bits & 0x8000 : bits; }

u64 Round16(const Exact& x, Type type) {
  if (x.nan) return kNan;
  const u64 infinity = InfinityOf(type);
  const u64 size =
      x.infinite ? infinity : RoundSize(x, GridOf(type), Rounding::kNearest);
  return (x.negative ? 0x8000 : 0) | std::min(size, infinity);
}

Exact Negated(Exact x) {
  x.negative = !x.negative;
  return x;
}

Want Arithmetic(const OpcodeInfo& op, const std::array<u64, 3>& in) {
  const Type type = op.key.type[0];
  const bool flush = op.Has("ftz");
  std::array<Exact, 3> x;
  for (std::size_t i = 0; i < 3; ++i) {
    x[i] = DecodeExact(type, flush ? Flush16(in[i]) : in[i]);
  }
  Exact exact;
  if (op.base == "add") exact = Sum(x[0], x[1]);
  if (op.base == "sub") exact = Sum(x[0], Negated(x[1]));
  if (op.base == "mul") exact = Product(x[0], x[1]);
  if (op.base == "fma") exact = Sum(Product(x[0], x[1]), x[2]);
  Want want;
  want.bits = Round16(exact, type);
  if (op.Has("sat")) {
    const u64 one = 0x3c00;
    if (exact.nan || exact.negative) want.bits = 0;
    if (want.bits > one) want.bits = one;
  }
  if (op.Has("relu") && !exact.nan && (want.bits & 0x8000) != 0) want.bits = 0;
  if (flush) want.bits = Flush16(want.bits);
  return want;
}

// -0 is less than +0.
Want MinMax(const OpcodeInfo& op, u64 a, u64 b) {
  const Type type = op.key.type[0];
  if (op.Has("ftz")) {
    a = Flush16(a);
    b = Flush16(b);
  }
  const bool magnitudes = op.Has("xorsign");
  const u64 sign = magnitudes ? (a ^ b) & 0x8000 : 0;
  const u64 x = magnitudes ? a & 0x7fff : a;
  const u64 y = magnitudes ? b & 0x7fff : b;
  const double left = DecodeExact(type, x).value();
  const double right = DecodeExact(type, y).value();
  Want want;
  const bool nans = std::isnan(left) && std::isnan(right);
  if (nans || (op.Has("NaN") && (std::isnan(left) || std::isnan(right)))) {
    want.bits = kNan;
    return want;
  }
  bool second = std::isnan(left);
  if (!second && !std::isnan(right)) {
    const bool less = left == right ? std::signbit(left) && !std::signbit(right)
                                    : left < right;
    second = op.base == "min" ? !less : less;
  }
  want.bits = (second ? y : x) | sign;
  return want;
}

Want SignOf(const OpcodeInfo& op, u64 a) {
  if (op.Has("ftz")) a = Flush16(a);
  Want want;
  want.bits = op.base == "neg" ? a ^ 0x8000 : a & 0x7fff;
  if (DecodeExact(op.key.type[0], a).nan) {
    want.open = 0x8000 | (InfinityOf(op.key.type[0]) ^ kNan);
  }
  return want;
}

// The nearest number or one beside it: closer than the ISA asks.
Want Approximate(const OpcodeInfo& op, u64 a) {
  const Type type = op.key.type[0];
  const bool flush = op.Has("ftz");  // of bf16
  const auto flushed = [flush](double x) {
    return flush && std::fabs(x) < 0x1p-126 ? std::copysign(0.0, x) : x;
  };
  const double x = flushed(DecodeExact(type, a).value());
  const double y = flushed(op.base == "ex2" ? std::exp2(x) : std::tanh(x));
  Want want;
  if (std::isnan(y)) {
    want.bits = kNan;
    return want;
  }
  Exact exact;
  exact.negative = std::signbit(y);
  exact.infinite = std::isinf(y);
  int exponent = 0;
  if (!exact.infinite) {
    exact.size =
        static_cast<Wide>(std::ldexp(std::frexp(std::fabs(y), &exponent), 53));
    exact.scale = exponent - 53;
  }
  want.bits = Round16(exact, type);
  const bool special = want.bits == 0 || std::isinf(x) || x == 0;
  want.ulps = special ? 0 : 1;
  return want;
}

std::optional<Want> OneHalf(const OpcodeInfo& op,
                            const std::array<u64, 3>& in) {
  if (op.base == "add" || op.base == "sub" || op.base == "mul" ||
      op.base == "fma") {
    return Arithmetic(op, in);
  }
  if (op.base == "min" || op.base == "max") return MinMax(op, in[0], in[1]);
  if (op.base == "neg" || op.base == "abs") return SignOf(op, in[0]);
  if (op.base == "ex2" || op.base == "tanh") return Approximate(op, in[0]);
  return std::nullopt;
}

bool Holds(std::string_view relation, double a, double b) {
  const bool nan = std::isnan(a) || std::isnan(b);
  if (relation == "num") return !nan;
  if (relation == "nan") return nan;
  if (relation.size() == 3) {
    return nan || Holds(relation.substr(0, 2), a, b);
  }
  if (nan) return false;
  if (relation == "eq") return a == b;
  if (relation == "ne") return a != b;
  if (relation == "lt") return a < b;
  if (relation == "le") return a <= b;
  return relation == "gt" ? a > b : a >= b;
}

// setp and set with f16 or bf16 sources.
Want Comparison(const OpcodeInfo& op, Type source, Sources in) {
  std::array<bool, 2> t{};
  std::array<bool, 2> holds{};
  for (unsigned h = 0; h < 2; ++h) {
    std::array<double, 2> x{};
    for (unsigned i = 0; i < 2; ++i) {
      const u64 bits = in[i] >> (16 * h) & 0xffff;
      x[i] = DecodeExact(source, op.Has("ftz") ? Flush16(bits) : bits).value();
    }
    holds[h] = Holds(op.words.front(), x[0], x[1]);
  }
  const bool two = TypeBytes(source) == 4;
  const bool c = in.size() > 2 && in[2] != 0;
  const auto combine = [&](bool value) {
    if (op.Has("and")) return value && c;
    if (op.Has("or")) return value || c;
    return op.Has("xor") ? value != c : value;
  };
  t[0] = combine(holds[0]);
  t[1] = two ? combine(holds[1]) : combine(!holds[0]);
  Want want;
  if (op.base == "setp") {
    want.bits = t[0] ? 1 : 0;
    want.predicate = t[1];
    return want;
  }
  const Type type = op.key.type[0];
  u64 yes = 0xffff;
  if (IsHalf(type)) yes = IsBrain(type) ? 0x3f80 : 0x3c00;
  if (two) {
    want.bits = (t[0] ? yes : 0) | (t[1] ? yes << 16 : 0);
  } else {
    want.bits = t[0] ? (TypeBytes(type) == 4 ? 0xffffffff : yes) : 0;
  }
  return want;
}

u64 FloatBits(const Exact& x) {
  return std::bit_cast<std::uint32_t>(static_cast<float>(x.value()));
}

// The same operation on floats.
std::optional<Want> AsFloats(const OpcodeInfo& op, Sources in) {
  OpcodeInfo single = op;
  single.key.type[0] = Type::kF32;
  if (op.key.type[0] == Type::kF32x2) {
    Want want;
    for (unsigned h = 0; h < 2; ++h) {
      std::array<u64, 3> parts{};
      for (std::size_t i = 0; i < in.size(); ++i) {
        parts[i] = in[i] >> (32 * h) & 0xffffffff;
      }
      const auto part = ReferenceFloat(single, Sources(parts).first(in.size()));
      if (!part.has_value()) return std::nullopt;
      want.bits |= part->bits << (32 * h);
    }
    return want;
  }
  std::array<u64, 3> wide{};
  for (std::size_t i = 0; i < in.size(); ++i) {
    const bool narrow = i + 1 < in.size();
    wide[i] = narrow ? FloatBits(DecodeExact(op.key.type[1], in[i])) : in[i];
  }
  return ReferenceFloat(single, Sources(wide).first(in.size()));
}

}  // namespace

std::optional<Want> ReferenceHalf(const OpcodeInfo& op, Sources in) {
  const Type type = op.key.type[0];
  const bool compares = op.base == "setp" || op.base == "set";
  const Type source = op.base == "set" ? op.key.type[1] : type;
  if (compares) {
    if (!IsHalf(source)) return std::nullopt;
    return Comparison(op, source, in);
  }
  const bool mixed =
      op.key.types == 2 && type == Type::kF32 && IsHalf(op.key.type[1]);
  if (type == Type::kF32x2 || mixed) return AsFloats(op, in);
  if (!IsHalf(type)) return std::nullopt;
  Want want;
  for (unsigned h = 0; h < TypeBytes(type) / 2; ++h) {
    std::array<u64, 3> parts{};
    for (std::size_t i = 0; i < in.size(); ++i) {
      parts[i] = in[i] >> (16 * h) & 0xffff;
    }
    const auto part = OneHalf(op, parts);
    if (!part.has_value()) return std::nullopt;
    want.bits |= part->bits << (16 * h);
    want.open |= part->open << (16 * h);
    want.ulps = std::max(want.ulps, part->ulps);
  }
  return want;
}

}  // namespace pos::ptx::testing
