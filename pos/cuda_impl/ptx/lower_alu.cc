// Arithmetic, comparisons, moves, conversions.
#include <string_view>

#include "pos/cuda_impl/ptx/exec_layout.h"
#include "pos/cuda_impl/ptx/lower.h"

namespace pos::ptx {
namespace {

using ast::Operand;
using ast::OperandKind;

bool IsBfloatOrHalf(Type type) {
  return type == Type::kF16 || type == Type::kBf16;
}

// RelationBits for which a comparison of floats holds.
std::uint32_t RelationOf(Compare compare) {
  switch (compare) {
    case Compare::kEq:
      return kRelationEqual;
    case Compare::kNe:
      return kRelationLess | kRelationGreater;
    case Compare::kLt:
      return kRelationLess;
    case Compare::kLe:
      return kRelationLess | kRelationEqual;
    case Compare::kGt:
      return kRelationGreater;
    case Compare::kGe:
      return kRelationGreater | kRelationEqual;
    case Compare::kEqu:
      return kRelationNan | kRelationEqual;
    case Compare::kNeu:
      return kRelationNan | kRelationLess | kRelationGreater;
    case Compare::kLtu:
      return kRelationNan | kRelationLess;
    case Compare::kLeu:
      return kRelationNan | kRelationLess | kRelationEqual;
    case Compare::kGtu:
      return kRelationNan | kRelationGreater;
    case Compare::kGeu:
      return kRelationNan | kRelationGreater | kRelationEqual;
    case Compare::kNum:
      return kRelationLess | kRelationEqual | kRelationGreater;
    case Compare::kNan:
      return kRelationNan;
    default:
      return 0;
  }
}

// Inst::imm of set: what it writes where the comparison holds; and ImmBits, for
// setp too, whose type is its only one.
std::int64_t SetValue(const PickKey& key) {
  std::uint64_t value = 0xffffffff;
  if (key.type[0] == Type::kF32) value = 0x3f800000;
  if (key.type[0] == Type::kF16) value = 0x3c00;
  if (key.type[0] == Type::kBf16) value = 0x3f80;
  if (key.type[0] == Type::kF16x2) value = 0x3c003c00;
  if (key.type[0] == Type::kBf16x2) value = 0x3f803f80;
  if (TypeBytes(key.type[0]) == 2) value |= kNarrowResult;
  const Type source = key.types > 1 ? key.type[1] : key.type[0];
  if (source == Type::kBf16 || source == Type::kBf16x2) value |= kFromBfloat;
  value |= std::uint64_t{RelationOf(key.compare)} << kRelationAt;
  return static_cast<std::int64_t>(value);
}

}  // namespace

Type Lowering::LetterType(char letter) const {
  switch (letter) {
    case 't':
      return key_.type[0];
    case 'u':
      return key_.type[1];
    case 'v':
      return key_.type[2];
    default:
      return Type::kNone;
  }
}

std::uint32_t Lowering::LetterWidth(char letter) const {
  switch (letter) {
    case 'h':
      return 2;
    case 'i':
      return 4;
    case 'l':
      return 8;
    case 'q':
      return 16;
    case 'w':
      return 2 * TypeBytes(key_.type[0]);
    default:
      return TypeBytes(LetterType(letter));
  }
}

// Letters before ':'. A 'P' stands for the operand after a '|', if there is
// one.
Status Lowering::SignatureDestinations(std::string_view letters,
                                       std::size_t* at, LowInst* inst) {
  for (const char letter : letters) {
    const bool paired = *at > 0 && operands_[*at - 1].paired;
    Ref* slot = inst->d.kind == Ref::Kind::kNone ? &inst->d : &inst->d2;
    if (letter == 'P' && !paired) {
      *slot = Ref::Virtual(NewRegister(RegClass::kPred));
      continue;
    }
    if (*at >= operands_.size()) return Fail("too few operands");
    const Operand& operand = operands_[(*at)++];
    const bool predicate = letter == 'p' || letter == 'P';
    POS_RETURN_IF_ERROR(predicate
                            ? PredicateDestination(operand, slot)
                            : Destination(operand, LetterWidth(letter), slot));
  }
  return OkStatus();
}

// Letters after ':'; "[p]" may be missing.
Status Lowering::SignatureSources(std::string_view letters, std::size_t* at,
                                  LowInst* inst) {
  constexpr std::uint32_t kNegations[] = {kNegateA, kNegateB, kNegateC,
                                          kNegateE, kNegateE};
  Ref* const slots[] = {&inst->a, &inst->b, &inst->c, &inst->e, &inst->x};
  std::size_t slot = 0;
  bool optional = false;
  for (const char letter : letters) {
    if (letter == '[') {
      optional = true;
      continue;
    }
    if (letter == ']') break;
    if (*at >= operands_.size()) {
      if (optional) break;
      return Fail("too few operands");
    }
    const Operand& operand = operands_[(*at)++];
    if (operand.negated) {
      if (letter != 'p') return Fail("`!` before what is no predicate");
      inst->flags |= kNegations[slot];
    }
    POS_RETURN_IF_ERROR(letter == 'p'
                            ? PredicateSource(operand, slots[slot])
                            : Source(operand, LetterType(letter),
                                     LetterWidth(letter), slots[slot]));
    ++slot;
  }
  return OkStatus();
}

Status Lowering::LowerBySignature(LowInst* inst) {
  const std::string_view signature = GetOpcodeRow(info_->row).operands;
  const std::size_t colon = signature.find(':');
  inst->flags |= key_.flags;
  std::size_t at = 0;
  POS_RETURN_IF_ERROR(
      SignatureDestinations(signature.substr(0, colon), &at, inst));
  POS_RETURN_IF_ERROR(SignatureSources(signature.substr(colon + 1), &at, inst));
  if (at != operands_.size()) return Fail("too many operands");
  return PickHandler(inst);
}

Status Lowering::LowerAlu() {
  LowInst inst;
  if (key_.type[1] == Type::kBf16) {
    inst.imm = static_cast<std::int64_t>(kFromBfloat);
  }
  if (info_->base == "lop3") {
    inst.flags |= static_cast<std::uint32_t>(key_.boolean) << kHandlerShift;
  }
  if (info_->base == "isspacep") {
    switch (key_.space) {
      case Space::kShared:
        inst.imm = static_cast<std::int64_t>(kSharedWindow);
        break;
      case Space::kLocal:
        inst.imm = static_cast<std::int64_t>(kLocalWindow);
        break;
      case Space::kParam:
        inst.imm = static_cast<std::int64_t>(kParamWindow);
        break;
      default:
        inst.flags |= 1u << kHandlerShift;
        break;
    }
  }
  if (info_->base == "testp") {
    std::uint32_t test = 0;
    for (const std::string_view word : {"finite", "infinite", "number",
                                        "notanumber", "normal", "subnormal"}) {
      if (info_->Has(word)) break;
      ++test;
    }
    inst.flags |= test << kHandlerShift;
  }
  POS_RETURN_IF_ERROR(LowerBySignature(&inst));
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerSetp() {
  LowInst inst;
  const bool combines = key_.boolean != BoolOp::kNone;
  if (combines) {
    inst.flags |= static_cast<std::uint32_t>(key_.boolean) << kHandlerShift;
  }
  inst.imm = SetValue(key_);
  POS_RETURN_IF_ERROR(LowerBySignature(&inst));
  if (combines != (inst.c.kind != Ref::Kind::kNone)) {
    return Fail("a predicate and .and, .or or .xor belong together");
  }
  Emit(inst);
  return OkStatus();
}

// prmt's mode, in the order of isa/bits.cc.
Status Lowering::LowerPrmt() {
  std::uint32_t mode = 1;
  for (const std::string_view word :
       {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"}) {
    if (info_->Has(word)) break;
    ++mode;
  }
  if (mode == 7) mode = 0;
  key_.flags |= mode << kHandlerShift;
  LowInst inst;
  POS_RETURN_IF_ERROR(LowerBySignature(&inst));
  Emit(inst);
  return OkStatus();
}

// mov.b64 {a, b}, c and mov.b64 c, {a, b}.
Status Lowering::LowerMovVector(const Operand& vector, const Operand& scalar,
                                bool packs) {
  const std::uint32_t whole = TypeBytes(key_.type[0]);
  const auto elements = function_.Elements(vector);
  if (elements.size() != 2 && elements.size() != 4) {
    return Fail("a vector of another size");
  }
  LowInst inst;
  const auto part = whole / static_cast<std::uint32_t>(elements.size());
  POS_RETURN_IF_ERROR(List(elements, part, !packs, Type::kNone, &inst));
  POS_RETURN_IF_ERROR(packs ? Destination(scalar, whole, &inst.d)
                            : Source(scalar, Type::kNone, whole, &inst.a));
  key_.vector = static_cast<std::uint8_t>(elements.size());
  key_.width[0] = static_cast<std::uint8_t>(whole);
  key_.words = packs ? std::uint32_t{kWide} : 0;
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerMov() {
  if (operands_.size() != 2) return Fail("expected two operands");
  if (operands_[0].kind == OperandKind::kVector) {
    return LowerMovVector(operands_[0], operands_[1], false);
  }
  if (operands_[1].kind == OperandKind::kVector) {
    return LowerMovVector(operands_[1], operands_[0], true);
  }
  const std::uint32_t width = TypeBytes(key_.type[0]);
  LowInst inst;
  POS_RETURN_IF_ERROR(Destination(operands_[0], width, &inst.d));
  POS_RETURN_IF_ERROR(Source(operands_[1], key_.type[0], width, &inst.a));
  key_.width[0] = static_cast<std::uint8_t>(width);
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}

// Registers may be wider than the types they hold.
Status Lowering::LowerCvt() {
  if (operands_.size() != 2) return Fail("expected two operands");
  const Type to = key_.type[0];
  const Type from = key_.type[1];
  LowInst inst;
  std::uint32_t to_width = WidthOf(operands_[0]);
  std::uint32_t from_width = WidthOf(operands_[1]);
  const auto natural = [](Type type) {
    return TypeBytes(type) == 1 ? 2u : TypeBytes(type);
  };
  if (operands_[0].kind == OperandKind::kSink) to_width = natural(to);
  if (from_width == 0) from_width = natural(from);
  if (to_width < natural(to) || from_width < natural(from)) {
    return Fail("a register narrower than its type");
  }
  const bool wide_float =
      (ClassOf(to) == TypeClass::kFloat && to_width != natural(to) &&
       !IsBfloatOrHalf(to)) ||
      (ClassOf(from) == TypeClass::kFloat && from_width != natural(from) &&
       !IsBfloatOrHalf(from));
  if (wide_float || to_width > 8 || from_width > 8) {
    return Fail("a register wider than its type");
  }
  POS_RETURN_IF_ERROR(Destination(operands_[0], to_width, &inst.d));
  POS_RETURN_IF_ERROR(Source(operands_[1], from, from_width, &inst.a));
  key_.width[0] = static_cast<std::uint8_t>(to_width);
  key_.width[1] = static_cast<std::uint8_t>(from_width);
  inst.flags = key_.flags;
  inst.imm = static_cast<std::int64_t>(
      static_cast<std::uint64_t>(to) | static_cast<std::uint64_t>(from) << 8 |
      std::uint64_t{to_width} << 16 | std::uint64_t{from_width} << 24 |
      ((key_.words & kIntegral) != 0 ? 1ull << 32 : 0));
  POS_RETURN_IF_ERROR(PickHandler(&inst));
  Emit(inst);
  return OkStatus();
}

// Generic addresses of shared, local and parameter memory are the window's plus
// the offset; those of the other spaces are what they are.
Status Lowering::LowerCvta() {
  if (operands_.size() != 2) return Fail("expected two operands");
  if (TypeBytes(key_.type[0]) != 8) return Fail("addresses have 64 bits");
  std::uint64_t window = 0;
  if (key_.space == Space::kShared) window = kSharedWindow;
  if (key_.space == Space::kLocal) window = kLocalWindow;
  if (key_.space == Space::kParam) window = kParamWindow;
  LowInst inst;
  POS_RETURN_IF_ERROR(Destination(operands_[0], 8, &inst.d));
  POS_RETURN_IF_ERROR(Source(operands_[1], Type::kU64, 8, &inst.a));
  PickKey key;
  key.types = 1;
  key.type[0] = Type::kU64;
  key.width[0] = 8;
  if (window == 0) {
    static const std::uint32_t kRow = FindRow("mov", "u64");
    inst.fn = context_.isa->pick(kRow, key);
  } else {
    static const std::uint32_t kRow = FindRow("add", "u64");
    inst.fn = context_.isa->pick(kRow, key);
    inst.b = Constant(8, info_->Has("to") ? 0 - window : window);
  }
  Emit(inst);
  return OkStatus();
}

}  // namespace pos::ptx
