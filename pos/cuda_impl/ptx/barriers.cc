// Barriers of a block: bar.sync, bar.arrive, bar.red.
//
// Threads are counted as the hardware does: a warp counts as 32 once all its
// lanes that have not exited have arrived. Without a number of threads, a
// barrier completes when every thread of the block has arrived or exited.
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "pos/cuda_impl/ptx/block.h"

namespace pos::ptx {
namespace {

bool AllArrived(const Block& block, const BarrierState& barrier) {
  for (std::uint32_t left = block.unfinished; left != 0; left &= left - 1) {
    const int w = std::countr_zero(left);
    if ((block.warps[w].live & ~barrier.arrived[static_cast<std::size_t>(w)]) !=
        0) {
      return false;
    }
  }
  return true;
}

std::uint32_t CountArrived(const Block& block, const BarrierState& barrier) {
  std::uint32_t count = 0;
  for (std::uint32_t w = 0; w < block.warp_count; ++w) {
    const std::uint32_t arrived = barrier.arrived[w];
    if (arrived == 0) continue;
    const bool whole = (block.warps[w].live & ~arrived) == 0;
    count +=
        whole ? kLanes : static_cast<std::uint32_t>(std::popcount(arrived));
  }
  return count;
}

bool Complete(const Block& block, const BarrierState& barrier) {
  return barrier.expected == 0
             ? AllArrived(block, barrier)
             : CountArrived(block, barrier) >= barrier.expected;
}

void WriteReduction(const Fragment& fragment, const BarrierState& barrier) {
  const Inst& inst = *fragment.at;
  std::byte* const d = fragment.frame->registers + inst.d;
  if ((inst.flags & control::kBarPopc) != 0) {
    for (std::uint32_t left = fragment.mask; left != 0; left &= left - 1) {
      std::memcpy(d + 4 * std::countr_zero(left), &barrier.popc, 4);
    }
    return;
  }
  if ((inst.flags & (control::kBarAnd | control::kBarOr)) == 0) return;
  const bool value =
      (inst.flags & control::kBarAnd) != 0 ? barrier.all : barrier.any;
  std::uint32_t bits = 0;
  std::memcpy(&bits, d, 4);
  bits = value ? bits | fragment.mask : bits & ~fragment.mask;
  std::memcpy(d, &bits, 4);
}

// Lets everyone go who waits at barrier `number`.
void Release(Block* block, std::uint32_t number) {
  BarrierState& barrier = block->barriers[number];
  for (std::uint32_t left = block->unfinished; left != 0; left &= left - 1) {
    const int w = std::countr_zero(left);
    Warp& warp = block->warps[w];
    bool any = false;
    for (std::uint32_t i = 0; i < warp.waiting_count; ++i) {
      Fragment& fragment = warp.waiting[i];
      if (fragment.state != FragmentState::kBarrier ||
          fragment.barrier != number) {
        continue;
      }
      WriteReduction(fragment, barrier);
      fragment.state = FragmentState::kReady;
      ++fragment.at;
      any = true;
    }
    if (any) {
      warp.state = WarpState::kReady;
      block->ready |= 1u << w;
    }
  }
  ResetBarrier(&barrier);
}

void Arrive(const Warp& warp, const Inst& inst, BarrierState* barrier,
            std::uint32_t threads) {
  if (!barrier->used) {
    barrier->used = true;
    barrier->expected = threads;
  }
  barrier->arrived[warp.index] |= warp.active;
  const std::uint32_t reduces =
      control::kBarPopc | control::kBarAnd | control::kBarOr;
  if ((inst.flags & reduces) != 0) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, warp.base[inst.c & 3] + (inst.c >> 2), 4);
    if ((inst.flags & kNegateC) != 0) bits = ~bits;
    bits &= warp.active;
    barrier->popc += static_cast<std::uint32_t>(std::popcount(bits));
    barrier->all = barrier->all && bits == warp.active;
    barrier->any = barrier->any || bits != 0;
  }
}

}  // namespace

void ResetBarrier(BarrierState* barrier) {
  barrier->expected = 0;
  barrier->waiting = 0;
  barrier->used = false;
  barrier->popc = 0;
  barrier->all = true;
  barrier->any = false;
  barrier->arrived.fill(0);
}

