// Integer arithmetic, logic and bit fields.
#include <algorithm>
#include <array>

#include "reference.h"

namespace pos::ptx::testing {
namespace {

__extension__ using Unsigned = unsigned __int128;

constexpr std::uint32_t kWord = 4;

bool IsSigned(Type type) { return ClassOf(type) == TypeClass::kSigned; }

Want Bits(Wide value, std::uint32_t bytes) {
  Want want;
  want.bits = CutTo(value, bytes);
  return want;
}

Wide Clamp(Wide value, Wide low, Wide high) {
  return std::min(std::max(value, low), high);
}

// A half of a product, or all of it. The product of two 64-bit numbers may need
// an unsigned type; its bits are the same.
Wide Product(const OpcodeInfo& op, Wide a, Wide b, std::uint32_t bytes) {
  const auto product =
      static_cast<Wide>(static_cast<Unsigned>(a) * static_cast<Unsigned>(b));
  return op.Has("hi") ? product >> (8 * bytes) : product;
}

Wide Multiply24(const OpcodeInfo& op, std::uint64_t a, std::uint64_t b) {
  const bool is_signed = IsSigned(op.key.type[0]);
  const auto part = [is_signed](std::uint64_t x) -> Wide {
    const auto low = static_cast<std::int64_t>(x & 0xffffff);
    return is_signed && low >= 0x800000 ? low - 0x1000000 : low;
  };
  const Wide product = part(a) * part(b);
  return op.Has("hi") ? product >> 16 : product;
}

Wide Quotient(Wide a, Wide b, bool remainder) {
  if (b == 0) return remainder ? a : -1;
  return remainder ? a % b : a / b;
}

// The operation of a type with two halves, on each.
std::optional<Want> Halves(const OpcodeInfo& op, Sources in) {
  OpcodeInfo half = op;
  half.key.type[0] = op.key.type[0] == Type::kS16x2 ? Type::kS16 : Type::kU16;
  std::uint64_t result = 0;
  for (int h = 0; h < 2; ++h) {
    const std::array<std::uint64_t, 2> parts{in[0] >> (16 * h) & 0xffff,
                                             in[1] >> (16 * h) & 0xffff};
    const auto want = ReferenceInt(half, parts);
    if (!want.has_value()) return std::nullopt;
    result |= want->bits << (16 * h);
  }
  Want want;
  want.bits = result;
  return want;
}

std::optional<Wide> Arithmetic(const OpcodeInfo& op, Wide a, Wide b, Wide c,
                               std::uint32_t bytes) {
  const bool saturates = op.Has("sat");
  const auto limit = [saturates](Wide x) {
    return saturates ? Clamp(x, -Wide{2147483648}, Wide{2147483647}) : x;
  };
  if (op.base == "add") return limit(a + b);
  if (op.base == "sub") return limit(a - b);
  if (op.base == "mul") return Product(op, a, b, bytes);
  if (op.base == "mad") {
    const auto product = static_cast<Unsigned>(Product(op, a, b, bytes));
    return limit(static_cast<Wide>(product + static_cast<Unsigned>(c)));
  }
  if (op.base == "div") return Quotient(a, b, false);
  if (op.base == "rem") return Quotient(a, b, true);
  if (op.base == "sad") return (a < b ? b - a : a - b) + c;
  if (op.base == "neg") return -a;
  if (op.base == "abs") return a < 0 ? -a : a;
  if (op.base == "min" || op.base == "max") {
    const Wide result = op.base == "min" ? std::min(a, b) : std::max(a, b);
    return op.Has("relu") ? std::max(result, Wide{0}) : result;
  }
  return std::nullopt;
}

// Sums of products of parts of words.
Wide DotProduct(const OpcodeInfo& op, Sources in) {
  const bool four = op.base == "dp4a";
  const auto part = [](std::uint64_t word, int at, int bits, Type type) {
    const std::uint64_t field = word >> at & ((1ull << bits) - 1);
    return IsSigned(type) && (field >> (bits - 1) & 1) != 0
               ? static_cast<Wide>(field) - (Wide{1} << bits)
               : static_cast<Wide>(field);
  };
  Wide sum = static_cast<Wide>(in[2]);
  for (int i = 0; i < (four ? 4 : 2); ++i) {
    const int byte = four ? i : i + (op.Has("hi") ? 2 : 0);
    sum += part(in[0], four ? 8 * i : 16 * i, four ? 8 : 16, op.key.type[0]) *
           part(in[1], 8 * byte, 8, op.key.type[1]);
  }
  return sum;
}

}  // namespace

Wide IntegerOf(std::uint64_t bits, Type type) {
  const std::uint32_t bytes = TypeBytes(type);
  const std::uint64_t cut =
      bytes >= 8 ? bits : bits & ((1ull << (8 * bytes)) - 1);
  const bool negative = IsSigned(type) && (cut >> (8 * bytes - 1) & 1) != 0;
  return negative ? static_cast<Wide>(cut) - (Wide{1} << (8 * bytes))
                  : static_cast<Wide>(cut);
}

std::uint64_t CutTo(Wide value, std::uint32_t bytes) {
  const auto bits = static_cast<std::uint64_t>(value);
  return bytes >= 8 ? bits : bits & ((1ull << (8 * bytes)) - 1);
}

std::optional<Want> ReferenceInt(const OpcodeInfo& op, Sources in) {
  const Type type = op.key.type[0];
  if (ClassOf(type) == TypeClass::kFloat) return std::nullopt;
  if (type == Type::kU16x2 || type == Type::kS16x2) return Halves(op, in);
  if (op.base == "mul24") return Bits(Multiply24(op, in[0], in[1]), kWord);
  if (op.base == "mad24") {
    const Wide half = CutTo(Multiply24(op, in[0], in[1]), kWord);
    const Wide sum = IntegerOf(static_cast<std::uint64_t>(half), type) +
                     IntegerOf(in[2], type);
    if (!op.Has("sat")) return Bits(sum, kWord);
    return Bits(Clamp(sum, -Wide{2147483648}, Wide{2147483647}), kWord);
  }
  if (op.base == "dp4a" || op.base == "dp2a") {
    return Bits(DotProduct(op, in), kWord);
  }
  const std::uint32_t bytes = TypeBytes(type);
  const Wide a = IntegerOf(in[0], type);
  const Wide b = in.size() > 1 ? IntegerOf(in[1], type) : 0;
  const bool wide = op.Has("wide");
  // The third operand of mad.wide is as wide as the result.
  const Wide c = in.size() < 3 ? Wide{0}
                 : wide        ? static_cast<Wide>(in[2])
                               : IntegerOf(in[2], type);
  const auto value = Arithmetic(op, a, b, c, bytes);
  if (!value.has_value()) return std::nullopt;
  return Bits(*value, wide ? 2 * bytes : bytes);
}

}  // namespace pos::ptx::testing
