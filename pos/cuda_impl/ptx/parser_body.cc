// Bodies of functions: blocks, labels, instructions, operands.
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

bool Parser::ParseBody() {
  const std::size_t outer = scopes_.depth();
  scopes_.Push();
  if (!BindFormals()) return false;
  Advance();  // {
  while (scopes_.depth() > outer) {
    if (token_.kind == TokenKind::kEnd || token_.kind == TokenKind::kError) {
      return FailHere("a function that does not end");
    }
    if (TakePunct('{')) {
      if (!scopes_.Push()) return FailHere("blocks nested too deep");
    } else if (AtPunct('}')) {
      if (!CloseScope()) return false;
      Advance();
    } else if (!ParseStatement()) {
      return false;
    }
  }
  return true;
}

// Labels that were used and not defined are looked for in the block around; at
// the function's end they are names that nothing declares.
bool Parser::CloseScope() {
  Scope::Pending pending = std::move(scopes_.top().pending());
  scopes_.Pop();
  if (pending.empty()) return true;
  const bool outermost = scopes_.depth() == 0;
  for (auto& [name, labels] : pending) {
    const Binding* known = outermost ? nullptr : scopes_.top().Find(name);
    if (known != nullptr && known->kind == OperandKind::kLabel) {
      for (const std::uint32_t label : labels) {
        function_->labels[label] = function_->labels[known->index];
      }
    } else if (outermost) {
      return FailHere(
          "function " + function_->name +
          " uses a name that nothing declares: " + std::string(name));
    } else {
      auto& up = scopes_.top().pending()[name];
      up.insert(up.end(), labels.begin(), labels.end());
    }
  }
  return true;
}

bool Parser::ParseStatement() {
  if (TakePunct(';')) return true;
  if (token_.kind == TokenKind::kDirective) return ParseBodyDirective();
  std::uint32_t guard = ast::kNone;
  bool negated = false;
  if (AtPunct('@')) {
    if (!ParseGuard(&guard, &negated)) return false;
    return ParseInstruction(guard, negated);
  }
  if (token_.kind == TokenKind::kIdentifier) {
    // A label is a name before a colon; a blank may stand between.
    Lexer ahead = lexer_;
    const Token next = ahead.Next();
    if (next.kind == TokenKind::kPunct && next.punct == ':') {
      const Token name = token_;
      Advance();
      Advance();
      return ParseLabelled(name);
    }
    return ParseInstruction(guard, negated);
  }
  return FailHere("expected a statement");
}

bool Parser::ParseBodyDirective() {
  if (AtDirective(".loc")) return SkipLoc();
  if (AtDirective(".file")) return SkipFile();
  if (AtDirective(".section")) return SkipSection();
  if (AtDirective(".pragma")) return SkipToSemicolon();
  if (AtDirective(".reg")) {
    Advance();
    return ParseRegisters();
  }
  Linkage linkage;
  if (!ParseLinkage(&linkage)) return false;
  Space space = Space::kReg;
  if (AtDirective(".local")) space = Space::kLocal;
  if (AtDirective(".param")) space = Space::kParam;
  if (AtDirective(".shared")) space = Space::kShared;
  if (AtDirective(".global")) space = Space::kGlobal;
  if (AtDirective(".const")) space = Space::kConst;
  if (space == Space::kReg) return FailHere("not a directive of a body");
  Advance();
  return ParseVariables(space, linkage);
}

// What follows "name:": a table of targets, or any statement.
bool Parser::ParseLabelled(const Token& name) {
  const bool branches = AtDirective(".branchtargets");
  const bool calls = AtDirective(".calltargets");
  if (!branches && !calls && !AtDirective(".callprototype")) {
    return DefineLabel(name);
  }
  const auto table = static_cast<std::uint32_t>(function_->tables.size());
  if (!scopes_.top().Bind(name.text, {OperandKind::kTable, table, 1})) {
    return Fail(name, "this name is declared twice");
  }
  function_->tables.emplace_back();
  function_->tables[table].kind = branches ? ast::Table::Kind::kBranches
                                  : calls  ? ast::Table::Kind::kCalls
                                           : ast::Table::Kind::kPrototype;
  Advance();
  return ParseTable(table);
}

