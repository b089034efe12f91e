#include "pos/cuda_impl/worker/worker_memory.h"

#include <algorithm>

#include "pos/base/log.h"

namespace pos::cuda {

Status WorkerMemory::Map(const WorkerBlock& block) {
  WorkerBlock& kept = blocks_[block.address] = block;
  kept.made = ++made_;
  block_bytes_ += block.bytes;
  if (block.memory != nullptr) ++mapping_changes_;
  Status status = Back(kept);
  kept.unbacked = !status.ok();
  return status;
}

Status WorkerMemory::Back(const WorkerBlock& block) {
  if (block.foreign) return {};
  Device* const device = devices_[static_cast<std::size_t>(block.device)];
  if (block.memory != nullptr) {
    POS_RETURN_IF_ERROR(
        device->MapPhysical(block.address, block.memory->memory));
    block.memory->touched = true;
    if (block.accessible) device->AddAllocation(block.address, block.bytes);
    return {};
  }
  Backing& backing = backings_[block.backing_address];
  if (backing.blocks == 0) {
    Status status = device->Map(block.backing_address, block.backing_bytes);
    if (!status.ok()) {
      backings_.erase(block.backing_address);
      return status;
    }
    backing.bytes = block.backing_bytes;
  }
  ++backing.blocks;
  device->AddAllocation(block.address, block.bytes);
  return {};
}

void WorkerMemory::SetAccessible(std::uint64_t address, bool accessible) {
  const auto it = blocks_.find(address);
  if (it == blocks_.end() || it->second.accessible == accessible) return;
  WorkerBlock& block = it->second;
  Device* const device = devices_[static_cast<std::size_t>(block.device)];
  block.accessible = accessible;
  accessible ? device->AddAllocation(address, block.bytes)
             : device->RemoveAllocation(address);
}

bool WorkerMemory::IsMapped(HandleId physical) const {
  return std::any_of(blocks_.begin(), blocks_.end(),
                     [physical](const auto& entry) {
                       return entry.second.physical == physical;
                     });
}

void WorkerMemory::MarkReleasing(std::uint64_t address) {
  const auto it = blocks_.find(address);
  if (it == blocks_.end()) return;
  it->second.releasing = true;
  it->second.leaving = true;
}

void WorkerMemory::MarkLeaving(std::uint64_t address) {
  const auto it = blocks_.find(address);
  if (it != blocks_.end()) it->second.leaving = true;
}

bool WorkerMemory::Unmap(std::uint64_t address) {
  const auto it = blocks_.find(address);
  if (it == blocks_.end()) return false;
  const WorkerBlock block = it->second;
  blocks_.erase(it);
  block_bytes_ -= block.bytes;
  if (block.memory != nullptr) ++mapping_changes_;
  if (!block.unbacked && !block.foreign) Unback(block);
  return true;
}

void WorkerMemory::Unback(const WorkerBlock& block) {
  Device* const device = devices_[static_cast<std::size_t>(block.device)];
  device->RemoveAllocation(block.address);
  std::uint64_t address = block.address;
  std::uint64_t bytes = block.bytes;
  if (block.memory == nullptr) {
    const auto backing = backings_.find(block.backing_address);
    if (--backing->second.blocks != 0) return;
    address = block.backing_address;
    bytes = backing->second.bytes;
    backings_.erase(backing);
  }
  const Status status = device->Unmap(address, bytes);
  if (!status.ok()) {
    POS_LOG(kError, "unmap failed", {{"status", status.ToString()}});
  }
}

const WorkerBlock* WorkerMemory::Find(std::uint64_t address) const {
  const auto it = blocks_.find(address);
  return it == blocks_.end() ? nullptr : &it->second;
}

const WorkerBlock* WorkerMemory::FindContaining(std::uint64_t address) const {
  auto it = blocks_.upper_bound(address);
  if (it == blocks_.begin()) return nullptr;
  --it;
  return address - it->first < it->second.bytes ? &it->second : nullptr;
}

void WorkerMemory::Save(ByteWriter* out) const {
  out->Put(static_cast<std::uint64_t>(blocks_.size()));
  for (const auto& [address, block] : blocks_) {
    out->Put(block.address);
    out->Put(block.bytes);
    out->Put(block.backing_address);
    out->Put(block.backing_bytes);
    out->Put(block.device);
    out->Put(block.context);
    out->Put(static_cast<std::uint8_t>(block.foreign));
    out->Put(block.physical);
    out->Put(static_cast<std::uint8_t>(block.accessible));
  }
}

Status WorkerMemory::Load(ByteReader* in, const FindPhysical& find) {
  const auto count = in->Get<std::uint64_t>();
  for (std::uint64_t i = 0; i < count && in->ok(); ++i) {
    WorkerBlock block;
    block.address = in->Get<std::uint64_t>();
    block.bytes = in->Get<std::uint64_t>();
    block.backing_address = in->Get<std::uint64_t>();
    block.backing_bytes = in->Get<std::uint64_t>();
    block.device = in->Get<std::int32_t>();
    block.context = in->Get<HandleId>();
    block.foreign = in->Get<std::uint8_t>() != 0;
    block.physical = in->Get<HandleId>();
    block.accessible = in->Get<std::uint8_t>() != 0;
    if (block.physical != 0) {
      block.memory = find(block.physical);
      if (block.memory == nullptr || block.memory->device != block.device ||
          block.memory->memory->bytes() != block.bytes) {
        return Corrupt("memory table: mapping of unknown memory");
      }
    }
    const bool inside =
        block.address >= block.backing_address &&
        block.address - block.backing_address <= block.backing_bytes &&
        block.bytes <=
            block.backing_bytes - (block.address - block.backing_address);
    if (!in->ok() || !inside || block.device < 0 ||
        static_cast<std::size_t>(block.device) >= devices_.size()) {
      return Corrupt("memory table: impossible block");
    }
    POS_RETURN_IF_ERROR(Map(block));
  }
  if (!in->ok()) return Corrupt("memory table ends early");
  return {};
}

}  // namespace pos::cuda
