// Logic, shifts, bit fields, byte permutations, selection and moves: bit by
// bit.
#include <algorithm>

#include "reference.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

Want Exactly(u64 bits) {
  Want want;
  want.bits = bits;
  return want;
}

bool Bit(u64 word, u64 at) { return at < 64 && (word >> at & 1) != 0; }

template <typename F>
u64 BitByBit(u64 count, F f) {
  u64 result = 0;
  for (u64 i = 0; i < count; ++i) result |= u64{f(i) ? 1u : 0u} << i;
  return result;
}

// Three inputs as an index into the table.
u64 Lop3(Sources in) {
  return BitByBit(32, [in](u64 i) {
    const u64 index = (Bit(in[0], i) ? 4u : 0u) | (Bit(in[1], i) ? 2u : 0u) |
                      (Bit(in[2], i) ? 1u : 0u);
    return Bit(in[3], index);
  });
}

u64 FunnelShift(const OpcodeInfo& op, Sources in) {
  const u64 n = op.Has("wrap") ? in[2] & 31 : std::min<u64>(in[2], 32);
  return BitByBit(32, [&](u64 i) {
    const u64 from = op.Has("l") ? i + 32 - n : i + n;
    return from < 32 ? Bit(in[0], from) : Bit(in[1], from - 32);
  });
}

u64 Shift(const OpcodeInfo& op, Sources in, u64 bits) {
  const u64 n = in[1];
  const bool fill = op.base == "shr" &&
                    ClassOf(op.key.type[0]) == TypeClass::kSigned &&
                    Bit(in[0], bits - 1);
  return BitByBit(bits, [&](u64 i) {
    if (op.base == "shl") return i >= n && Bit(in[0], i - n);
    return i + n < bits ? Bit(in[0], i + n) : fill;
  });
}

u64 Permute(const OpcodeInfo& op, Sources in) {
  const u64 both = in[1] << 32 | (in[0] & 0xffffffff);
  u64 result = 0;
  for (u64 j = 0; j < 4; ++j) {
    const u64 i = in[2] & 3;
    u64 from = in[2] >> (4 * j) & 15;
    if (op.Has("f4e")) from = i + j;
    if (op.Has("b4e")) from = (8 + i - j) & 7;
    if (op.Has("rc8")) from = i;
    if (op.Has("ecl")) from = std::max(i, j);
    if (op.Has("ecr")) from = std::min(i, j);
    if (op.Has("rc16")) from = (i & 1) * 2 + (j & 1);
    u64 byte = both >> (8 * (from & 7)) & 0xff;
    if ((from & 8) != 0) byte = Bit(byte, 7) ? 0xff : 0;
    result |= byte << (8 * j);
  }
  return result;
}

// PTX ISA, bfe: positions beyond the top read the sign.
u64 ExtractField(const OpcodeInfo& op, Sources in, u64 bits) {
  const u64 pos = in[1] & 0xff;
  const u64 len = in[2] & 0xff;
  const bool is_signed = ClassOf(op.key.type[0]) == TypeClass::kSigned;
  const bool sign =
      is_signed && len != 0 && Bit(in[0], std::min(pos + len - 1, bits - 1));
  return BitByBit(bits, [&](u64 i) {
    return i < len && pos + i < bits ? Bit(in[0], pos + i) : sign;
  });
}

u64 InsertField(Sources in, u64 bits) {
  const u64 pos = in[2] & 0xff;
  const u64 len = in[3] & 0xff;
  return BitByBit(bits, [&](u64 i) {
    return i >= pos && i < pos + len ? Bit(in[0], i - pos) : Bit(in[1], i);
  });
}

u64 FindLeading(const OpcodeInfo& op, u64 word, u64 bits) {
  const bool negative =
      ClassOf(op.key.type[0]) == TypeClass::kSigned && Bit(word, bits - 1);
  for (u64 i = bits; i-- > 0;) {
    if (Bit(word, i) != negative) {
      return op.Has("shiftamt") ? bits - 1 - i : i;
    }
  }
  return 0xffffffff;
}

