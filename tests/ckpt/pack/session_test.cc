// A session written through SessionWriter and read through ChunkStream and
// ChunkMap: every size, codec and kind of I/O; damage; chunks shared with
// earlier packs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "ckpt/pack/chunk_map.h"
#include "tests/ckpt/pack/session_fixture.h"

namespace pos::ckpt {
namespace {

using ::testing::HasSubstr;

constexpr std::uint32_t kChunk = 64u << 10;

PackWriterOptions SmallOptions() {
  PackWriterOptions options;
  options.pool_bytes = 12 * kChunk;
  options.threads = 2;
  return options;
}

struct Way {
  IoKind io;
  bool direct;
  Compression compress;
};

class EveryWay : public ::testing::TestWithParam<Way> {};

INSTANTIATE_TEST_SUITE_P(
    Session, EveryWay,
    ::testing::Values(Way{IoKind::kAuto, true, Compression::kAuto},
                      Way{IoKind::kAuto, true, Compression::kNone},
                      Way{IoKind::kSync, true, Compression::kZstd},
                      Way{IoKind::kSync, false, Compression::kLz4},
                      Way{IoKind::kUring, false, Compression::kZstd}));

TEST_P(EveryWay, EverySizeAroundTheBoundariesComesBack) {
  const TestDir dir("session");
  PackWriterOptions options = SmallOptions();
  options.io = GetParam().io;
  options.direct = GetParam().direct;
  options.compress = GetParam().compress;
  TestSession session(dir.path(), kChunk);
  auto writer = session.Writer(options);
  ASSERT_NE(writer, nullptr);
  std::map<std::string, Bytes> wanted;
  std::uint64_t address = 0x1000;
  for (const std::size_t size :
       {1u, 4095u, 4096u, 4097u, kChunk - 1, kChunk, kChunk + 1,
        3 * kChunk - 4096, 3 * kChunk, 20 * kChunk + 17}) {
    for (int pattern = 0; pattern < 3; ++pattern) {
      Bytes data = pattern == 0   ? Noise(size, size)
                   : pattern == 1 ? Compressible(size, size)
                                  : Bytes(size);
      ASSERT_TRUE(WriteRegion(writer.get(), address, data, kChunk).ok());
      wanted[std::to_string(address)] = std::move(data);
      address += 32 * kChunk;
    }
  }
  const Result<PackTotals> totals = writer->Finish();
  ASSERT_TRUE(totals.ok()) << totals.status().ToString();
  EXPECT_EQ(totals->bytes, totals->zero_bytes * 3);
  EXPECT_EQ(totals->file_bytes, *FileSize(session.pack_path()));
  if (GetParam().compress != Compression::kNone) {
    EXPECT_LT(totals->written_bytes, 2 * totals->zero_bytes);
  }
  PackSet packs;
  ASSERT_TRUE(session.AddTo(&packs).ok());
  for (const IoKind io : {IoKind::kAuto, IoKind::kSync}) {
    ChunkStreamOptions reading;
    reading.io = io;
    reading.pool_bytes = 8 * kChunk;
    auto got = ReadAll(std::move(*session.Index()), packs, reading);
    ASSERT_TRUE(got.ok()) << got.status().ToString();
    EXPECT_TRUE(*got == wanted);
  }
}

TEST(Session, ZeroChunksAndRepetitionsAreNotStored) {
  const TestDir dir("zeros");
  TestSession session(dir.path(), kChunk);
  auto writer = session.Writer(SmallOptions());
  Bytes data(50 * kChunk);
  const Bytes noise = Noise(kChunk);
  std::copy(noise.begin(), noise.end(), data.begin() + 7 * kChunk);
  // One chunk at a time, so that the second finds the first.
  ASSERT_TRUE(WriteRegion(writer.get(), 0, data, kChunk).ok());
  ASSERT_TRUE(WriteRegion(writer.get(), 1u << 30, noise, kChunk).ok());
  const auto totals = writer->Finish();
  ASSERT_TRUE(totals.ok());
  EXPECT_EQ(totals->written_chunks, 1u);
  EXPECT_EQ(totals->reused_bytes, kChunk);
  EXPECT_EQ(totals->file_bytes, kBlockBytes + kChunk);
  PackSet packs;
  ASSERT_TRUE(session.AddTo(&packs).ok());
  auto got = ReadAll(std::move(*session.Index()), packs);
  ASSERT_TRUE(got.ok());
  EXPECT_TRUE(got->at("0") == data);
  EXPECT_TRUE(got->at(std::to_string(1u << 30)) == noise);
}

TEST(Session, BlobsComeBackWholeAndInOrder) {
  const TestDir dir("blobs");
  TestSession session(dir.path(), kChunk);
  auto writer = session.Writer(SmallOptions());
  const Bytes graph = Noise(5 * kChunk + 123);
  BlobWriter blob(&writer->packs());
  for (std::size_t at = 0; at < graph.size(); at += 1000) {
    ASSERT_TRUE(
        blob.Append(std::span(graph).subspan(
                        at, std::min<std::size_t>(1000, graph.size() - at)))
            .ok());
  }
  const Result<Blob> written = blob.Finish();
  ASSERT_TRUE(written.ok());
  BlobWriter empty(&writer->packs());
  const Result<Blob> nothing = empty.Finish();
  ASSERT_TRUE(nothing.ok());
  ASSERT_TRUE(WriteRegion(writer.get(), 0, Noise(10), kChunk).ok());
  ASSERT_TRUE(writer->AddBlob("empty", *nothing).ok());
  ASSERT_TRUE(writer->AddBlob("graph", *written).ok());
  ASSERT_TRUE(writer->Finish().ok());
  PackSet packs;
  ASSERT_TRUE(session.AddTo(&packs).ok());
  auto got = ReadAll(std::move(*session.Index()), packs);
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  EXPECT_TRUE(got->at("graph") == graph);
  EXPECT_TRUE(got->at("empty").empty());
}

TEST(Session, KnownChunksAreNotWrittenAgain) {
  const TestDir dir("known");
  TestSession first(dir.path(), kChunk, "first");
  const Bytes data = Noise(20 * kChunk);
  auto writer = first.Writer(SmallOptions());
  ASSERT_TRUE(WriteRegion(writer.get(), 0, data, kChunk).ok());
  ASSERT_TRUE(writer->Finish().ok());
  KnownTableBuilder builder(kTestSeed, kChunk, 100);
  builder.AddPack(NewPackId());  // offered, never used
  auto index = first.Index();
  ASSERT_TRUE(index.ok());
  for (;;) {
    const auto what = (*index)->Next();
    ASSERT_TRUE(what.ok());
    if (*what == IndexReader::What::kEnd) break;
    if (*what != IndexReader::What::kEntry) continue;
    ChunkRef ref = (*index)->entry().ref;
    ref.pack = builder.AddPack((*index)->packs()[ref.pack]);
    builder.Add(ref);
  }
  UniqueFd known = MemFile();
  ASSERT_TRUE(builder.Write(known.get(), "known", NewStoreId()).ok());

  TestSession second(dir.path(), kChunk, "second");
  auto again = second.Writer(SmallOptions(), std::move(known));
  Bytes changed = data;
  changed[5 * kChunk] ^= std::byte{1};
  ASSERT_TRUE(WriteRegion(again.get(), 0, changed, kChunk).ok());
  const DigestKey& key = again->packs().digest_key();
  EXPECT_TRUE(again->packs()
                  .Find(DigestOf(key, std::span(data).first(kChunk)))
                  .has_value());
  const auto totals = again->Finish();
  ASSERT_TRUE(totals.ok());
  EXPECT_EQ(totals->written_chunks, 1u);
  EXPECT_EQ(totals->reused_bytes, 19 * kChunk);

  PackSet only_second;
  ASSERT_TRUE(second.AddTo(&only_second).ok());
  EXPECT_EQ(ReadAll(std::move(*second.Index()), only_second).status().code(),
            Code::kNoSuch);
  ASSERT_TRUE(first.AddTo(&only_second).ok());
  auto reader = second.Index();
  ASSERT_TRUE(reader.ok());
  auto got = ReadAll(std::move(*reader), only_second);
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  EXPECT_TRUE(got->at("0") == changed);
}

TEST(Session, DiscardedChunksGiveTheirSpaceBack) {
  const TestDir dir("discard");
  TestSession session(dir.path(), kChunk);
  auto writer = session.Writer(SmallOptions());
  std::vector<ChunkRef> refs;
  for (unsigned i = 0; i < 64; ++i) {
    const Result<ChunkRef> ref = writer->packs().Put(Noise(kChunk, i));
    ASSERT_TRUE(ref.ok());
    refs.push_back(*ref);
  }
  // Twice the same content: one use less is still a use.
  const Result<ChunkRef> twice = writer->packs().Put(Noise(kChunk, 0));
  ASSERT_TRUE(twice.ok());
  EXPECT_EQ(*twice, refs[0]);
  for (unsigned i = 0; i < 64; ++i) {
    if (i != 1) writer->packs().Discard(refs[i]);
  }
  Region region;
  region.bytes = 2 * kChunk;
  ASSERT_TRUE(writer->BeginRegion(region).ok());
  ASSERT_TRUE(writer->AddChunk(refs[0]).ok());
  ASSERT_TRUE(writer->AddChunk(refs[1]).ok());
  const auto totals = writer->Finish();
  ASSERT_TRUE(totals.ok());
  EXPECT_EQ(totals->discarded_bytes, 62 * kChunk);
  struct stat st {};
  ASSERT_EQ(::stat(session.pack_path().c_str(), &st), 0);
  EXPECT_LT(st.st_blocks * 512, 4 * kChunk);  // the holes cost nothing
  PackSet packs;
  ASSERT_TRUE(session.AddTo(&packs).ok());
  auto got = ReadAll(std::move(*session.Index()), packs);
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  EXPECT_TRUE(std::equal(got->at("0").begin(), got->at("0").begin() + kChunk,
                         Noise(kChunk, 0).begin()));
}

TEST(Session, SeveralThreadsMaySubmitAtOnce) {
  const TestDir dir("threads");
  TestSession session(dir.path(), kChunk);
  PackWriterOptions options = SmallOptions();
  options.threads = 3;
  auto writer = session.Writer(options);
  constexpr unsigned kThreads = 4;
  constexpr unsigned kEach = 40;
  const auto table = std::make_shared<RefTable>();
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < kEach; ++i) {
        const unsigned number = t * kEach + i;
        Result<Buffer> buffer = writer->packs().Acquire();
        ASSERT_TRUE(buffer.ok());
        const Bytes data = number % 3 == 0 ? Compressible(kChunk, number)
                                           : Noise(kChunk, number);
        std::copy(data.begin(), data.end(), buffer->bytes().begin());
        writer->packs().Submit(std::move(*buffer), kChunk, table, number);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(writer->packs().Flush().ok());
  Region region;
  region.bytes = std::uint64_t{kThreads} * kEach * kChunk;
  ASSERT_TRUE(writer->BeginRegion(region).ok());
  const auto refs = table->Take();
  ASSERT_EQ(refs.size(), kThreads * kEach);
  for (const auto& [number, ref] : refs) {
    ASSERT_TRUE(writer->AddChunk(ref).ok());
  }
  ASSERT_TRUE(writer->Finish().ok());
  PackSet packs;
  ASSERT_TRUE(session.AddTo(&packs).ok());
  auto got = ReadAll(std::move(*session.Index()), packs);
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  const Bytes& all = got->at("0");
  for (unsigned number = 0; number < kThreads * kEach; ++number) {
    const Bytes data =
        number % 3 == 0 ? Compressible(kChunk, number) : Noise(kChunk, number);
    ASSERT_TRUE(std::equal(data.begin(), data.end(),
                           all.begin() + std::ptrdiff_t{number} * kChunk));
  }
}

TEST(Session, GivingUpHalfWayLeavesNoThread) {
  const TestDir dir("giveup");
  TestSession session(dir.path(), kChunk);
  auto writer = session.Writer(SmallOptions());
  const auto table = std::make_shared<RefTable>();
  for (unsigned i = 0; i < 30; ++i) {
    Result<Buffer> buffer = writer->packs().Acquire();
    ASSERT_TRUE(buffer.ok());
    buffer->bytes()[0] = static_cast<std::byte>(i + 1);
    writer->packs().Submit(std::move(*buffer), kChunk, table, i);
  }
  writer.reset();  // ASan and TSan see what is left
}

// --- Reading ---

class ReadBack : public ::testing::Test {
 protected:
  ReadBack() : dir_("readback"), session_(dir_.path(), kChunk) {
    PackWriterOptions options = SmallOptions();
    options.compress = Compression::kZstd;
    auto writer = session_.Writer(options);
    data_ = Noise(6 * kChunk + 100);
    const Bytes soft = Compressible(2 * kChunk);
    std::copy(soft.begin(), soft.end(), data_.begin() + 2 * kChunk);
    std::fill(data_.begin() + 4 * kChunk, data_.begin() + 5 * kChunk,
              std::byte{0});
    EXPECT_TRUE(WriteRegion(writer.get(), 0x10000, data_, kChunk).ok());
    EXPECT_TRUE(WriteRegion(writer.get(), 1u << 30, Noise(3), kChunk).ok());
    EXPECT_TRUE(writer->Finish().ok());
  }
  Result<std::map<std::string, Bytes>> Read() {
    PackSet packs;
    POS_RETURN_IF_ERROR(session_.AddTo(&packs));
    POS_ASSIGN_OR_RETURN(std::unique_ptr<IndexReader> index, session_.Index());
    return ReadAll(std::move(index), packs);
  }
  void Flip(const std::string& path, std::uint64_t at) {
    const UniqueFd fd = *OpenFile(path, O_RDWR);
    std::byte byte{};
    ASSERT_TRUE(PreadFull(fd.get(), {&byte, 1}, at, path).ok());
    byte ^= std::byte{1};
    ASSERT_TRUE(PwriteFull(fd.get(), {&byte, 1}, at, path).ok());
  }

