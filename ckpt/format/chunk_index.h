// The chunk index: what a session's memory consists of, region by region, and
// where each chunk's bytes are. ckpt/FORMAT.md, "Chunk index".
//
// Threads:   one thread at a time per writer and per reader.
// Memory:    a writer holds one record of entries and the pack table, a reader
//            one record and the pack table, whatever the session's size. 1 TiB
//            of 2 MiB chunks is a file of 32 MiB.
// Errors:    a writer refuses what a reader would (kInvalid), so that nothing
//            unreadable is written; a reader gives kCorrupt or kIncompatible
//            and checks every rule of the format before an entry is seen.
//
// Test: tests/ckpt/format/chunk_index_test.cc   Fuzz: tests/fuzz/image_fuzz.cc
#ifndef CKPT_FORMAT_CHUNK_INDEX_H_
#define CKPT_FORMAT_CHUNK_INDEX_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ckpt/format/digest.h"
#include "ckpt/format/id.h"
#include "ckpt/format/record.h"
#include "pos/base/status.h"

namespace pos::ckpt {

enum class RegionKind : std::uint32_t {
  kDeviceMemory = 1,
  kHostMemory = 2,   // pinned, mapped, managed
  kBlob = 3,         // state of POS: "graph", "allocator", "pending"
  kDeviceArray = 4,  // device memory without an address
};
[[nodiscard]] std::string_view RegionKindName(RegionKind kind);

// A range of bytes of a session.
struct Region {
  RegionKind kind = RegionKind::kDeviceMemory;
  std::uint32_t device = 0;   // ordinal in the image
  std::uint64_t address = 0;  // of an array: its id; of a blob: 0
  std::uint64_t bytes = 0;
  std::uint64_t flags = 0;
  std::string name;

  friend bool operator==(const Region&, const Region&) = default;
};

enum class Codec : std::uint8_t { kNone = 0, kZstd = 1, kLz4 = 2 };
[[nodiscard]] std::string_view CodecName(Codec codec);

// Where a chunk's bytes are stored, and what they are. Made by a PackWriter or
// found in a KnownTable; goes into an index.
struct ChunkRef {
  std::uint64_t place = 0;   // offset in the pack; 0: the chunk is all zeros
  std::uint32_t stored = 0;  // bytes there
  std::uint32_t bytes = 0;   // of memory
  std::uint32_t pack = 0;    // number in the index's pack table
  Codec codec = Codec::kNone;
  Digest digest;
  std::uint64_t sum = 0;  // of the stored bytes; 0 when stored as is

  [[nodiscard]] bool zero() const { return place == 0; }
  friend bool operator==(const ChunkRef&, const ChunkRef&) = default;
};

// One entry of an index: [offset, offset + bytes) of a region.
struct ChunkEntry {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;  // a run of zeros may have any number
  std::uint32_t rank = 0;   // order of last use, 1 the latest; 0 unknown
  ChunkRef ref;             // ref.bytes == bytes unless zero

  [[nodiscard]] bool zero() const { return ref.zero(); }
  friend bool operator==(const ChunkEntry&, const ChunkEntry&) = default;
};

// Every index begins with it.
struct IndexHead {
  std::uint32_t session = 0;
  std::uint64_t digest_seed = 0;
  std::uint32_t chunk_bytes = 0;
};

inline constexpr std::size_t kChunkEntryBytes = 64;
inline constexpr std::size_t kEntriesPerRecord = 1024;
inline constexpr std::size_t kMaxPacksPerIndex = 65535;

// The rules for regions and entries, which writer and reader apply alike: both
// feed everything through one of these. Returns why something is wrong, or
// nullptr.
class IndexRules {
 public:
  explicit IndexRules(std::uint32_t chunk_bytes) : chunk_bytes_(chunk_bytes) {}

  const char* BeginRegion(const Region& region);
  const char* AddEntry(const ChunkEntry& entry, std::size_t packs);
  // The current region is covered to its end.
  [[nodiscard]] const char* EndRegion() const;
  [[nodiscard]] const std::optional<Region>& region() const { return region_; }

 private:
  const std::uint32_t chunk_bytes_;
  std::optional<Region> region_;
  std::uint64_t covered_ = 0;  // of the current region
};

class IndexWriter {
 public:
  // Writes from the start of `fd`, an empty file.
  IndexWriter(int fd, std::string name, const StoreId& store,
              std::uint64_t created_ms, const IndexHead& head);

  // Packs are numbered from 0 in the order of the calls.
  Status AddPack(const PackId& pack);
  // Regions in ascending order of (kind, device, address, name).
  Status BeginRegion(const Region& region);
  // The next bytes of the region. Neighbouring zero chunks become one entry.
  Status AddChunk(const ChunkRef& ref, std::uint32_t rank = 0);
  Status AddZeros(std::uint64_t bytes);
  // Everything handed to the kernel; not fsync.
  Status Finish();

 private:
  Status Add(const ChunkEntry& entry);
  Status FlushZeros();
  Status FlushEntries();
  Status FlushPacks();
  Status EndRegion();

  const std::string name_;
  RecordWriter records_;
  IndexRules rules_;
  std::vector<std::byte> entries_;  // encoded, of the current region
  std::vector<PackId> new_packs_;   // not yet written
  std::size_t packs_ = 0;
  std::uint64_t offset_ = 0;  // in the region, of the next chunk
  std::uint64_t zeros_ = 0;   // bytes before offset_ not yet in entries_
  Status status_;             // of the first record; sticky
};

// Streams an index: regions, each followed by its entries.
class IndexReader {
 public:
  enum class What { kRegion, kEntry, kEnd };

  // `source` must outlive the reader.
  static Result<std::unique_ptr<IndexReader>> Open(ByteSource* source,
                                                   std::string name);

  // The next region or entry, into region() or entry(). After kEnd the whole
  // index has been checked.
  Result<What> Next();
  [[nodiscard]] const Region& region() const { return *rules_.region(); }
  [[nodiscard]] const ChunkEntry& entry() const { return entry_; }
  // Offset of the CHUNKS record that entry() is in, and entry()'s place there.
  [[nodiscard]] std::uint64_t record_offset() const { return record_.offset; }

  [[nodiscard]] const IndexHead& head() const { return head_; }
  [[nodiscard]] const FileHeader& header() const { return records_->header(); }
  // All packs named so far; complete after kEnd.
  [[nodiscard]] const std::vector<PackId>& packs() const { return packs_; }

  // The entries of the CHUNKS record at `offset`, for random access once the
  // index has been read to its end.
  Result<std::vector<ChunkEntry>> EntriesAt(std::uint64_t offset);

 private:
  explicit IndexReader(std::unique_ptr<RecordReader> records,
                       const IndexHead& head)
      : records_(std::move(records)), head_(head), rules_(head.chunk_bytes) {}
  Status OnPackTable();
  Status OnRegion();
  Result<What> NextEntry();

  std::unique_ptr<RecordReader> records_;
  const IndexHead head_;
  IndexRules rules_;
  std::vector<PackId> packs_;
  Record record_;
  std::size_t next_entry_ = 0;  // in record_
  bool in_chunks_ = false;      // record_ is a CHUNKS record
  ChunkEntry entry_;
};

}  // namespace pos::ckpt

#endif  // CKPT_FORMAT_CHUNK_INDEX_H_
