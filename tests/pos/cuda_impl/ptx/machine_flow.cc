// Branches, calls and waiting of the second machine.
#include <algorithm>
#include <cstring>

#include "machine.h"
#include "pos/cuda_impl/ptx/exec_layout.h"

namespace pos::ptx::testing {

using ast::Operand;
using ast::OperandKind;

Status Machine::Flow(Thread* t, const ast::Instruction& in,
                     const OpcodeInfo& op) {
  Activation& call = t->calls.back();
  const auto operands = call.function->OperandsOf(in);
  if (op.base == "bra") {
    call.next = call.function->labels[operands[0].index].instruction;
    return OkStatus();
  }
  if (op.base == "brx") {
    POS_ASSIGN_OR_RETURN(const std::uint64_t index, Read(t, operands[0], 4));
    const auto& targets = call.function->tables[operands[1].index].targets;
    if (index >= targets.size()) return Invalid("brx beyond its table");
    call.next = call.function->labels[targets[index]].instruction;
    return OkStatus();
  }
  if (op.base == "call") return Call(t, in);
  if (op.base == "ret") return Return(t);
  if (op.base == "exit") {
    t->state = ThreadState::kDone;
    return OkStatus();
  }
  return Invalid("the machine has no " + std::string(op.base));
}

// call [(results),] target [, (arguments) [, table]];
Status Machine::Call(Thread* t, const ast::Instruction& in) {
  Activation& caller = t->calls.back();
  const Operand* target = nullptr;
  for (const Operand& operand : caller.function->OperandsOf(in)) {
    if (target == nullptr && operand.kind != OperandKind::kList) {
      target = &operand;
    }
  }
  if (target == nullptr) return Invalid("a call of nothing");
  std::uint64_t number = target->index;
  if (target->kind != OperandKind::kFunction) {
    POS_ASSIGN_OR_RETURN(const std::uint64_t address, Read(t, *target, 8));
    number = (address - kCodeWindow) >> 4;
  }
  if (number >= unit_.functions.size() || !unit_.functions[number].defined) {
    return Invalid("a call of what is no function");
  }
  constexpr std::size_t kDeepest = 200;
  if (t->calls.size() >= kDeepest) return Invalid("recursion without end");
  Activation callee = Enter(unit_.functions[number], caller.local_end);
  if (callee.local_end > t->local.value.size()) return Invalid("out of stack");
  std::fill(t->local.written.begin() + callee.local_begin,
            t->local.written.begin() + callee.local_end, false);
  POS_RETURN_IF_ERROR(CopyParameters(t, in, false, &caller, &callee));
  t->calls.push_back(std::move(callee));
  return OkStatus();
}

Status Machine::Return(Thread* t) {
  if (t->calls.size() == 1) {
    t->state = ThreadState::kDone;
    return OkStatus();
  }
  Activation callee = std::move(t->calls.back());
  t->calls.pop_back();
  Activation& caller = t->calls.back();
  return CopyParameters(t, caller.function->instructions[caller.next - 1], true,
                        &caller, &callee);
}

Status Machine::CopyParameters(Thread* t, const ast::Instruction& in,
                               bool results, Activation* caller,
                               Activation* callee) {
  const auto& formals =
      results ? callee->function->returns : callee->function->params;
  const auto& places = results ? callee->return_at : callee->param_at;
  const Operand* list = nullptr;
  bool target_seen = false;
  for (const Operand& operand : caller->function->OperandsOf(in)) {
    if (operand.kind != OperandKind::kList) {
      target_seen = true;
    } else if (target_seen != results) {
      list = &operand;
    }
  }
  if (list == nullptr) {
    return formals.empty() ? OkStatus() : Invalid("too few parameters");
  }
  const auto actuals = caller->function->Elements(*list);
  if (actuals.size() != formals.size()) return Invalid("other parameters");
  for (std::size_t i = 0; i < actuals.size(); ++i) {
    std::byte* const formal = callee->params.value.data() + places[i];
    const auto bytes = static_cast<std::uint32_t>(formals[i].bytes);
    if (actuals[i].kind == OperandKind::kLocal) {
      const std::uint32_t actual_at = caller->variable_at[actuals[i].index];
      std::byte* const actual = caller->params.value.data() + actual_at;
      std::memcpy(results ? actual : formal, results ? formal : actual, bytes);
      // What was not written stays so.
      const auto& from = results ? callee->params : caller->params;
      auto& to = results ? caller->params : callee->params;
      for (std::uint32_t b = 0; b < bytes; ++b) {
        to.written[(results ? actual_at : places[i]) + b] =
            from.written[(results ? places[i] : actual_at) + b];
      }
      continue;
    }
    if (bytes > 8) return Invalid("a parameter that is no register");
    std::uint64_t bits = 0;
    if (results) {
      std::memcpy(&bits, formal, bytes);
      POS_RETURN_IF_ERROR(Write(t, actuals[i], bits));
    } else {
      POS_ASSIGN_OR_RETURN(bits, Read(t, actuals[i], bytes));
      std::memcpy(formal, &bits, bytes);
      Touch(&callee->params, places[i], bytes, false);
    }
  }
  return OkStatus();
}

// The thread stops here until others have come.
Status Machine::Wait(Thread* t, const ast::Instruction& in,
                     const OpcodeInfo& op) {
  const auto operands = t->calls.back().function->OperandsOf(in);
  t->opcode = &op;
  t->sources.clear();
  if (GetOpcodeRow(op.row).shape == Shape::kBarrier) {
    const bool reduces = op.Has("red");
    if (op.Has("arrive") || op.Has("cluster") ||
        operands.size() != (reduces ? 3u : 1u)) {
      return Invalid("the machine has no such barrier");
    }
    POS_ASSIGN_OR_RETURN(const std::uint64_t number,
                         Read(t, operands[reduces ? 1 : 0], 4));
    t->barrier = static_cast<std::uint32_t>(number);
    if (reduces) {
      POS_ASSIGN_OR_RETURN(const std::uint64_t bit, Read(t, operands[2], 0));
      t->sources.push_back(bit);
    }
    t->state = ThreadState::kBarrier;
    return OkStatus();
  }
  const std::string_view letters = GetOpcodeRow(op.row).operands;
  const std::size_t colon = letters.find(':');
  std::size_t at = colon == 0 ? 0 : operands[0].paired ? 2 : 1;
  for (const char letter : letters.substr(colon + 1)) {
    if (at >= operands.size()) return Invalid("too few operands");
    POS_ASSIGN_OR_RETURN(const std::uint64_t bits,
                         Read(t, operands[at++], WidthOfLetter(letter, op)));
    t->sources.push_back(bits);
  }
  t->mask = static_cast<std::uint32_t>(t->sources.back());
  t->state = ThreadState::kCollective;
  return OkStatus();
}

}  // namespace pos::ptx::testing
