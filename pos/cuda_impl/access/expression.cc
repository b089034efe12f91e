#include "pos/cuda_impl/access/expression.h"

#include <algorithm>
#include <cstring>

namespace pos::access {
namespace {

constexpr Interval kFull{};

Interval Bounds(std::uint32_t bits, bool is_signed) {
  if (bits >= 64) return is_signed ? kFull : Interval{0, Interval::kHighest};
  const std::int64_t range = std::int64_t{1} << bits;
  return is_signed ? Interval{-range / 2, range / 2 - 1}
                   : Interval{0, range - 1};
}

Interval Sum(const Interval& a, const Interval& b) {
  Interval sum;
  if (a.full() || b.full() || __builtin_add_overflow(a.low, b.low, &sum.low) ||
      __builtin_add_overflow(a.high, b.high, &sum.high)) {
    return kFull;
  }
  return sum;
}

Interval Difference(const Interval& a, const Interval& b) {
  Interval difference;
  if (a.full() || b.full() ||
      __builtin_sub_overflow(a.low, b.high, &difference.low) ||
      __builtin_sub_overflow(a.high, b.low, &difference.high)) {
    return kFull;
  }
  return difference;
}

Interval Product(const Interval& a, const Interval& b) {
  if (a.full() || b.full()) return kFull;
  std::int64_t p[4];
  if (__builtin_mul_overflow(a.low, b.low, &p[0]) ||
      __builtin_mul_overflow(a.low, b.high, &p[1]) ||
      __builtin_mul_overflow(a.high, b.low, &p[2]) ||
      __builtin_mul_overflow(a.high, b.high, &p[3])) {
    return kFull;
  }
  return {std::min({p[0], p[1], p[2], p[3]}),
          std::max({p[0], p[1], p[2], p[3]})};
}

Interval Widened(const Interval& a, std::uint32_t bits, bool is_signed) {
  const Interval bounds = Bounds(bits, is_signed);
  if (bits >= 64) {
    // No bound of an unsigned number of 64 bits fits an interval.
    return is_signed || a.low >= 0 ? a : kFull;
  }
  return a.low >= bounds.low && a.high <= bounds.high ? a : bounds;
}

Interval Quotient(const Interval& a, const Interval& b) {
  if (a.full() || b.full() || a.low < 0 || b.low <= 0) return kFull;
  return {a.low / b.high, a.high / b.low};
}

Interval Rest(const Interval& a, const Interval& b) {
  if (b.full() || b.low <= 0) return kFull;
  const std::int64_t most = b.high - 1;
  if (a.low >= 0) return {0, std::min(a.high, most)};
  return {-most, most};
}

Interval Shifted(const Interval& a, const Interval& b) {
  if (a.full() || b.low < 0 || b.low != b.high) return kFull;
  const std::int64_t by = std::min<std::int64_t>(b.low, 63);
  return {a.low >> by, a.high >> by};
}

// Of both at least 0 it is at most either; of one, at most that one.
Interval Conjunction(const Interval& a, const Interval& b) {
  if (a.low >= 0 && b.low >= 0) return {0, std::min(a.high, b.high)};
  if (a.low >= 0) return {0, a.high};
  if (b.low >= 0) return {0, b.high};
  return kFull;
}

// A multiple of a power of two that lies less than it below the number.
Interval Aligned(const Interval& a, const Interval& b) {
  if (a.full() || b.low != b.high) return kFull;
  Interval aligned = a;
  if (__builtin_sub_overflow(a.low, b.low - 1, &aligned.low)) return kFull;
  return aligned;
}

// x | y and x ^ y are at most x + y.
Interval Disjunction(const Interval& a, const Interval& b) {
  if (a.low < 0 || b.low < 0) return kFull;
  const Interval sum = Sum(a, b);
  return sum.full() ? kFull : Interval{0, sum.high};
}

// Of unsigned numbers of 64 bits an interval has the smaller half only.
Interval Least(const Interval& a, const Interval& b) {
  if (a.full() || b.full()) return kFull;
  return {std::min(a.low, b.low), std::min(a.high, b.high)};
}

Interval Greatest(const Interval& a, const Interval& b) {
  if (a.full() || b.full()) return kFull;
  return {std::max(a.low, b.low), std::max(a.high, b.high)};
}

Interval Counted(std::uint32_t count) {
  return {0, count == 0 ? 0 : std::int64_t{count} - 1};
}

Interval ParamValue(const Expr& expr, std::span<const std::byte> params) {
  const std::size_t bytes = expr.bits / 8;
  const auto at = static_cast<std::uint64_t>(expr.low);
  if (at > params.size() || params.size() - at < bytes) {
    return Bounds(expr.bits, expr.is_signed);
  }
  std::uint64_t bits = 0;
  std::memcpy(&bits, params.data() + at, bytes);
  auto value = static_cast<std::int64_t>(bits);
  if (expr.bits < 64 && expr.is_signed) {
    const std::int64_t sign = std::int64_t{1} << (expr.bits - 1);
    value = (value ^ sign) - sign;
  }
  return {value, value};
}

Interval Leaf(const Expr& expr, const LaunchConfig& launch,
              std::span<const std::byte> params) {
  const auto dimension = static_cast<std::size_t>(expr.low);
  switch (expr.op) {
    case ExprOp::kRange:
      return {expr.low, expr.high};
    case ExprOp::kThread:
      return Counted(launch.block[dimension]);
    case ExprOp::kBlock:
      return Counted(launch.grid[dimension]);
    case ExprOp::kThreads:
      return {launch.block[dimension], launch.block[dimension]};
    case ExprOp::kBlocks:
      return {launch.grid[dimension], launch.grid[dimension]};
    case ExprOp::kParam:
      return ParamValue(expr, params);
    default:
      return kFull;
  }
}

Interval Combined(const Expr& expr, const Interval& a, const Interval& b) {
  switch (expr.op) {
    case ExprOp::kAdd:
      return Sum(a, b);
    case ExprOp::kSub:
      return Difference(a, b);
    case ExprOp::kMul:
      return Product(a, b);
    case ExprOp::kWiden:
      return Widened(a, expr.bits, expr.is_signed);
    case ExprOp::kDivide:
      return Quotient(a, b);
    case ExprOp::kRemainder:
      return Rest(a, b);
    case ExprOp::kShift:
      return Shifted(a, b);
    case ExprOp::kAnd:
      return Conjunction(a, b);
    case ExprOp::kAlign:
      return Aligned(a, b);
    case ExprOp::kOr:
      return Disjunction(a, b);
    case ExprOp::kMin:
      return Least(a, b);
    case ExprOp::kMax:
      return Greatest(a, b);
    case ExprOp::kHull:
      return {std::min(a.low, b.low), std::max(a.high, b.high)};
    default:
      return kFull;
  }
}

}  // namespace

void Evaluate(std::span<const Expr> exprs, const LaunchConfig& launch,
              std::span<const std::byte> params, std::span<Interval> out) {
  for (std::size_t i = 0; i < exprs.size(); ++i) {
    const Expr& expr = exprs[i];
    out[i] = expr.op < ExprOp::kAdd ? Leaf(expr, launch, params)
                                    : Combined(expr, out[expr.a], out[expr.b]);
  }
}

ExprTable::ExprTable() : exprs_(1) {}

ExprTable::Id ExprTable::Intern(const Expr& expr) {
  const Key key{expr.op, expr.bits, expr.is_signed, expr.a,
                expr.b,  expr.low,  expr.high};
  const auto found = ids_.find(key);
  if (found != ids_.end()) return found->second;
  if (exprs_.size() >= kMaxExprs) return kAny;
  const auto id = static_cast<Id>(exprs_.size());
  exprs_.push_back(expr);
  ids_.emplace(key, id);
  return id;
}

ExprTable::Id ExprTable::Range(std::int64_t low, std::int64_t high) {
  Expr expr;
  expr.op = ExprOp::kRange;
  expr.low = low;
  expr.high = high;
  return Intern(expr);
}

ExprTable::Id ExprTable::Special(ExprOp op, int dimension) {
  Expr expr;
  expr.op = op;
  expr.low = dimension;
  return Intern(expr);
}

ExprTable::Id ExprTable::Param(std::uint32_t offset, std::uint32_t bits,
                               bool is_signed) {
  Expr expr;
  expr.op = ExprOp::kParam;
  expr.bits = static_cast<std::uint8_t>(bits);
  expr.is_signed = is_signed;
  expr.low = offset;
  return Intern(expr);
}

ExprTable::Id ExprTable::Binary(ExprOp op, Id a, Id b) {
  const bool either = op == ExprOp::kAnd || op == ExprOp::kRemainder;
  if (either ? b == kAny && a == kAny : a == kAny || b == kAny) return kAny;
  std::int64_t x = 0;
  std::int64_t y = 0;
  const bool x_known = IsConstant(a, &x);
  const bool y_known = IsConstant(b, &y);
  if (y_known && y == 0 && (op == ExprOp::kAdd || op == ExprOp::kSub)) return a;
  if (x_known && x == 0 && op == ExprOp::kAdd) return b;
  Expr expr;
  expr.op = op;
  expr.a = a;
  expr.b = b;
  if (x_known && y_known) {
    const Interval value = Combined(expr, {x, x}, {y, y});
    if (value.full()) return kAny;
    return Range(value.low, value.high);
  }
  return Intern(expr);
}

ExprTable::Id ExprTable::Widen(Id a, std::uint32_t bits, bool is_signed) {
  if (bits >= 64 && (is_signed || a == kAny)) return a;
  std::int64_t value = 0;
  if (a == kAny || IsConstant(a, &value)) {
    const Interval from = a == kAny ? Interval{} : Interval{value, value};
    const Interval widened = Widened(from, bits, is_signed);
    return widened.full() ? kAny : Range(widened.low, widened.high);
  }
  Expr expr;
  expr.op = ExprOp::kWiden;
  expr.bits = static_cast<std::uint8_t>(bits);
  expr.is_signed = is_signed;
  expr.a = a;
  expr.b = a;
  return Intern(expr);
}

bool ExprTable::IsConstant(Id id, std::int64_t* value) const {
  const Expr& expr = exprs_[id];
  if (expr.op != ExprOp::kRange || expr.low != expr.high) return false;
  *value = expr.low;
  return true;
}

}  // namespace pos::access
