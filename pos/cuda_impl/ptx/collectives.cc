// Instructions that lanes of a warp execute together.
//
// A lane names the lanes that take part. When all of them that have not exited
// are active in one fragment, the handler runs at once. Otherwise the fragment
// waits; when the last one has come, lanes from different places are gathered
// into one set of operands, the handler runs on that, and its results go back.
#include <bit>
#include <cstring>

#include "pos/cuda_impl/ptx/block.h"

namespace pos::ptx {
namespace {

// A collective's operands as kHandlerShift describes them, two bits each.
enum Width : std::uint32_t { kAbsent, kPredicate, kWord, kLong };
constexpr std::uint32_t kSlotBytes = 256;
enum Slot : std::uint32_t {
  kSlotA,
  kSlotB,
  kSlotC,
  kSlotD,
  kSlotE,
  kSlotD2,
  kSlots
};

std::uint32_t WidthOf(const Inst& inst, Slot slot) {
  return inst.flags >> (kHandlerShift + 2 * slot) & 3;
}

const std::byte* At(const Warp& warp, const Frame& frame,
                    std::uint32_t operand) {
  const std::byte* base =
      (operand & 3) == kInFrame ? frame.registers : warp.base[operand & 3];
  return base + (operand >> 2);
}

std::uint32_t MemberMask(const Warp& warp, const Fragment& fragment,
                         std::uint32_t lane) {
  std::uint32_t mask = 0;
  std::memcpy(&mask, At(warp, *fragment.frame, fragment.at->e) + 4 * lane, 4);
  return mask | 1u << lane;
}

// Copies the lanes in `mask` from one operand to another.
void CopyLanes(std::byte* to, const std::byte* from, std::uint32_t width,
               std::uint32_t mask) {
  if (width == kPredicate) {
    std::uint32_t old = 0;
    std::uint32_t bits = 0;
    std::memcpy(&old, to, 4);
    std::memcpy(&bits, from, 4);
    bits = (old & ~mask) | (bits & mask);
    std::memcpy(to, &bits, 4);
    return;
  }
  const std::size_t bytes = width == kLong ? 8 : 4;
  for (std::uint32_t left = mask; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::size_t>(std::countr_zero(left));
    std::memcpy(to + lane * bytes, from + lane * bytes, bytes);
  }
}

void GatherSources(const Warp& warp, const Fragment& fragment,
                   std::byte* slots) {
  const Inst& inst = *fragment.at;
  const std::uint32_t operands[] = {inst.a, inst.b, inst.c};
  const std::uint32_t negations[] = {kNegateA, kNegateB, kNegateC};
  for (std::uint32_t s = 0; s < 3; ++s) {
    const std::uint32_t width = WidthOf(inst, static_cast<Slot>(s));
    if (width == kAbsent) continue;
    const std::byte* from = At(warp, *fragment.frame, operands[s]);
    std::uint32_t flipped = 0;
    if (width == kPredicate && (inst.flags & negations[s]) != 0) {
      std::memcpy(&flipped, from, 4);
      flipped = ~flipped;
      from = reinterpret_cast<const std::byte*>(&flipped);
    }
    CopyLanes(slots + s * kSlotBytes, from, width, fragment.mask);
  }
  CopyLanes(slots + kSlotE * kSlotBytes, At(warp, *fragment.frame, inst.e),
            kWord, fragment.mask);
}

// Executes the collective for the fragments in `members` (bits: indices of
// waiting fragments), which have come from different places.
void RunGathered(Warp* warp, std::uint32_t members) {
  alignas(64) std::byte slots[kSlots * kSlotBytes] = {};
  const Frame* const frame = warp->frame;
  std::byte* const registers = warp->base[kInFrame];
  std::uint32_t mask = 0;
  const Fragment* any = nullptr;
  for (std::uint32_t left = members; left != 0; left &= left - 1) {
    const Fragment& fragment = warp->waiting[std::countr_zero(left)];
    GatherSources(*warp, fragment, slots);
    mask |= fragment.mask;
    any = &fragment;
  }
  Inst inst = *any->at;
  inst.flags &= ~(kNegateA | kNegateB | kNegateC);
  inst.a = kSlotA * kSlotBytes << 2;
  inst.b = kSlotB * kSlotBytes << 2;
  inst.c = kSlotC * kSlotBytes << 2;
  inst.e = kSlotE * kSlotBytes << 2;
  inst.d = kSlotD * kSlotBytes;
  inst.n = kSlotD2 * kSlotBytes;
  warp->base[kInFrame] = slots;
  warp->active = mask;
  inst.fn[1](warp, &inst);
  warp->active = 0;
  warp->base[kInFrame] = registers;
  warp->frame = const_cast<Frame*>(frame);
  for (std::uint32_t left = members; left != 0; left &= left - 1) {
    Fragment& fragment = warp->waiting[std::countr_zero(left)];
    std::byte* to = fragment.frame->registers;
    const std::uint32_t width = WidthOf(*fragment.at, kSlotD);
    if (width != kAbsent) {
      CopyLanes(to + fragment.at->d, slots + kSlotD * kSlotBytes, width,
                fragment.mask);
    }
    if (fragment.at->n != 0) {
      CopyLanes(to + fragment.at->n, slots + kSlotD2 * kSlotBytes, kPredicate,
                fragment.mask);
    }
    fragment.state = FragmentState::kReady;
    ++fragment.at;
  }
}

// The waiting fragments that must execute together with fragment `first`; zero
// when some lane is still elsewhere.
std::uint32_t Members(const Warp& warp, std::uint32_t first) {
  std::uint32_t members = 1u << first;
  std::uint32_t lanes = warp.waiting[first].mask;
  std::uint32_t needed = 0;
  std::uint32_t seen = 0;  // lanes whose masks are in `needed`
  while (seen != lanes) {
    for (std::uint32_t i = 0; i < warp.waiting_count; ++i) {
      if ((members >> i & 1) == 0) continue;
      const Fragment& fragment = warp.waiting[i];
      for (std::uint32_t left = fragment.mask & ~seen; left != 0;
           left &= left - 1) {
        needed |= MemberMask(
            warp, fragment, static_cast<std::uint32_t>(std::countr_zero(left)));
      }
    }
    seen = lanes;
    for (std::uint32_t i = 0; i < warp.waiting_count; ++i) {
      const Fragment& fragment = warp.waiting[i];
      if (fragment.state == FragmentState::kCollective &&
          fragment.at->fn[1] == warp.waiting[first].at->fn[1] &&
          (fragment.mask & needed) != 0) {
        members |= 1u << i;
        lanes |= fragment.mask;
      }
    }
  }
  return (needed & warp.live & ~lanes) == 0 ? members : 0;
}

// All of them at one place: they become one fragment and execute it as such.
bool SamePlace(const Warp& warp, std::uint32_t members) {
  const Fragment& first = warp.waiting[std::countr_zero(members)];
  for (std::uint32_t left = members; left != 0; left &= left - 1) {
    const Fragment& fragment = warp.waiting[std::countr_zero(left)];
    if (fragment.at != first.at || fragment.frame != first.frame) return false;
  }
  return true;
}

}  // namespace

void CheckCollectives(Warp* warp) {
  for (std::uint32_t i = 0; i < warp->waiting_count; ++i) {
    if (warp->waiting[i].state != FragmentState::kCollective) continue;
    const std::uint32_t members = Members(*warp, i);
    if (members == 0) continue;
    if (!warp->apart && SamePlace(*warp, members)) {
      for (std::uint32_t left = members; left != 0; left &= left - 1) {
        warp->waiting[std::countr_zero(left)].state = FragmentState::kReady;
      }
    } else {
      RunGathered(warp, members);
    }
  }
}

namespace control {

const Inst* WarpBarrier(Warp* warp, const Inst* inst) {
  const auto* mask = reinterpret_cast<const std::uint32_t*>(
      warp->base[inst->e & 3] + (inst->e >> 2));
  std::uint32_t needed = 0;
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    needed |= mask[std::countr_zero(left)];
  }
  if ((needed & warp->live & ~warp->active) != 0) {
    return WaitForLanes(warp, inst);
  }
  return inst + 1;
}

const Inst* Activemask(Warp* warp, const Inst* inst) {
  auto* d = reinterpret_cast<std::uint32_t*>(warp->base[kInFrame] + inst->d);
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    d[std::countr_zero(left)] = warp->active;
  }
  return inst + 1;
}

}  // namespace control
}  // namespace pos::ptx
