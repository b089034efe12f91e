// Fragments from and to memory: wmma.load and wmma.store, ldmatrix and
// stmatrix; movmatrix.
//
// Rows of a matrix are accessed in single loads and stores of up to 16 bytes.
// A row must be aligned to what one lane takes of it at once.
#include "pos/cuda_impl/ptx/isa/handlers.h"
#include "pos/cuda_impl/ptx/isa/matrix_ops.h"
#include "pos/cuda_impl/ptx/isa/memory.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

// ---- Whole rows.

// The memory of `bytes` bytes at `address`; nullptr after a fault.
template <typename Space>
std::byte* RowAt(Warp* w, const Inst* i, unsigned lane,
                 typename Space::Address address, u32 bytes, u32 alignment) {
  if ((address & (alignment - 1)) != 0) {
    RaiseFault(w, i, lane, kErrorMisalignedAddress, address,
               "misaligned access");
    return nullptr;
  }
  std::byte* const at = Space::Span(w, i, address, bytes);
  if (at != nullptr) return at;
  if constexpr (sizeof(address) == 4) {
    RaiseFault(w, i, lane, kErrorIllegalAddress, address,
               "access beyond the block's shared memory");
    return nullptr;
  } else {
    if (address - kWindowsBegin < kWindowsEnd - kWindowsBegin) {
      const bool shared = (address & ~0xffffffffull) == kSharedWindow;
      RaiseFault(
          w, i, lane, shared ? kErrorIllegalAddress : kErrorInvalidAddressSpace,
          address,
          shared ? "access beyond the block's shared memory"
                 : "a matrix that is neither in global nor in shared memory");
      return nullptr;
    }
    return FindAccess(w, i, lane, address, bytes) ? HostPointer(address)
                                                  : nullptr;
  }
}

template <u32 kPiece>
POS_INLINE void CopyPieces(std::byte* to, const std::byte* from, u32 bytes) {
  for (u32 at = 0; at < bytes; at += kPiece)
    CopyOne<kPiece>(to + at, from + at);
}

// `shared_side` is the address that decides how wide accesses may be.
POS_INLINE void CopyRow(std::byte* to, const std::byte* from, u32 bytes,
                        const std::byte* shared_side) {
  const u64 low = reinterpret_cast<u64>(shared_side) | bytes;
  if ((low & 15) == 0) return CopyPieces<16>(to, from, bytes);
  if ((low & 7) == 0) return CopyPieces<8>(to, from, bytes);
  if ((low & 3) == 0) return CopyPieces<4>(to, from, bytes);
  if ((low & 1) == 0) return CopyPieces<2>(to, from, bytes);
  CopyPieces<1>(to, from, bytes);
}

// ---- wmma.load, wmma.store.

// A tile: `rows` rows of `columns` elements as fragments want it (rows of A
// and C, columns of B); in memory it may lie across.
struct Tile {
  u32 part;
  Type type;
  bool across;
  u32 m, n, k;
  u32 rows, columns;
  u32 bits;
  u32 alignment;
};

POS_INLINE Tile TileOf(const Inst* i) {
  Tile tile;
  const MatrixShape& shape = kWmmaShapes[i->flags >> kTileShape & 7];
  tile.part = i->flags >> kTilePart & 3;
  tile.type = static_cast<Type>(i->flags >> kTileType & 63);
  const bool column = (i->flags & kTileColumn) != 0;
  tile.across = tile.part == kTileB ? !column : column;
  tile.m = shape.m;
  tile.n = shape.n;
  tile.k = shape.k;
  tile.rows = tile.part == kTileB ? shape.n : shape.m;
  tile.columns = tile.part == kTileC ? shape.n : shape.k;
  tile.bits = ElementBits(tile.type);
  const u32 element = tile.bits < 8 ? 1 : tile.bits / 8;
  if (tile.across) {
    tile.alignment = element;
  } else if (tile.part == kTileC) {
    tile.alignment = 2 * element;
  } else {
    tile.alignment = element < 4 ? 4 : element;
  }
  return tile;
}

// The words of a tile: [rows][columns], packed.
constexpr u32 kTileWords = 512;

template <typename E>
POS_INLINE void Transpose(const u32* from, u32 rows, u32 columns, u32* to) {
  const E* f = reinterpret_cast<const E*>(from);
  E* t = reinterpret_cast<E*>(to);
  for (u32 r = 0; r < rows; ++r) {
    for (u32 c = 0; c < columns; ++c) t[c * rows + r] = f[r * columns + c];
  }
}
void TransposeBits(const u32* from, u32 rows, u32 columns, u32 bits, u32* to) {
  switch (bits) {
    case 8:
      return Transpose<u8>(from, rows, columns, to);
    case 16:
      return Transpose<u16>(from, rows, columns, to);
    case 32:
      return Transpose<u32>(from, rows, columns, to);
    default:
      return Transpose<u64>(from, rows, columns, to);
  }
}

