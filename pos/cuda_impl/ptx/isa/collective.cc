// What lanes of a warp exchange: shuffles, votes, matches, reductions.
//
// Inst::e is the member mask. Lanes whose masks differ form groups that do not
// see each other; a handler runs only when every group is complete.
#include "pos/cuda_impl/ptx/exec_layout.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"
#include "pos/cuda_impl/ptx/isa/lanes.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

POS_INLINE bool Complete(const Warp* w, const u32* masks) {
  u32 needed = 0;
  const u32 active = w->active;
  POS_LANES(l) { needed |= On(active, l) ? masks[l] : 0; }
  return (needed & w->live & ~active) == 0;
}

// f(lanes of one group that have not exited)
template <typename F>
POS_INLINE void ForEachGroup(const Warp* w, const u32* masks, F f) {
  for (u32 left = w->active; left != 0;) {
    const unsigned first = static_cast<unsigned>(__builtin_ctz(left));
    const u32 group = (masks[first] & w->active) | 1u << first;
    f(group);
    left &= ~group;
  }
}

template <typename T>
POS_INLINE void SetLanes(T* d, u32 mask, T value) {
  POS_LANES(l) { d[l] = On(mask, l) ? value : d[l]; }
}

enum class Shuffle { kUp, kDown, kButterfly, kIndex };
template <Shuffle kMode>
struct Shfl {
  static const Inst* Run(Warp* w, const Inst* i) {
    if (!Complete(w, In<u32>(w, i->e))) return WaitForLanes(w, i);
    const u32* a = In<u32>(w, i->a);
    const u32* b = In<u32>(w, i->b);
    const u32* c = In<u32>(w, i->c);
    alignas(64) u32 value[kLanes];
    alignas(64) u32 from[kLanes];
    POS_LANES(l) { value[l] = a[l]; }
    u32 in_range = 0;
    for (u32 l = 0; l < kLanes; ++l) {
      const u32 segment = c[l] >> 8 & 31;
      const u32 limit = (l & segment) | (c[l] & 31 & ~segment);
      const u32 by = b[l] & 31;
      const s32 other = static_cast<s32>(kMode == Shuffle::kUp     ? l - by
                                         : kMode == Shuffle::kDown ? l + by
                                         : kMode == Shuffle::kButterfly
                                             ? l ^ by
                                             : (l & segment) | (by & ~segment));
      const bool inside = kMode == Shuffle::kUp
                              ? other >= static_cast<s32>(limit)
                              : other <= static_cast<s32>(limit);
      from[l] = inside ? static_cast<u32>(other) & 31 : l;
      in_range |= static_cast<u32>(inside) << l;
    }
    const u32* v = &value[0];
    const u32* f = &from[0];
    Put<true>(w, Out<u32>(w, i->d), [=](unsigned l) { return v[f[l]]; });
    SetPredicate(w, i->n, in_range);
    return i + 1;
  }
};

enum class VoteKind { kAll, kAny, kUni };
template <VoteKind kKind>
struct Vote {
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32* masks = In<u32>(w, i->e);
    if (!Complete(w, masks)) return WaitForLanes(w, i);
    const u32 a = Predicate(w, i->a, (i->flags & kNegateA) != 0);
    u32 result = 0;
    ForEachGroup(w, masks, [&](u32 group) {
      const u32 yes = a & group;
      const bool holds = kKind == VoteKind::kAll   ? yes == group
                         : kKind == VoteKind::kAny ? yes != 0
                                                   : yes == 0 || yes == group;
      if (holds) result |= group;
    });
    SetPredicate(w, i->d, result);
    return i + 1;
  }
};
struct Ballot {
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32* masks = In<u32>(w, i->e);
    if (!Complete(w, masks)) return WaitForLanes(w, i);
    const u32 a = Predicate(w, i->a, (i->flags & kNegateA) != 0);
    alignas(64) u32 result[kLanes];
    ForEachGroup(w, masks,
                 [&](u32 group) { SetLanes<u32>(result, group, a & group); });
    const u32* r = &result[0];
    Put<true>(w, Out<u32>(w, i->d), [=](unsigned l) { return r[l]; });
    return i + 1;
  }
};

template <typename T>
struct MatchAny {
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32* masks = In<u32>(w, i->e);
    if (!Complete(w, masks)) return WaitForLanes(w, i);
    const T* a = In<T>(w, i->a);
    alignas(64) u32 result[kLanes];
    ForEachGroup(w, masks, [&](u32 group) {
      for (u32 left = group; left != 0;) {
        const T value = a[__builtin_ctz(left)];
        const u32 same =
            MaskWhere([=](unsigned l) { return a[l] == value; }) & group;
        SetLanes<u32>(result, same, same);
        left &= ~same;
      }
    });
    const u32* r = &result[0];
    Put<true>(w, Out<u32>(w, i->d), [=](unsigned l) { return r[l]; });
    return i + 1;
  }
};
template <typename T>
struct MatchAll {
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32* masks = In<u32>(w, i->e);
    if (!Complete(w, masks)) return WaitForLanes(w, i);
    const T* a = In<T>(w, i->a);
    alignas(64) u32 result[kLanes];
    u32 all = 0;
    ForEachGroup(w, masks, [&](u32 group) {
      const T value = a[__builtin_ctz(group)];
      const u32 same =
          MaskWhere([=](unsigned l) { return a[l] == value; }) & group;
      SetLanes<u32>(result, group, same == group ? group : 0);
      if (same == group) all |= group;
    });
    const u32* r = &result[0];
    Put<true>(w, Out<u32>(w, i->d), [=](unsigned l) { return r[l]; });
    SetPredicate(w, i->n, all);
    return i + 1;
  }
};

