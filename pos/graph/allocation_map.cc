#include "pos/graph/allocation_map.h"

namespace pos {

Allocation* AllocationMap::At(std::uint64_t address) {
  const auto it = map_.find(address);
  return it == map_.end() ? nullptr : &it->second;
}

const Allocation* AllocationMap::Find(std::uint64_t address,
                                      std::uint64_t bytes) const {
  auto it = map_.upper_bound(address);
  if (it == map_.begin()) return nullptr;
  --it;
  const Allocation& a = it->second;
  const std::uint64_t offset = address - a.address;
  if (a.releasing || offset >= a.bytes || bytes > a.bytes - offset) {
    return nullptr;
  }
  return &a;
}

void AllocationMap::Save(ByteWriter* out) const {
  out->Put(static_cast<std::uint64_t>(map_.size()));
  for (const auto& [address, a] : map_) {
    out->Put(address);
    out->Put(a.bytes);
    out->Put(a.block_bytes);
    out->Put(a.kind);
    out->Put(a.device);
    out->Put(a.context);
    out->Put(static_cast<std::uint8_t>(a.releasing));
  }
}

Status AllocationMap::Load(ByteReader* in) {
  map_.clear();
  const auto count = in->Get<std::uint64_t>();
  std::uint64_t end = 0;
  for (std::uint64_t i = 0; i < count && in->ok(); ++i) {
    Allocation a;
    a.address = in->Get<std::uint64_t>();
    a.bytes = in->Get<std::uint64_t>();
    a.block_bytes = in->Get<std::uint64_t>();
    a.kind = in->Get<MemoryKind>();
    a.device = in->Get<std::int32_t>();
    a.context = in->Get<HandleId>();
    a.releasing = in->Get<std::uint8_t>() != 0;
    if (!in->ok()) break;
    if (a.address < end || a.bytes > a.block_bytes || a.bytes == 0 ||
        a.address + a.block_bytes < a.address) {
      return Corrupt("allocation map: ranges overlap");
    }
    if (a.kind < MemoryKind::kDevice || a.kind > MemoryKind::kRegistered) {
      return Corrupt("allocation map: memory of unknown kind");
    }
    end = a.address + a.block_bytes;
    map_.emplace(a.address, a);
  }
  if (!in->ok()) return Corrupt("allocation map ends early");
  return {};
}

}  // namespace pos
