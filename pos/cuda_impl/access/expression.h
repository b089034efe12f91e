// Integers that a kernel computes from its launch: expressions over thread and
// block ids, their counts and parameters, and the intervals that they can be in
// once the launch is known.
//
// The interval of an expression holds, for every thread of the launch, some
// integer that is equal to the register's value modulo 2^bits of the register.
// Sums, differences and products keep that however they wrap. Where the value
// itself matters (widening, division, shifts to the right, comparison) kWiden
// stands: it keeps what lies in the type's range and makes everything else the
// whole range. So arithmetic that may wrap gives wide intervals, never wrong
// ones. (Interval arithmetic: Moore, 1966.)
//
// Threads: an ExprTable is one thread's. Intervals: pure functions.
#ifndef POS_CUDA_IMPL_ACCESS_EXPRESSION_H_
#define POS_CUDA_IMPL_ACCESS_EXPRESSION_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <tuple>
#include <vector>

namespace pos::access {

struct LaunchConfig {
  std::array<std::uint32_t, 3> grid{1, 1, 1};   // blocks
  std::array<std::uint32_t, 3> block{1, 1, 1};  // threads of a block
};

enum class ExprOp : std::uint8_t {
  kAny,      // nothing is known
  kRange,    // [low, high]
  kThread,   // thread number in dimension `low` of the block
  kBlock,    // block number in dimension `low`
  kThreads,  // threads in dimension `low` of a block
  kBlocks,   // blocks in dimension `low`
  kParam,    // `bits` at byte `low` of the parameters
  kAdd,
  kSub,
  kMul,
  kWiden,   // a as a number of `bits` bits
  kDivide,  // a / b, towards zero
  kRemainder,
  kShift,  // a >> b, arithmetically
  kAnd,
  kAlign,  // a & -b, b a power of two
  kOr,     // also exclusive or
  kMin,
  kMax,
  kHull,  // a or b
};

struct Expr {
  ExprOp op = ExprOp::kAny;
  std::uint8_t bits = 64;
  bool is_signed = true;
  std::uint32_t a = 0;  // other expressions
  std::uint32_t b = 0;
  std::int64_t low = 0;
  std::int64_t high = 0;
};

struct Interval {
  static constexpr std::int64_t kLowest =
      std::numeric_limits<std::int64_t>::min();
  static constexpr std::int64_t kHighest =
      std::numeric_limits<std::int64_t>::max();
  std::int64_t low = kLowest;
  std::int64_t high = kHighest;
  [[nodiscard]] bool full() const { return low == kLowest && high == kHighest; }
};

// Intervals of expressions [0, exprs.size()), in order: operands come before
// what uses them. `out` has as many places. A parameter beyond `params` is in
// the whole range.
void Evaluate(std::span<const Expr> exprs, const LaunchConfig& launch,
              std::span<const std::byte> params, std::span<Interval> out);

// Expressions, each once. Number 0 is kAny.
class ExprTable {
 public:
  using Id = std::uint32_t;
  static constexpr Id kAny = 0;
  static constexpr std::size_t kMaxExprs = 1u << 14;  // beyond: kAny

  ExprTable();
  Id Constant(std::int64_t value) { return Range(value, value); }
  Id Range(std::int64_t low, std::int64_t high);
  // kThread … kBlocks
  Id Special(ExprOp op, int dimension);
  Id Param(std::uint32_t offset, std::uint32_t bits, bool is_signed);
  // kAny when an operand is kAny and the operation needs it.
  Id Binary(ExprOp op, Id a, Id b);
  Id Widen(Id a, std::uint32_t bits, bool is_signed);

  [[nodiscard]] bool IsConstant(Id id, std::int64_t* value) const;
  [[nodiscard]] const Expr& operator[](Id id) const { return exprs_[id]; }
  [[nodiscard]] std::size_t size() const { return exprs_.size(); }

 private:
  using Key = std::tuple<ExprOp, std::uint8_t, bool, Id, Id, std::int64_t,
                         std::int64_t>;
  Id Intern(const Expr& expr);

  std::vector<Expr> exprs_;
  std::map<Key, Id> ids_;
};

}  // namespace pos::access

#endif  // POS_CUDA_IMPL_ACCESS_EXPRESSION_H_
