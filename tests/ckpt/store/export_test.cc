#include "ckpt/store/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <utility>

#include "ckpt/store/contents.h"
#include "ckpt/store/export_format.h"
#include "tests/ckpt/store/store_fixture.h"

namespace pos::ckpt {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class BytesSink final : public ByteSink {
 public:
  Status Write(std::span<const std::byte> bytes) override {
    out.insert(out.end(), bytes.begin(), bytes.end());
    return {};
  }
  Bytes out;
};

// Gives what it has in pieces of any size.
class BytesFeed final : public ByteFeed {
 public:
  explicit BytesFeed(Bytes bytes, std::size_t most = ~std::size_t{0})
      : bytes_(std::move(bytes)), most_(most) {}
  Result<std::size_t> Read(std::span<std::byte> out) override {
    const std::size_t n = std::min({out.size(), bytes_.size() - at_, most_});
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(at_), n,
                out.begin());
    at_ += n;
    return n;
  }

 private:
  const Bytes bytes_;
  const std::size_t most_;
  std::size_t at_ = 0;
};

class ExportTest : public StoreTest {
 protected:
  ExportTest() { Other(TestOptions()); }
  // Another store to import into.
  void Other(const StoreOptions& options) {
    other_.reset();
    auto store =
        Store::Open(dir_ / ("other" + std::to_string(++others_)), options);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    other_ = std::move(*store);
  }
  Bytes Export(const std::string& image) {
    const auto handle = store_->OpenImage(image, "test");
    EXPECT_TRUE(handle.ok());
    BytesSink sink;
    const auto bytes =
        ExportImage(**handle, store_->id(), store_->export_key(), &sink);
    EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
    EXPECT_EQ(*bytes, sink.out.size());
    return sink.out;
  }
  static Result<ImportReport> Import(Store* store, Bytes bytes,
                                     const ImportOptions& options = {}) {
    BytesFeed feed(std::move(bytes));
    return ImportImage(store, &feed, options);
  }
  void ExpectNothingIn(Store* store) {
    EXPECT_THAT(store->List(), IsEmpty());
    EXPECT_EQ(CountFiles(store->path() + "/tmp"), 0u);
    EXPECT_EQ(CountFiles(store->path() + "/packs"), 0u);
  }
  std::unique_ptr<Store> other_;
  int others_ = 0;
};

// Several chunks: noise, zeros, one that compresses, a short end.
Bytes Mixed() {
  Bytes memory = Noise(3 * kTestChunk, 7);
  memory.resize(6 * kTestChunk);
  const Bytes soft(kTestChunk, std::byte{5});
  memory.insert(memory.end(), soft.begin(), soft.end());
  const Bytes end = Noise(1000, 8);
  memory.insert(memory.end(), end.begin(), end.end());
  return memory;
}

TEST_F(ExportTest, AnImageIsTheSameInAnotherStore) {
  const Bytes memory = Mixed();
  const std::string image = MustCheckpoint(memory, "train", kAlice, "tagged");
  const Bytes file = Export(image);
  const auto report = Import(other_.get(), file);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->source, image);
  EXPECT_EQ(report->bytes, file.size());
  const Manifest& m = report->manifest;
  EXPECT_EQ(m.owner_uid, kAlice);
  EXPECT_EQ(m.tag, "tagged");
  EXPECT_EQ(m.job, store_->Show(image)->job);
  EXPECT_EQ(m.digest_seed, other_->digest_seed());
  EXPECT_NE(m.digest_seed, store_->digest_seed());
  const auto got = Restore(other_.get(), m.image);
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  EXPECT_TRUE(*got == memory);
  const auto verified = other_->Verify(m.image);
  ASSERT_TRUE(verified.ok());
  EXPECT_THAT(verified->first_problems, IsEmpty());
  EXPECT_EQ(verified->files, store_->Verify(image)->files);
}

TEST_F(ExportTest, WhereChunksHaveAnotherSizeTheyAreCutAnew) {
  const Bytes memory = Mixed();
  const Bytes file = Export(MustCheckpoint(memory));
  for (const std::uint32_t chunk : {128u << 10, 256u << 10, 2u << 20}) {
    SCOPED_TRACE(chunk);
    StoreOptions options = TestOptions();
    options.chunk_bytes = chunk;
    Other(options);
    const auto report = Import(other_.get(), file);
    ASSERT_TRUE(report.ok()) << report.status().ToString();
    EXPECT_EQ(report->manifest.chunk_bytes, chunk);
    const auto handle = other_->OpenImage(report->manifest.image, "test");
    ASSERT_TRUE(handle.ok());
    const auto verified = other_->Verify(report->manifest.image);
    EXPECT_EQ(verified->problems, 0u);
    const auto contents =
        ReadContents(**handle, (*handle)->manifest().sessions[0], 10);
    ASSERT_TRUE(contents.ok());
    EXPECT_EQ(contents->regions[0].region.bytes, memory.size());
  }
}

