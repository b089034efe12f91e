// A kernel as the interpreter runs it: the decoded instructions of the kernel
// and of everything that it can call, and how much memory one warp needs.
//
// Registers: a virtual register of a warp is 32 lanes side by side; a predicate
//   is one 32-bit mask. Registers that are never needed at the same time share
//   a place in the frame (regalloc.h).
// Operands:  32 bits: byte offset << 2 | where (OperandBase). Immediates and
//   special registers are 32 equal (or precomputed) lanes in memory, so that a
//   handler has one way to read its inputs. Destinations are plain byte
//   offsets into the frame.
//
// Threads:   immutable once made.
#ifndef POS_CUDA_IMPL_PTX_PROGRAM_H_
#define POS_CUDA_IMPL_PTX_PROGRAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "pos/cuda_impl/ptx/types.h"

namespace pos::ptx {

class Module;
struct Inst;
struct Warp;

// Executes one instruction for the active lanes and returns the next one;
// nullptr when the warp cannot go on (it waits, has ended, faulted, or its turn
// is over).
using Handler = const Inst* (*)(Warp*, const Inst*);

enum OperandBase : std::uint32_t {
  kInFrame = 0,    // the function's registers
  kInProgram = 1,  // constants of the program
  kInLaunch = 2,   // the same for the whole launch
  kInWarp = 3,     // special registers of this warp
};

struct alignas(64) Inst {
  Handler fn[2];    // [1]: some lane of the frame is not active
  std::uint32_t d;  // destination: offset into the frame
  std::uint32_t a;  // operands
  std::uint32_t b;
  std::uint32_t c;
  std::int64_t imm;  // address offset, branch target, …: as the handler says
  std::uint32_t e;   // fourth operand, or first of `n` in Program::lists
  std::uint32_t n;
  std::uint32_t flags;   // InstFlags and what the handler defines
  std::uint32_t cost;    // branches: instructions since the last one
  std::uint32_t cache;   // memory accesses: slot of the allocation cache
  std::uint32_t source;  // into Program::sources
};
static_assert(sizeof(Inst) == 64);

// Common bits of Inst::flags. The low half belongs to modifiers.
enum InstFlags : std::uint32_t {
  kRoundMask = 3u,     // FloatRounding
  kFtz = 1u << 2,      // flush subnormals to zero
  kSat = 1u << 3,      // saturate
  kNegateA = 1u << 4,  // predicate operand a is "!%p"; and so on
  kNegateB = 1u << 5,
  kNegateC = 1u << 6,
  kNegateE = 1u << 11,
  kRelu = 1u << 7,
  kXorSign = 1u << 8,
  kNanFlag = 1u << 9,      // min.NaN
  kNoDest = 1u << 10,      // the destination is not wanted
  kSyncAccess = 1u << 12,  // memory: others may wait for it
  kAligned = 1u << 15,     // all lanes of the warp execute it together
  // Memory: log2 of bytes of an element (17), of a register (19), signed (21).
  kElementShift = 17,
  kRegisterShift = 19,
  kElementSigned = 1u << 21,
  kHandlerShift = 16,  // bits from here on: the handler's own
};

enum FloatRounding : std::uint32_t {
  kRoundNearest = 0,
  kRoundDown = 1,  // toward -inf; the order is that of MXCSR's bits
  kRoundUp = 2,
  kRoundZero = 3,
};

// Parameter memory of one activation, per lane: the formal results, the formal
// parameters, then the .param variables with which it calls others. Formals
// that are registers have a place there too; code at the function's entry and
// before its `ret` copies them.

// One argument or result of a call, copied between the caller's frame and the
// callee's parameter memory.
struct CallMove {
  bool caller_is_register = false;
  std::uint32_t caller = 0;  // register: operand (argument) or frame offset
                             // (result); else offset in the caller's bytes
  std::uint32_t callee = 0;  // offset in the callee's bytes
  std::uint32_t bytes = 0;
};

struct CallSite {
  std::vector<CallMove> arguments;
  std::vector<CallMove> results;
  std::uint32_t formal_bytes = 0;  // what the caller thinks the formals take
};

struct ProgramFunction {
  std::uint32_t unit_function = 0;  // index in ast::Unit::functions
  std::uint32_t entry = 0;          // index of its first Inst
  std::uint32_t frame_bytes = 0;
  std::uint32_t param_bytes = 0;  // parameter memory of one lane
  std::uint32_t local_bytes = 0;  // of one lane
  // Registers that may be read before they are written, as byte ranges.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> zero;
  std::uint32_t formal_bytes = 0;  // results and parameters, of param_bytes
};

struct Program {
  std::vector<Inst> code;                  // ends with a guard that faults
  std::vector<ProgramFunction> functions;  // [0] is the kernel
  std::vector<std::uint32_t> lists;        // operands beyond four
  std::vector<CallSite> calls;
  std::vector<std::vector<std::uint32_t>> branch_tables;  // code indices
  // Function number in the unit -> index in `functions`.
  std::unordered_map<std::uint32_t, std::uint32_t> function_of_unit;

  std::vector<std::byte> constant_storage;
  std::uint32_t constant_bytes = 0;
  const std::byte* constants = nullptr;  // 64-byte aligned, in the storage

  // Which special registers the code reads, in the order in which their lanes
  // lie in the launch's and the warp's block: 128 bytes each, 256 for the
  // 64-bit ones.
  std::vector<Special> launch_specials;
  std::vector<Special> warp_specials;
  std::uint32_t launch_bytes = 0;
  std::uint32_t warp_bytes = 0;

  std::uint32_t static_shared_bytes = 0;
  std::uint32_t cache_slots = 0;  // memory instructions
  std::uint32_t call_depth = 0;   // functions in the deepest chain
  std::uint32_t local_bytes = 0;  // of that chain; one turn when recursive
  bool recursive = false;
  bool takes_stack = false;     // alloca
  std::uint64_t code_base = 0;  // address of function 0, for indirect calls
  bool uses_grid_workspace = false;  // %envreg1, %envreg2

  struct Source {
    std::uint32_t unit_function = 0;
    std::uint32_t instruction = 0;
  };
  std::vector<Source> sources;
  std::shared_ptr<const Module> module;
  std::uint32_t entry = 0;  // index in Module::entries()

  void (*run)(Warp*, const Inst*) = nullptr;  // the loop of the chosen level
};

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_PROGRAM_H_
