#include "reference_matrix.h"

#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;
using s64 = std::int64_t;

struct Format {
  int mantissa;
  int exponent;
};
Format FormatOf(Type type) {
  switch (type) {
    case Type::kF16:
      return {10, 5};
    case Type::kBf16:
      return {7, 8};
    case Type::kE4m3:
      return {3, 4};
    case Type::kE5m2:
      return {2, 5};
    case Type::kF64:
      return {52, 11};
    default:  // f32, tf32
      return {23, 8};
  }
}

// magnitude * 2^last, and the exponent that it counts with.
struct Number {
  bool nan = false;
  bool infinite = false;
  bool negative = false;
  u64 magnitude = 0;
  int last = 0;
  int scale = 0;
};

Number Decode(u64 bits, Type type) {
  const Format format = FormatOf(type);
  const int bias = (1 << (format.exponent - 1)) - 1;
  const u64 ones = (u64{1} << format.exponent) - 1;
  const u64 field = bits >> format.mantissa & ones;
  u64 fraction = bits & ((u64{1} << format.mantissa) - 1);
  Number number;
  number.negative = (bits >> (format.mantissa + format.exponent) & 1) != 0;
  if (type == Type::kE4m3) {
    number.nan = (bits & 0x7f) == 0x7f;
  } else if (field == ones) {
    number.nan = fraction != 0;
    number.infinite = fraction == 0;
  }
  if (type == Type::kTf32) fraction = fraction >> 13 << 13;
  number.scale = static_cast<int>(std::max<u64>(field, 1)) - bias;
  number.last = number.scale - format.mantissa;
  number.magnitude = fraction | (field != 0 ? u64{1} << format.mantissa : 0);
  return number;
}

Number Times(const Number& a, const Number& b) {
  Number product;
  const bool zero = (a.magnitude == 0 && !a.infinite && !a.nan) ||
                    (b.magnitude == 0 && !b.infinite && !b.nan);
  const bool infinite = a.infinite || b.infinite;
  product.nan = a.nan || b.nan || (infinite && zero);
  product.infinite = infinite && !product.nan;
  product.negative = a.negative != b.negative;
  product.magnitude = a.magnitude * b.magnitude;
  product.last = a.last + b.last;
  product.scale = a.scale + b.scale;
  return product;
}

// magnitude * 2^last to a format: toward zero, or to nearest even.
u64 Encode(bool negative, u64 magnitude, int last, Type type, bool nearest) {
  const Format format = FormatOf(type);
  const int bias = (1 << (format.exponent - 1)) - 1;
  const u64 sign = u64{negative} << (format.mantissa + format.exponent);
  if (magnitude == 0) return 0;
  const int top = last + static_cast<int>(std::bit_width(magnitude)) - 1;
  int wanted = std::max(top, 1 - bias) - format.mantissa;
  u64 kept = magnitude;
  if (wanted > last) {
    const int drop = wanted - last;
    kept = drop < 64 ? magnitude >> drop : 0;
    const u64 rest = drop < 64 ? magnitude - (kept << drop) : magnitude;
    const u64 half = drop <= 64 ? u64{1} << (drop - 1) : 0;
    const bool up = drop <= 64 && (rest > half || (rest == half && kept % 2));
    if (nearest && up) ++kept;
  } else {
    kept <<= last - wanted;
  }
  if (kept >> (format.mantissa + 1) != 0) {
    kept >>= 1;
    ++wanted;
  }
  const u64 infinity = ((u64{1} << format.exponent) - 1) << format.mantissa;
  if (kept >> format.mantissa == 0) return sign | kept;  // subnormal
  const int field = wanted + format.mantissa + bias;
  if (field >= (1 << format.exponent) - 1) return sign | infinity;
  return sign | (static_cast<u64>(field) << format.mantissa) |
         (kept & ((u64{1} << format.mantissa) - 1));
}

