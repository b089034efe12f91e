// Memory: allocation, freeing, copies, fills.
#include <cuda.h>

#include <optional>

#include "pos/cuda_impl/parser/cuda_parser.h"

namespace pos::cuda {

bool CudaParser::Accessible(std::uint64_t address, std::uint64_t bytes) const {
  return state_->allocations.Find(address, bytes) != nullptr;
}

void CudaParser::FreeBlock(std::uint64_t address) {
  const Allocation* const allocation = state_->allocations.At(address);
  if (allocation == nullptr) return;
  const auto device = static_cast<std::size_t>(allocation->device);
  bool found = false;
  const std::optional<BlockAllocator::Backing> backing =
      state_->blocks[device].Free(address, &found);
  if (backing) {
    state_->ledger->GiveBack(allocation->device, backing->bytes);
  }
  state_->allocations.Remove(address);
  --state_->releasing;
  ++frees_seen_;
}

// Finds addresses and memory for a block of `owner`'s device. On success the
// context tells the worker: block address and bytes, backing address and bytes.
ApiParser::Outcome CudaParser::Allocate(ApiContext* context, Handle* owner,
                                        std::uint64_t bytes,
                                        std::uint64_t* address) {
  if (bytes == 0) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "zero bytes");
  }
  const int device = DeviceOf(owner);
  BlockAllocator& blocks = state_->blocks[static_cast<std::size_t>(device)];
  const std::uint64_t backing_bytes = blocks.NewBackingBytes(bytes);
  if (backing_bytes != 0) {
    // Denied before, and memory was on its way back: nothing changes before
    // some of it has arrived, so posd is not asked again.
    std::uint64_t& denied_at = context->scratch[0];
    if (denied_at == frees_seen_ && state_->releasing != 0) {
      return Outcome::kStall;
    }
    switch (state_->ledger->Take(device, backing_bytes)) {
      case MemoryLedger::Answer::kGranted:
        break;
      case MemoryLedger::Answer::kPending:
        return Outcome::kStall;
      case MemoryLedger::Answer::kDenied:
        if (state_->releasing != 0) {
          denied_at = frees_seen_;
          return Outcome::kStall;
        }
        return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "out of memory");
    }
  }
  const std::optional<BlockAllocator::Block> block = blocks.Allocate(bytes);
  if (!block) {
    if (backing_bytes != 0) state_->ledger->GiveBack(device, backing_bytes);
    return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "no address range left");
  }
  Allocation allocation;
  allocation.address = block->address;
  allocation.bytes = bytes;
  allocation.block_bytes = block->bytes;
  allocation.device = device;
  allocation.context = owner->id;
  state_->allocations.Add(allocation);
  context->scratch = {block->address, block->bytes, block->backing.address,
                      block->backing.bytes};
  *address = block->address;
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseMemAlloc(ApiContext* context,
                                             const MemAllocArgs& args) {
  Handle* const owner = Resolve(context, 0, kContextHandle, args.context);
  if (owner == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_CONTEXT, "no such context");
  }
  const Outcome outcome = Allocate(context, owner, args.bytes,
                                   &context->Out<MemAllocOut>().address);
  if (outcome == Outcome::kForward) port_->Reply(context);
  return outcome;
}

ApiParser::Outcome CudaParser::ParseMemAllocAsync(
    ApiContext* context, const MemAllocAsyncArgs& args) {
  Handle* const stream = Resolve(context, 1, kStreamHandle, args.stream);
  Handle* const owner = ContextOf(stream);
  if (owner == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such stream");
  }
  context->handles[0] = owner;
  const Outcome outcome = Allocate(context, owner, args.bytes,
                                   &context->Out<MemAllocAsyncOut>().address);
  if (outcome == Outcome::kForward) port_->Reply(context);
  return outcome;
}

ApiParser::Outcome CudaParser::ParseMemFree(ApiContext* context,
                                            const MemFreeArgs& args) {
  Allocation* const allocation = state_->allocations.At(args.address);
  if (allocation == nullptr || allocation->releasing ||
      allocation->kind != MemoryKind::kDevice) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "not an allocation");
  }
  allocation->releasing = true;
  ++state_->releasing;
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseMemFreeAsync(ApiContext* context,
                                                 const MemFreeAsyncArgs& args) {
  if (Resolve(context, 0, kStreamHandle, args.stream) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such stream");
  }
  const Outcome outcome =
      ParseMemFree(context, MemFreeArgs{.address = args.address});
  if (outcome == Outcome::kForward) port_->Reply(context);
  return outcome;
}

ApiParser::Outcome CudaParser::ParseMemGetInfo(ApiContext* context,
                                               const MemGetInfoArgs& args) {
  const Handle* const owner = Resolve(context, 0, kContextHandle, args.context);
  if (owner == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_CONTEXT, "no such context");
  }
  const int device = DeviceOf(owner);
  if (state_->ledger->Ask(device) == MemoryLedger::Answer::kPending) {
    return Outcome::kStall;
  }
  auto& out = context->Out<MemGetInfoOut>();
  out.free_bytes = state_->ledger->FreeBytes(device);
  out.total_bytes =
      state_->devices[static_cast<std::size_t>(device)]->info().memory_bytes;
  return Outcome::kAnswered;
}

