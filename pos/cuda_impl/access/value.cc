#include "pos/cuda_impl/access/value.h"

namespace pos::access {
namespace {

// All words of a term. False: too many to name.
bool AddWords(const Term& term, SmallSet<8>* words) {
  return words->AddAll(term.added) && words->AddAll(term.subtracted) &&
         words->AddAll(term.involved);
}

// What may hold any address, made from `a` and `b`. What words took part is no
// longer of interest when there are too many.
Term ForeignTerm(const Term& a, const Term& b) {
  Term term;
  term.foreign = true;
  static_cast<void>(AddWords(a, &term.involved) && AddWords(b, &term.involved));
  return term;
}

}  // namespace

Value Value::Number(ExprTable::Id offset) {
  Term term;
  term.offset = offset;
  return Value(term);
}

Value Value::Foreign() {
  Term term;
  term.foreign = true;
  return Value(term);
}

bool Value::BecomeForeign(const Term& because) {
  Term foreign = ForeignTerm(because, Term());
  for (const Term& term : terms_) foreign = ForeignTerm(foreign, term);
  const bool changed = terms_.size() != 1 || terms_[0] != foreign;
  terms_.assign(1, foreign);
  return changed;
}

bool Value::Join(const Term& term) {
  if (term.foreign || foreign()) return BecomeForeign(term);
  for (Term& own : terms_) {
    if (!own.SameKind(term)) continue;
    const Term before = own;
    if (own.offset != term.offset) own.offset = ExprTable::kAny;
    if (!own.involved.AddAll(term.involved)) return BecomeForeign(term);
    return own != before;
  }
  if (terms_.size() == kMaxTerms) return BecomeForeign(term);
  terms_.push_back(term);
  return true;
}

bool Value::Join(const Value& other) {
  if (&other == this) return false;
  bool changed = false;
  for (const Term& term : other.terms_) changed = Join(term) || changed;
  return changed;
}

Term Arithmetic::SumOf(const Term& a, const Term& b, bool minus) {
  if (a.foreign || b.foreign) return ForeignTerm(a, b);
  Term sum = a;
  sum.offset =
      exprs_->Binary(minus ? ExprOp::kSub : ExprOp::kAdd, a.offset, b.offset);
  if (minus && a.symbol == b.symbol) {
    sum.symbol = Symbol();
  } else if (minus && a.symbol.Apart(b.symbol)) {
    sum.symbol = Symbol();
    sum.offset = ExprTable::kAny;
  } else if (b.symbol.kind != Symbol::Kind::kNone) {
    if (minus || a.symbol.kind != Symbol::Kind::kNone) {
      return ForeignTerm(a, b);
    }
    sum.symbol = b.symbol;
  }
  if (!sum.involved.AddAll(b.involved)) return ForeignTerm(a, b);
  const auto& more = minus ? b.subtracted : b.added;
  const auto& less = minus ? b.added : b.subtracted;
  // A word that is added and subtracted is gone. Twice the same is no pointer.
  for (const std::uint32_t word : more.values()) {
    if (sum.subtracted.Remove(word)) continue;
    if (sum.added.Has(word) || !sum.added.Add(word)) return ForeignTerm(a, b);
  }
  for (const std::uint32_t word : less.values()) {
    if (sum.added.Remove(word)) continue;
    if (sum.subtracted.Has(word) || !sum.subtracted.Add(word)) {
      return ForeignTerm(a, b);
    }
  }
  return sum;
}

Value Arithmetic::Sum(const Value& a, const Value& b, bool minus) {
  Value sum;
  for (const Term& x : a.terms()) {
    for (const Term& y : b.terms()) sum.Join(SumOf(x, y, minus));
  }
  return sum;
}

Value Arithmetic::Moved(const Value& a) {
  Value moved;
  for (Term term : a.terms()) {
    term.offset = ExprTable::kAny;
    moved.Join(term);
  }
  return moved;
}

Value Arithmetic::Number(ExprTable::Id offset,
                         std::span<const Value* const> operands) {
  Term number;
  number.offset = offset;
  for (const Value* const value : operands) {
    for (const Term& term : value->terms()) {
      // A foreign term that is full may not name all of its words.
      const bool full = term.foreign && term.involved.full();
      if (full || !AddWords(term, &number.involved)) return Value::Foreign();
    }
  }
  return Value(number);
}

ExprTable::Id Arithmetic::IntegerOf(const Value& value) {
  const Term* const term = value.single();
  if (term == nullptr || term->foreign ||
      term->symbol.kind != Symbol::Kind::kNone) {
    return ExprTable::kAny;
  }
  ExprTable::Id integer = term->offset;
  for (const std::uint32_t word : term->added.values()) {
    integer =
        exprs_->Binary(ExprOp::kAdd, integer, exprs_->Param(word, 64, true));
  }
  for (const std::uint32_t word : term->subtracted.values()) {
    integer =
        exprs_->Binary(ExprOp::kSub, integer, exprs_->Param(word, 64, true));
  }
  return integer;
}

}  // namespace pos::access
