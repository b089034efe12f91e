#include "pos/cuda_impl/device_sim/engine/memory.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "pos/base/log.h"
#include "pos/device/device.h"

namespace pos::sim {
namespace {

constexpr std::uint64_t kGranule = Device::kMapGranularity;
// What CUDA rounds allocations to: an access up to there hits no other
// allocation on a GPU either.
constexpr std::uint64_t kRounding = 512;
// Where no memory of a process lies (vm.mmap_min_addr, user address space).
constexpr std::uint64_t kLowestHost = 64 << 10;
constexpr std::uint64_t kHostEnd = 1ull << 47;

std::string Span(std::uint64_t address, std::uint64_t bytes) {
  return Hex(address) + " + " + std::to_string(bytes) + " bytes";
}

void* Pointer(std::uint64_t address) {
  return reinterpret_cast<void*>(address);  // NOLINT
}

}  // namespace

void SimMemory::ReaderSlot::Enter(const SimMemory& memory) {
  // Sequentially consistent on both sides: either this store is seen by
  // Quiesce, or the loads that follow see what was replaced before it.
  since_.store(memory.generation_.load(std::memory_order_seq_cst),
               std::memory_order_seq_cst);
}

Result<std::unique_ptr<SimMemory>> SimMemory::Create(std::uint64_t base,
                                                     std::uint64_t bytes,
                                                     std::uint64_t capacity) {
  if (base % kGranule != 0 || bytes % kGranule != 0 || bytes == 0 ||
      base + bytes < base || base + bytes > kHostEnd) {
    return Invalid("simulated device: arena " + Span(base, bytes) +
                   " is not made of 2 MiB granules below 2^47");
  }
  if (base < ptx::kWindowsEnd && base + bytes > ptx::kWindowsBegin) {
    return Invalid("simulated device: arena " + Span(base, bytes) +
                   " overlaps the windows of shared and local memory");
  }
  std::unique_ptr<SimMemory> memory(new SimMemory(base, bytes, capacity));
  memory->table_entries_ = bytes / kGranule;
  void* table =
      ::mmap(nullptr, memory->table_entries_ * sizeof(*memory->table_),
             PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (table == MAP_FAILED) {  // NOLINT
    return ErrnoStatus(errno, "simulated device: table of allocations");
  }
  // Zero bytes are null pointers, and such an atomic has no other state.
  static_assert(std::atomic<const List*>::is_always_lock_free);
  memory->table_ = static_cast<std::atomic<const List*>*>(table);
  static_assert(static_cast<int>(Backing::kNone) == 0);
  memory->backing_ = std::vector<std::atomic<Backing>>(memory->table_entries_);
  return memory;
}

SimMemory::SimMemory(std::uint64_t base, std::uint64_t bytes,
                     std::uint64_t capacity)
    : base_(base),
      bytes_(bytes),
      capacity_(capacity / kGranule * kGranule),
      free_bytes_(capacity_),
      readers_(std::make_unique<std::array<ReaderSlot, kMaxReaders>>()) {}

SimMemory::~SimMemory() {
  while (!allocations_.empty()) RemoveAllocation(allocations_.begin()->first);
  delete host_.load(std::memory_order_relaxed);
  // The reservation is the caller's again, without our pages.
  for (std::size_t i = 0; i < backing_.size(); ++i) {
    if (backing_[i] == Backing::kNone) continue;
    std::size_t end = i;
    while (end < backing_.size() && backing_[end] != Backing::kNone) ++end;
    const void* got =
        ::mmap(Pointer(base_ + i * kGranule), (end - i) * kGranule, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (got == MAP_FAILED) {  // NOLINT
      POS_LOG(kWarning, "the arena's pages stay until its owner unmaps it");
    }
    i = end;
  }
  if (table_ != nullptr) {
    ::munmap(static_cast<void*>(table_), table_entries_ * sizeof(*table_));
  }
}

SimMemory::ReaderSlot* SimMemory::NewReader() {
  const std::size_t index = reader_count_.fetch_add(1);
  return &(*readers_)[index % kMaxReaders];
}

std::size_t SimMemory::Granule(std::uint64_t address) const {
  return (address - base_) / kGranule;
}

Status SimMemory::CheckRange(std::uint64_t address, std::uint64_t bytes) const {
  if (bytes == 0 || address < base_ || address - base_ > bytes_ ||
      bytes > bytes_ - (address - base_)) {
    return Invalid("simulated device: " + Span(address, bytes) +
                   " is not in the arena " + Span(base_, bytes_));
  }
  return OkStatus();
}

Status SimMemory::CheckUnmapped(std::uint64_t address,
                                std::uint64_t bytes) const {
  POS_RETURN_IF_ERROR(CheckRange(address, bytes));
  if ((address | bytes) % kGranule != 0) {
    return Invalid("simulated device: map of " + Span(address, bytes) +
                   " is not made of 2 MiB granules");
  }
  const std::size_t end = Granule(address) + bytes / kGranule;
  for (std::size_t g = Granule(address); g < end; ++g) {
    if (backing_[g] == Backing::kMapped) {
      return Exists("simulated device: " + Span(address, bytes) +
                    " is mapped already");
    }
  }
  return OkStatus();
}

Status SimMemory::Map(std::uint64_t address, std::uint64_t bytes) {
  POS_RETURN_IF_ERROR(CheckUnmapped(address, bytes));
  if (bytes > free_bytes_.load(std::memory_order_relaxed)) {
    return OutOfMemory("simulated device: " + std::to_string(bytes) +
                       " bytes asked for, " + std::to_string(FreeBytes()) +
                       " of " + std::to_string(capacity_) + " are free");
  }
  // A fresh mapping also replaces what a freed range left, so it is zero.
  void* got =
      ::mmap(Pointer(address), bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (got == MAP_FAILED) {  // NOLINT
    return errno == ENOMEM
               ? OutOfMemory("simulated device: mmap: out of memory")
               : ErrnoStatus(errno, "simulated device: mmap");
  }
  SetBacking(address, bytes, Backing::kMapped);
  free_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  return OkStatus();
}

Status SimMemory::Unmap(std::uint64_t address, std::uint64_t bytes) {
  POS_RETURN_IF_ERROR(CheckRange(address, bytes));
  if ((address | bytes) % kGranule != 0 || !AllMapped(address, bytes)) {
    return Invalid("simulated device: unmap of " + Span(address, bytes) +
                   ", which Map did not back");
  }
  const auto piece = pieces_.find(address);
  if (piece != pieces_.end()) {
    if (piece->second != bytes) {
      return Invalid("simulated device: unmap of a part of physical memory");
    }
    // As below, but the content stays in the file.
    void* got =
        ::mmap(Pointer(address), bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (got == MAP_FAILED) {  // NOLINT
      return ErrnoStatus(errno, "simulated device: mmap");
    }
    pieces_.erase(piece);
    SetBacking(address, bytes, Backing::kWasMapped);
    return OkStatus();
  }
  // Gives the pages back and keeps the range accessible: one mapping instead
  // of thousands of small ones, and a stray access of this process's own reads
  // zeros. Kernels and copies are stopped by the table of allocations.
  if (::madvise(Pointer(address), bytes, MADV_DONTNEED) != 0) {
    return ErrnoStatus(errno, "simulated device: madvise");
  }
  SetBacking(address, bytes, Backing::kWasMapped);
  free_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  return OkStatus();
}

void SimMemory::Replace(std::atomic<const List*>* slot,
                        std::unique_ptr<List> list) {
  const List* fresh = list->items.empty() ? nullptr : list.release();
  const List* old = slot->exchange(fresh, std::memory_order_seq_cst);
  if (old == nullptr) return;
  // The caller makes this generation current before it returns.
  retired_.push_back({generation_.load(std::memory_order_relaxed) + 1,
                      std::unique_ptr<const List>(old)});
}

void SimMemory::ReplaceGranule(std::size_t granule, const Interval& interval,
                               bool add) {
  std::atomic<const List*>* slot = &table_[granule];
  const List* old = slot->load(std::memory_order_relaxed);
  auto list = std::make_unique<List>();
  if (old != nullptr) {
    list->items.reserve(old->items.size() + 1);
    for (const Interval& item : old->items) {
      if (item.begin != interval.begin) list->items.push_back(item);
    }
  }
  if (add) {
    const auto at = std::lower_bound(
        list->items.begin(), list->items.end(), interval.begin,
        [](const Interval& a, std::uint64_t b) { return a.begin < b; });
    list->items.insert(at, interval);
  }
  Replace(slot, std::move(list));
}

void SimMemory::AddAllocation(std::uint64_t address, std::uint64_t bytes) {
  if (!CheckRange(address, bytes).ok()) return;
  if (allocations_.count(address) != 0) RemoveAllocation(address);
  const Interval interval{address, address + bytes};
  allocations_[address] = interval.end;
  for (std::size_t g = Granule(address); g <= Granule(interval.end - 1); ++g) {
    ReplaceGranule(g, interval, /*add=*/true);
  }
  NextGeneration();
}

void SimMemory::RemoveAllocation(std::uint64_t address) {
  const auto found = allocations_.find(address);
  if (found == allocations_.end()) return;
  const Interval interval{found->first, found->second};
  allocations_.erase(found);
  for (std::size_t g = Granule(address); g <= Granule(interval.end - 1); ++g) {
    ReplaceGranule(g, interval, /*add=*/false);
  }
  NextGeneration();
}

Status SimMemory::MapHost(std::uint64_t address, std::uint64_t bytes) {
  if (bytes == 0 || address < kLowestHost || address + bytes < address ||
      address + bytes > kHostEnd ||
      (address < base_ + bytes_ && address + bytes > base_) ||
      (address < ptx::kWindowsEnd && address + bytes > ptx::kWindowsBegin)) {
    return Invalid("simulated device: " + Span(address, bytes) +
                   " cannot be mapped as host memory");
  }
  const auto next = host_ranges_.lower_bound(address);
  if ((next != host_ranges_.end() && next->first < address + bytes) ||
      (next != host_ranges_.begin() && std::prev(next)->second > address)) {
    return Exists("simulated device: " + Span(address, bytes) +
                  " overlaps mapped host memory");
  }
  host_ranges_[address] = address + bytes;
  auto list = std::make_unique<List>();
  for (const auto& [begin, end] : host_ranges_) {
    list->items.push_back({begin, end});
  }
  Replace(&host_, std::move(list));
  NextGeneration();
  return OkStatus();
}

Status SimMemory::UnmapHost(std::uint64_t address, std::uint64_t bytes) {
  const auto found = host_ranges_.find(address);
  if (found == host_ranges_.end() || found->second != address + bytes) {
    return NoSuch("simulated device: host memory " + Span(address, bytes) +
                  " is not mapped");
  }
  host_ranges_.erase(found);
  auto list = std::make_unique<List>();
  for (const auto& [begin, end] : host_ranges_) {
    list->items.push_back({begin, end});
  }
  Replace(&host_, std::move(list));
  // The caller unmaps the pages next.
  AwaitReaders(NextGeneration());
  return OkStatus();
}

std::uint64_t SimMemory::NextGeneration() {
  const std::uint64_t now =
      generation_.fetch_add(1, std::memory_order_seq_cst) + 1;
  if (retired_.size() >= 256) FreeRetired();
  return now;
}

void SimMemory::AwaitReaders(std::uint64_t generation) {
  const std::size_t count =
      std::min(reader_count_.load(std::memory_order_acquire), kMaxReaders);
  for (std::size_t i = 0; i < count; ++i) {
    for (;;) {
      const std::uint64_t since =
          (*readers_)[i].since_.load(std::memory_order_seq_cst);
      if (since == 0 || since >= generation) break;
      ::sched_yield();
    }
  }
}

void SimMemory::FreeRetired() {
  const std::size_t count =
      std::min(reader_count_.load(std::memory_order_acquire), kMaxReaders);
  std::uint64_t oldest = ~0ull;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t since =
        (*readers_)[i].since_.load(std::memory_order_seq_cst);
    if (since != 0) oldest = std::min(oldest, since);
  }
  std::erase_if(retired_, [oldest](const Retired& retired) {
    return retired.generation <= oldest;
  });
}

Status SimMemory::Read(std::uint64_t src, std::span<std::byte> dst) const {
  if (dst.empty()) return OkStatus();
  POS_RETURN_IF_ERROR(CheckRange(src, dst.size()));
  if (!AllMapped(src, dst.size())) {
    return Invalid("simulated device: read of " + Span(src, dst.size()) +
                   ", which is not mapped");
  }
  std::memcpy(dst.data(), Pointer(src), dst.size());
  return OkStatus();
}

Status SimMemory::Write(std::uint64_t dst, std::span<const std::byte> src) {
  if (src.empty()) return OkStatus();
  POS_RETURN_IF_ERROR(CheckRange(dst, src.size()));
  if (!AllMapped(dst, src.size())) {
    return Invalid("simulated device: write of " + Span(dst, src.size()) +
                   ", which is not mapped");
  }
  std::memcpy(Pointer(dst), src.data(), src.size());
  return OkStatus();
}

const SimMemory::Interval* SimMemory::Lookup(const List* list,
                                             std::uint64_t address,
                                             std::uint64_t* limit) {
  if (list == nullptr) return nullptr;
  const auto& items = list->items;
  auto next = std::upper_bound(
      items.begin(), items.end(), address,
      [](std::uint64_t a, const Interval& b) { return a < b.begin; });
  if (next == items.begin()) return nullptr;
  const Interval& item = *std::prev(next);
  *limit = (item.end + kRounding - 1) / kRounding * kRounding;
  if (next != items.end()) *limit = std::min(*limit, next->begin);
  return address < *limit ? &item : nullptr;
}

SimMemory::Range SimMemory::Find(std::uint64_t address) const {
  std::uint64_t limit = 0;
  if (InArena(address)) {
    const List* list = table_[Granule(address)].load(std::memory_order_seq_cst);
    const Interval* found = Lookup(list, address, &limit);
    return found == nullptr ? Range{} : Range{found->begin, limit};
  }
  const Interval* found =
      Lookup(host_.load(std::memory_order_seq_cst), address, &limit);
  if (found == nullptr || address >= found->end) return Range{};
  return {found->begin, found->end};
}

std::uint64_t SimMemory::Generation() const {
  return generation_.load(std::memory_order_seq_cst);
}

bool SimMemory::Covers(std::uint64_t address, std::uint64_t bytes,
                       std::uint64_t* bad) const {
  *bad = address;
  if (bytes == 0) return true;
  const std::uint64_t end = address + bytes;
  if (end < address || end > kHostEnd || address < kLowestHost) return false;
  if (!InArena(address) && !InArena(end - 1) &&
      !(address < base_ && end > base_)) {
    return true;
  }
  // Neighbouring allocations may be crossed: two mappings of the virtual
  // memory API can make up one buffer.
  for (std::uint64_t at = address; at < end;) {
    const Range range = InArena(at) ? Find(at) : Range{};
    if (range.limit <= at) {
      *bad = at;
      return false;
    }
    at = range.limit;
  }
  return true;
}

}  // namespace pos::sim
