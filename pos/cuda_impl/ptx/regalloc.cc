#include "pos/cuda_impl/ptx/regalloc.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <queue>
#include <unordered_map>

namespace pos::ptx {
namespace {

// The sets of live registers of all blocks together take no more than this;
// beyond, every register has a place of its own.
constexpr std::uint64_t kMaxSetBytes = 64ull << 20;
// Rounds until the sets are stable: loops nested as deep, and two. Hostile
// graphs could take as many as they have blocks.
constexpr int kMaxRounds = 100;

class BitSets {
 public:
  BitSets(std::size_t sets, std::size_t bits)
      : words_((bits + 63) / 64), data_(sets * words_, 0) {}
  [[nodiscard]] std::size_t words() const { return words_; }
  std::uint64_t* Row(std::size_t set) { return data_.data() + set * words_; }
  void Set(std::size_t set, std::uint32_t bit) {
    Row(set)[bit / 64] |= 1ull << (bit % 64);
  }
  void Clear(std::size_t set, std::uint32_t bit) {
    Row(set)[bit / 64] &= ~(1ull << (bit % 64));
  }
  bool Has(std::size_t set, std::uint32_t bit) {
    return (Row(set)[bit / 64] >> (bit % 64) & 1) != 0;
  }

 private:
  std::size_t words_;
  std::vector<std::uint64_t> data_;
};

struct Interval {
  std::uint32_t begin = 0xffffffff;  // position of the first instruction
  std::uint32_t end = 0;             // one past the last

  void Cover(std::uint32_t from, std::uint32_t to) {
    begin = std::min(begin, from);
    end = std::max(end, to);
  }
};

class Liveness {
 public:
  Liveness(const LowFunction& function, const std::vector<BasicBlock>& blocks,
           const std::vector<std::uint32_t>& order)
      : function_(function),
        blocks_(blocks),
        order_(order),
        in_(blocks.size(), function.registers.size()),
        used_(function.registers.size(), false),
        calls_(CallsByInstruction()) {}

  // False when the sets do not become stable in time.
  bool Run();
  std::vector<Interval> Intervals();
  bool LiveAtEntry(std::uint32_t reg) { return in_.Has(0, reg); }

 private:
  [[nodiscard]] std::unordered_map<std::uint32_t, std::uint32_t>
  CallsByInstruction() const;
  template <typename Use, typename Define>
  void Visit(std::uint32_t index, Use use, Define define) const;
  void FindUsed();
  bool UpdateBlock(std::uint32_t block);
  // Whether a write by `inst` ends the life of the old value.
  [[nodiscard]] bool Kills(const LowInst& inst, std::uint32_t reg) const {
    return inst.guard.kind == Ref::Kind::kNone || !used_[reg];
  }

