// The approximated instructions: special values exactly, the rest within the
// error that the PTX ISA allows.
#include <bit>
#include <cmath>
#include <limits>

#include "reference.h"

namespace pos::ptx::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Bound {
  double relative = 0;
  double absolute = 0;
};

// Errors of chapter "Floating Point Instructions" of the PTX ISA 9.0.
Bound BoundOf(const OpcodeInfo& op, double x) {
  if (op.base == "ex2") return {0x1p-22, 0};
  if (op.base == "lg2") {
    return x > 0.5 && x < 2.0 ? Bound{0, 0x1p-22} : Bound{0x1p-22, 0};
  }
  if (op.base == "sin" || op.base == "cos") return {0, 0x1p-20};
  if (op.base == "tanh") return {0x1p-11, 0};
  if (op.key.type[0] == Type::kF64) return {0x1p-20, 0};
  if (op.base == "rcp" || op.base == "sqrt") return {0x1p-23, 0};
  return {0x1p-22, 0};  // rsqrt 2^-22.9, div 2 ulp
}

double Exact(const OpcodeInfo& op, double a, double b) {
  if (op.base == "ex2") return std::exp2(a);
  if (op.base == "lg2") return std::log2(a);
  if (op.base == "sin") return std::sin(a);
  if (op.base == "cos") return std::cos(a);
  if (op.base == "tanh") return std::tanh(a);
  if (op.base == "rcp") return 1 / a;
  if (op.base == "sqrt") return std::sqrt(a);
  if (op.base == "rsqrt") return 1 / std::sqrt(a);
  return a / b;
}

double Flush(double x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0, x) : x;
}

Want OfDouble(const OpcodeInfo& op, double in) {
  const bool flush = op.Has("ftz");
  const double a = flush ? Flush(in) : in;
  const double value = Exact(op, a, 0);
  Want want;
  want.value = flush ? Flush(value) : value;
  want.bits = std::bit_cast<std::uint64_t>(want.value);
  want.any_nan = std::isnan(value);
  want.approximate = std::isfinite(value) && want.value != 0;
  want.relative = BoundOf(op, a).relative;
  // Results that only rounding brings below the smallest normal number.
  if (std::fabs(value) < 0x1.00001p-1022) want.anything = flush;
  return want;
}

}  // namespace

std::optional<Want> ReferenceApprox(const OpcodeInfo& op, Sources in) {
  if (op.key.type[0] == Type::kF64) {
    return OfDouble(op, std::bit_cast<double>(in[0]));
  }
  const bool flush = op.Has("ftz");
  float operands[2] = {0, 0};
  for (std::size_t i = 0; i < in.size() && i < 2; ++i) {
    operands[i] = std::bit_cast<float>(static_cast<std::uint32_t>(in[i]));
    if (flush) operands[i] = FlushSubnormal(operands[i]);
  }
  const double a = static_cast<double>(operands[0]);
  const double b = static_cast<double>(operands[1]);
  const double size = std::fabs(b);
  double value = Exact(op, a, b);
  if (op.base == "div" && op.Has("approx") && size > 0x1p126 &&
      std::isfinite(b)) {
    value =
        std::isfinite(a) ? std::copysign(0.0, a) * std::copysign(1.0, b) : kNan;
  }
  const Bound bound = BoundOf(op, a);
  Want want;
  want.value = value;
  const float rounded = static_cast<float>(value);
  want.bits =
      std::bit_cast<std::uint32_t>(flush ? FlushSubnormal(rounded) : rounded);
  if (std::isnan(value)) want.bits = 0x7fffffff;
  want.approximate = std::isfinite(rounded) && std::isfinite(value);
  want.relative = bound.relative;
  want.absolute = bound.absolute + (flush ? 0x1p-126 : 0x1p-149);
  // Beyond this the ISA promises no accuracy.
  if ((op.base == "sin" || op.base == "cos") && std::fabs(a) > 100 * 3.2 &&
      std::isfinite(a)) {
    want.absolute = 2;
  }
  // The last step before infinity: either side is right.
  if (std::fabs(value) > 0x1.fffff0p127 && std::fabs(value) < kInfinity) {
    want.anything = true;
  }
  // Zeros keep their sign where the function does.
  if (value == 0) want.approximate = false;
  return want;
}

}  // namespace pos::ptx::testing
