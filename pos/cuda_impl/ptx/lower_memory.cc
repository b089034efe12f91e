// Loads, stores, parameters, atomics.
#include "pos/cuda_impl/ptx/lower.h"

namespace pos::ptx {
namespace {

using ast::Operand;
using ast::OperandKind;

}  // namespace

// The register or the vector that a load fills or a store writes out.
Status Lowering::DataOperands(const Operand& data, bool defines,
                              LowInst* inst) {
  const Type type = key_.type[0];
  const std::uint32_t bytes = TypeBytes(type);
  const bool vector = key_.vector > 1;
  const auto elements =
      vector ? function_.Elements(data) : std::span<const Operand>(&data, 1);
  if (vector &&
      (data.kind != OperandKind::kVector || elements.size() != key_.vector)) {
    return Fail("a vector of another size");
  }
  // Registers may be wider than what is in memory, all of them alike.
  std::uint32_t width = 0;
  for (const Operand& element : elements) {
    const std::uint32_t own = WidthOf(element);
    if (own != 0 && width == 0) width = own;
  }
  if (width == 0) width = bytes == 1 ? 2 : bytes;
  if (width < bytes || width > 16 || (width == 16 && vector)) {
    return Fail("a register of another width");
  }
  key_.width[0] = static_cast<std::uint8_t>(width);
  if (vector) {
    inst->flags |= ElementFlags(type, width);
    return List(elements, width, defines, type, inst);
  }
  return defines ? Destination(data, width, &inst->d)
                 : Source(data, type, width, &inst->b);
}

Status Lowering::LowerLoad() {
  const bool hint = info_->Has("L2::cache_hint");
  if (operands_.size() != (hint ? 3u : 2u))
    return Fail("expected two operands");
  LowInst inst;
  inst.flags |= (key_.words & kSync) != 0 ? kSyncAccess : 0u;
  POS_RETURN_IF_ERROR(DataOperands(operands_[0], true, &inst));
  POS_RETURN_IF_ERROR(Address(operands_[1], key_.space, &inst.a, &inst.imm));
  inst.accesses = true;
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerStore() {
  const bool hint = info_->Has("L2::cache_hint");
  if (operands_.size() != (hint ? 3u : 2u))
    return Fail("expected two operands");
  LowInst inst;
  inst.flags |= (key_.words & kSync) != 0 ? kSyncAccess : 0u;
  POS_RETURN_IF_ERROR(Address(operands_[0], key_.space, &inst.a, &inst.imm));
  POS_RETURN_IF_ERROR(DataOperands(operands_[1], false, &inst));
  inst.accesses = true;
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}

// Where [name + offset] lies: in the kernel's parameters or in this
// activation's parameter bytes.
Status Lowering::ParamPlace(const Operand& memory, std::uint32_t bytes,
                            bool* kernel, std::int64_t* offset) {
  if (memory.kind != OperandKind::kMemory || memory.count != 1) {
    return Fail("expected an address in brackets");
  }
  const Operand& at = function_.Elements(memory)[0];
  std::int64_t start = 0;
  std::uint64_t size = 0;
  *kernel = false;
  switch (at.kind) {
    case OperandKind::kParam:
      *kernel = IsEntry();
      start = IsEntry() ? KernelParamOffset(at.index)
                        : std::int64_t{formals_.params[at.index]};
      size = function_.params[at.index].bytes;
      break;
    case OperandKind::kReturn:
      start = formals_.results[at.index];
      size = function_.returns[at.index].bytes;
      break;
    case OperandKind::kLocal:
      if (function_.variables[at.index].space != Space::kParam) {
        return Fail("a .local variable in a .param access");
      }
      start = variable_offset_[at.index];
      size = function_.variables[at.index].bytes;
      break;
    default:
      return Fail("expected the name of a parameter");
  }
  if (at.value < 0 || static_cast<std::uint64_t>(at.value) + bytes > size) {
    return Fail("an access beyond the parameter");
  }
  *offset = start + at.value;
  return OkStatus();
}

std::int64_t Lowering::KernelParamOffset(std::uint32_t param) const {
  const std::uint32_t entry =
      context_.unit->entry_index.find(function_.name)->second;
  return context_.unit->entries[entry].params[param].offset;
}

Status Lowering::LowerLoadParam() {
  if (operands_.size() != 2) return Fail("expected two operands");
  const std::uint32_t bytes = TypeBytes(key_.type[0]);
  if (bytes > 8) return Fail("a parameter access of more than 64 bits");
  const Operand& memory = operands_[1];
  LowInst inst;
  if (memory.kind == OperandKind::kMemory && memory.count == 1 &&
      function_.Elements(memory)[0].kind == OperandKind::kRegister) {
    // An address that is computed. Only kernels can have it.
    if (!IsEntry()) return Fail("computes the address of a parameter");
    static const std::uint32_t kRow = FindRow("ld", "global u32");
    POS_RETURN_IF_ERROR(DataOperands(operands_[0], true, &inst));
    POS_RETURN_IF_ERROR(Address(memory, Space::kParam, &inst.a, &inst.imm));
    inst.accesses = true;
    inst.fn = context_.isa->pick(kRow, key_);
    if (inst.fn.full == nullptr) return Fail("not supported with these types");
    Emit(inst);
    return OkStatus();
  }
  bool kernel = false;
  POS_RETURN_IF_ERROR(
      ParamPlace(memory, bytes * key_.vector, &kernel, &inst.imm));
  POS_RETURN_IF_ERROR(ParamData(operands_[0], true, &inst));
  key_.words = kernel ? std::uint32_t{kUni} : 0;
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerStoreParam() {
  if (operands_.size() != 2) return Fail("expected two operands");
  const std::uint32_t bytes = TypeBytes(key_.type[0]);
  if (bytes > 8) return Fail("a parameter access of more than 64 bits");
  LowInst inst;
  bool kernel = false;
  POS_RETURN_IF_ERROR(
      ParamPlace(operands_[0], bytes * key_.vector, &kernel, &inst.imm));
  if (kernel) return Fail("a store to the kernel's parameters");
  POS_RETURN_IF_ERROR(ParamData(operands_[1], false, &inst));
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}

// Parameters always go through a list.
Status Lowering::ParamData(const Operand& data, bool defines, LowInst* inst) {
  const Type type = key_.type[0];
  const bool vector = data.kind == OperandKind::kVector;
  const auto elements =
      vector ? function_.Elements(data) : std::span<const Operand>(&data, 1);
  if (elements.size() != key_.vector) return Fail("a vector of another size");
  std::uint32_t width = 0;
  for (const Operand& element : elements) {
    const std::uint32_t own = WidthOf(element);
    if (own != 0 && width == 0) width = own;
  }
  const std::uint32_t bytes = TypeBytes(type);
  if (width == 0) width = bytes == 1 ? 2 : bytes;
  if (width < bytes || width > 8) return Fail("a register of another width");
  inst->flags |= ElementFlags(type, width);
  return List(elements, width, defines, type, inst);
}

// atom d, [a], b [, c]; a cache hint may follow.
Status Lowering::LowerAtom() { return LowerAtomic(operands_, false); }

// red [a], b: an atom whose result nobody wants.
Status Lowering::LowerRed() { return LowerAtomic(operands_, true); }

Status Lowering::LowerAtomic(std::span<const Operand> operands, bool sinks) {
  const bool compares = key_.memory == MemoryOp::kCas;
  const bool hint = info_->Has("L2::cache_hint");
  const std::size_t sources = compares ? 3 : 2;
  if (operands.size() != sources + (sinks ? 0u : 1u) + (hint ? 1u : 0u)) {
    return Fail("another number of operands");
  }
  const Type type = key_.type[0];
  const std::uint32_t width = TypeBytes(type);
  LowInst inst;
  inst.flags = kSyncAccess;
  inst.accesses = true;
  if (sinks) {
    POS_RETURN_IF_ERROR(Destination(Operand(), width, &inst.d));
  } else {
    POS_RETURN_IF_ERROR(Destination(operands[0], width, &inst.d));
    operands = operands.subspan(1);
  }
  POS_RETURN_IF_ERROR(Address(operands[0], key_.space, &inst.a, &inst.imm));
  POS_RETURN_IF_ERROR(Source(operands[1], type, width, &inst.b));
  inst.c = inst.b;
  if (compares) {
    POS_RETURN_IF_ERROR(Source(operands[2], type, width, &inst.c));
  }
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}

}  // namespace pos::ptx