  const LowFunction& function_;
  const std::vector<BasicBlock>& blocks_;
  const std::vector<std::uint32_t>& order_;
  BitSets in_;
  std::vector<bool> used_;  // some instruction reads it
  std::unordered_map<std::uint32_t, std::uint32_t> calls_;
};

std::unordered_map<std::uint32_t, std::uint32_t> Liveness::CallsByInstruction()
    const {
  std::unordered_map<std::uint32_t, std::uint32_t> calls;
  for (std::uint32_t i = 0; i < function_.calls.size(); ++i) {
    calls.emplace(function_.calls[i].instruction, i);
  }
  return calls;
}

template <typename Use, typename Define>
void Liveness::Visit(std::uint32_t index, Use use, Define define) const {
  ForEachRegister(function_, index, use, define);
  const auto call = calls_.find(index);
  if (call == calls_.end()) return;
  for (const LowMove& move : function_.calls[call->second].arguments) {
    if (move.reg.kind == Ref::Kind::kVirtual) use(move.reg.value);
  }
  for (const LowMove& move : function_.calls[call->second].results) {
    if (move.reg.kind == Ref::Kind::kVirtual) define(move.reg.value);
  }
}

void Liveness::FindUsed() {
  for (const std::uint32_t block : order_) {
    for (std::uint32_t i = blocks_[block].begin; i < blocks_[block].end; ++i) {
      Visit(
          i, [this](std::uint32_t reg) { used_[reg] = true; },
          [](std::uint32_t) {});
    }
  }
}

bool Liveness::UpdateBlock(std::uint32_t block) {
  std::vector<std::uint64_t> live(in_.words(), 0);
  for (const std::uint32_t to : blocks_[block].successors) {
    const std::uint64_t* row = in_.Row(to);
    for (std::size_t w = 0; w < live.size(); ++w) live[w] |= row[w];
  }
  const auto bit = [](std::uint32_t reg) { return 1ull << (reg % 64); };
  for (std::uint32_t i = blocks_[block].end; i-- > blocks_[block].begin;) {
    const LowInst& inst = function_.code[i];
    const auto none = [](std::uint32_t) {};
    Visit(i, none, [&](std::uint32_t reg) {
      if (Kills(inst, reg)) live[reg / 64] &= ~bit(reg);
    });
    Visit(
        i, [&](std::uint32_t reg) { live[reg / 64] |= bit(reg); },
        [&](std::uint32_t reg) {
          if (!Kills(inst, reg)) live[reg / 64] |= bit(reg);
        });
  }
  std::uint64_t* row = in_.Row(block);
  if (std::equal(live.begin(), live.end(), row)) return false;
  std::copy(live.begin(), live.end(), row);
  return true;
}

bool Liveness::Run() {
  FindUsed();
  bool changed = true;
  for (int round = 0; changed; ++round) {
    if (round == kMaxRounds) return false;
    changed = false;
    for (auto block = order_.rbegin(); block != order_.rend(); ++block) {
      changed = UpdateBlock(*block) || changed;
    }
  }
  return true;
}

// Positions count instructions in laid-out order. A register covers a whole
// block where it is live on the way in or out without being mentioned.
std::vector<Interval> Liveness::Intervals() {
  std::vector<Interval> intervals(function_.registers.size());
  std::uint32_t position = 0;
  for (const std::uint32_t block : order_) {
    const std::uint32_t begin = position;
    const std::uint32_t end = begin + blocks_[block].end - blocks_[block].begin;
    const auto cover_row = [&](std::uint64_t* row, std::uint32_t from,
                               std::uint32_t to) {
      for (std::size_t w = 0; w < in_.words(); ++w) {
        for (std::uint64_t left = row[w]; left != 0; left &= left - 1) {
          const auto reg = static_cast<std::uint32_t>(
              64 * w + static_cast<std::size_t>(__builtin_ctzll(left)));
          intervals[reg].Cover(from, to);
        }
      }
    };
    cover_row(in_.Row(block), begin, begin + 1);
    for (const std::uint32_t to : blocks_[block].successors) {
      cover_row(in_.Row(to), end - 1, end);
    }
    for (std::uint32_t i = blocks_[block].begin; i < blocks_[block].end; ++i) {
      const auto cover = [&](std::uint32_t reg) {
        intervals[reg].Cover(position, position + 1);
      };
      Visit(i, cover, cover);
      ++position;
    }
  }
  return intervals;
}

// Counts places of a class while intervals come and go in order of their
// beginning.
class ClassPlaces {
 public:
  std::uint32_t Take(const Interval& interval) {
    // An instruction's results never take the places of its sources: handlers
    // may write one before they have read the other.
    while (!busy_.empty() && busy_.top().first <= interval.begin) {
      free_.push(busy_.top().second);
      busy_.pop();
    }
    std::uint32_t place = count_;
    if (free_.empty()) {
      ++count_;
    } else {
      place = free_.top();
      free_.pop();
    }
    busy_.emplace(interval.end, place);
    return place;
  }
  [[nodiscard]] std::uint32_t count() const { return count_; }

