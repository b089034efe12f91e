// Bodies of functions: blocks, labels, instructions.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pos/cuda_impl/ptx/parser.h"

namespace pos::ptx {
using ast::Operand;
using ast::OperandKind;

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

}  // namespace pos::ptx