  TestDir dir_;
  TestSession session_;
  Bytes data_;
};

TEST_F(ReadBack, AFlippedBitAnywhereInThePackIsFound) {
  const std::uint64_t size = *FileSize(session_.pack_path());
  ASSERT_TRUE(Read().ok());
  for (std::uint64_t at = 0; at < size; at += at < 300 ? 1 : 1999) {
    Flip(session_.pack_path(), at);
    EXPECT_EQ(Read().status().code(), Code::kCorrupt) << at;
    Flip(session_.pack_path(), at);
  }
  ASSERT_TRUE(Read().ok());
}

TEST_F(ReadBack, APackCutShortIsFound) {
  const auto size = static_cast<off_t>(*FileSize(session_.pack_path()));
  for (off_t keep = size - 1; keep >= 0; keep -= 37777) {
    ASSERT_EQ(::truncate(session_.pack_path().c_str(), keep), 0);
    EXPECT_EQ(Read().status().code(), Code::kCorrupt) << keep;
  }
}

TEST_F(ReadBack, ABadChunkDoesNotHideTheOthers) {
  Flip(session_.pack_path(), kBlockBytes + 5);  // in the first one written
  PackSet packs;
  ASSERT_TRUE(session_.AddTo(&packs).ok());
  auto stream = ChunkStream::Open(std::move(*session_.Index()), &packs, {});
  ASSERT_TRUE(stream.ok());
  int good = 0;
  int bad = 0;
  for (;;) {
    const Result<ChunkStream::Piece> piece = (*stream)->Next();
    if (!piece.ok()) {
      EXPECT_EQ(piece.status().code(), Code::kCorrupt);
      EXPECT_THAT(piece.status().message(), HasSubstr("device memory"));
      ++bad;
      continue;
    }
    if (piece->what == ChunkStream::Piece::What::kEnd) break;
    if (piece->what == ChunkStream::Piece::What::kData) ++good;
  }
  EXPECT_TRUE((*stream)->done());
  EXPECT_EQ(bad, 1);
  EXPECT_EQ(good, 6);
}

TEST_F(ReadBack, ThePackOfAnotherIdOrSeedIsRefused) {
  PackSet packs;
  EXPECT_THAT(packs.Add(NewPackId(), *OpenFile(session_.pack_path(), O_RDONLY))
                  .message(),
              HasSubstr("says that it is pack"));
}

TEST_F(ReadBack, PiecesMayBeHeldUpToThePool) {
  PackSet packs;
  ASSERT_TRUE(session_.AddTo(&packs).ok());
  ChunkStreamOptions options;
  options.pool_bytes = 12 * kChunk;
  auto stream =
      ChunkStream::Open(std::move(*session_.Index()), &packs, options);
  std::vector<ChunkStream::Piece> held;
  for (;;) {
    Result<ChunkStream::Piece> piece = (*stream)->Next();
    ASSERT_TRUE(piece.ok());
    if (piece->what == ChunkStream::Piece::What::kEnd) break;
    held.push_back(std::move(*piece));
  }
  for (const ChunkStream::Piece& piece : held) {
    if (piece.what != ChunkStream::Piece::What::kData ||
        piece.region->address != 0x10000) {
      continue;
    }
    EXPECT_TRUE(
        std::equal(piece.data.begin(), piece.data.end(),
                   data_.begin() + static_cast<std::ptrdiff_t>(piece.offset)));
  }
}

TEST_F(ReadBack, LeavingEarlyLeavesNoThread) {
  PackSet packs;
  ASSERT_TRUE(session_.AddTo(&packs).ok());
  for (int pieces = 0; pieces < 5; ++pieces) {
    auto stream = ChunkStream::Open(std::move(*session_.Index()), &packs, {});
    for (int i = 0; i < pieces; ++i) ASSERT_TRUE((*stream)->Next().ok());
  }
}

TEST_F(ReadBack, AMapFindsEveryByte) {
  PackSet packs;
  ASSERT_TRUE(session_.AddTo(&packs).ok());
  auto map = ChunkMap::Open(std::move(*session_.Index()), &packs);
  ASSERT_TRUE(map.ok()) << map.status().ToString();
  ASSERT_EQ((*map)->regions().size(), 2u);
  ChunkMap::Reader reader(map->get());
  for (std::uint64_t at = 0; at < data_.size(); at += 4999) {
    const Result<ChunkEntry> entry = (*map)->Find(0, at);
    ASSERT_TRUE(entry.ok());
    ASSERT_LE(entry->offset, at);
    ASSERT_LT(at, entry->offset + entry->bytes);
    if (entry->zero()) {
      EXPECT_EQ(data_[at], std::byte{0});
      continue;
    }
    const auto bytes = reader.Read(*entry);
    ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
    EXPECT_EQ((*bytes)[at - entry->offset], data_[at]);
  }
  EXPECT_TRUE((*map)->Find(1, 2).ok());
  EXPECT_EQ((*map)->Find(1, 3).status().code(), Code::kInvalid);
  EXPECT_EQ((*map)->Find(2, 0).status().code(), Code::kInvalid);
}

}  // namespace
}  // namespace pos::ckpt
