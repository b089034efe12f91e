#include "exact.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace pos::ptx::testing {
namespace {

int TopBit(Wide size) {
  int top = -1;
  for (; size != 0; size >>= 1) ++top;
  return top;
}

}  // namespace

double Exact::value() const {
  if (nan) return std::numeric_limits<double>::quiet_NaN();
  const double magnitude = infinite
                               ? std::numeric_limits<double>::infinity()
                               : std::ldexp(static_cast<double>(size), scale);
  return negative ? -magnitude : magnitude;
}

Grid GridOf(Type type) {
  switch (type) {
    case Type::kBf16:
    case Type::kBf16x2:
      return {8, -126};
    case Type::kF32:
      return {24, -126};
    case Type::kTf32:
      return {11, -126};
    case Type::kE4m3x2:
      return {4, -6};
    case Type::kE5m2x2:
      return {3, -14};
    case Type::kE2m3x2:
      return {4, 0};
    case Type::kE3m2x2:
      return {3, -2};
    case Type::kE2m1x2:
      return {2, 0};
    default:
      return {11, -14};
  }
}

bool IsBrain(Type type) { return type == Type::kBf16 || type == Type::kBf16x2; }
bool IsHalf(Type type) {
  return IsBrain(type) || type == Type::kF16 || type == Type::kF16x2;
}

Exact DecodeExact(Type type, std::uint64_t bits) {
  const Grid grid = GridOf(type);
  const int width = type == Type::kF32 ? 32 : 16;
  const int fraction_bits = grid.bits - 1;
  const std::uint64_t fraction = bits & ((1ull << fraction_bits) - 1);
  const int fields = width - 1 - fraction_bits;
  const auto exponent =
      static_cast<int>(bits >> fraction_bits & ((1ull << fields) - 1));
  Exact x;
  x.negative = (bits >> (width - 1) & 1) != 0;
  if (exponent == (1 << fields) - 1) {
    x.nan = fraction != 0;
    x.infinite = fraction == 0;
    return x;
  }
  const std::uint64_t implicit = exponent == 0 ? 0 : 1ull << fraction_bits;
  x.size = static_cast<Wide>(fraction | implicit);
  x.scale = std::max(exponent, 1) - 1 + grid.min_exponent - fraction_bits;
  return x;
}

std::uint64_t RoundSize(const Exact& x, Grid grid, Rounding rounding) {
  if (x.size == 0) return 0;
  const int smallest = grid.min_exponent - (grid.bits - 1);
  const int unit =
      std::max(x.scale + TopBit(x.size) - (grid.bits - 1), smallest);
  const int shift = unit - x.scale;
  Wide kept = 0;
  bool up = false;
  if (shift <= 0) {
    kept = x.size << -shift;
  } else if (shift <= 120) {
    kept = x.size >> shift;
    const Wide rest = x.size - (kept << shift);
    const Wide half = Wide{1} << (shift - 1);
    if (rounding == Rounding::kNearest) {
      up = rest > half || (rest == half && (kept & 1) != 0);
    } else if (rounding == Rounding::kAway) {
      up = rest >= half;
    }
  }
  const auto steps = static_cast<std::uint64_t>(unit - smallest);
  return (steps << (grid.bits - 1)) + static_cast<std::uint64_t>(kept) +
         (up ? 1 : 0);
}

Exact Product(const Exact& a, const Exact& b) {
  Exact x;
  x.negative = a.negative != b.negative;
  x.nan =
      a.nan || b.nan || (a.infinite && b.zero()) || (b.infinite && a.zero());
  x.infinite = !x.nan && (a.infinite || b.infinite);
  if (x.nan || x.infinite) return x;
  x.size = a.size * b.size;
  x.scale = a.scale + b.scale;
  return x;
}

// Numbers that are far apart: of the smaller one only its sign counts.
Exact Sum(const Exact& a, const Exact& b) {
  Exact x;
  x.nan =
      a.nan || b.nan || (a.infinite && b.infinite && a.negative != b.negative);
  if (x.nan) return x;
  if (a.infinite || b.infinite) return a.infinite ? a : b;
  x.negative = a.negative && b.negative;
  if (a.zero() && b.zero()) return x;
  if (a.zero() || b.zero()) return a.zero() ? b : a;
  const Exact* high = &a;
  const Exact* low = &b;
  if (high->scale < low->scale) std::swap(high, low);
  const int apart = high->scale - low->scale;
  constexpr int kMost = 80;
  Wide left = high->size << std::min(apart, kMost);
  Wide right = low->size;
  x.scale = low->scale;
  if (apart > kMost) {
    right = 1;
    x.scale = high->scale - kMost;
  }
  if (high->negative) left = -left;
  if (low->negative) right = -right;
  const Wide sum = left + right;
  if (sum == 0) return Exact();
  x.negative = sum < 0;
  x.size = sum < 0 ? -sum : sum;
  return x;
}

}  // namespace pos::ptx::testing
