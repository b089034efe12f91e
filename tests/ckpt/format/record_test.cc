// Record files: what is written is read; whatever is changed, cut, moved or
// doubled is found.
#include "ckpt/format/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "ckpt/format/digest.h"
#include "tests/ckpt/testing.h"

namespace pos::ckpt {
namespace {

using ::testing::HasSubstr;

struct Item {
  std::uint32_t type;
  std::uint16_t flags;
  Bytes payload;
};

const StoreId kStore = NewStoreId();

Bytes Encode(const std::vector<Item>& items, FileKind kind = FileKind::kIndex) {
  const UniqueFd fd = MemFile();
  RecordWriter writer(fd.get(), "file", kind, kStore, 1234);
  for (const Item& item : items) {
    EXPECT_TRUE(writer.Append(item.type, item.flags, item.payload).ok());
  }
  EXPECT_TRUE(writer.Finish().ok());
  const Bytes content = ContentOf(fd.get());
  EXPECT_EQ(writer.bytes(), content.size());
  return content;
}

// Everything in the file, or the first error.
Result<std::vector<Item>> Decode(const Bytes& file,
                                 FileKind kind = FileKind::kIndex) {
  SpanSource source(file);
  POS_ASSIGN_OR_RETURN(std::unique_ptr<RecordReader> reader,
                       RecordReader::Open(&source, kind, "file"));
  std::vector<Item> items;
  for (Record record;;) {
    POS_ASSIGN_OR_RETURN(const bool any, reader->Next(&record));
    if (!any) return items;
    const std::uint16_t flags = record.optional ? kRecordOptional : 0;
    items.push_back({record.type, flags,
                     Bytes(record.payload.begin(), record.payload.end())});
  }
}

std::vector<Item> SomeItems() {
  return {{1, 0, Noise(5)},
          {2, kRecordOptional, {}},
          {7, 0, Noise(40, 2)},
          {7, 0, Noise(40, 3)},
          {0xfffffffe, 0, Noise(8)}};
}

TEST(Records, ComeBackInOrderWithEveryPayloadSize) {
  std::vector<Item> items;
  for (std::uint32_t size = 0; size < 70; ++size) {
    items.push_back({size, 0, Noise(size)});
  }
  for (const std::size_t size :
       {65536u, (256u << 10) - 24, 256u << 10, (256u << 10) + 1, 8u << 20}) {
    items.push_back({9, kRecordOptional, Noise(size)});
  }
  const Result<std::vector<Item>> got = Decode(Encode(items));
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  ASSERT_EQ(got->size(), items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ((*got)[i].type, items[i].type);
    EXPECT_EQ((*got)[i].flags, items[i].flags);
    EXPECT_EQ((*got)[i].payload, items[i].payload) << i;
  }
}

TEST(Records, CutAnywhereAreRefused) {
  const Bytes file = Encode(SomeItems());
  for (std::size_t keep = 0; keep < file.size(); ++keep) {
    const Bytes cut(file.begin(),
                    file.begin() + static_cast<std::ptrdiff_t>(keep));
    EXPECT_EQ(Decode(cut).status().code(), Code::kCorrupt) << keep;
  }
}

TEST(Records, OneFlippedBitAnywhereIsFound) {
  Bytes file = Encode(SomeItems());
  for (std::size_t at = 0; at < file.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      file[at] ^= static_cast<std::byte>(1 << bit);
      EXPECT_EQ(Decode(file).status().code(), Code::kCorrupt) << at;
      file[at] ^= static_cast<std::byte>(1 << bit);
    }
  }
  EXPECT_TRUE(Decode(file).ok());
}

TEST(Records, BytesAfterTheEndAreRefused) {
  Bytes file = Encode(SomeItems());
  file.push_back(std::byte{0});
  EXPECT_THAT(Decode(file).status().message(), HasSubstr("follow the end"));
}

TEST(Records, SwappedDoubledOrDroppedAreFound) {
  // Two equal-sized records after the header: 24 + 40 bytes each.
  const Bytes file = Encode({{7, 0, Noise(40, 2)}, {7, 0, Noise(40, 3)}});
  const auto first = file.begin() + kHeaderBytes;
  const auto second = first + 64;
  Bytes swapped = file;
  std::swap_ranges(swapped.begin() + kHeaderBytes,
                   swapped.begin() + kHeaderBytes + 64,
                   swapped.begin() + kHeaderBytes + 64);
  EXPECT_EQ(Decode(swapped).status().code(), Code::kCorrupt);
  Bytes doubled(file.begin(), second);
  doubled.insert(doubled.end(), first, file.end());
  EXPECT_EQ(Decode(doubled).status().code(), Code::kCorrupt);
  Bytes dropped(file.begin(), first);
  dropped.insert(dropped.end(), second, file.end());
  EXPECT_EQ(Decode(dropped).status().code(), Code::kCorrupt);
}

// A file with the last record left out and an end record that fits its place.
TEST(Records, AnEndRecordOfAnotherFileIsFound) {
  Bytes longer = Encode({{7, 0, Noise(40, 2)}, {7, 0, Noise(40, 3)}});
  const Bytes other = Encode({{7, 0, Noise(40, 4)}, {7, 0, Noise(40, 3)}});
  ASSERT_EQ(longer.size(), other.size());
  std::copy(other.begin() + kHeaderBytes + 128, other.end(),
            longer.begin() + kHeaderBytes + 128);
  EXPECT_THAT(Decode(longer).status().message(),
              HasSubstr("others than were written"));
}

// Sets bytes of the header and makes its checksum right again.
Bytes WithHeader(Bytes file, std::size_t at, std::uint8_t value) {
  file[at] = std::byte{value};
  const std::uint64_t sum = Sum64(std::span(file).first(56));
  std::memcpy(file.data() + 56, &sum, sizeof(sum));
  return file;
}

TEST(Records, ALaterVersionIsNamedWithOurs) {
  const Bytes file = WithHeader(Encode(SomeItems()), 12, 9);
  const Status status = Decode(file).status();
  EXPECT_EQ(status.code(), Code::kIncompatible);
  EXPECT_THAT(status.message(), HasSubstr("format version 9"));
  EXPECT_THAT(status.message(), HasSubstr("up to 1"));
  EXPECT_THAT(status.message(), HasSubstr(std::string(WriterVersion())));
  EXPECT_THAT(status.hint(), HasSubstr("at least as new"));
}

TEST(Records, AnotherKindOfFileIsNamed) {
  const Bytes file = Encode(SomeItems(), FileKind::kManifest);
  EXPECT_THAT(Decode(file).status().message(),
              HasSubstr("its kind is MANI, not INDX"));
}

TEST(Records, UnknownFlagsAreFromALaterVersion) {
  const Bytes file = Encode({{1, 2, Noise(5)}});
  const Status status = Decode(file).status();
  EXPECT_EQ(status.code(), Code::kIncompatible);
  EXPECT_THAT(status.message(), HasSubstr("flags 0x2"));
}

TEST(Records, AWildLengthIsNotAllocated) {
  Bytes file = Encode({{1, 0, Noise(5)}});
  const std::uint64_t length = ~std::uint64_t{0} - 3;
  std::memcpy(file.data() + kHeaderBytes + 8, &length, sizeof(length));
  EXPECT_EQ(Decode(file).status().code(), Code::kCorrupt);
}

TEST(RecordWriter, RefusesTooLargeAPayload) {
  const UniqueFd fd = MemFile();
  RecordWriter writer(fd.get(), "file", FileKind::kIndex, kStore, 0);
  const Bytes big(kMaxRecordBytes + 1);
  EXPECT_EQ(writer.Append(1, 0, big).code(), Code::kInvalid);
}

TEST(RecordWriter, KeepsItsFirstError) {
  UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE(full.valid());
  RecordWriter writer(full.get(), "file", FileKind::kIndex, kStore, 0);
  const Bytes payload = Noise(300000);
  EXPECT_EQ(writer.Append(1, 0, payload).code(), Code::kDiskFull);
  EXPECT_EQ(writer.Append(1, 0, {}).code(), Code::kDiskFull);
  EXPECT_EQ(writer.Finish().code(), Code::kDiskFull);
}

TEST(RecordReader, ReadsARecordAgainByItsOffset) {
  const Bytes file = Encode(SomeItems());
  SpanSource source(file);
  auto reader = RecordReader::Open(&source, FileKind::kIndex, "file");
  ASSERT_TRUE(reader.ok());
  std::vector<std::pair<std::uint64_t, std::uint32_t>> places;
  for (Record record; *(*reader)->Next(&record);) {
    places.emplace_back(record.offset, record.type);
  }
  ASSERT_EQ(places.size(), 5u);
  for (auto it = places.rbegin(); it != places.rend(); ++it) {
    const Result<Record> again = (*reader)->ReadAt(it->first);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->type, it->second);
  }
  EXPECT_FALSE((*reader)->ReadAt(file.size()).ok());
  EXPECT_FALSE((*reader)->ReadAt(~std::uint64_t{0} - 8).ok());
}

TEST(WriteRecordFile, LeavesNothingBehindWhenItFails) {
  const TestDir dir("records");
  const std::string path = dir / "pin";
  ASSERT_TRUE(
      WriteRecordFile(path, FileKind::kPins, kStore, 1, 0x301, Noise(50)).ok());
  EXPECT_EQ(Decode(ContentOf(OpenFile(path, O_RDONLY)->get()), FileKind::kPins)
                ->at(0)
                .payload,
            Noise(50));
  EXPECT_FALSE(WriteRecordFile(path, FileKind::kPins, kStore, 1, 0x301,
                               Bytes(kMaxRecordBytes + 1))
                   .ok());
  EXPECT_EQ(ListDirectory(dir.path())->size(), 1u);
}

}  // namespace
}  // namespace pos::ckpt
