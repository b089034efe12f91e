// The instruction table (opcodes.def) and how an opcode finds its row.
//
// Threads: any; constants after the first call.
#ifndef POS_CUDA_IMPL_PTX_OPCODES_H_
#define POS_CUDA_IMPL_PTX_OPCODES_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/ptx/isa/isa.h"
#include "pos/cuda_impl/ptx/types.h"

namespace pos::ptx {

// How the operands of an instruction are decoded.
enum class Shape : std::uint8_t {
  kAlu,   // as the row's operand column says
  kSetp,  // the same; comparison and an optional predicate to combine with
  kMov,   // also packs, unpacks and takes addresses
  kCvt,   // registers may be wider than the types
  kPrmt,
  kVideo,  // operands may have selectors, those of vmad a minus
  kCvta,
  kLoad,
  kStore,
  kLoadParam,
  kStoreParam,
  kAtom,   // d, [a], b [, c]
  kRed,    // [a], b
  kStack,  // alloca, stacksave, stackrestore
  kFence,
  kNothing,  // has no effect here
  kMbarrier,
  kCopiesArrive,  // cp.async.mbarrier.arrive
  kCpAsync,
  kBulkCopy,
  kBulkZero,
  kCluster,  // mapa, getctarank; and createpolicy
  kActivemask,
  kNanosleep,
  kBra,
  // From here on: lanes that a guard excludes must not be part of the fragment
  // that executes it, so that a guard becomes a branch.
  kBrx,
  kCall,
  kRet,
  kExit,
  kTrap,
  kBarrier,
  kCollective,  // as the operand column; the last source is the member mask
  kMma,         // matrix instructions: lower_matrix.cc
  kWmmaLoad,
  kWmmaStore,
  kLdmatrix,
  kStmatrix,
  kMovmatrix,
  kFirstAlone = kBrx,
};

struct OpcodeRow {
  std::string_view base;
  std::string_view pattern;
  Shape shape;
  std::string_view operands;
};

[[nodiscard]] std::size_t OpcodeRowCount();
[[nodiscard]] const OpcodeRow& GetOpcodeRow(std::size_t row);

// An opcode's spelling taken apart.
struct OpcodeInfo {
  static constexpr std::uint32_t kNoRow = 0xffffffff;
  std::uint32_t row = kNoRow;
  std::string_view base;
  std::vector<std::string_view> words;  // modifiers in order
  PickKey key;  // widths of operands are filled in by the decoder
  [[nodiscard]] bool Has(std::string_view word) const;
};

// `opcode` must outlive the result.
[[nodiscard]] OpcodeInfo ParseOpcode(std::string_view opcode);
[[nodiscard]] bool IsSupported(std::string_view opcode);

// Functions that the interpreter itself provides (vprintf, malloc, …).
[[nodiscard]] bool IsBuiltin(std::string_view function);

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_OPCODES_H_