std::string DescribeWaiting(const Block& block) {
  std::array<std::uint32_t, control::kBarriers + 1> waiting{};
  std::uint32_t for_lanes = 0;
  for (std::uint32_t left = block.unfinished; left != 0; left &= left - 1) {
    const Warp& warp = block.warps[std::countr_zero(left)];
    for (std::uint32_t i = 0; i < warp.waiting_count; ++i) {
      const Fragment& fragment = warp.waiting[i];
      const auto lanes =
          static_cast<std::uint32_t>(std::popcount(fragment.mask));
      const bool barrier = fragment.state == FragmentState::kBarrier;
      (barrier ? waiting[fragment.barrier] : for_lanes) += lanes;
    }
  }
  std::string text;
  const auto add = [&text](std::uint32_t count, const std::string& where) {
    if (count == 0) return;
    const bool first = text.empty();
    text += (first ? "" : " and ") + std::to_string(count) +
            (first ? " threads wait " : " ") + where;
  };
  for (std::uint32_t i = 0; i < waiting.size(); ++i) {
    const BarrierState& barrier = block.barriers[i];
    std::string where = i == control::kClusterBarrier
                            ? "at the barrier of the cluster"
                            : "at barrier " + std::to_string(i);
    if (barrier.expected != 0) {
      where += " (" + std::to_string(CountArrived(block, barrier)) + " of " +
               std::to_string(barrier.expected) + " have arrived)";
    }
    add(waiting[i], where);
  }
  add(for_lanes, "for other lanes of their warp");
  return text;
}

void CheckBarriers(Block* block, Warp* warp) {
  if (warp->live == 0) block->unfinished &= ~(1u << warp->index);
  for (std::uint32_t i = 0; i < block->barriers.size(); ++i) {
    const BarrierState& barrier = block->barriers[i];
    const bool awaited = barrier.waiting != 0 || i == control::kClusterBarrier;
    if (barrier.used && awaited && Complete(*block, barrier)) {
      Release(block, i);
    }
  }
}

namespace control {

const Inst* Barrier(Warp* warp, const Inst* inst) {
  Block* const block = warp->block;
  const auto* numbers = reinterpret_cast<const std::uint32_t*>(
      warp->base[inst->a & 3] + (inst->a >> 2));
  const auto lane = static_cast<std::uint32_t>(std::countr_zero(warp->active));
  const std::uint32_t number = numbers[lane];
  if (number >= kBarriers) {
    return RaiseFault(warp, inst, lane, kErrorIllegalInstruction, number,
                      "a barrier that does not exist");
  }
  std::uint32_t others = 0;
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const int l = std::countr_zero(left);
    if (numbers[l] != number) others |= 1u << l;
  }
  if (others != 0) {  // lanes at different barriers: one after the other
    const std::uint32_t group = warp->active & ~others;
    warp->active = others;
    Suspend(warp, inst, FragmentState::kReady);
    warp->active = group;
    warp->partial = 1;
  }
  std::uint32_t threads = 0;
  if ((inst->flags & kBarHasCount) != 0) {
    std::memcpy(&threads, warp->base[inst->b & 3] + (inst->b >> 2) + 4 * lane,
                4);
    if (threads == 0 || threads % kLanes != 0) {
      return RaiseFault(warp, inst, lane, kErrorIllegalInstruction, threads,
                        "a barrier for a number of threads that is not a "
                        "multiple of 32");
    }
  }
  BarrierState& barrier = block->barriers[number];
  Arrive(*warp, *inst, &barrier, threads);
  const bool waits = (inst->flags & kBarArrive) == 0;
  if (waits) {
    Suspend(warp, inst, FragmentState::kBarrier);
    warp->waiting[warp->waiting_count - 1].barrier =
        static_cast<std::uint8_t>(number);
    ++barrier.waiting;
  } else {
    Suspend(warp, inst + 1, FragmentState::kReady);
  }
  block->progress = true;
  if (Complete(*block, barrier)) Release(block, number);
  return Resume(warp, false);
}

// Who has arrived and whose phase has not ended has its bit in `arrived`.
const Inst* ClusterArrive(Warp* warp, const Inst* inst) {
  BarrierState& barrier = warp->block->barriers[kClusterBarrier];
  barrier.used = true;
  barrier.arrived[warp->index] |= warp->active;
  warp->block->progress = true;
  Suspend(warp, inst + 1, FragmentState::kReady);
  if (Complete(*warp->block, barrier)) Release(warp->block, kClusterBarrier);
  return Resume(warp, false);
}

const Inst* ClusterWait(Warp* warp, const Inst* inst) {
  BarrierState& barrier = warp->block->barriers[kClusterBarrier];
  const std::uint32_t all = warp->active;
  const std::uint32_t waiting = all & barrier.arrived[warp->index];
  if (waiting == 0) return inst + 1;
  if (waiting != all) {
    warp->active = all & ~waiting;
    Suspend(warp, inst + 1, FragmentState::kReady);
    warp->active = waiting;
  }
  Suspend(warp, inst, FragmentState::kBarrier);
  warp->waiting[warp->waiting_count - 1].barrier = kClusterBarrier;
  ++barrier.waiting;
  return Resume(warp, false);
}

}  // namespace control
}  // namespace pos::ptx
