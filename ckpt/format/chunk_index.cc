#include "ckpt/format/chunk_index.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "pos/base/bytes.h"

namespace pos::ckpt {
namespace {

constexpr std::uint32_t kRecordHead = 0x0101;
constexpr std::uint32_t kRecordPackTable = 0x0102;
constexpr std::uint32_t kRecordRegion = 0x0103;
constexpr std::uint32_t kRecordChunks = 0x0104;

enum class EntryKind : std::uint8_t { kData = 0, kZeros = 1 };

bool HasRange(RegionKind kind) {
  return kind == RegionKind::kDeviceMemory || kind == RegionKind::kHostMemory;
}

void PutEntry(ByteWriter* out, const ChunkEntry& entry) {
  const ChunkRef& ref = entry.ref;
  out->Put(entry.offset);
  out->Put(entry.bytes);
  out->Put(ref.place);
  out->Put(ref.stored);
  out->Put(ref.pack);
  out->Put(ref.zero() ? EntryKind::kZeros : EntryKind::kData);
  out->Put(ref.codec);
  out->Put(std::uint8_t{0});  // crypt
  out->Put(std::uint8_t{0});
  out->Put(entry.rank);
  out->Put(ref.digest.bytes);
  out->Put(ref.sum);
}

// nullptr, or why the entry is not of this format; *newer when a later one may
// allow it.
const char* GetEntry(std::span<const std::byte> bytes, ChunkEntry* entry,
                     bool* newer) {
  ByteReader in(bytes);
  ChunkRef& ref = entry->ref;
  entry->offset = in.Get<std::uint64_t>();
  entry->bytes = in.Get<std::uint64_t>();
  ref.place = in.Get<std::uint64_t>();
  ref.stored = in.Get<std::uint32_t>();
  ref.pack = in.Get<std::uint32_t>();
  const auto kind = in.Get<std::uint8_t>();
  const auto codec = in.Get<std::uint8_t>();
  const auto crypt = in.Get<std::uint8_t>();
  const auto zero = in.Get<std::uint8_t>();
  entry->rank = in.Get<std::uint32_t>();
  ref.digest.bytes = in.Get<decltype(ref.digest.bytes)>();
  ref.sum = in.Get<std::uint64_t>();
  *newer = true;
  if (kind > 1) return "an entry has an unknown kind";
  if (codec > 2) return "an entry has an unknown codec";
  if (crypt != 0) return "an entry has an unknown encryption";
  *newer = false;
  ref.codec = static_cast<Codec>(codec);
  if (zero != 0) return "a byte that must be zero is not";
  if ((kind == 1) != ref.zero()) return "an entry of data without a place";
  if (ref.zero()) {
    ref.bytes = 0;
    if (ref != ChunkRef()) return "an entry of zeros says where it is stored";
  } else {
    if (entry->bytes > kMaxChunkBytes) return "a chunk is too large";
    ref.bytes = static_cast<std::uint32_t>(entry->bytes);
  }
  return nullptr;
}

const char* CheckRef(const ChunkRef& ref) {
  if (ref.place % kBlockBytes != 0) return "a chunk is not at a block's start";
  if (ref.place > ~std::uint64_t{0} - 2 * kMaxChunkBytes) {
    return "a chunk lies outside every pack";
  }
  if (ref.stored == 0 || ref.stored > ref.bytes) {
    return "a chunk is stored in more bytes than it has, or in none";
  }
  if (ref.codec == Codec::kNone && (ref.stored != ref.bytes || ref.sum != 0)) {
    return "a chunk stored as is has another size, or a checksum";
  }
  return nullptr;
}

}  // namespace

std::string_view RegionKindName(RegionKind kind) {
  switch (kind) {
    case RegionKind::kDeviceMemory:
      return "device memory";
    case RegionKind::kHostMemory:
      return "host memory";
    case RegionKind::kBlob:
      return "blob";
    case RegionKind::kDeviceArray:
      return "device array";
  }
  return "unknown";
}

std::string_view CodecName(Codec codec) {
  constexpr std::array<std::string_view, 3> kNames = {"none", "zstd", "lz4"};
  return kNames[static_cast<std::size_t>(codec)];
}

const char* IndexRules::BeginRegion(const Region& region) {
  const auto key = [](const Region& r) {
    return std::tie(r.kind, r.device, r.address, r.name);
  };
  if (region.bytes > ~std::uint64_t{0} - region.address) {
    return "a region runs past the end of addresses";
  }
  if (region_.has_value()) {
    if (key(*region_) >= key(region)) return "regions are not in order";
    if (HasRange(region.kind) && region.kind == region_->kind &&
        region.device == region_->device &&
        region.address - region_->address < region_->bytes) {
      return "regions overlap";
    }
  }
  region_ = region;
  covered_ = 0;
  return nullptr;
}

const char* IndexRules::AddEntry(const ChunkEntry& entry, std::size_t packs) {
  if (!region_.has_value()) return "a chunk before the first region";
  if (entry.offset != covered_) {
    return "the chunks leave a gap or overlap";
  }
  if (entry.bytes == 0 || entry.bytes > region_->bytes - covered_) {
    return "a chunk is empty or runs past its region";
  }
  covered_ += entry.bytes;
  if (covered_ % chunk_bytes_ != 0 && covered_ != region_->bytes) {
    return "a chunk ends neither on the grid nor with its region";
  }
  if (entry.zero()) return nullptr;
  if (entry.bytes > chunk_bytes_) return "a chunk is larger than chunk_bytes";
  if (entry.ref.pack >= packs) return "a chunk lies in a pack not in the table";
  return CheckRef(entry.ref);
}

const char* IndexRules::EndRegion() const {
  if (region_.has_value() && covered_ != region_->bytes) {
    return "the chunks do not cover their region";
  }
  return nullptr;
}

IndexWriter::IndexWriter(int fd, std::string name, const StoreId& store,
                         std::uint64_t created_ms, const IndexHead& head)
    : name_(std::move(name)),
      records_(fd, name_, FileKind::kIndex, store, created_ms),
      rules_(head.chunk_bytes) {
  entries_.reserve(kEntriesPerRecord * kChunkEntryBytes);
  ByteWriter out;
  out.Put(head.session);
  out.Put(kDigestTreeXxh3);
  out.Put(head.digest_seed);
  out.Put(head.chunk_bytes);
  out.Put(std::uint32_t{0});
  status_ = IsChunkBytes(head.chunk_bytes)
                ? records_.Append(kRecordHead, 0, out.bytes())
                : Invalid(name_ + ": chunks cannot have " +
                          std::to_string(head.chunk_bytes) + " bytes");
}

Status IndexWriter::AddPack(const PackId& pack) {
  if (packs_ == kMaxPacksPerIndex) {
    return Invalid(name_ + ": more than " + std::to_string(packs_) + " packs");
  }
  new_packs_.push_back(pack);
  ++packs_;
  return {};
}

Status IndexWriter::FlushPacks() {
  if (new_packs_.empty()) return {};
  ByteWriter out;
  out.Put(static_cast<std::uint64_t>(new_packs_.size()));
  for (const PackId& pack : new_packs_) out.Put(pack.bytes);
  new_packs_.clear();
  return records_.Append(kRecordPackTable, 0, out.bytes());
}

Status IndexWriter::FlushEntries() {
  if (entries_.empty()) return {};
  POS_RETURN_IF_ERROR(FlushPacks());
  POS_RETURN_IF_ERROR(records_.Append(kRecordChunks, 0, entries_));
  entries_.clear();
  return {};
}

Status IndexWriter::EndRegion() {
  POS_RETURN_IF_ERROR(FlushZeros());
  POS_RETURN_IF_ERROR(FlushEntries());
  const char* const wrong = rules_.EndRegion();
  return wrong == nullptr ? Status() : Invalid(name_ + ": " + wrong);
}

Status IndexWriter::BeginRegion(const Region& region) {
  POS_RETURN_IF_ERROR(status_);
  POS_RETURN_IF_ERROR(EndRegion());
  if (const char* wrong = rules_.BeginRegion(region); wrong != nullptr) {
    return Invalid(name_ + ": " + wrong);
  }
  offset_ = 0;
  ByteWriter out;
  out.Put(region.kind);
  out.Put(region.device);
  out.Put(region.address);
  out.Put(region.bytes);
  out.Put(region.flags);
  out.PutString(region.name);
  return records_.Append(kRecordRegion, 0, out.bytes());
}

Status IndexWriter::Add(const ChunkEntry& entry) {
  if (const char* wrong = rules_.AddEntry(entry, packs_); wrong != nullptr) {
    return Invalid(name_ + ": " + wrong + ", at byte " +
                   std::to_string(entry.offset) + " of its region");
  }
  ByteWriter out;
  PutEntry(&out, entry);
  entries_.insert(entries_.end(), out.bytes().begin(), out.bytes().end());
  if (entries_.size() == kEntriesPerRecord * kChunkEntryBytes) {
    return FlushEntries();
  }
  return {};
}

Status IndexWriter::FlushZeros() {
  if (zeros_ == 0) return {};
  ChunkEntry entry;
  entry.offset = offset_ - zeros_;
  entry.bytes = zeros_;
  zeros_ = 0;
  return Add(entry);
}

Status IndexWriter::AddZeros(std::uint64_t bytes) {
  POS_RETURN_IF_ERROR(status_);
  if (!rules_.region().has_value() ||
      bytes >
          rules_.region()->bytes - std::min(offset_, rules_.region()->bytes)) {
    return Invalid(name_ + ": zeros run past their region");
  }
  offset_ += bytes;
  zeros_ += bytes;
  return {};
}

Status IndexWriter::AddChunk(const ChunkRef& ref, std::uint32_t rank) {
  if (ref.zero()) return AddZeros(ref.bytes);
  POS_RETURN_IF_ERROR(status_);
  POS_RETURN_IF_ERROR(FlushZeros());
  ChunkEntry entry;
  entry.offset = offset_;
  entry.bytes = ref.bytes;
  entry.rank = rank;
  entry.ref = ref;
  offset_ += ref.bytes;
  return Add(entry);
}

Status IndexWriter::Finish() {
  POS_RETURN_IF_ERROR(status_);
  POS_RETURN_IF_ERROR(EndRegion());
  POS_RETURN_IF_ERROR(FlushPacks());
  return records_.Finish();
}

Result<std::unique_ptr<IndexReader>> IndexReader::Open(ByteSource* source,
                                                       std::string name) {
  POS_ASSIGN_OR_RETURN(
      std::unique_ptr<RecordReader> records,
      RecordReader::Open(source, FileKind::kIndex, std::move(name)));
  Record record;
  POS_ASSIGN_OR_RETURN(const bool any, records->Next(&record));
  if (!any || record.type != kRecordHead) {
    return Corrupt(records->name() + ": it does not begin with a HEAD record");
  }
  ByteReader in(record.payload);
  IndexHead head;
  head.session = in.Get<std::uint32_t>();
  const auto digest_id = in.Get<std::uint32_t>();
  head.digest_seed = in.Get<std::uint64_t>();
  head.chunk_bytes = in.Get<std::uint32_t>();
  in.Get<std::uint32_t>();
  if (!in.ok()) return records->BadRecord(record, "it is too short");
  if (digest_id != kDigestTreeXxh3) {
    return Incompatible(records->name() + " uses digest " +
                        std::to_string(digest_id) + "; this POS knows 1");
  }
  if (!IsChunkBytes(head.chunk_bytes)) {
    return records->BadRecord(record,
                              "chunk_bytes is not a power of two from "
                              "65536 to 16777216");
  }
  return std::unique_ptr<IndexReader>(
      new IndexReader(std::move(records), head));
}

Status IndexReader::OnPackTable() {
  ByteReader in(record_.payload);
  const auto count = in.Get<std::uint64_t>();
  if (!in.ok() || count > in.left() / sizeof(PackId) ||
      count > kMaxPacksPerIndex - packs_.size()) {
    return records_->BadRecord(record_, "it names too many packs");
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    packs_.push_back(PackId{in.Get<decltype(PackId::bytes)>()});
  }
  return {};
}

Status IndexReader::OnRegion() {
  if (const char* wrong = rules_.EndRegion(); wrong != nullptr) {
    return records_->BadRecord(record_, wrong);
  }
  ByteReader in(record_.payload);
  Region region;
  const auto kind = in.Get<std::uint32_t>();
  region.device = in.Get<std::uint32_t>();
  region.address = in.Get<std::uint64_t>();
  region.bytes = in.Get<std::uint64_t>();
  region.flags = in.Get<std::uint64_t>();
  region.name = in.GetString();
  if (!in.ok()) return records_->BadRecord(record_, "it is too short");
  if (kind < 1 || kind > 4) {
    return Incompatible(records_->name() + ": a region of kind " +
                        std::to_string(kind) + ", written by POS " +
                        header().writer + "; this POS knows 1 to 4");
  }
  region.kind = static_cast<RegionKind>(kind);
  if (const char* wrong = rules_.BeginRegion(region); wrong != nullptr) {
    return records_->BadRecord(record_, wrong);
  }
  return {};
}

Result<IndexReader::What> IndexReader::NextEntry() {
  bool newer = false;
  const char* wrong = GetEntry(
      record_.payload.subspan(next_entry_ * kChunkEntryBytes, kChunkEntryBytes),
      &entry_, &newer);
  if (wrong != nullptr && newer) {
    return Incompatible(records_->name() + ": " + wrong + " (written by POS " +
                        header().writer + ")");
  }
  if (wrong == nullptr) wrong = rules_.AddEntry(entry_, packs_.size());
  if (wrong != nullptr) return records_->BadRecord(record_, wrong);
  ++next_entry_;
  if (next_entry_ * kChunkEntryBytes == record_.payload.size()) {
    in_chunks_ = false;
  }
  return What::kEntry;
}

Result<IndexReader::What> IndexReader::Next() {
  for (;;) {
    if (in_chunks_) return NextEntry();
    POS_ASSIGN_OR_RETURN(const bool any, records_->Next(&record_));
    if (!any) {
      const char* const wrong = rules_.EndRegion();
      if (wrong != nullptr) return Corrupt(records_->name() + ": " + wrong);
      return What::kEnd;
    }
    switch (record_.type) {
      case kRecordPackTable:
        POS_RETURN_IF_ERROR(OnPackTable());
        break;
      case kRecordRegion:
        POS_RETURN_IF_ERROR(OnRegion());
        return What::kRegion;
      case kRecordChunks:
        if (record_.payload.empty() ||
            record_.payload.size() % kChunkEntryBytes != 0 ||
            record_.payload.size() > kEntriesPerRecord * kChunkEntryBytes) {
          return records_->BadRecord(record_,
                                     "it has no whole entries, or "
                                     "too many");
        }
        in_chunks_ = true;
        next_entry_ = 0;
        break;
      default:
        if (!record_.optional) return records_->UnknownRecord(record_);
    }
  }
}

Result<std::vector<ChunkEntry>> IndexReader::EntriesAt(std::uint64_t offset) {
  POS_ASSIGN_OR_RETURN(const Record record, records_->ReadAt(offset));
  std::vector<ChunkEntry> entries(record.payload.size() / kChunkEntryBytes);
  if (record.type != kRecordChunks || entries.empty() ||
      entries.size() > kEntriesPerRecord) {
    return records_->BadRecord(record, "it has no entries");
  }
  for (std::size_t i = 0; i < entries.size(); ++i) {
    bool newer = false;
    const char* const wrong =
        GetEntry(record.payload.subspan(i * kChunkEntryBytes, kChunkEntryBytes),
                 &entries[i], &newer);
    if (wrong != nullptr) return records_->BadRecord(record, wrong);
  }
  return entries;
}

}  // namespace pos::ckpt