// access(memory, words of the tile, bytes) for each row as it lies in memory.
template <typename Space, typename F>
POS_INLINE bool ForEachRow(Warp* w, const Inst* i, const Tile& tile, F access) {
  using A = typename Space::Address;
  const A base = static_cast<A>(In<A>(w, i->a)[0] + static_cast<A>(i->imm));
  const s64 stride = static_cast<s32>(In<u32>(w, i->b)[0]);
  const u32 count = tile.across ? tile.columns : tile.rows;
  const u32 bytes = (tile.across ? tile.rows : tile.columns) * tile.bits / 8;
  for (u32 r = 0; r < count; ++r) {
    const A address = static_cast<A>(
        base + static_cast<A>(stride * s64{r} * s64{tile.bits} / 8));
    std::byte* const at = RowAt<Space>(w, i, 0, address, bytes, tile.alignment);
    if (at == nullptr) return false;
    access(at, r * bytes, bytes);
  }
  return true;
}

template <typename W>
POS_INLINE void TileToLanes(const Warp* w, const Inst* i, const Tile& tile,
                            const W* words) {
  const u32* const list = w->lists + i->e;
  if (tile.part == kTileC) {
    ForEachResultBlock(tile.m, tile.n, [=](u32 number, u32 row, u32 column) {
      if (sizeof(W) == 4 && tile.bits == 16) {
        const u32 pitch = tile.n / 2;
        BlockToLanes(
            reinterpret_cast<const u32*>(words) + row * pitch + column / 2,
            pitch, Out<u32>(w, list[number]));
        return;
      }
      ResultToLanes(words + row * tile.n + column, tile.n, 1,
                    Out<W>(w, list[2 * number]),
                    Out<W>(w, list[2 * number + 1]));
    });
    return;
  }
  const Blocks blocks = tile.part == kTileA
                            ? BlocksOfA(tile.m, tile.k, tile.type)
                            : BlocksOfB(tile.n, tile.k, tile.type);
  const u32 pitch = blocks.along_k * 4;
  const u32 registers = blocks.tiles * blocks.halves * blocks.along_k;
  ForEachBlock(blocks, [=](u32 reg, u32 row, u32 chunk) {
    for (u32 copy = reg; copy < i->n; copy += registers) {
      BlockToLanes(words + row * pitch + chunk, pitch, Out<W>(w, list[copy]));
    }
  });
}

template <typename W>
POS_INLINE void TileFromLanes(const Warp* w, const Inst* i, const Tile& tile,
                              W* words) {
  const u32* const list = w->lists + i->e;
  ForEachResultBlock(tile.m, tile.n, [=](u32 number, u32 row, u32 column) {
    if (sizeof(W) == 4 && tile.bits == 16) {
      const u32 pitch = tile.n / 2;
      BlockFromLanes(In<u32>(w, list[number]),
                     reinterpret_cast<u32*>(words) + row * pitch + column / 2,
                     pitch);
      return;
    }
    ResultFromLanes(In<W>(w, list[2 * number]), In<W>(w, list[2 * number + 1]),
                    words + row * tile.n + column, tile.n, 1);
  });
}

template <typename Space>
struct WmmaLoad {
  static const Inst* Run(Warp* w, const Inst* i) {
    const Inst* next = nullptr;
    if (!WholeWarp(w, i, &next)) return next;
    const Tile tile = TileOf(i);
    alignas(64) u32 loaded[kTileWords];
    alignas(64) u32 turned[kTileWords];
    std::byte* const to = reinterpret_cast<std::byte*>(&loaded[0]);
    const bool done = ForEachRow<Space>(
        w, i, tile, [=](const std::byte* at, u32 offset, u32 bytes) {
          CopyRow(to + offset, at, bytes, at);
        });
    if (!done) return nullptr;
    // The copy is what the registers come from: one load of each element.
    asm volatile("" : : "r"(to) : "memory");
    const u32* words = &loaded[0];
    if (tile.across) {
      TransposeBits(loaded, tile.columns, tile.rows, tile.bits, turned);
      words = &turned[0];
    }
    if (tile.bits == 64) {
      TileToLanes(w, i, tile, reinterpret_cast<const u64*>(words));
    } else {
      TileToLanes(w, i, tile, words);
    }
    w->slice -= kMatrixCost;
    return i + 1;
  }
};

template <typename Space>
struct WmmaStore {
  static const Inst* Run(Warp* w, const Inst* i) {
    const Inst* next = nullptr;
    if (!WholeWarp(w, i, &next)) return next;
    const Tile tile = TileOf(i);
    alignas(64) u32 given[kTileWords];
    alignas(64) u32 turned[kTileWords];
    if (tile.bits == 64) {
      TileFromLanes(w, i, tile, reinterpret_cast<u64*>(&given[0]));
    } else {
      TileFromLanes(w, i, tile, &given[0]);
    }
    const u32* words = &given[0];
    if (tile.across) {
      TransposeBits(given, tile.rows, tile.columns, tile.bits, turned);
      words = &turned[0];
    }
    const std::byte* const from = reinterpret_cast<const std::byte*>(words);
    const bool done = ForEachRow<Space>(
        w, i, tile, [=](std::byte* at, u32 offset, u32 bytes) {
          CopyRow(at, from + offset, bytes, at);
        });
    w->slice -= kMatrixCost;
    return done ? i + 1 : nullptr;
  }
};