u64 FloatElement(const ProductSpec& spec, const Matrix& a, const Matrix& b,
                 u64 c, std::size_t row, std::size_t column) {
  std::vector<Number> terms = {Decode(c, spec.c)};
  for (std::size_t k = 0; k < spec.k; ++k) {
    terms.push_back(
        Times(Decode(a.At(row, k), spec.a), Decode(b.At(k, column), spec.b)));
  }
  const bool half = spec.d == Type::kF16;
  const u64 nan = half ? 0x7fff : 0x7fffffff;
  const u64 infinity = half ? 0x7c00 : 0x7f800000;
  const u64 minus = half ? 0x8000 : 0x80000000;
  bool plus_infinite = false;
  bool minus_infinite = false;
  int most = -126;
  for (const Number& term : terms) {
    if (term.nan) return nan;
    if (term.infinite) (term.negative ? minus_infinite : plus_infinite) = true;
    if (term.magnitude != 0) most = std::max(most, term.scale);
  }
  if (plus_infinite && minus_infinite) return nan;
  if (plus_infinite || minus_infinite) {
    return infinity | (minus_infinite ? minus : 0);
  }
  const int cut = most - 25;
  s64 sum = 0;
  for (const Number& term : terms) {
    const int shift = term.last - cut;
    u64 whole = 0;
    if (term.magnitude == 0 || shift <= -64) continue;
    whole = shift >= 0 ? term.magnitude << shift : term.magnitude >> -shift;
    sum += term.negative ? -static_cast<s64>(whole) : static_cast<s64>(whole);
  }
  return Encode(sum < 0, static_cast<u64>(std::llabs(sum)), cut, spec.d, half);
}

u64 DoubleElement(const ProductSpec& spec, const Matrix& a, const Matrix& b,
                  u64 c, std::size_t row, std::size_t column) {
  constexpr u64 kQuiet = 0x0008000000000000;
  std::fesetround(spec.rounding);
  for (std::size_t k = 0; k < spec.k; ++k) {
    const u64 in[] = {a.At(row, k), b.At(k, column), c};
    const double x = std::bit_cast<double>(in[0]);
    const double y = std::bit_cast<double>(in[1]);
    const double z = std::bit_cast<double>(in[2]);
    const double sum = std::fma(x, y, z);
    c = std::bit_cast<u64>(sum);
    if (!std::isnan(sum)) continue;
    c = 0xfff8000000000000;
    for (const u64 bits : in) {
      if (!std::isnan(std::bit_cast<double>(bits))) continue;
      c = bits | kQuiet;
      break;
    }
  }
  std::fesetround(FE_TONEAREST);
  return c;
}

s64 Integer(u64 bits, Type type) {
  const auto width = static_cast<int>(ElementBitsOf(type));
  const u64 up = bits << (64 - width);
  return ClassOf(type) == TypeClass::kSigned
             ? static_cast<s64>(up) >> (64 - width)
             : static_cast<s64>(up >> (64 - width));
}

u64 IntegerElement(const ProductSpec& spec, const Matrix& a, const Matrix& b,
                   u64 c, std::size_t row, std::size_t column) {
  s64 sum = static_cast<std::int32_t>(c);
  for (std::size_t k = 0; k < spec.k; ++k) {
    const u64 x = a.At(row, k);
    const u64 y = b.At(k, column);
    if (spec.a == Type::kB1) {
      sum += static_cast<s64>(spec.differ ? x ^ y : x & y);
    } else {
      sum += Integer(x, spec.a) * Integer(y, spec.b);
    }
  }
  if (spec.saturates) {
    sum = std::clamp<s64>(sum, std::numeric_limits<std::int32_t>::min(),
                          std::numeric_limits<std::int32_t>::max());
  }
  return static_cast<std::uint32_t>(sum);
}

