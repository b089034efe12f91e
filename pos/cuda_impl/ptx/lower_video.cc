// Video instructions: selectors and modifiers become Inst::imm (VideoBits).
#include <string_view>

#include "pos/cuda_impl/ptx/lower.h"

namespace pos::ptx {
namespace {

using ast::Selector;

std::uint64_t Bit(bool set, std::uint64_t bit) { return set ? bit : 0; }

bool IsSigned(Type type) { return ClassOf(type) == TypeClass::kSigned; }

// .b0 … .b3, .h0, .h1
bool IsOnePart(const Selector& part) {
  return part.count == 1 && part.digits[0] < (part.halves ? 2 : 4);
}

// Where in a source the operand lies, in the layout of kVideoA.
std::uint64_t PartBits(const Selector& part, Type type) {
  std::uint64_t bits = std::uint64_t{2} << kVideoWidthAt;
  if (part.count != 0) {
    bits = part.digits[0] * (part.halves ? 16u : 8u);
    bits |= (part.halves ? std::uint64_t{1} : 0) << kVideoWidthAt;
  }
  return bits | Bit(IsSigned(type), kVideoSigned);
}

std::uint64_t SecondBits(MemoryOp second) {
  if (second == MemoryOp::kAdd) return 1;
  if (second == MemoryOp::kMin) return 2;
  return second == MemoryOp::kMax ? 3 : 0;
}

// The elements that a source of two or four takes, three bits each.
bool PickedElements(const Selector& picked, std::uint32_t parts,
                    std::uint32_t first, std::uint64_t* bits) {
  if (picked.count != 0 && picked.count != parts) return false;
  for (std::uint32_t i = 0; i < parts; ++i) {
    const std::uint32_t which =
        picked.count == 0 ? first + i : picked.digits[parts - 1 - i];
    if (which >= 2 * parts) return false;
    *bits |= std::uint64_t{which} << (3 * i);
  }
  return true;
}

}  // namespace

Status Lowering::LowerVideoSimd(std::uint32_t parts) {
  for (const ast::Operand& operand : operands_) {
    if (operand.minus) return Fail("`-` before an operand");
    if (operand.selector.count != 0 &&
        operand.selector.halves != (parts == 2)) {
      return Fail("a selector of another width");
    }
  }
  if (operands_.size() != 4) return Fail("expected four operands");
  if (operands_[3].selector.count != 0) return Fail("a selector of c");
  const bool compares = key_.types == 2;
  const std::size_t from = compares ? 0 : 1;
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  std::uint64_t mask = 0;
  if (!PickedElements(operands_[1].selector, parts, 0, &a) ||
      !PickedElements(operands_[2].selector, parts, parts, &b)) {
    return Fail("a selector that names no elements");
  }
  const Selector& masked = operands_[0].selector;
  for (std::uint32_t i = 0; i < masked.count; ++i) {
    if (masked.digits[i] >= parts) return Fail("a mask of no elements");
    mask |= 1u << masked.digits[i];
  }
  if (masked.count == 0) mask = (1u << parts) - 1;
  LowInst inst;
  inst.imm = static_cast<std::int64_t>(
      a | b << 12 | mask << kSimdMaskAt |
      Bit(IsSigned(key_.type[from]), kSimdASigned) |
      Bit(IsSigned(key_.type[from + 1]), kSimdBSigned) |
      Bit(!compares && IsSigned(key_.type[0]), kSimdResultSigned) |
      Bit((key_.flags & kSat) != 0, kSimdSat) |
      Bit(key_.memory == MemoryOp::kAdd, kSimdAdd) |
      static_cast<std::uint64_t>(compares ? key_.compare : Compare::kEq)
          << kSimdCompareAt);
  POS_RETURN_IF_ERROR(LowerBySignature(&inst));
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerVideoScalar() {
  const bool compares = info_->base == "vset";
  const bool mad = info_->base == "vmad";
  const std::size_t from = compares ? 0 : 1;
  for (std::size_t i = 0; i < operands_.size(); ++i) {
    const ast::Operand& operand = operands_[i];
    const bool selectable = i < 3 && !(mad && i == 0);
    if (operand.selector.count != 0 &&
        !(selectable && IsOnePart(operand.selector))) {
      return Fail("a selector that cannot be here");
    }
    if (operand.minus && (!mad || i == 0)) return Fail("`-` before an operand");
  }
  if (operands_.size() < 3) return Fail("too few operands");
  const Selector& place = operands_[0].selector;
  const bool second = SecondBits(key_.memory) != 0;
  if (second && place.count != 0) {
    return Fail("a destination selector and a second operation");
  }
  const bool needs_c = mad || second || place.count != 0;
  if (operands_.size() != (needs_c ? 4u : 3u)) {
    return Fail(needs_c ? "expected four operands" : "expected three operands");
  }
  std::uint64_t imm =
      PartBits(operands_[1].selector, key_.type[from]) << kVideoA |
      PartBits(operands_[2].selector, key_.type[from + 1]) << kVideoB |
      Bit(!compares && IsSigned(key_.type[0]), kVideoResultSigned) |
      Bit((key_.flags & kSat) != 0, kVideoSat) |
      Bit((key_.words & kWrap) != 0, kVideoWrap);
  if (mad) {
    const bool product = operands_[1].minus != operands_[2].minus;
    const bool negated = product || operands_[1].minus;
    if ((negated || operands_[3].minus) && info_->Has("po")) {
      return Fail(".po and a `-`");
    }
    if (product && operands_[3].minus) return Fail("`-` before a*b and c");
    const std::uint64_t scale = info_->Has("shr7")    ? 7
                                : info_->Has("shr15") ? 15
                                                      : 0;
    imm |= Bit(product, kVideoNegateProduct) |
           Bit(operands_[3].minus, kVideoNegateC) |
           Bit(info_->Has("po"), kVideoPlusOne) | scale << kVideoScaleAt;
  } else {
    const std::uint64_t where =
        place.count == 0 ? 0 : place.digits[0] + (place.halves ? 5u : 1u);
    imm |= SecondBits(key_.memory) << kVideoSecondAt | where << kVideoPlaceAt;
  }
  if (compares) {
    imm |= static_cast<std::uint64_t>(key_.compare) << kVideoCompareAt;
  }
  LowInst inst;
  inst.imm = static_cast<std::int64_t>(imm);
  // c is read in any case.
  if (!needs_c) inst.c = Constant(4, 0);
  POS_RETURN_IF_ERROR(LowerBySignature(&inst));
  Emit(inst);
  return OkStatus();
}

Status Lowering::LowerVideo() {
  if (info_->base.ends_with('2')) return LowerVideoSimd(2);
  if (info_->base.ends_with('4')) return LowerVideoSimd(4);
  return LowerVideoScalar();
}

}  // namespace pos::ptx
