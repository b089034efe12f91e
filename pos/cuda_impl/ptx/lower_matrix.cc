// Matrix instructions: wmma, mma, ldmatrix, stmatrix, movmatrix. See matrix.h.
#include <cstddef>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/ptx/lower.h"
#include "pos/cuda_impl/ptx/matrix.h"

namespace pos::ptx {
namespace {

using ast::Operand;
using ast::OperandKind;

// "m16n8k16"
bool ShapeFrom(std::string_view word, MatrixShape* shape) {
  std::uint32_t* const sizes[] = {&shape->m, &shape->n, &shape->k};
  std::size_t at = 0;
  for (int i = 0; i < 3; ++i) {
    if (at >= word.size() || word[at] != "mnk"[i]) return false;
    ++at;
    std::uint32_t size = 0;
    for (; at < word.size() && word[at] >= '0' && word[at] <= '9'; ++at) {
      size = size * 10 + static_cast<std::uint32_t>(word[at] - '0');
      if (size > 256) return false;
    }
    if (size == 0) return false;
    *sizes[i] = size;
  }
  return at == word.size();
}

bool ShapeOf(const OpcodeInfo& info, MatrixShape* shape) {
  for (const std::string_view word : info.words) {
    if (ShapeFrom(word, shape)) return true;
  }
  return false;
}

std::uint32_t BitsOfElement(Type type) {
  if (type == Type::kS4 || type == Type::kU4) return 4;
  return type == Type::kB1 ? 1 : 8 * TypeBytes(type);
}

// Bytes of a register of a fragment: those of f64 are wide.
std::uint32_t RegisterBytes(Type type) { return type == Type::kF64 ? 8 : 4; }

// Registers of a fragment of A or B.
std::uint32_t FactorRegisters(std::uint32_t rows, std::uint32_t k, Type type) {
  return rows * k * BitsOfElement(type) / (8 * RegisterBytes(type)) / kLanes;
}
// Of C or D.
std::uint32_t ResultRegisters(const MatrixShape& shape, Type type) {
  const std::uint32_t elements = shape.m * shape.n / kLanes;
  return type == Type::kF16 ? elements / 2 : elements;
}

// What literals in the place of a register are read as.
Type LiteralType(Type type) {
  switch (type) {
    case Type::kF32:
    case Type::kF64:
      return type;
    default:
      return Type::kB32;
  }
}

constexpr std::uint32_t kWmmaHalfRegisters = 8;

}  // namespace

// Appends the `count` registers of a fragment.
Status Lowering::Fragment(const Operand& operand, std::uint32_t count,
                          Type type, bool defines, std::vector<Ref>* refs) {
  const bool vector = operand.kind == OperandKind::kVector;
  const auto elements = vector ? function_.Elements(operand)
                               : std::span<const Operand>(&operand, 1);
  if (elements.size() != count) {
    return Fail("a fragment of " + std::to_string(elements.size()) +
                " registers, not " + std::to_string(count));
  }
  const std::uint32_t width = RegisterBytes(type);
  for (const Operand& element : elements) {
    Ref ref;
    POS_RETURN_IF_ERROR(defines
                            ? Destination(element, width, &ref)
                            : Source(element, LiteralType(type), width, &ref));
    refs->push_back(ref);
  }
  return OkStatus();
}

// The instruction's list: `refs`, of which the first `defined` are written.
void Lowering::SetList(const std::vector<Ref>& refs, std::uint32_t defined,
                       LowInst* inst) {
  inst->list_first = static_cast<std::uint32_t>(out_.lists.size());
  inst->list_count = static_cast<std::uint32_t>(refs.size());
  inst->list_defined = defined;
  out_.lists.insert(out_.lists.end(), refs.begin(), refs.end());
}

// d, a, b, c.
Status Lowering::LowerMma() {
  if (operands_.size() != 4) return Fail("expected four operands");
  MatrixShape shape{};
  if (!ShapeOf(*info_, &shape)) return Fail("expected a shape");
  const bool wmma = info_->base == "wmma";
  if (wmma && key_.types == 2) {  // .dtype.ctype; A and B are f16
    key_.type[3] = key_.type[1];
    key_.type[1] = key_.type[2] = Type::kF16;
    key_.types = 4;
  }
  const Type d = key_.type[0];
  const Type a = key_.type[1];
  const Type b = key_.type[2];
  const Type c = key_.type[3];
  std::uint32_t count_a = FactorRegisters(shape.m, shape.k, a);
  std::uint32_t count_b = FactorRegisters(shape.n, shape.k, b);
  std::uint32_t count_c = ResultRegisters(shape, c);
  std::uint32_t count_d = ResultRegisters(shape, d);
  const bool quads = !wmma && a == Type::kF16 && shape.k == 4;
  if (quads) {  // four products
    count_a = count_b = 2;
    count_c *= 4;
    count_d *= 4;
    key_.words |= kUni;
  } else if (wmma && a == Type::kF16) {
    count_a = count_b = kWmmaHalfRegisters;
  }
  std::vector<Ref> refs;
  POS_RETURN_IF_ERROR(Fragment(operands_[0], count_d, d, true, &refs));
  POS_RETURN_IF_ERROR(Fragment(operands_[1], count_a, a, false, &refs));
  POS_RETURN_IF_ERROR(Fragment(operands_[2], count_b, b, false, &refs));
  POS_RETURN_IF_ERROR(Fragment(operands_[3], count_c, c, false, &refs));
  LowInst inst;
  inst.flow = LowInst::Flow::kResume;
  inst.flags = key_.flags | kAligned | count_d << kMatrixCountD |
               count_a << kMatrixCountA | count_b << kMatrixCountB;
  if ((key_.words & kSatFinite) != 0) inst.flags |= kMatrixSaturate;
  if (info_->Has("xor")) inst.flags |= kMatrixXor;
  if (quads) inst.flags |= QuadLayouts();
  inst.imm = static_cast<std::int64_t>(
      std::uint64_t{shape.m} << kMatrixM | std::uint64_t{shape.n} << kMatrixN |
      std::uint64_t{shape.k} << kMatrixK |
      static_cast<std::uint64_t>(a) << kMatrixTypeA |
      static_cast<std::uint64_t>(b) << kMatrixTypeB |
      static_cast<std::uint64_t>(c) << kMatrixTypeC |
      static_cast<std::uint64_t>(d) << kMatrixTypeD);
  SetList(refs, count_d, &inst);
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}

// Of m8n8k4.f16: the first layout is A's, the second B's.
std::uint32_t Lowering::QuadLayouts() const {
  std::uint32_t flags = 0;
  std::uint32_t bit = kMatrixColumnA;
  for (const std::string_view word : info_->words) {
    if (word != "row" && word != "col") continue;
    if (word == "col") flags |= bit;
    bit = kMatrixColumnB;
  }
  return flags;
}

// Flags of wmma.load and wmma.store; the registers and the default stride.
Status Lowering::WmmaTile(std::uint32_t* flags, std::uint32_t* registers,
                          std::uint32_t* stride) {
  MatrixShape shape{};
  if (!ShapeOf(*info_, &shape)) return Fail("expected a shape");
  std::uint32_t number = 0;
  while (number < std::size(kWmmaShapes) &&
         (kWmmaShapes[number].m != shape.m ||
          kWmmaShapes[number].n != shape.n ||
          kWmmaShapes[number].k != shape.k)) {
    ++number;
  }
  if (number == std::size(kWmmaShapes))
    return Fail("a shape that is not known");
  const Type type = key_.type[0];
  const bool column = info_->Has("col");
  TilePart part = kTileC;
  std::uint32_t rows = shape.m;
  std::uint32_t columns = shape.n;
  *registers = ResultRegisters(shape, type);
  if (info_->Has("a") || info_->Has("b")) {
    part = info_->Has("a") ? kTileA : kTileB;
    (part == kTileA ? columns : rows) = shape.k;
    *registers = type == Type::kF16
                     ? kWmmaHalfRegisters
                     : FactorRegisters(rows * columns / shape.k, shape.k, type);
  }
  *stride = column ? rows : columns;
  *flags = kAligned | part << kTilePart | (column ? kTileColumn : 0u) |
           number << kTileShape | static_cast<std::uint32_t>(type) << kTileType;
  return OkStatus();
}

// load r, [p] {, stride}; store [p], r {, stride}.
Status Lowering::LowerWmmaMemory(bool loads) {
  if (operands_.size() != 2 && operands_.size() != 3) {
    return Fail("expected two or three operands");
  }
  LowInst inst;
  inst.flow = LowInst::Flow::kResume;
  std::uint32_t registers = 0;
  std::uint32_t stride = 0;
  POS_RETURN_IF_ERROR(WmmaTile(&inst.flags, &registers, &stride));
  std::vector<Ref> refs;
  POS_RETURN_IF_ERROR(Fragment(operands_[loads ? 0 : 1], registers,
                               key_.type[0], loads, &refs));
  POS_RETURN_IF_ERROR(
      Address(operands_[loads ? 1 : 0], key_.space, &inst.a, &inst.imm));
  inst.b = Constant(4, stride);
  if (operands_.size() == 3) {
    POS_RETURN_IF_ERROR(Source(operands_[2], Type::kU32, 4, &inst.b));
  }
  inst.accesses = true;
  SetList(refs, loads ? registers : 0, &inst);
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}
Status Lowering::LowerWmmaLoad() { return LowerWmmaMemory(true); }
Status Lowering::LowerWmmaStore() { return LowerWmmaMemory(false); }

// ldmatrix r, [p]; stmatrix [p], r.
Status Lowering::LowerMatrixRows(bool loads) {
  if (operands_.size() != 2) return Fail("expected two operands");
  const std::uint32_t count = info_->Has("x4") ? 4 : info_->Has("x2") ? 2 : 1;
  LowInst inst;
  inst.flow = LowInst::Flow::kResume;
  inst.flags = kAligned | (info_->Has("trans") ? kRowsTransposed : 0u);
  std::vector<Ref> refs;
  POS_RETURN_IF_ERROR(
      Fragment(operands_[loads ? 0 : 1], count, Type::kB32, loads, &refs));
  POS_RETURN_IF_ERROR(
      Address(operands_[loads ? 1 : 0], key_.space, &inst.a, &inst.imm));
  inst.accesses = true;
  SetList(refs, loads ? count : 0, &inst);
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}
Status Lowering::LowerLdmatrix() { return LowerMatrixRows(true); }
Status Lowering::LowerStmatrix() { return LowerMatrixRows(false); }

Status Lowering::LowerMovmatrix() {
  if (operands_.size() != 2) return Fail("expected two operands");
  LowInst inst;
  inst.flow = LowInst::Flow::kResume;
  inst.flags = kAligned;
  POS_RETURN_IF_ERROR(Destination(operands_[0], 4, &inst.d));
  POS_RETURN_IF_ERROR(Source(operands_[1], Type::kB32, 4, &inst.a));
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}

}  // namespace pos::ptx