 private:
  using Item = std::pair<std::uint32_t, std::uint32_t>;
  std::priority_queue<Item, std::vector<Item>, std::greater<>> busy_;
  std::priority_queue<std::uint32_t, std::vector<std::uint32_t>, std::greater<>>
      free_;
  std::uint32_t count_ = 0;
};

// A frame begins with the carry flag, then predicates, then the classes from
// wide to narrow, each 64-byte aligned.
RegisterPlaces PlaceInFrame(
    const LowFunction& function, const std::vector<std::uint32_t>& index,
    const std::array<std::uint32_t, kRegClasses>& count) {
  RegisterPlaces places;
  std::array<std::uint32_t, kRegClasses> start{};
  constexpr std::uint32_t kCarryBytes = 4;
  std::uint32_t at = kCarryBytes;
  for (const RegClass klass : {RegClass::kPred, RegClass::k128, RegClass::k64,
                               RegClass::k32, RegClass::k16}) {
    const auto c = static_cast<std::size_t>(klass);
    if (klass != RegClass::kPred) at = (at + 63) & ~63u;
    start[c] = at;
    at += count[c] * kRegBytes[c];
  }
  places.frame_bytes = (at + 63) & ~63u;
  places.offset.resize(function.registers.size());
  for (std::size_t reg = 0; reg < function.registers.size(); ++reg) {
    const auto c = static_cast<std::size_t>(function.registers[reg]);
    places.offset[reg] = start[c] + index[reg] * kRegBytes[c];
  }
  return places;
}

// Merges neighbouring ranges.
void AddZero(RegisterPlaces* places, std::uint32_t offset,
             std::uint32_t bytes) {
  if (!places->zero.empty() &&
      places->zero.back().first + places->zero.back().second == offset) {
    places->zero.back().second += bytes;
  } else {
    places->zero.emplace_back(offset, bytes);
  }
}

RegisterPlaces PlaceApart(const LowFunction& function) {
  std::array<std::uint32_t, kRegClasses> count{};
  std::vector<std::uint32_t> index;
  for (const RegClass klass : function.registers) {
    index.push_back(count[static_cast<std::size_t>(klass)]++);
  }
  RegisterPlaces places = PlaceInFrame(function, index, count);
  places.zero.emplace_back(0, places.frame_bytes);
  return places;
}

}  // namespace

RegisterPlaces AllocateRegisters(const LowFunction& function,
                                 const std::vector<BasicBlock>& blocks,
                                 const std::vector<std::uint32_t>& order) {
  const std::uint64_t set_bytes = std::uint64_t{blocks.size()} *
                                  ((function.registers.size() + 63) / 64) * 8;
  if (set_bytes > kMaxSetBytes) return PlaceApart(function);
  Liveness liveness(function, blocks, order);
  if (!liveness.Run()) return PlaceApart(function);
  const std::vector<Interval> intervals = liveness.Intervals();
  std::vector<std::uint32_t> by_begin(function.registers.size());
  for (std::uint32_t i = 0; i < by_begin.size(); ++i) by_begin[i] = i;
  std::sort(by_begin.begin(), by_begin.end(),
            [&](std::uint32_t a, std::uint32_t b) {
              return intervals[a].begin != intervals[b].begin
                         ? intervals[a].begin < intervals[b].begin
                         : a < b;
            });
  std::array<ClassPlaces, kRegClasses> classes;
  std::vector<std::uint32_t> index(function.registers.size(), 0);
  for (const std::uint32_t reg : by_begin) {
    if (intervals[reg].end == 0) continue;  // only in code never reached
    index[reg] =
        classes[static_cast<std::size_t>(function.registers[reg])].Take(
            intervals[reg]);
  }
  std::array<std::uint32_t, kRegClasses> count{};
  for (std::size_t c = 0; c < kRegClasses; ++c) {
    count[c] = std::max(1u, classes[c].count());
  }
  RegisterPlaces places = PlaceInFrame(function, index, count);
  AddZero(&places, 0, 4);  // the carry flag
  std::vector<std::pair<std::uint32_t, std::uint32_t>> zero;
  for (std::uint32_t reg = 0; reg < function.registers.size(); ++reg) {
    if (!liveness.LiveAtEntry(reg)) continue;
    zero.emplace_back(
        places.offset[reg],
        kRegBytes[static_cast<std::size_t>(function.registers[reg])]);
  }
  std::sort(zero.begin(), zero.end());
  for (const auto& [offset, bytes] : zero) AddZero(&places, offset, bytes);
  return places;
}

}  // namespace pos::ptx
