// From an address operand to memory of this process, lane by lane or for 32
// lanes at once. Every access is checked before it is made; one that is not
// inside an allocation, or not aligned, raises a fault and is not made.
//
// Device memory changes under us (other workers, the host): it is read and
// written with single loads and stores as wide as the access, up to 16 bytes.
#ifndef POS_CUDA_IMPL_PTX_ISA_MEMORY_H_
#define POS_CUDA_IMPL_PTX_ISA_MEMORY_H_

#include "pos/cuda_impl/ptx/exec_layout.h"
#include "pos/cuda_impl/ptx/isa/lanes.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

typedef u64 Pair128 __attribute__((vector_size(16), may_alias));
typedef u8 Alias8 __attribute__((may_alias));
typedef u16 Alias16 __attribute__((may_alias));
typedef u32 Alias32 __attribute__((may_alias));
typedef u64 Alias64 __attribute__((may_alias));

// One load and one store (two for 32 bytes). Both sides are aligned.
template <u32 kBytes>
POS_INLINE void CopyOne(std::byte* to, const std::byte* from) {
  void* d = to;
  const void* s = from;
  if constexpr (kBytes == 1) {
    *static_cast<Alias8*>(d) = *static_cast<const Alias8*>(s);
  } else if constexpr (kBytes == 2) {
    *static_cast<Alias16*>(d) = *static_cast<const Alias16*>(s);
  } else if constexpr (kBytes == 4) {
    *static_cast<Alias32*>(d) = *static_cast<const Alias32*>(s);
  } else if constexpr (kBytes == 8) {
    *static_cast<Alias64*>(d) = *static_cast<const Alias64*>(s);
  } else {
    static_assert(kBytes == 16 || kBytes == 32);
    Pair128* dp = static_cast<Pair128*>(d);
    const Pair128* sp = static_cast<const Pair128*>(s);
    dp[0] = sp[0];
    if constexpr (kBytes == 32) dp[1] = sp[1];
  }
}

// Raises the fault for an address that is not a multiple of the access size.
template <u32 kBytes>
POS_INLINE bool Aligned(Warp* w, const Inst* i, unsigned lane, u64 address) {
  if ((address & (kBytes - 1)) == 0) return true;
  RaiseFault(w, i, lane, kErrorMisalignedAddress, address, "misaligned access");
  return false;
}

POS_INLINE std::byte* HostPointer(u64 address) {
  return reinterpret_cast<std::byte*>(address);
}

// Each space has
//   Address  what a lane's address operand is made of
//   At       the memory of one lane's access, nullptr after a fault
//   Span     the memory of `bytes` bytes that several lanes share out among
//            themselves, nullptr (without a fault) when At must decide
//   OfLane   where there are spans: whether the address is another place for
//            each lane
struct GlobalSpace {
  using Address = u64;
  static constexpr bool kSpans = true;

  static POS_INLINE bool Covers(const AccessCache& cache, u64 address,
                                u64 bytes) {
    return address >= cache.base && address <= cache.limit - bytes;
  }
  template <u32 kBytes>
  static POS_INLINE std::byte* At(Warp* w, const Inst* i, unsigned lane,
                                  u64 address) {
    if (!Aligned<kBytes>(w, i, lane, address)) return nullptr;
    if (!Covers(w->cache[i->cache], address, kBytes) &&
        !FindAccess(w, i, lane, address, kBytes)) {
      return nullptr;
    }
    return HostPointer(address);
  }
  static POS_INLINE std::byte* Span(Warp* w, const Inst* i, u64 address,
                                    u64 bytes) {
    return Covers(w->cache[i->cache], address, bytes) ? HostPointer(address)
                                                      : nullptr;
  }
  static POS_INLINE bool OfLane(u64) { return false; }
};

struct SharedSpace {
  using Address = u32;
  static constexpr bool kSpans = true;

  template <u32 kBytes>
  static POS_INLINE std::byte* At(Warp* w, const Inst* i, unsigned lane,
                                  u32 address) {
    if (!Aligned<kBytes>(w, i, lane, address)) return nullptr;
    if (u64{address} + kBytes > w->shared_bytes) {
      RaiseFault(w, i, lane, kErrorIllegalAddress, address,
                 "access beyond the block's shared memory");
      return nullptr;
    }
    return w->shared + address;
  }
  static POS_INLINE std::byte* Span(Warp* w, const Inst*, u32 address,
                                    u64 bytes) {
    return u64{address} + bytes <= w->shared_bytes ? w->shared + address
                                                   : nullptr;
  }
  static POS_INLINE bool OfLane(u32) { return false; }
};

struct LocalSpace {
  using Address = u32;
  static constexpr bool kSpans = false;

  template <u32 kBytes>
  static POS_INLINE std::byte* At(Warp* w, const Inst* i, unsigned lane,
                                  u32 address) {
    if (!Aligned<kBytes>(w, i, lane, address)) return nullptr;
    if (u64{address} + kBytes > w->local_stride) {
      RaiseFault(w, i, lane, kErrorIllegalAddress, address,
                 "access beyond the thread's local memory");
      return nullptr;
    }
    return w->local + size_t{lane} * w->local_stride + address;
  }
};