u64 Mask(const OpcodeInfo& op, Sources in) {
  const bool wraps = op.Has("wrap");
  const u64 pos = wraps ? in[0] & 31 : in[0];
  const u64 len = wraps ? in[1] & 31 : in[1];
  return BitByBit(32, [&](u64 i) { return i >= pos && i - pos < len; });
}

u64 ExtendSign(const OpcodeInfo& op, Sources in) {
  const u64 n = op.Has("wrap") ? in[1] & 31 : std::min<u64>(in[1], 32);
  if (n == 0) return 0;
  const bool sign =
      ClassOf(op.key.type[0]) == TypeClass::kSigned && Bit(in[0], n - 1);
  return BitByBit(32, [&](u64 i) { return i < n ? Bit(in[0], i) : sign; });
}

// The offset-th set bit from base, upwards or downwards.
u64 FindNth(Sources in) {
  const auto offset = static_cast<std::int32_t>(in[2]);
  auto at = static_cast<std::int64_t>(in[1]);
  std::int64_t left = offset < 0 ? -std::int64_t{offset} : offset;
  if (left == 0) return at < 32 && Bit(in[0], in[1]) ? in[1] : 0xffffffff;
  for (; at >= 0 && at < 32; at += offset < 0 ? -1 : 1) {
    if (Bit(in[0], static_cast<u64>(at)) && --left == 0) {
      return static_cast<u64>(at);
    }
  }
  return 0xffffffff;
}

std::optional<u64> Logic(const OpcodeInfo& op, Sources in, u64 bits) {
  const u64 all = bits == 64 ? ~u64{0} : (u64{1} << bits) - 1;
  if (op.base == "and") return in[0] & in[1];
  if (op.base == "or") return in[0] | in[1];
  if (op.base == "xor") return in[0] ^ in[1];
  if (op.base == "not") return ~in[0] & all;
  if (op.base == "cnot") return in[0] == 0 ? 1 : 0;
  if (op.base == "mov") return in[0];
  if (op.base == "selp") return in[2] != 0 ? in[0] : in[1];
  if (op.base == "popc") {
    u64 count = 0;
    for (u64 i = 0; i < bits; ++i) count += Bit(in[0], i) ? 1 : 0;
    return count;
  }
  if (op.base == "clz") {
    u64 count = 0;
    while (count < bits && !Bit(in[0], bits - 1 - count)) ++count;
    return count;
  }
  if (op.base == "brev") {
    return BitByBit(bits, [&](u64 i) { return Bit(in[0], bits - 1 - i); });
  }
  return std::nullopt;
}

}  // namespace

std::optional<Want> ReferenceBits(const OpcodeInfo& op, Sources in) {
  const u64 bits = op.Has("pred") ? 1 : u64{8} * TypeBytes(op.key.type[0]);
  if (const auto logic = Logic(op, in, bits)) return Exactly(*logic);
  if (op.base == "lop3") {
    Want want = Exactly(Lop3(in));
    if (op.Has("or")) want.predicate = want.bits != 0 || in[4] != 0;
    if (op.Has("and")) want.predicate = want.bits != 0 && in[4] != 0;
    return want;
  }
  if (op.base == "shf") return Exactly(FunnelShift(op, in));
  if (op.base == "shl" || op.base == "shr") return Exactly(Shift(op, in, bits));
  if (op.base == "prmt") return Exactly(Permute(op, in));
  if (op.base == "bfe") return Exactly(ExtractField(op, in, bits));
  if (op.base == "bfi") return Exactly(InsertField(in, bits));
  if (op.base == "bfind") return Exactly(FindLeading(op, in[0], bits));
  if (op.base == "bmsk") return Exactly(Mask(op, in));
  if (op.base == "szext") return Exactly(ExtendSign(op, in));
  if (op.base == "fns") return Exactly(FindNth(in));
  return std::nullopt;
}

}  // namespace pos::ptx::testing
