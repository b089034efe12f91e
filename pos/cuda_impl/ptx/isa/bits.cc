// Logic, shifts, bit fields, byte permutations, dot products.
#include "pos/cuda_impl/ptx/isa/bit_ops.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

POS_INLINE u32 SelectByte(u64 both, u32 selector) {
  const u32 byte = static_cast<u32>(both >> ((selector & 7) * 8)) & 0xff;
  const u32 sign = (byte >> 7) * 0xff;
  return (selector & 8) != 0 ? sign : byte;
}
struct Prmt {
  static POS_INLINE u32 Do(u32 a, u32 b, u32 c) {
    const u64 both = static_cast<u64>(b) << 32 | a;
    return SelectByte(both, c) | SelectByte(both, c >> 4) << 8 |
           SelectByte(both, c >> 8) << 16 | SelectByte(both, c >> 12) << 24;
  }
};
// The other modes are selectors made from c[1:0].
enum PrmtMode : u32 {
  kForward = 1,
  kBackward,
  kReplicate8,
  kClampLeft,
  kClampRight,
  kReplicate16
};
template <u32 kMode>
struct PrmtWithMode {
  static POS_INLINE u32 Do(u32 a, u32 b, u32 c) {
    const u32 i = c & 3;
    u32 selector = 0;
    for (u32 j = 0; j < 4; ++j) {
      const u32 larger = i > j ? i : j;
      const u32 smaller = i > j ? j : i;
      const u32 byte = kMode == kForward      ? i + j
                       : kMode == kBackward   ? (i + 8 - j) & 7
                       : kMode == kReplicate8 ? i
                       : kMode == kClampLeft  ? larger
                       : kMode == kClampRight ? smaller
                                              : (i & 1) * 2 + (j & 1);
      selector |= byte << (4 * j);
    }
    return Prmt::Do(a, b, selector);
  }
};

struct Fns {
  static u32 Do(u32 mask, u32 base, u32 offset) {
    const s32 n = static_cast<s32>(offset);
    if (n == 0) return base < 32 && (mask >> base & 1) != 0 ? base : ~0u;
    u32 left = n > 0 ? offset - 1 : ~offset;
    for (s64 at = base; at >= 0 && at<32; at += n> 0 ? 1 : -1) {
      if ((mask >> at & 1) == 0) continue;
      if (left == 0) return static_cast<u32>(at);
      --left;
    }
    return ~0u;
  }
};

template <bool kSigned>
POS_INLINE u32 ByteAt(u32 value, u32 index) {
  const u32 byte = value >> (8 * index) & 0xff;
  return kSigned ? static_cast<u32>(static_cast<s32>(static_cast<s8>(byte)))
                 : byte;
}
template <bool kSigned>
POS_INLINE u32 HalfAt(u32 value, u32 index) {
  const u32 half = value >> (16 * index) & 0xffff;
  return kSigned ? static_cast<u32>(static_cast<s32>(static_cast<s16>(half)))
                 : half;
}
template <bool kSignedA, bool kSignedB>
struct Dp4a {
  static POS_INLINE u32 Do(u32 a, u32 b, u32 c) {
    return c + ByteAt<kSignedA>(a, 0) * ByteAt<kSignedB>(b, 0) +
           ByteAt<kSignedA>(a, 1) * ByteAt<kSignedB>(b, 1) +
           ByteAt<kSignedA>(a, 2) * ByteAt<kSignedB>(b, 2) +
           ByteAt<kSignedA>(a, 3) * ByteAt<kSignedB>(b, 3);
  }
};
template <bool kSignedA, bool kSignedB, u32 kFirst>
struct Dp2a {
  static POS_INLINE u32 Do(u32 a, u32 b, u32 c) {
    return c + HalfAt<kSignedA>(a, 0) * ByteAt<kSignedB>(b, kFirst) +
           HalfAt<kSignedA>(a, 1) * ByteAt<kSignedB>(b, kFirst + 1);
  }
};
template <bool kSignedA, bool kSignedB>
HandlerPair PickDp(bool four, bool high) {
  if (four)
    return Pair<Ternary<Dp4a<kSignedA, kSignedB>, u32, u32, u32, u32>>();
  return high
             ? Pair<Ternary<Dp2a<kSignedA, kSignedB, 2>, u32, u32, u32, u32>>()
             : Pair<Ternary<Dp2a<kSignedA, kSignedB, 0>, u32, u32, u32, u32>>();
}
HandlerPair PickDpSigns(const PickKey& k, bool four) {
  const bool high = (k.words & kHi) != 0;
  if (Signed(k.type[0])) {
    return Signed(k.type[1]) ? PickDp<true, true>(four, high)
                             : PickDp<true, false>(four, high);
  }
  return Signed(k.type[1]) ? PickDp<false, true>(four, high)
                           : PickDp<false, false>(four, high);
}

// d|p: p says whether d is not zero, combined with q.
struct Lop3WithPredicate {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const bool with_or =
        static_cast<BoolOp>(i->flags >> kHandlerShift) == BoolOp::kOr;
    const u32 q = Predicate(w, i->cache, (i->flags & kNegateE) != 0);
    Quaternary<Lop3, u32, u32, u32, u32, u32>::Run<kPartial>(w, i);
    const u32* d = Out<u32>(w, i->d);
    const u32 p = MaskWhere([=](unsigned l) { return d[l] != 0; });
    SetPredicate(w, i->n, with_or ? p | q : p & q);
    return i + 1;
  }
};

