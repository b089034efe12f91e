#include "pos/cuda_impl/device_sim/engine/copy.h"

#include <cuda.h>
#include <sched.h>

#include <algorithm>
#include <cstring>

#include "pos/base/clock.h"

namespace pos::sim {
namespace {

// How much is moved between two looks at the sticky error and at the link's
// clock: about 0.1 ms at memory speed.
constexpr std::uint64_t kPieceBytes = 512 << 10;
// Below this, word by word; above, the processor's string instructions.
constexpr std::uint64_t kWordLoopBytes = 512;

DeviceError StickyOf(const Command& command) {
  return command.context->sticky.load(std::memory_order_relaxed);
}

// Sleeps until `until_ns` on the monotonic clock or until the context faults.
void AwaitLink(const Command& command, std::uint64_t until_ns) {
  for (;;) {
    const std::uint64_t now = MonotonicNs();
    if (now >= until_ns || StickyOf(command) != 0) return;
    if (until_ns - now > 100000) {
      SleepNs(std::min<std::uint64_t>(until_ns - now - 60000, 1000000));
    } else {
      ::sched_yield();
    }
  }
}

template <typename T>
T* PointerTo(std::uint64_t address) {
  return reinterpret_cast<T*>(address);  // NOLINT(performance-no-int-to-ptr)
}

template <typename T>
void MoveWords(std::uint64_t dst, std::uint64_t src, std::uint64_t bytes) {
  for (std::uint64_t i = 0; i < bytes; i += sizeof(T)) {
    const T value =
        __atomic_load_n(PointerTo<const T>(src + i), __ATOMIC_RELAXED);
    __atomic_store_n(PointerTo<T>(dst + i), value, __ATOMIC_RELAXED);
  }
}

template <typename T>
void FillWords(std::uint64_t dst, T value, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    __atomic_store_n(PointerTo<T>(dst + i * sizeof(T)), value,
                     __ATOMIC_RELAXED);
  }
}

// String instructions instead of memmove: programs race with copies on purpose
// (a kernel polls what a copy writes), which is this program's work and not a
// data race of this process. Sanitizers do not look into them.
void StringMove(std::uint64_t dst, std::uint64_t src, std::uint64_t bytes) {
  std::uint64_t words = bytes / 8;
  std::uint64_t rest = bytes % 8;
  if (dst > src && dst < src + bytes) {  // overlapping: backwards
    std::uint64_t to = dst + bytes - 1;
    std::uint64_t from = src + bytes - 1;
    asm volatile("std\n\trep movsb\n\tcld"
                 : "+D"(to), "+S"(from), "+c"(bytes)::"memory", "cc");
    return;
  }
  asm volatile("rep movsq" : "+D"(dst), "+S"(src), "+c"(words)::"memory");
  asm volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(rest)::"memory");
}

bool BothCovered(SimMemory* memory, const Command& command,
                 std::uint64_t* bad) {
  if (command.kind == CommandKind::kCopy) {
    return memory->Covers(command.dst, command.bytes, bad) &&
           memory->Covers(command.src, command.bytes, bad);
  }
  const std::uint64_t row = command.bytes * command.width;
  if (row / std::max(1u, command.width) != command.bytes) {
    *bad = command.dst;
    return false;
  }
  for (std::uint64_t i = 0; i < command.rows; ++i) {
    if (!memory->Covers(command.dst + i * command.pitch, row, bad)) {
      return false;
    }
  }
  return true;
}

DeviceError FillRows(SimMemory* memory, SimMemory::ReaderSlot* reader,
                     const Command& command) {
  const std::uint64_t piece = kPieceBytes / command.width;
  for (std::uint64_t row = 0; row < command.rows; ++row) {
    const std::uint64_t start = command.dst + row * command.pitch;
    for (std::uint64_t done = 0; done < command.bytes; done += piece) {
      if (const DeviceError sticky = StickyOf(command)) return sticky;
      reader->Enter(*memory);
      FillElements(start + done * command.width, command.value, command.width,
                   std::min(piece, command.bytes - done));
      reader->Leave();
    }
  }
  return 0;
}

