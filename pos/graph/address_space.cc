#include "pos/graph/address_space.h"

#include <string>

namespace pos {

AddressSpace::AddressSpace(std::uint64_t base, std::uint64_t bytes,
                           std::uint64_t granularity)
    : base_(base), bytes_(bytes), granularity_(granularity) {
  InsertFree(base, bytes);
}

void AddressSpace::InsertFree(std::uint64_t address, std::uint64_t bytes) {
  free_.emplace(address, bytes);
  by_size_.emplace(bytes, address);
}

void AddressSpace::EraseFree(
    std::map<std::uint64_t, std::uint64_t>::iterator it) {
  by_size_.erase({it->second, it->first});
  free_.erase(it);
}

void AddressSpace::Carve(std::map<std::uint64_t, std::uint64_t>::iterator hole,
                         std::uint64_t address, std::uint64_t bytes) {
  const auto [start, length] = *hole;
  EraseFree(hole);
  if (address > start) InsertFree(start, address - start);
  const std::uint64_t end = address + bytes;
  if (end < start + length) InsertFree(end, start + length - end);
  used_.emplace(address, bytes);
  used_bytes_ += bytes;
}

std::optional<std::uint64_t> AddressSpace::Allocate(std::uint64_t bytes,
                                                    std::uint64_t alignment) {
  if (bytes == 0 || bytes > bytes_) return std::nullopt;
  bytes = RoundUp(bytes);
  if (alignment < granularity_) alignment = granularity_;
  for (auto it = by_size_.lower_bound({bytes, 0}); it != by_size_.end(); ++it) {
    const auto [length, start] = *it;
    const std::uint64_t aligned = (start + alignment - 1) & ~(alignment - 1);
    // Written so that nothing can wrap around.
    if (aligned - start > length || length - (aligned - start) < bytes) {
      continue;
    }
    Carve(free_.find(start), aligned, bytes);
    return aligned;
  }
  return std::nullopt;
}

bool AddressSpace::AllocateAt(std::uint64_t address, std::uint64_t bytes) {
  if (bytes == 0 || bytes != RoundUp(bytes) || address % granularity_ != 0) {
    return false;
  }
  auto it = free_.upper_bound(address);
  if (it == free_.begin()) return false;
  --it;
  const std::uint64_t skipped = address - it->first;
  if (skipped > it->second || it->second - skipped < bytes) return false;
  Carve(it, address, bytes);
  return true;
}

std::uint64_t AddressSpace::Free(std::uint64_t address) {
  const auto it = used_.find(address);
  if (it == used_.end()) return 0;
  const std::uint64_t length = it->second;
  used_.erase(it);
  used_bytes_ -= length;
  std::uint64_t start = address;
  std::uint64_t merged = length;
  auto next = free_.lower_bound(address);
  if (next != free_.end() && next->first == address + length) {
    merged += next->second;
    EraseFree(next);
  }
  auto before = free_.lower_bound(address);
  if (before != free_.begin()) {
    --before;
    if (before->first + before->second == address) {
      start = before->first;
      merged += before->second;
      EraseFree(before);
    }
  }
  InsertFree(start, merged);
  return length;
}

void AddressSpace::Save(ByteWriter* out) const {
  out->Put(base_);
  out->Put(bytes_);
  out->Put(granularity_);
  out->Put(static_cast<std::uint64_t>(used_.size()));
  for (const auto& [address, length] : used_) {
    out->Put(address);
    out->Put(length);
  }
}

Status AddressSpace::Load(ByteReader* in) {
  const auto base = in->Get<std::uint64_t>();
  const auto bytes = in->Get<std::uint64_t>();
  const auto granularity = in->Get<std::uint64_t>();
  if (base != base_ || bytes != bytes_ || granularity != granularity_) {
    return Incompatible("address space of " + std::to_string(bytes) +
                        " bytes does not fit this one of " +
                        std::to_string(bytes_));
  }
  used_.clear();
  free_.clear();
  by_size_.clear();
  used_bytes_ = 0;
  InsertFree(base_, bytes_);
  const auto count = in->Get<std::uint64_t>();
  for (std::uint64_t i = 0; i < count && in->ok(); ++i) {
    const auto address = in->Get<std::uint64_t>();
    const auto length = in->Get<std::uint64_t>();
    if (!AllocateAt(address, length)) {
      return Corrupt("address space: ranges overlap or lie outside");
    }
  }
  if (!in->ok()) return Corrupt("address space ends early");
  return {};
}

BlockAllocator::BlockAllocator(std::uint64_t base, std::uint64_t bytes,
                               std::uint64_t slab_bytes)
    : space_(base, bytes, slab_bytes) {}

std::uint64_t BlockAllocator::NewBackingBytes(std::uint64_t bytes) const {
  if (bytes >= kSmallLimit) return space_.RoundUp(bytes);
  const std::uint64_t rounded = (bytes + kBlockAlign - 1) & ~(kBlockAlign - 1);
  for (const auto& [start, slab] : slabs_) {
    if (slab.LargestFree() >= rounded) return 0;
  }
  return space_.granularity();
}

std::optional<BlockAllocator::Block> BlockAllocator::Allocate(
    std::uint64_t bytes) {
  if (bytes == 0) return std::nullopt;
  if (bytes >= kSmallLimit) {
    const std::optional<std::uint64_t> address = space_.Allocate(bytes);
    if (!address) return std::nullopt;
    const std::uint64_t length = space_.RoundUp(bytes);
    return Block{*address, length, Backing{*address, length}, true};
  }
  const std::uint64_t rounded = (bytes + kBlockAlign - 1) & ~(kBlockAlign - 1);
  for (auto& [start, slab] : slabs_) {
    const std::optional<std::uint64_t> address = slab.Allocate(rounded);
    if (!address) continue;
    return Block{*address, rounded, Backing{start, space_.granularity()},
                 false};
  }
  const std::optional<std::uint64_t> base = space_.Allocate(1);
  if (!base) return std::nullopt;
  const std::uint64_t slab_bytes = space_.granularity();
  AddressSpace& slab =
      slabs_.emplace(*base, AddressSpace(*base, slab_bytes, kBlockAlign))
          .first->second;
  const std::optional<std::uint64_t> address = slab.Allocate(rounded);
  return Block{*address, rounded, Backing{*base, slab_bytes}, true};
}

std::optional<BlockAllocator::Backing> BlockAllocator::Free(
    std::uint64_t address, bool* found) {
  *found = true;
  auto slab = slabs_.upper_bound(address);
  if (slab != slabs_.begin()) {
    --slab;
    const std::uint64_t start = slab->first;
    if (address - start < space_.granularity()) {
      if (slab->second.Free(address) == 0) {
        *found = false;
        return std::nullopt;
      }
      if (slab->second.used_bytes() != 0) return std::nullopt;
      slabs_.erase(slab);
      return Backing{start, space_.Free(start)};
    }
  }
  const std::uint64_t length = space_.Free(address);
  if (length == 0) {
    *found = false;
    return std::nullopt;
  }
  return Backing{address, length};
}

void BlockAllocator::Save(ByteWriter* out) const {
  space_.Save(out);
  out->Put(static_cast<std::uint64_t>(slabs_.size()));
  for (const auto& [start, slab] : slabs_) {
    out->Put(start);
    slab.Save(out);
  }
}

Status BlockAllocator::Load(ByteReader* in) {
  POS_RETURN_IF_ERROR(space_.Load(in));
  slabs_.clear();
  const auto count = in->Get<std::uint64_t>();
  const std::uint64_t slab_bytes = space_.granularity();
  for (std::uint64_t i = 0; i < count && in->ok(); ++i) {
    const auto start = in->Get<std::uint64_t>();
    const auto used = space_.used().find(start);
    if (used == space_.used().end() || used->second != slab_bytes) {
      return Corrupt("block allocator: a slab is not an allocated range");
    }
    auto [it, inserted] =
        slabs_.emplace(start, AddressSpace(start, slab_bytes, kBlockAlign));
    if (!inserted) return Corrupt("block allocator: a slab occurs twice");
    POS_RETURN_IF_ERROR(it->second.Load(in));
  }
  if (!in->ok()) return Corrupt("block allocator ends early");
  return {};
}

}  // namespace pos
