// Instructions that lanes of a warp execute together.
//
// A lane names the lanes that take part. When all of them that have not exited
// are active in one fragment, the handler runs at once. Otherwise the fragment
// waits; when the last one has come, lanes from different places are gathered
// into one set of operands, the handler runs on that, and its results go back.
//
// Lanes belong together that execute the same instruction and name the same
// members: a lane that waits for the whole warp is not served by another that
// executes the same kind of instruction among a few.
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
  return mask;
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
                   std::uint32_t lanes, std::byte* slots) {
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
    CopyLanes(slots + s * kSlotBytes, from, width, lanes);
  }
  CopyLanes(slots + kSlotE * kSlotBytes, At(warp, *fragment.frame, inst.e),
            kWord, lanes);
}

// Takes `lanes` out of the waiting fragment `index`, into one of their own that
// is ready to go on at `at`.
void Release(Warp* warp, std::uint32_t index, std::uint32_t lanes,
             const Inst* at) {
  Fragment& fragment = warp->waiting[index];
  Fragment& released =
      lanes == fragment.mask ? fragment : warp->waiting[warp->waiting_count++];
  fragment.mask &= ~lanes;
  released = fragment;
  released.mask = lanes;
  released.at = at;
  released.state = FragmentState::kReady;
}

// A group of lanes that have come, and the waiting fragments that they are in,
// a bit each.
struct Group {
  std::uint32_t lanes = 0;
  std::uint32_t fragments = 0;
};

// Executes the collective for the group, whose lanes have come from different
// places.
void RunGathered(Warp* warp, const Group& group) {
  alignas(64) std::byte slots[kSlots * kSlotBytes] = {};
  Frame* const frame = warp->frame;
  std::byte* const registers = warp->base[kInFrame];
  for (std::uint32_t left = group.fragments; left != 0; left &= left - 1) {
    const Fragment& fragment = warp->waiting[std::countr_zero(left)];
    GatherSources(*warp, fragment, fragment.mask & group.lanes, slots);
  }
  Inst inst = *warp->waiting[std::countr_zero(group.fragments)].at;
  inst.flags &= ~(kNegateA | kNegateB | kNegateC);
  inst.a = kSlotA * kSlotBytes << 2;
  inst.b = kSlotB * kSlotBytes << 2;
  inst.c = kSlotC * kSlotBytes << 2;
  inst.e = kSlotE * kSlotBytes << 2;
  inst.d = kSlotD * kSlotBytes;
  inst.n = kSlotD2 * kSlotBytes;
  warp->base[kInFrame] = slots;
  warp->active = group.lanes;
  inst.fn[1](warp, &inst);
  warp->active = 0;
  warp->base[kInFrame] = registers;
  warp->frame = frame;
  for (std::uint32_t left = group.fragments; left != 0; left &= left - 1) {
    const auto index = static_cast<std::uint32_t>(std::countr_zero(left));
    const Fragment& fragment = warp->waiting[index];
    const Inst& at = *fragment.at;
    const std::uint32_t lanes = fragment.mask & group.lanes;
    std::byte* const to = fragment.frame->registers;
    const std::uint32_t width = WidthOf(at, kSlotD);
    if (width != kAbsent) {
      CopyLanes(to + at.d, slots + kSlotD * kSlotBytes, width, lanes);
    }
    if (at.n != 0) {
      CopyLanes(to + at.n, slots + kSlotD2 * kSlotBytes, kPredicate, lanes);
    }
    Release(warp, index, lanes, &at + 1);
  }
}

