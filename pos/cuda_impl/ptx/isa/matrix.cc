// mma and wmma.mma: fragments are put together to matrices, multiplied and
// taken apart again.
#include "pos/cuda_impl/ptx/isa/handlers.h"
#include "pos/cuda_impl/ptx/isa/matrix_ops.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

// The registers of one product, by their position in the list.
struct Operands {
  const u32* d;
  const u32* a;
  const u32* b;
  const u32* c;
};

POS_INLINE Operands OperandsOf(const Warp* w, const Inst* i) {
  const u32* list = w->lists + i->e;
  const u32 count_d = i->flags >> kMatrixCountD & 15;
  const u32 count_a = i->flags >> kMatrixCountA & 15;
  const u32 count_b = i->flags >> kMatrixCountB & 15;
  return {list, list + count_d, list + count_d + count_a,
          list + count_d + count_a + count_b};
}

POS_INLINE Type TypeAt(const Inst* i, u32 shift) {
  return static_cast<Type>(static_cast<u64>(i->imm) >> shift & 0xff);
}

POS_INLINE void Describe(const Inst* i, MatrixProduct* p) {
  const u64 imm = static_cast<u64>(i->imm);
  p->m = imm >> kMatrixM & 0xff;
  p->n = imm >> kMatrixN & 0xff;
  p->k = imm >> kMatrixK & 0xffff;
  p->type_a = TypeAt(i, kMatrixTypeA);
  p->type_b = TypeAt(i, kMatrixTypeB);
  p->type_c = TypeAt(i, kMatrixTypeC);
  p->type_d = TypeAt(i, kMatrixTypeD);
  p->flags = i->flags;
  p->pitch_a = p->k * ElementBits(p->type_a) / ChunkBits(p->type_a);
  p->pitch_b = p->pitch_a;
  // Lanes of vector code go along the longer side: MultiplyFloat.
  const bool along_m = p->m >= 16;
  p->step_row = along_m ? 1 : p->n;
  p->step_column = along_m ? p->m : 1;
}

template <typename W>
POS_INLINE W* WordsOf(u32* words) {
  return reinterpret_cast<W*>(words);
}

template <typename W>
POS_INLINE void Gather(const Warp* w, const Operands& operands,
                       MatrixProduct* p) {
  ForEachBlock(
      BlocksOfA(p->m, p->k, p->type_a), [=](u32 reg, u32 row, u32 chunk) {
        BlockFromLanes(In<W>(w, operands.a[reg]),
                       WordsOf<W>(p->a) + row * p->pitch_a + chunk, p->pitch_a);
      });
  ForEachBlock(BlocksOfB(p->n, p->k, p->type_b), [=](u32 reg, u32 column,
                                                     u32 chunk) {
    BlockFromLanes(In<W>(w, operands.b[reg]),
                   WordsOf<W>(p->b) + column * p->pitch_b + chunk, p->pitch_b);
  });
  const bool halves = p->type_c == Type::kF16;
  ForEachResultBlock(p->m, p->n, [=](u32 number, u32 row, u32 column) {
    W* at = WordsOf<W>(p->c) + row * p->step_row + column * p->step_column;
    if constexpr (sizeof(W) == 4) {
      if (halves) {
        HalvesFromLanes(In<u32>(w, operands.c[number]), at, p->step_row,
                        p->step_column);
        return;
      }
    }
    ResultFromLanes(In<W>(w, operands.c[2 * number]),
                    In<W>(w, operands.c[2 * number + 1]), at, p->step_row,
                    p->step_column);
  });
}

template <typename W>
POS_INLINE void Scatter(const Warp* w, const Operands& operands,
                        MatrixProduct* p) {
  const bool halves = p->type_d == Type::kF16;
  ForEachResultBlock(p->m, p->n, [=](u32 number, u32 row, u32 column) {
    const W* at =
        WordsOf<W>(p->c) + row * p->step_row + column * p->step_column;
    if constexpr (sizeof(W) == 4) {
      if (halves) {
        HalvesToLanes(at, p->step_row, p->step_column,
                      Out<u32>(w, operands.d[number]));
        return;
      }
    }
    ResultToLanes(at, p->step_row, p->step_column,
                  Out<W>(w, operands.d[2 * number]),
                  Out<W>(w, operands.d[2 * number + 1]));
  });
}

