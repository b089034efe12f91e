// What a register of a kernel may hold: a set of sums, one for each way that a
// value may have come about.
//
//   symbol + words added - words subtracted + offset
//
// symbol   an address that is no parameter: a variable of the module, shared,
//          local or parameter memory, code
// words    64-bit words of the kernel's parameters, by their byte offset. Which
//          of them are pointers is not known before the launch
// offset   an integer (expression.h) without addresses of its own; `involved`
//          names the words that took part in computing it by other ways than
//          sums (products, shifts, halves)
// foreign  nothing of that: the value may hold an address that was loaded from
//          memory or put together from parts. Anything may be added to it.
//
// Values only grow while a kernel is analysed, and there are finitely many, so
// that the analysis ends.
//
// Threads: plain data.
#ifndef POS_CUDA_IMPL_ACCESS_VALUE_H_
#define POS_CUDA_IMPL_ACCESS_VALUE_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pos/cuda_impl/access/expression.h"

namespace pos::access {

// A few numbers, ascending, each once.
template <std::size_t kMost>
class SmallSet {
 public:
  // False: no place left.
  bool Add(std::uint32_t value) {
    const auto end = values_.begin() + size_;
    const auto at = std::lower_bound(values_.begin(), end, value);
    if (at != end && *at == value) return true;
    if (size_ == kMost) return false;
    std::copy_backward(at, end, end + 1);
    *at = value;
    ++size_;
    return true;
  }
  template <std::size_t kOther>
  bool AddAll(const SmallSet<kOther>& other) {
    for (const std::uint32_t value : other.values()) {
      if (!Add(value)) return false;
    }
    return true;
  }
  bool Remove(std::uint32_t value) {
    const auto end = values_.begin() + size_;
    const auto at = std::find(values_.begin(), end, value);
    if (at == end) return false;
    std::copy(at + 1, end, at);
    values_[--size_] = 0;
    return true;
  }
  [[nodiscard]] bool Has(std::uint32_t value) const {
    return std::ranges::find(values(), value) != values().end();
  }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] bool full() const { return size_ == kMost; }
  [[nodiscard]] std::span<const std::uint32_t> values() const {
    return {values_.data(), size_};
  }
  friend bool operator==(const SmallSet&, const SmallSet&) = default;

 private:
  std::array<std::uint32_t, kMost> values_{};
  std::uint32_t size_ = 0;
};

struct Symbol {
  enum class Kind : std::uint8_t {
    kNone,
    kVariable,  // index: of ast::Unit::variables
    kShared,    // index: of ast::Unit::shared
    kLocal,     // function, index: of its variables
    kParam,     // the kernel's or a call's parameter memory
    kCode,      // of these two: one for each object, and equal for no other
  };
  // kLocal: what alloca takes.
  static constexpr std::uint32_t kStack = 0xffffffff;
  Kind kind = Kind::kNone;
  std::uint32_t function = 0;
  std::uint32_t index = 0;
  friend bool operator==(const Symbol&, const Symbol&) = default;

  // How far two of these lie apart is a number that nobody knows before the
  // launch; nothing of device memory can be reached with it.
  [[nodiscard]] bool Apart(const Symbol& other) const {
    return kind == other.kind && (kind == Kind::kShared ||
                                  kind == Kind::kParam || kind == Kind::kCode);
  }
};

struct Term {
  Symbol symbol;
  bool foreign = false;
  SmallSet<3> added;
  SmallSet<3> subtracted;
  SmallSet<8> involved;
  ExprTable::Id offset = ExprTable::kAny;

  // Whether the other differs in nothing but offset and involved.
  [[nodiscard]] bool SameKind(const Term& other) const {
    return symbol == other.symbol && foreign == other.foreign &&
           added == other.added && subtracted == other.subtracted;
  }
  friend bool operator==(const Term&, const Term&) = default;
};

class Value {
 public:
  static constexpr std::size_t kMaxTerms = 8;

  Value() = default;
  explicit Value(const Term& term) : terms_{term} {}
  static Value Number(ExprTable::Id offset);
  static Value Foreign();

  // No value has arrived yet.
  [[nodiscard]] bool empty() const { return terms_.empty(); }
  [[nodiscard]] const std::vector<Term>& terms() const { return terms_; }
  [[nodiscard]] bool foreign() const {
    return !terms_.empty() && terms_[0].foreign;
  }
  // The only term; nullptr when there are several or none.
  [[nodiscard]] const Term* single() const {
    return terms_.size() == 1 ? terms_.data() : nullptr;
  }
  // True when that made it larger.
  bool Join(const Term& term);
  bool Join(const Value& other);

 private:
  bool BecomeForeign(const Term& because);
  std::vector<Term> terms_;  // of different kinds; a foreign one is alone
};

// Arithmetic on values. Results of what is no sum are numbers that involve all
// words of their operands.
class Arithmetic {
 public:
  explicit Arithmetic(ExprTable* exprs) : exprs_(exprs) {}

  Value Add(const Value& a, const Value& b) { return Sum(a, b, false); }
  Value Subtract(const Value& a, const Value& b) { return Sum(a, b, true); }
  // a + what is not known: loses the place, not the object.
  Value Moved(const Value& a);
  // A number: `offset` computed from `operands`.
  Value Number(ExprTable::Id offset, std::span<const Value* const> operands);
  // The integer that a value is, kAny when there are several.
  ExprTable::Id IntegerOf(const Value& value);

 private:
  Value Sum(const Value& a, const Value& b, bool minus);
  Term SumOf(const Term& a, const Term& b, bool minus);
  ExprTable* const exprs_;
};

}  // namespace pos::access

#endif  // POS_CUDA_IMPL_ACCESS_VALUE_H_