// A backup that is taken back while its series goes on is no part of it: it
// would be the newest, and go with the next ones.
TEST_F(ExportTest, AnImportedImageBelongsToNoSeries) {
  std::vector<std::string> images;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto image = Checkpoint(store_.get(), Noise(10, i), "train", kAlice,
                                  "", "every-hour");
    ASSERT_TRUE(image.ok());
    images.push_back(*image);
  }
  const auto report = Import(store_.get(), Export(images[0]));
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  const std::string imported = report->manifest.image;
  EXPECT_EQ(store_->Find(imported)->series, "");
  const auto removed = store_->ExpireSeries(kAlice, "every-hour", 2);
  EXPECT_THAT(*removed, ::testing::ElementsAre(images[0]));
  Reopen();
  EXPECT_EQ(store_->Find(imported)->series, "");
}

// Chunks that several images share are in the file of each.
TEST_F(ExportTest, AFileNeedsNoOtherImage) {
  Bytes memory = Mixed();
  const std::string first = MustCheckpoint(memory);
  memory[5] ^= std::byte{1};
  const std::string second = MustCheckpoint(memory);
  const Bytes file = Export(second);
  ASSERT_TRUE(store_->Remove(first).ok());
  ASSERT_TRUE(store_->Remove(second).ok());
  ASSERT_TRUE(store_->Gc().ok());
  const auto report = Import(store_.get(), file);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  ExpectMemory(report->manifest.image, memory);
}

TEST_F(ExportTest, WhatTheStoreHasIsNotWrittenAgain) {
  const std::string image = MustCheckpoint(Mixed());
  const auto report = Import(store_.get(), Export(image));
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->manifest.sessions[0].own_stored_bytes, 0u);
  EXPECT_GT(report->manifest.totals.reused_bytes, 0u);
  ExpectMemory(report->manifest.image, Mixed());
}

TEST_F(ExportTest, ATruncatedFileIsRefusedAndLeavesNothing) {
  const Bytes file = Export(MustCheckpoint(Noise(kTestChunk + 100)));
  std::vector<std::size_t> lengths = {0,
                                      1,
                                      63,
                                      64,
                                      65,
                                      file.size() - 1,
                                      file.size() - 8,
                                      file.size() - 48,
                                      file.size() - 49};
  std::mt19937 random(1);
  for (int i = 0; i < 60; ++i) lengths.push_back(random() % file.size());
  for (const std::size_t length : lengths) {
    SCOPED_TRACE(length);
    const auto report =
        Import(other_.get(),
               Bytes(file.begin(),
                     file.begin() + static_cast<std::ptrdiff_t>(length)));
    EXPECT_EQ(report.status().code(), Code::kCorrupt);
  }
  Bytes longer = file;
  longer.push_back(std::byte{0});
  EXPECT_EQ(Import(other_.get(), longer).status().code(), Code::kCorrupt);
  ExpectNothingIn(other_.get());
}

TEST_F(ExportTest, AChangedFileIsRefusedAndLeavesNothing) {
  const Bytes file = Export(MustCheckpoint(Noise(kTestChunk + 100)));
  std::mt19937 random(2);
  for (int i = 0; i < 150; ++i) {
    Bytes bad = file;
    // The head and the manifest lie at the front: look there more often.
    const std::size_t at = i % 2 == 0 ? random() % 2000 : random() % bad.size();
    SCOPED_TRACE(at);
    bad[at] ^= static_cast<std::byte>(1u << random() % 8);
    const Code code = Import(other_.get(), bad).status().code();
    EXPECT_TRUE(code == Code::kCorrupt || code == Code::kIncompatible);
  }
  ExpectNothingIn(other_.get());
}

