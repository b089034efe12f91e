// Constant expressions, and the initial values of variables.
//
// Expressions follow C's precedences on 64-bit integers and doubles.
#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "pos/cuda_impl/ptx/parser.h"

namespace pos::ptx {
namespace {

// Binary operators of constant expressions, loosest first. A two-character
// operator stands as two punctuation tokens in the text.
struct BinaryOperator {
  const char* text;
  int level;
};
constexpr BinaryOperator kBinaryOperators[] = {
    {"||", 0}, {"&&", 1}, {"|", 2},  {"^", 3},  {"&", 4},  {"==", 5},
    {"!=", 5}, {"<<", 7}, {">>", 7}, {"<=", 6}, {">=", 6}, {"<", 6},
    {">", 6},  {"+", 8},  {"-", 8},  {"*", 9},  {"/", 9},  {"%", 9},
};

bool Is(std::string_view op, std::string_view text) { return op == text; }

std::uint64_t SignedBinary(std::string_view op, std::uint64_t left,
                           std::uint64_t right) {
  const auto l = static_cast<std::int64_t>(left);
  const auto r = static_cast<std::int64_t>(right);
  if (Is(op, "<")) return l < r ? 1 : 0;
  if (Is(op, ">")) return l > r ? 1 : 0;
  if (Is(op, "<=")) return l <= r ? 1 : 0;
  if (Is(op, ">=")) return l >= r ? 1 : 0;
  if (Is(op, ">>")) return static_cast<std::uint64_t>(l >> (right & 63));
  // The only quotient that does not fit wraps around.
  if (r == -1) return Is(op, "/") ? 0 - left : 0;
  if (Is(op, "/")) return static_cast<std::uint64_t>(l / r);
  return static_cast<std::uint64_t>(l % r);
}

// The caller has ruled out division by zero.
std::uint64_t IntegerBinary(std::string_view op, bool is_unsigned,
                            std::uint64_t left, std::uint64_t right) {
  if (Is(op, "||")) return left != 0 || right != 0 ? 1 : 0;
  if (Is(op, "&&")) return left != 0 && right != 0 ? 1 : 0;
  if (Is(op, "|")) return left | right;
  if (Is(op, "^")) return left ^ right;
  if (Is(op, "&")) return left & right;
  if (Is(op, "==")) return left == right ? 1 : 0;
  if (Is(op, "!=")) return left != right ? 1 : 0;
  if (Is(op, "<<")) return left << (right & 63);
  if (Is(op, "+")) return left + right;
  if (Is(op, "-")) return left - right;
  if (Is(op, "*")) return left * right;
  if (!is_unsigned) return SignedBinary(op, left, right);
  if (Is(op, "<")) return left < right ? 1 : 0;
  if (Is(op, ">")) return left > right ? 1 : 0;
  if (Is(op, "<=")) return left <= right ? 1 : 0;
  if (Is(op, ">=")) return left >= right ? 1 : 0;
  if (Is(op, ">>")) return left >> (right & 63);
  if (Is(op, "/")) return left / right;
  return left % right;
}

bool DoubleBinary(std::string_view op, double left, double right,
                  double* result) {
  if (Is(op, "+")) {
    *result = left + right;
  } else if (Is(op, "-")) {
    *result = left - right;
  } else if (Is(op, "*")) {
    *result = left * right;
  } else if (Is(op, "/")) {
    *result = left / right;
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool Parser::ApplyBinary(const char* op, const Value& right, Value* left) {
  const auto as_double = [](const Value& v) {
    if (v.kind == Value::Kind::kDouble) return std::bit_cast<double>(v.bits);
    if (v.kind == Value::Kind::kSingle) {
      return static_cast<double>(
          std::bit_cast<float>(static_cast<std::uint32_t>(v.bits)));
    }
    return v.is_unsigned
               ? static_cast<double>(v.bits)
               : static_cast<double>(static_cast<std::int64_t>(v.bits));
  };
  if (left->kind != Value::Kind::kInteger ||
      right.kind != Value::Kind::kInteger) {
    double result = 0;
    if (!DoubleBinary(op, as_double(*left), as_double(right), &result)) {
      return FailHere("an operator that floats do not have");
    }
    left->kind = Value::Kind::kDouble;
    left->bits = std::bit_cast<std::uint64_t>(result);
    return true;
  }
  if ((Is(op, "/") || Is(op, "%")) && right.bits == 0) {
    return FailHere("division by zero");
  }
  left->is_unsigned = left->is_unsigned || right.is_unsigned;
  left->bits = IntegerBinary(op, left->is_unsigned, left->bits, right.bits);
  return true;
}

bool Parser::ParseBinary(int min_level, int depth, Value* value) {
  if (depth > kMaxExpressionDepth) return FailHere("an expression too deep");
  if (!ParseUnary(depth, value)) return false;
  while (token_.kind == TokenKind::kPunct) {
    const char first = token_.punct;
    const BinaryOperator* found = nullptr;
    const char second = lexer_.PeekPunct();
    for (const BinaryOperator& op : kBinaryOperators) {
      const bool two = op.text[1] != '\0';
      if (op.text[0] == first && (!two || op.text[1] == second)) {
        found = &op;
        break;  // two-character operators stand before their prefixes
      }
    }
    if (found == nullptr || found->level < min_level) return true;
    Advance();
    if (found->text[1] != '\0') Advance();
    Value right;
    if (!ParseBinary(found->level + 1, depth + 1, &right) ||
        !ApplyBinary(found->text, right, value)) {
      return false;
    }
  }
  return true;
}

bool Parser::ApplyUnary(char op, Value* value) {
  if (op == '+') return true;
  if (value->kind == Value::Kind::kInteger) {
    if (op == '-') value->bits = 0 - value->bits;
    if (op == '~') value->bits = ~value->bits;
    if (op == '!') value->bits = value->bits == 0 ? 1 : 0;
    return true;
  }
  if (op != '-') return FailHere("an operator that floats do not have");
  value->bits ^= value->kind == Value::Kind::kSingle ? 1ull << 31 : 1ull << 63;
  return true;
}

bool Parser::ParseUnary(int depth, Value* value) {
  if (depth > kMaxExpressionDepth) return FailHere("an expression too deep");
  for (const char op : {'-', '+', '~', '!'}) {
    if (TakePunct(op)) {
      return ParseUnary(depth + 1, value) && ApplyUnary(op, value);
    }
  }
  return ParsePrimary(depth, value);
}

bool Parser::ParsePrimary(int depth, Value* value) {
  if (TakePunct('(')) {
    if (token_.kind == TokenKind::kDirective) {  // (.u64) and (.s64) casts
      value->is_unsigned = token_.text == ".u64";
      const bool is_unsigned = value->is_unsigned;
      Advance();
      if (!ExpectPunct(')') || !ParseUnary(depth + 1, value)) return false;
      value->is_unsigned = is_unsigned;
      return true;
    }
    return ParseBinary(0, depth + 1, value) && ExpectPunct(')');
  }
  value->bits = token_.value;
  value->is_unsigned = token_.is_unsigned;
  if (token_.kind == TokenKind::kInteger) {
    value->kind = Value::Kind::kInteger;
  } else if (token_.kind == TokenKind::kFloat32) {
    value->kind = Value::Kind::kSingle;
  } else if (token_.kind == TokenKind::kFloat64) {
    value->kind = Value::Kind::kDouble;
  } else if (token_.kind == TokenKind::kIdentifier &&
             token_.text == "WARP_SZ") {
    value->kind = Value::Kind::kInteger;
    value->bits = 32;
  } else {
    return FailHere("expected a constant");
  }
  Advance();
  return true;
}

bool Parser::ParseConstant(std::int64_t* value) {
  Value parsed;
  const Token at = token_;
  if (!ParseExpression(&parsed)) return false;
  if (parsed.kind != Value::Kind::kInteger) {
    return Fail(at, "expected an integer");
  }
  *value = static_cast<std::int64_t>(parsed.bits);
  return true;
}

bool Parser::ParseInitializer(const DeclType& type, std::uint64_t limit,
                              Variable* variable, std::uint64_t* written) {
  if (AtPunct('{')) return ParseInitList(type, limit, 0, variable, written);
  return ParseInitElement(type, limit, variable, written);
}

// { element, … }; inner braces flatten. An inner list that is shorter than its
// dimension does not occur in what compilers write.
bool Parser::ParseInitList(const DeclType& type, std::uint64_t limit, int depth,
                           Variable* variable, std::uint64_t* at) {
  if (depth > kMaxExpressionDepth) return FailHere("an initial value too deep");
  Advance();
  if (TakePunct('}')) return true;
  do {
    const bool ok = AtPunct('{')
                        ? ParseInitList(type, limit, depth + 1, variable, at)
                        : ParseInitElement(type, limit, variable, at);
    if (!ok) return false;
  } while (TakePunct(','));
  return ExpectPunct('}');
}

// A constant, symbol + n, generic(symbol) + n or 0xff00(symbol).
bool Parser::ParseInitElement(const DeclType& type, std::uint64_t limit,
                              Variable* variable, std::uint64_t* at) {
  if (token_.kind == TokenKind::kIdentifier && token_.text != "WARP_SZ") {
    return ParseInitSymbol(~0ull, type, limit, variable, at);
  }
  Value value;
  if (!ParseExpression(&value)) return false;
  if (AtPunct('(')) {
    if (value.kind != Value::Kind::kInteger || value.bits == 0) {
      return FailHere("not a mask");
    }
    Advance();
    return ParseInitSymbol(value.bits, type, limit, variable, at) &&
           ExpectPunct(')');
  }
  return PutInitial(type, value, limit, variable, at);
}

bool Parser::ParseInitSymbol(std::uint64_t mask, const DeclType& type,
                             std::uint64_t limit, Variable* variable,
                             std::uint64_t* at) {
  const bool generic = token_.text == "generic";
  if (generic) {
    Advance();
    if (!ExpectPunct('(')) return false;
  }
  PendingRelocation pending;
  pending.name = token_;
  std::string_view ignored;
  if (!ExpectName(&ignored)) return false;
  if (generic && !ExpectPunct(')')) return false;
  Relocation relocation;
  if (AtPunct('+') || AtPunct('-')) {
    const bool minus = AtPunct('-');
    Advance();
    // Only the factors: the next '+' would be another element's.
    Value value;
    if (!ParseUnary(0, &value)) return false;
    relocation.addend =
        static_cast<std::int64_t>(minus ? 0 - value.bits : value.bits);
  }
  const std::uint32_t bytes = TypeBytes(type.type);
  if (limit < bytes || *at > limit - bytes || bytes > 8) {
    return FailHere("an initial value that does not fit");
  }
  relocation.offset = *at;
  relocation.bytes = static_cast<std::uint8_t>(bytes);
  relocation.shift = static_cast<std::uint8_t>(std::countr_zero(mask));
  Value zero;
  if (!PutInitial(type, zero, limit, variable, at)) return false;
  pending.variable = pending_variable_;
  pending.relocation = static_cast<std::uint32_t>(variable->relocations.size());
  variable->relocations.push_back(relocation);
  pending_relocations_.push_back(pending);
  return true;
}

bool Parser::PutInitial(const DeclType& type, const Value& value,
                        std::uint64_t limit, Variable* variable,
                        std::uint64_t* at) {
  const std::uint32_t bytes = TypeBytes(type.type);
  if (limit < bytes || *at > limit - bytes) {
    return FailHere("more initial values than the variable holds");
  }
  std::uint64_t bits = value.bits;
  const bool single = type.type == Type::kF32;
  if (value.kind == Value::Kind::kDouble && single) {
    bits = std::bit_cast<std::uint32_t>(
        static_cast<float>(std::bit_cast<double>(bits)));
  } else if (value.kind == Value::Kind::kSingle && type.type == Type::kF64) {
    bits = std::bit_cast<std::uint64_t>(static_cast<double>(
        std::bit_cast<float>(static_cast<std::uint32_t>(bits))));
  } else if (value.kind == Value::Kind::kInteger &&
             (single || type.type == Type::kF64)) {
    const auto number = static_cast<double>(static_cast<std::int64_t>(bits));
    bits = single ? std::bit_cast<std::uint32_t>(static_cast<float>(number))
                  : std::bit_cast<std::uint64_t>(number);
  }
  variable->initial.resize(*at + bytes);
  std::memcpy(variable->initial.data() + *at, &bits, std::min(bytes, 8u));
  *at += bytes;
  return true;
}

bool Parser::ResolveRelocations() {
  for (const PendingRelocation& pending : pending_relocations_) {
    Relocation& relocation =
        unit_->variables[pending.variable].relocations[pending.relocation];
    const Binding* found = scopes_.module().Find(pending.name.text);
    const auto function = function_names_.find(pending.name.text);
    if (found != nullptr && found->kind == ast::OperandKind::kVariable) {
      relocation.kind = Relocation::Kind::kVariable;
      relocation.symbol = found->index;
    } else if (function != function_names_.end()) {
      relocation.kind = Relocation::Kind::kFunction;
      relocation.symbol = function->second;
    } else {
      return Fail(pending.name, "an initial value takes an unknown address");
    }
  }
  pending_relocations_.clear();
  return true;
}

}  // namespace pos::ptx