bool Parser::ParseTable(std::uint32_t table) {
  if (function_->tables[table].kind == ast::Table::Kind::kPrototype) {
    std::vector<ast::Storage> returns;
    std::vector<ast::Storage> params;
    if (AtPunct('(') && !ParseFormals(&returns)) return false;
    std::string_view name;
    if (!ExpectName(&name)) return false;
    if (AtPunct('(') && !ParseFormals(&params)) return false;
    function_->tables[table].returns = std::move(returns);
    function_->tables[table].params = std::move(params);
    ast::Function attributes;  // .noreturn and the like change nothing here
    return ParseFunctionDirectives(&attributes) && ExpectPunct(';');
  }
  do {
    const Token name = token_;
    std::string_view text;
    if (!ExpectName(&text)) return false;
    std::uint32_t target = 0;
    if (function_->tables[table].kind == ast::Table::Kind::kCalls) {
      const auto found = function_names_.find(text);
      if (found == function_names_.end()) {
        return Fail(name, "not a function");
      }
      target = found->second;
    } else {
      target = LabelFor(text);
    }
    function_->tables[table].targets.push_back(target);
  } while (TakePunct(','));
  return ExpectPunct(';');
}

bool Parser::DefineLabel(const Token& name) {
  const auto here = static_cast<std::uint32_t>(function_->instructions.size());
  const auto label = static_cast<std::uint32_t>(function_->labels.size());
  if (!scopes_.top().Bind(name.text, {OperandKind::kLabel, label, 1})) {
    return Fail(name, "this name is declared twice");
  }
  function_->labels.push_back({here});
  auto& pending = scopes_.top().pending();
  const auto waiting = pending.find(name.text);
  if (waiting == pending.end()) return true;
  for (const std::uint32_t waits : waiting->second) {
    function_->labels[waits].instruction = here;
  }
  pending.erase(waiting);
  return true;
}

// The label that `name` stands for, made now when it is not known yet.
std::uint32_t Parser::LabelFor(std::string_view name) {
  const Binding* known = scopes_.Find(name);
  if (known != nullptr && known->kind == OperandKind::kLabel) {
    return known->index;
  }
  auto& waiting = scopes_.top().pending()[name];
  if (waiting.empty()) {
    waiting.push_back(static_cast<std::uint32_t>(function_->labels.size()));
    function_->labels.emplace_back();
  }
  return waiting.front();
}

// @%p or @!%p
bool Parser::ParseGuard(std::uint32_t* guard, bool* negated) {
  Advance();
  *negated = TakePunct('!');
  const Token name = token_;
  std::string_view text;
  if (!ExpectName(&text)) return false;
  const Binding* found = scopes_.Find(text);
  if (found == nullptr || found->kind != OperandKind::kRegister ||
      function_->TypeOfRegister(found->index) != Type::kPred) {
    return Fail(name, "a guard must be a predicate register");
  }
  *guard = found->index;
  return true;
}

std::uint32_t Parser::InternOpcode(std::string_view text) {
  const auto number = static_cast<std::uint32_t>(unit_->opcodes.size());
  const auto [at, added] = opcode_index_.emplace(text, number);
  if (added) unit_->opcodes.emplace_back(text);
  return at->second;
}

bool Parser::ParseInstruction(std::uint32_t guard, bool negated) {
  ast::Instruction instruction;
  instruction.line = token_.line;
  instruction.guard = guard;
  instruction.guard_negated = negated;
  std::string_view opcode;
  if (!ExpectName(&opcode)) return false;
  instruction.opcode = InternOpcode(opcode);
  const bool call = opcode == "call" || opcode.starts_with("call.");
  std::vector<Operand> operands;
  while (!AtPunct(';')) {
    if (call && AtPunct('(')) {
      Operand list;
      if (!ParseGroup(')', OperandKind::kList, 0, &list)) return false;
      operands.push_back(list);
    } else if (!ParseOperand(0, &operands)) {
      return false;
    }
    if (!TakePunct(',') && !AtPunct(';')) {
      return FailHere("expected `,` or `;`");
    }
  }
  Advance();
  instruction.first_operand =
      static_cast<std::uint32_t>(function_->operands.size());
  instruction.operand_count = static_cast<std::uint32_t>(operands.size());
  function_->operands.insert(function_->operands.end(), operands.begin(),
                             operands.end());
  function_->instructions.push_back(instruction);
  return true;
}

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
