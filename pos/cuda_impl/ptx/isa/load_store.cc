// Loads and stores.
#include "pos/cuda_impl/ptx/isa/handlers.h"
#include "pos/cuda_impl/ptx/isa/memory.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

// ---- One element per lane: E in memory, D in the register.

template <typename Space, typename E, typename D>
struct LoadOne {
  static const Inst* Run(Warp* w, const Inst* i) {
    using A = typename Space::Address;
    constexpr u32 kBytes = sizeof(E);
    const A* address = In<A>(w, i->a);
    const u32 mask = w->active;
    D* d = Out<D>(w, i->d);
    CountSync(w, i);
    if constexpr (Space::kSpans) {
      const Pattern pattern = PatternOf(address, mask, kBytes);
      if (pattern == Pattern::kAdjacent) {
        const std::byte* at = AdjacentAt<Space, kBytes>(w, i, address, mask);
        if (at != nullptr) {
          Adjacent(at, mask, d);
          return i + 1;
        }
      } else if (pattern == Pattern::kSame) {
        const unsigned lane = static_cast<unsigned>(__builtin_ctz(mask));
        const A same = static_cast<A>(address[lane] + static_cast<A>(i->imm));
        if (!Space::OfLane(same)) {
          const std::byte* at = Space::template At<kBytes>(w, i, lane, same);
          if (at == nullptr) return nullptr;
          alignas(16) E value;
          CopyOne<kBytes>(reinterpret_cast<std::byte*>(&value), at);
          Put<true>(w, d, [=](unsigned) { return static_cast<D>(value); });
          return i + 1;
        }
      }
    }
    const bool done = ForEachLane(mask, [=](unsigned l) {
      const std::byte* at = Space::template At<kBytes>(
          w, i, l, static_cast<A>(address[l] + static_cast<A>(i->imm)));
      if (at == nullptr) return false;
      alignas(16) E value;
      CopyOne<kBytes>(reinterpret_cast<std::byte*>(&value), at);
      d[l] = static_cast<D>(value);
      return true;
    });
    return done ? i + 1 : nullptr;
  }

  static POS_INLINE void Adjacent(const std::byte* at, u32 mask, D* d) {
    const E* from = reinterpret_cast<const E*>(at);
    if (mask == ~0u) {
      POS_LANES(l) { d[l] = static_cast<D>(from[l]); }
    } else {
      ForEachLane(mask, [=](unsigned l) {
        d[l] = static_cast<D>(from[l]);
        return true;
      });
    }
  }
};

template <typename Space, typename E, typename D>
struct StoreOne {
  static const Inst* Run(Warp* w, const Inst* i) {
    using A = typename Space::Address;
    constexpr u32 kBytes = sizeof(E);
    const A* address = In<A>(w, i->a);
    const D* b = In<D>(w, i->b);
    const u32 mask = w->active;
    CountSync(w, i);
    if constexpr (Space::kSpans) {
      if (PatternOf(address, mask, kBytes) == Pattern::kAdjacent) {
        std::byte* at = AdjacentAt<Space, kBytes>(w, i, address, mask);
        if (at != nullptr) {
          Adjacent(at, mask, b);
          return i + 1;
        }
      }
    }
    const bool done = ForEachLane(mask, [=](unsigned l) {
      std::byte* at = Space::template At<kBytes>(
          w, i, l, static_cast<A>(address[l] + static_cast<A>(i->imm)));
      if (at == nullptr) return false;
      alignas(16) const E value = static_cast<E>(b[l]);
      CopyOne<kBytes>(at, reinterpret_cast<const std::byte*>(&value));
      return true;
    });
    return done ? i + 1 : nullptr;
  }

  static POS_INLINE void Adjacent(std::byte* at, u32 mask, const D* b) {
    E* to = reinterpret_cast<E*>(at);
    if (mask == ~0u) {
      POS_LANES(l) { to[l] = static_cast<E>(b[l]); }
    } else {
      ForEachLane(mask, [=](unsigned l) {
        to[l] = static_cast<E>(b[l]);
        return true;
      });
    }
  }
};

// ---- Vectors: through a buffer that holds what is in memory, lane by lane.