template <typename W, void (*kMultiply)(MatrixProduct*)>
struct Mma {
  static const Inst* Run(Warp* w, const Inst* i) {
    const Inst* next = nullptr;
    if (!WholeWarp(w, i, &next)) return next;
    MatrixProduct p;
    Describe(i, &p);
    const Operands operands = OperandsOf(w, i);
    Gather<W>(w, operands, &p);
    kMultiply(&p);
    Scatter<W>(w, operands, &p);
    w->slice -= kMatrixCost;
    return i + 1;
  }
};

// m8n8k4.f16: lanes 0-3 and 16-19 hold the first of four products, 4-7 and
// 20-23 the second, and so on. `r` counts the lanes of one product.
struct MmaQuads {
  static POS_INLINE u32 Lane(u32 quad, u32 r) {
    return 4 * quad + (r & 3) + (r >= 4 ? 16 : 0);
  }
  // Element e of lane r's four of A (or of B, with columns for rows).
  static POS_INLINE u32 Place(bool across, u32 r, u32 e) {
    return across ? ((r & 4) + e) * 4 + (r & 3) : r * 4 + e;
  }
  static POS_INLINE u32 ResultPlace(bool halves, u32 r, u32 e) {
    if (halves) return r * 8 + e;
    const u32 row = (r & 1) + (e & 2) + (r & 4);
    const u32 column = (e & 4) + (r & 2) + (e & 1);
    return row * 8 + column;
  }

  static const Inst* Run(Warp* w, const Inst* i) {
    const Inst* next = nullptr;
    if (!WholeWarp(w, i, &next)) return next;
    MatrixProduct p;
    Describe(i, &p);
    const Operands operands = OperandsOf(w, i);
    for (u32 quad = 0; quad < 4; ++quad) {
      for (u32 r = 0; r < 8; ++r) GatherLane(w, operands, quad, r, &p);
    }
    MultiplyQuads(&p);
    const bool halves = p.type_d == Type::kF16;
    for (u32 quad = 0; quad < 4; ++quad) {
      for (u32 r = 0; r < 8; ++r) {
        const u32 lane = Lane(quad, r);
        for (u32 e = 0; e < 8; ++e) {
          const u32 value = p.c[quad * 64 + ResultPlace(halves, r, e)];
          if (halves) {
            Out<u16>(w, operands.d[e / 2])[2 * lane + e % 2] =
                static_cast<u16>(value);
          } else {
            Out<u32>(w, operands.d[e])[lane] = value;
          }
        }
      }
    }
    w->slice -= kMatrixCost;
    return i + 1;
  }

  static POS_INLINE void GatherLane(const Warp* w, const Operands& operands,
                                    u32 quad, u32 r, MatrixProduct* p) {
    const u32 lane = Lane(quad, r);
    const bool across_a = (p->flags & kMatrixColumnA) != 0;
    const bool across_b = (p->flags & kMatrixColumnB) == 0;
    for (u32 e = 0; e < 4; ++e) {
      p->a[quad * 32 + Place(across_a, r, e)] =
          In<u16>(w, operands.a[e / 2])[2 * lane + e % 2];
      p->b[quad * 32 + Place(across_b, r, e)] =
          In<u16>(w, operands.b[e / 2])[2 * lane + e % 2];
    }
    const bool halves = p->type_c == Type::kF16;
    for (u32 e = 0; e < 8; ++e) {
      p->c[quad * 64 + ResultPlace(halves, r, e)] =
          halves ? In<u16>(w, operands.c[e / 2])[2 * lane + e % 2]
                 : In<u32>(w, operands.c[e])[lane];
    }
  }
};

}  // namespace

// By the type of A's elements; kUni in the key: m8n8k4.f16.
HandlerPair PickMma(const PickKey& k) {
  switch (k.type[1]) {
    case Type::kF16:
      if ((k.words & kUni) != 0) return Same<MmaQuads>();
      return Same<Mma<u32, MultiplyFloat>>();
    case Type::kBf16:
    case Type::kTf32:
    case Type::kE4m3:
    case Type::kE5m2:
      return Same<Mma<u32, MultiplyFloat>>();
    case Type::kF64:
      return Same<Mma<u64, MultiplyDouble>>();
    case Type::kS8:
    case Type::kU8:
    case Type::kS4:
    case Type::kU4:
      return Same<Mma<u32, MultiplyInteger>>();
    case Type::kB1:
      return Same<Mma<u32, MultiplyBits>>();
    default:
      return {};
  }
}

}  // namespace pos::ptx::POS_PTX_ISA
