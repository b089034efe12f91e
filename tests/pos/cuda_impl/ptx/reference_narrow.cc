// Conversions to and from narrow formats: the exact value on the format's grid.
#include <algorithm>

#include "exact.h"
#include "reference.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

Rounding RoundingOf(const OpcodeInfo& op) {
  if (op.Has("rz")) return Rounding::kZero;
  return op.Has("rna") ? Rounding::kAway : Rounding::kNearest;
}

// Fields and sign of one number; 16 bits, or 19 for tf32.
u64 ToFormat(const OpcodeInfo& op, const Exact& x, u64 infinity, u64 nan,
             u64 sign) {
  if (x.nan) return nan;
  const u64 rounded =
      x.infinite ? infinity
                 : RoundSize(x, GridOf(op.key.type[0]), RoundingOf(op));
  const u64 largest = infinity - 1;
  u64 size = std::min(rounded, infinity);
  // Toward zero a finite number stays finite.
  if (op.Has("rz") && !x.infinite) size = std::min(size, largest);
  if (op.Has("satfinite")) size = std::min(size, largest);
  if (x.negative && op.Has("relu")) return 0;
  return x.negative ? sign | size : size;
}

struct Small {
  u64 largest;
  u64 nan;
  u64 sign;
  unsigned step;
};
std::optional<Small> SmallOf(Type type) {
  switch (type) {
    case Type::kE4m3x2:
      return Small{0x7e, 0x7f, 0x80, 8};
    case Type::kE5m2x2:
      return Small{0x7b, 0x7f, 0x80, 8};
    case Type::kE2m3x2:
    case Type::kE3m2x2:
      return Small{0x1f, 0x1f, 0x20, 8};
    case Type::kE2m1x2:
      return Small{0x7, 0x7, 0x8, 4};
    default:
      return std::nullopt;
  }
}

u64 ToSmall(const OpcodeInfo& op, const Exact& x) {
  const Small small = *SmallOf(op.key.type[0]);
  return ToFormat(op, x, small.largest + 1, small.nan, small.sign);
}

// The f16 with the value of these fields: the smallest one that they are cut
// from.
u64 FromSmall(const OpcodeInfo& op, u64 bits) {
  const Type type = op.key.type[1];
  const Small small = *SmallOf(type);
  const u64 size = bits & (small.sign - 1);
  const bool negative = (bits & small.sign) != 0;
  if (type == Type::kE4m3x2 && size == 0x7f) return 0x7fff;
  if (type == Type::kE5m2x2 && size > 0x7c) return 0x7fff;
  if (negative && op.Has("relu")) return 0;
  const u64 sign = negative ? 0x8000 : 0;
  if (type == Type::kE5m2x2 && size == 0x7c) return sign | 0x7c00;
  const Grid grid = GridOf(type);
  u64 low = 0;
  u64 high = 0x7c00;
  while (low < high) {
    const u64 half = (low + high) / 2;
    const Exact x = DecodeExact(Type::kF16, half);
    if (RoundSize(x, grid, Rounding::kZero) < size) {
      low = half + 1;
    } else {
      high = half;
    }
  }
  return sign | low;
}

// The exponent e of the power of two 2^(e - 127) that x becomes.
u64 ToUe8m0(const OpcodeInfo& op, const Exact& x) {
  if (x.nan) return 0xff;
  const u64 beyond = op.Has("satfinite") ? 0xfe : 0xff;
  if (x.infinite) return beyond;
  const double size = std::abs(x.value());
  u64 e = 0;
  double power = 0x1p-127;
  if (op.Has("rp")) {
    for (; power < size; power *= 2) ++e;
  } else {
    for (; 2 * power <= size; power *= 2) ++e;
  }
  return std::min(e, beyond);
}
u64 FromUe8m0(u64 e) {
  if (e == 0xff) return 0x7fff;
  return e == 0 ? 0x0040 : e << 7;
}

u64 PackIntegers(const OpcodeInfo& op, Sources in) {
  const Type type = op.key.type[0];
  unsigned bits = 8 * TypeBytes(type);
  if (type == Type::kU4 || type == Type::kS4) bits = 4;
  if (type == Type::kU2 || type == Type::kS2) bits = 2;
  const bool is_signed = ClassOf(type) == TypeClass::kSigned;
  const Wide high = (Wide{1} << (is_signed ? bits - 1 : bits)) - 1;
  const Wide low = is_signed ? -high - 1 : 0;
  const auto part = [&](u64 x) {
    const Wide value = std::clamp(IntegerOf(x, Type::kS32), low, high);
    return static_cast<u64>(value) & ((u64{1} << bits) - 1);
  };
  u64 result = part(in[0]) << bits | part(in[1]);
  if (in.size() > 2) {
    for (unsigned i = 2 * bits; i < 32; ++i) {
      result |= (in[2] >> (i - 2 * bits) & 1) << i;
    }
  }
  return result;
}

u64 ToHalves(const OpcodeInfo& op, Sources in) {
  const Type type = op.key.type[0];
  const u64 infinity = IsBrain(type) ? 0x7f80 : 0x7c00;
  u64 result = 0;
  for (const u64 bits : in) {
    result = result << 16 | ToFormat(op, DecodeExact(Type::kF32, bits),
                                     infinity, 0x7fff, 0x8000);
  }
  return result;
}

u64 ToTf32(const OpcodeInfo& op, u64 bits) {
  const Exact x = DecodeExact(Type::kF32, bits);
  if (x.nan) return 0x7fffffff;
  return ToFormat(op, x, 0xff << 10, 0, 1 << 18) << 13;
}

}  // namespace

std::optional<Want> ReferenceNarrow(const OpcodeInfo& op, Sources in) {
  const Type to = op.key.type[0];
  const Type from = op.key.type[1];
  Want want;
  if (op.Has("pack")) {
    want.bits = PackIntegers(op, in);
  } else if (to == Type::kTf32) {
    want.bits = ToTf32(op, in[0]);
  } else if (IsHalf(to) && from == Type::kF32 &&
             (TypeBytes(to) == 4 || op.Has("relu") || op.Has("satfinite"))) {
    want.bits = ToHalves(op, in);
  } else if (const auto small = SmallOf(to)) {
    const bool floats = from == Type::kF32;
    const Type source = floats ? from : Type::kF16;
    const u64 a = floats ? in[0] : in[0] >> 16;
    const u64 b = floats ? in[1] : in[0] & 0xffff;
    want.bits = ToSmall(op, DecodeExact(source, a)) << small->step |
                ToSmall(op, DecodeExact(source, b));
  } else if (const auto packed = SmallOf(from)) {
    const u64 all = (u64{1} << packed->step) - 1;
    want.bits = FromSmall(op, in[0] >> packed->step & all) << 16 |
                FromSmall(op, in[0] & all);
  } else if (to == Type::kUe8m0x2) {
    const bool floats = from == Type::kF32;
    const Type source = floats ? from : Type::kBf16;
    const u64 a = floats ? in[0] : in[0] >> 16;
    const u64 b = floats ? in[1] : in[0] & 0xffff;
    want.bits = ToUe8m0(op, DecodeExact(source, a)) << 8 |
                ToUe8m0(op, DecodeExact(source, b));
  } else if (from == Type::kUe8m0x2) {
    want.bits = FromUe8m0(in[0] >> 8) << 16 | FromUe8m0(in[0] & 0xff);
  } else {
    return std::nullopt;
  }
  return want;
}

}  // namespace pos::ptx::testing