// Element `e` of a vector of `bytes` bytes, between buffer and register.
template <typename E, typename D>
void UnpackElement(const Warp* w, const std::byte* buffer, u32 bytes, u32 e,
                   u32 offset) {
  D* d = Out<D>(w, offset);
  const u32 mask = w->active;
  for (unsigned l = 0; l < kLanes; ++l) {
    E value;
    __builtin_memcpy(&value, buffer + l * bytes + e * sizeof(E), sizeof(E));
    d[l] = On(mask, l) ? static_cast<D>(value) : d[l];
  }
}
template <typename E, typename D>
void PackElement(const Warp* w, std::byte* buffer, u32 bytes, u32 e,
                 u32 operand) {
  const D* from = In<D>(w, operand);
  for (unsigned l = 0; l < kLanes; ++l) {
    const E value = static_cast<E>(from[l]);
    __builtin_memcpy(buffer + l * bytes + e * sizeof(E), &value, sizeof(E));
  }
}

using Unpacker = void (*)(const Warp*, const std::byte*, u32, u32, u32);
using Packer = void (*)(const Warp*, std::byte*, u32, u32, u32);

// By log2 of the element's and of the register's bytes; {} cannot be.
constexpr Unpacker kUnpackUnsigned[4][4] = {
    {nullptr, UnpackElement<u8, u16>, UnpackElement<u8, u32>,
     UnpackElement<u8, u64>},
    {nullptr, UnpackElement<u16, u16>, UnpackElement<u16, u32>,
     UnpackElement<u16, u64>},
    {nullptr, nullptr, UnpackElement<u32, u32>, UnpackElement<u32, u64>},
    {nullptr, nullptr, nullptr, UnpackElement<u64, u64>}};
constexpr Unpacker kUnpackSigned[4][4] = {
    {nullptr, UnpackElement<s8, u16>, UnpackElement<s8, u32>,
     UnpackElement<s8, u64>},
    {nullptr, UnpackElement<u16, u16>, UnpackElement<s16, u32>,
     UnpackElement<s16, u64>},
    {nullptr, nullptr, UnpackElement<u32, u32>, UnpackElement<s32, u64>},
    {nullptr, nullptr, nullptr, UnpackElement<u64, u64>}};
constexpr Packer kPack[4][4] = {
    {nullptr, PackElement<u8, u16>, PackElement<u8, u32>, PackElement<u8, u64>},
    {nullptr, PackElement<u16, u16>, PackElement<u16, u32>,
     PackElement<u16, u64>},
    {nullptr, nullptr, PackElement<u32, u32>, PackElement<u32, u64>},
    {nullptr, nullptr, nullptr, PackElement<u64, u64>}};

// What the decoder puts into the flags of a vector access.
POS_INLINE u32 ElementLog(const Inst* i) { return i->flags >> 17 & 3; }
POS_INLINE u32 RegisterLog(const Inst* i) { return i->flags >> 19 & 3; }
POS_INLINE bool ElementSigned(const Inst* i) {
  return (i->flags >> 21 & 1) != 0;
}

POS_INLINE void UnpackAll(const Warp* w, const Inst* i, const std::byte* buffer,
                          u32 bytes) {
  const Unpacker unpack = ElementSigned(i)
                              ? kUnpackSigned[ElementLog(i)][RegisterLog(i)]
                              : kUnpackUnsigned[ElementLog(i)][RegisterLog(i)];
  for (u32 e = 0; e < i->n; ++e) {
    unpack(w, buffer, bytes, e, w->lists[i->e + e]);
  }
}
POS_INLINE void PackAll(const Warp* w, const Inst* i, std::byte* buffer,
                        u32 bytes) {
  const Packer pack = kPack[ElementLog(i)][RegisterLog(i)];
  for (u32 e = 0; e < i->n; ++e) {
    pack(w, buffer, bytes, e, w->lists[i->e + e]);
  }
}

template <typename Space, u32 kBytes>
struct LoadVector {
  static const Inst* Run(Warp* w, const Inst* i) {
    using A = typename Space::Address;
    const A* address = In<A>(w, i->a);
    alignas(64) std::byte buffer[kLanes * kBytes];
    std::byte* to = &buffer[0];
    CountSync(w, i);
    const bool done = ForEachLane(w->active, [=](unsigned l) {
      const std::byte* at = Space::template At<kBytes>(
          w, i, l, static_cast<A>(address[l] + static_cast<A>(i->imm)));
      if (at == nullptr) return false;
      CopyOne<kBytes>(to + l * kBytes, at);
      return true;
    });
    if (!done) return nullptr;
    // The copy is what the elements come from: one load per lane.
    asm volatile("" : : "r"(to) : "memory");
    UnpackAll(w, i, to, kBytes);
    return i + 1;
  }
};

