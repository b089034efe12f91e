// What arithmetic does to values.
#include <array>

#include "pos/cuda_impl/access/analysis.h"

namespace pos::access {

using ptx::Type;
using ptx::TypeBytes;
using ptx::TypeClass;

namespace {

constexpr std::int64_t kMostAlignment = 4096;

// A number without an address in it, as far as is known.
bool IsNumber(const Value& value) {
  const Term* const term = value.single();
  return term != nullptr && !term->foreign && term->added.empty() &&
         term->subtracted.empty() && term->symbol.kind == Symbol::Kind::kNone;
}

bool IsInteger(Type type) {
  const TypeClass kind = ptx::ClassOf(type);
  const bool pair = type == Type::kU16x2 || type == Type::kS16x2;
  return !pair && TypeBytes(type) <= 8 &&
         (kind == TypeClass::kBits || kind == TypeClass::kSigned ||
          kind == TypeClass::kUnsigned);
}

std::int64_t SignExtended(std::int64_t value, std::uint32_t bits) {
  if (bits >= 64) return value;
  const std::int64_t sign = std::int64_t{1} << (bits - 1);
  const std::int64_t low = value & ((std::int64_t{1} << bits) - 1);
  return (low ^ sign) - sign;
}

}  // namespace

std::uint32_t Analysis::Bits() const {
  return TypeBytes(info_->key.type[0]) * 8;
}

Value Analysis::Source(std::size_t number) {
  const std::size_t at = FirstSource() + number;
  return at < operands_.size() ? Read(operands_[at]) : Value::Foreign();
}

// The source as a number of the instruction's type.
ExprTable::Id Analysis::Wide(const Value& value) {
  return exprs_.Widen(arithmetic_.IntegerOf(value), Bits(),
                      ptx::ClassOf(info_->key.type[0]) == TypeClass::kSigned);
}

Value Analysis::NumberOf(ExprTable::Id offset) {
  const Value involved = UnknownOf(operands_.subspan(FirstSource()));
  const std::array<const Value*, 1> all{&involved};
  return arithmetic_.Number(offset, all);
}

void Analysis::Alu() {
  if (operands_.empty()) return;
  if (ptx::GetOpcodeRow(info_->row).operands.starts_with('p')) return;
  for (const Operand& operand : operands_.subspan(FirstSource())) {
    const bool unknown_yet =
        operand.kind == OperandKind::kRegister &&
        RegisterOf(operand.index).empty() &&
        frame_->function->TypeOfRegister(operand.index) != Type::kPred;
    if (unknown_yet) return Write(operands_[0], Value(), 64);
  }
  const bool plain = IsInteger(info_->key.type[0]) &&
                     (info_->key.words & ptx::kCarryIn) == 0 &&
                     !info_->Has("sat") && !info_->Has("relu");
  const std::string_view base = info_->base;
  if (base == "selp" || base == "slct") {
    return Write(operands_[0], Select(Source(0), Source(1)), Bits());
  }
  if (plain) {
    const Value value = Integer(base);
    // A product of twice the width is exact.
    return Write(operands_[0], value, info_->Has("wide") ? 64 : Bits());
  }
  Write(operands_[0], NumberOf(ExprTable::kAny), 64);
}

Value Analysis::Integer(std::string_view base) {
  const bool high = info_->Has("hi");
  if (base == "add") return arithmetic_.Add(Source(0), Source(1));
  if (base == "sub") return arithmetic_.Subtract(Source(0), Source(1));
  if (base == "neg") {
    return arithmetic_.Subtract(Value::Number(exprs_.Constant(0)), Source(0));
  }
  if (base == "mul" && !high) return Product(info_->Has("wide"));
  if (base == "mad" && !high) {
    return arithmetic_.Add(Product(info_->Has("wide")), Source(2));
  }
  if (base == "shl") return Shifted(true);
  if (base == "shr") return Shifted(false);
  if (base == "and") return And(Source(0), Source(1));
  if (base == "or") return Or(Source(0), Source(1));
  if (base == "xor") {
    return NumberOf(
        exprs_.Binary(ExprOp::kOr, Wide(Source(0)), Wide(Source(1))));
  }
  if (base == "not") {
    return NumberOf(exprs_.Binary(ExprOp::kSub, exprs_.Constant(-1),
                                  arithmetic_.IntegerOf(Source(0))));
  }
  if (base == "min") return Least(ExprOp::kMin);
  if (base == "max") return Least(ExprOp::kMax);
  if (base == "div" || base == "rem") {
    const ExprOp op = base == "div" ? ExprOp::kDivide : ExprOp::kRemainder;
    return NumberOf(exprs_.Binary(op, Wide(Source(0)), Wide(Source(1))));
  }
  if (base == "popc" || base == "clz") return NumberOf(exprs_.Range(0, 64));
  return NumberOf(ExprTable::kAny);
}

// Words that take part in the product are those of both factors only.
Value Analysis::Product(bool wide) {
  const Value a = Source(0);
  const Value b = Source(1);
  const ExprTable::Id x = wide ? Wide(a) : arithmetic_.IntegerOf(a);
  const ExprTable::Id y = wide ? Wide(b) : arithmetic_.IntegerOf(b);
  const std::array<const Value*, 2> both{&a, &b};
  return arithmetic_.Number(exprs_.Binary(ExprOp::kMul, x, y), both);
}

Value Analysis::Shifted(bool left) {
  const Value a = Source(0);
  std::int64_t by = 0;
  if (!exprs_.IsConstant(arithmetic_.IntegerOf(Source(1)), &by) || by < 0) {
    return NumberOf(ExprTable::kAny);
  }
  if (by == 0) return a;
  if (!left) {
    const ExprTable::Id from = Wide(a);
    return NumberOf(exprs_.Binary(ExprOp::kShift, from, exprs_.Constant(by)));
  }
  if (by >= std::min<std::int64_t>(Bits(), 62)) {
    return NumberOf(ExprTable::kAny);
  }
  return NumberOf(exprs_.Binary(ExprOp::kMul, arithmetic_.IntegerOf(a),
                                exprs_.Constant(std::int64_t{1} << by)));
}

// Addresses rounded down stay where they belong.
Value Analysis::Mask(const Value& a, std::int64_t mask) {
  Value masked;
  for (Term term : a.terms()) {
    term.offset =
        exprs_.Binary(ExprOp::kAlign, term.offset, exprs_.Constant(-mask));
    masked.Join(term);
  }
  return masked;
}

Value Analysis::And(const Value& a, const Value& b) {
  for (const bool second : {true, false}) {
    const Value& mask_value = second ? b : a;
    const Value& other = second ? a : b;
    std::int64_t mask = 0;
    if (!IsNumber(mask_value) ||
        !exprs_.IsConstant(arithmetic_.IntegerOf(mask_value), &mask)) {
      continue;
    }
    mask = SignExtended(mask, Bits());
    const bool power =
        mask < 0 && mask >= -kMostAlignment && (-mask & (-mask - 1)) == 0;
    if (power) return Mask(other, mask);
  }
  // As unsigned numbers.
  const ExprTable::Id x = exprs_.Widen(arithmetic_.IntegerOf(a), Bits(), false);
  const ExprTable::Id y = exprs_.Widen(arithmetic_.IntegerOf(b), Bits(), false);
  return NumberOf(exprs_.Binary(ExprOp::kAnd, x, y));
}

// A small number that is put into an aligned address is added to it.
Value Analysis::Or(const Value& a, const Value& b) {
  std::int64_t bits = 0;
  if (!IsNumber(a) && IsNumber(b) && Bits() == 64 &&
      exprs_.IsConstant(arithmetic_.IntegerOf(b), &bits) && bits >= 0 &&
      bits < kMostAlignment) {
    return arithmetic_.Moved(a);
  }
  const ExprTable::Id x = exprs_.Widen(arithmetic_.IntegerOf(a), Bits(), false);
  const ExprTable::Id y = exprs_.Widen(arithmetic_.IntegerOf(b), Bits(), false);
  return NumberOf(exprs_.Binary(ExprOp::kOr, x, y));
}

Value Analysis::Select(const Value& a, const Value& b) {
  if (IsNumber(a) && IsNumber(b)) {
    const ExprTable::Id x = arithmetic_.IntegerOf(a);
    const ExprTable::Id y = arithmetic_.IntegerOf(b);
    const std::array<const Value*, 2> both{&a, &b};
    return arithmetic_.Number(x == y ? x : exprs_.Binary(ExprOp::kHull, x, y),
                              both);
  }
  Value either = a;
  either.Join(b);
  return either;
}

Value Analysis::Least(ExprOp op) {
  const Value a = Source(0);
  const Value b = Source(1);
  if (!IsNumber(a) || !IsNumber(b)) return Select(a, b);
  return NumberOf(exprs_.Binary(op, Wide(a), Wide(b)));
}

// mov d, a;  mov d, {a, b};  mov {d, e}, a;
void Analysis::Move() {
  if (operands_.size() != 2) return WriteUnknown(true);
  const Operand& to = operands_[0];
  const Operand& from = operands_[1];
  const bool packs = from.kind == OperandKind::kVector;
  if (to.kind == OperandKind::kVector) {
    const auto elements = frame_->function->Elements(to);
    const Value parts = packs ? Value::Foreign() : UnknownOf({&from, 1});
    for (const Operand& element : elements) {
      // Half of 128 bits is a whole address.
      const bool whole =
          element.kind == OperandKind::kRegister &&
          TypeBytes(frame_->function->TypeOfRegister(element.index)) >= 8;
      Write(element, whole ? Value::Foreign() : parts, 64);
    }
    return;
  }
  if (packs) {
    Value whole = UnknownOf({&from, 1});
    // Nobody knows what address the halves make.
    if (Bits() >= 64) whole.Join(Value::Foreign());
    return Write(to, whole, 64);
  }
  Write(to, Bits() > 64 ? Value::Foreign() : Read(from), 64);
}

void Analysis::Convert() {
  if (operands_.size() < 2) return;
  const Value source = Source(0);
  if (source.empty()) return Write(operands_[0], source, 64);
  const Type to = info_->key.type[0];
  const Type from = info_->key.type[1];
  const bool plain = info_->key.types == 2 && IsInteger(to) &&
                     IsInteger(from) && !info_->Has("sat");
  if (!plain) {
    const Value narrow = Narrow(to);
    return Write(operands_[0], NumberOf(arithmetic_.IntegerOf(narrow)), 64);
  }
  const std::uint32_t bits = TypeBytes(from) * 8;
  if (bits == 64 && TypeBytes(to) == 8) {
    return Write(operands_[0], source, 64);
  }
  ExprTable::Id number = exprs_.Widen(arithmetic_.IntegerOf(source), bits,
                                      ptx::ClassOf(from) == TypeClass::kSigned);
  if (TypeBytes(to) * 8 < 64) {
    number = exprs_.Widen(number, TypeBytes(to) * 8,
                          ptx::ClassOf(to) == TypeClass::kSigned);
  }
  Write(operands_[0], NumberOf(number), 64);
}

// Generic addresses of global and constant memory are those of their space.
void Analysis::ConvertAddress() {
  if (operands_.size() != 2) return WriteUnknown(true);
  const Value source = Read(operands_[1]);
  if (source.empty()) return Write(operands_[0], source, 64);
  Symbol::Kind kind = Symbol::Kind::kNone;
  if (info_->key.space == ptx::Space::kShared) kind = Symbol::Kind::kShared;
  if (info_->key.space == ptx::Space::kLocal) kind = Symbol::Kind::kLocal;
  if (info_->key.space == ptx::Space::kParam) kind = Symbol::Kind::kParam;
  if (kind == Symbol::Kind::kNone) return Write(operands_[0], source, 64);
  Value converted;
  for (const Term& term : source.terms()) {
    const bool number = term.symbol.kind == Symbol::Kind::kNone &&
                        !term.foreign && term.added.empty() &&
                        term.subtracted.empty();
    if (kind == Symbol::Kind::kShared && number) {
      // An address of shared memory that was a number for a while.
      Term shared = term;
      shared.symbol = {kind, 0, 0};
      shared.offset = ExprTable::kAny;
      converted.Join(shared);
    } else if (term.symbol.kind == kind) {
      converted.Join(term);
    } else {
      converted.Join(Value::Foreign());
    }
  }
  Write(operands_[0], converted, 64);
}

}  // namespace pos::access