// An instruction that all lanes of the warp execute as one: once they have come
// to this very place they become one fragment. False while some are elsewhere.
bool JoinAligned(Warp* warp, std::uint32_t first) {
  const Fragment& joined = warp->waiting[first];
  const auto belongs = [&joined](const Fragment& fragment) {
    return fragment.state == FragmentState::kCollective &&
           fragment.at == joined.at && fragment.frame == joined.frame;
  };
  std::uint32_t lanes = 0;
  for (std::uint32_t i = 0; i < warp->waiting_count; ++i) {
    if (belongs(warp->waiting[i])) lanes |= warp->waiting[i].mask;
  }
  if (lanes != warp->live) return false;
  Fragment whole = joined;
  whole.mask = lanes;
  whole.state = FragmentState::kReady;
  // Every live lane is in it: nothing else waits.
  warp->waiting[0] = whole;
  warp->waiting_count = 1;
  return true;
}

// Who has come of those that belong to `lane` of the waiting fragment `index`.
Group Members(const Warp& warp, std::uint32_t index, std::uint32_t lane) {
  const Fragment& first = warp.waiting[index];
  const std::uint32_t named = MemberMask(warp, first, lane);
  Group group;
  for (std::uint32_t i = 0; i < warp.waiting_count; ++i) {
    const Fragment& fragment = warp.waiting[i];
    if (fragment.state != FragmentState::kCollective ||
        fragment.at->fn[1] != first.at->fn[1]) {
      continue;
    }
    const std::uint32_t before = group.lanes;
    for (std::uint32_t left = fragment.mask & (named | 1u << lane); left != 0;
         left &= left - 1) {
      const auto l = static_cast<std::uint32_t>(std::countr_zero(left));
      if (MemberMask(warp, fragment, l) == named) group.lanes |= 1u << l;
    }
    if (group.lanes != before) group.fragments |= 1u << i;
  }
  return group;
}

// All of them at one place: they become one fragment and execute it as such.
bool SamePlace(const Warp& warp, const Group& group) {
  const Fragment& first = warp.waiting[std::countr_zero(group.fragments)];
  for (std::uint32_t left = group.fragments; left != 0; left &= left - 1) {
    const Fragment& fragment = warp.waiting[std::countr_zero(left)];
    if (fragment.at != first.at || fragment.frame != first.frame) return false;
  }
  return true;
}

// Lanes that wait for others; a cheap bound of who can have come.
std::uint32_t WaitingLanes(const Warp& warp) {
  std::uint32_t lanes = 0;
  for (std::uint32_t i = 0; i < warp.waiting_count; ++i) {
    if (warp.waiting[i].state == FragmentState::kCollective) {
      lanes |= warp.waiting[i].mask;
    }
  }
  return lanes;
}

// Lets the first complete group of fragment `index` go on; false when it has
// none.
bool CheckFragment(Warp* warp, std::uint32_t index, std::uint32_t waiting) {
  const Fragment& fragment = warp->waiting[index];
  for (std::uint32_t left = fragment.mask; left != 0;) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    left &= left - 1;
    const std::uint32_t named = MemberMask(*warp, fragment, lane) & warp->live;
    if ((named & ~waiting) != 0) continue;
    const Group group = Members(*warp, index, lane);
    if ((named & ~group.lanes) != 0) {
      left &= ~group.lanes;
      continue;
    }
    if (warp->apart || !SamePlace(*warp, group)) {
      RunGathered(warp, group);
      return true;
    }
    for (std::uint32_t f = group.fragments; f != 0; f &= f - 1) {
      const auto i = static_cast<std::uint32_t>(std::countr_zero(f));
      Release(warp, i, warp->waiting[i].mask & group.lanes,
              warp->waiting[i].at);
    }
    return true;
  }
  return false;
}

}  // namespace

void CheckCollectives(Warp* warp) {
  const std::uint32_t waiting = WaitingLanes(*warp);
  for (std::uint32_t i = 0; i < warp->waiting_count; ++i) {
    if (warp->waiting[i].state == FragmentState::kCollective &&
        (warp->waiting[i].at->flags & kAligned) != 0) {
      if (JoinAligned(warp, i)) return;
      continue;
    }
    while (warp->waiting[i].state == FragmentState::kCollective &&
           CheckFragment(warp, i, waiting)) {
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
