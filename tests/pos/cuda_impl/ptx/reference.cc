#include "reference.h"

namespace pos::ptx::testing {
namespace {

bool IsFloat(Type type) { return ClassOf(type) == TypeClass::kFloat; }

bool CompareExists(const OpcodeInfo& op) {
  const Type type = op.key.type[op.base == "set" ? 1 : 0];
  const std::string_view relation = op.words.front();
  const bool unsigned_only = relation == "lo" || relation == "ls" ||
                             relation == "hi" || relation == "hs";
  const bool float_only = relation.size() == 3;  // equ … geu, num, nan
  if (op.Has("ftz") && type != Type::kF32 && type != Type::kF16 &&
      type != Type::kF16x2) {
    return false;
  }
  switch (ClassOf(type)) {
    case TypeClass::kFloat:
      return !unsigned_only;
    case TypeClass::kBits:
      return relation == "eq" || relation == "ne";
    case TypeClass::kUnsigned:
      return !float_only;
    default:
      return !float_only && !unsigned_only;
  }
}

// Conversions to and from formats narrower than f16, and packing ones; their
// patterns are exact.
bool IsNarrow(const OpcodeInfo& op) {
  if (op.Has("relu") || op.Has("satfinite") || op.Has("pack")) return true;
  for (std::uint8_t i = 0; i < op.key.types; ++i) {
    switch (op.key.type[i]) {
      case Type::kF16x2:
      case Type::kBf16x2:
      case Type::kTf32:
      case Type::kUe8m0x2:
        return true;
      default:
        break;
    }
  }
  return false;
}

bool CvtExists(const OpcodeInfo& op) {
  if (IsNarrow(op)) return true;
  const Type to = op.key.type[0];
  const Type from = op.key.type[1];
  const bool integral =
      op.Has("rni") || op.Has("rzi") || op.Has("rmi") || op.Has("rpi");
  const bool rounds =
      op.Has("rn") || op.Has("rz") || op.Has("rm") || op.Has("rp");
  if (op.Has("ftz") && to != Type::kF32 && from != Type::kF32) return false;
  if (op.Has("sat") && to == Type::kBf16) return false;
  if (!IsFloat(to) && !IsFloat(from)) {
    return !integral && !rounds && !op.Has("ftz");
  }
  if (!IsFloat(to)) return integral && !rounds;
  if (!IsFloat(from)) return rounds && !integral && !op.Has("ftz");
  if (to == from) return !rounds && to != Type::kBf16;
  const bool narrows = TypeBytes(to) < TypeBytes(from) ||
                       (TypeBytes(to) == 2 && TypeBytes(from) == 2);
  return !integral && rounds == narrows;
}

// At most 32 bytes, and no vectors of the widest type.
bool AccessExists(const OpcodeInfo& op) {
  const std::uint32_t bytes = TypeBytes(op.key.type[0]);
  const std::uint32_t vector = op.Has("v8")   ? 8
                               : op.Has("v4") ? 4
                               : op.Has("v2") ? 2
                                              : 1;
  return vector * bytes <= 32 && (vector == 1 || bytes < 16);
}

}  // namespace

bool Exists(const OpcodeInfo& op) {
  if (op.base == "setp" || op.base == "set") return CompareExists(op);
  if (op.base == "cvt") return CvtExists(op);
  if (op.base == "ld" || op.base == "st" || op.base == "ldu") {
    return AccessExists(op);
  }
  if (op.base == "slct") {
    return !op.Has("ftz") || op.key.type[1] == Type::kF32;
  }
  if (op.base == "min" || op.base == "max") {
    return op.Has("xorsign") == op.Has("abs");
  }
  return true;
}

bool TakesOptional(const OpcodeInfo& op) {
  const bool logic = op.Has("and") || op.Has("or") || op.Has("xor");
  const bool second = op.Has("add") || op.Has("min") || op.Has("max");
  return IsVideo(op) ? second : logic;
}

std::optional<Want> Reference(const OpcodeInfo& op, Sources in) {
  if (op.base == "cvt") {
    if (auto narrow = ReferenceNarrow(op, in)) return narrow;
    return ReferenceCvt(op, in[0]);
  }
  for (const auto reference :
       {&ReferenceHalf, &ReferenceCompare, &ReferenceBits, &ReferenceInt,
        &ReferenceFloat}) {
    if (auto want = (*reference)(op, in)) return want;
  }
  return std::nullopt;
}

}  // namespace pos::ptx::testing
