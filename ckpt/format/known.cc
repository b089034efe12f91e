#include "ckpt/format/known.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "ckpt/format/header.h"
#include "pos/base/bytes.h"
#include "pos/base/clock.h"
#include "pos/base/fd.h"

namespace pos::ckpt {
namespace {

constexpr std::size_t kFixedBytes = kHeaderBytes + 32;
constexpr std::size_t kEntryAlign = 16;

std::size_t AlignedEnd(std::size_t bytes) {
  return (bytes + kEntryAlign - 1) / kEntryAlign * kEntryAlign;
}

template <typename T>
T At(std::span<const std::byte> bytes, std::size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

}  // namespace

KnownTableBuilder::KnownTableBuilder(std::uint64_t digest_seed,
                                     std::uint32_t chunk_bytes,
                                     std::size_t capacity)
    : digest_seed_(digest_seed),
      chunk_bytes_(chunk_bytes),
      capacity_(std::min<std::size_t>(capacity, 1u << 30)),
      // At most half full, so that probes are short.
      slots_(std::bit_ceil(std::max<std::size_t>(2 * capacity_, 2))) {}

std::uint32_t KnownTableBuilder::AddPack(const PackId& pack) {
  const auto found = std::find(packs_.begin(), packs_.end(), pack);
  const auto number = static_cast<std::uint32_t>(found - packs_.begin());
  if (found == packs_.end()) packs_.push_back(pack);
  return number;
}

bool KnownTableBuilder::Add(const ChunkRef& ref) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = ref.digest.Prefix() & mask;
  while (slots_[slot] != 0) {
    if (entries_[slots_[slot] - 1].digest == ref.digest) return true;
    slot = (slot + 1) & mask;
  }
  if (full()) return false;
  KnownEntry& entry = entries_.emplace_back();
  entry.digest = ref.digest;
  entry.place = ref.place;
  entry.sum = ref.sum;
  entry.stored = ref.stored;
  entry.bytes = ref.bytes;
  entry.pack = ref.pack;
  entry.codec = static_cast<std::uint32_t>(ref.codec);
  slots_[slot] = static_cast<std::uint32_t>(entries_.size());
  return true;
}

Status KnownTableBuilder::Write(int fd, const std::string& name,
                                const StoreId& store) const {
  ByteWriter out;
  out.Put(EncodeHeader(FileKind::kKnown, store, WallClockMs()));
  out.Put(digest_seed_);
  out.Put(chunk_bytes_);
  out.Put(static_cast<std::uint32_t>(packs_.size()));
  out.Put(static_cast<std::uint64_t>(slots_.size()));
  out.Put(static_cast<std::uint64_t>(entries_.size()));
  for (const PackId& pack : packs_) out.Put(pack.bytes);
  std::uint64_t at = out.bytes().size();
  POS_RETURN_IF_ERROR(PwriteFull(fd, out.bytes(), 0, name));
  const auto slots = std::as_bytes(std::span(slots_));
  POS_RETURN_IF_ERROR(PwriteFull(fd, slots, at, name));
  at = AlignedEnd(at + slots.size());
  return PwriteFull(fd, std::as_bytes(std::span(entries_)), at, name);
}

Result<std::unique_ptr<KnownTable>> KnownTable::Open(int fd,
                                                     const std::string& name) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return ErrnoStatus(errno, "stat " + name);
  const auto size = static_cast<std::size_t>(st.st_size);
  if (size < kFixedBytes) {
    return Corrupt(name + " has " + std::to_string(size) +
                   " bytes, fewer than " + std::to_string(kFixedBytes));
  }
  void* const map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return ErrnoStatus(errno, "map " + name);
  std::unique_ptr<KnownTable> table(
      new KnownTable({static_cast<const std::byte*>(map), size}));
  POS_RETURN_IF_ERROR(table->Parse(name));
  return table;
}

KnownTable::~KnownTable() {
  // munmap takes what mmap gave; the mapping is read-only.
  ::munmap(const_cast<std::byte*>(map_.data()), map_.size());
}

Status KnownTable::Parse(const std::string& name) {
  const Result<FileHeader> header =
      DecodeHeader(map_.first(kHeaderBytes), FileKind::kKnown, name);
  POS_RETURN_IF_ERROR(header.status());
  ByteReader in(map_.subspan(kHeaderBytes));
  digest_seed_ = in.Get<std::uint64_t>();
  chunk_bytes_ = in.Get<std::uint32_t>();
  const auto packs = in.Get<std::uint32_t>();
  const auto slots = in.Get<std::uint64_t>();
  const auto entries = in.Get<std::uint64_t>();
  if (packs > kMaxPacksPerIndex || !std::has_single_bit(slots) ||
      slots > map_.size() || entries > map_.size()) {
    return Corrupt(name + ": its counts are impossible");
  }
  const std::size_t slots_at = kFixedBytes + packs * sizeof(PackId);
  const std::size_t slots_end = slots_at + slots * sizeof(std::uint32_t);
  const std::size_t entries_at = AlignedEnd(slots_end);
  if (entries_at > map_.size() ||
      entries > (map_.size() - entries_at) / sizeof(KnownEntry)) {
    // A table without entries may end before the alignment.
    if (entries != 0 || slots_end > map_.size()) {
      return Corrupt(name + ": the file is too short for its counts");
    }
  }
  for (std::uint32_t i = 0; i < packs; ++i) {
    packs_.push_back(PackId{in.Get<decltype(PackId::bytes)>()});
  }
  slots_ = map_.subspan(slots_at, slots * sizeof(std::uint32_t));
  slot_count_ = slots;
  entry_count_ = entries;
  if (entries > 0) {
    entries_ = map_.subspan(entries_at, entries * sizeof(KnownEntry));
  }
  return {};
}

std::optional<ChunkRef> KnownTable::Find(const Digest& digest) const {
  const std::size_t mask = slot_count_ - 1;
  std::size_t slot = digest.Prefix() & mask;
  for (std::size_t probes = 0; probes < slot_count_; ++probes) {
    const auto number = At<std::uint32_t>(slots_, slot);
    if (number == 0 || number > entry_count_) return std::nullopt;
    const auto entry = At<KnownEntry>(entries_, number - 1);
    if (entry.digest == digest) {
      if (entry.pack >= packs_.size() || entry.codec > 2) return std::nullopt;
      ChunkRef ref;
      ref.place = entry.place;
      ref.stored = entry.stored;
      ref.bytes = entry.bytes;
      ref.pack = entry.pack;
      ref.codec = static_cast<Codec>(entry.codec);
      ref.digest = entry.digest;
      ref.sum = entry.sum;
      return ref;
    }
    slot = (slot + 1) & mask;
  }
  return std::nullopt;
}

}  // namespace pos::ckpt