u64 RandomFloat(Type type, Values values, std::mt19937_64* random) {
  const Format format = FormatOf(type);
  const u64 ones = (u64{1} << format.exponent) - 1;
  const u64 bias = ones >> 1;
  const u64 fraction = (*random)() & ((u64{1} << format.mantissa) - 1);
  const u64 sign = ((*random)() & 1) << (format.mantissa + format.exponent);
  u64 field = bias - 3 + (*random)() % 7;
  if (values == Values::kTiny && (*random)() % 2 == 0) {
    return (*random)() % 3 == 0 ? sign : sign | fraction;
  }
  if (values == Values::kWide || values == Values::kSpecial) {
    field = (*random)() % ones;
  }
  if (values == Values::kSpecial && (*random)() % 64 == 0) {
    return (*random)() % 2 == 0 ? sign | ones << format.mantissa
                                : sign | ones << format.mantissa | fraction;
  }
  return sign | field << format.mantissa | fraction;
}

}  // namespace

std::size_t ElementBitsOf(Type type) {
  if (type == Type::kS4 || type == Type::kU4) return 4;
  return type == Type::kB1 ? 1 : 8 * std::size_t{TypeBytes(type)};
}

bool ShapeIn(const OpcodeInfo& op, ProductSpec* spec) {
  for (const std::string_view word : op.words) {
    const std::size_t n = word.find('n');
    const std::size_t k = word.find('k');
    if (word[0] != 'm' || n == word.npos || k == word.npos || k < n) continue;
    const std::string text(word);
    spec->m = std::strtoul(text.c_str() + 1, nullptr, 10);
    spec->n = std::strtoul(text.c_str() + n + 1, nullptr, 10);
    spec->k = std::strtoul(text.c_str() + k + 1, nullptr, 10);
    return true;
  }
  return false;
}

ProductSpec SpecOf(const OpcodeInfo& op) {
  ProductSpec spec;
  ShapeIn(op, &spec);
  const Type* type = &op.key.type[0];
  spec.d = type[0];
  if (op.key.types == 2) {
    spec.a = spec.b = Type::kF16;
    spec.c = type[1];
  } else {
    spec.a = type[1];
    spec.b = type[2];
    spec.c = type[3];
  }
  spec.saturates = op.Has("satfinite");
  spec.differ = op.Has("xor");
  spec.rounding = op.Has("rz")   ? FE_TOWARDZERO
                  : op.Has("rm") ? FE_DOWNWARD
                  : op.Has("rp") ? FE_UPWARD
                                 : FE_TONEAREST;
  return spec;
}

Matrix ReferenceProduct(const ProductSpec& spec, const Matrix& a,
                        const Matrix& b, const Matrix& c) {
  Matrix d(spec.m, spec.n);
  const auto element = spec.a == Type::kF64                   ? &DoubleElement
                       : ClassOf(spec.a) == TypeClass::kFloat ? &FloatElement
                                                              : &IntegerElement;
  for (std::size_t row = 0; row < spec.m; ++row) {
    for (std::size_t column = 0; column < spec.n; ++column) {
      d.At(row, column) = element(spec, a, b, c.At(row, column), row, column);
    }
  }
  return d;
}

Matrix RandomMatrix(std::size_t rows, std::size_t columns, Type type,
                    Values values, std::mt19937_64* random) {
  Matrix matrix(rows, columns);
  const std::size_t width = ElementBitsOf(type);
  const u64 mask = width == 64 ? ~u64{0} : (u64{1} << width) - 1;
  for (u64& bits : matrix.bits) {
    if (ClassOf(type) == TypeClass::kFloat) {
      bits = RandomFloat(type, values, random);
      continue;
    }
    bits = (*random)() & mask;
    if (values != Values::kSpecial) continue;
    const u64 half = u64{1} << (width - 1);
    const u64 ends[] = {0, mask, half, half - 1};
    bits = ends[(*random)() % 4] & mask;
  }
  return matrix;
}

}  // namespace pos::ptx::testing
