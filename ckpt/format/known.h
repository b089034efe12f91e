// The chunks that a store already has, for one checkpoint: digest -> where.
//
// posd builds the table from the images of the job's owner and gives every
// runner a read-only descriptor of it; a chunk that is found there is neither
// copied nor written. The table is no part of an image and lives as long as
// the checkpoint.
//
// Threads:   a builder belongs to one thread; any number may call Find.
// Memory:    a builder holds 56 bytes per entry of its capacity until Finish;
//            a table is a mapping of the file (page cache).
// Trust:     runners trust posd, so entries have no checksums. What is wrong
//            in the file still cannot make Find read outside it.
//
// Layout, after the common 64-byte header (kind KNOW): digest_seed:u64
// chunk_bytes:u32 packs:u32 slots:u64 entries:u64, then the packs' ids, the
// slots (u32: 0 empty, else entry number + 1; open addressing by the digest's
// prefix), zeros up to a multiple of 16, the entries.
//
// Test: tests/ckpt/format/known_test.cc
#ifndef CKPT_FORMAT_KNOWN_H_
#define CKPT_FORMAT_KNOWN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ckpt/format/chunk_index.h"
#include "ckpt/format/digest.h"
#include "ckpt/format/id.h"
#include "pos/base/status.h"

namespace pos::ckpt {

// One entry as it lies in the file.
struct KnownEntry {
  Digest digest;
  std::uint64_t place = 0;
  std::uint64_t sum = 0;
  std::uint32_t stored = 0;
  std::uint32_t bytes = 0;
  std::uint32_t pack = 0;
  std::uint32_t codec = 0;
};
static_assert(sizeof(KnownEntry) == 48);

class KnownTableBuilder {
 public:
  // Takes up to `capacity` entries; more are ignored.
  KnownTableBuilder(std::uint64_t digest_seed, std::uint32_t chunk_bytes,
                    std::size_t capacity);

  // The number of `pack` in this table; adds it when it is new.
  std::uint32_t AddPack(const PackId& pack);
  // `ref.pack` is a number of this table. The first entry of a digest stays.
  // False when the table is full.
  bool Add(const ChunkRef& ref);
  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] bool full() const { return entries_.size() == capacity_; }

  Status Write(int fd, const std::string& name, const StoreId& store) const;

 private:
  const std::uint64_t digest_seed_;
  const std::uint32_t chunk_bytes_;
  const std::size_t capacity_;
  std::vector<PackId> packs_;
  std::vector<std::uint32_t> slots_;
  std::vector<KnownEntry> entries_;
};

class KnownTable {
 public:
  // Maps `fd`, which may be closed afterwards.
  static Result<std::unique_ptr<KnownTable>> Open(int fd,
                                                  const std::string& name);
  ~KnownTable();
  KnownTable(const KnownTable&) = delete;
  KnownTable& operator=(const KnownTable&) = delete;

  // The chunk's `pack` is a number of packs(). Any thread.
  [[nodiscard]] std::optional<ChunkRef> Find(const Digest& digest) const;

  [[nodiscard]] const std::vector<PackId>& packs() const { return packs_; }
  [[nodiscard]] std::uint64_t digest_seed() const { return digest_seed_; }
  [[nodiscard]] std::uint32_t chunk_bytes() const { return chunk_bytes_; }
  [[nodiscard]] std::size_t size() const { return entry_count_; }

 private:
  explicit KnownTable(std::span<const std::byte> map) : map_(map) {}
  Status Parse(const std::string& name);

  const std::span<const std::byte> map_;
  std::uint64_t digest_seed_ = 0;
  std::uint32_t chunk_bytes_ = 0;
  std::vector<PackId> packs_;
  std::span<const std::byte> slots_;
  std::size_t slot_count_ = 0;  // a power of two
  std::span<const std::byte> entries_;
  std::size_t entry_count_ = 0;
};

}  // namespace pos::ckpt

#endif  // CKPT_FORMAT_KNOWN_H_
