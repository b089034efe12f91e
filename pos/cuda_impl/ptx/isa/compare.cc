// Comparisons, selection, predicates, moves.
#include "pos/cuda_impl/ptx/isa/bit_ops.h"
#include "pos/cuda_impl/ptx/isa/compare_ops.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

template <Compare kCompare, typename T>
POS_INLINE u32 CompareLanes(const Warp* w, const Inst* i) {
  const T* a = In<T>(w, i->a);
  const T* b = In<T>(w, i->b);
  if constexpr (__is_same(T, float)) {
    if ((i->flags & kFtz) != 0) {
      return MaskWhere([=](unsigned l) {
        return Holds<kCompare, T>(Flush(a[l]), Flush(b[l]));
      });
    }
  }
  return MaskWhere([=](unsigned l) { return Holds<kCompare, T>(a[l], b[l]); });
}

// p|q: q combines the opposite of the comparison.
template <Compare kCompare, typename T>
struct Setp {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32 mask = CompareLanes<kCompare, T>(w, i);
    const u32 p = Combine(mask, w, i);
    const u32 q = Combine(~mask, w, i);
    SetPredicate(w, i->d, p);
    SetPredicate(w, i->n, q);
    return i + 1;
  }
};

// All ones, or 1.0 where the destination is a float.
template <Compare kCompare, typename T>
struct Set {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    SetLanes<kPartial>(w, i, Combine(CompareLanes<kCompare, T>(w, i), w, i));
    return i + 1;
  }
};

template <template <Compare, typename> class H, typename T>
HandlerPair PickIntCompare(Compare compare) {
  switch (compare) {
    case Compare::kEq:
      return Pair<H<Compare::kEq, T>>();
    case Compare::kNe:
      return Pair<H<Compare::kNe, T>>();
    case Compare::kLt:
      return Pair<H<Compare::kLt, T>>();
    case Compare::kLe:
      return Pair<H<Compare::kLe, T>>();
    case Compare::kGt:
      return Pair<H<Compare::kGt, T>>();
    case Compare::kGe:
      return Pair<H<Compare::kGe, T>>();
    case Compare::kLo:
      return Pair<H<Compare::kLo, T>>();
    case Compare::kLs:
      return Pair<H<Compare::kLs, T>>();
    case Compare::kHi:
      return Pair<H<Compare::kHi, T>>();
    case Compare::kHs:
      return Pair<H<Compare::kHs, T>>();
    default:
      return {};
  }
}
template <template <Compare, typename> class H, typename T>
HandlerPair PickFloatCompare(Compare compare) {
  switch (compare) {
    case Compare::kEqu:
      return Pair<H<Compare::kEqu, T>>();
    case Compare::kNeu:
      return Pair<H<Compare::kNeu, T>>();
    case Compare::kLtu:
      return Pair<H<Compare::kLtu, T>>();
    case Compare::kLeu:
      return Pair<H<Compare::kLeu, T>>();
    case Compare::kGtu:
      return Pair<H<Compare::kGtu, T>>();
    case Compare::kGeu:
      return Pair<H<Compare::kGeu, T>>();
    case Compare::kNum:
      return Pair<H<Compare::kNum, T>>();
    case Compare::kNan:
      return Pair<H<Compare::kNan, T>>();
    case Compare::kLo:
    case Compare::kLs:
    case Compare::kHi:
    case Compare::kHs:
      return {};
    default:
      return PickIntCompare<H, T>(compare);
  }
}
template <template <Compare, typename> class H>
HandlerPair PickCompare(Type type, Compare compare) {
  switch (type) {
    case Type::kS16:
      return PickIntCompare<H, s16>(compare);
    case Type::kS32:
      return PickIntCompare<H, s32>(compare);
    case Type::kS64:
      return PickIntCompare<H, s64>(compare);
    case Type::kF32:
      return PickFloatCompare<H, float>(compare);
    case Type::kF64:
      return PickFloatCompare<H, double>(compare);
    default:
      break;
  }
  switch (Bytes(type)) {
    case 2:
      return PickIntCompare<H, u16>(compare);
    case 4:
      return PickIntCompare<H, u32>(compare);
    case 8:
      return PickIntCompare<H, u64>(compare);
    default:
      return {};
  }
}

template <typename T>
struct Select {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const T* a = In<T>(w, i->a);
    const T* b = In<T>(w, i->b);
    const u32 p = Predicate(w, i->c, (i->flags & kNegateC) != 0);
    Put<kPartial>(w, Out<T>(w, i->d),
                  [=](unsigned l) { return On(p, l) ? a[l] : b[l]; });
    return i + 1;
  }
};

struct SlctFloat {
  template <typename T>
  static POS_INLINE T Do(T a, T b, float c) {
    return c >= 0 ? a : b;  // -0.0 >= 0; a NaN selects b
  }
};
struct SlctFloatFtz {
  template <typename T>
  static POS_INLINE T Do(T a, T b, float c) {
    return Flush(c) >= 0 ? a : b;
  }
};
template <typename Op>
HandlerPair PickSlctFloat(const PickKey& k) {
  switch (Bytes(k.type[0])) {
    case 2:
      return Pair<Ternary<Op, u16, u16, u16, float>>();
    case 4:
      return Pair<Ternary<Op, u32, u32, u32, float>>();
    default:
      return Pair<Ternary<Op, u64, u64, u64, float>>();
  }
}

