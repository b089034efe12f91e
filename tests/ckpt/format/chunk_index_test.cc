#include "ckpt/format/chunk_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "ckpt/format/pack_header.h"
#include "tests/ckpt/testing.h"

namespace pos::ckpt {
namespace {

using ::testing::HasSubstr;

constexpr std::uint32_t kChunk = 64u << 10;
const StoreId kStore = NewStoreId();

ChunkRef DataRef(std::uint64_t number, std::uint32_t bytes = kChunk) {
  ChunkRef ref;
  ref.place = (number + 1) * kMaxChunkBytes;
  ref.bytes = bytes;
  ref.stored = bytes;
  ref.digest.bytes[0] = static_cast<std::byte>(number);
  return ref;
}

ChunkRef ZeroRef(std::uint32_t bytes = kChunk) {
  ChunkRef ref;
  ref.bytes = bytes;
  return ref;
}

// Verbs over an index in memory.
class Index {
 public:
  Index() : fd_(MemFile()), writer_(fd_.get(), "index", kStore, 1, Head()) {}
  static IndexHead Head() { return {2, 99, kChunk}; }
  IndexWriter& writer() { return writer_; }
  Status Begin(RegionKind kind, std::uint64_t address, std::uint64_t bytes,
               const std::string& name = "") {
    Region region;
    region.kind = kind;
    region.address = address;
    region.bytes = bytes;
    region.name = name;
    return writer_.BeginRegion(region);
  }
  Bytes Finish() {
    const Status status = writer_.Finish();
    EXPECT_TRUE(status.ok()) << status.ToString();
    return ContentOf(fd_.get());
  }

 private:
  UniqueFd fd_;
  IndexWriter writer_;
};

struct Content {
  std::vector<Region> regions;
  std::vector<ChunkEntry> entries;
  std::vector<PackId> packs;
};

Result<Content> Decode(const Bytes& bytes) {
  SpanSource source(bytes);
  POS_ASSIGN_OR_RETURN(std::unique_ptr<IndexReader> reader,
                       IndexReader::Open(&source, "index"));
  Content content;
  for (;;) {
    POS_ASSIGN_OR_RETURN(const IndexReader::What what, reader->Next());
    if (what == IndexReader::What::kEnd) break;
    if (what == IndexReader::What::kRegion) {
      content.regions.push_back(reader->region());
    } else {
      content.entries.push_back(reader->entry());
    }
  }
  content.packs = reader->packs();
  return content;
}

// Two packs, three regions: a tail, zeros in every position, a blob.
Bytes SmallIndex() {
  Index index;
  EXPECT_TRUE(index.writer().AddPack(NewPackId()).ok());
  EXPECT_TRUE(index.writer().AddPack(NewPackId()).ok());
  EXPECT_TRUE(
      index.Begin(RegionKind::kDeviceMemory, 1u << 20, 5 * kChunk + 10).ok());
  ChunkRef packed = DataRef(1);
  packed.codec = Codec::kZstd;
  packed.stored = 100;
  packed.sum = 5;
  packed.pack = 1;
  EXPECT_TRUE(index.writer().AddChunk(ZeroRef()).ok());
  EXPECT_TRUE(index.writer().AddChunk(packed, 3).ok());
  EXPECT_TRUE(index.writer().AddZeros(2 * kChunk).ok());
  EXPECT_TRUE(index.writer().AddChunk(DataRef(2), 1).ok());
  EXPECT_TRUE(index.writer().AddChunk(DataRef(3, 10)).ok());
  EXPECT_TRUE(index.Begin(RegionKind::kHostMemory, 0, 3).ok());
  EXPECT_TRUE(index.writer().AddChunk(DataRef(4, 3)).ok());
  EXPECT_TRUE(index.Begin(RegionKind::kBlob, 0, 0, "empty").ok());
  EXPECT_TRUE(index.Begin(RegionKind::kBlob, 0, kChunk, "graph").ok());
  EXPECT_TRUE(index.writer().AddChunk(DataRef(5)).ok());
  return index.Finish();
}

TEST(ChunkIndex, ComesBackWithZerosJoined) {
  const Result<Content> got = Decode(SmallIndex());
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  EXPECT_EQ(got->packs.size(), 2u);
  ASSERT_EQ(got->regions.size(), 4u);
  EXPECT_EQ(got->regions[0].bytes, 5 * kChunk + 10);
  EXPECT_EQ(got->regions[2].name, "empty");
  ASSERT_EQ(got->entries.size(), 7u);
  EXPECT_TRUE(got->entries[0].zero());
  EXPECT_EQ(got->entries[1].ref.codec, Codec::kZstd);
  EXPECT_EQ(got->entries[1].rank, 3u);
  EXPECT_EQ(got->entries[1].ref.pack, 1u);
  EXPECT_TRUE(got->entries[2].zero());
  EXPECT_EQ(got->entries[2].offset, 2 * kChunk);
  EXPECT_EQ(got->entries[2].bytes, 2 * kChunk);
  EXPECT_EQ(got->entries[4].ref, DataRef(3, 10));
}

TEST(ChunkIndex, ATebibyteOfZerosCostsOneEntry) {
  Index index;
  const std::uint64_t bytes = std::uint64_t{1} << 40;
  ASSERT_TRUE(index.Begin(RegionKind::kDeviceMemory, 0, bytes).ok());
  for (std::uint64_t at = 0; at < bytes; at += std::uint64_t{1} << 30) {
    ASSERT_TRUE(index.writer().AddZeros(std::uint64_t{1} << 30).ok());
  }
  const Bytes file = index.Finish();
  EXPECT_LT(file.size(), 400u);
  const Result<Content> got = Decode(file);
  ASSERT_TRUE(got.ok());
  ASSERT_EQ(got->entries.size(), 1u);
  EXPECT_EQ(got->entries[0].bytes, bytes);
}

TEST(ChunkIndex, ManyEntriesKeepTheirOrderAcrossRecords) {
  for (const std::size_t count : {1023u, 1024u, 1025u, 2048u, 5000u}) {
    Index index;
    ASSERT_TRUE(index.writer().AddPack(NewPackId()).ok());
    ASSERT_TRUE(
        index.Begin(RegionKind::kDeviceMemory, 0, std::uint64_t{kChunk} * count)
            .ok());
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_TRUE(index.writer().AddChunk(DataRef(i)).ok());
    }
    const Result<Content> got = Decode(index.Finish());
    ASSERT_TRUE(got.ok()) << got.status().ToString();
    ASSERT_EQ(got->entries.size(), count);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(got->entries[i].offset, std::uint64_t{kChunk} * i);
      ASSERT_EQ(got->entries[i].ref, DataRef(i));
    }
  }
}

