#include <bit>
#include <cstring>

#include "pos/cuda_impl/ptx/async.h"
#include "pos/cuda_impl/ptx/block.h"
#include "pos/cuda_impl/ptx/exec_layout.h"

namespace pos::ptx::async {
namespace {

constexpr std::uint32_t kBulkUnit = 16;  // alignment and multiple, in bytes

template <typename T>
T Lane(const Warp& warp, std::uint32_t operand, std::uint32_t lane) {
  T value{};
  std::memcpy(&value,
              warp.base[operand & 3] + (operand >> 2) + sizeof(T) * lane,
              sizeof(T));
  return value;
}

// One load and one store where all bytes come from the source.
template <std::uint32_t kBytes>
void CopyLane(std::byte* to, const std::byte* from, std::uint32_t given) {
  if (given == kBytes) {
    std::memcpy(to, from, kBytes);
    return;
  }
  std::byte filled[kBytes] = {};
  for (std::uint32_t i = 0; i < given; ++i) filled[i] = from[i];
  std::memcpy(to, filled, kBytes);
}

// Where a copy of a lane comes from; nullptr after a fault.
const std::byte* SourceAt(Warp* warp, const Inst* inst, std::uint32_t lane,
                          std::uint64_t address, std::uint32_t bytes) {
  if ((address & (inst->n - 1)) != 0) {
    RaiseFault(warp, inst, lane, kErrorMisalignedAddress, address,
               "misaligned access");
    return nullptr;
  }
  const AccessCache& known = warp->cache[inst->cache];
  const bool covered = address >= known.base && address < known.limit &&
                       known.limit - address >= bytes;
  if (!covered && !FindAccess(warp, inst, lane, address, bytes)) return nullptr;
  return reinterpret_cast<const std::byte*>(address);
}

// Bytes that a lane takes from its source.
std::uint32_t GivenBytes(const Warp& warp, const Inst& inst,
                         std::uint32_t lane) {
  if ((inst.flags & kCopyHasSize) != 0) {
    return Lane<std::uint32_t>(warp, inst.c, lane);
  }
  if ((inst.flags & kCopyHasIgnore) == 0) return inst.n;
  std::uint32_t bits = Lane<std::uint32_t>(warp, inst.c, 0);
  if ((inst.flags & kNegateC) != 0) bits = ~bits;
  return (bits >> lane & 1) != 0 ? 0 : inst.n;
}

bool BulkLane(Warp* warp, const Inst* inst, std::uint32_t lane,
              std::uint32_t size) {
  const bool to_global = (inst->flags & kBulkToGlobal) != 0;
  const bool from_shared = to_global || (inst->flags & kBulkFromShared) != 0;
  std::byte* const to =
      to_global
          ? GlobalAt(warp, inst, lane,
                     Lane<std::uint64_t>(*warp, inst->a, lane), size, kBulkUnit)
          : SharedAt(warp, inst, lane,
                     Lane<std::uint32_t>(*warp, inst->a, lane), size,
                     kBulkUnit);
  if (to == nullptr) return false;
  const std::byte* const from =
      from_shared
          ? SharedAt(warp, inst, lane,
                     Lane<std::uint32_t>(*warp, inst->b, lane), size, kBulkUnit)
          : GlobalAt(warp, inst, lane,
                     Lane<std::uint64_t>(*warp, inst->b, lane), size,
                     kBulkUnit);
  if (from == nullptr) return false;
  if ((inst->flags & kBulkByteMask) == 0) {
    std::memmove(to, from, size);
  } else {
    const std::uint32_t mask = Lane<std::uint16_t>(*warp, inst->cache, lane);
    for (std::uint32_t i = 0; i < size; ++i) {
      if ((mask >> (i % kBulkUnit) & 1) != 0) to[i] = from[i];
    }
  }
  return to_global ||
         CompleteTx(warp, inst, lane, Lane<std::uint32_t>(*warp, inst->e, lane),
                    size);
}

}  // namespace

const Inst* Copy(Warp* warp, const Inst* inst) {
  const auto to_offset = static_cast<std::uint32_t>(inst->imm);
  const auto from_offset = static_cast<std::uint64_t>(inst->imm >> 32);
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    const std::uint32_t given = GivenBytes(*warp, *inst, lane);
    if (given > inst->n) {
      return RaiseFault(warp, inst, lane, kErrorIllegalInstruction, given,
                        "more bytes of the source than are copied");
    }
    std::byte* const to = SharedAt(
        warp, inst, lane, Lane<std::uint32_t>(*warp, inst->a, lane) + to_offset,
        inst->n, inst->n);
    if (to == nullptr) return nullptr;
    const std::byte* from = nullptr;
    if (given != 0) {
      from = SourceAt(warp, inst, lane,
                      Lane<std::uint64_t>(*warp, inst->b, lane) + from_offset,
                      given);
      if (from == nullptr) return nullptr;
    }
    switch (inst->n) {
      case 4:
        CopyLane<4>(to, from, given);
        break;
      case 8:
        CopyLane<8>(to, from, given);
        break;
      default:
        CopyLane<16>(to, from, given);
        break;
    }
  }
  return inst + 1;
}

const Inst* BulkCopy(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    const auto size = Lane<std::uint32_t>(*warp, inst->c, lane);
    if (size % kBulkUnit != 0) {
      return RaiseFault(warp, inst, lane, kErrorIllegalInstruction, size,
                        "a bulk copy of a size that is no multiple of 16");
    }
    // This block is the cluster's only one, number 0.
    if ((inst->flags & kBulkBlockMask) != 0 &&
        (Lane<std::uint16_t>(*warp, inst->cache, lane) & 1) == 0) {
      continue;
    }
    if (!BulkLane(warp, inst, lane, size)) return nullptr;
    warp->slice -= static_cast<std::int32_t>(size >> 10);
  }
  return inst + 1;
}

const Inst* BulkZero(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    const auto size = Lane<std::uint64_t>(*warp, inst->b, lane);
    std::uint64_t address = 0;
    if ((inst->flags & kMbarrierGeneric) == 0) {
      address = Lane<std::uint32_t>(*warp, inst->a, lane);
    } else {
      address = Lane<std::uint64_t>(*warp, inst->a, lane) - kSharedWindow;
    }
    if (size % 8 != 0 || size > warp->shared_bytes || address > 0xffffffff) {
      return RaiseFault(warp, inst, lane, kErrorIllegalInstruction, size,
                        "zeroes what is not in shared memory, or a size that "
                        "is no multiple of 8");
    }
    std::byte* const to =
        SharedAt(warp, inst, lane, static_cast<std::uint32_t>(address),
                 static_cast<std::uint32_t>(size), 8);
    if (to == nullptr) return nullptr;
    std::memset(to, 0, size);
  }
  return inst + 1;
}

const Inst* MapToBlock(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    const auto rank = Lane<std::uint32_t>(*warp, inst->b, lane);
    if (rank != 0) {
      return RaiseFault(warp, inst, lane, kErrorIllegalInstruction, rank,
                        "shared memory of a block that the cluster does not "
                        "have");
    }
    std::memcpy(
        warp->base[kInFrame] + inst->d + std::size_t{lane} * inst->n,
        warp->base[inst->a & 3] + (inst->a >> 2) + std::size_t{lane} * inst->n,
        inst->n);
  }
  return inst + 1;
}

const Inst* SetConstant(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::size_t>(std::countr_zero(left));
    std::memcpy(warp->base[kInFrame] + inst->d + lane * inst->n, &inst->imm,
                inst->n);
  }
  return inst + 1;
}

}  // namespace pos::ptx::async
