// Atomic read-modify-write.
//
// In device memory the host's own atomic instructions do the work, so kernels,
// other kernels and the host agree. A block's shared memory belongs to the one
// worker that runs the block: there, plain loads and stores are enough.
#include "pos/cuda_impl/ptx/isa/half_ops.h"
#include "pos/cuda_impl/ptx/isa/handlers.h"
#include "pos/cuda_impl/ptx/isa/memory.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

// What an operation makes of the old value and the operands b and c. Floats
// are passed as bits.
struct AtomAnd {
  template <typename T>
  static POS_INLINE T Do(T old, T b, T) {
    return old & b;
  }
};
struct AtomOr {
  template <typename T>
  static POS_INLINE T Do(T old, T b, T) {
    return old | b;
  }
};
struct AtomXor {
  template <typename T>
  static POS_INLINE T Do(T old, T b, T) {
    return old ^ b;
  }
};
struct AtomExch {
  template <typename T>
  static POS_INLINE T Do(T, T b, T) {
    return b;
  }
};
struct AtomCas {
  template <typename T>
  static POS_INLINE T Do(T old, T b, T c) {
    return old == b ? c : old;
  }
};
struct AtomAdd {
  template <typename T>
  static POS_INLINE T Do(T old, T b, T) {
    return static_cast<T>(old + b);
  }
};
struct AtomInc {
  template <typename T>
  static POS_INLINE T Do(T old, T b, T) {
    return old >= b ? T{0} : static_cast<T>(old + 1);
  }
};
struct AtomDec {
  template <typename T>
  static POS_INLINE T Do(T old, T b, T) {
    return old == 0 || old > b ? b : static_cast<T>(old - 1);
  }
};
template <bool kSigned, bool kMax>
struct AtomMinMax {
  static POS_INLINE u32 Do(u32 old, u32 b, u32) {
    const bool less =
        kSigned ? static_cast<s32>(b) < static_cast<s32>(old) : b < old;
    return less != kMax ? b : old;
  }
  static POS_INLINE u64 Do(u64 old, u64 b, u64) {
    const bool less =
        kSigned ? static_cast<s64>(b) < static_cast<s64>(old) : b < old;
    return less != kMax ? b : old;
  }
};
// Device memory's f32 adder flushes subnormals, shared memory's does not.
template <bool kFlush>
struct AtomAddF32 {
  static POS_INLINE u32 Do(u32 old, u32 b, u32) {
    const float sum =
        FlushIf<kFlush>(FloatOf(old)) + FlushIf<kFlush>(FloatOf(b));
    return BitsOf(Canonical(FlushIf<kFlush>(sum)));
  }
};
struct AtomAddF64 {
  static POS_INLINE u64 Do(u64 old, u64 b, u64) {
    const double x = DoubleOf(old);
    const double y = DoubleOf(b);
    return BitsOf(PickNan(x + y, x, y));
  }
};
template <bool kBfloat>
struct AtomAddHalf {
  static POS_INLINE u16 Do(u16 old, u16 b, u16) {
    if constexpr (kBfloat)
      return FloatToBfloat(BfloatToFloat(old) + BfloatToFloat(b));
    return FloatToHalf(HalfToFloat(old) + HalfToFloat(b));
  }
};
template <bool kBfloat>
struct AtomAddHalf2 {
  static POS_INLINE u32 Do(u32 old, u32 b, u32) {
    using One = AtomAddHalf<kBfloat>;
    const u32 low = One::Do(static_cast<u16>(old), static_cast<u16>(b), 0);
    const u32 high =
        One::Do(static_cast<u16>(old >> 16), static_cast<u16>(b >> 16), 0);
    return low | high << 16;
  }
};

template <typename T>
struct AliasOf;
template <>
struct AliasOf<u16> {
  using type = Alias16;
};
template <>
struct AliasOf<u32> {
  using type = Alias32;
};
template <>
struct AliasOf<u64> {
  using type = Alias64;
};