TEST(ChunkIndex, CutOrChangedAnywhereIsCorrupt) {
  Bytes bytes = SmallIndex();
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const Bytes cut(bytes.begin(),
                    bytes.begin() + static_cast<std::ptrdiff_t>(at));
    ASSERT_EQ(Decode(cut).status().code(), Code::kCorrupt) << at;
    const auto bit = static_cast<std::byte>(1 << (at % 8));
    bytes[at] ^= bit;
    ASSERT_EQ(Decode(bytes).status().code(), Code::kCorrupt) << at;
    bytes[at] ^= bit;
  }
}

TEST(ChunkIndex, FindsEntriesAgainByTheirRecord) {
  const Bytes bytes = SmallIndex();
  SpanSource source(bytes);
  auto reader = IndexReader::Open(&source, "index");
  ASSERT_TRUE(reader.ok());
  std::vector<std::pair<std::uint64_t, ChunkEntry>> seen;
  for (;;) {
    const Result<IndexReader::What> what = (*reader)->Next();
    ASSERT_TRUE(what.ok());
    if (*what == IndexReader::What::kEnd) break;
    if (*what == IndexReader::What::kEntry) {
      seen.emplace_back((*reader)->record_offset(), (*reader)->entry());
    }
  }
  for (const auto& [offset, entry] : seen) {
    const auto entries = (*reader)->EntriesAt(offset);
    ASSERT_TRUE(entries.ok());
    EXPECT_THAT(*entries, ::testing::Contains(entry));
  }
  EXPECT_FALSE((*reader)->EntriesAt(kHeaderBytes).ok());  // HEAD
}

// The writer refuses; so does the reader, when another writer did not.
TEST(IndexRules, AreEnforced) {
  const auto region = [](std::uint64_t address, std::uint64_t bytes) {
    Region r;
    r.address = address;
    r.bytes = bytes;
    return r;
  };
  const auto entry = [](std::uint64_t offset, const ChunkRef& ref) {
    ChunkEntry e;
    e.offset = offset;
    e.bytes = ref.bytes;
    e.ref = ref;
    return e;
  };
  {
    IndexRules rules(kChunk);
    EXPECT_NE(rules.AddEntry(entry(0, DataRef(0)), 1), nullptr);  // no region
    EXPECT_EQ(rules.BeginRegion(region(4096, 4096)), nullptr);
    EXPECT_NE(rules.BeginRegion(region(4096, 1)), nullptr);  // same place
    EXPECT_NE(rules.BeginRegion(region(0, 1)), nullptr);     // descending
    EXPECT_NE(rules.BeginRegion(region(8191, 1)), nullptr);  // overlap
    EXPECT_NE(rules.BeginRegion(region(~std::uint64_t{0}, 9)), nullptr);
    EXPECT_EQ(rules.BeginRegion(region(8192, 1)), nullptr);
  }
  const auto refused = [&](const ChunkEntry& e, std::size_t packs) {
    IndexRules rules(kChunk);
    EXPECT_EQ(rules.BeginRegion(region(0, 3 * kChunk)), nullptr);
    return rules.AddEntry(e, packs) != nullptr;
  };
  EXPECT_FALSE(refused(entry(0, DataRef(0)), 1));
  EXPECT_TRUE(refused(entry(0, DataRef(0)), 0));              // no such pack
  EXPECT_TRUE(refused(entry(kChunk, DataRef(0)), 1));         // gap
  EXPECT_TRUE(refused(entry(0, DataRef(0, 100)), 1));         // off the grid
  EXPECT_TRUE(refused(entry(0, DataRef(0, 2 * kChunk)), 1));  // too large
  EXPECT_TRUE(refused(entry(0, DataRef(0, 4 * kChunk)), 1));  // past the end
  EXPECT_TRUE(refused(entry(0, DataRef(0, 0)), 1));           // empty
  ChunkRef bad = DataRef(0);
  bad.place += 512;
  EXPECT_TRUE(refused(entry(0, bad), 1));
  bad = DataRef(0);
  bad.place = ~std::uint64_t{0} - 4095;
  EXPECT_TRUE(refused(entry(0, bad), 1));
  bad = DataRef(0);
  bad.stored = 5;  // as is, but of another size
  EXPECT_TRUE(refused(entry(0, bad), 1));
  bad.codec = Codec::kLz4;
  EXPECT_FALSE(refused(entry(0, bad), 1));
  bad.stored = kChunk + 1;
  EXPECT_TRUE(refused(entry(0, bad), 1));
  bad.stored = 0;
  EXPECT_TRUE(refused(entry(0, bad), 1));
}

