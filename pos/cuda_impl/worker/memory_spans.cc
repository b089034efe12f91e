#include "pos/cuda_impl/worker/memory_spans.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>

namespace pos::cuda {
namespace {

std::uint64_t EndOf(std::uint64_t address, std::uint64_t bytes) {
  return bytes > std::numeric_limits<std::uint64_t>::max() - address
             ? std::numeric_limits<std::uint64_t>::max()
             : address + bytes;
}

void AddCommon(std::uint64_t begin, std::uint64_t end, std::uint64_t from,
               std::uint64_t to, std::vector<MemoryRange>* ranges) {
  begin = std::max(begin, from);
  end = std::min(end, to);
  if (begin < end) ranges->push_back({begin, end - begin});
}

}  // namespace

void MemorySpans::Refresh() const {
  if (memory_->mapping_changes() == seen_changes_) return;
  seen_changes_ = memory_->mapping_changes();
  runs_.clear();
  aliased_.clear();
  std::map<HandleId, int> times;
  for (const auto& [address, block] : memory_->blocks()) {
    if (block.physical == 0) continue;
    ++times[block.physical];
    if (!runs_.empty() &&
        runs_.back().address + runs_.back().bytes == address) {
      runs_.back().bytes += block.bytes;
    } else {
      runs_.push_back({address, block.bytes});
    }
  }
  for (const auto& [address, block] : memory_->blocks()) {
    if (block.physical == 0 || times[block.physical] < 2) continue;
    aliased_.push_back({address, address + block.bytes, block.physical});
  }
}

MemoryRange MemorySpans::Allocation(DeviceAddress address) const {
  const WorkerBlock* const block = memory_->FindContaining(address);
  if (block == nullptr) return {};
  if (block->physical == 0) return {block->address, block->bytes};
  Refresh();
  auto run = std::upper_bound(
      runs_.begin(), runs_.end(), address,
      [](std::uint64_t at, const MemoryRange& r) { return at < r.address; });
  return *--run;  // it holds `block`
}

void MemorySpans::AddDevicePart(DeviceAddress address, std::uint64_t bytes,
                                std::vector<MemoryRange>* ranges) const {
  const std::uint64_t end = EndOf(address, bytes);
  const std::uint64_t arena_end = layout_.arena_base + layout_.arena_bytes;
  AddCommon(address, end, layout_.arena_base, arena_end, ranges);
  if (address >= layout_.arena_base && end <= arena_end) return;
  // Variables that the device's driver has placed, somewhere.
  const auto& blocks = memory_->blocks();
  auto it = blocks.upper_bound(address);
  if (it != blocks.begin()) --it;
  for (; it != blocks.end() && it->first < end; ++it) {
    if (!it->second.foreign) continue;
    const std::uint64_t to = it->first + it->second.bytes;
    if (it->first >= layout_.arena_base && to <= arena_end) continue;
    AddCommon(address, end, it->first, to, ranges);
  }
}

void MemorySpans::AddAliases(std::vector<MemoryRange>* ranges) const {
  Refresh();
  if (aliased_.empty()) return;
  const std::size_t named = ranges->size();
  for (std::size_t i = 0; i < named; ++i) {
    const std::uint64_t begin = (*ranges)[i].address;
    const std::uint64_t end = EndOf(begin, (*ranges)[i].bytes);
    auto it = std::upper_bound(
        aliased_.begin(), aliased_.end(), begin,
        [](std::uint64_t at, const Mapping& m) { return at < m.end; });
    for (; it != aliased_.end() && it->begin < end; ++it) {
      const std::uint64_t from = std::max(begin, it->begin) - it->begin;
      const std::uint64_t to = std::min(end, it->end) - it->begin;
      for (const Mapping& other : aliased_) {
        if (other.physical != it->physical || other.begin == it->begin) {
          continue;
        }
        ranges->push_back({other.begin + from, to - from});
      }
    }
  }
}

}  // namespace pos::cuda
