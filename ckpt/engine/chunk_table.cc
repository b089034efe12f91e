#include "ckpt/engine/chunk_table.h"

#include <algorithm>
#include <numeric>
#include <optional>

namespace pos::ckpt {
namespace {

// Between two looks at whether it was cancelled.
constexpr std::uint64_t kDigestBytes = std::uint64_t{1} << 30;

}  // namespace

std::shared_ptr<ChunkTable> ChunkTable::Make(Session* session, Scope scope,
                                             std::uint32_t chunk_bytes,
                                             PackWriter* writer,
                                             const ChunkTable* before) {
  std::shared_ptr<ChunkTable> table(new ChunkTable(writer));
  table->self_ = table;
  for (const auto& [address, block] : session->memory().blocks()) {
    if (scope == Scope::kStaying && block.leaving) continue;
    Part part;
    part.region.kind = RegionKind::kDeviceMemory;
    part.region.device = static_cast<std::uint32_t>(block.device);
    part.region.address = block.address;
    part.region.bytes = block.bytes;
    part.first = table->chunks_.size();
    part.count = (block.bytes + chunk_bytes - 1) / chunk_bytes;
    for (std::uint64_t at = 0; at < block.bytes; at += chunk_bytes) {
      Chunk chunk;
      chunk.address = block.address + at;
      chunk.bytes = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(chunk_bytes, block.bytes - at));
      chunk.device = static_cast<std::int16_t>(block.device);
      chunk.hidden = !block.accessible;
      table->chunks_.push_back(chunk);
    }
    table->bytes_ += block.bytes;
    table->parts_.push_back(std::move(part));
  }
  if (before == nullptr) return table;
  // Both ascend by address.
  auto mine = table->chunks_.begin();
  for (const Chunk& old : before->chunks_) {
    if (!old.copied) continue;
    while (mine != table->chunks_.end() && mine->address < old.address) ++mine;
    if (mine != table->chunks_.end() && mine->address == old.address &&
        mine->bytes == old.bytes) {
      mine->copied = true;
      mine->ref = old.ref;
      mine->dirty = old.dirty;
    } else {
      writer->Discard(old.ref);
    }
  }
  return table;
}

std::pair<std::size_t, std::size_t> ChunkTable::Find(
    DeviceAddress address, std::uint64_t bytes) const {
  if (bytes == 0) return {0, 0};
  const auto first = std::partition_point(
      chunks_.begin(), chunks_.end(),
      [address](const Chunk& c) { return c.address + c.bytes <= address; });
  const DeviceAddress end =
      address + bytes < address ? ~DeviceAddress{0} : address + bytes;
  const auto last = std::partition_point(
      first, chunks_.end(), [end](const Chunk& c) { return c.address < end; });
  return {static_cast<std::size_t>(first - chunks_.begin()),
          static_cast<std::size_t>(last - chunks_.begin())};
}

Status ChunkTable::DigestAll(Session* session,
                             const std::atomic<bool>* cancel) {
  std::vector<std::size_t> all(chunks_.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return DigestSome(session, all, cancel);
}

Status ChunkTable::DigestSome(Session* session,
                              std::span<const std::size_t> which,
                              const std::atomic<bool>* cancel) {
  std::vector<MemoryRange> ranges;
  std::vector<Digest> digests;
  for (std::size_t first = 0; first < which.size();) {
    if (cancel->load(std::memory_order_relaxed)) {
      return Aborted("the checkpoint was cancelled");
    }
    // Of one device, so much that it is kept busy.
    const int device = chunks_[which[first]].device;
    ranges.clear();
    std::uint64_t bytes = 0;
    for (std::size_t i = first; i < which.size() && bytes < kDigestBytes; ++i) {
      const Chunk& chunk = chunks_[which[i]];
      if (chunk.device != device) break;
      ranges.push_back({chunk.address, chunk.bytes});
      bytes += chunk.bytes;
    }
    digests.resize(ranges.size());
    POS_RETURN_IF_ERROR(session->device(device)->Digest(
        ranges, writer_->digest_key().seed(), digests));
    for (const Digest& digest : digests) chunks_[which[first++]].cut = digest;
  }
  return {};
}

bool ChunkTable::Adopt(Chunk* chunk) {
  auto zeros = zeros_.find(chunk->bytes);
  if (zeros == zeros_.end()) {
    const std::vector<std::byte> bytes(chunk->bytes);
    zeros = zeros_.emplace(chunk->bytes, DigestOf(writer_->digest_key(), bytes))
                .first;
  }
  ChunkRef ref;
  if (chunk->cut == zeros->second) {
    ref.bytes = chunk->bytes;
    ref.digest = chunk->cut;
  } else {
    const std::optional<ChunkRef> known = writer_->Find(chunk->cut);
    if (!known.has_value() || known->bytes != chunk->bytes) return false;
    ref = *known;
  }
  if (chunk->copied) writer_->Discard(chunk->ref);
  chunk->ref = ref;
  chunk->copied = true;
  chunk->state = ChunkState::kDone;
  return true;
}

void ChunkTable::Submit(std::size_t index, Buffer buffer) {
  writer_->Submit(std::move(buffer), chunks_[index].bytes, self_.lock(), index);
}

void ChunkTable::OnChunk(std::uint64_t cookie, const ChunkRef& ref) {
  Chunk& chunk = chunks_[cookie];
  if (chunk.copied) writer_->Discard(chunk.ref);
  chunk.ref = ref;
  chunk.copied = true;
  if (chunk.proven && ref.digest != chunk.cut) {
    unforeseen_.fetch_add(1, std::memory_order_release);
  }
}

Status ChunkTable::CheckComplete() const {
  for (const Chunk& chunk : chunks_) {
    if (!chunk.copied || (chunk.proven && chunk.ref.digest != chunk.cut)) {
      return Internal("a chunk of the image is not what the cut had");
    }
  }
  return {};
}

Status ChunkTable::Write(
    SessionWriter* writer,
    const std::map<std::uint64_t, std::uint32_t>& ranks) const {
  POS_RETURN_IF_ERROR(CheckComplete());
  for (const Part& part : parts_) {
    POS_RETURN_IF_ERROR(writer->BeginRegion(part.region));
    const auto rank = ranks.find(part.region.address);
    for (std::size_t i = 0; i < part.count; ++i) {
      POS_RETURN_IF_ERROR(writer->AddChunk(
          chunks_[part.first + i].ref, rank == ranks.end() ? 0 : rank->second));
    }
  }
  return {};
}

}  // namespace pos::ckpt
