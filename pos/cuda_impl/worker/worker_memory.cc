#include "pos/cuda_impl/worker/worker_memory.h"

#include "pos/base/log.h"

namespace pos::cuda {

Status WorkerMemory::Map(const WorkerBlock& block) {
  Device* const device = devices_[static_cast<std::size_t>(block.device)];
  WorkerBlock& kept = blocks_[block.address] = block;
  block_bytes_ += block.bytes;
  Backing& backing = backings_[block.backing_address];
  if (backing.blocks == 0) {
    Status status = device->Map(block.backing_address, block.backing_bytes);
    if (!status.ok()) {
      backings_.erase(block.backing_address);
      kept.unbacked = true;
      return status;
    }
    backing.bytes = block.backing_bytes;
  }
  ++backing.blocks;
  device->AddAllocation(block.address, block.bytes);
  return {};
}

void WorkerMemory::MarkReleasing(std::uint64_t address) {
  const auto it = blocks_.find(address);
  if (it != blocks_.end()) it->second.releasing = true;
}

bool WorkerMemory::Unmap(std::uint64_t address) {
  const auto it = blocks_.find(address);
  if (it == blocks_.end()) return false;
  const WorkerBlock block = it->second;
  blocks_.erase(it);
  block_bytes_ -= block.bytes;
  if (block.unbacked) return true;
  Device* const device = devices_[static_cast<std::size_t>(block.device)];
  device->RemoveAllocation(address);
  const auto backing = backings_.find(block.backing_address);
  if (--backing->second.blocks == 0) {
    const Status status =
        device->Unmap(block.backing_address, backing->second.bytes);
    if (!status.ok()) {
      POS_LOG(kError, "unmap failed", {{"status", status.ToString()}});
    }
    backings_.erase(backing);
  }
  return true;
}

const WorkerBlock* WorkerMemory::Find(std::uint64_t address) const {
  const auto it = blocks_.find(address);
  return it == blocks_.end() ? nullptr : &it->second;
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
  }
}

Status WorkerMemory::Load(ByteReader* in) {
  const auto count = in->Get<std::uint64_t>();
  for (std::uint64_t i = 0; i < count && in->ok(); ++i) {
    WorkerBlock block;
    block.address = in->Get<std::uint64_t>();
    block.bytes = in->Get<std::uint64_t>();
    block.backing_address = in->Get<std::uint64_t>();
    block.backing_bytes = in->Get<std::uint64_t>();
    block.device = in->Get<std::int32_t>();
    block.context = in->Get<HandleId>();
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
