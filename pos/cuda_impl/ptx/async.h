// Handlers of asynchronous copies, of mbarriers and of what concerns other
// blocks of a cluster: compiled once, for their time goes into memory.
//
// Copies are made when they are issued, in the order of the lanes. That is one
// of the orders that the ISA allows: a program that looks at the destination,
// or changes the source, before it has waited gets no promise from a GPU,
// either. So committing and waiting for groups of copies does nothing, and the
// bytes of a bulk copy have come to its mbarrier before the next instruction.
//
// Threads: as warp.h.
#ifndef POS_CUDA_IMPL_PTX_ASYNC_H_
#define POS_CUDA_IMPL_PTX_ASYNC_H_

#include <cstddef>
#include <cstdint>

#include "pos/cuda_impl/ptx/warp.h"

namespace pos::ptx::async {

// Bits of Inst::flags, from kHandlerShift on.
enum class MbarrierOp : std::uint32_t {  // 4 bits
  kInit,
  kInval,
  kExpectTx,
  kCompleteTx,
  kArrive,
  kArriveExpect,
  kArriveNoComplete,
  kDrop,
  kDropExpect,
  kDropNoComplete,
  kWaitState,
  kWaitParity,
  kCopiesArrive,
};
enum MbarrierFlags : std::uint32_t {
  kMbarrierGeneric = 1u << 20,  // the address is a generic one
  kMbarrierTry = 1u << 21,      // may suspend the thread
};
enum CopyFlags : std::uint32_t {
  kCopyHasSize = 1u << 16,    // c: bytes of the source, the rest is zero
  kCopyHasIgnore = 1u << 17,  // predicate c: all is zero
};
enum BulkFlags : std::uint32_t {
  kBulkToGlobal = 1u << 16,    // from shared memory; else to shared memory
  kBulkFromShared = 1u << 17,  // of shared memory to shared memory
  kBulkBlockMask = 1u << 18,   // x: blocks of the cluster that get it
  kBulkByteMask = 1u << 19,    // x: which of 16 bytes are written
};

// a: address, imm: offset; b: number of arrivals, bytes, state or parity; d:
// state before an arrival, or the predicate of a wait.
const Inst* DoMbarrier(Warp* warp, const Inst* inst);
// 32-bit d = arrivals that state a waited for.
const Inst* PendingCount(Warp* warp, const Inst* inst);

// cp.async: n bytes to shared a from global b; imm: offset of a in the low
// half, of b in the high one.
const Inst* Copy(Warp* warp, const Inst* inst);
// cp.async.bulk: c bytes to a from b; e: mbarrier when the destination is
// shared memory.
const Inst* BulkCopy(Warp* warp, const Inst* inst);
// st.bulk: b bytes (64 bits) of zeros to shared memory at a; a generic address
// with kMbarrierGeneric.
const Inst* BulkZero(Warp* warp, const Inst* inst);

// d = a, of n bytes: the address a in block b of the cluster.
const Inst* MapToBlock(Warp* warp, const Inst* inst);
// d = imm, of n bytes.
const Inst* SetConstant(Warp* warp, const Inst* inst);

// `bytes` bytes have come to the mbarrier at `address`; false after a fault.
bool CompleteTx(Warp* warp, const Inst* inst, std::uint32_t lane,
                std::uint32_t address, std::uint32_t bytes);

}  // namespace pos::ptx::async

#endif  // POS_CUDA_IMPL_PTX_ASYNC_H_
