#include "pos/cuda_impl/access/kernel_access.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace pos::access {
namespace {

// No allocation lies so low that a null pointer with any index of 32 bits on
// it reaches it: the lowest device addresses are above 2^44.
constexpr std::int64_t kNoMemory = std::int64_t{1} << 40;
// How far before the memory that it is meant for a pointer may lie, and where
// the next allocation begins when not at the end of one.
constexpr std::uint64_t kNextToEnd = 4096;
constexpr std::uint64_t kGranule = 512;

// A word of the parameters at a launch.
struct Word {
  std::int64_t value = 0;
  bool pointer = false;
  // What it points into: up to two, when it is where one ends and another
  // begins, and what is right behind it. bytes 0: none, or the host's.
  MemoryRange ranges[3];
};

class Launch {
 public:
  Launch(const KernelAccess& kernel, const LaunchConfig& launch,
         std::span<const std::byte> params, const MemoryMap& memory,
         std::span<const MemoryRange> variables, AccessSet* out)
      : kernel_(kernel), memory_(memory), variables_(variables), out_(out) {
    Evaluate(kernel.exprs, launch, params, exprs_);
    for (std::size_t i = 0; i < kernel.words.size(); ++i) {
      std::construct_at(&words_[i], Read(kernel.words[i], params));
    }
  }

  // False: no proof.
  bool Run() {
    return std::ranges::all_of(kernel_.touches,
                               [this](const KernelTouch& t) { return Add(t); });
  }

 private:
  Word Read(std::uint32_t offset, std::span<const std::byte> params) const {
    Word word;
    std::memcpy(&word.value, params.data() + offset, 8);
    const auto address = static_cast<DeviceAddress>(word.value);
    using Found = MemoryMap::Found;
    const Found at = memory_.Find(address, &word.ranges[0]);
    if (at == Found::kHost) word.ranges[0] = {};
    word.pointer = at != Found::kNothing;
    // One past the end of another.
    if (at == Found::kNothing || word.ranges[0].address == address ||
        word.ranges[0].bytes == 0) {
      const Found before = address == 0
                               ? Found::kNothing
                               : memory_.Find(address - 1, &word.ranges[1]);
      if (before != Found::kDevice) word.ranges[1] = {};
      word.pointer = word.pointer || before != Found::kNothing;
    }
    FindBehind(&word);
    return word;
  }

  // A pointer shortly before the end of an allocation may be meant as one into
  // the next: arrays that count from 1 begin one element before their memory.
  void FindBehind(Word* word) const {
    const auto address = static_cast<DeviceAddress>(word->value);
    const MemoryRange& range = word->ranges[word->ranges[0].bytes == 0 ? 1 : 0];
    const DeviceAddress end = range.address + range.bytes;
    if (range.bytes == 0 || address == range.address ||
        end - address > kNextToEnd) {
      return;
    }
    using Found = MemoryMap::Found;
    MemoryRange* const behind = &word->ranges[2];
    if (memory_.Find(end, behind) != Found::kDevice &&
        memory_.Find(((end - 1) | (kGranule - 1)) + 1, behind) !=
            Found::kDevice) {
      *behind = {};
    }
  }

  bool Points(std::uint32_t word) const { return words_[word].pointer; }

  bool Add(const KernelTouch& touch) {
    if (std::ranges::any_of(touch.subtracted.values(),
                            [this](auto w) { return Points(w); })) {
      return false;
    }
    const Word* base = nullptr;
    Interval place = exprs_[touch.expr];
    for (const std::uint32_t number : touch.added.values()) {
      const Word& word = words_[number];
      if (word.pointer && base != nullptr) return false;
      if (word.pointer) base = &word;
      place = Shift(place, word.value, false);
    }
    for (const std::uint32_t number : touch.subtracted.values()) {
      place = Shift(place, words_[number].value, true);
    }
    const bool involved = AddInvolved(touch);
    if (touch.variable != KernelTouch::kNoVariable) {
      if (base != nullptr) return false;
      const MemoryRange& range = variables_[touch.variable];
      if (range.bytes == 0) return false;
      const auto at = static_cast<std::int64_t>(range.address);
      return Clip(touch, range,
                  involved ? Interval{} : Shift(place, at, false));
    }
    if (base == nullptr) {
      // No pointer: a branch that is not taken. Unless it may be one all the
      // same.
      return place.low > -kNoMemory && place.high < kNoMemory;
    }
    bool any = std::ranges::all_of(
        base->ranges, [](const MemoryRange& r) { return r.bytes == 0; });
    if (involved) place = Interval{};
    for (const MemoryRange& range : base->ranges) {
      any = (range.bytes != 0 && Clip(touch, range, place)) || any;
    }
    return any;
  }