template <typename Space, u32 kBytes>
struct StoreVector {
  static const Inst* Run(Warp* w, const Inst* i) {
    using A = typename Space::Address;
    const A* address = In<A>(w, i->a);
    alignas(64) std::byte buffer[kLanes * kBytes];
    std::byte* from = &buffer[0];
    CountSync(w, i);
    PackAll(w, i, from, kBytes);
    asm volatile("" : : "r"(from) : "memory");
    const bool done = ForEachLane(w->active, [=](unsigned l) {
      std::byte* at = Space::template At<kBytes>(
          w, i, l, static_cast<A>(address[l] + static_cast<A>(i->imm)));
      if (at == nullptr) return false;
      CopyOne<kBytes>(at, from + l * kBytes);
      return true;
    });
    return done ? i + 1 : nullptr;
  }
};

// ---- Parameters at an offset that the decoder has checked.

// Of the kernel: the same for every lane.
struct LoadKernelParam {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32 bytes = 1u << ElementLog(i);
    for (u32 e = 0; e < i->n; ++e) {
      u64 value = 0;
      __builtin_memcpy(&value, w->params + i->imm + e * bytes, 8);
      const u32 drop = 64 - 8 * bytes;
      value = ElementSigned(i)
                  ? static_cast<u64>(static_cast<s64>(value << drop) >> drop)
                  : value << drop >> drop;
      Fill<kPartial>(w, i, w->lists[i->e + e], value);
    }
    return i + 1;
  }
  template <bool kPartial>
  static POS_INLINE void Fill(const Warp* w, const Inst* i, u32 offset,
                              u64 value) {
    switch (RegisterLog(i)) {
      case 1:
        Put<kPartial>(w, Out<u16>(w, offset),
                      [=](unsigned) { return static_cast<u16>(value); });
        break;
      case 2:
        Put<kPartial>(w, Out<u32>(w, offset),
                      [=](unsigned) { return static_cast<u32>(value); });
        break;
      default:
        Put<kPartial>(w, Out<u64>(w, offset), [=](unsigned) { return value; });
        break;
    }
  }
};

// Of a function: each lane has its own.
struct LoadFrameParam {
  static const Inst* Run(Warp* w, const Inst* i) {
    UnpackAll(w, i, w->frame->params + i->imm, w->frame->param_bytes);
    return i + 1;
  }
};
struct StoreFrameParam {
  static const Inst* Run(Warp* w, const Inst* i) {
    // Inactive lanes keep their bytes: others of this frame may use them.
    const Packer pack = kPack[ElementLog(i)][RegisterLog(i)];
    const u32 bytes = 1u << ElementLog(i);
    const u32 stride = w->frame->param_bytes;
    alignas(64) std::byte buffer[kLanes * 8];
    for (u32 e = 0; e < i->n; ++e) {
      pack(w, &buffer[0], bytes, 0, w->lists[i->e + e]);
      std::byte* to = w->frame->params + i->imm + e * bytes;
      const std::byte* from = &buffer[0];
      ForEachLane(w->active, [=](unsigned l) {
        __builtin_memcpy(to + size_t{l} * stride, from + l * bytes, bytes);
        return true;
      });
    }
    return i + 1;
  }
};

// ---- Choice.
struct Whole128 {
  u64 part[2];
};

template <typename Space, typename E>
HandlerPair PickLoadTo(u32 width) {
  switch (width) {
    case 2:
      if constexpr (sizeof(E) <= 2) return Same<LoadOne<Space, E, u16>>();
      return {};
    case 4:
      if constexpr (sizeof(E) <= 4) return Same<LoadOne<Space, E, u32>>();
      return {};
    case 8:
      if constexpr (sizeof(E) <= 8) return Same<LoadOne<Space, E, u64>>();
      return {};
    default:
      return {};
  }
}