template <bool kLeftward>
HandlerPair PickShf(bool wraps) {
  return wraps ? Pair<Ternary<Shf<kLeftward, true>, u32, u32, u32, u32>>()
               : Pair<Ternary<Shf<kLeftward, false>, u32, u32, u32, u32>>();
}
template <typename T, bool kSigned>
HandlerPair PickBfind(bool as_shift) {
  return as_shift ? Pair<Unary<Bfind<kSigned, true>, u32, T>>()
                  : Pair<Unary<Bfind<kSigned, false>, u32, T>>();
}

}  // namespace

HandlerPair PickAnd(const PickKey& k) { return Binary16To64<And>(k); }
HandlerPair PickOr(const PickKey& k) { return Binary16To64<Or>(k); }
HandlerPair PickXor(const PickKey& k) { return Binary16To64<Xor>(k); }
HandlerPair PickNot(const PickKey& k) { return Unary16To64<Not>(k); }
HandlerPair PickCnot(const PickKey& k) { return Unary16To64<Cnot>(k); }
HandlerPair PickShl(const PickKey& k) { return Shift16To64<Shl>(k); }
HandlerPair PickShr(const PickKey& k) {
  return Signed(k.type[0]) ? Shift16To64<ShrS>(k) : Shift16To64<ShrU>(k);
}
HandlerPair PickShf(const PickKey& k) {
  const bool wraps = (k.words & kWrap) != 0;
  return (k.words & kLeft) != 0 ? PickShf<true>(wraps) : PickShf<false>(wraps);
}
HandlerPair PickLop3(const PickKey&) {
  return Pair<Quaternary<Lop3, u32, u32, u32, u32, u32>>();
}
HandlerPair PickLop3Pred(const PickKey&) { return Pair<Lop3WithPredicate>(); }
HandlerPair PickPrmt(const PickKey& k) {
  switch (k.flags >> kHandlerShift) {
    case 0:
      return Pair<Ternary<Prmt, u32, u32, u32, u32>>();
    case kForward:
      return Pair<Ternary<PrmtWithMode<kForward>, u32, u32, u32, u32>>();
    case kBackward:
      return Pair<Ternary<PrmtWithMode<kBackward>, u32, u32, u32, u32>>();
    case kReplicate8:
      return Pair<Ternary<PrmtWithMode<kReplicate8>, u32, u32, u32, u32>>();
    case kClampLeft:
      return Pair<Ternary<PrmtWithMode<kClampLeft>, u32, u32, u32, u32>>();
    case kClampRight:
      return Pair<Ternary<PrmtWithMode<kClampRight>, u32, u32, u32, u32>>();
    case kReplicate16:
      return Pair<Ternary<PrmtWithMode<kReplicate16>, u32, u32, u32, u32>>();
    default:
      return {};
  }
}
HandlerPair PickBfe(const PickKey& k) {
  const bool is_signed = Signed(k.type[0]);
  if (Bytes(k.type[0]) == 8) {
    return is_signed ? Pair<Ternary<Bfe<true>, u64, u64, u32, u32>>()
                     : Pair<Ternary<Bfe<false>, u64, u64, u32, u32>>();
  }
  return is_signed ? Pair<Ternary<Bfe<true>, u32, u32, u32, u32>>()
                   : Pair<Ternary<Bfe<false>, u32, u32, u32, u32>>();
}
HandlerPair PickBfi(const PickKey& k) {
  return Bytes(k.type[0]) == 8
             ? Pair<Quaternary<Bfi, u64, u64, u64, u32, u32>>()
             : Pair<Quaternary<Bfi, u32, u32, u32, u32, u32>>();
}
HandlerPair PickBfind(const PickKey& k) {
  const bool as_shift = (k.words & kShiftAmount) != 0;
  if (Bytes(k.type[0]) == 8) {
    return Signed(k.type[0]) ? PickBfind<u64, true>(as_shift)
                             : PickBfind<u64, false>(as_shift);
  }
  return Signed(k.type[0]) ? PickBfind<u32, true>(as_shift)
                           : PickBfind<u32, false>(as_shift);
}
HandlerPair PickBrev(const PickKey& k) { return Unary16To64<Brev>(k); }
HandlerPair PickClz(const PickKey& k) { return Count32Or64<Clz>(k); }
HandlerPair PickPopc(const PickKey& k) { return Count32Or64<Popc>(k); }
HandlerPair PickBmsk(const PickKey& k) {
  return (k.words & kWrap) != 0 ? Pair<Binary<Bmsk<true>, u32, u32, u32>>()
                                : Pair<Binary<Bmsk<false>, u32, u32, u32>>();
}
HandlerPair PickSzext(const PickKey& k) {
  const bool wraps = (k.words & kWrap) != 0;
  if (Signed(k.type[0])) {
    return wraps ? Pair<Binary<Szext<true, true>, u32, u32, u32>>()
                 : Pair<Binary<Szext<true, false>, u32, u32, u32>>();
  }
  return wraps ? Pair<Binary<Szext<false, true>, u32, u32, u32>>()
               : Pair<Binary<Szext<false, false>, u32, u32, u32>>();
}
HandlerPair PickFns(const PickKey&) {
  return Pair<Ternary<Fns, u32, u32, u32, u32>>();
}
HandlerPair PickDp4a(const PickKey& k) { return PickDpSigns(k, true); }
HandlerPair PickDp2a(const PickKey& k) { return PickDpSigns(k, false); }
HandlerPair PickSlct(const PickKey& k) {
  switch (Bytes(k.type[0])) {
    case 2:
      return Pair<Ternary<Slct, u16, u16, u16, u32>>();
    case 4:
      return Pair<Ternary<Slct, u32, u32, u32, u32>>();
    default:
      return Pair<Ternary<Slct, u64, u64, u64, u32>>();
  }
}

}  // namespace pos::ptx::POS_PTX_ISA