  static Interval Shift(const Interval& by, std::int64_t value, bool minus) {
    Interval sum;
    if (by.full() ||
        (minus ? __builtin_sub_overflow(by.low, value, &sum.low) ||
                     __builtin_sub_overflow(by.high, value, &sum.high)
               : __builtin_add_overflow(by.low, value, &sum.low) ||
                     __builtin_add_overflow(by.high, value, &sum.high))) {
      return Interval{};
    }
    return sum;
  }

  // Objects whose addresses took part in computing an index count whole.
  bool AddInvolved(const KernelTouch& touch) {
    bool any = false;
    for (const std::uint32_t number : touch.involved.values()) {
      const Word& word = words_[number];
      any = any || word.pointer;
      for (const MemoryRange& range : word.ranges) {
        if (range.bytes != 0) Clip(touch, range, Interval{});
      }
    }
    return any;
  }

  // Adds what of `range` an access at one of `place` reaches; false: nothing.
  bool Clip(const KernelTouch& touch, const MemoryRange& range,
            const Interval& place) {
    MemoryRange part = range;
    if (!place.full()) {
      const auto first = static_cast<std::int64_t>(range.address);
      const auto end = first + static_cast<std::int64_t>(range.bytes);
      std::int64_t high = 0;
      if (__builtin_add_overflow(place.high, std::int64_t{touch.bytes},
                                 &high)) {
        high = end;
      }
      const std::int64_t from = std::max(first, place.low);
      const std::int64_t to = std::min(end, high);
      if (from >= to) return false;
      part = {static_cast<std::uint64_t>(from),
              static_cast<std::uint64_t>(to - from)};
    }
    if (touch.reads) Insert(part, &out_->reads);
    if (touch.writes) Insert(part, &out_->writes);
    return true;
  }

  static void Insert(const MemoryRange& part, std::vector<MemoryRange>* list) {
    for (const MemoryRange& known : *list) {
      if (known.address <= part.address &&
          part.address - known.address <= known.bytes &&
          known.bytes - (part.address - known.address) >= part.bytes) {
        return;
      }
    }
    list->push_back(part);
  }

  const KernelAccess& kernel_;
  const MemoryMap& memory_;
  const std::span<const MemoryRange> variables_;
  AccessSet* const out_;
  // In unions, so that only what is used is filled in.
  union {
    Interval exprs_[KernelAccess::kMaxExprs];
  };
  union {
    Word words_[KernelAccess::kMaxWords];
  };
};

}  // namespace

void EvaluateLaunch(const KernelAccess& kernel, const LaunchConfig& launch,
                    std::span<const std::byte> params, const MemoryMap& memory,
                    std::span<const MemoryRange> variables, AccessSet* out) {
  out->Clear();
  if (kernel.basis == AccessBasis::kUnknown) return;
  const bool complete =
      std::ranges::all_of(kernel.words, [params](std::uint32_t offset) {
        return offset <= params.size() && params.size() - offset >= 8;
      });
  if (kernel.basis == AccessBasis::kProven && complete &&
      variables.size() == kernel.variables.size() &&
      Launch(kernel, launch, params, memory, variables, out).Run()) {
    out->basis = AccessBasis::kProven;
    return;
  }
  GuessLaunch(params, memory, out);
  for (const MemoryRange& variable : variables) {
    if (variable.bytes != 0) out->writes.push_back(variable);
  }
}

void GuessLaunch(std::span<const std::byte> params, const MemoryMap& memory,
                 AccessSet* out) {
  out->Clear();
  out->basis = AccessBasis::kGuessed;
  for (std::size_t at = 0; at + 8 <= params.size(); at += 4) {
    DeviceAddress address = 0;
    std::memcpy(&address, params.data() + at, 8);
    const bool known =
        std::ranges::any_of(out->writes, [address](const MemoryRange& range) {
          return address - range.address < range.bytes;
        });
    MemoryRange range;
    if (!known && memory.Find(address, &range) == MemoryMap::Found::kDevice) {
      out->writes.push_back(range);
    }
  }
}

}  // namespace pos::access