DeviceError MovePieces(SimMemory* memory, SimMemory::ReaderSlot* reader,
                       LinkPacer* pacer, const Command& command) {
  const Direction direction = DirectionOf(*memory, command);
  // An overlapping copy must not be cut: later pieces would read what earlier
  // ones wrote.
  const bool overlaps = command.dst < command.src + command.bytes &&
                        command.src < command.dst + command.bytes;
  const std::uint64_t piece = overlaps ? command.bytes : kPieceBytes;
  for (std::uint64_t done = 0; done < command.bytes; done += piece) {
    if (const DeviceError sticky = StickyOf(command)) return sticky;
    const std::uint64_t bytes = std::min(piece, command.bytes - done);
    reader->Enter(*memory);
    MoveBytes(command.dst + done, command.src + done, bytes);
    reader->Leave();
    if (pacer->limited()) AwaitLink(command, pacer->Book(direction, bytes));
  }
  return 0;
}

}  // namespace

Direction DirectionOf(const SimMemory& memory, const Command& command) {
  const bool to_device = memory.InArena(command.dst);
  if (command.kind == CommandKind::kFill) return Direction::kDeviceToDevice;
  if (memory.InArena(command.src)) {
    return to_device ? Direction::kDeviceToDevice : Direction::kDeviceToHost;
  }
  return to_device ? Direction::kHostToDevice : Direction::kHostToHost;
}

std::uint64_t LinkPacer::Book(Direction direction, std::uint64_t bytes) {
  // Device memory is not behind the link.
  if (direction == Direction::kDeviceToDevice) return 0;
  const auto duration =
      static_cast<std::uint64_t>(static_cast<double>(bytes) * 1e9 /
                                 static_cast<double>(bytes_per_second_));
  std::atomic<std::uint64_t>* free_at =
      &free_at_ns_[static_cast<std::size_t>(direction)];
  const std::uint64_t now = MonotonicNs();
  std::uint64_t from = free_at->load(std::memory_order_relaxed);
  std::uint64_t until = 0;
  do {
    until = std::max(from, now) + duration;
  } while (
      !free_at->compare_exchange_weak(from, until, std::memory_order_relaxed));
  return until;
}

void MoveBytes(std::uint64_t dst, std::uint64_t src, std::uint64_t bytes) {
  const bool overlaps = dst < src + bytes && src < dst + bytes;
  if (bytes > kWordLoopBytes || overlaps) {
    StringMove(dst, src, bytes);
    return;
  }
  const std::uint64_t low_bits = dst | src;
  if ((low_bits | bytes) % 8 == 0) {
    MoveWords<std::uint64_t>(dst, src, bytes);
  } else if ((low_bits | bytes) % 4 == 0) {
    MoveWords<std::uint32_t>(dst, src, bytes);
  } else {
    MoveWords<std::uint8_t>(dst, src, bytes);
  }
}

void FillElements(std::uint64_t dst, std::uint32_t value, std::uint32_t width,
                  std::uint64_t count) {
  if (dst % width == 0 && count * width <= kWordLoopBytes) {
    if (width == 4) return FillWords<std::uint32_t>(dst, value, count);
    if (width == 2) {
      return FillWords<std::uint16_t>(dst, static_cast<std::uint16_t>(value),
                                      count);
    }
    return FillWords<std::uint8_t>(dst, static_cast<std::uint8_t>(value),
                                   count);
  }
  if (width == 4) {
    asm volatile("rep stosl" : "+D"(dst), "+c"(count) : "a"(value) : "memory");
  } else if (width == 2) {
    asm volatile("rep stosw" : "+D"(dst), "+c"(count) : "a"(value) : "memory");
  } else {
    asm volatile("rep stosb" : "+D"(dst), "+c"(count) : "a"(value) : "memory");
  }
}

DeviceError RunCopy(SimMemory* memory, SimMemory::ReaderSlot* reader,
                    LinkPacer* pacer, const Command& command,
                    std::optional<std::uint64_t>* fault) {
  if (const DeviceError sticky = StickyOf(command)) return sticky;
  std::uint64_t bad = 0;
  reader->Enter(*memory);
  const bool covered = BothCovered(memory, command, &bad);
  reader->Leave();
  if (!covered) {
    *fault = bad;
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  return command.kind == CommandKind::kFill
             ? FillRows(memory, reader, command)
             : MovePieces(memory, reader, pacer, command);
}

}  // namespace pos::sim