template <MemoryOp kOp, bool kSigned>
POS_INLINE u32 Reduce(u32 x, u32 y) {
  const bool less = kSigned ? static_cast<s32>(x) < static_cast<s32>(y) : x < y;
  switch (kOp) {
    case MemoryOp::kAdd:
      return x + y;
    case MemoryOp::kMin:
      return less ? x : y;
    case MemoryOp::kMax:
      return less ? y : x;
    case MemoryOp::kAnd:
      return x & y;
    case MemoryOp::kOr:
      return x | y;
    default:
      return x ^ y;
  }
}
template <MemoryOp kOp, bool kSigned>
struct Redux {
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32* masks = In<u32>(w, i->e);
    if (!Complete(w, masks)) return WaitForLanes(w, i);
    const u32* a = In<u32>(w, i->a);
    alignas(64) u32 result[kLanes];
    ForEachGroup(w, masks, [&](u32 group) {
      u32 value = a[__builtin_ctz(group)];
      for (u32 left = group & (group - 1); left != 0; left &= left - 1) {
        value = Reduce<kOp, kSigned>(value, a[__builtin_ctz(left)]);
      }
      SetLanes<u32>(result, group, value);
    });
    const u32* r = &result[0];
    Put<true>(w, Out<u32>(w, i->d), [=](unsigned l) { return r[l]; });
    return i + 1;
  }
};

// The first lane of the group leads it.
struct Elect {
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32* masks = In<u32>(w, i->e);
    if (!Complete(w, masks)) return WaitForLanes(w, i);
    alignas(64) u32 result[kLanes];
    u32 leaders = 0;
    ForEachGroup(w, masks, [&](u32 group) {
      SetLanes<u32>(result, group, static_cast<u32>(__builtin_ctz(group)));
      leaders |= group & (0 - group);
    });
    const u32* r = &result[0];
    Put<true>(w, Out<u32>(w, i->d), [=](unsigned l) { return r[l]; });
    SetPredicate(w, i->n, leaders);
    return i + 1;
  }
};

// Whether a generic address lies in the window at Inst::imm. Device memory and
// constants are what lies in none: kHandlerShift's bit.
struct Isspacep {
  static const Inst* Run(Warp* w, const Inst* i) {
    const u64* a = In<u64>(w, i->a);
    const bool outside = (i->flags >> kHandlerShift & 1) != 0;
    const u64 base = outside ? kWindowsBegin : static_cast<u64>(i->imm);
    const u64 size = outside ? kWindowsEnd - kWindowsBegin : 0x100000000ull;
    const u32 inside =
        MaskWhere([=](unsigned l) { return a[l] - base < size; });
    SetPredicate(w, i->d, outside ? ~inside : inside);
    return i + 1;
  }
};

}  // namespace

HandlerPair PickShfl(const PickKey& k) {
  if ((k.words & kUp) != 0) return Same<Shfl<Shuffle::kUp>>();
  if ((k.words & kDown) != 0) return Same<Shfl<Shuffle::kDown>>();
  if ((k.words & kButterfly) != 0) return Same<Shfl<Shuffle::kButterfly>>();
  return Same<Shfl<Shuffle::kIndex>>();
}
HandlerPair PickVote(const PickKey& k) {
  if ((k.words & kAll) != 0) return Same<Vote<VoteKind::kAll>>();
  if ((k.words & kAny) != 0) return Same<Vote<VoteKind::kAny>>();
  return Same<Vote<VoteKind::kUni>>();
}
HandlerPair PickBallot(const PickKey&) { return Same<Ballot>(); }
HandlerPair PickMatch(const PickKey& k) {
  const bool wide = Bytes(k.type[0]) == 8;
  if ((k.words & kAll) != 0) {
    return wide ? Same<MatchAll<u64>>() : Same<MatchAll<u32>>();
  }
  return wide ? Same<MatchAny<u64>>() : Same<MatchAny<u32>>();
}
HandlerPair PickRedux(const PickKey& k) {
  const bool is_signed = Signed(k.type[0]);
  switch (k.memory) {
    case MemoryOp::kAdd:
      return Same<Redux<MemoryOp::kAdd, false>>();
    case MemoryOp::kMin:
      return is_signed ? Same<Redux<MemoryOp::kMin, true>>()
                       : Same<Redux<MemoryOp::kMin, false>>();
    case MemoryOp::kMax:
      return is_signed ? Same<Redux<MemoryOp::kMax, true>>()
                       : Same<Redux<MemoryOp::kMax, false>>();
    case MemoryOp::kAnd:
      return Same<Redux<MemoryOp::kAnd, false>>();
    case MemoryOp::kOr:
      return Same<Redux<MemoryOp::kOr, false>>();
    case MemoryOp::kXor:
      return Same<Redux<MemoryOp::kXor, false>>();
    default:
      return {};
  }
}
HandlerPair PickElect(const PickKey&) { return Same<Elect>(); }

HandlerPair PickIsspacep(const PickKey&) { return Same<Isspacep>(); }

}  // namespace pos::ptx::POS_PTX_ISA
