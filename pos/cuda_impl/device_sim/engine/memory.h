// Device memory of the simulated device: which addresses are backed, which
// belong to an allocation, and lookups for kernels and copies.
//
// Threads: the changing calls are made by one thread at a time (the session's
//   worker); Find, Covers, CheckMapped, Generation and FreeBytes by any, at
//   once.
// Lookups do not lock: an allocation is found through one table entry per
//   2 MiB granule, which points to an immutable sorted list. A list that is
//   replaced is freed once no reader can hold it: readers announce themselves
//   with ReaderSlot for as long as they use results.
// Blocking: UnmapHost waits for readers, that is for one time slice of a kernel
//   (about 0.2 ms) or one piece of a copy. Nothing else waits: pages of the
//   arena stay accessible after Unmap, so that a kernel which uses memory that
//   its program has freed gets a fault or stale zeros and the process lives.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_ENGINE_MEMORY_H_
#define POS_CUDA_IMPL_DEVICE_SIM_ENGINE_MEMORY_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/cuda_impl/ptx/exec.h"

namespace pos::sim {

class SimMemory {
 public:
  using Range = ptx::MemoryView::Range;
  static constexpr std::size_t kMaxReaders = 512;

  // One per thread that looks memory up. A thread is inside between Enter and
  // Leave and holds no result outside.
  class ReaderSlot {
   public:
    void Enter(const SimMemory& memory);
    void Leave() { since_.store(0, std::memory_order_release); }

   private:
    friend class SimMemory;
    alignas(64) std::atomic<std::uint64_t> since_{0};  // 0: outside
  };

  // `base` and `bytes`: the arena, reserved by the caller.
  static Result<std::unique_ptr<SimMemory>> Create(std::uint64_t base,
                                                   std::uint64_t bytes,
                                                   std::uint64_t capacity);
  ~SimMemory();
  SimMemory(const SimMemory&) = delete;
  SimMemory& operator=(const SimMemory&) = delete;

  // Never more than kMaxReaders; slots live as long as the memory.
  ReaderSlot* NewReader();

  Status Map(std::uint64_t address, std::uint64_t bytes);
  Status Unmap(std::uint64_t address, std::uint64_t bytes);
  // Memory without an address: a piece of an unlinked file. `*offset` is the
  // piece. What FreePhysical gives back is not mapped any more.
  Status TakePhysical(std::uint64_t bytes, std::uint64_t* offset);
  void FreePhysical(std::uint64_t offset, std::uint64_t bytes);
  // Maps a piece; Unmap of the same range undoes it.
  Status MapPhysical(std::uint64_t address, std::uint64_t bytes,
                     std::uint64_t offset);
  void AddAllocation(std::uint64_t address, std::uint64_t bytes);
  void RemoveAllocation(std::uint64_t address);
  Status MapHost(std::uint64_t address, std::uint64_t bytes);
  Status UnmapHost(std::uint64_t address, std::uint64_t bytes);
  Status Read(std::uint64_t src, std::span<std::byte> dst) const;
  Status Write(std::uint64_t dst, std::span<const std::byte> src);
  // Whether all of it is mapped now. Any thread. What is unmapped afterwards
  // can still be read, as zeros.
  [[nodiscard]] Status CheckMapped(std::uint64_t address,
                                   std::uint64_t bytes) const;
  [[nodiscard]] std::uint64_t FreeBytes() const {
    return free_bytes_.load(std::memory_order_relaxed);
  }

  // The allocation or host range that contains `address`; limit 0: none.
  [[nodiscard]] Range Find(std::uint64_t address) const;
  // Changes whenever a range that Find may have returned goes away.
  [[nodiscard]] std::uint64_t Generation() const;

  [[nodiscard]] bool InArena(std::uint64_t address) const {
    return address - base_ < bytes_;
  }
  // Whether the bytes are fit for a copy or a fill: inside allocations, inside
  // mapped host memory, or outside both (memory of this process, for which the
  // caller answers; the first 64 KiB and non-canonical addresses are refused).
  // If not, *bad is the first byte that is not.
  bool Covers(std::uint64_t address, std::uint64_t bytes,
              std::uint64_t* bad) const;

 private:
  struct Interval {
    std::uint64_t begin;
    std::uint64_t end;  // exact
  };
  // Intervals that touch one granule, or host ranges; ascending.
  struct List {
    std::vector<Interval> items;
  };
  enum class Backing : std::uint8_t { kNone, kMapped, kWasMapped };

  SimMemory(std::uint64_t base, std::uint64_t bytes, std::uint64_t capacity);
  [[nodiscard]] std::size_t Granule(std::uint64_t address) const;
  static const Interval* Lookup(const List* list, std::uint64_t address,
                                std::uint64_t* limit);
  Status CheckRange(std::uint64_t address, std::uint64_t bytes) const;
  [[nodiscard]] bool AllMapped(std::uint64_t address,
                               std::uint64_t bytes) const;
  // kInvalid, kExists: [address, address + bytes) cannot be mapped.
  [[nodiscard]] Status CheckUnmapped(std::uint64_t address,
                                     std::uint64_t bytes) const;
  void SetBacking(std::uint64_t address, std::uint64_t bytes, Backing backing);
  void Replace(std::atomic<const List*>* slot, std::unique_ptr<List> list);
  void ReplaceGranule(std::size_t granule, const Interval& interval, bool add);
  // From here on lookups of readers that enter see what was replaced before.
  std::uint64_t NextGeneration();
  // Waits until every reader inside entered at `generation` or later.
  void AwaitReaders(std::uint64_t generation);
  // Frees replaced lists that no reader can hold.
  void FreeRetired();

  const std::uint64_t base_;
  const std::uint64_t bytes_;
  const std::uint64_t capacity_;
  std::atomic<std::uint64_t> free_bytes_;
  std::atomic<std::uint64_t> generation_{1};

  // Owned; entries are null where there is no allocation. Mapped lazily by the
  // kernel: 16 MiB of addresses for a 4 TiB arena.
  std::atomic<const List*>* table_ = nullptr;
  std::size_t table_entries_ = 0;
  std::atomic<const List*> host_{nullptr};
  // Of each granule. Changed by the worker.
  std::vector<std::atomic<Backing>> backing_;

  // Worker thread only.
  std::map<std::uint64_t, std::uint64_t> allocations_;  // begin -> end
  std::map<std::uint64_t, std::uint64_t> host_ranges_;  // begin -> end
  std::map<std::uint64_t, std::uint64_t> pieces_;  // mapped: begin -> bytes
  UniqueFd file_;  // of physical memory; opened when first needed
  std::uint64_t file_end_ =
      0;  // offsets are not used twice: the file is sparse
  struct Retired {
    std::uint64_t generation;  // readers that entered since do not hold it
    std::unique_ptr<const List> list;
  };
  std::vector<Retired> retired_;

  std::unique_ptr<std::array<ReaderSlot, kMaxReaders>> readers_;
  std::atomic<std::size_t> reader_count_{0};
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_ENGINE_MEMORY_H_
