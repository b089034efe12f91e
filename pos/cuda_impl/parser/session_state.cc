#include "pos/cuda_impl/parser/session_state.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "pos/base/log.h"
#include "pos/cuda_impl/api/calls.h"
#include "pos/cuda_impl/handles/objects.h"

namespace pos::cuda {
namespace {

constexpr std::uint64_t kPage = 4096;

std::vector<BlockAllocator> MakeBlocks(std::size_t devices,
                                       const ArenaLayout& layout) {
  std::vector<BlockAllocator> blocks;
  for (std::size_t i = 0; i < devices; ++i) {
    blocks.emplace_back(layout.PartBase(static_cast<int>(i)),
                        layout.BlockBytes(), Device::kMapGranularity);
  }
  return blocks;
}

}  // namespace

Status ArenaLayout::Check() const {
  const std::uint64_t unit = 16 * kDevices * Device::kMapGranularity;
  if (arena_bytes == 0 || arena_bytes % unit != 0 ||
      arena_base % Device::kMapGranularity != 0) {
    return Invalid("device arena " + Hex(arena_base) + " + " +
                   Hex(arena_bytes) + " is not a multiple of " + Hex(unit));
  }
  if (host_base % Device::kMapGranularity != 0 || host_bytes == 0 ||
      host_bytes % Device::kMapGranularity != 0) {
    return Invalid("host window " + Hex(host_base) + " + " + Hex(host_bytes) +
                   " is not a multiple of 2 MiB");
  }
  if (arena_base + arena_bytes < arena_base ||
      host_base + host_bytes < host_base ||
      (arena_base < host_base + host_bytes &&
       host_base < arena_base + arena_bytes)) {
    return Invalid("device arena and host window overlap");
  }
  return {};
}

SessionState::SessionState(std::vector<Device*> devices_in,
                           const ArenaLayout& layout_in,
                           MemoryLedger* ledger_in)
    : devices(std::move(devices_in)),
      layout(layout_in),
      ledger(ledger_in),
      blocks(MakeBlocks(devices.size(), layout)),
      host(layout.host_base, layout.host_bytes, kPage) {}

std::shared_ptr<Blob> CodeMemory::NewBlob(std::uint64_t bytes) {
  if (bytes > limit_bytes_ ||
      bytes_.load(std::memory_order_relaxed) > limit_bytes_ - bytes) {
    return nullptr;
  }
  bytes_.fetch_add(bytes, std::memory_order_relaxed);
  std::shared_ptr<Blob> blob(new Blob, [this, bytes](Blob* gone) {
    delete gone;
    bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  });
  blob->bytes.resize(bytes);
  return blob;
}

void SessionState::Save(ByteWriter* out) const {
  out->Put(static_cast<std::uint32_t>(blocks.size()));
  graph.Save(out);
  for (const BlockAllocator& allocator : blocks) allocator.Save(out);
  host.Save(out);
  allocations.Save(out);
  out->Put(static_cast<std::uint64_t>(reservations.size()));
  for (const auto& [address, reservation] : reservations) {
    out->Put(address);
    out->Put(reservation.bytes);
    out->Put(reservation.device);
  }
  out->Put(releasing);
  graph.ForEach([out](Handle* handle) {
    if (handle->kind != kBlobHandle) return;
    const auto* blob = static_cast<const Blob*>(handle->parser_data.get());
    out->PutBytes(blob->bytes);
    out->Put(static_cast<std::uint8_t>(blob->sealed));
  });
}

Status SessionState::Load(ByteReader* in) {
  const auto count = in->Get<std::uint32_t>();
  if (count != blocks.size()) {
    return Incompatible("the image's session has " + std::to_string(count) +
                        " devices, this one " + std::to_string(blocks.size()));
  }
  POS_RETURN_IF_ERROR(graph.Load(in));
  for (BlockAllocator& allocator : blocks) {
    POS_RETURN_IF_ERROR(allocator.Load(in));
  }
  POS_RETURN_IF_ERROR(host.Load(in));
  POS_RETURN_IF_ERROR(allocations.Load(in));
  const auto reserved = in->Get<std::uint64_t>();
  for (std::uint64_t i = 0; i < reserved && in->ok(); ++i) {
    const auto address = in->Get<std::uint64_t>();
    Reservation& reservation = reservations[address];
    reservation.bytes = in->Get<std::uint64_t>();
    reservation.device = in->Get<std::int32_t>();
    if (reservation.device < 0 ||
        static_cast<std::size_t>(reservation.device) >= blocks.size()) {
      return Corrupt("address range of an unknown device");
    }
  }
  releasing = in->Get<std::uint64_t>();
  bool fits = true;
  graph.ForEach([this, in, &fits](Handle* handle) {
    if (handle->kind != kBlobHandle || !fits) return;
    const std::span<const std::byte> bytes = in->GetBytes();
    auto blob = code.NewBlob(bytes.size());
    if (blob == nullptr) {
      fits = false;
      return;
    }
    std::copy(bytes.begin(), bytes.end(), blob->bytes.begin());
    blob->sealed = in->Get<std::uint8_t>() != 0;
    handle->parser_data = std::move(blob);
  });
  if (!fits) return Corrupt("session state holds too much code");
  if (!in->ok()) return Corrupt("session state ends early");
  return {};
}

}  // namespace pos::cuda
