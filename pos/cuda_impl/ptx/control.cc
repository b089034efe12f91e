#include "pos/cuda_impl/ptx/control.h"

#include <time.h>

#include <atomic>
#include <bit>
#include <cstring>

#include "pos/cuda_impl/ptx/ast.h"
#include "pos/cuda_impl/ptx/block.h"

namespace pos::ptx::control {
namespace {

// Recursion deeper than this is taken for endless.
constexpr std::uint32_t kMaxCallDepth = 1u << 15;
// What a call takes of the stack besides its .local variables (the return
// address, registers that are saved), once calls go round in a circle.
constexpr std::uint32_t kCallBytes = 16;

template <typename F>
void ForLanes(std::uint32_t mask, F f) {
  for (std::uint32_t left = mask; left != 0; left &= left - 1) {
    f(static_cast<std::uint32_t>(std::countr_zero(left)));
  }
}

std::byte* Operand(Warp* warp, std::uint32_t operand) {
  return warp->base[operand & 3] + (operand >> 2);
}

// Bytes of one lane of a register that holds `bytes` bytes of parameter.
std::size_t LaneBytes(std::uint32_t bytes) { return bytes == 1 ? 2 : bytes; }

// A frame for a call from `inst` in the running frame, shared with lanes that
// are in that call already; nullptr when there is no memory left.
Frame* EnterFrame(Warp* warp, const Inst* inst, std::uint32_t function) {
  // The latest first: what this frame called comes before the frame itself, so
  // deep recursion finds nothing at once.
  for (Frame* f = warp->active_frames; f != nullptr && f != warp->frame;
       f = f->next) {
    if (f->parent == warp->frame && f->call == inst &&
        f->function == function) {
      return f;
    }
  }
  const ProgramFunction& callee = warp->program->functions[function];
  Frame** free = &warp->free_frames;
  while (*free != nullptr && (*free)->function != function) {
    free = &(*free)->next;
  }
  Frame* frame = *free;
  if (frame != nullptr) {
    *free = frame->next;
  } else {
    constexpr std::size_t kFrameBytes = (sizeof(Frame) + 63) / 64 * 64;
    const std::size_t params = std::size_t{kLanes} * callee.param_bytes;
    std::byte* at = warp->block->frames.Take(kFrameBytes + callee.frame_bytes +
                                             params + 64);
    if (at == nullptr) return nullptr;
    frame = new (at) Frame();
    frame->registers = at + kFrameBytes;
    frame->params = frame->registers + callee.frame_bytes;
  }
  frame->parent = warp->frame;
  frame->call = inst;
  frame->live = 0;
  frame->depth = warp->frame->depth + 1;
  frame->function = function;
  frame->param_bytes = callee.param_bytes;
  frame->local_base =
      warp->frame->local_base +
      warp->program->functions[warp->frame->function].local_bytes;
  for (const auto& [offset, bytes] : callee.zero) {
    std::memset(frame->registers + offset, 0, bytes);
  }
  frame->next = warp->active_frames;
  warp->active_frames = frame;
  return frame;
}

void LeaveFrame(Warp* warp, Frame* frame) {
  Frame** at = &warp->active_frames;
  while (*at != frame) at = &(*at)->next;
  *at = frame->next;
  frame->next = warp->free_frames;
  warp->free_frames = frame;
}

void CopyArguments(Warp* warp, const CallSite& site, const Frame& callee) {
  const Frame& caller = *warp->frame;
  for (const CallMove& move : site.arguments) {
    const std::byte* from = move.caller_is_register
                                ? Operand(warp, move.caller)
                                : caller.params + move.caller;
    const std::size_t from_step =
        move.caller_is_register ? LaneBytes(move.bytes) : caller.param_bytes;
    ForLanes(warp->active, [&](std::uint32_t lane) {
      std::memcpy(
          callee.params + std::size_t{lane} * callee.param_bytes + move.callee,
          from + lane * from_step, move.bytes);
    });
  }
}

void CopyResults(Warp* warp, const CallSite& site, const Frame& callee) {
  const Frame& caller = *callee.parent;
  for (const CallMove& move : site.results) {
    std::byte* to = move.caller_is_register ? caller.registers + move.caller
                                            : caller.params + move.caller;
    const std::size_t step =
        move.caller_is_register ? LaneBytes(move.bytes) : caller.param_bytes;
    ForLanes(warp->active, [&](std::uint32_t lane) {
      const std::byte* from =
          callee.params + std::size_t{lane} * callee.param_bytes + move.callee;
      if (move.caller_is_register && move.bytes == 1) {
        const std::uint16_t wide = std::to_integer<std::uint16_t>(*from);
        std::memcpy(to + lane * step, &wide, 2);
      } else {
        std::memcpy(to + lane * step, from, move.bytes);
      }
    });
  }
}

// What the stack holds with `frame` on it. The deepest chain without a circle
// is paid for apart from the limit.
std::uint64_t StackBytes(const Warp& warp, const Frame& frame,
                         std::uint32_t local_bytes) {
  const std::uint32_t free_calls = warp.program->call_depth;
  const std::uint32_t calls =
      frame.depth > free_calls ? frame.depth - free_calls : 0;
  return std::uint64_t{frame.local_base} + local_bytes +
         std::uint64_t{kCallBytes} * calls;
}

// The active lanes go on at the beginning of a function of the program.
const Inst* Enter(Warp* warp, const Inst* inst, std::uint32_t function) {
  const CallSite& site =
      warp->program->calls[static_cast<std::size_t>(inst->imm)];
  const ProgramFunction& callee = warp->program->functions[function];
  const std::uint32_t lane =
      static_cast<std::uint32_t>(std::countr_zero(warp->active));
  if (callee.formal_bytes < site.formal_bytes) {
    return RaiseFault(warp, inst, lane, kErrorInvalidPc, 0,
                      "call of a function with other parameters");
  }
  Frame* const frame = warp->frame->depth < kMaxCallDepth
                           ? EnterFrame(warp, inst, function)
                           : nullptr;
  if (frame == nullptr ||
      StackBytes(*warp, *frame, callee.local_bytes) > warp->local_frames) {
    return RaiseFault(warp, inst, lane, kErrorHardwareStack, 0,
                      "the stack is too small for the calls "
                      "(CU_LIMIT_STACK_SIZE)");
  }
  CopyArguments(warp, site, *frame);
  frame->live |= warp->active;
  warp->slice -= static_cast<std::int32_t>(inst->cost);
  const Inst* const entry = warp->code + callee.entry;
  if (warp->slice < 0 || warp->waiting_count != 0) {
    warp->frame = frame;
    Suspend(warp, entry, FragmentState::kReady);
    if (warp->slice < 0) {
      warp->state = WarpState::kReady;
      return nullptr;
    }
    return Resume(warp, false);
  }
  warp->frame = frame;
  warp->base[kInFrame] = frame->registers;
  warp->partial = warp->active != frame->live ? 1 : warp->masked;
  return entry;
}

void RemoveLanes(Warp* warp, std::uint32_t lanes) {
  warp->live &= ~lanes;
  for (Frame* frame = warp->frame; frame != nullptr;) {
    Frame* const parent = frame->parent;
    frame->live &= ~lanes;
    if (frame->live == 0 && parent != nullptr) LeaveFrame(warp, frame);
    frame = parent;
  }
}

std::uint64_t Now(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// A multiprocessor's clock runs at about 2 GHz.
std::uint64_t ReadValue(Special special) {
  switch (special) {
    case Special::kClock:
    case Special::kClock64:
      return 2 * Now(CLOCK_MONOTONIC);
    case Special::kClockHi:
      return 2 * Now(CLOCK_MONOTONIC) >> 32;
    case Special::kGlobaltimerHi:
      return Now(CLOCK_REALTIME) >> 32;
    default:
      return Now(CLOCK_REALTIME);
  }
}

void Broadcast(Warp* warp, const Inst* inst, std::uint64_t value) {
  std::byte* const d = warp->base[kInFrame] + inst->d;
  ForLanes(warp->active, [&](std::uint32_t lane) {
    std::memcpy(d + std::size_t{lane} * inst->n, &value, inst->n);
  });
}

}  // namespace

const Inst* Call(Warp* warp, const Inst* inst) {
  return Enter(warp, inst, inst->n);
}

// Lanes may call different functions: one group after the other.
const Inst* CallIndirect(Warp* warp, const Inst* inst) {
  const auto* address =
      reinterpret_cast<const std::uint64_t*>(Operand(warp, inst->a));
  const auto lane = static_cast<std::uint32_t>(std::countr_zero(warp->active));
  std::uint32_t group = 0;
  ForLanes(warp->active, [&](std::uint32_t l) {
    if (address[l] == address[lane]) group |= 1u << l;
  });
  const std::uint32_t number =
      static_cast<std::uint32_t>(address[lane] >> 4 & 0xffff);
  const auto found = warp->program->function_of_unit.find(number);
  if (found == warp->program->function_of_unit.end() ||
      address[lane] !=
          warp->program->code_base + (std::uint64_t{number} << 4)) {
    return RaiseFault(warp, inst, lane, kErrorInvalidPc, address[lane],
                      "call of an address that is no function");
  }
  if (group != warp->active) {
    const std::uint32_t rest = warp->active & ~group;
    warp->active = rest;
    Suspend(warp, inst, FragmentState::kReady);
    warp->active = group;
  }
  return Enter(warp, inst, found->second);
}

const Inst* Return(Warp* warp, const Inst* inst) {
  Frame* const frame = warp->frame;
  if (frame->parent == nullptr) return Exit(warp, inst);
  const Inst* const next = frame->call + 1;
  CopyResults(warp,
              warp->program->calls[static_cast<std::size_t>(frame->call->imm)],
              *frame);
  warp->slice -= static_cast<std::int32_t>(inst->cost);
  frame->live &= ~warp->active;
  warp->frame = frame->parent;
  if (frame->live == 0) LeaveFrame(warp, frame);
  Suspend(warp, next, FragmentState::kReady);
  if (warp->slice < 0) {
    warp->state = WarpState::kReady;
    return nullptr;
  }
  return Resume(warp, false);
}

const Inst* Exit(Warp* warp, const Inst*) {
  RemoveLanes(warp, warp->active);
  warp->active = 0;
  if (warp->waiting_count != 0) CheckCollectives(warp);
  CheckBarriers(warp->block, warp);
  return Resume(warp, false);
}

const Inst* Trap(Warp* warp, const Inst* inst) {
  return RaiseFault(warp, inst,
                    static_cast<std::uint32_t>(std::countr_zero(warp->active)),
                    kErrorLaunchFailed, 0, "the kernel executed a trap");
}

const Inst* OffTheEnd(Warp* warp, const Inst* inst) {
  return RaiseFault(warp, inst, 0, kErrorInvalidPc, 0, "ran off the program");
}

const Inst* LocalAddress(Warp* warp, const Inst* inst) {
  Broadcast(warp, inst,
            warp->frame->local_base + static_cast<std::uint64_t>(inst->imm));
  return inst + 1;
}

const Inst* ReadSpecial(Warp* warp, const Inst* inst) {
  warp->slice -= kSyncCost;  // programs wait for time to pass
  ++warp->sync_ops;
  Broadcast(warp, inst, ReadValue(static_cast<Special>(inst->imm)));
  return inst + 1;
}

const Inst* Fence(Warp* warp, const Inst* inst) {
  warp->slice -= kSyncCost;
  ++warp->sync_ops;
  // Loads and stores are ordered as they are but for a load after a store.
  asm volatile("mfence" : : : "memory");
  return inst + 1;
}

// Others first: the turn ends at the next branch.
const Inst* Nanosleep(Warp* warp, const Inst* inst) {
  warp->slice = -1;
  ++warp->sync_ops;
  return inst + 1;
}

}  // namespace pos::ptx::control