enum class Logic { kAnd, kOr, kXor, kCopy, kInvert };
template <Logic kLogic>
struct PredicateLogic {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32 a = Predicate(w, i->a, (i->flags & kNegateA) != 0);
    u32 result = kLogic == Logic::kInvert ? ~a : a;
    if constexpr (kLogic <= Logic::kXor) {
      const u32 b = Predicate(w, i->b, (i->flags & kNegateB) != 0);
      result = kLogic == Logic::kAnd  ? a & b
               : kLogic == Logic::kOr ? a | b
                                      : a ^ b;
    }
    SetPredicate(w, i->d, result);
    return i + 1;
  }
};

struct Wide128 {
  u64 part[2];
};

// Elements of a vector operand, low ones first, from or to one register.
template <typename T, typename E>
struct PackElements {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    constexpr unsigned kCount = sizeof(T) / sizeof(E);
    T* d = Out<T>(w, i->d);
    const u32* list = w->lists + i->e;
    const u32 mask = w->active;
    alignas(64) E packed[kLanes * kCount];
    for (unsigned e = 0; e < kCount; ++e) {
      const E* from = In<E>(w, list[e]);
      POS_LANES(l) { packed[l * kCount + e] = from[l]; }
    }
    E* to = reinterpret_cast<E*>(d);
    for (unsigned l = 0; l < kLanes; ++l) {
      if (kPartial && !On(mask, l)) continue;
      for (unsigned e = 0; e < kCount; ++e) {
        to[l * kCount + e] = packed[l * kCount + e];
      }
    }
    return i + 1;
  }
};
template <typename T, typename E>
struct UnpackElements {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    constexpr unsigned kCount = sizeof(T) / sizeof(E);
    const E* from = In<E>(w, i->a);
    const u32* list = w->lists + i->e;
    alignas(64) E whole[kLanes * kCount];  // a destination may be the source
    for (unsigned n = 0; n < kLanes * kCount; ++n) whole[n] = from[n];
    const E* parts = &whole[0];
    for (unsigned e = 0; e < kCount; ++e) {
      Put<kPartial>(w, Out<E>(w, list[e]),
                    [=](unsigned l) { return parts[l * kCount + e]; });
    }
    return i + 1;
  }
};

template <template <typename, typename> class H>
HandlerPair PickElements(u32 whole, u32 count) {
  if (whole == 4 && count == 2) return Pair<H<u32, u16>>();
  if (whole == 8 && count == 2) return Pair<H<u64, u32>>();
  if (whole == 8 && count == 4) return Pair<H<u64, u16>>();
  if (whole == 16 && count == 2) return Pair<H<Wide128, u64>>();
  if (whole == 16 && count == 4) return Pair<H<Wide128, u32>>();
  return {};
}

}  // namespace

HandlerPair PickSetp(const PickKey& k) {
  return PickCompare<Setp>(k.type[0], k.compare);
}
HandlerPair PickSet(const PickKey& k) {
  return PickCompare<Set>(k.type[1], k.compare);
}
HandlerPair PickSelp(const PickKey& k) {
  switch (Bytes(k.type[0])) {
    case 2:
      return Pair<Select<u16>>();
    case 4:
      return Pair<Select<u32>>();
    case 8:
      return Pair<Select<u64>>();
    default:
      return {};
  }
}
HandlerPair PickSlctFloat(const PickKey& k) {
  return (k.flags & kFtz) != 0 ? PickSlctFloat<SlctFloatFtz>(k)
                               : PickSlctFloat<SlctFloat>(k);
}
HandlerPair PickPAnd(const PickKey&) {
  return Pair<PredicateLogic<Logic::kAnd>>();
}
HandlerPair PickPOr(const PickKey&) {
  return Pair<PredicateLogic<Logic::kOr>>();
}
HandlerPair PickPXor(const PickKey&) {
  return Pair<PredicateLogic<Logic::kXor>>();
}
HandlerPair PickPMov(const PickKey&) {
  return Pair<PredicateLogic<Logic::kCopy>>();
}
HandlerPair PickPNot(const PickKey&) {
  return Pair<PredicateLogic<Logic::kInvert>>();
}

// Moves of one register; with key.vector > 1, of a register and a vector:
// kWide says that the vector is the source.
HandlerPair PickMov(const PickKey& k) {
  if (k.vector > 1) {
    return (k.words & kWide) != 0
               ? PickElements<PackElements>(k.width[0], k.vector)
               : PickElements<UnpackElements>(k.width[0], k.vector);
  }
  switch (k.width[0]) {
    case 2:
      return Pair<Unary<Move, u16, u16>>();
    case 4:
      return Pair<Unary<Move, u32, u32>>();
    case 8:
      return Pair<Unary<Move, u64, u64>>();
    case 16:
      return Pair<Unary<Move, Wide128, Wide128>>();
    default:
      return {};
  }
}

}  // namespace pos::ptx::POS_PTX_ISA