// Parameters of the kernel, by an address that is computed. Read only.
struct ParamSpace {
  using Address = u32;
  static constexpr bool kSpans = false;

  template <u32 kBytes>
  static POS_INLINE std::byte* At(Warp* w, const Inst* i, unsigned lane,
                                  u32 address) {
    if (!Aligned<kBytes>(w, i, lane, address)) return nullptr;
    if (u64{address} + kBytes > w->params_bytes) {
      RaiseFault(w, i, lane, kErrorIllegalAddress, address,
                 "access beyond the kernel's parameters");
      return nullptr;
    }
    return const_cast<std::byte*>(w->params) + address;
  }
};

struct GenericSpace {
  using Address = u64;
  static constexpr bool kSpans = true;

  template <u32 kBytes>
  static POS_INLINE std::byte* At(Warp* w, const Inst* i, unsigned lane,
                                  u64 address) {
    if (address - kWindowsBegin >= kWindowsEnd - kWindowsBegin) {
      return GlobalSpace::At<kBytes>(w, i, lane, address);
    }
    const u32 low = static_cast<u32>(address);
    switch (address & ~0xffffffffull) {
      case kSharedWindow:
        return SharedSpace::At<kBytes>(w, i, lane, low);
      case kLocalWindow:
        return LocalSpace::At<kBytes>(w, i, lane, low);
      case kParamWindow:
        return ParamSpace::At<kBytes>(w, i, lane, low);
      default:
        break;
    }
    RaiseFault(w, i, lane, kErrorIllegalAddress, address,
               "access to the address of a function");
    return nullptr;
  }
  static POS_INLINE std::byte* Span(Warp* w, const Inst* i, u64 address,
                                    u64 bytes) {
    if ((address & ~0xffffffffull) == kSharedWindow) {
      return SharedSpace::Span(w, i, static_cast<u32>(address), bytes);
    }
    // No allocation lies in the windows, so the cache covers none of them.
    return GlobalSpace::Span(w, i, address, bytes);
  }
  static POS_INLINE bool OfLane(u64 address) {
    return (address & ~0xffffffffull) == kLocalWindow;
  }
};

// How the addresses of the active lanes lie.
enum class Pattern { kScattered, kSame, kAdjacent };

template <typename A>
POS_INLINE Pattern PatternOf(const A* address, u32 mask, u32 bytes) {
  if (mask == ~0u) {
    const A first = address[0];
    const A step = address[1] - first;
    if (step != bytes && step != 0) return Pattern::kScattered;
    A differs = 0;
    POS_LANES(l) {
      differs |= address[l] ^ static_cast<A>(first + step * static_cast<A>(l));
    }
    if (differs != 0) return Pattern::kScattered;
    return step == 0 ? Pattern::kSame : Pattern::kAdjacent;
  }
  const unsigned lane = static_cast<unsigned>(__builtin_ctz(mask));
  const A at = address[lane];
  const A origin = static_cast<A>(at - static_cast<A>(lane) * bytes);
  A same = 0;
  A adjacent = 0;
  POS_LANES(l) {
    const A here = address[l];
    same |= On(mask, l) ? here ^ at : 0;
    adjacent |= On(mask, l)
                    ? here ^ static_cast<A>(origin + static_cast<A>(l) * bytes)
                    : 0;
  }
  if (same == 0) return Pattern::kSame;
  return adjacent == 0 ? Pattern::kAdjacent : Pattern::kScattered;
}

// Memory of lane 0 when the active lanes' accesses are adjacent, aligned and
// inside one range; nullptr otherwise. Lanes below the first active one lie
// before the range: their part of it must not be touched.
template <typename Space, u32 kBytes>
POS_INLINE std::byte* AdjacentAt(Warp* w, const Inst* i,
                                 const typename Space::Address* address,
                                 u32 mask) {
  using A = typename Space::Address;
  const unsigned first = static_cast<unsigned>(__builtin_ctz(mask));
  const unsigned last = 31 - static_cast<unsigned>(__builtin_clz(mask));
  const A start = static_cast<A>(address[first] + static_cast<A>(i->imm));
  if ((start & (kBytes - 1)) != 0) return nullptr;
  std::byte* at = Space::Span(w, i, start, u64{last - first + 1} * kBytes);
  return at == nullptr ? nullptr : at - size_t{first} * kBytes;
}

// Accesses that others may wait for, or that wait for others.
POS_INLINE void CountSync(Warp* w, const Inst* i) {
  if ((i->flags & kSyncAccess) == 0) return;
  w->slice -= kSyncCost;
  ++w->sync_ops;
}

// f(lane) for every active lane, ascending, until one returns false.
template <typename F>
POS_INLINE bool ForEachLane(u32 mask, F f) {
  for (u32 left = mask; left != 0; left &= left - 1) {
    if (!f(static_cast<unsigned>(__builtin_ctz(left)))) return false;
  }
  return true;
}

}  // namespace
}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_MEMORY_H_
