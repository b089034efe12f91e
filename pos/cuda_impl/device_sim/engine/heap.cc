#include "pos/cuda_impl/device_sim/engine/heap.h"

namespace pos::sim {
namespace {

constexpr std::uint64_t kAlign = 16;
constexpr std::uint64_t kMagic = 0x70616568736f7001;  // "\1posheap"
constexpr std::uint64_t kFree = 0x65657266;           // "free"
constexpr std::uint64_t kUsed = 0x64657375;           // "used"

template <typename T>
T* PointerTo(std::uint64_t address) {
  return reinterpret_cast<T*>(address);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace

struct DeviceHeap::Head {
  std::uint64_t magic;
  std::uint64_t rover;  // offset of the chunk where the next search starts
};

struct DeviceHeap::Chunk {
  std::uint64_t bytes;
  std::uint64_t state;
};

void DeviceHeap::SetRange(std::uint64_t address, std::uint64_t bytes) {
  const MutexLock lock(&mu_);
  base_ = address;
  bytes_ = bytes / kAlign * kAlign;
}

bool DeviceHeap::has_range() {
  const MutexLock lock(&mu_);
  return bytes_ != 0;
}

bool DeviceHeap::EnsureFormatted() {
  if (bytes_ < sizeof(Head) + 2 * sizeof(Chunk)) return false;
  auto* head = PointerTo<Head>(base_);
  if (head->magic == kMagic) return true;
  *head = {kMagic, sizeof(Head)};
  auto* first = PointerTo<Chunk>(base_ + sizeof(Head));
  *first = {bytes_ - sizeof(Head), kFree};
  return true;
}

// The chunk at `offset`, or nullptr where none can be.
DeviceHeap::Chunk* DeviceHeap::At(std::uint64_t offset) const {
  if (offset < sizeof(Head) || offset % kAlign != 0 || offset >= bytes_ ||
      bytes_ - offset < sizeof(Chunk)) {
    return nullptr;
  }
  auto* chunk = PointerTo<Chunk>(base_ + offset);
  if (chunk->bytes < sizeof(Chunk) || chunk->bytes % kAlign != 0 ||
      chunk->bytes > bytes_ - offset) {
    return nullptr;
  }
  return chunk;
}

DeviceHeap::Chunk* DeviceHeap::TakeFirstFit(std::uint64_t need,
                                            std::uint64_t from,
                                            std::uint64_t to) {
  for (std::uint64_t offset = from; offset < to;) {
    Chunk* chunk = At(offset);
    if (chunk == nullptr) return nullptr;
    std::uint64_t bytes = chunk->bytes;
    if (chunk->state == kFree) {
      for (Chunk* next = At(offset + bytes);
           next != nullptr && next->state == kFree && bytes < need;
           next = At(offset + bytes)) {
        bytes += next->bytes;
      }
      chunk->bytes = bytes;
      // The rover must name a chunk, not the inside of one.
      auto* head = PointerTo<Head>(base_);
      if (head->rover > offset && head->rover < offset + bytes) {
        head->rover = offset;
      }
      if (bytes >= need) {
        if (bytes - need >= 2 * sizeof(Chunk)) {
          *PointerTo<Chunk>(base_ + offset + need) = {bytes - need, kFree};
          chunk->bytes = need;
        }
        chunk->state = kUsed;
        head->rover = offset;
        return chunk;
      }
    }
    offset += bytes;
  }
  return nullptr;
}

std::uint64_t DeviceHeap::Malloc(std::uint64_t bytes) {
  const MutexLock lock(&mu_);
  if (bytes == 0 || bytes > bytes_ || !EnsureFormatted()) return 0;
  const std::uint64_t need =
      (bytes + kAlign - 1) / kAlign * kAlign + sizeof(Chunk);
  std::uint64_t rover = PointerTo<Head>(base_)->rover;
  if (At(rover) == nullptr) rover = sizeof(Head);
  Chunk* chunk = TakeFirstFit(need, rover, bytes_);
  if (chunk == nullptr) chunk = TakeFirstFit(need, sizeof(Head), bytes_);
  if (chunk == nullptr) return 0;
  return reinterpret_cast<std::uint64_t>(chunk) + sizeof(Chunk);
}

bool DeviceHeap::Free(std::uint64_t address) {
  if (address == 0) return true;
  const MutexLock lock(&mu_);
  if (address < base_ + sizeof(Head) + sizeof(Chunk) ||
      address >= base_ + bytes_ || !EnsureFormatted()) {
    return false;
  }
  const std::uint64_t offset = address - base_ - sizeof(Chunk);
  Chunk* chunk = At(offset);
  if (chunk == nullptr || chunk->state != kUsed) return false;
  chunk->state = kFree;
  return true;
}

}  // namespace pos::sim
