#include "pos/cuda_impl/ptx/lower.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "pos/cuda_impl/ptx/call_graph.h"
#include "pos/cuda_impl/ptx/control.h"
#include "pos/cuda_impl/ptx/exec_layout.h"

namespace pos::ptx {
namespace {

std::uint32_t AlignUp(std::uint32_t value, std::uint32_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

RegClass ClassFor(Type type) {
  if (type == Type::kPred) return RegClass::kPred;
  switch (TypeBytes(type)) {
    case 1:
    case 2:
      return RegClass::k16;
    case 4:
      return RegClass::k32;
    case 16:
      return RegClass::k128;
    default:
      return RegClass::k64;
  }
}

HandlerPair Same(Handler handler) { return {handler, handler}; }

}  // namespace

// Functions are told apart by number, modules by a piece of their hash, so that
// a pointer from another module is noticed.
std::uint64_t CodeAddress(const ast::Unit& unit, std::uint32_t function) {
  return kCodeWindow | (unit.hash & 0xfff) << 20 | std::uint64_t{function} << 4;
}

FormalLayout LayOutFormals(const std::vector<ast::Storage>& results,
                           const std::vector<ast::Storage>& params) {
  FormalLayout layout;
  const auto place = [&layout](const std::vector<ast::Storage>& formals,
                               std::vector<std::uint32_t>* offsets) {
    for (const ast::Storage& formal : formals) {
      layout.bytes = AlignUp(layout.bytes, std::min(formal.alignment, 16u));
      offsets->push_back(layout.bytes);
      layout.bytes += static_cast<std::uint32_t>(
          std::min<std::uint64_t>(formal.bytes, Module::kMaxParamBytes));
    }
  };
  place(results, &layout.results);
  place(params, &layout.params);
  layout.bytes = AlignUp(layout.bytes, 16);
  return layout;
}

Lowering::Lowering(const LowerContext& context, std::uint32_t function)
    : context_(context), function_(context.unit->functions[function]) {
  out_.number = function;
  register_of_.assign(function_.register_count, ast::kNone);
  label_of_.assign(function_.labels.size(), ast::kNone);
}

Status Lowering::Run() {
  POS_RETURN_IF_ERROR(LayOutStorage());
  if (!IsEntry()) CopyFormalsIn();
  SaveStack();
  // Labels by the statement that they stand before.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> at;
  for (std::uint32_t i = 0; i < function_.labels.size(); ++i) {
    at.emplace_back(function_.labels[i].instruction, i);
  }
  std::sort(at.begin(), at.end());
  std::size_t next = 0;
  for (std::uint32_t i = 0; i <= function_.instructions.size(); ++i) {
    while (next < at.size() && at[next].first == i) {
      BindLabel(LabelOf(at[next++].second));
    }
    if (i == function_.instructions.size()) break;
    POS_RETURN_IF_ERROR(LowerInstruction(function_.instructions[i]));
  }
  for (const ast::Table& table : function_.tables) {
    std::vector<std::uint32_t> labels;
    if (table.kind == ast::Table::Kind::kBranches) {
      for (const std::uint32_t target : table.targets) {
        labels.push_back(LabelOf(target));
      }
    }
    out_.tables.push_back(std::move(labels));
  }
  // Falling off the end of a body returns.
  LowInst last;
  last.fn = Same(&control::Return);
  last.flow = LowInst::Flow::kStop;
  last.source = static_cast<std::uint32_t>(
      function_.instructions.empty() ? 0 : function_.instructions.size() - 1);
  RestoreStack();
  if (!IsEntry()) CopyResultsOut();
  out_.code.push_back(last);
  return OkStatus();
}

// Gives .local and .param variables their places.
Status Lowering::LayOutStorage() {
  if (!IsEntry()) formals_ = LayOutFormals(function_.returns, function_.params);
  out_.formal_bytes = formals_.bytes;
  std::uint64_t local = 0;
  std::uint64_t param = formals_.bytes;
  for (const ast::Storage& storage : function_.variables) {
    std::uint64_t* at = storage.space == Space::kLocal ? &local : &param;
    const std::uint64_t mask = storage.alignment - 1;
    *at = (*at + mask) & ~mask;
    variable_offset_.push_back(static_cast<std::uint32_t>(*at));
    *at += storage.bytes;
    if (local > (1u << 24) || param > (1u << 20)) {
      return Incompatible("function " + function_.name +
                          " needs more memory per thread than is supported");
    }
  }
  out_.local_bytes = AlignUp(static_cast<std::uint32_t>(local), 16);
  out_.param_bytes = AlignUp(static_cast<std::uint32_t>(param), 16);
  return OkStatus();
}

// Formal parameters that are registers arrive in parameter memory.
void Lowering::CopyFormalsIn() {
  for (std::size_t i = 0; i < function_.params.size(); ++i) {
    const ast::Storage& formal = function_.params[i];
    if (formal.space != Space::kReg) continue;
    const std::uint32_t reg = RegisterOf(formal.reg);
    key_ = PickKey();
    LowInst load;
    load.fn = context_.isa->pick(FindRow("ld", "param b32"), key_);
    load.imm = formals_.params[i];
    load.list_first = static_cast<std::uint32_t>(out_.lists.size());
    load.list_count = 1;
    load.list_defined = 1;
    load.flags = ElementFlags(
        formal.type,
        kRegBytes[static_cast<std::size_t>(out_.registers[reg])] / kLanes);
    out_.lists.push_back(Ref::Virtual(reg));
    Emit(load);
  }
}

void Lowering::CopyResultsOut() {
  for (std::size_t i = 0; i < function_.returns.size(); ++i) {
    const ast::Storage& formal = function_.returns[i];
    if (formal.space != Space::kReg) continue;
    const std::uint32_t reg = RegisterOf(formal.reg);
    key_ = PickKey();
    LowInst store;
    store.fn = context_.isa->pick(FindRow("st", "param b32"), key_);
    store.imm = formals_.results[i];
    store.list_first = static_cast<std::uint32_t>(out_.lists.size());
    store.list_count = 1;
    store.flags = ElementFlags(
        formal.type,
        kRegBytes[static_cast<std::size_t>(out_.registers[reg])] / kLanes);
    out_.lists.push_back(Ref::Virtual(reg));
    Emit(store);
  }
}

std::uint32_t Lowering::ElementFlags(Type type, std::uint32_t width) {
  const auto log = [](std::uint32_t bytes) {
    return bytes >= 8 ? 3u : bytes / 2u;  // 1, 2, 4, 8 -> 0, 1, 2, 3
  };
  return log(TypeBytes(type)) << kElementShift | log(width) << kRegisterShift |
         (ClassOf(type) == TypeClass::kSigned ? kElementSigned : 0u);
}

std::uint32_t Lowering::FindRow(std::string_view base, std::string_view words) {
  std::string opcode(base);
  opcode += '.';
  for (const char c : words) opcode += c == ' ' ? '.' : c;
  return ParseOpcode(opcode).row;
}

Status Lowering::Fail(std::string_view what) const {
  std::string message = "instruction " +
                        context_.unit->opcodes[instruction_->opcode] +
                        " at line " + std::to_string(instruction_->line) +
                        " in " + function_.name + ": ";
  message += what;
  return Incompatible(std::move(message));
}

Status Lowering::PickHandler(LowInst* inst) {
  inst->fn = context_.isa->pick(info_->row, key_);
  if (inst->fn.full == nullptr) {
    return Fail("not supported with operands of these types");
  }
  return OkStatus();
}

std::uint32_t Lowering::NewRegister(RegClass klass) {
  out_.registers.push_back(klass);
  return static_cast<std::uint32_t>(out_.registers.size() - 1);
}

std::uint32_t Lowering::RegisterOf(std::uint32_t ast_register) {
  std::uint32_t& reg = register_of_[ast_register];
  if (reg == ast::kNone) {
    reg = NewRegister(ClassFor(function_.TypeOfRegister(ast_register)));
  }
  return reg;
}

// Bytes of a register operand; 0 for a predicate and for what is no register.
std::uint32_t Lowering::WidthOf(const ast::Operand& operand) const {
  if (operand.kind != ast::OperandKind::kRegister) return 0;
  const RegClass klass = ClassFor(function_.TypeOfRegister(operand.index));
  return klass == RegClass::kPred
             ? 0
             : kRegBytes[static_cast<std::size_t>(klass)] / kLanes;
}

LowInst& Lowering::Emit(LowInst inst) {
  if (instruction_ != nullptr) {
    inst.source = static_cast<std::uint32_t>(instruction_ -
                                             function_.instructions.data());
  }
  out_.code.push_back(inst);
  return out_.code.back();
}

std::uint32_t Lowering::NewLabel() {
  out_.labels.push_back(ast::kNone);
  return static_cast<std::uint32_t>(out_.labels.size() - 1);
}

void Lowering::BindLabel(std::uint32_t label) {
  out_.labels[label] = static_cast<std::uint32_t>(out_.code.size());
}

std::uint32_t Lowering::LabelOf(std::uint32_t ast_label) {
  std::uint32_t& label = label_of_[ast_label];
  if (label == ast::kNone) label = NewLabel();
  return label;
}

// A guard becomes part of the instruction, or a branch around what lanes cannot
// do while others of their fragment do not.
Status Lowering::LowerInstruction(const ast::Instruction& instruction) {
  instruction_ = &instruction;
  operands_ = function_.OperandsOf(instruction);
  OpcodeInfo& info = (*context_.opcodes)[instruction.opcode];
  if (info.base.empty()) {
    info = ParseOpcode(context_.unit->opcodes[instruction.opcode]);
  }
  info_ = &info;
  key_ = info.key;
  if (info.row == OpcodeInfo::kNoRow) return Fail("not supported");
  const std::size_t first = out_.code.size();
  if (instruction.guard == ast::kNone) return Dispatch(instruction);
  const Ref guard = Ref::Virtual(RegisterOf(instruction.guard));
  const Shape shape = GetOpcodeRow(info.row).shape;
  if (shape == Shape::kBra) {  // has a predicate of its own
    return Dispatch(instruction);
  }
  const bool around = shape >= Shape::kFirstAlone;
  if (around) {
    LowInst skip;
    skip.fn = Same(&control::Branch);
    skip.flow = LowInst::Flow::kBranch;
    skip.a = guard;
    skip.flags = instruction.guard_negated ? 0u : kNegateA;
    skip.target = NewLabel();
    const std::uint32_t after = skip.target;
    Emit(skip);
    POS_RETURN_IF_ERROR(Dispatch(instruction));
    BindLabel(after);
    return OkStatus();
  }
  POS_RETURN_IF_ERROR(Dispatch(instruction));
  // What comes before the last one only computes its operands.
  if (out_.code.size() > first) {
    out_.code.back().guard = guard;
    out_.code.back().guard_negated = instruction.guard_negated;
  }
  return OkStatus();
}

Status Lowering::Dispatch(const ast::Instruction&) {
  switch (GetOpcodeRow(info_->row).shape) {
    case Shape::kAlu:
      return LowerAlu();
    case Shape::kSetp:
      return LowerSetp();
    case Shape::kMov:
      return LowerMov();
    case Shape::kCvt:
      return LowerCvt();
    case Shape::kVideo:
      return LowerVideo();
    case Shape::kPrmt:
      return LowerPrmt();
    case Shape::kCvta:
      return LowerCvta();
    case Shape::kLoad:
      return LowerLoad();
    case Shape::kStore:
      return LowerStore();
    case Shape::kLoadParam:
      return LowerLoadParam();
    case Shape::kStoreParam:
      return LowerStoreParam();
    case Shape::kAtom:
      return LowerAtom();
    case Shape::kRed:
      return LowerRed();
    case Shape::kStack:
      return LowerStack();
    case Shape::kFence:
      return LowerFence();
    case Shape::kNothing:
      return OkStatus();
    case Shape::kMbarrier:
      return LowerMbarrier();
    case Shape::kCopiesArrive:
      return LowerCopiesArrive();
    case Shape::kCpAsync:
      return LowerCpAsync();
    case Shape::kBulkCopy:
      return LowerBulkCopy();
    case Shape::kBulkZero:
      return LowerBulkZero();
    case Shape::kCluster:
      return LowerCluster();
    case Shape::kActivemask:
      return LowerActivemask();
    case Shape::kNanosleep:
      return LowerNanosleep();
    case Shape::kBra:
      return LowerBra();
    case Shape::kBrx:
      return LowerBrx();
    case Shape::kCall:
      return LowerCall();
    case Shape::kRet:
      return LowerRet();
    case Shape::kExit:
      return LowerExit();
    case Shape::kTrap:
      return LowerTrap();
    case Shape::kBarrier:
      return LowerBarrier();
    case Shape::kCollective:
      return LowerCollective();
    case Shape::kMma:
      return LowerMma();
    case Shape::kWmmaLoad:
      return LowerWmmaLoad();
    case Shape::kWmmaStore:
      return LowerWmmaStore();
    case Shape::kLdmatrix:
      return LowerLdmatrix();
    case Shape::kStmatrix:
      return LowerStmatrix();
    case Shape::kMovmatrix:
      return LowerMovmatrix();
  }
  return Fail("not supported");
}

}  // namespace pos::ptx
