// Random access to a session's memory: which chunk holds an address, and its
// bytes. For restores that load on demand.
//
// Threads: Read may be called by any number of threads at once, each with its
//          own Reader; Find by one thread at a time.
// Memory:  the regions, and 16 bytes per 1024 chunks; a Reader, two chunks.
//
// Test: tests/ckpt/pack/chunk_stream_test.cc
#ifndef CKPT_PACK_CHUNK_MAP_H_
#define CKPT_PACK_CHUNK_MAP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ckpt/format/chunk_index.h"
#include "ckpt/format/digest.h"
#include "ckpt/pack/buffer_pool.h"
#include "ckpt/pack/codec.h"
#include "ckpt/pack/pack_set.h"
#include "pos/base/status.h"

namespace pos::ckpt {

class ChunkMap {
 public:
  // Reads the index once, checking all of it. `source` (of the index) and
  // `packs` must outlive the map.
  static Result<std::unique_ptr<ChunkMap>> Open(
      std::unique_ptr<IndexReader> index, const PackSet* packs);

  [[nodiscard]] const std::vector<Region>& regions() const { return regions_; }
  [[nodiscard]] std::uint32_t chunk_bytes() const {
    return index_->head().chunk_bytes;
  }

  // The entry that holds byte `offset` of region number `region`.
  Result<ChunkEntry> Find(std::size_t region, std::uint64_t offset);

  // What one thread needs to read.
  class Reader {
   public:
    explicit Reader(const ChunkMap* map);  // must outlive it
    // The chunk's bytes, checked; valid until the next call.
    Result<std::span<const std::byte>> Read(const ChunkEntry& entry);

   private:
    const ChunkMap* const map_;
    std::unique_ptr<BufferPool> pool_;
    Buffer stored_;
    Buffer unpacked_;
    Decompressor decompressor_;
  };

 private:
  // A CHUNKS record: the first byte of a region that it covers, and where the
  // record is.
  struct Mark {
    std::uint64_t offset;
    std::uint64_t record;
  };

  ChunkMap(std::unique_ptr<IndexReader> index, const PackSet* packs)
      : index_(std::move(index)),
        packs_(packs),
        key_(index_->head().digest_seed) {}
  Status Load();

  const std::unique_ptr<IndexReader> index_;
  const PackSet* const packs_;
  const DigestKey key_;
  std::vector<Region> regions_;
  std::vector<std::size_t> first_mark_;  // of each region, and one past the end
  std::vector<Mark> marks_;
  std::uint64_t cached_record_ = 0;  // 0: none
  std::vector<ChunkEntry> cached_;
};

}  // namespace pos::ckpt

#endif  // CKPT_PACK_CHUNK_MAP_H_
