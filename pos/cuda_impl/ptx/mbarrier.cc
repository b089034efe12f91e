#include "pos/cuda_impl/ptx/mbarrier.h"

#include <bit>
#include <cstring>

#include "pos/cuda_impl/ptx/async.h"
#include "pos/cuda_impl/ptx/block.h"
#include "pos/cuda_impl/ptx/exec_layout.h"

namespace pos::ptx {
namespace {

constexpr std::uint32_t kExpectedShift = 20;
constexpr std::uint32_t kTxShift = 40;
constexpr std::uint32_t kTxBits = 21;
constexpr std::uint32_t kMarkShift = 61;
constexpr std::uint32_t kPhaseShift = 63;
constexpr std::uint64_t kMark = 1;

}  // namespace

bool Mbarrier::Unpack(std::uint64_t word, Mbarrier* out) {
  if ((word >> kMarkShift & 3) != kMark) return false;
  out->pending = static_cast<std::uint32_t>(word) & kMaxCount;
  out->expected =
      static_cast<std::uint32_t>(word >> kExpectedShift) & kMaxCount;
  const auto tx = static_cast<std::uint32_t>(word >> kTxShift)
                  << (32 - kTxBits);
  out->tx = static_cast<std::int32_t>(tx) >> (32 - kTxBits);
  out->phase = word >> kPhaseShift != 0;
  return true;
}

std::uint64_t Mbarrier::Pack() const {
  constexpr std::uint64_t kTxMask = (1u << kTxBits) - 1;
  return pending | std::uint64_t{expected} << kExpectedShift |
         (static_cast<std::uint64_t>(tx) & kTxMask) << kTxShift |
         kMark << kMarkShift | std::uint64_t{phase} << kPhaseShift;
}

const char* Mbarrier::Init(std::uint32_t count) {
  if (count == 0 || count > kMaxCount) {
    return "an mbarrier for a number of arrivals that is not in 1 … 2^20 - 1";
  }
  *this = {count, count, 0, false};
  return nullptr;
}

const char* Mbarrier::ExpectTx(std::uint32_t bytes) {
  if (bytes > kMaxCount || tx > static_cast<std::int32_t>(kMaxCount - bytes)) {
    return "an mbarrier expects more than 2^20 - 1 bytes";
  }
  tx += static_cast<std::int32_t>(bytes);
  return nullptr;
}

const char* Mbarrier::CompleteTx(std::uint32_t bytes) {
  const auto most = static_cast<std::int32_t>(kMaxCount);
  if (bytes > kMaxCount || tx - static_cast<std::int32_t>(bytes) < -most) {
    return "an mbarrier got 2^20 bytes more than it expects";
  }
  tx -= static_cast<std::int32_t>(bytes);
  EndPhaseWhenComplete();
  return nullptr;
}

const char* Mbarrier::Arrive(std::uint32_t count, bool may_end) {
  if (count == 0 || count > pending) {
    return "more arrivals at an mbarrier than its phase waits for, or none";
  }
  if (!may_end && count == pending && tx == 0) {
    return "an arrival without completion that completes the phase";
  }
  pending -= count;
  EndPhaseWhenComplete();
  return nullptr;
}

const char* Mbarrier::Drop(std::uint32_t count) {
  if (count > expected) {
    return "more arrivals dropped than an mbarrier was made for";
  }
  expected -= count;
  return nullptr;
}

void Mbarrier::EndPhaseWhenComplete() {
  if (pending != 0 || tx != 0) return;
  pending = expected;
  phase = !phase;
}

namespace async {
namespace {

// What an instruction does to one barrier, for one lane.
struct LaneResult {
  const char* wrong = nullptr;
  bool complete = false;  // of waits
};

std::uint32_t Word(const Warp& warp, std::uint32_t operand,
                   std::uint32_t lane) {
  std::uint32_t value = 0;
  std::memcpy(&value, warp.base[operand & 3] + (operand >> 2) + 4 * lane, 4);
  return value;
}

std::uint64_t Long(const Warp& warp, std::uint32_t operand,
                   std::uint32_t lane) {
  std::uint64_t value = 0;
  std::memcpy(&value, warp.base[operand & 3] + (operand >> 2) + 8 * lane, 8);
  return value;
}

// The barrier of a lane; nullptr after a fault.
std::byte* BarrierAt(Warp* warp, const Inst* inst, std::uint32_t lane) {
  const auto offset = static_cast<std::uint64_t>(inst->imm);
  if ((inst->flags & kMbarrierGeneric) == 0) {
    return SharedAt(
        warp, inst, lane,
        Word(*warp, inst->a, lane) + static_cast<std::uint32_t>(offset), 8, 8);
  }
  const std::uint64_t address = Long(*warp, inst->a, lane) + offset;
  if ((address & ~std::uint64_t{0xffffffff}) != kSharedWindow) {
    RaiseFault(warp, inst, lane, kErrorInvalidAddressSpace, address,
               "an mbarrier that is not in shared memory");
    return nullptr;
  }
  return SharedAt(warp, inst, lane, static_cast<std::uint32_t>(address), 8, 8);
}

const char* ArriveAs(MbarrierOp op, std::uint32_t value, Mbarrier* barrier) {
  const bool drops = op == MbarrierOp::kDrop || op == MbarrierOp::kDropExpect ||
                     op == MbarrierOp::kDropNoComplete;
  const bool expects =
      op == MbarrierOp::kArriveExpect || op == MbarrierOp::kDropExpect;
  const bool may_end =
      op != MbarrierOp::kArriveNoComplete && op != MbarrierOp::kDropNoComplete;
  const std::uint32_t count = expects ? 1 : value;
  if (expects) {
    if (const char* wrong = barrier->ExpectTx(value)) return wrong;
  }
  if (drops) {
    if (const char* wrong = barrier->Drop(count)) return wrong;
  }
  return barrier->Arrive(count, may_end);
}

LaneResult DoLane(Warp* warp, const Inst* inst, MbarrierOp op,
                  std::uint32_t lane, std::byte* at) {
  LaneResult result;
  std::uint64_t word = 0;
  std::memcpy(&word, at, 8);
  Mbarrier barrier;
  if (op != MbarrierOp::kInit && !Mbarrier::Unpack(word, &barrier)) {
    result.wrong = "no mbarrier was initialized here";
    return result;
  }
  const bool phase = barrier.phase;
  switch (op) {
    case MbarrierOp::kInit:
      result.wrong = barrier.Init(Word(*warp, inst->b, lane));
      break;
    case MbarrierOp::kInval:
      word = 0;
      std::memcpy(at, &word, 8);
      return result;
    case MbarrierOp::kExpectTx:
      result.wrong = barrier.ExpectTx(Word(*warp, inst->b, lane));
      break;
    case MbarrierOp::kCompleteTx:
      result.wrong = barrier.CompleteTx(Word(*warp, inst->b, lane));
      break;
    case MbarrierOp::kWaitState: {
      Mbarrier then;
      if (!Mbarrier::Unpack(Long(*warp, inst->b, lane), &then)) {
        result.wrong = "waits for a state that no arrival returned";
      }
      result.complete = then.phase != phase;
      return result;
    }
    case MbarrierOp::kWaitParity:
      result.complete = (Word(*warp, inst->b, lane) & 1) != (phase ? 1 : 0);
      return result;
    case MbarrierOp::kCopiesArrive:
      // Copies have been made: one arrival more to wait for, and it has come.
      return result;
    default:
      result.wrong = ArriveAs(op, Word(*warp, inst->b, lane), &barrier);
      std::memcpy(warp->base[kInFrame] + inst->d + 8 * lane, &word, 8);
      break;
  }
  if (result.wrong != nullptr) return result;
  word = barrier.Pack();
  std::memcpy(at, &word, 8);
  if (barrier.phase != phase) warp->block->progress = true;
  return result;
}

}  // namespace

bool CompleteTx(Warp* warp, const Inst* inst, std::uint32_t lane,
                std::uint32_t address, std::uint32_t bytes) {
  std::byte* const at = SharedAt(warp, inst, lane, address, 8, 8);
  if (at == nullptr) return false;
  std::uint64_t word = 0;
  std::memcpy(&word, at, 8);
  Mbarrier barrier;
  const char* wrong = "no mbarrier was initialized here";
  if (Mbarrier::Unpack(word, &barrier)) wrong = barrier.CompleteTx(bytes);
  if (wrong != nullptr) {
    RaiseFault(warp, inst, lane, kErrorIllegalInstruction, address, wrong);
    return false;
  }
  word = barrier.Pack();
  std::memcpy(at, &word, 8);
  warp->block->progress = true;
  return true;
}

const Inst* DoMbarrier(Warp* warp, const Inst* inst) {
  const auto op = static_cast<MbarrierOp>(inst->flags >> kHandlerShift & 15);
  const bool waits =
      op == MbarrierOp::kWaitState || op == MbarrierOp::kWaitParity;
  std::uint32_t complete = 0;
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    std::byte* const at = BarrierAt(warp, inst, lane);
    if (at == nullptr) return nullptr;
    const LaneResult result = DoLane(warp, inst, op, lane, at);
    if (result.wrong != nullptr) {
      return RaiseFault(warp, inst, lane, kErrorIllegalInstruction, 0,
                        result.wrong);
    }
    if (result.complete) complete |= 1u << lane;
  }
  if (!waits) return inst + 1;
  std::byte* const d = warp->base[kInFrame] + inst->d;
  std::uint32_t bits = 0;
  std::memcpy(&bits, d, 4);
  bits = (bits & ~warp->active) | complete;
  std::memcpy(d, &bits, 4);
  // Whoever tries in vain leaves the turn to those it waits for.
  const bool suspends = (inst->flags & kMbarrierTry) != 0;
  warp->slice =
      suspends && complete != warp->active ? -1 : warp->slice - kSyncCost;
  ++warp->sync_ops;
  return inst + 1;
}

const Inst* PendingCount(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    Mbarrier barrier;
    if (!Mbarrier::Unpack(Long(*warp, inst->a, lane), &barrier)) {
      return RaiseFault(warp, inst, lane, kErrorIllegalInstruction, 0,
                        "a state that no arrival returned");
    }
    std::memcpy(warp->base[kInFrame] + inst->d + 4 * lane, &barrier.pending, 4);
  }
  return inst + 1;
}

}  // namespace async
}  // namespace pos::ptx
