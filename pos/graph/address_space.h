// Hands out ranges of an address space: the session's device arena and its
// window of shared host memory.
//
// Best fit by size, lowest address first, neighbours merged on free; O(log n).
// Deterministic: the same calls give the same addresses. The state can be
// saved and loaded, so that a restored session goes on where it was.
//
// Threads: one at a time.
#ifndef POS_GRAPH_ADDRESS_SPACE_H_
#define POS_GRAPH_ADDRESS_SPACE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "pos/base/bytes.h"
#include "pos/base/status.h"

namespace pos {

class AddressSpace {
 public:
  // [base, base + bytes), all free; both multiples of `granularity`, a power of
  // two. Every range handed out is a multiple of it.
  AddressSpace(std::uint64_t base, std::uint64_t bytes,
               std::uint64_t granularity);

  // A free range of at least `bytes`, aligned to `alignment` (a power of two,
  // 0: the granularity); nullopt when there is none.
  std::optional<std::uint64_t> Allocate(std::uint64_t bytes,
                                        std::uint64_t alignment = 0);
  // Takes exactly [address, address + bytes); false when not all of it is free.
  [[nodiscard]] bool AllocateAt(std::uint64_t address, std::uint64_t bytes);
  // Returns the length of the range that starts at `address`; 0 when no range
  // does (a double free).
  std::uint64_t Free(std::uint64_t address);

  [[nodiscard]] std::uint64_t base() const { return base_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] std::uint64_t granularity() const { return granularity_; }
  [[nodiscard]] std::uint64_t used_bytes() const { return used_bytes_; }
  // Length of the longest free range.
  [[nodiscard]] std::uint64_t LargestFree() const {
    return by_size_.empty() ? 0 : by_size_.rbegin()->first;
  }
  [[nodiscard]] std::uint64_t RoundUp(std::uint64_t bytes) const {
    return (bytes + granularity_ - 1) & ~(granularity_ - 1);
  }
  // Allocated ranges: start → length.
  [[nodiscard]] const std::map<std::uint64_t, std::uint64_t>& used() const {
    return used_;
  }

  void Save(ByteWriter* out) const;
  // Into an object made with the same base, size and granularity; kCorrupt or
  // kIncompatible otherwise.
  Status Load(ByteReader* in);

 private:
  void InsertFree(std::uint64_t address, std::uint64_t bytes);
  void EraseFree(std::map<std::uint64_t, std::uint64_t>::iterator it);
  void Carve(std::map<std::uint64_t, std::uint64_t>::iterator hole,
             std::uint64_t address, std::uint64_t bytes);

  const std::uint64_t base_;
  const std::uint64_t bytes_;
  const std::uint64_t granularity_;
  std::uint64_t used_bytes_ = 0;
  std::map<std::uint64_t, std::uint64_t> used_;  // start → length
  std::map<std::uint64_t, std::uint64_t> free_;  // start → length
  std::set<std::pair<std::uint64_t, std::uint64_t>> by_size_;  // length, start
};

// Small blocks out of slabs of a parent space, large ones straight from it.
//
// The parent's granularity is what physical memory comes in (2 MiB); a block
// smaller than kSmallLimit shares a slab with others. The caller backs and
// unbacks slabs: Allocate and Free say when one begins or ends.
//
// A small block goes into the slab whose longest hole is the shortest that
// fits, the lowest one of several; O(log n) in blocks and slabs.
class BlockAllocator {
 public:
  // Alignment of every block, as cudaMalloc gives at least 256.
  static constexpr std::uint64_t kBlockAlign = 512;
  static constexpr std::uint64_t kSmallLimit = 1u << 20;

  // The range of the parent that backs a block.
  struct Backing {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
  };
  struct Block {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;  // rounded up
    Backing backing;
    bool new_backing = false;  // it has to be backed first
  };

  BlockAllocator(std::uint64_t base, std::uint64_t bytes,
                 std::uint64_t slab_bytes);

  // Bytes of backing that Allocate(bytes) would newly need; exact.
  [[nodiscard]] std::uint64_t NewBackingBytes(std::uint64_t bytes) const;
  // nullopt when no range is left. `bytes` > 0.
  std::optional<Block> Allocate(std::uint64_t bytes);
  // The backing that is no longer used, if the block was its last; nullopt also
  // for an address at which no block starts (then *found is false).
  std::optional<Backing> Free(std::uint64_t address, bool* found);

  // A range of the parent that the caller backs piece by piece: at `address` if
  // that is not 0, else anywhere. Free ends it.
  std::optional<std::uint64_t> Reserve(std::uint64_t bytes,
                                       std::uint64_t alignment,
                                       std::uint64_t address) {
    if (address == 0) return space_.Allocate(bytes, alignment);
    if (!space_.AllocateAt(address, bytes)) return std::nullopt;
    return address;
  }
  // The block that starts at `address`; nullopt when none does.
  [[nodiscard]] std::optional<Block> Find(std::uint64_t address) const;

  [[nodiscard]] std::uint64_t backed_bytes() const {
    return space_.used_bytes();
  }
  [[nodiscard]] const AddressSpace& space() const { return space_; }

  void Save(ByteWriter* out) const;
  Status Load(ByteReader* in);

 private:
  using Slabs = std::map<std::uint64_t, AddressSpace>;  // by start
  static std::uint64_t RoundUpBlock(std::uint64_t bytes) {
    return (bytes + kBlockAlign - 1) & ~(kBlockAlign - 1);
  }
  // The slab that holds `address`, or end.
  [[nodiscard]] Slabs::const_iterator SlabOf(std::uint64_t address) const;
  void AddRoom(const AddressSpace& slab);
  void RemoveRoom(const AddressSpace& slab);

  AddressSpace space_;
  Slabs slabs_;
  // Longest hole of each slab that has one, with the slab's start.
  std::set<std::pair<std::uint64_t, std::uint64_t>> by_room_;
};

}  // namespace pos

#endif  // POS_GRAPH_ADDRESS_SPACE_H_