template <typename Space>
HandlerPair PickLoadFrom(const PickKey& k) {
  const u32 bytes = Bytes(k.type[0]);
  if (k.vector > 1) {
    switch (bytes * k.vector) {
      case 2:
        return Same<LoadVector<Space, 2>>();
      case 4:
        return Same<LoadVector<Space, 4>>();
      case 8:
        return Same<LoadVector<Space, 8>>();
      case 16:
        return Same<LoadVector<Space, 16>>();
      case 32:
        return Same<LoadVector<Space, 32>>();
      default:
        return {};
    }
  }
  const bool is_signed = Signed(k.type[0]);
  const u32 width = k.width[0];
  switch (bytes) {
    case 1:
      return is_signed ? PickLoadTo<Space, s8>(width)
                       : PickLoadTo<Space, u8>(width);
    case 2:
      return is_signed ? PickLoadTo<Space, s16>(width)
                       : PickLoadTo<Space, u16>(width);
    case 4:
      return is_signed ? PickLoadTo<Space, s32>(width)
                       : PickLoadTo<Space, u32>(width);
    case 8:
      return PickLoadTo<Space, u64>(width);
    case 16:
      return width == 16 ? Same<LoadOne<Space, Whole128, Whole128>>()
                         : HandlerPair{};
    default:
      return {};
  }
}

template <typename Space, typename E>
HandlerPair PickStoreOf(u32 width) {
  switch (width) {
    case 2:
      if constexpr (sizeof(E) <= 2) return Same<StoreOne<Space, E, u16>>();
      return {};
    case 4:
      if constexpr (sizeof(E) <= 4) return Same<StoreOne<Space, E, u32>>();
      return {};
    case 8:
      if constexpr (sizeof(E) <= 8) return Same<StoreOne<Space, E, u64>>();
      return {};
    default:
      return {};
  }
}

template <typename Space>
HandlerPair PickStoreTo(const PickKey& k) {
  const u32 bytes = Bytes(k.type[0]);
  if (k.vector > 1) {
    switch (bytes * k.vector) {
      case 2:
        return Same<StoreVector<Space, 2>>();
      case 4:
        return Same<StoreVector<Space, 4>>();
      case 8:
        return Same<StoreVector<Space, 8>>();
      case 16:
        return Same<StoreVector<Space, 16>>();
      case 32:
        return Same<StoreVector<Space, 32>>();
      default:
        return {};
    }
  }
  switch (bytes) {
    case 1:
      return PickStoreOf<Space, u8>(k.width[0]);
    case 2:
      return PickStoreOf<Space, u16>(k.width[0]);
    case 4:
      return PickStoreOf<Space, u32>(k.width[0]);
    case 8:
      return PickStoreOf<Space, u64>(k.width[0]);
    case 16:
      return k.width[0] == 16 ? Same<StoreOne<Space, Whole128, Whole128>>()
                              : HandlerPair{};
    default:
      return {};
  }
}

}  // namespace

HandlerPair PickLoad(const PickKey& k) {
  switch (k.space) {
    case Space::kGlobal:
    case Space::kConst:
      return PickLoadFrom<GlobalSpace>(k);
    case Space::kShared:
      return PickLoadFrom<SharedSpace>(k);
    case Space::kLocal:
      return PickLoadFrom<LocalSpace>(k);
    case Space::kParam:
      return PickLoadFrom<ParamSpace>(k);
    case Space::kGeneric:
      return PickLoadFrom<GenericSpace>(k);
    case Space::kReg:
      break;
  }
  return {};
}
HandlerPair PickStore(const PickKey& k) {
  switch (k.space) {
    case Space::kGlobal:
      return PickStoreTo<GlobalSpace>(k);
    case Space::kShared:
      return PickStoreTo<SharedSpace>(k);
    case Space::kLocal:
      return PickStoreTo<LocalSpace>(k);
    case Space::kGeneric:
      return PickStoreTo<GenericSpace>(k);
    default:
      return {};
  }
}
// kUni in the key: the kernel's own parameters.
HandlerPair PickLoadParam(const PickKey& k) {
  return (k.words & kUni) != 0 ? Pair<LoadKernelParam>()
                               : Same<LoadFrameParam>();
}
HandlerPair PickStoreParam(const PickKey&) { return Same<StoreFrameParam>(); }

}  // namespace pos::ptx::POS_PTX_ISA