TEST_F(ExportTest, AnEncryptedFileShowsNothingAndNeedsItsKey) {
  Bytes memory(2 * kTestChunk);
  const std::string word = "a secret that is long enough to be looked for";
  for (std::size_t at = 0; at + word.size() < memory.size(); at += 64) {
    std::copy_n(std::as_bytes(std::span(word)).begin(), word.size(),
                memory.begin() + static_cast<std::ptrdiff_t>(at));
  }
  const std::string image = MustCheckpoint(memory, "secret-job");
  const auto handle = store_->OpenImage(image, "test");
  const Secret key = RandomSecret();
  BytesSink sink;
  ExportOptions how;
  how.encrypt = true;
  ASSERT_TRUE(ExportImage(**handle, store_->id(), key, &sink, how).ok());
  const std::string text(reinterpret_cast<const char*>(sink.out.data()),
                         sink.out.size());
  EXPECT_EQ(text.find("a secret that"), std::string::npos);
  EXPECT_EQ(text.find("secret-job"), std::string::npos);
  EXPECT_EQ(text.find("pages-1.img"), std::string::npos);
  EXPECT_EQ(Import(other_.get(), sink.out).status().code(), Code::kDenied);
  ImportOptions options;
  options.keys = {&other_->export_key(), &key};
  const auto report = Import(other_.get(), sink.out, options);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_TRUE(*Restore(other_.get(), report->manifest.image) == memory);
  // Records that change places, under checksums that are right.
  SpanSource source(sink.out);
  auto reader = RecordReader::Open(&source, FileKind::kExport, "file");
  std::vector<std::pair<std::uint32_t, Bytes>> records;
  Record record;
  while (*(*reader)->Next(&record)) {
    records.emplace_back(record.type,
                         Bytes(record.payload.begin(), record.payload.end()));
  }
  for (std::size_t i = 1; i + 2 < records.size(); ++i) {
    SCOPED_TRACE(i);
    auto swapped = records;
    std::swap(swapped[i], swapped[i + 1]);
    BytesSink bad;
    RecordWriter writer(&bad, "bad", FileKind::kExport, store_->id(),
                        (*reader)->header().created_ms);
    for (const auto& [type, payload] : swapped) {
      ASSERT_TRUE(writer.Append(type, 0, payload).ok());
    }
    ASSERT_TRUE(writer.Finish().ok());
    EXPECT_EQ(Import(other_.get(), bad.out, options).status().code(),
              Code::kCorrupt);
  }
  EXPECT_EQ(other_->List().size(), 1u);
}

// Checksums are no secret: the MAC is.
TEST_F(ExportTest, AForgedFileIsRefusedWhereItsKeyIsKnown) {
  const std::string image = MustCheckpoint(Noise(kTestChunk));
  const auto handle = store_->OpenImage(image, "test");
  const Secret mine = RandomSecret();
  BytesSink sink;
  ASSERT_TRUE(ExportImage(**handle, store_->id(), mine, &sink).ok());
  // Says that it is under the store's key.
  ExportHead head;
  SpanSource source(sink.out);
  auto reader = RecordReader::Open(&source, FileKind::kExport, "file");
  ASSERT_TRUE(reader.ok());
  BytesSink forged;
  RecordWriter writer(&forged, "forged", FileKind::kExport, store_->id(),
                      (*reader)->header().created_ms);
  Record record;
  while (*(*reader)->Next(&record)) {
    Bytes payload(record.payload.begin(), record.payload.end());
    if (record.type == kExportHead) {
      ASSERT_TRUE(ExportHead::Decode(payload, &head));
      head.key_id = IdOf(store_->export_key());
      payload = head.Encode();
    }
    ASSERT_TRUE(writer.Append(record.type, 0, payload).ok());
  }
  ASSERT_TRUE(writer.Finish().ok());
  ImportOptions options;
  options.keys = {&store_->export_key()};
  const auto report = Import(store_.get(), forged.out, options);
  EXPECT_EQ(report.status().code(), Code::kCorrupt);
  EXPECT_THAT(report.status().message(), HasSubstr("MAC"));
  options.keys = {&mine};
  EXPECT_TRUE(Import(store_.get(), sink.out, options).ok());
}

TEST_F(ExportTest, UsersImportTheirOwnUnderAKnownKey) {
  const Bytes file = Export(MustCheckpoint(Noise(kTestChunk)));
  ImportOptions options;
  options.owner = kAlice;
  EXPECT_EQ(Import(other_.get(), file, options).status().code(), Code::kDenied);
  options.keys = {&other_->export_key()};
  EXPECT_EQ(Import(other_.get(), file, options).status().code(), Code::kDenied);
  options.keys = {&other_->export_key(), &store_->export_key()};
  options.owner = kBob;
  EXPECT_EQ(Import(other_.get(), file, options).status().code(), Code::kDenied);
  ExpectNothingIn(other_.get());
  options.owner = kAlice;
  const auto report = Import(other_.get(), file, options);
  EXPECT_TRUE(report.ok()) << report.status().ToString();
}

