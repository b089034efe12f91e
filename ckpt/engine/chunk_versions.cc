#include "ckpt/engine/chunk_versions.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

namespace pos::ckpt {
namespace {

constexpr std::uint64_t kTop = std::numeric_limits<std::uint64_t>::max();

std::uint64_t EndOf(const MemoryRange& range) {
  return range.bytes > kTop - range.address ? kTop
                                            : range.address + range.bytes;
}

}  // namespace

std::uint64_t ChunkVersions::Written::BytesOf(
    std::span<const MemoryRange> memory) const {
  std::uint64_t bytes = 0;
  for (const MemoryRange& range : memory) {
    if (everything) {
      bytes += range.bytes;
      continue;
    }
    const std::uint64_t end = EndOf(range);
    auto it = std::upper_bound(
        ranges.begin(), ranges.end(), range.address,
        [](std::uint64_t at, const MemoryRange& r) { return at < EndOf(r); });
    for (; it != ranges.end() && it->address < end; ++it) {
      bytes += std::min(end, EndOf(*it)) - std::max(range.address, it->address);
    }
  }
  return bytes;
}

ChunkVersions::ChunkVersions(std::uint64_t chunk_bytes, std::size_t most_spans)
    : most_spans_(most_spans), chunk_bytes_(chunk_bytes) {}

void ChunkVersions::Record(const CallAccess& access) {
  const MutexLock lock(&mu_);
  switch (access.set->basis) {
    case AccessBasis::kProven:
      ++counts_.proven;
      break;
    case AccessBasis::kGuessed:
      ++counts_.guessed;
      break;
    case AccessBasis::kUnknown:
      ++counts_.unknown;
      all_ = access.pc;
      spans_.clear();  // none of them is newer
      return;
  }
  for (const MemoryRange& range : access.set->writes) {
    Assign(range, access.pc);
    if (spans_.size() > most_spans_) Coarsen();
  }
}

void ChunkVersions::SplitAt(std::uint64_t address) {
  auto it = spans_.upper_bound(address);
  if (it == spans_.begin()) return;
  --it;
  if (it->first == address || it->second.end <= address) return;
  const Span tail = it->second;
  it->second.end = address;
  spans_.emplace(address, tail);
}

void ChunkVersions::Assign(const MemoryRange& range, std::uint64_t pc) {
  if (range.bytes == 0) return;
  const std::uint64_t mask = chunk_bytes_ - 1;
  const std::uint64_t begin = range.address & ~mask;
  const std::uint64_t last = EndOf(range) - 1;
  const std::uint64_t end = (last | mask) == kTop ? kTop : (last | mask) + 1;
  // Most calls write what an earlier one wrote.
  const auto same = spans_.find(begin);
  if (same != spans_.end() && same->second.end == end) {
    same->second.pc = pc;
    return;
  }
  SplitAt(begin);
  SplitAt(end);
  spans_.erase(spans_.lower_bound(begin), spans_.lower_bound(end));
  spans_.emplace(begin, Span{end, pc});
}

// Larger chunks, until half of the spans are left.
void ChunkVersions::Coarsen() {
  while (spans_.size() > most_spans_ / 2 && chunk_bytes_ < kTop / 4) {
    chunk_bytes_ *= 2;
    std::vector<std::pair<MemoryRange, std::uint64_t>> old;
    old.reserve(spans_.size());
    for (const auto& [begin, span] : spans_) {
      old.push_back({{begin, span.end - begin}, span.pc});
    }
    // Where two of them meet in a chunk, the newer one counts.
    std::stable_sort(old.begin(), old.end(), [](const auto& a, const auto& b) {
      return a.second < b.second;
    });
    spans_.clear();
    for (const auto& [range, pc] : old) Assign(range, pc);
    // Neighbours with one version are one span.
    for (auto it = spans_.begin(); it != spans_.end();) {
      const auto next = std::next(it);
      if (next != spans_.end() && next->first == it->second.end &&
          next->second.pc == it->second.pc) {
        it->second.end = next->second.end;
        spans_.erase(next);
      } else {
        it = next;
      }
    }
  }
}

std::uint64_t ChunkVersions::LastWriter(const MemoryRange& range) const {
  const MutexLock lock(&mu_);
  std::uint64_t pc = all_;
  const std::uint64_t end = EndOf(range);
  auto it = spans_.upper_bound(range.address);
  if (it != spans_.begin() && std::prev(it)->second.end > range.address) --it;
  for (; it != spans_.end() && it->first < end; ++it) {
    pc = std::max(pc, it->second.pc);
  }
  return pc;
}

ChunkVersions::Written ChunkVersions::WrittenSince(std::uint64_t pc) const {
  const MutexLock lock(&mu_);
  Written written;
  written.everything = all_ > pc;
  if (written.everything) return written;
  for (const auto& [begin, span] : spans_) {
    if (span.pc <= pc) continue;
    if (!written.ranges.empty() && EndOf(written.ranges.back()) == begin) {
      written.ranges.back().bytes += span.end - begin;
    } else {
      written.ranges.push_back({begin, span.end - begin});
    }
  }
  return written;
}

ChunkVersions::Counts ChunkVersions::counts() const {
  const MutexLock lock(&mu_);
  return counts_;
}

std::uint64_t ChunkVersions::chunk_bytes() const {
  const MutexLock lock(&mu_);
  return chunk_bytes_;
}

std::size_t ChunkVersions::spans() const {
  const MutexLock lock(&mu_);
  return spans_.size();
}

}  // namespace pos::ckpt
