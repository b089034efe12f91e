// How handlers read, compute and write 32 lanes. Included only by isa/*.cc.
//
// Every handler exists twice: for all live lanes of the frame, and for some of
// them. The first computes all 32 lanes, also those that have exited (nobody
// reads them again); the second computes all lanes too, and keeps the old value
// where a lane is not active. Loops are written so that the compiler turns them
// into vector code: no branches, a fixed count, no aliasing but of a register
// with itself.
#ifndef POS_CUDA_IMPL_PTX_ISA_LANES_H_
#define POS_CUDA_IMPL_PTX_ISA_LANES_H_

#include <cstddef>
#include <cstdint>

#include "pos/cuda_impl/ptx/isa/isa.h"

#ifndef POS_PTX_ISA
#error "POS_PTX_ISA names the level: isa_baseline, isa_v3 or isa_v4"
#endif

#if defined(__clang__)
#define POS_LANES(l)                                                          \
  _Pragma("clang loop vectorize(assume_safety)") for (unsigned l = 0;         \
                                                      l < ::pos::ptx::kLanes; \
                                                      ++l)
#define POS_OPAQUE __attribute__((noinline))
#else
#define POS_LANES(l) \
  _Pragma("GCC ivdep") for (unsigned l = 0; l < ::pos::ptx::kLanes; ++l)
#define POS_OPAQUE __attribute__((noinline, noipa))
#endif
#define POS_INLINE __attribute__((always_inline)) inline

namespace pos::ptx::POS_PTX_ISA {
namespace {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
__extension__ using u128 = unsigned __int128;

// bit l, in lanes as wide as T
template <typename T>
struct LaneBits {
  alignas(64) T bit[kLanes];
  constexpr LaneBits() : bit() {
    for (unsigned l = 0; l < kLanes; ++l) {
      bit[l] = static_cast<T>(1u << l);
    }
  }
};
[[maybe_unused]] constexpr LaneBits<u32> kLaneBits;

POS_INLINE bool On(u32 mask, unsigned lane) {
  return (mask & kLaneBits.bit[lane]) != 0;
}

template <typename T>
POS_INLINE const T* In(const Warp* w, u32 operand) {
  const void* at = w->base[operand & 3] + (operand >> 2);
  return static_cast<const T*>(__builtin_assume_aligned(at, 4));
}

template <typename T>
POS_INLINE T* Out(const Warp* w, u32 offset) {
  void* at = w->base[kInFrame] + offset;
  return static_cast<T*>(at);
}

POS_INLINE u32 Predicate(const Warp* w, u32 operand, bool negated) {
  return *In<u32>(w, operand) ^ (negated ? ~0u : 0u);
}

// Writes the active lanes of a predicate.
POS_INLINE void SetPredicate(const Warp* w, u32 offset, u32 value) {
  u32* d = Out<u32>(w, offset);
  *d = (*d & ~w->active) | (value & w->active);
}

// The carry flag (CC.CF) has the first word of every frame.
POS_INLINE u32 Carry(const Warp* w) { return *Out<u32>(w, 0); }

template <typename H>
POS_INLINE HandlerPair Pair() {
  return {&H::template Run<false>, &H::template Run<true>};
}

// A handler that looks at the active lanes itself.
template <typename H>
POS_INLINE HandlerPair Same() {
  return {&H::Run, &H::Run};
}

// d[l] = f(l), or the old value where the lane is not active.
template <bool kPartial, typename D, typename F>
POS_INLINE void Put(const Warp* w, D* d, F f) {
  if constexpr (kPartial) {
    const u32 mask = w->active;
    POS_LANES(l) {
      const D value = f(l);
      d[l] = On(mask, l) ? value : d[l];
    }
  } else {
    POS_LANES(l) { d[l] = f(l); }
  }
}

// Op::Do(a), (a, b), … lane by lane.
template <typename Op, typename D, typename A>
struct Unary {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const A* a = In<A>(w, i->a);
    Put<kPartial>(w, Out<D>(w, i->d), [=](unsigned l) { return Op::Do(a[l]); });
    return i + 1;
  }
};

template <typename Op, typename D, typename A, typename B>
struct Binary {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const A* a = In<A>(w, i->a);
    const B* b = In<B>(w, i->b);
    Put<kPartial>(w, Out<D>(w, i->d),
                  [=](unsigned l) { return Op::Do(a[l], b[l]); });
    return i + 1;
  }
};

template <typename Op, typename D, typename A, typename B, typename C>
struct Ternary {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const A* a = In<A>(w, i->a);
    const B* b = In<B>(w, i->b);
    const C* c = In<C>(w, i->c);
    Put<kPartial>(w, Out<D>(w, i->d),
                  [=](unsigned l) { return Op::Do(a[l], b[l], c[l]); });
    return i + 1;
  }
};

// The same with a fourth input, from Inst::e.
template <typename Op, typename D, typename A, typename B, typename C,
          typename E>
struct Quaternary {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const A* a = In<A>(w, i->a);
    const B* b = In<B>(w, i->b);
    const C* c = In<C>(w, i->c);
    const E* e = In<E>(w, i->e);
    Put<kPartial>(w, Out<D>(w, i->d),
                  [=](unsigned l) { return Op::Do(a[l], b[l], c[l], e[l]); });
    return i + 1;
  }
};

// A handler that is written for all lanes only: the old values of the lanes
// that are not active are put back. For instructions that cost much more.
template <typename H, typename D>
struct KeepOthers {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    if constexpr (!kPartial) return H::Run(w, i);
    D* d = Out<D>(w, i->d);
    alignas(64) D old[kLanes];
    POS_LANES(l) { old[l] = d[l]; }
    const Inst* next = H::Run(w, i);
    const u32 mask = w->active;
    POS_LANES(l) { d[l] = On(mask, l) ? d[l] : old[l]; }
    return next;
  }
};

// A bit per lane that is not zero.
POS_INLINE u32 MaskOf(const s8 (&lanes)[kLanes]) {
  typedef char Bytes __attribute__((vector_size(16), may_alias));
  const Bytes* bytes = reinterpret_cast<const Bytes*>(&lanes[0]);
  return static_cast<u32>(__builtin_ia32_pmovmskb128(bytes[0])) |
         static_cast<u32>(__builtin_ia32_pmovmskb128(bytes[1])) << 16;
}

template <typename F>
POS_INLINE u32 MaskWhere(F f) {
  alignas(64) s8 lanes[kLanes];
  POS_LANES(l) { lanes[l] = f(l) ? static_cast<s8>(-1) : static_cast<s8>(0); }
  return MaskOf(lanes);
}

POS_INLINE bool Signed(Type type) {
  return type == Type::kS8 || type == Type::kS16 || type == Type::kS32 ||
         type == Type::kS64 || type == Type::kS16x2;
}

POS_INLINE u32 Bytes(Type type) {
  switch (type) {
    case Type::kB8:
    case Type::kU8:
    case Type::kS8:
      return 1;
    case Type::kB16:
    case Type::kU16:
    case Type::kS16:
    case Type::kF16:
    case Type::kBf16:
      return 2;
    case Type::kB32:
    case Type::kU32:
    case Type::kS32:
    case Type::kF32:
    case Type::kU16x2:
    case Type::kS16x2:
    case Type::kF16x2:
    case Type::kBf16x2:
    case Type::kTf32:
      return 4;
    case Type::kB64:
    case Type::kU64:
    case Type::kS64:
    case Type::kF64:
    case Type::kF32x2:
      return 8;
    case Type::kB128:
      return 16;
    default:
      return 0;
  }
}

}  // namespace
}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_LANES_H_
