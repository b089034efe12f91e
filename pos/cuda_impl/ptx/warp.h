// State of a warp while it runs, shared by the instruction handlers (isa/,
// compiled once per instruction-set level) and the scheduling around them.
//
// A warp is a set of fragments: lanes that are at the same instruction in the
// same frame. One fragment runs at a time: the one in the deepest call and, in
// the same frame, the one that is furthest behind; code is laid out so that
// whoever is behind can catch up (layout.h). `frontier` is the instruction of
// the next fragment in this frame: reaching it merges, passing it switches.
// That gives back convergence without a stack of join points.
//
// This header is included by code compiled for newer processors, so it holds
// plain data and declarations only: an inline function here could be emitted
// with instructions that the machine lacks.
//
// Threads:   a warp belongs to the worker that runs its block.
#ifndef POS_CUDA_IMPL_PTX_WARP_H_
#define POS_CUDA_IMPL_PTX_WARP_H_

#include <cstddef>
#include <cstdint>

#include "pos/cuda_impl/ptx/program.h"

namespace pos::ptx {

struct Block;
struct Worker;

constexpr std::uint32_t kLanes = 32;

// One activation of a function by some lanes. Lanes that call from the same
// instruction of the same frame share an activation: their lanes of its
// registers are disjoint.
struct Frame {
  std::byte* registers;
  std::byte* params;   // [lane][ProgramFunction::param_bytes]
  Frame* parent;       // nullptr: the kernel's own
  const Inst* call;    // in the parent
  std::uint32_t live;  // lanes in this frame or in one called from it
  std::uint32_t depth;
  std::uint32_t function;  // index in Program::functions
  std::uint32_t param_bytes;
  std::uint32_t local_base;  // local address of its .local variables
  Frame* next;               // in the warp's list of active or free frames
};

enum class FragmentState : std::uint8_t {
  kReady,
  kCollective,  // waits for other lanes of the warp at `at`
  kBarrier,     // waits for other warps at a barrier of the block
};

struct Fragment {
  std::uint32_t mask;
  FragmentState state;
  std::uint8_t barrier;
  std::uint32_t last_run;  // Warp::turn when it last ran
  const Inst* at;
  Frame* frame;
};

enum class WarpState : std::uint8_t {
  kReady,
  kWaiting,  // no fragment can run
  kDone,     // every lane has exited
  kFaulted,
};

// A range that the last access of an instruction hit.
struct AccessCache {
  std::uint64_t base;
  std::uint64_t limit;
};

struct Warp {
  std::byte* base[4];      // by OperandBase
  std::uint32_t active;    // lanes that execute the current instruction
  std::uint32_t partial;   // index of the handler: 0 when active == frame->live
  std::uint32_t masked;    // 1: `partial` is never 0 (LanePolicy::kMasked)
  bool apart;              // fragments of one lane only (LanePolicy::kApart)
  const Inst* frontier;    // where the next fragment of this frame waits
  std::int32_t slice;      // instructions left before others get their turn
  std::uint32_t sync_ops;  // accesses in this slice that may be waiting
  const Inst* code;
  const std::uint32_t* lists;  // Program::lists
  Frame* frame;
  AccessCache* cache;
  std::byte* shared;
  std::uint32_t shared_bytes;
  std::uint32_t local_stride;  // bytes of .local per lane
  std::byte* local;            // [lane][local_stride]
  std::uint32_t local_frames;  // of them, for frames; the rest for alloca
  const std::byte* params;     // of the kernel
  std::uint32_t params_bytes;
  std::uint32_t live;  // lanes that have not exited
  const Program* program;
  Worker* worker;
  Block* block;

  WarpState state;
  bool rotate;             // the next turn is for who has waited longest
  std::uint32_t straight;  // turns since it last was
  std::uint32_t index;     // in the block
  std::uint32_t turn;
  std::uint32_t waiting_count;
  Fragment waiting[kLanes];  // the others
  Frame* active_frames;      // besides the kernel's own
  Frame* free_frames;
  Frame kernel_frame;
  // Of programs with alloca: where each lane's stack ends, from above.
  std::uint32_t stack[kLanes];
};

// Charged to the slice for an access that other threads may be waiting for or
// be awaited by: brings spinning lanes to their end of turn soon.
constexpr std::int32_t kSyncCost = 32;

// ---- Slow paths, compiled once. Each returns what a handler returns.

// The running fragment goes on at `next`, which is at or beyond the frontier.
const Inst* Reconverge(Warp* warp, const Inst* next);
// The slice is used up; `next` is where the running fragment would go on.
const Inst* EndSlice(Warp* warp, const Inst* next);
// The active lanes in `taken` go to `target`, the others to `other`.
const Inst* Diverge(Warp* warp, std::uint32_t taken, const Inst* target,
                    const Inst* other);
// The running fragment cannot execute `at` before other lanes of the warp have
// come to a collective of the same kind.
const Inst* WaitForLanes(Warp* warp, const Inst* at);

// An access of `bytes` bytes at `address` by `lane`, outside of what `at`'s
// cache slot covers: finds the allocation and remembers it. False after having
// recorded a fault.
bool FindAccess(Warp* warp, const Inst* at, std::uint32_t lane,
                std::uint64_t address, std::uint32_t bytes);
// Records the first fault of this grid and stops the warp; returns nullptr.
const Inst* RaiseFault(Warp* warp, const Inst* at, std::uint32_t lane,
                       std::int32_t error, std::uint64_t address,
                       const char* what);

// CUresult values of execution faults.
constexpr std::int32_t kErrorIllegalAddress = 700;
constexpr std::int32_t kErrorAssert = 710;
constexpr std::int32_t kErrorHardwareStack = 714;
constexpr std::int32_t kErrorIllegalInstruction = 715;
constexpr std::int32_t kErrorMisalignedAddress = 716;
constexpr std::int32_t kErrorInvalidAddressSpace = 717;
constexpr std::int32_t kErrorInvalidPc = 718;
constexpr std::int32_t kErrorLaunchFailed = 719;

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_WARP_H_