ApiParser::Outcome CudaParser::ParseHostAlloc(ApiContext* context,
                                              const HostAllocArgs& args) {
  const Handle* const owner = Resolve(context, 0, kContextHandle, args.context);
  if (owner == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_CONTEXT, "no such context");
  }
  if (args.bytes == 0) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "zero bytes");
  }
  const std::optional<std::uint64_t> address =
      state_->host.Allocate(args.bytes);
  if (!address) {
    return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "host window is full");
  }
  Allocation allocation;
  allocation.address = *address;
  allocation.bytes = args.bytes;
  allocation.block_bytes = state_->host.RoundUp(args.bytes);
  allocation.kind = MemoryKind::kHost;
  allocation.device = DeviceOf(owner);
  // Pinned memory outlives contexts: it is the process's.
  state_->allocations.Add(allocation);
  auto& out = context->Out<HostAllocOut>();
  out.address = *address;
  out.mapped_bytes = allocation.block_bytes;
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseHostFree(ApiContext* context,
                                             const HostFreeArgs& args) {
  Allocation* const allocation = state_->allocations.At(args.address);
  if (allocation == nullptr || allocation->releasing ||
      allocation->kind != MemoryKind::kHost) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "not pinned memory");
  }
  allocation->releasing = true;
  context->scratch[0] = allocation->block_bytes;
  return Outcome::kForward;
}

// Shared memory of the client's own: the runner maps it at the same address.
ApiParser::Outcome CudaParser::ParseHostRegister(ApiContext* context,
                                                 const HostRegisterArgs& args) {
  constexpr std::uint64_t kPage = 4096;
  const ArenaLayout& layout = state_->layout;
  const auto apart = [&args](std::uint64_t base, std::uint64_t bytes) {
    return args.address >= base + bytes || args.address + args.bytes <= base;
  };
  if (args.bytes == 0 || args.address == 0 ||
      (args.address | args.bytes | args.offset) % kPage != 0 ||
      args.address + args.bytes < args.address ||
      !apart(layout.arena_base, layout.arena_bytes) ||
      !apart(layout.host_base, layout.host_bytes)) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "bad range");
  }
  const auto& all = state_->allocations.all();
  const auto next = all.lower_bound(args.address);
  if ((next != all.end() && next->first - args.address < args.bytes) ||
      (next != all.begin() &&
       std::prev(next)->first + std::prev(next)->second.block_bytes >
           args.address)) {
    return Refuse(context, CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
                  "registered already");
  }
  Allocation allocation;
  allocation.address = args.address;
  allocation.bytes = args.bytes;
  allocation.block_bytes = args.bytes;
  allocation.kind = MemoryKind::kRegistered;
  state_->allocations.Add(allocation);
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseHostUnregister(
    ApiContext* context, const HostUnregisterArgs& args) {
  Allocation* const allocation = state_->allocations.At(args.address);
  if (allocation == nullptr || allocation->releasing ||
      allocation->kind != MemoryKind::kRegistered) {
    return Refuse(context, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED,
                  "not registered");
  }
  allocation->releasing = true;
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseCopyToDevice(ApiContext* context,
                                                 const CopyToDeviceArgs& args) {
  if (Resolve(context, 0, kStreamHandle, args.stream) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such stream");
  }
  if (!Accessible(args.dst, args.bytes) ||
      port_->BulkIn(*context).size() != args.bytes) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "bad range");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseCopyFromDevice(
    ApiContext* context, const CopyFromDeviceArgs& args) {
  if (Resolve(context, 0, kStreamHandle, args.stream) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such stream");
  }
  const bool fits = (context->flags & wire::kFrameBulkOut) != 0
                        ? args.bytes <= context->bulk_bytes
                        : args.bytes <= wire::kSlotDataBytes;
  if (!Accessible(args.src, args.bytes) || !fits) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "bad range");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseCopy(ApiContext* context,
                                         const CopyArgs& args) {
  if (Resolve(context, 0, kStreamHandle, args.stream) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such stream");
  }
  if (!Accessible(args.dst, args.bytes) || !Accessible(args.src, args.bytes)) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "bad range");
  }
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseFill(ApiContext* context,
                                         const FillArgs& args) {
  if (Resolve(context, 0, kStreamHandle, args.stream) == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such stream");
  }
  const bool width_ok = args.width == 1 || args.width == 2 || args.width == 4;
  // Row length and extent without overflow: the arena is far below 2^62.
  constexpr std::uint64_t kLimit = std::uint64_t{1} << 46;
  if (!width_ok || args.count == 0 || args.rows == 0 || args.count > kLimit ||
      args.rows > kLimit || args.pitch > kLimit ||
      (args.rows > 1 && (args.pitch < args.count * args.width ||
                         args.pitch > kLimit / args.rows))) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "bad shape");
  }
  const std::uint64_t extent =
      (args.rows - 1) * args.pitch + args.count * args.width;
  if (!Accessible(args.dst, extent) || args.dst % args.width != 0) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "bad range");
  }
  return Outcome::kForward;
}

}  // namespace pos::cuda
