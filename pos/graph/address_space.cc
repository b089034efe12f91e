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

void BlockAllocator::AddRoom(const AddressSpace& slab) {
  if (slab.LargestFree() != 0) {
    by_room_.emplace(slab.LargestFree(), slab.base());
  }
}

void BlockAllocator::RemoveRoom(const AddressSpace& slab) {
  by_room_.erase({slab.LargestFree(), slab.base()});
}

BlockAllocator::Slabs::const_iterator BlockAllocator::SlabOf(
    std::uint64_t address) const {
  auto slab = slabs_.upper_bound(address);
  if (slab == slabs_.begin()) return slabs_.end();
  --slab;
  return address - slab->first < space_.granularity() ? slab : slabs_.end();
}

std::uint64_t BlockAllocator::NewBackingBytes(std::uint64_t bytes) const {
  if (bytes >= kSmallLimit) return space_.RoundUp(bytes);
  return by_room_.lower_bound({RoundUpBlock(bytes), 0}) != by_room_.end()
             ? 0
             : space_.granularity();
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
  const std::uint64_t rounded = RoundUpBlock(bytes);
  const std::uint64_t slab_bytes = space_.granularity();
  const auto room = by_room_.lower_bound({rounded, 0});
  bool fresh = false;
  auto slab = slabs_.end();
  if (room != by_room_.end()) {
    slab = slabs_.find(room->second);
    by_room_.erase(room);
  } else {
    const std::optional<std::uint64_t> base = space_.Allocate(1);
    if (!base) return std::nullopt;
    slab = slabs_.emplace(*base, AddressSpace(*base, slab_bytes, kBlockAlign))
               .first;
    fresh = true;
  }
  const std::optional<std::uint64_t> address = slab->second.Allocate(rounded);
  AddRoom(slab->second);
  return Block{*address, rounded, Backing{slab->first, slab_bytes}, fresh};
}

std::optional<BlockAllocator::Backing> BlockAllocator::Free(
    std::uint64_t address, bool* found) {
  *found = true;
  if (const auto holder = SlabOf(address); holder != slabs_.end()) {
    const auto slab = slabs_.find(holder->first);
    RemoveRoom(slab->second);
    *found = slab->second.Free(address) != 0;
    AddRoom(slab->second);
    if (!*found || slab->second.used_bytes() != 0) return std::nullopt;
    const std::uint64_t start = slab->first;
    RemoveRoom(slab->second);
    slabs_.erase(slab);
    return Backing{start, space_.Free(start)};
  }
  const std::uint64_t length = space_.Free(address);
  if (length == 0) {
    *found = false;
    return std::nullopt;
  }
  return Backing{address, length};
}

std::optional<BlockAllocator::Block> BlockAllocator::Find(
    std::uint64_t address) const {
  if (const auto slab = SlabOf(address); slab != slabs_.end()) {
    const auto used = slab->second.used().find(address);
    if (used == slab->second.used().end()) return std::nullopt;
    return Block{address, used->second,
                 Backing{slab->first, space_.granularity()}, false};
  }
  const auto used = space_.used().find(address);
  if (used == space_.used().end()) return std::nullopt;
  return Block{address, used->second, Backing{address, used->second}, false};
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
  by_room_.clear();
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
    if (it->second.used_bytes() == 0) {
      return Corrupt("block allocator: an empty slab");
    }
    AddRoom(it->second);
  }
  if (!in->ok()) return Corrupt("block allocator ends early");
  return {};
}

}  // namespace pos