// ---- ldmatrix, stmatrix: 8 rows of 8 elements of 16 bits each. Lane 8 j + r
// has the address of row r of matrix j.

constexpr u32 kMostMatrices = 4;
using RowWords = u32[kMostMatrices][8][4];

template <typename Space, typename F>
POS_INLINE bool ForEachRowAddress(Warp* w, const Inst* i, F access) {
  using A = typename Space::Address;
  const A* address = In<A>(w, i->a);
  for (u32 lane = 0; lane < 8 * i->n; ++lane) {
    const A at = static_cast<A>(address[lane] + static_cast<A>(i->imm));
    if constexpr (sizeof(A) == 8) {
      if ((at & ~0xffffffffull) != kSharedWindow) {
        RaiseFault(w, i, lane, kErrorInvalidAddressSpace, at,
                   "a matrix that is not in shared memory");
        return false;
      }
    }
    std::byte* const row = Space::template At<16>(w, i, lane, at);
    if (row == nullptr) return false;
    access(row, lane);
  }
  return true;
}

template <typename Space>
struct LoadRows {
  static const Inst* Run(Warp* w, const Inst* i) {
    const Inst* next = nullptr;
    if (!WholeWarp(w, i, &next)) return next;
    alignas(64) RowWords rows;
    std::byte* const to = reinterpret_cast<std::byte*>(&rows[0][0][0]);
    const bool done =
        ForEachRowAddress<Space>(w, i, [=](const std::byte* row, u32 lane) {
          CopyOne<16>(to + 16 * lane, row);
        });
    if (!done) return nullptr;
    asm volatile("" : : "r"(to) : "memory");
    const bool turned = (i->flags & kRowsTransposed) != 0;
    for (u32 j = 0; j < i->n; ++j) {
      u32* const d = Out<u32>(w, w->lists[i->e + j]);
      if (turned) {
        Transpose<u16>(&rows[j][0][0], 8, 8, d);
      } else {
        __builtin_memcpy(d, &rows[j][0][0], 4 * kLanes);
      }
    }
    return i + 1;
  }
};

template <typename Space>
struct StoreRows {
  static const Inst* Run(Warp* w, const Inst* i) {
    const Inst* next = nullptr;
    if (!WholeWarp(w, i, &next)) return next;
    alignas(64) RowWords rows;
    const bool turned = (i->flags & kRowsTransposed) != 0;
    for (u32 j = 0; j < i->n; ++j) {
      const u32* const from = In<u32>(w, w->lists[i->e + j]);
      if (turned) {
        Transpose<u16>(from, 8, 8, &rows[j][0][0]);
      } else {
        __builtin_memcpy(&rows[j][0][0], from, 4 * kLanes);
      }
    }
    const std::byte* const from =
        reinterpret_cast<const std::byte*>(&rows[0][0][0]);
    const bool done = ForEachRowAddress<Space>(
        w, i,
        [=](std::byte* row, u32 lane) { CopyOne<16>(row, from + 16 * lane); });
    return done ? i + 1 : nullptr;
  }
};

struct TurnRows {
  static const Inst* Run(Warp* w, const Inst* i) {
    const Inst* next = nullptr;
    if (!WholeWarp(w, i, &next)) return next;
    alignas(64) u32 turned[kLanes];
    Transpose<u16>(In<u32>(w, i->a), 8, 8, turned);
    u32* const d = Out<u32>(w, i->d);
    POS_LANES(l) { d[l] = turned[l]; }
    return i + 1;
  }
};

}  // namespace

HandlerPair PickWmmaLoad(const PickKey& k) {
  switch (k.space) {
    case Space::kGlobal:
      return Same<WmmaLoad<GlobalSpace>>();
    case Space::kShared:
      return Same<WmmaLoad<SharedSpace>>();
    default:
      return Same<WmmaLoad<GenericSpace>>();
  }
}
HandlerPair PickWmmaStore(const PickKey& k) {
  switch (k.space) {
    case Space::kGlobal:
      return Same<WmmaStore<GlobalSpace>>();
    case Space::kShared:
      return Same<WmmaStore<SharedSpace>>();
    default:
      return Same<WmmaStore<GenericSpace>>();
  }
}
HandlerPair PickLdmatrix(const PickKey& k) {
  return k.space == Space::kShared ? Same<LoadRows<SharedSpace>>()
                                   : Same<LoadRows<GenericSpace>>();
}
HandlerPair PickStmatrix(const PickKey& k) {
  return k.space == Space::kShared ? Same<StoreRows<SharedSpace>>()
                                   : Same<StoreRows<GenericSpace>>();
}
HandlerPair PickMovmatrix(const PickKey&) { return Same<TurnRows>(); }

}  // namespace pos::ptx::POS_PTX_ISA