template <typename T, typename Op>
struct Update {
  static POS_INLINE T Host(std::byte* at, T b, T c) {
    using Alias = typename AliasOf<T>::type;
    void* memory = at;
    Alias* p = static_cast<Alias*>(memory);
    if constexpr (__is_same(Op, AtomAdd)) {
      return __atomic_fetch_add(p, b, __ATOMIC_SEQ_CST);
    } else if constexpr (__is_same(Op, AtomExch)) {
      return __atomic_exchange_n(p, b, __ATOMIC_SEQ_CST);
    } else if constexpr (__is_same(Op, AtomCas)) {
      T old = b;
      __atomic_compare_exchange_n(p, &old, c, false, __ATOMIC_SEQ_CST,
                                  __ATOMIC_SEQ_CST);
      return old;
    } else {
      T old = __atomic_load_n(p, __ATOMIC_RELAXED);
      while (!__atomic_compare_exchange_n(p, &old, Op::Do(old, b, c), false,
                                          __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
      }
      return old;
    }
  }
  static POS_INLINE T Plain(std::byte* at, T b, T c) {
    using Alias = typename AliasOf<T>::type;
    void* memory = at;
    Alias* p = static_cast<Alias*>(memory);
    const T old = *p;
    *p = Op::Do(old, b, c);
    return old;
  }
};

template <typename Space, typename T, typename Op, typename SharedOp = Op>
struct Atom {
  static const Inst* Run(Warp* w, const Inst* i) {
    using A = typename Space::Address;
    const A* address = In<A>(w, i->a);
    const T* b = In<T>(w, i->b);
    const T* c = In<T>(w, i->c);
    T* d = Out<T>(w, i->d);
    CountSync(w, i);
    const bool done = ForEachLane(w->active, [=](unsigned l) {
      const A where = static_cast<A>(address[l] + static_cast<A>(i->imm));
      std::byte* at = Space::template At<sizeof(T)>(w, i, l, where);
      if (at == nullptr) return false;
      bool shared = __is_same(Space, SharedSpace);
      if constexpr (__is_same(Space, GenericSpace)) {
        shared = (where & ~0xffffffffull) == kSharedWindow;
      }
      d[l] = shared ? Update<T, SharedOp>::Plain(at, b[l], c[l])
                    : Update<T, Op>::Host(at, b[l], c[l]);
      return true;
    });
    return done ? i + 1 : nullptr;
  }
};

struct Whole128 {
  alignas(16) u64 part[2];
};
// cas and exch of 16 bytes.
POS_INLINE bool Swap128(std::byte* at, Whole128* expected, Whole128 wanted) {
  bool equal = false;
  asm volatile("lock cmpxchg16b %1"
               : "=@cce"(equal), "+m"(*reinterpret_cast<Whole128*>(at)),
                 "+a"(expected->part[0]), "+d"(expected->part[1])
               : "b"(wanted.part[0]), "c"(wanted.part[1])
               : "memory");
  return equal;
}
struct Bits128 {
  u64 part[2];
};
template <typename Space, bool kCompare>
struct Atom128 {
  static const Inst* Run(Warp* w, const Inst* i) {
    using A = typename Space::Address;
    const A* address = In<A>(w, i->a);
    const Bits128* b = In<Bits128>(w, i->b);
    const Bits128* c = In<Bits128>(w, i->c);
    Bits128* d = Out<Bits128>(w, i->d);
    CountSync(w, i);
    const bool done = ForEachLane(w->active, [=](unsigned l) {
      std::byte* at = Space::template At<16>(
          w, i, l, static_cast<A>(address[l] + static_cast<A>(i->imm)));
      if (at == nullptr) return false;
      const Bits128& first = kCompare ? b[l] : d[l];
      const Bits128& wanted = kCompare ? c[l] : b[l];
      Whole128 expected{{first.part[0], first.part[1]}};
      const Whole128 value{{wanted.part[0], wanted.part[1]}};
      while (!Swap128(at, &expected, value) && !kCompare) {
      }
      d[l] = {{expected.part[0], expected.part[1]}};
      return true;
    });
    return done ? i + 1 : nullptr;
  }
};

template <typename Space, typename T>
HandlerPair PickInt(const PickKey& k) {
  const bool is_signed = Signed(k.type[0]);
  switch (k.memory) {
    case MemoryOp::kAnd:
      return Same<Atom<Space, T, AtomAnd>>();
    case MemoryOp::kOr:
      return Same<Atom<Space, T, AtomOr>>();
    case MemoryOp::kXor:
      return Same<Atom<Space, T, AtomXor>>();
    case MemoryOp::kExch:
      return Same<Atom<Space, T, AtomExch>>();
    case MemoryOp::kCas:
      return Same<Atom<Space, T, AtomCas>>();
    case MemoryOp::kAdd:
      return Same<Atom<Space, T, AtomAdd>>();
    case MemoryOp::kInc:
      return Same<Atom<Space, T, AtomInc>>();
    case MemoryOp::kDec:
      return Same<Atom<Space, T, AtomDec>>();
    case MemoryOp::kMin:
      return is_signed ? Same<Atom<Space, T, AtomMinMax<true, false>>>()
                       : Same<Atom<Space, T, AtomMinMax<false, false>>>();
    case MemoryOp::kMax:
      return is_signed ? Same<Atom<Space, T, AtomMinMax<true, true>>>()
                       : Same<Atom<Space, T, AtomMinMax<false, true>>>();
    default:
      return {};
  }
}

template <typename Space>
HandlerPair PickFrom(const PickKey& k) {
  const bool add = k.memory == MemoryOp::kAdd;
  switch (k.type[0]) {
    case Type::kF32:
      return add ? Same<Atom<Space, u32, AtomAddF32<true>, AtomAddF32<false>>>()
                 : HandlerPair{};
    case Type::kF64:
      return add ? Same<Atom<Space, u64, AtomAddF64>>() : HandlerPair{};
    case Type::kF16:
      return add ? Same<Atom<Space, u16, AtomAddHalf<false>>>() : HandlerPair{};
    case Type::kBf16:
      return add ? Same<Atom<Space, u16, AtomAddHalf<true>>>() : HandlerPair{};
    case Type::kF16x2:
      return add ? Same<Atom<Space, u32, AtomAddHalf2<false>>>()
                 : HandlerPair{};
    case Type::kBf16x2:
      return add ? Same<Atom<Space, u32, AtomAddHalf2<true>>>() : HandlerPair{};
    default:
      break;
  }
  switch (Bytes(k.type[0])) {
    case 2:
      return k.memory == MemoryOp::kCas ? Same<Atom<Space, u16, AtomCas>>()
                                        : HandlerPair{};
    case 4:
      return PickInt<Space, u32>(k);
    case 8:
      return PickInt<Space, u64>(k);
    case 16:
      if (k.memory == MemoryOp::kCas) return Same<Atom128<Space, true>>();
      if (k.memory == MemoryOp::kExch) return Same<Atom128<Space, false>>();
      return {};
    default:
      return {};
  }
}

}  // namespace

HandlerPair PickAtom(const PickKey& k) {
  switch (k.space) {
    case Space::kGlobal:
      return PickFrom<GlobalSpace>(k);
    case Space::kShared:
      return PickFrom<SharedSpace>(k);
    case Space::kGeneric:
      return PickFrom<GenericSpace>(k);
    default:
      return {};
  }
}

}  // namespace pos::ptx::POS_PTX_ISA
