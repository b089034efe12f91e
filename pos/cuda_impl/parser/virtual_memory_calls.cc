// Virtual memory management: address ranges, memory without addresses, and the
// one mapped to the other.
#include <cuda.h>

#include <optional>

#include "pos/cuda_impl/parser/cuda_parser.h"

namespace pos::cuda {
namespace {

constexpr std::uint64_t kGranule = Device::kMapGranularity;

bool InGranules(std::uint64_t address, std::uint64_t bytes) {
  return (address | bytes) % kGranule == 0 && bytes != 0 &&
         address + bytes > address;
}

}  // namespace

// A wanted address is a hint, as CUDA has it: where it is taken, any other
// range is given.
ApiParser::Outcome CudaParser::ParseAddressReserve(
    ApiContext* context, const AddressReserveArgs& args) {
  constexpr std::uint64_t kMaxAlignment = std::uint64_t{1} << 46;
  if (!KnownDevice(args.device) || args.bytes == 0 ||
      args.bytes % kGranule != 0 || args.address % kGranule != 0 ||
      args.alignment > kMaxAlignment ||
      (args.alignment & (args.alignment - 1)) != 0) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "bad range");
  }
  BlockAllocator& blocks =
      state_->blocks[static_cast<std::size_t>(args.device)];
  std::optional<std::uint64_t> address;
  const bool aligned =
      args.alignment == 0 || args.address % args.alignment == 0;
  if (args.address != 0 && aligned) {
    address = blocks.Reserve(args.bytes, 0, args.address);
  }
  if (!address) address = blocks.Reserve(args.bytes, args.alignment, 0);
  if (!address) {
    return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "no address range left");
  }
  state_->reservations[*address] = {args.bytes, args.device};
  context->Out<AddressReserveOut>().address = *address;
  return Outcome::kAnswered;
}

ApiParser::Outcome CudaParser::ParseAddressFree(ApiContext* context,
                                                const AddressFreeArgs& args) {
  const auto it = state_->reservations.find(args.address);
  if (it == state_->reservations.end() || it->second.bytes != args.bytes) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "not reserved");
  }
  const auto& all = state_->allocations.all();
  const auto inside = all.lower_bound(args.address);
  if (inside != all.end() && inside->first - args.address < args.bytes) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "still mapped");
  }
  bool found = false;
  state_->blocks[static_cast<std::size_t>(it->second.device)].Free(args.address,
                                                                   &found);
  state_->reservations.erase(it);
  return Outcome::kAnswered;
}

ApiParser::Outcome CudaParser::ParsePhysicalCreate(
    ApiContext* context, const PhysicalCreateArgs& args) {
  if (!KnownDevice(args.device) || args.bytes == 0 ||
      args.bytes % kGranule != 0) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "bad size");
  }
  switch (state_->ledger->Take(args.device, args.bytes)) {
    case MemoryLedger::Answer::kGranted:
      break;
    case MemoryLedger::Answer::kPending:
      return Outcome::kStall;
    case MemoryLedger::Answer::kDenied:
      return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "out of memory");
  }
  Handle* const handle = state_->graph.Create(kPhysicalHandle);
  if (handle == nullptr) {
    state_->ledger->GiveBack(args.device, args.bytes);
    return Refuse(context, CUDA_ERROR_OUT_OF_MEMORY, "too many handles");
  }
  handle->made = false;
  handle->parser_word = static_cast<std::uint64_t>(args.device);
  context->handles[0] = handle;
  context->Out<PhysicalCreateOut>().physical = handle->id;
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParsePhysicalRelease(
    ApiContext* context, const PhysicalReleaseArgs& args) {
  return Destroy(context, kPhysicalHandle, args.physical);
}

// Nothing may use the range before SetAccess says so.
ApiParser::Outcome CudaParser::ParsePhysicalMap(ApiContext* context,
                                                const PhysicalMapArgs& args) {
  const Handle* const physical =
      Resolve(context, 0, kPhysicalHandle, args.physical);
  if (physical == nullptr) {
    return Refuse(context, CUDA_ERROR_INVALID_HANDLE, "no such memory");
  }
  if (!InGranules(args.address, args.bytes)) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "bad range");
  }
  auto range = state_->reservations.upper_bound(args.address);
  if (range == state_->reservations.begin()) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "not reserved");
  }
  --range;
  const std::uint64_t offset = args.address - range->first;
  if (offset >= range->second.bytes ||
      args.bytes > range->second.bytes - offset) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "not reserved");
  }
  if (physical->parser_word !=
      static_cast<std::uint64_t>(range->second.device)) {
    return Refuse(context, CUDA_ERROR_NOT_SUPPORTED,
                  "memory of one device in another's addresses");
  }
  const auto& all = state_->allocations.all();
  auto next = all.lower_bound(args.address);
  const bool overlaps =
      (next != all.end() && next->first - args.address < args.bytes) ||
      (next != all.begin() &&
       std::prev(next)->first + std::prev(next)->second.block_bytes >
           args.address);
  if (overlaps) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "mapped already");
  }
  Allocation mapping;
  mapping.address = args.address;
  mapping.bytes = args.bytes;
  mapping.block_bytes = args.bytes;
  mapping.kind = MemoryKind::kMapped;
  mapping.device = range->second.device;
  mapping.releasing = true;  // until it may be accessed
  state_->allocations.Add(mapping);
  context->scratch[0] = static_cast<std::uint64_t>(mapping.device);
  return Outcome::kForward;
}

template <typename Visit>
bool CudaParser::ForMappings(std::uint64_t address, std::uint64_t bytes,
                             const Visit& visit) {
  if (!InGranules(address, bytes)) return false;
  std::uint64_t at = address;
  while (at < address + bytes) {
    Allocation* const mapping = state_->allocations.At(at);
    if (mapping == nullptr || mapping->kind != MemoryKind::kMapped ||
        mapping->bytes > address + bytes - at || !visit(mapping)) {
      return false;
    }
    at += mapping->bytes;
  }
  return true;
}

ApiParser::Outcome CudaParser::ParsePhysicalUnmap(
    ApiContext* context, const PhysicalUnmapArgs& args) {
  if (!ForMappings(args.address, args.bytes,
                   [](const Allocation*) { return true; })) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE, "not whole mappings");
  }
  ForMappings(args.address, args.bytes, [](Allocation* mapping) {
    mapping->releasing = true;
    return true;
  });
  return Outcome::kForward;
}

ApiParser::Outcome CudaParser::ParseSetAccess(ApiContext* context,
                                              const SetAccessArgs& args) {
  if (!ForMappings(args.address, args.bytes, [&](const Allocation* mapping) {
        return mapping->device == args.device;
      })) {
    return Refuse(context, CUDA_ERROR_INVALID_VALUE,
                  "not whole mappings of this device's memory");
  }
  ForMappings(args.address, args.bytes, [&](Allocation* mapping) {
    mapping->releasing = args.allowed == 0;
    return true;
  });
  return Outcome::kForward;
}

}  // namespace pos::cuda
