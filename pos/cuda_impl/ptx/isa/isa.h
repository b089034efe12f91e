// The seam between the decoder and the instruction handlers, which are compiled
// once per instruction-set level (baseline x86-64, v3, v4), each into its own
// namespace.
//
// Code under isa/ is built with instructions that the machine may lack, so it
// must not emit a symbol that the linker could merge with one of ordinary code:
// no inline function of a shared header, no standard library beyond types.
// tests/pos/cuda_impl/ptx/isa_symbols_test.py checks the objects.
//
// Threads: constants and pure functions.
#ifndef POS_CUDA_IMPL_PTX_ISA_ISA_H_
#define POS_CUDA_IMPL_PTX_ISA_ISA_H_

#include <cstdint>

#include "pos/cuda_impl/ptx/types.h"
#include "pos/cuda_impl/ptx/warp.h"

namespace pos::ptx {

enum class Compare : std::uint8_t {
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,  // signed, or ordered floats
  kLo,
  kLs,
  kHi,
  kHs,  // unsigned
  kEqu,
  kNeu,
  kLtu,
  kLeu,
  kGtu,
  kGeu,  // floats: true with a NaN
  kNum,
  kNan,
  kNone,
};

enum class BoolOp : std::uint8_t { kNone, kAnd, kOr, kXor };

enum class MemoryOp : std::uint8_t {
  kNone,
  kAnd,
  kOr,
  kXor,
  kCas,
  kExch,
  kAdd,
  kInc,
  kDec,
  kMin,
  kMax,
  kPopc,
};

// All that the choice of a handler depends on, from an opcode's modifiers and
// its operands.
struct PickKey {
  Type type[4] = {Type::kNone, Type::kNone, Type::kNone, Type::kNone};
  std::uint8_t types = 0;
  // Bytes of each operand's register, destinations first; 0 for a predicate.
  std::uint8_t width[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  Space space = Space::kGeneric;
  std::uint8_t vector = 1;  // .v2 .v4 .v8, or the number of elements of a {}
  Compare compare = Compare::kNone;
  BoolOp boolean = BoolOp::kNone;
  MemoryOp memory = MemoryOp::kNone;
  std::uint32_t flags = 0;  // InstFlags
  std::uint32_t words = 0;  // Words below
};

// Modifiers that choose between handlers and belong to no group of their own.
enum Words : std::uint32_t {
  kLo = 1u << 0,
  kHi = 1u << 1,
  kWide = 1u << 2,
  kApprox = 1u << 3,
  kFull = 1u << 4,
  kCarryOut = 1u << 5,  // .cc
  kCarryIn = 1u << 6,   // addc, subc, madc
  kLeft = 1u << 7,      // shf.l
  kWrap = 1u << 8,
  kShiftAmount = 1u << 9,
  kIntegral = 1u << 10,  // .rni .rzi .rmi .rpi
  kAbs = 1u << 11,
  kRoundAway = 1u << 12,  // .rna
  kSync = 1u << 13,       // volatile, relaxed, acquire, release, mmio
  kFence = 1u << 14,      // fence.sc, membar
  kUp = 1u << 15,
  kDown = 1u << 16,
  kButterfly = 1u << 17,
  kIdx = 1u << 18,
  kAll = 1u << 19,
  kAny = 1u << 20,
  kUni = 1u << 21,
  kBallot = 1u << 22,
  kRound = 1u << 23,  // a rounding mode is written
  kNoFtz = 1u << 24,
  kSatFinite = 1u << 25,
  kRelease = 1u << 26,
};

// Of Inst::imm: in setp and set above the 32 bits that set writes, and in what
// has f32 results from narrower operands.
enum ImmBits : std::uint64_t {
  kNarrowResult = std::uint64_t{1} << 32,  // the destination has 16 bits
  kFromBfloat = std::uint64_t{1} << 33,    // the sources are bf16, else f16
  kRelationAt = 34,  // 4 bits: for which the result is yes
};
enum RelationBits : std::uint32_t {
  kRelationLess = 1,
  kRelationEqual = 2,
  kRelationGreater = 4,
  kRelationNan = 8,
};

// Inst::imm of scalar video instructions. A source is described in 8 bits: the
// shift, log2 of its bytes, whether it is signed.
enum VideoBits : std::uint64_t {
  kVideoShift = 31,
  kVideoWidthAt = 5,
  kVideoSigned = 1u << 7,
  kVideoA = 0,  // where the description of a begins, and that of b
  kVideoB = 8,
  kVideoResultSigned = 1u << 16,
  kVideoSat = 1u << 17,
  kVideoWrap = 1u << 18,
  kVideoNegateProduct = 1u << 19,
  kVideoNegateC = 1u << 20,
  kVideoPlusOne = 1u << 21,
  kVideoSecondAt = 22,   // 2 bits: none, add, min, max
  kVideoPlaceAt = 24,    // 3 bits: all of d, .b0 to .b3, .h0, .h1
  kVideoCompareAt = 27,  // 3 bits: eq, ne, lt, le, gt, ge
  kVideoScaleAt = 30,    // 4 bits: how far vmad shifts right
};
// The same for two or four elements: the elements of a and b in 12 bits each.
enum VideoSimdBits : std::uint64_t {
  kSimdMaskAt = 24,  // 4 bits
  kSimdASigned = 1u << 28,
  kSimdBSigned = 1u << 29,
  kSimdResultSigned = 1u << 30,
  kSimdSat = 1u << 31,
  kSimdAdd = std::uint64_t{1} << 32,
  kSimdCompareAt = 33,  // 3 bits
};

struct HandlerPair {
  Handler full = nullptr;  // nullptr: no handler for this key
  Handler partial = nullptr;
};

struct IsaTable {
  // The handler of row `row` of opcodes.def.
  HandlerPair (*pick)(std::uint32_t row, const PickKey& key);
  // Runs from `at` until a handler returns nullptr.
  void (*run)(Warp* warp, const Inst* at);
  // (value in `bytes` bytes) copied to 32 lanes; for the decoder's constants.
};

namespace isa_baseline {
extern const IsaTable kTable;
}
namespace isa_v3 {
extern const IsaTable kTable;
}
namespace isa_v4 {
extern const IsaTable kTable;
}

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_ISA_ISA_H_
