// Loads, stores and atomics of the second machine.
#include <array>
#include <cstring>

#include "machine.h"
#include "pos/cuda_impl/ptx/exec_layout.h"

namespace pos::ptx::testing {

using ast::Operand;
using ast::OperandKind;

namespace {

constexpr std::uint64_t kWindow = 1ull << 32;

std::uint64_t Updated(const OpcodeInfo& op, std::uint64_t old, std::uint64_t b,
                      std::uint64_t c, bool shared) {
  const Type type = op.key.type[0];
  if (op.Has("exch")) return b;
  if (op.Has("cas")) return old == b ? c : old;
  if (op.Has("and")) return old & b;
  if (op.Has("or")) return old | b;
  if (op.Has("xor")) return old ^ b;
  if (op.Has("inc")) return old >= b ? 0 : old + 1;
  if (op.Has("dec")) return old == 0 || old > b ? b : old - 1;
  if (op.Has("min") || op.Has("max")) {
    const bool less = IntegerOf(b, type) < IntegerOf(old, type);
    return less == op.Has("min") ? b : old;
  }
  // The hardware flushes subnormals of f32 in global memory.
  const std::string opcode = type == Type::kF64   ? "add.rn.f64"
                             : type != Type::kF32 ? "add.u64"
                             : shared             ? "add.rn.f32"
                                                  : "add.rn.ftz.f32";
  const std::array<std::uint64_t, 2> sources{old, b};
  return CutTo(static_cast<Wide>(Reference(ParseOpcode(opcode), sources)->bits),
               TypeBytes(type));
}

}  // namespace

bool Touch(Bytes* bytes, std::uint64_t at, std::uint64_t count, bool loads) {
  for (std::uint64_t i = at; i < at + count; ++i) {
    if (loads && !bytes->written[i]) return false;
    bytes->written[i] = true;
  }
  return true;
}

Result<std::byte*> Machine::ParamPlace(Thread* t, const Operand& base,
                                       std::uint32_t bytes, bool loads) {
  Activation& call = t->calls.back();
  std::uint64_t at = static_cast<std::uint64_t>(base.value);
  switch (base.kind) {
    case OperandKind::kParam:
      at += call.param_at[base.index];
      break;
    case OperandKind::kReturn:
      at += call.return_at[base.index];
      break;
    case OperandKind::kLocal:
      at += call.variable_at[base.index];
      break;
    default:
      return Invalid("a parameter by its address");
  }
  if (at + bytes > call.params.value.size()) {
    return Invalid("beyond the parameters");
  }
  if (!Touch(&call.params, at, bytes, loads)) {
    return Invalid("reads a parameter that nothing wrote");
  }
  return call.params.value.data() + at;
}

Result<std::byte*> Machine::Place(Thread* t, const Operand& memory,
                                  const OpcodeInfo& op, std::uint32_t bytes,
                                  bool loads, bool* shared) {
  const Operand& base = t->calls.back().function->Elements(memory)[0];
  POS_ASSIGN_OR_RETURN(std::uint64_t address, Read(t, base, 8));
  if (base.kind == OperandKind::kRegister) {
    address += static_cast<std::uint64_t>(base.value);
  }
  if (address % bytes != 0) return Invalid("a misaligned access");
  const bool generic = op.key.space == Space::kGeneric;
  *shared = op.key.space == Space::kShared ||
            (generic && address - kSharedWindow < kWindow);
  const bool local = op.key.space == Space::kLocal ||
                     (generic && address - kLocalWindow < kWindow);
  if (*shared || local) {
    if (generic) address -= *shared ? kSharedWindow : kLocalWindow;
    Bytes& space = *shared ? shared_ : t->local;
    const std::size_t size = space.value.size();
    if (address > size || size - address < bytes) {
      return Invalid("beyond shared or local memory");
    }
    if (!Touch(&space, address, bytes, loads)) {
      return Invalid("reads memory that nothing wrote");
    }
    return space.value.data() + address;
  }
  const MemoryView::Range range = memory_->Find(address);
  if (range.limit == 0 || address < range.base ||
      range.limit - address < bytes) {
    return Invalid("an illegal address");
  }
  return reinterpret_cast<std::byte*>(address);
}

Status Machine::Access(Thread* t, const ast::Instruction& in,
                       const OpcodeInfo& op) {
  const ast::Function& function = *t->calls.back().function;
  const auto operands = function.OperandsOf(in);
  const bool loads = op.base != "st";
  const Operand& memory = operands[loads ? 1 : 0];
  const Operand& data = operands[loads ? 0 : 1];
  const auto elements = data.kind == OperandKind::kVector
                            ? function.Elements(data)
                            : std::span<const Operand>(&data, 1);
  const Type type = op.key.type[0];
  const std::uint32_t bytes = TypeBytes(type);
  if (bytes > 8) return Invalid("the machine has no 128-bit registers");
  const auto all = bytes * static_cast<std::uint32_t>(elements.size());
  std::byte* at = nullptr;
  const Shape shape = GetOpcodeRow(op.row).shape;
  const Operand& base = function.Elements(memory)[0];
  if (function.entry && base.kind == OperandKind::kParam) {
    const auto entry = unit_.entry_index.find(function.name)->second;
    const std::uint64_t offset =
        unit_.entries[entry].params[base.index].offset +
        static_cast<std::uint64_t>(base.value);
    if (offset + all > launch_.params.size()) return Invalid("no parameter");
    at = const_cast<std::byte*>(launch_.params.data()) + offset;
  } else if (shape == Shape::kLoadParam || shape == Shape::kStoreParam) {
    POS_ASSIGN_OR_RETURN(at, ParamPlace(t, base, all, loads));
  } else {
    bool shared = false;
    POS_ASSIGN_OR_RETURN(at, Place(t, memory, op, all, loads, &shared));
  }
  for (const Operand& element : elements) {
    std::uint64_t bits = 0;
    if (loads) {
      std::memcpy(&bits, at, bytes);
      // Registers may be wider than what is in memory.
      POS_RETURN_IF_ERROR(
          Write(t, element, static_cast<std::uint64_t>(IntegerOf(bits, type))));
    } else {
      POS_ASSIGN_OR_RETURN(bits, Read(t, element, bytes));
      std::memcpy(at, &bits, bytes);
    }
    at += bytes;
  }
  return OkStatus();
}

Status Machine::Atomic(Thread* t, const ast::Instruction& in,
                       const OpcodeInfo& op) {
  const auto operands = t->calls.back().function->OperandsOf(in);
  const std::size_t first = op.base == "atom" ? 1 : 0;
  const std::uint32_t bytes = TypeBytes(op.key.type[0]);
  if (bytes > 8) return Invalid("the machine has no 128-bit registers");
  bool shared = false;
  POS_ASSIGN_OR_RETURN(std::byte* const at,
                       Place(t, operands[first], op, bytes, true, &shared));
  POS_ASSIGN_OR_RETURN(const std::uint64_t b,
                       Read(t, operands[first + 1], bytes));
  std::uint64_t c = 0;
  if (operands.size() > first + 2) {
    POS_ASSIGN_OR_RETURN(c, Read(t, operands[first + 2], bytes));
  }
  std::uint64_t old = 0;
  std::memcpy(&old, at, bytes);
  const std::uint64_t now = Updated(op, old, b, c, shared);
  std::memcpy(at, &now, bytes);
  return first == 1 ? Write(t, operands[0], old) : OkStatus();
}

}  // namespace pos::ptx::testing
