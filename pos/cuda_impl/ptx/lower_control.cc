// Branches, calls, barriers: what decides where lanes go.
#include <algorithm>

#include "pos/cuda_impl/ptx/call_graph.h"
#include "pos/cuda_impl/ptx/control.h"
#include "pos/cuda_impl/ptx/lower.h"

namespace pos::ptx {
namespace {

using ast::Operand;
using ast::OperandKind;

HandlerPair Same(Handler handler) { return {handler, handler}; }

}  // namespace

Status Lowering::LowerBra() {
  if (operands_.size() != 1 || operands_[0].kind != OperandKind::kLabel) {
    return Fail("expected a label");
  }
  LowInst inst;
  inst.target = LabelOf(operands_[0].index);
  if (instruction_->guard == ast::kNone) {
    inst.fn = Same(&control::Jump);
    inst.flow = LowInst::Flow::kJump;
  } else {
    inst.fn = Same(&control::Branch);
    inst.flow = LowInst::Flow::kBranch;
    inst.a = Ref::Virtual(RegisterOf(instruction_->guard));
    inst.flags = instruction_->guard_negated ? kNegateA : 0u;
  }
  Emit(inst);
  return OkStatus();
}

// brx.idx index, table;
Status Lowering::LowerBrx() {
  if (operands_.size() != 2 || operands_[1].kind != OperandKind::kTable ||
      function_.tables[operands_[1].index].kind !=
          ast::Table::Kind::kBranches) {
    return Fail("expected an index and a table of targets");
  }
  LowInst inst;
  inst.fn = Same(&control::Switch);
  inst.flow = LowInst::Flow::kSwitch;
  inst.target = operands_[1].index;
  POS_RETURN_IF_ERROR(Source(operands_[0], Type::kU32, 4, &inst.a));
  Emit(inst);
  return OkStatus();
}

// What a function takes with alloca is given back when it returns.
void Lowering::SaveStack() {
  for (const ast::Instruction& instruction : function_.instructions) {
    const std::string& opcode = context_.unit->opcodes[instruction.opcode];
    if (opcode.starts_with("alloca.") || opcode.starts_with("stack")) {
      out_.takes_stack = true;
    }
  }
  if (IsEntry() || !out_.takes_stack) return;
  LowInst save;
  save.fn = Same(&control::StackSave);
  save.n = 4;
  save.d = Ref::Virtual(NewRegister(RegClass::k32));
  saved_stack_ = save.d;
  Emit(save);
}

void Lowering::RestoreStack() {
  if (saved_stack_.kind == Ref::Kind::kNone) return;
  LowInst restore;
  restore.fn = Same(&control::StackRestore);
  restore.n = 4;
  restore.a = saved_stack_;
  Emit(restore);
}

// alloca d, bytes {, alignment};  stacksave d;  stackrestore a;
Status Lowering::LowerStack() {
  const bool takes = info_->base == "alloca";
  const std::size_t count = operands_.size();
  if (takes ? count < 2 || count > 3 : count != 1) {
    return Fail("another number of operands");
  }
  const Type type = key_.type[0];
  LowInst inst;
  inst.n = TypeBytes(type);
  inst.imm = 8;
  if (info_->base == "stackrestore") {
    inst.fn = Same(&control::StackRestore);
    POS_RETURN_IF_ERROR(Source(operands_[0], type, inst.n, &inst.a));
    Emit(inst);
    return OkStatus();
  }
  inst.fn = Same(takes ? &control::Alloca : &control::StackSave);
  POS_RETURN_IF_ERROR(Destination(operands_[0], inst.n, &inst.d));
  if (takes) {
    POS_RETURN_IF_ERROR(Source(operands_[1], type, inst.n, &inst.a));
  }
  if (count == 3) {
    inst.imm = operands_[2].value;
    const bool power = inst.imm > 0 && (inst.imm & (inst.imm - 1)) == 0;
    if (operands_[2].kind != OperandKind::kImmediate || !power ||
        inst.imm > 1 << 23) {
      return Fail("an alignment that is no power of two up to 2^23");
    }
  }
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerRet() {
  RestoreStack();
  if (!IsEntry()) CopyResultsOut();
  LowInst inst;
  inst.fn = Same(&control::Return);
  inst.flow = LowInst::Flow::kStop;
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerExit() {
  LowInst inst;
  inst.fn = Same(&control::Exit);
  inst.flow = LowInst::Flow::kStop;
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerTrap() {
  LowInst inst;
  inst.fn = Same(&control::Trap);
  Emit(inst);
  return OkStatus();
}

// call [(results),] target [, (arguments)] [, prototype];
Status Lowering::LowerCall() {
  const Operand* results = nullptr;
  const Operand* arguments = nullptr;
  std::size_t at = 0;
  if (at < operands_.size() && operands_[at].kind == OperandKind::kList) {
    results = &operands_[at++];
  }
  if (at >= operands_.size()) return Fail("expected a function");
  const Operand& target = operands_[at++];
  if (at < operands_.size() && operands_[at].kind == OperandKind::kList) {
    arguments = &operands_[at++];
  }
  const std::vector<ast::Storage>* result_formals = nullptr;
  const std::vector<ast::Storage>* param_formals = nullptr;
  std::uint32_t callee = ast::kNone;
  if (target.kind == OperandKind::kFunction) {
    callee = Unalias(*context_.unit, target.index);
    const ast::Function& function = context_.unit->functions[callee];
    if (!function.defined) {
      return LowerBuiltin(function.name, results, arguments);
    }
    result_formals = &function.returns;
    param_formals = &function.params;
  } else {
    if (at >= operands_.size() || operands_[at].kind != OperandKind::kTable) {
      return Fail("an indirect call needs a prototype");
    }
    const ast::Table& table = function_.tables[operands_[at].index];
    if (table.kind == ast::Table::Kind::kCalls && !table.targets.empty()) {
      const ast::Function& first = context_.unit->functions[table.targets[0]];
      result_formals = &first.returns;
      param_formals = &first.params;
    } else if (table.kind == ast::Table::Kind::kPrototype) {
      result_formals = &table.returns;
      param_formals = &table.params;
    } else {
      return Fail("an indirect call needs a prototype");
    }
  }
  const FormalLayout layout = LayOutFormals(*result_formals, *param_formals);
  LowCall call;
  call.formal_bytes = layout.bytes;
  call.function = callee;
  if (results != nullptr) {
    POS_RETURN_IF_ERROR(
        CallMoves(*results, true, *result_formals, layout.results, &call));
  }
  if (arguments != nullptr) {
    POS_RETURN_IF_ERROR(
        CallMoves(*arguments, false, *param_formals, layout.params, &call));
  } else if (!param_formals->empty()) {
    return Fail("too few arguments");
  }
  LowInst inst;
  inst.fn =
      Same(callee == ast::kNone ? &control::CallIndirect : &control::Call);
  inst.flow = LowInst::Flow::kResume;
  inst.imm = static_cast<std::int64_t>(out_.calls.size());
  inst.own_source = true;
  if (callee == ast::kNone) {
    POS_RETURN_IF_ERROR(Source(target, Type::kU64, 8, &inst.a));
  }
  call.instruction = static_cast<std::uint32_t>(out_.code.size());
  out_.calls.push_back(std::move(call));
  Emit(inst);
  return OkStatus();
}

// Pairs the actual parameters with the formal ones.
Status Lowering::CallMoves(const Operand& list, bool results,
                           const std::vector<ast::Storage>& formals,
                           const std::vector<std::uint32_t>& offsets,
                           LowCall* call) {
  const auto actuals = function_.Elements(list);
  if (actuals.size() != formals.size()) {
    return Fail("a call with another number of parameters");
  }
  for (std::size_t i = 0; i < actuals.size(); ++i) {
    const Operand& actual = actuals[i];
    LowMove move;
    move.callee = offsets[i];
    move.bytes = static_cast<std::uint32_t>(formals[i].bytes);
    if (actual.kind == OperandKind::kLocal) {
      const ast::Storage& storage = function_.variables[actual.index];
      if (storage.space != Space::kParam || storage.bytes < move.bytes) {
        return Fail("an actual parameter smaller than the formal one");
      }
      move.caller = variable_offset_[actual.index];
    } else if (actual.kind == OperandKind::kSink && results) {
      continue;
    } else {
      const std::uint32_t width = move.bytes == 1 ? 2 : move.bytes;
      if (width > 8 || (width & (width - 1)) != 0) {
        return Fail("an actual parameter of another size");
      }
      POS_RETURN_IF_ERROR(
          results ? Destination(actual, width, &move.reg)
                  : Source(actual, formals[i].type, width, &move.reg));
    }
    (results ? call->results : call->arguments).push_back(move);
  }
  return OkStatus();
}

// A function of the driver: its parameters stay in the caller's parameter
// bytes.
Status Lowering::LowerBuiltin(std::string_view name, const Operand* results,
                              const Operand* arguments) {
  LowInst inst;
  const Handler handler = builtin::Find(name);
  if (handler == nullptr) {
    return Fail("function " + std::string(name) +
                " is defined in another module");
  }
  inst.fn = Same(handler);
  inst.flow = LowInst::Flow::kResume;
  std::vector<Operand> all;
  for (const Operand* list : {results, arguments}) {
    if (list == nullptr) continue;
    const auto elements = function_.Elements(*list);
    all.insert(all.end(), elements.begin(), elements.end());
  }
  if (all.size() != builtin::Operands(name)) {
    return Fail("a call with another number of parameters");
  }
  inst.list_first = static_cast<std::uint32_t>(out_.lists.size());
  inst.list_count = static_cast<std::uint32_t>(all.size());
  for (const Operand& operand : all) {
    if (operand.kind != OperandKind::kLocal ||
        function_.variables[operand.index].space != Space::kParam) {
      return Fail("expected .param variables");
    }
    out_.lists.push_back(Ref::Fixed(variable_offset_[operand.index]));
  }
  Emit(inst);
  return OkStatus();
}

// bar.sync a [, b]; bar.arrive a, b; bar.red.op d, a [, b], c;
Status Lowering::LowerBarrier() {
  LowInst inst;
  inst.fn = Same(&control::Barrier);
  inst.flow = LowInst::Flow::kResume;
  std::size_t at = 0;
  std::size_t sources = operands_.size();
  if (info_->Has("cluster")) {
    // A cluster is one block: its barrier is one more of the block's.
    if (!operands_.empty()) return Fail("expected no operands");
    inst.fn = Same(info_->Has("arrive") ? &control::ClusterArrive
                                        : &control::ClusterWait);
    Emit(inst);
    return OkStatus();
  }
  if (info_->Has("red")) {
    if (operands_.size() < 3) return Fail("too few operands");
    if (key_.memory == MemoryOp::kPopc) {
      inst.flags |= control::kBarPopc;
      POS_RETURN_IF_ERROR(Destination(operands_[0], 4, &inst.d));
    } else {
      inst.flags |=
          key_.memory == MemoryOp::kAnd ? control::kBarAnd : control::kBarOr;
      POS_RETURN_IF_ERROR(PredicateDestination(operands_[0], &inst.d));
    }
    const Operand& predicate = operands_.back();
    if (predicate.negated) inst.flags |= kNegateC;
    POS_RETURN_IF_ERROR(PredicateSource(predicate, &inst.c));
    at = 1;
    --sources;
  }
  if (info_->Has("arrive")) inst.flags |= control::kBarArrive;
  if (sources < at + 1 || sources > at + 2) return Fail("too few operands");
  POS_RETURN_IF_ERROR(Source(operands_[at], Type::kU32, 4, &inst.a));
  if (sources == at + 2) {
    inst.flags |= control::kBarHasCount;
    POS_RETURN_IF_ERROR(Source(operands_[at + 1], Type::kU32, 4, &inst.b));
  } else if (info_->Has("arrive")) {
    return Fail("expected a number of threads");
  }
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerFence() {
  LowInst inst;
  inst.fn = Same(&control::Fence);
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerNanosleep() {
  LowInst inst;
  inst.fn = Same(&control::Nanosleep);
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerActivemask() {
  if (operands_.size() != 1) return Fail("expected one operand");
  LowInst inst;
  inst.fn = Same(&control::Activemask);
  POS_RETURN_IF_ERROR(Destination(operands_[0], 4, &inst.d));
  Emit(inst);
  return OkStatus();
}

// Widths of a collective's operands, two bits each, for the code that gathers
// them from fragments which come from different places: a, b, c, d.
std::uint32_t Lowering::CollectiveShape(std::string_view signature) const {
  const auto code = [this](char letter) {
    if (letter == 'p') return 1u;
    return LetterWidth(letter) == 8 ? 3u : 2u;
  };
  const std::size_t colon = signature.find(':');
  std::uint32_t shape = colon > 0 ? code(signature[0]) << 6 : 0;
  for (std::size_t i = colon + 1; i + 1 < signature.size(); ++i) {
    shape |= code(signature[i]) << (2 * (i - colon - 1));
  }
  return shape;
}

// shfl, vote, match, redux, elect, bar.warp.sync: the last source says which
// lanes take part.
Status Lowering::LowerCollective() {
  LowInst inst;
  inst.flow = LowInst::Flow::kResume;
  inst.flags |= key_.flags;
  const std::string_view signature = GetOpcodeRow(info_->row).operands;
  const std::size_t colon = signature.find(':');
  std::size_t at = 0;
  POS_RETURN_IF_ERROR(
      SignatureDestinations(signature.substr(0, colon), &at, &inst));
  POS_RETURN_IF_ERROR(SignatureSources(
      signature.substr(colon + 1, signature.size() - colon - 2), &at, &inst));
  if (at + 1 != operands_.size()) return Fail("expected a member mask");
  POS_RETURN_IF_ERROR(Source(operands_[at], Type::kU32, 4, &inst.e));
  if (signature == ":i") {
    inst.fn = Same(&control::WarpBarrier);
  } else {
    POS_RETURN_IF_ERROR(PickHandler(&inst));
  }
  inst.flags |= CollectiveShape(signature) << kHandlerShift;
  Emit(inst);
  return OkStatus();
}

}  // namespace pos::ptx
