// How the decoder tells the handlers of matrix instructions what to do, and
// the shapes of wmma. Constants only: isa/ includes it.
//
// Fragments. A register of 32 lanes is a block of 8 rows of 4 chunks, in order:
// lane 4 g + t holds chunk t of row g. A chunk is 32 bits of consecutive
// elements along k (64 bits for f64). That is the layout that the PTX ISA
// documents for mma with shapes other than m8n8k4.f16:
//   A  block (rows 8 (2 i + h) …, chunks 4 q …) is register (i Q + q) H + h for
//      tile i of 8 H rows (H is 2 for m of 16 and more, else 1) and Q blocks
//      along k
//   B  the same with columns for rows and H = 1
//   C  and D: elements (row g, columns 2 t and 2 t + 1) of block (h, tile i of
//      m, tile j of n) are one register of two f16, or two registers, with
//      number (i N + j) H + h for N tiles of 8 columns
// The ISA leaves the layout for wmma open; here it is the same one, for all
// tiles of the larger shapes in turn. An f16 fragment of A or B has 8 registers
// whatever its size: what is left over repeats it from its first register on.
//
// Threads: constants.
#ifndef POS_CUDA_IMPL_PTX_MATRIX_H_
#define POS_CUDA_IMPL_PTX_MATRIX_H_

#include <cstdint>

namespace pos::ptx {

// Inst::imm of a product: bytes with m, n, then k in two, then the types of
// the elements of A, B, C and D.
enum MatrixImm : std::uint32_t {
  kMatrixM = 0,
  kMatrixN = 8,
  kMatrixK = 16,
  kMatrixTypeA = 32,
  kMatrixTypeB = 40,
  kMatrixTypeC = 48,
  kMatrixTypeD = 56,
};

// Inst::flags of a product. Its list holds D, A, B and C; these are the
// numbers of registers of the first three, four bits each.
enum MatrixFlags : std::uint32_t {
  kMatrixCountD = 16,
  kMatrixCountA = 20,
  kMatrixCountB = 24,
  kMatrixSaturate = 1u << 28,
  kMatrixXor = 1u << 29,      // b1: xor.popc, not and.popc
  kMatrixColumnA = 1u << 30,  // m8n8k4.f16 only; others are what they are
  kMatrixColumnB = 1u << 31,
};

// Inst::flags of wmma.load and wmma.store.
enum TileFlags : std::uint32_t {
  kTilePart = 16,  // two bits: TilePart
  kTileColumn = 1u << 18,
  kTileShape = 19,  // three bits: index in kWmmaShapes
  kTileType = 22,   // six bits: Type of the elements
};
enum TilePart : std::uint32_t { kTileA, kTileB, kTileC };

// Inst::flags of ldmatrix and stmatrix.
constexpr std::uint32_t kRowsTransposed = 1u << 16;

struct MatrixShape {
  std::uint32_t m, n, k;
};
constexpr MatrixShape kWmmaShapes[] = {{16, 16, 16}, {8, 32, 16}, {32, 8, 16},
                                       {16, 16, 8},  {8, 8, 4},   {8, 8, 32},
                                       {8, 8, 128}};

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_MATRIX_H_
