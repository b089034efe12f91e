// Arithmetic, moves and conversions of the second machine.
#include <array>
#include <cstring>

#include "machine.h"
#include "pos/cuda_impl/ptx/exec_layout.h"

namespace pos::ptx::testing {

using ast::Operand;
using ast::OperandKind;

std::uint32_t WidthOfLetter(char letter, const OpcodeInfo& op) {
  switch (letter) {
    case 'p':
    case 'P':
      return 0;
    case 'h':
      return 2;
    case 'i':
      return 4;
    case 'l':
      return 8;
    case 'u':
      return TypeBytes(op.key.type[1]);
    case 'v':
      return TypeBytes(op.key.type[2]);
    case 'w':
      return 2 * TypeBytes(op.key.type[0]);
    default:
      return TypeBytes(op.key.type[0]);
  }
}

namespace {

// Add and subtract with the carry flag; for subtraction it is the borrow.
std::optional<Want> WithCarry(const OpcodeInfo& op, Sources in, bool* carry) {
  const bool takes =
      op.base == "addc" || op.base == "subc" || op.base == "madc";
  if (!takes && !op.Has("cc")) return std::nullopt;
  const std::uint32_t bytes = TypeBytes(op.key.type[0]);
  const Wide one = takes && *carry ? 1 : 0;
  Wide a = static_cast<Wide>(in[0]);
  Wide b = static_cast<Wide>(in[1]);
  if (op.base == "mad" || op.base == "madc") {
    const std::string half = op.Has("hi") ? "mul.hi." : "mul.lo.";
    const std::string opcode = half + std::string(op.words.back());
    a = static_cast<Wide>(
        Reference(ParseOpcode(opcode), in.subspan(0, 2))->bits);
    b = static_cast<Wide>(in[2]);
  }
  const bool subtracts = op.base == "sub" || op.base == "subc";
  const Wide sum = subtracts ? a - b - one : a + b + one;
  if (op.Has("cc")) *carry = sum < 0 || (sum >> (8 * bytes)) != 0;
  Want want;
  want.bits = CutTo(sum, bytes);
  return want;
}

}  // namespace

// `bytes` 0: a predicate.
Result<std::uint64_t> Machine::Read(Thread* t, const Operand& operand,
                                    std::uint32_t bytes) {
  const Activation& call = t->calls.back();
  const auto value = static_cast<std::uint64_t>(operand.value);
  std::uint64_t bits = 0;
  switch (operand.kind) {
    case OperandKind::kRegister:
      if (!call.written[operand.index]) {
        return Invalid("reads register " + std::to_string(operand.index) +
                       " of " + call.function->name + ", which nothing wrote");
      }
      bits = call.registers[operand.index];
      if (bytes == 0) return bits ^ (operand.negated ? 1u : 0u);
      break;
    case OperandKind::kImmediate:
    case OperandKind::kFloat32:
    case OperandKind::kFloat64:
      bits = value;
      break;
    case OperandKind::kSpecial: {
      POS_ASSIGN_OR_RETURN(bits, Special(*t, operand.index));
      break;
    }
    case OperandKind::kShared:
      bits = shared_at_[operand.index] + value;
      break;
    case OperandKind::kLocal:
      bits = call.variable_at[operand.index] + value;
      break;
    case OperandKind::kFunction:
      bits = kCodeWindow + (std::uint64_t{operand.index} << 4);
      break;
    default:
      return Invalid("the machine cannot read such an operand");
  }
  return CutTo(static_cast<Wide>(bits), bytes);
}

Result<std::uint64_t> Machine::Special(const Thread& t,
                                       std::uint32_t special) const {
  switch (static_cast<pos::ptx::Special>(special)) {
    case pos::ptx::Special::kTidX:
      return std::uint64_t{t.number};
    case pos::ptx::Special::kCtaidX:
      return std::uint64_t{block_};
    case pos::ptx::Special::kNtidX:
      return std::uint64_t{launch_.threads};
    case pos::ptx::Special::kNctaidX:
      return std::uint64_t{launch_.blocks};
    case pos::ptx::Special::kLaneid:
      return std::uint64_t{t.lane()};
    case pos::ptx::Special::kWarpid:
      return std::uint64_t{t.warp()};
    case pos::ptx::Special::kLanemaskEq:
      return std::uint64_t{1u << t.lane()};
    case pos::ptx::Special::kLanemaskLt:
      return std::uint64_t{(1u << t.lane()) - 1};
    default:
      return Invalid("the machine has no such special register");
  }
}

Status Machine::Write(Thread* t, const Operand& operand, std::uint64_t bits) {
  if (operand.kind == OperandKind::kSink) return OkStatus();
  if (operand.kind != OperandKind::kRegister) {
    return Invalid("a destination that is no register");
  }
  Activation& call = t->calls.back();
  const Type type = call.function->TypeOfRegister(operand.index);
  const bool predicate = type == Type::kPred;
  call.written[operand.index] = true;
  call.registers[operand.index] =
      CutTo(static_cast<Wide>(bits), predicate ? 1 : TypeBytes(type));
  return OkStatus();
}

Status Machine::Compute(Thread* t, const ast::Instruction& in,
                        const OpcodeInfo& op) {
  const auto operands = t->calls.back().function->OperandsOf(in);
  const std::string_view letters = GetOpcodeRow(op.row).operands;
  std::size_t at = operands[0].paired ? 2 : 1;
  std::vector<std::uint64_t> sources;
  for (const char letter : letters.substr(letters.find(':') + 1)) {
    if (letter == '[' || letter == ']') continue;
    if (at >= operands.size()) break;
    POS_ASSIGN_OR_RETURN(const std::uint64_t bits,
                         Read(t, operands[at++], WidthOfLetter(letter, op)));
    sources.push_back(bits);
  }
  std::optional<Want> want = WithCarry(op, sources, &t->calls.back().carry);
  if (!want.has_value()) want = Reference(op, sources);
  if (!want.has_value() || want->anything || want->approximate) {
    return Invalid("no exact reference for " + unit_.opcodes[in.opcode]);
  }
  POS_RETURN_IF_ERROR(Write(t, operands[0], want->bits));
  if (operands[0].paired) {
    return Write(t, operands[1], want->predicate.value_or(false));
  }
  return OkStatus();
}

Status Machine::Move(Thread* t, const ast::Instruction& in,
                     const OpcodeInfo& op) {
  const ast::Function& function = *t->calls.back().function;
  const auto operands = function.OperandsOf(in);
  const std::uint32_t bytes = TypeBytes(op.key.type[0]);
  if (bytes > 8) return Invalid("the machine has no 128-bit registers");
  std::uint64_t bits = 0;
  if (operands[1].kind == OperandKind::kVector) {
    const auto parts = function.Elements(operands[1]);
    const auto part = bytes / static_cast<std::uint32_t>(parts.size());
    for (std::size_t i = 0; i < parts.size(); ++i) {
      POS_ASSIGN_OR_RETURN(const std::uint64_t one, Read(t, parts[i], part));
      bits |= one << (8 * part * i);
    }
  } else {
    POS_ASSIGN_OR_RETURN(bits,
                         Read(t, operands[1], op.Has("pred") ? 0 : bytes));
  }
  if (operands[0].kind != OperandKind::kVector) {
    return Write(t, operands[0], bits);
  }
  const auto parts = function.Elements(operands[0]);
  const auto part = 8 * bytes / static_cast<std::uint32_t>(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    POS_RETURN_IF_ERROR(Write(t, parts[i], bits >> (part * i)));
  }
  return OkStatus();
}

Status Machine::Convert(Thread* t, const ast::Instruction& in,
                        const OpcodeInfo& op) {
  const auto operands = t->calls.back().function->OperandsOf(in);
  if (op.base == "cvta") {
    POS_ASSIGN_OR_RETURN(std::uint64_t address, Read(t, operands[1], 8));
    std::uint64_t window = 0;
    if (op.Has("shared")) window = kSharedWindow;
    if (op.Has("local")) window = kLocalWindow;
    address += op.Has("to") ? 0 - window : window;
    return Write(t, operands[0], address);
  }
  POS_ASSIGN_OR_RETURN(const std::uint64_t bits,
                       Read(t, operands[1], TypeBytes(op.key.type[1])));
  const std::array<std::uint64_t, 1> source{bits};
  const std::optional<Want> want = Reference(op, source);
  if (!want.has_value()) return Invalid("no reference for a conversion");
  return Write(t, operands[0], want->bits);
}

}  // namespace pos::ptx::testing