TEST(IndexWriter, RefusesARegionLeftOpen) {
  Index index;
  ASSERT_TRUE(index.writer().AddPack(NewPackId()).ok());
  ASSERT_TRUE(
      index.Begin(RegionKind::kDeviceMemory, 0, 2 * std::uint64_t{kChunk})
          .ok());
  ASSERT_TRUE(index.writer().AddChunk(DataRef(0)).ok());
  EXPECT_EQ(index.writer().Finish().code(), Code::kInvalid);
  EXPECT_EQ(index.writer().AddZeros(2 * kChunk).code(), Code::kInvalid);
}

// The bytes of the document's hex lines: "    0040  01 01 …".
Bytes WorkedExample() {
  const Result<std::string> text = ReadWholeFile(POS_FORMAT_MD);
  EXPECT_TRUE(text.ok());
  std::istringstream lines(text->substr(text->find("## Worked example")));
  Bytes bytes;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream in(line);
    std::string offset;
    in >> offset;
    if (!line.starts_with("    ") || offset.size() != 4 ||
        offset.find_first_not_of("0123456789abcdef") != std::string::npos) {
      continue;
    }
    EXPECT_EQ(std::stoul(offset, nullptr, 16), bytes.size());
    for (std::string byte; in >> byte;) {
      bytes.push_back(static_cast<std::byte>(std::stoul(byte, nullptr, 16)));
    }
  }
  return bytes;
}

TEST(ChunkIndex, TheWorkedExampleSaysWhatTheDocumentSays) {
  const Result<Content> got = Decode(WorkedExample());
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  ASSERT_EQ(got->regions.size(), 1u);
  EXPECT_EQ(got->regions[0].address, 0x200000000000u);
  EXPECT_EQ(got->regions[0].bytes, 0x30000u);
  ASSERT_EQ(got->entries.size(), 3u);
  EXPECT_TRUE(got->entries[0].zero());
  EXPECT_EQ(got->entries[1].ref.place, 0x1000u);
  EXPECT_EQ(got->entries[1].ref.codec, Codec::kNone);
  EXPECT_EQ(got->entries[2].ref.place, 0x11000u);
  EXPECT_EQ(got->entries[2].ref.stored, 1000u);
  EXPECT_EQ(got->entries[2].rank, 1u);
  ASSERT_EQ(got->packs.size(), 1u);
  EXPECT_EQ(got->packs[0].bytes[0], std::byte{0xbb});
}

TEST(PackHeader, ComesBackAndEveryByteCounts) {
  PackHeader header;
  header.store = kStore;
  header.created_ms = 5;
  header.pack = NewPackId();
  header.owner_uid = 1000;
  header.digest_seed = 9;
  Bytes block = EncodePackHeader(header);
  ASSERT_EQ(block.size(), kBlockBytes);
  EXPECT_EQ(*DecodePackHeader(block, "pack"), header);
  for (std::size_t at = 0; at < block.size(); ++at) {
    block[at] ^= std::byte{4};
    EXPECT_EQ(DecodePackHeader(block, "pack").status().code(), Code::kCorrupt)
        << at;
    block[at] ^= std::byte{4};
  }
  block.resize(4095);
  EXPECT_EQ(DecodePackHeader(block, "pack").status().code(), Code::kCorrupt);
}

TEST(PackHeader, EncryptionIsFromALaterVersion) {
  PackHeader header;
  Bytes block = EncodePackHeader(header);
  block[56 + 16 + 4 + 4 + 8] = std::byte{1};  // crypt
  const std::uint64_t sum = Sum64(std::span(block).first(4088));
  std::memcpy(block.data() + 4088, &sum, sizeof(sum));
  const Status status = DecodePackHeader(block, "pack").status();
  EXPECT_EQ(status.code(), Code::kIncompatible);
  EXPECT_THAT(status.message(), HasSubstr("encryption 1"));
}

}  // namespace
}  // namespace pos::ckpt
