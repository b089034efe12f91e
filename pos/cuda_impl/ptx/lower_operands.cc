// Operands: registers, immediates, addresses, special registers.
#include <bit>
#include <string>

#include "pos/cuda_impl/ptx/control.h"
#include "pos/cuda_impl/ptx/exec_layout.h"
#include "pos/cuda_impl/ptx/lower.h"

namespace pos::ptx {
namespace {

using ast::Operand;
using ast::OperandKind;

RegClass ClassOfWidth(std::uint32_t width) {
  switch (width) {
    case 2:
      return RegClass::k16;
    case 4:
      return RegClass::k32;
    case 8:
      return RegClass::k64;
    default:
      return RegClass::k128;
  }
}

// The bits of a literal as a constant of `type`.
bool LiteralBits(const Operand& operand, Type type, std::uint32_t width,
                 std::uint64_t* bits) {
  const auto value = static_cast<std::uint64_t>(operand.value);
  const bool wants_f32 = type == Type::kF32;
  const bool wants_f64 = type == Type::kF64;
  *bits = value;
  switch (operand.kind) {
    case OperandKind::kImmediate:
      if (wants_f32) {
        *bits = std::bit_cast<std::uint32_t>(static_cast<float>(operand.value));
      } else if (wants_f64) {
        *bits =
            std::bit_cast<std::uint64_t>(static_cast<double>(operand.value));
      }
      return true;
    case OperandKind::kFloat32:
      if (wants_f64) {
        *bits = std::bit_cast<std::uint64_t>(static_cast<double>(
            std::bit_cast<float>(static_cast<std::uint32_t>(value))));
      }
      return wants_f64 || width == 4;
    case OperandKind::kFloat64:
      if (width == 4) {
        *bits = std::bit_cast<std::uint32_t>(
            static_cast<float>(std::bit_cast<double>(value)));
      }
      return width == 4 || width == 8;
    default:
      return false;
  }
}

}  // namespace

Ref Lowering::Constant(std::uint32_t width, std::uint64_t bits) {
  return Ref::Fixed(context_.constants->Immediate(width, bits));
}

// Zero-extends or cuts to another width, through a new register.
Status Lowering::Widen(const Ref& from, std::uint32_t from_width,
                       std::uint32_t to_width, Ref* out) {
  const auto type = [](std::uint32_t width) {
    return width == 2 ? Type::kU16 : width == 4 ? Type::kU32 : Type::kU64;
  };
  PickKey key;
  key.types = 2;
  key.type[0] = type(to_width);
  key.type[1] = type(from_width);
  key.width[0] = static_cast<std::uint8_t>(to_width);
  key.width[1] = static_cast<std::uint8_t>(from_width);
  static const std::uint32_t kRow = FindRow("cvt", "u32 u64");
  LowInst convert;
  convert.fn = context_.isa->pick(kRow, key);
  convert.a = from;
  convert.d = Ref::Virtual(NewRegister(ClassOfWidth(to_width)));
  // What the general conversion reads; PickCvt has one of its own for most.
  convert.imm = static_cast<std::int64_t>(
      static_cast<std::uint64_t>(key.type[0]) |
      static_cast<std::uint64_t>(key.type[1]) << 8 |
      std::uint64_t{to_width} << 16 | std::uint64_t{from_width} << 24);
  *out = convert.d;
  Emit(convert);
  return OkStatus();
}

Status Lowering::SpecialSource(Special special, std::uint32_t width, Ref* out) {
  const std::uint32_t own = SpecialBytes(special) == 8 ? 8 : 4;
  if (WhereOf(special) == SpecialWhere::kRead) {
    LowInst read;
    read.fn = {&control::ReadSpecial, &control::ReadSpecial};
    read.d = Ref::Virtual(NewRegister(ClassOfWidth(own)));
    read.imm = static_cast<std::int64_t>(special);
    read.n = own;
    read.own_source = true;
    *out = read.d;
    Emit(read);
  } else {
    *out = Ref::Fixed(context_.constants->SpecialRegister(special));
  }
  if (own == width) return OkStatus();
  const Ref whole = *out;
  return Widen(whole, own, width, out);
}

// The address of a variable or function, as a value.
Status Lowering::AddressSource(const Operand& operand, std::uint32_t width,
                               Ref* out) {
  if (width != 8 && width != 4) return Fail("an address needs 32 or 64 bits");
  std::uint64_t value = static_cast<std::uint64_t>(operand.value);
  switch (operand.kind) {
    case OperandKind::kVariable: {
      const std::uint64_t address =
          (*context_.variable_addresses)[operand.index];
      if (address == 0) {
        return Fail("variable " + context_.unit->variables[operand.index].name +
                    " is defined in another module");
      }
      value += address;
      break;
    }
    case OperandKind::kShared:
      value += context_.shared->OffsetOf(operand.index);
      break;
    case OperandKind::kFunction:
      value = CodeAddress(*context_.unit, operand.index);
      break;
    case OperandKind::kParam: {
      if (!IsEntry()) return Fail("takes the address of a parameter");
      value += static_cast<std::uint64_t>(KernelParamOffset(operand.index));
      break;
    }
    case OperandKind::kLocal: {
      const ast::Storage& storage = function_.variables[operand.index];
      if (storage.space != Space::kLocal) {
        return Fail("takes the address of a .param variable");
      }
      value += variable_offset_[operand.index];
      if (IsEntry()) break;
      LowInst address;
      address.fn = {&control::LocalAddress, &control::LocalAddress};
      address.d = Ref::Virtual(NewRegister(ClassOfWidth(width)));
      address.imm = static_cast<std::int64_t>(value);
      address.n = width;
      address.own_source = true;
      *out = address.d;
      Emit(address);
      return OkStatus();
    }
    default:
      return Fail("an operand that has no value");
  }
  *out = Constant(width, value);
  return OkStatus();
}

Status Lowering::ConstantSource(const Operand& operand, Type type,
                                std::uint32_t width, Ref* out) {
  std::uint64_t bits = 0;
  if (!LiteralBits(operand, type, width, &bits)) {
    return Fail("a literal of another type");
  }
  *out = Constant(width, bits);
  return OkStatus();
}

Status Lowering::CheckPlain(const Operand& operand) const {
  const bool plain = operand.selector.count == 0 && !operand.minus;
  if (plain || GetOpcodeRow(info_->row).shape == Shape::kVideo) {
    return OkStatus();
  }
  return Fail("a selector or `-` before a register");
}

Status Lowering::Source(const Operand& operand, Type type, std::uint32_t width,
                        Ref* out) {
  POS_RETURN_IF_ERROR(CheckPlain(operand));
  switch (operand.kind) {
    case OperandKind::kRegister:
      if (WidthOf(operand) != width) {
        return Fail("a source register of another width");
      }
      *out = Ref::Virtual(RegisterOf(operand.index));
      return OkStatus();
    case OperandKind::kImmediate:
    case OperandKind::kFloat32:
    case OperandKind::kFloat64:
      return ConstantSource(operand, type, width, out);
    case OperandKind::kSpecial:
      return SpecialSource(static_cast<Special>(operand.index), width, out);
    case OperandKind::kUnknown:
      return Fail("register " + function_.unknown[operand.index] +
                  " is not known");
    default:
      return AddressSource(operand, width, out);
  }
}

Status Lowering::PredicateSource(const Operand& operand, Ref* out) {
  POS_RETURN_IF_ERROR(CheckPlain(operand));
  if (operand.kind == OperandKind::kImmediate) {
    *out = Constant(0, operand.value != 0 ? 1 : 0);
    return OkStatus();
  }
  if (operand.kind != OperandKind::kRegister ||
      function_.TypeOfRegister(operand.index) != Type::kPred) {
    return Fail("expected a predicate");
  }
  *out = Ref::Virtual(RegisterOf(operand.index));
  return OkStatus();
}

Status Lowering::Destination(const Operand& operand, std::uint32_t width,
                             Ref* out) {
  POS_RETURN_IF_ERROR(CheckPlain(operand));
  if (operand.kind == OperandKind::kSink) {
    *out = Ref::Virtual(NewRegister(ClassOfWidth(width)));
    return OkStatus();
  }
  if (operand.kind != OperandKind::kRegister || WidthOf(operand) != width) {
    return Fail("a destination of another width");
  }
  *out = Ref::Virtual(RegisterOf(operand.index));
  return OkStatus();
}

Status Lowering::PredicateDestination(const Operand& operand, Ref* out) {
  if (operand.kind == OperandKind::kSink) {
    *out = Ref::Virtual(NewRegister(RegClass::kPred));
    return OkStatus();
  }
  return operand.kind == OperandKind::kRegister
             ? PredicateSource(operand, out)
             : Fail("expected a predicate as destination");
}

// [base + offset]: 64-bit lanes for global, constant and generic memory, 32-bit
// ones for the rest.
Status Lowering::Address(const Operand& memory, Space space, Ref* base,
                         std::int64_t* offset) {
  if (memory.kind != OperandKind::kMemory || memory.count != 1) {
    return Fail("expected an address in brackets");
  }
  const Operand& at = function_.Elements(memory)[0];
  POS_RETURN_IF_ERROR(CheckPlain(at));
  const bool narrow = space == Space::kShared || space == Space::kLocal ||
                      space == Space::kParam;
  const std::uint32_t width = narrow ? 4 : 8;
  if (at.kind == OperandKind::kRegister) {
    *offset = at.value;
    const std::uint32_t own = WidthOf(at);
    if (own != 4 && own != 8) return Fail("an address of another width");
    const Ref reg = Ref::Virtual(RegisterOf(at.index));
    if (own == width) {
      *base = reg;
      return OkStatus();
    }
    return Widen(reg, own, width, base);
  }
  // A name in a generic access stands for its generic address.
  *offset = 0;
  if (space == Space::kGeneric && at.kind == OperandKind::kShared) {
    *offset = static_cast<std::int64_t>(kSharedWindow);
  } else if (space == Space::kGeneric && at.kind == OperandKind::kLocal) {
    *offset = static_cast<std::int64_t>(kLocalWindow);
  } else if (space == Space::kGeneric && at.kind == OperandKind::kParam) {
    *offset = static_cast<std::int64_t>(kParamWindow);
  }
  return Source(at, Type::kU64, width, base);
}

// Registers of a vector operand. They all have the same width.
Status Lowering::List(std::span<const Operand> elements, std::uint32_t width,
                      bool defines, Type type, LowInst* inst) {
  inst->list_first = static_cast<std::uint32_t>(out_.lists.size());
  inst->list_count = static_cast<std::uint32_t>(elements.size());
  inst->list_defined = defines ? inst->list_count : 0;
  std::vector<Ref> refs;
  for (const Operand& element : elements) {
    Ref ref;
    POS_RETURN_IF_ERROR(defines ? Destination(element, width, &ref)
                                : Source(element, type, width, &ref));
    refs.push_back(ref);
  }
  // Sources may have appended lists of their own.
  inst->list_first = static_cast<std::uint32_t>(out_.lists.size());
  out_.lists.insert(out_.lists.end(), refs.begin(), refs.end());
  return OkStatus();
}

}  // namespace pos::ptx
