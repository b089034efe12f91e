#include "pos/cuda_impl/access/analysis.h"

#include <utility>

namespace pos::access {

using ptx::Shape;
using ptx::Space;
using ptx::Special;
using ptx::Type;
using ptx::TypeBytes;

ModuleContext::ModuleContext(const ptx::Module& parsed)
    : module(parsed), unit(parsed.unit()), graph(parsed.unit()) {
  for (const std::string& opcode : unit.opcodes) {
    opcodes.push_back(ptx::ParseOpcode(opcode));
  }
}

Analysis::Analysis(ModuleContext* context, std::uint32_t entry)
    : context_(context), unit_(context->unit), entry_(entry) {
  result_.name = unit_.entries[entry].name;
  result_.basis = AccessBasis::kProven;
  for (const ptx::Param& param : unit_.entries[entry].params) {
    param_offsets_.push_back(param.offset);
  }
  const auto reach = context->graph.Reachable(unit_.entry_functions[entry]);
  std::uint64_t registers = 0;
  for (const std::uint32_t number : reach) {
    const ptx::ast::Function& function = unit_.functions[number];
    if (!function.defined) continue;
    registers += function.register_count;
    if (registers > kMaxRegisters) {
      Doubt("too many registers");
      return;
    }
    Frame frame;
    frame.number = number;
    frame.function = &function;
    frame.kernel = frames_.empty();
    frame.registers.resize(function.register_count);
    frame.block.resize(function.register_count);
    frame.is_written.resize(function.register_count);
    frame.leaders.resize(function.instructions.size() + 1);
    for (const ptx::ast::Label& label : function.labels) {
      if (label.instruction < frame.leaders.size()) {
        frame.leaders[label.instruction] = true;
      }
    }
    frame.variables.resize(function.variables.size());
    frame.params.resize(function.params.size());
    frame.returns.resize(function.returns.size());
    frame_of_.emplace(number, frames_.size());
    frames_.push_back(std::move(frame));
  }
}

KernelAccess Analysis::Run() {
  if (result_.basis != AccessBasis::kProven) {
    Conclude();
    return std::move(result_);
  }
  if (frames_.empty()) {
    result_.basis = AccessBasis::kUnknown;
    result_.reason = "no code";
    return std::move(result_);
  }
  changed_ = true;
  for (int round = 0; changed_ && result_.basis != AccessBasis::kUnknown;
       ++round) {
    changed_ = false;
    if (round == kMaxRounds) {
      Doubt("values that do not settle");
      break;
    }
    Execute();
  }
  recording_ = result_.basis == AccessBasis::kProven;
  if (recording_) Execute();
  Conclude();
  return std::move(result_);
}

void Analysis::Execute() {
  for (Frame& frame : frames_) {
    frame_ = &frame;
    std::size_t number = 0;
    for (const auto& instruction : frame.function->instructions) {
      instruction_ = &instruction;
      if (frame.leaders[number++]) EndBlock();
      Charge(1);
      if (context_->steps_left == 0) return Doubt("too much code");
      Step();
      if (result_.basis == AccessBasis::kUnknown) return;
    }
    EndBlock();
  }
}

void Analysis::Charge(std::size_t steps) {
  context_->steps_left -= std::min<std::uint64_t>(context_->steps_left, steps);
}

Value Analysis::LoadCells(const Cells& cells, std::optional<std::int64_t> place,
                          std::uint32_t bytes, const Value& narrow) {
  if (!place.has_value()) Charge(cells.size());
  return cells.Load(place, bytes, narrow);
}

bool Analysis::CopyCells(const Cells& from, Cells* to) {
  Charge(from.size());
  return to->Copy(from);
}

void Analysis::LeaveBlock() {
  for (const std::uint32_t number : frame_->written) {
    changed_ =
        frame_->registers[number].Join(frame_->block[number]) || changed_;
  }
}

void Analysis::EndBlock() {
  LeaveBlock();
  for (const std::uint32_t number : frame_->written) {
    frame_->is_written[number] = false;
    frame_->block[number] = Value();
  }
  frame_->written.clear();
}

const Value& Analysis::RegisterOf(std::uint32_t number) const {
  return frame_->is_written[number] ? frame_->block[number]
                                    : frame_->registers[number];
}

void Analysis::Step() {
  info_ = &context_->opcodes[instruction_->opcode];
  operands_ = frame_->function->OperandsOf(*instruction_);
  if (info_->row == ptx::OpcodeInfo::kNoRow) {
    const std::string_view base = info_->base;
    // Textures are read only; through handles.
    if (base == "tex" || base == "tld4" || base == "txq" || base == "suq" ||
        base == "suld") {
      Doubt("reads a texture or surface");
      return WriteUnknown(true);
    }
    return GiveUp("it is not known what this instruction does");
  }
  StepByShape(ptx::GetOpcodeRow(info_->row).shape);
}

void Analysis::StepByShape(Shape shape) {
  switch (shape) {
    case Shape::kAlu:
    case Shape::kSetp:
    case Shape::kPrmt:
    case Shape::kVideo:
      return Alu();
    case Shape::kMov:
      return Move();
    case Shape::kCvt:
      return Convert();
    case Shape::kCvta:
      return ConvertAddress();
    case Shape::kLoad:
      return Load();
    case Shape::kStore:
      return Store();
    case Shape::kLoadParam:
      return LoadParam();
    case Shape::kStoreParam:
      return StoreParam();
    case Shape::kAtom:
      return Atom(true);
    case Shape::kRed:
      return Atom(false);
    case Shape::kCpAsync:
      return CopyAsync();
    case Shape::kBulkCopy:
      return CopyBulk();
    case Shape::kWmmaLoad:
      return Matrix(false);
    case Shape::kWmmaStore:
      return Matrix(true);
    case Shape::kCall:
      return Call();
    case Shape::kBarrier:
      if (info_->Has("red")) WriteUnknown(false);
      return;
    case Shape::kCollective:
      if (ptx::GetOpcodeRow(info_->row).operands[0] != ':') {
        Write(operands_[0], UnknownOf(operands_.subspan(FirstSource())), 64);
      }
      return;
    case Shape::kBra:
    case Shape::kBrx:
    case Shape::kRet:
    case Shape::kExit:
      // Who does not go elsewhere goes on in the same block.
      Charge(frame_->written.size() / kRegistersPerStep);
      return LeaveBlock();
    case Shape::kFence:
    case Shape::kTrap:
    case Shape::kNanosleep:
    case Shape::kCopiesArrive:
      return;
    default:
      return Other();
  }
}

std::string Analysis::Where(std::string_view why) const {
  std::string text(why);
  if (instruction_ != nullptr) {
    text += ": " + unit_.opcodes[instruction_->opcode] + " at line " +
            std::to_string(instruction_->line) + " in " +
            frame_->function->name;
  }
  return text;
}

void Analysis::Doubt(std::string_view why) {
  if (result_.basis != AccessBasis::kProven) return;
  result_.basis = AccessBasis::kGuessed;
  result_.reason = Where(why);
}

void Analysis::GiveUp(std::string_view why) {
  if (result_.basis == AccessBasis::kUnknown) return;
  result_.basis = AccessBasis::kUnknown;
  result_.reason = Where(why);
}

Value Analysis::Symbolic(Symbol::Kind kind, std::uint32_t function,
                         std::uint32_t index, std::int64_t offset) {
  Term term;
  term.symbol = {kind, function, index};
  term.offset = exprs_.Constant(offset);
  return Value(term);
}

// One that is told from all others: kinds of operands count from 0 each.
Value Analysis::NamedObject(Symbol::Kind kind, const Operand& operand) {
  constexpr std::uint32_t kKinds = 32;
  static_assert(static_cast<std::uint32_t>(OperandKind::kUnknown) < kKinds);
  const bool of_unit = operand.kind == OperandKind::kFunction;
  return Symbolic(
      kind, of_unit ? 0 : frame_->number,
      operand.index * kKinds + static_cast<std::uint32_t>(operand.kind),
      operand.value);
}

Value Analysis::Read(const Operand& operand) {
  using Kind = Symbol::Kind;
  switch (operand.kind) {
    case OperandKind::kRegister:
      if (operand.selector.count != 0 || operand.minus) {
        return UnknownOf({});
      }
      return RegisterOf(operand.index);
    case OperandKind::kImmediate:
      return Value::Number(exprs_.Constant(operand.value));
    case OperandKind::kFloat32:
    case OperandKind::kFloat64:
      return Value::Number(ExprTable::kAny);
    case OperandKind::kSpecial:
      return ReadSpecial(static_cast<Special>(operand.index));
    case OperandKind::kVariable:
      return Symbolic(Kind::kVariable, 0, operand.index, operand.value);
    case OperandKind::kShared:
      return Symbolic(Kind::kShared, 0, operand.index, operand.value);
    case OperandKind::kLocal:
      if (frame_->function->variables[operand.index].space == Space::kLocal) {
        return Symbolic(Kind::kLocal, frame_->number, operand.index,
                        operand.value);
      }
      return NamedObject(Kind::kParam, operand);
    case OperandKind::kParam:
    case OperandKind::kReturn:
      return NamedObject(Kind::kParam, operand);
    case OperandKind::kFunction:
    case OperandKind::kLabel:
    case OperandKind::kTable:
      return NamedObject(Kind::kCode, operand);
    default:
      return Value::Foreign();
  }
}

Value Analysis::ReadSpecial(Special special) {
  const auto from = [special](Special first) {
    return static_cast<int>(special) - static_cast<int>(first);
  };
  const auto within = [special](Special first, Special last) {
    return special >= first && special <= last;
  };
  if (within(Special::kTidX, Special::kTidZ)) {
    return Value::Number(exprs_.Special(ExprOp::kThread, from(Special::kTidX)));
  }
  if (within(Special::kCtaidX, Special::kCtaidZ)) {
    return Value::Number(
        exprs_.Special(ExprOp::kBlock, from(Special::kCtaidX)));
  }
  if (within(Special::kNtidX, Special::kNtidZ)) {
    return Value::Number(
        exprs_.Special(ExprOp::kThreads, from(Special::kNtidX)));
  }
  if (within(Special::kNctaidX, Special::kNctaidZ)) {
    return Value::Number(
        exprs_.Special(ExprOp::kBlocks, from(Special::kNctaidX)));
  }
  if (special == Special::kLaneid) return Value::Number(exprs_.Range(0, 31));
  // Where the driver's memory for grid-wide barriers lies.
  if (special == Special::kEnvreg1 || special == Special::kEnvreg2) {
    return Value::Foreign();
  }
  return Value::Number(ExprTable::kAny);
}

void Analysis::Write(const Operand& operand, const Value& value,
                     std::uint32_t bits) {
  if (operand.kind != OperandKind::kRegister) return;
  const std::uint32_t width =
      TypeBytes(frame_->function->TypeOfRegister(operand.index)) * 8;
  // What is known modulo less than the register holds is not known.
  const bool whole = width <= bits;
  Value written = whole ? value : arithmetic_.Moved(value);
  // A guard may leave what was there.
  if (instruction_->guard != ptx::ast::kNone) {
    written.Join(RegisterOf(operand.index));
  }
  if (!frame_->is_written[operand.index]) {
    frame_->is_written[operand.index] = true;
    frame_->written.push_back(operand.index);
  }
  frame_->block[operand.index] = std::move(written);
}

void Analysis::WriteNumbers(const Operand& operand, bool foreign) {
  const Value value =
      foreign ? Value::Foreign() : Value::Number(ExprTable::kAny);
  if (operand.kind != OperandKind::kVector) return Write(operand, value, 64);
  for (const Operand& element : frame_->function->Elements(operand)) {
    Write(element, value, 64);
  }
}

void Analysis::WriteUnknown(bool foreign) {
  if (operands_.empty()) return;
  WriteNumbers(operands_[0], foreign);
  if (operands_[0].paired && operands_.size() > 1) {
    WriteNumbers(operands_[1], foreign);
  }
}

std::uint32_t Analysis::FirstSource() const {
  const std::uint32_t first = !operands_.empty() && operands_[0].paired ? 2 : 1;
  return std::min(first, static_cast<std::uint32_t>(operands_.size()));
}

// A number that all operands take part in.
Value Analysis::UnknownOf(std::span<const Operand> operands) {
  Value number = Value::Number(ExprTable::kAny);
  for (const Operand& operand : operands) {
    if (operand.kind != OperandKind::kRegister &&
        operand.kind != OperandKind::kVector) {
      continue;
    }
    const auto elements = operand.kind == OperandKind::kVector
                              ? frame_->function->Elements(operand)
                              : std::span<const Operand>(&operand, 1);
    for (const Operand& element : elements) {
      if (element.kind != OperandKind::kRegister) continue;
      const Value& value = RegisterOf(element.index);
      const std::array<const Value*, 2> both{&number, &value};
      number = arithmetic_.Number(ExprTable::kAny, both);
    }
  }
  return number;
}

// What a load of less than an address gives.
Value Analysis::Narrow(Type type) {
  const auto kind = ptx::ClassOf(type);
  if (kind == ptx::TypeClass::kFloat || kind == ptx::TypeClass::kPredicate) {
    return Value::Number(ExprTable::kAny);
  }
  return Value::Number(exprs_.Widen(ExprTable::kAny, TypeBytes(type) * 8,
                                    kind == ptx::TypeClass::kSigned));
}

}  // namespace pos::access
