// What the files about matrix instructions share. Included only by isa/*.cc.
#ifndef POS_CUDA_IMPL_PTX_ISA_MATRIX_OPS_H_
#define POS_CUDA_IMPL_PTX_ISA_MATRIX_OPS_H_

#include "pos/cuda_impl/ptx/isa/lanes.h"
#include "pos/cuda_impl/ptx/matrix.h"

namespace pos::ptx::POS_PTX_ISA {

// One product D = A B + C outside of its fragments. A is rows of k packed
// elements; B is columns of k packed elements.
struct MatrixProduct {
  std::uint32_t m, n, k;
  Type type_a, type_b, type_c, type_d;
  std::uint32_t flags;  // Inst::flags
  // In words of 32 bits; f64: 64.
  std::uint32_t pitch_a, pitch_b;
  alignas(64) std::uint32_t a[512];
  alignas(64) std::uint32_t b[512];
  // C before, D afterwards: element (row, column) at row * step_row + column *
  // step_column, 32 bits wide (f16 in the low half), or 64.
  std::uint32_t step_row, step_column;
  alignas(64) std::uint32_t c[512];
};

// Each of them for the element types of its name. See matrix_float.cc for what
// is rounded where.
void MultiplyFloat(MatrixProduct* p);  // f16 bf16 tf32 e4m3 e5m2
void MultiplyDouble(MatrixProduct* p);
void MultiplyInteger(MatrixProduct* p);  // s8 u8 s4 u4
void MultiplyBits(MatrixProduct* p);
// Four products of 8 x 8 x 4, for m8n8k4.f16: elements of a and b are f16 in
// words of their own; c holds 64 elements of each product.
void MultiplyQuads(MatrixProduct* p);

namespace {

// How the blocks of one operand's fragment lie (matrix.h).
struct Blocks {
  u32 tiles;
  u32 halves;
  u32 along_k;
};

POS_INLINE u32 ElementBits(Type type) {
  if (type == Type::kS4 || type == Type::kU4) return 4;
  if (type == Type::kB1) return 1;
  if (type == Type::kE4m3 || type == Type::kE5m2) return 8;
  return 8 * Bytes(type);
}
POS_INLINE u32 ChunkBits(Type type) { return type == Type::kF64 ? 64 : 32; }

POS_INLINE Blocks BlocksOfA(u32 m, u32 k, Type type) {
  const u32 halves = m >= 16 ? 2 : 1;
  return {m / 8 / halves, halves, k * ElementBits(type) / ChunkBits(type) / 4};
}
POS_INLINE Blocks BlocksOfB(u32 n, u32 k, Type type) {
  return {n / 8, 1, k * ElementBits(type) / ChunkBits(type) / 4};
}

// f(register, row, chunk) for each block.
template <typename F>
POS_INLINE void ForEachBlock(const Blocks& blocks, F f) {
  u32 reg = 0;
  for (u32 tile = 0; tile < blocks.tiles; ++tile) {
    for (u32 q = 0; q < blocks.along_k; ++q) {
      for (u32 h = 0; h < blocks.halves; ++h) {
        f(reg++, 8 * (tile * blocks.halves + h), 4 * q);
      }
    }
  }
}

// f(number, row, column) for each 8 x 8 block of C or D.
template <typename F>
POS_INLINE void ForEachResultBlock(u32 m, u32 n, F f) {
  const u32 halves = m >= 16 ? 2 : 1;
  u32 number = 0;
  for (u32 i = 0; i < m / 8 / halves; ++i) {
    for (u32 j = 0; j < n / 8; ++j) {
      for (u32 h = 0; h < halves; ++h) {
        f(number++, 8 * (i * halves + h), 8 * j);
      }
    }
  }
}

// A register to its block in a matrix of packed rows, and back.
template <typename W>
POS_INLINE void BlockFromLanes(const W* lanes, W* matrix, u32 pitch) {
  for (u32 g = 0; g < 8; ++g) {
    __builtin_memcpy(matrix + g * pitch, lanes + 4 * g, 4 * sizeof(W));
  }
}
template <typename W>
POS_INLINE void BlockToLanes(const W* matrix, u32 pitch, W* lanes) {
  for (u32 g = 0; g < 8; ++g) {
    __builtin_memcpy(lanes + 4 * g, matrix + g * pitch, 4 * sizeof(W));
  }
}

// Registers of C or D between their lanes and a matrix of elements.
template <typename W>
POS_INLINE void ResultFromLanes(const W* even, const W* odd, W* matrix,
                                u32 step_row, u32 step_column) {
  for (u32 g = 0; g < 8; ++g) {
    for (u32 t = 0; t < 4; ++t) {
      W* at = matrix + g * step_row + 2 * t * step_column;
      at[0] = even[4 * g + t];
      at[step_column] = odd[4 * g + t];
    }
  }
}
template <typename W>
POS_INLINE void ResultToLanes(const W* matrix, u32 step_row, u32 step_column,
                              W* even, W* odd) {
  for (u32 g = 0; g < 8; ++g) {
    for (u32 t = 0; t < 4; ++t) {
      const W* at = matrix + g * step_row + 2 * t * step_column;
      even[4 * g + t] = at[0];
      odd[4 * g + t] = at[step_column];
    }
  }
}
POS_INLINE void HalvesFromLanes(const u32* pairs, u32* matrix, u32 step_row,
                                u32 step_column) {
  for (u32 g = 0; g < 8; ++g) {
    for (u32 t = 0; t < 4; ++t) {
      u32* at = matrix + g * step_row + 2 * t * step_column;
      at[0] = pairs[4 * g + t] & 0xffff;
      at[step_column] = pairs[4 * g + t] >> 16;
    }
  }
}
POS_INLINE void HalvesToLanes(const u32* matrix, u32 step_row, u32 step_column,
                              u32* pairs) {
  for (u32 g = 0; g < 8; ++g) {
    for (u32 t = 0; t < 4; ++t) {
      const u32* at = matrix + g * step_row + 2 * t * step_column;
      pairs[4 * g + t] = at[0] | at[step_column] << 16;
    }
  }
}

// Matrix instructions are .aligned: every lane of the warp executes them
// together. True when all are here; else what the handler returns is in *next.
POS_INLINE bool WholeWarp(Warp* w, const Inst* i, const Inst** next) {
  if (w->active == ~0u) return true;
  if (w->live != ~0u) {
    *next = RaiseFault(w, i, static_cast<u32>(__builtin_ctz(w->active)),
                       kErrorIllegalInstruction, 0,
                       "a matrix instruction in a warp that does not have 32 "
                       "threads any more");
  } else {
    *next = WaitForLanes(w, i);
  }
  return false;
}

// Rows that vector code takes at once.
constexpr u32 kMatrixGroup = 16;
#if defined(__clang__)
#define POS_GROUP(l)                                                  \
  _Pragma("clang loop vectorize(assume_safety)") for (unsigned l = 0; \
                                                      l < kMatrixGroup; ++l)
#else
#define POS_GROUP(l) \
  _Pragma("GCC ivdep") for (unsigned l = 0; l < kMatrixGroup; ++l)
#endif

// Vectors as wide as the level has them.
#if defined(__AVX512F__)
constexpr u32 kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr u32 kVectorBytes = 32;
#else
constexpr u32 kVectorBytes = 16;
#endif
typedef float Floats __attribute__((vector_size(kVectorBytes), may_alias));
typedef s32 Ints __attribute__((vector_size(kVectorBytes), may_alias));
constexpr u32 kWidth = kVectorBytes / 4;
constexpr u32 kParts = kMatrixGroup / kWidth;

// Charged to the slice for one of these, which takes as long as many others.
constexpr s32 kMatrixCost = 16;

}  // namespace
}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_MATRIX_OPS_H_
