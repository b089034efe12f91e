// Operands of instructions.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pos/cuda_impl/ptx/parser.h"

namespace pos::ptx {
namespace {

using ast::Operand;
using ast::OperandKind;

// "%v.y" is component 1 of "%v".
bool SplitComponent(std::string_view name, std::string_view* base,
                    std::uint32_t* component) {
  if (name.size() < 3 || name[name.size() - 2] != '.') return false;
  const std::size_t found = std::string_view("xyzwrgba").find(name.back());
  if (found == std::string_view::npos) return false;
  *base = name.substr(0, name.size() - 2);
  *component = static_cast<std::uint32_t>(found % 4);
  return true;
}

// "%r.b3210" is bytes 3, 2, 1 and 0 of "%r".
bool SplitSelector(std::string_view name, std::string_view* base,
                   ast::Selector* selector) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == 0) return false;
  std::string_view digits = name.substr(dot + 1);
  if (digits.size() < 2 || digits.size() > 5) return false;
  if (digits[0] != 'b' && digits[0] != 'h') return false;
  selector->halves = digits[0] == 'h';
  digits.remove_prefix(1);
  for (const char digit : digits) {
    if (digit < '0' || digit > '7') return false;
    selector->digits[selector->count++] =
        static_cast<std::uint8_t>(digit - '0');
  }
  *base = name.substr(0, dot);
  return true;
}

}  // namespace
// operand [ | operand ]
bool Parser::ParseOperand(int depth, std::vector<Operand>* out) {
  if (!ParsePrimaryOperand(depth, out)) return false;
  if (AtPunct('|')) {
    out->back().paired = true;
    Advance();
    return ParsePrimaryOperand(depth, out);
  }
  return true;
}

bool Parser::ParsePrimaryOperand(int depth, std::vector<Operand>* out) {
  if (depth > 4) return FailHere("operands nested too deep");
  Operand operand;
  bool parsed = true;
  if (AtPunct('{')) {
    parsed = ParseGroup('}', OperandKind::kVector, depth, &operand);
  } else if (AtPunct('[')) {
    parsed = ParseGroup(']', OperandKind::kMemory, depth, &operand);
  } else if (token_.kind == TokenKind::kIdentifier) {
    parsed = ParseNamedOperand(&operand);
  } else if (AtPunct('!') && NextIsIdentifier()) {
    Advance();
    parsed = ParseNamedOperand(&operand);
    operand.negated = true;
  } else if (AtPunct('-') && NextIsIdentifier()) {
    Advance();
    parsed = ParseNamedOperand(&operand);
    operand.minus = true;
  } else {
    Value value;
    parsed = ParseExpression(&value);
    operand.kind = value.kind == Value::Kind::kInteger ? OperandKind::kImmediate
                   : value.kind == Value::Kind::kSingle ? OperandKind::kFloat32
                                                        : OperandKind::kFloat64;
    operand.is_unsigned = value.is_unsigned;
    operand.value = static_cast<std::int64_t>(value.bits);
  }
  out->push_back(operand);
  return parsed;
}

bool Parser::NextIsIdentifier() const {
  Lexer ahead = lexer_;
  return ahead.Next().kind == TokenKind::kIdentifier;
}

// { … }, [ … ] or ( … ): the elements go to Function::operands.
bool Parser::ParseGroup(char close, OperandKind kind, int depth, Operand* out) {
  Advance();
  std::vector<Operand> elements;
  while (!AtPunct(close)) {
    if (!ParseOperand(depth + 1, &elements)) return false;
    if (!TakePunct(',') && !AtPunct(close)) {
      return FailHere("expected `,` or the end of the group");
    }
  }
  Advance();
  out->kind = kind;
  out->index = static_cast<std::uint32_t>(function_->operands.size());
  out->count = static_cast<std::uint32_t>(elements.size());
  function_->operands.insert(function_->operands.end(), elements.begin(),
                             elements.end());
  return true;
}

bool Parser::ParseNamedOperand(Operand* out) {
  const Token name = token_;
  Advance();
  if (name.text == "_") return true;  // a sink, which an Operand is at first
  if (name.text == "WARP_SZ") {
    out->kind = OperandKind::kImmediate;
    out->value = 32;
    return true;
  }
  UseName(name, out);
  return ParseOffset(out);
}

// What an identifier stands for.
void Parser::UseName(const Token& name, Operand* out) {
  const Binding* found = scopes_.Find(name.text);
  std::string_view base;
  std::uint32_t component = 0;
  if (found == nullptr && SplitComponent(name.text, &base, &component)) {
    found = scopes_.Find(base);
    if (found != nullptr &&
        (found->kind != OperandKind::kRegister || found->count <= component)) {
      found = nullptr;
    }
    if (found != nullptr) {
      out->kind = OperandKind::kRegister;
      out->index = found->index + component;
      return;
    }
  }
  ast::Selector selector;
  if (found == nullptr && SplitSelector(name.text, &base, &selector)) {
    const Binding* whole = scopes_.Find(base);
    if (whole != nullptr && whole->kind == OperandKind::kRegister &&
        whole->count == 1) {
      out->kind = OperandKind::kRegister;
      out->index = whole->index;
      out->selector = selector;
      return;
    }
  }
  if (found != nullptr) {
    out->kind = found->kind;
    out->index = found->index;
    if (found->kind == OperandKind::kRegister && found->count > 1) {
      out->kind = OperandKind::kVector;  // %v is {%v.x, %v.y, …}
      out->index = static_cast<std::uint32_t>(function_->operands.size());
      out->count = found->count;
      for (std::uint32_t i = 0; i < out->count; ++i) {
        Operand element;
        element.kind = OperandKind::kRegister;
        element.index = found->index + i;
        function_->operands.push_back(element);
      }
    }
    return;
  }
  const auto function = function_names_.find(name.text);
  const Special special = SpecialFromName(name.text);
  if (function != function_names_.end()) {
    out->kind = OperandKind::kFunction;
    out->index = function->second;
  } else if (special != Special::kCount) {
    out->kind = OperandKind::kSpecial;
    out->index = static_cast<std::uint32_t>(special);
  } else if (name.text.starts_with('%')) {
    out->kind = OperandKind::kUnknown;
    out->index = static_cast<std::uint32_t>(function_->unknown.size());
    function_->unknown.emplace_back(name.text);
  } else {
    out->kind = OperandKind::kLabel;
    out->index = LabelFor(name.text);
  }
}

// name + n, name - n
bool Parser::ParseOffset(Operand* out) {
  if (!AtPunct('+') && !AtPunct('-')) return true;
  const bool minus = AtPunct('-');
  Advance();
  std::int64_t value = 0;
  if (!ParseConstant(&value)) return false;
  const auto bits = static_cast<std::uint64_t>(value);
  out->value = static_cast<std::int64_t>(minus ? 0 - bits : bits);
  return true;
}

}  // namespace pos::ptx
