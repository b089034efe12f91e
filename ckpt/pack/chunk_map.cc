#include "ckpt/pack/chunk_map.h"

#include <algorithm>

#include "pos/base/fd.h"

namespace pos::ckpt {

Result<std::unique_ptr<ChunkMap>> ChunkMap::Open(
    std::unique_ptr<IndexReader> index, const PackSet* packs) {
  std::unique_ptr<ChunkMap> map(new ChunkMap(std::move(index), packs));
  POS_RETURN_IF_ERROR(map->Load());
  return map;
}

Status ChunkMap::Load() {
  std::uint64_t record = 0;
  for (;;) {
    POS_ASSIGN_OR_RETURN(const IndexReader::What what, index_->Next());
    if (what == IndexReader::What::kEnd) break;
    if (what == IndexReader::What::kRegion) {
      regions_.push_back(index_->region());
      first_mark_.push_back(marks_.size());
    } else if (index_->record_offset() != record) {
      record = index_->record_offset();
      marks_.push_back({index_->entry().offset, record});
    }
  }
  first_mark_.push_back(marks_.size());
  return {};
}

Result<ChunkEntry> ChunkMap::Find(std::size_t region, std::uint64_t offset) {
  if (region >= regions_.size() || offset >= regions_[region].bytes) {
    return Invalid("byte " + std::to_string(offset) + " of region " +
                   std::to_string(region) + " is not in the image");
  }
  const auto begin =
      marks_.begin() + static_cast<std::ptrdiff_t>(first_mark_[region]);
  const auto end =
      marks_.begin() + static_cast<std::ptrdiff_t>(first_mark_[region + 1]);
  const auto after = std::upper_bound(
      begin, end, offset,
      [](std::uint64_t at, const Mark& m) { return at < m.offset; });
  if (after == begin) return Internal("a region without entries");
  const std::uint64_t record = std::prev(after)->record;
  if (record != cached_record_) {
    POS_ASSIGN_OR_RETURN(cached_, index_->EntriesAt(record));
    cached_record_ = record;
  }
  const auto past = std::upper_bound(
      cached_.begin(), cached_.end(), offset,
      [](std::uint64_t at, const ChunkEntry& e) { return at < e.offset; });
  if (past == cached_.begin() ||
      offset - std::prev(past)->offset >= std::prev(past)->bytes) {
    return Corrupt("the index has changed since it was checked");
  }
  return *std::prev(past);
}

ChunkMap::Reader::Reader(const ChunkMap* map) : map_(map) {}

Result<std::span<const std::byte>> ChunkMap::Reader::Read(
    const ChunkEntry& entry) {
  if (entry.zero()) return Invalid("zeros are not stored");
  if (pool_ == nullptr) {
    POS_ASSIGN_OR_RETURN(pool_, BufferPool::Create(map_->chunk_bytes(), 2));
    stored_ = pool_->TryAcquire();
    unpacked_ = pool_->TryAcquire();
  }
  const ChunkRef& ref = entry.ref;
  if (ref.pack >= map_->index_->packs().size() ||
      ref.bytes > map_->chunk_bytes() || ref.stored > ref.bytes) {
    return Invalid("not an entry of this index");
  }
  const PackId& id = map_->index_->packs()[ref.pack];
  POS_ASSIGN_OR_RETURN(
      const PackFile* const pack,
      map_->packs_->Find(id, ref, map_->index_->head().digest_seed));
  const std::span<std::byte> blocks =
      stored_.bytes().first(StoredBlocksBytes(ref));
  POS_RETURN_IF_ERROR(
      PreadFull(pack->fd.get(), blocks, ref.place, "pack " + PackName(id)));
  return UnpackChunk(ref, map_->key_, blocks, unpacked_.bytes(),
                     &decompressor_);
}

}  // namespace pos::ckpt