TEST_F(ExportTest, ADamagedImageIsNotExported) {
  const std::string image = MustCheckpoint(Noise(2 * kTestChunk));
  const auto handle = store_->OpenImage(image, "test");
  const std::string pack =
      Path("packs/" + PackName((*handle)->manifest().packs[0].pack) + ".pack");
  {
    const auto fd = OpenFile(pack, O_RDWR);
    const std::array<std::byte, 1> bad = {std::byte{0x55}};
    ASSERT_TRUE(PwriteFull(fd->get(), bad, kBlockBytes + 77, pack).ok());
  }
  BytesSink sink;
  EXPECT_EQ(ExportImage(**handle, store_->id(), store_->export_key(), &sink)
                .status()
                .code(),
            Code::kCorrupt);
}

TEST_F(ExportTest, ACancelledImportLeavesNothing) {
  const Bytes file = Export(MustCheckpoint(Mixed()));
  for (const std::uint64_t after : {std::size_t{0}, std::size_t{2000},
                                    file.size() / 2, file.size() - 200}) {
    ImportOptions options;
    options.progress = [after](std::uint64_t bytes) {
      return bytes > after ? Aborted("enough") : Status();
    };
    EXPECT_EQ(Import(other_.get(), file, options).status().code(),
              Code::kAborted);
  }
  ExpectNothingIn(other_.get());
}

TEST_F(ExportTest, SmallReadsAreEnough) {
  const Bytes memory = Noise(kTestChunk + 5);
  const Bytes file = Export(MustCheckpoint(memory));
  BytesFeed feed(file, 1000);
  const auto report = ImportImage(other_.get(), &feed, {});
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_TRUE(*Restore(other_.get(), report->manifest.image) == memory);
}

// What version 1 of the format wrote is read for ever: chunks of noise, zeros,
// a compressed one and a short one, files, and a blob.
TEST_F(ExportTest, AnImageOfFormatVersionOneIsRead) {
  Bytes memory = Noise(kTestChunk);
  memory.resize(2 * kTestChunk);
  const Bytes soft = Compressible(kTestChunk);
  memory.insert(memory.end(), soft.begin(), soft.end());
  memory.resize(4 * kTestChunk + 77);
  const auto text = ReadWholeFile(POS_GOLDEN "/image/export-v1");
  ASSERT_TRUE(text.ok()) << text.status().ToString();
  Bytes file(text->size());
  std::memcpy(file.data(), text->data(), text->size());
  const auto report = Import(other_.get(), file);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->manifest.job.name, "train");
  EXPECT_EQ(report->manifest.owner_uid, kAlice);
  EXPECT_EQ(report->manifest.files.size(), 2u);
  EXPECT_TRUE(*Restore(other_.get(), report->manifest.image) == memory);
  const auto handle = other_->OpenImage(report->manifest.image, "test");
  const auto blob = ReadBlob(**handle, 0, "graph", 100);
  ASSERT_TRUE(blob.ok());
  EXPECT_TRUE(*blob == Noise(100, memory.size()));
}

TEST_F(ExportTest, ContentsNameTheLargestRegions) {
  const std::string image = MustCheckpoint(Mixed());
  const auto handle = store_->OpenImage(image, "test");
  const SessionRecord& session = (*handle)->manifest().sessions[0];
  const auto all = ReadContents(**handle, session, 10);
  ASSERT_TRUE(all.ok()) << all.status().ToString();
  ASSERT_EQ(all->regions.size(), 2u);
  EXPECT_EQ(all->left_out, 0u);
  EXPECT_EQ(all->regions[0].region.bytes, Mixed().size());
  EXPECT_GE(all->regions[0].zero_bytes, 3 * kTestChunk);
  EXPECT_EQ(all->regions[0].stored_bytes + all->regions[1].stored_bytes,
            session.own_stored_bytes);
  EXPECT_EQ(all->regions[1].region.name, "graph");
  const auto one = ReadContents(**handle, session, 1);
  ASSERT_EQ(one->regions.size(), 1u);
  EXPECT_EQ(one->left_out, 1u);
  EXPECT_EQ(one->regions[0].region.bytes, Mixed().size());
  const auto blob = ReadBlob(**handle, 0, "graph", 100);
  ASSERT_TRUE(blob.ok()) << blob.status().ToString();
  EXPECT_TRUE(*blob == Noise(100, Mixed().size()));
  EXPECT_EQ(ReadBlob(**handle, 0, "graph", 99).status().code(), Code::kInvalid);
  EXPECT_EQ(ReadBlob(**handle, 0, "none", 99).status().code(), Code::kNoSuch);
}

}  // namespace
}  // namespace pos::ckpt
