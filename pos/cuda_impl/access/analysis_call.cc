// Calls: parameters and results of functions, and the driver's functions.
#include <utility>

#include "pos/cuda_impl/access/analysis.h"

namespace pos::access {

using ptx::Space;

// call [(results),] target [, (arguments)] [, prototype];
void Analysis::Call() {
  const Operand* results = nullptr;
  std::span<const Operand> arguments;
  std::size_t at = 0;
  if (at < operands_.size() && operands_[at].kind == OperandKind::kList) {
    results = &operands_[at++];
  }
  if (at >= operands_.size() || operands_[at].kind != OperandKind::kFunction) {
    return GiveUp("an indirect call");
  }
  const std::uint32_t callee = ptx::Unalias(unit_, operands_[at++].index);
  if (at < operands_.size() && operands_[at].kind == OperandKind::kList) {
    arguments = frame_->function->Elements(operands_[at]);
  }
  const ptx::ast::Function& function = unit_.functions[callee];
  if (!function.defined) {
    return CallDriver(function.name, arguments, results);
  }
  const auto found = frame_of_.find(callee);
  if (found == frame_of_.end()) return GiveUp("a call that is not understood");
  Frame* const frame = &frames_[found->second];
  if (frame->kernel) return GiveUp("a call of the kernel itself");
  Pass(frame, arguments);
  if (results != nullptr) {
    Return(*frame, frame_->function->Elements(*results));
  }
}

void Analysis::Pass(Frame* callee, std::span<const Operand> arguments) {
  const auto& formals = callee->function->params;
  if (arguments.size() != formals.size()) {
    return GiveUp("a call with another number of parameters");
  }
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const Operand& actual = arguments[i];
    const Cells* const from = ParamCells(actual);
    const bool by_name = actual.kind == OperandKind::kLocal ||
                         actual.kind == OperandKind::kParam ||
                         actual.kind == OperandKind::kReturn;
    if (by_name && from == nullptr) return GiveUp("a parameter by its address");
    const auto bytes = static_cast<std::uint32_t>(formals[i].bytes);
    if (formals[i].reg != ptx::ast::kNone) {
      const Value value =
          from == nullptr ? Read(actual) : from->Load(0, bytes, UnknownOf({}));
      changed_ = callee->registers[formals[i].reg].Join(value) || changed_;
    } else if (from != nullptr) {
      changed_ = CopyCells(*from, &callee->params[i]) || changed_;
    } else {
      changed_ = callee->params[i].Store(0, bytes, Read(actual)) || changed_;
    }
  }
}

void Analysis::Return(const Frame& callee, std::span<const Operand> results) {
  const auto& formals = callee.function->returns;
  if (results.size() != formals.size()) {
    return GiveUp("a call with another number of results");
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    const Operand& actual = results[i];
    const auto bytes = static_cast<std::uint32_t>(formals[i].bytes);
    const bool by_register = formals[i].reg != ptx::ast::kNone;
    const Value value = by_register
                            ? callee.registers[formals[i].reg]
                            : callee.returns[i].Load(0, bytes, UnknownOf({}));
    if (actual.kind == OperandKind::kRegister) {
      Write(actual, value, bytes * 8);
    } else if (Cells* const to = ParamCells(actual); to != nullptr) {
      changed_ = (by_register ? to->Store(0, bytes, value)
                              : CopyCells(callee.returns[i], to)) ||
                 changed_;
    } else if (actual.kind != OperandKind::kSink) {
      return GiveUp("a result that is not understood");
    }
  }
}

void Analysis::CallDriver(std::string_view name,
                          std::span<const Operand> arguments,
                          const Operand* results) {
  if (name == "malloc" || name == "free") {
    Doubt("the heap of device code");
    if (results == nullptr) return;
    for (const Operand& result : frame_->function->Elements(*results)) {
      if (Cells* const cells = ParamCells(result); cells != nullptr) {
        changed_ = cells->Store(0, 8, Value::Foreign()) || changed_;
      } else {
        Write(result, Value::Foreign(), 64);
      }
    }
    return;
  }
  if (name != "vprintf" && name != "__assertfail") {
    return GiveUp("a function of another module: " + std::string(name));
  }
  if (results != nullptr) {
    for (const Operand& result : frame_->function->Elements(*results)) {
      Cells* const cells = ParamCells(result);
      const Value number = Value::Number(ExprTable::kAny);
      if (cells != nullptr) {
        changed_ = cells->Store(0, 4, number) || changed_;
      } else {
        Write(result, number, 32);
      }
    }
  }
  if (!recording_) return;
  if (name == "vprintf") return Print(arguments);
  // __assertfail(message, file, line, function, character size)
  for (const std::size_t text : {0u, 1u, 3u}) {
    const Cells* const cells =
        text < arguments.size() ? ParamCells(arguments[text]) : nullptr;
    if (cells == nullptr) return Doubt("texts of an assertion");
    Touch(cells->Load(0, 8, UnknownOf({})), Space::kGeneric, kReads, 1, true);
  }
}

// vprintf(format, arguments): texts are read when it is called, those that %s
// prints included.
void Analysis::Print(std::span<const Operand> arguments) {
  const Cells* const format =
      arguments.size() == 2 ? ParamCells(arguments[0]) : nullptr;
  const Cells* const list =
      arguments.size() == 2 ? ParamCells(arguments[1]) : nullptr;
  if (format == nullptr || list == nullptr) {
    return Doubt("parameters of a printf");
  }
  const Value text = format->Load(0, 8, UnknownOf({}));
  Touch(text, Space::kGeneric, kReads, 1, true);
  if (PrintsStrings(text)) Doubt("a printf that prints strings");
  // The arguments themselves lie in local memory, or there are none.
  const Value place = list->Load(0, 8, UnknownOf({}));
  for (const Term& term : place.terms()) {
    std::int64_t null = 1;
    const bool none = term.symbol.kind == Symbol::Kind::kNone &&
                      !term.foreign && term.added.empty() &&
                      exprs_.IsConstant(term.offset, &null) && null == 0;
    if (!none && term.symbol.kind != Symbol::Kind::kLocal) {
      Doubt("a printf with arguments in unknown memory");
    }
  }
}

bool Analysis::PrintsStrings(const Value& format) const {
  const Term* const term = format.single();
  std::int64_t at = 0;
  if (term == nullptr || term->symbol.kind != Symbol::Kind::kVariable ||
      !exprs_.IsConstant(term->offset, &at)) {
    return true;
  }
  const ptx::Variable& variable = unit_.variables[term->symbol.index];
  const auto size = static_cast<std::int64_t>(variable.initial.size());
  if (at < 0 || at > size || !variable.relocations.empty()) return true;
  bool inside = false;  // between % and its letter
  for (std::int64_t i = at; i < size; ++i) {
    const auto c =
        static_cast<char>(variable.initial[static_cast<std::size_t>(i)]);
    if (c == 0) return inside;
    if (!inside) {
      inside = c == '%';
      continue;
    }
    if (std::string_view("0123456789.+-# *lhjztLq").find(c) !=
        std::string_view::npos) {
      continue;
    }
    if (c == 's' || c == 'n' || c == 'S') return true;
    inside = false;
  }
  return inside;
}

}  // namespace pos::access
