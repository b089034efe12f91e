// Which lanes of a warp run next. See warp.h for the idea.
#include <bit>
#include <cstring>

#include "pos/cuda_impl/ptx/block.h"

namespace pos::ptx {
namespace {

// Instructions of one turn; fewer while lanes may be waiting for each other.
constexpr std::int32_t kSlice = 4096;
constexpr std::int32_t kShortSlice = 512;
constexpr std::uint32_t kMaxStraightTurns = 256;

bool Before(const Fragment& a, const Fragment& b) {
  if (a.frame->depth != b.frame->depth) return a.frame->depth > b.frame->depth;
  if (a.frame != b.frame) return a.frame < b.frame;
  return a.at < b.at;
}

// Index of the ready fragment to run; waiting_count when there is none.
std::uint32_t Choose(const Warp& warp, bool rotate) {
  std::uint32_t best = warp.waiting_count;
  for (std::uint32_t i = 0; i < warp.waiting_count; ++i) {
    const Fragment& fragment = warp.waiting[i];
    if (fragment.state != FragmentState::kReady) continue;
    if (best == warp.waiting_count ||
        (rotate ? static_cast<std::int32_t>(fragment.last_run -
                                            warp.waiting[best].last_run) < 0
                : Before(fragment, warp.waiting[best]))) {
      best = i;
    }
  }
  return best;
}

void Remove(Warp* warp, std::uint32_t index) {
  warp->waiting[index] = warp->waiting[--warp->waiting_count];
}

// Takes out the fragment, or one lane of it unless it must go as a whole.
Fragment Take(Warp* warp, std::uint32_t index) {
  Fragment taken = warp->waiting[index];
  const bool whole =
      taken.mask == warp->live && (taken.at->flags & kAligned) != 0;
  if (!warp->apart || whole || std::has_single_bit(taken.mask)) {
    Remove(warp, index);
    return taken;
  }
  warp->waiting[index].mask &= taken.mask - 1;
  taken.mask &= 0 - taken.mask;
  return taken;
}

const Inst* EndOfCode(const Warp& warp) {
  return warp.code + warp.program->code.size();
}

// The nearest instruction where a ready fragment of the running one's frame
// waits.
const Inst* Frontier(const Warp& warp) {
  const Inst* frontier = EndOfCode(warp);
  for (std::uint32_t i = 0; i < warp.waiting_count; ++i) {
    const Fragment& fragment = warp.waiting[i];
    if (fragment.state == FragmentState::kReady &&
        fragment.frame == warp.frame && fragment.at < frontier) {
      frontier = fragment.at;
    }
  }
  return frontier;
}

}  // namespace

void Suspend(Warp* warp, const Inst* at, FragmentState state) {
  Fragment& fragment = warp->waiting[warp->waiting_count++];
  fragment.mask = warp->active;
  fragment.state = state;
  fragment.at = at;
  fragment.frame = warp->frame;
  fragment.last_run = warp->turn;
  warp->active = 0;
}

const Inst* Resume(Warp* warp, bool rotate) {
  const std::uint32_t chosen = Choose(*warp, rotate);
  if (chosen == warp->waiting_count) {
    warp->state = warp->live == 0 ? WarpState::kDone : WarpState::kWaiting;
    return nullptr;
  }
  const Fragment first = Take(warp, chosen);
  warp->state = WarpState::kReady;
  warp->frame = first.frame;
  warp->base[kInFrame] = first.frame->registers;
  warp->active = first.mask;
  for (std::uint32_t i = 0; i < warp->waiting_count && !warp->apart;) {
    const Fragment& other = warp->waiting[i];
    if (other.state == FragmentState::kReady && other.frame == first.frame &&
        other.at == first.at) {
      warp->active |= other.mask;
      Remove(warp, i);
    } else {
      ++i;
    }
  }
  warp->partial = warp->active != warp->frame->live ? 1 : warp->masked;
  ++warp->turn;
  // Out of its turn, a fragment behind it must not hold it up.
  warp->frontier = rotate ? EndOfCode(*warp) : Frontier(*warp);
  return first.at;
}

const Inst* Reconverge(Warp* warp, const Inst* next) {
  Suspend(warp, next, FragmentState::kReady);
  return Resume(warp, false);
}

// Another warp gets its turn; Block::Run calls Resume when it is ours again.
const Inst* EndSlice(Warp* warp, const Inst* next) {
  Suspend(warp, next, FragmentState::kReady);
  warp->state = WarpState::kReady;
  return nullptr;
}

const Inst* Diverge(Warp* warp, std::uint32_t taken, const Inst* target,
                    const Inst* other) {
  const std::uint32_t rest = warp->active & ~taken;
  const Inst* const low = target < other ? target : other;
  const Inst* const high = target < other ? other : target;
  const std::uint32_t low_mask = target < other ? taken : rest;
  const std::uint32_t high_mask = target < other ? rest : taken;
  warp->active = high_mask;
  Suspend(warp, high, FragmentState::kReady);
  warp->active = low_mask;
  warp->partial = 1;
  if (warp->slice < 0) return EndSlice(warp, low);
  if (low >= warp->frontier) return Reconverge(warp, low);
  if (high < warp->frontier) warp->frontier = high;
  return low;
}

const Inst* WaitForLanes(Warp* warp, const Inst* at) {
  Suspend(warp, at, FragmentState::kCollective);
  CheckCollectives(warp);
  return Resume(warp, false);
}

namespace control {

const Inst* Guard(Warp* warp, const Inst* inst) {
  const auto* predicate = reinterpret_cast<const std::uint32_t*>(
      warp->base[inst->a & 3] + (inst->a >> 2));
  const std::uint32_t flip = (inst->flags & kNegateA) != 0 ? ~0u : 0u;
  const std::uint32_t outer = warp->active;
  const std::uint32_t mask = outer & (*predicate ^ flip);
  if (mask == 0) return inst + 2;
  const Inst* const body = inst + 1;
  if (mask == outer) return body;
  const std::uint32_t outer_partial = warp->partial;
  warp->active = mask;
  warp->partial = 1;
  const Inst* const next = body->fn[1](warp, body);
  warp->active = outer;
  warp->partial = outer_partial;
  return next;
}

const Inst* Jump(Warp* warp, const Inst* inst) {
  const Inst* const next = warp->code + inst->imm;
  warp->slice -= static_cast<std::int32_t>(inst->cost);
  if (next <= inst && warp->slice < 0) return EndSlice(warp, next);
  if (next >= warp->frontier) return Reconverge(warp, next);
  return next;
}

const Inst* Branch(Warp* warp, const Inst* inst) {
  const auto* predicate = reinterpret_cast<const std::uint32_t*>(
      warp->base[inst->a & 3] + (inst->a >> 2));
  const std::uint32_t flip = (inst->flags & kNegateA) != 0 ? ~0u : 0u;
  const std::uint32_t taken = warp->active & (*predicate ^ flip);
  const Inst* const target = warp->code + inst->imm;
  warp->slice -= static_cast<std::int32_t>(inst->cost);
  const Inst* next = target;
  if (taken == 0) {
    next = inst + 1;
  } else if (taken != warp->active) {
    return Diverge(warp, taken, target, inst + 1);
  }
  if (next <= inst && warp->slice < 0) return EndSlice(warp, next);
  if (next >= warp->frontier) return Reconverge(warp, next);
  return next;
}

const Inst* Switch(Warp* warp, const Inst* inst) {
  const auto* index = reinterpret_cast<const std::uint32_t*>(
      warp->base[inst->a & 3] + (inst->a >> 2));
  const auto& table =
      warp->program->branch_tables[static_cast<std::size_t>(inst->imm)];
  warp->slice -= static_cast<std::int32_t>(inst->cost);
  std::uint32_t left = warp->active;
  while (left != 0) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    std::uint32_t group = 0;
    for (std::uint32_t l = lane; l < kLanes; ++l) {
      if ((left >> l & 1) != 0 && index[l] == index[lane]) group |= 1u << l;
    }
    if (index[lane] >= table.size()) {
      return RaiseFault(warp, inst, lane, kErrorInvalidPc, index[lane],
                        "branch beyond the table of targets");
    }
    left &= ~group;
    warp->active = group;
    Suspend(warp, warp->code + table[index[lane]], FragmentState::kReady);
  }
  if (warp->slice < 0) {
    warp->state = WarpState::kReady;
    return nullptr;
  }
  return Resume(warp, false);
}

}  // namespace control

// A turn: how many instructions, and in which order fragments get it. Lanes
// that wait for each other do so with accesses that count as such; whatever
// they do, each gets a turn some time.
void BeginTurn(Warp* warp) {
  const bool may_wait = warp->sync_ops != 0;
  warp->slice = may_wait ? kShortSlice : kSlice;
  warp->sync_ops = 0;
  ++warp->straight;
  warp->rotate = warp->waiting_count > 1 &&
                 (may_wait || warp->straight > kMaxStraightTurns);
  if (warp->rotate) warp->straight = 0;
}

}  // namespace pos::ptx
