// Memory does not grow with what is written or read.
#include <gtest/gtest.h>

#include <fstream>

#include "ckpt/pack/chunk_map.h"
#include "pos/base/sanitizers.h"
#include "tests/ckpt/pack/session_fixture.h"

namespace pos::ckpt {
namespace {

constexpr std::uint32_t kChunk = 2u << 20;
constexpr std::uint64_t kMiB = 1u << 20;

std::uint64_t StatusBytes(const std::string& field) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(field + ":")) {
      return std::stoull(line.substr(field.size() + 1)) * 1024;
    }
  }
  ADD_FAILURE() << "no " << field;
  return 0;
}

// How far resident memory has risen above where it was at construction.
class PeakMemory {
 public:
  PeakMemory() {
    std::ofstream("/proc/self/clear_refs") << "5";  // resets VmHWM
    before_ = StatusBytes("VmRSS");
  }
  [[nodiscard]] std::uint64_t Growth() const {
    const std::uint64_t peak = StatusBytes("VmHWM");
    return peak > before_ ? peak - before_ : 0;
  }

 private:
  std::uint64_t before_ = 0;
};

// Chunk `number` of the synthetic session: of each eight, one compresses, one
// does not, the others are zeros.
void FillChunk(std::uint64_t number, const Bytes& noise, const Bytes& soft,
               std::span<std::byte> out) {
  std::fill(out.begin(), out.end(), std::byte{0});
  if (number % 8 == 0) std::copy(noise.begin(), noise.end(), out.begin());
  if (number % 8 == 4) std::copy(soft.begin(), soft.end(), out.begin());
  if (number % 4 == 0) {
    std::memcpy(out.data() + 64, &number, sizeof(number));
  }
}

TEST(Memory, IsBoundedForEightGigabytes) {
  if (kSanitized) GTEST_SKIP() << "memory is not the program's own";
  const TestDir dir("memory");
  TestSession session(dir.path(), kChunk);
  const Bytes noise = Noise(kChunk);
  const Bytes soft = Compressible(kChunk);
  constexpr std::uint64_t kChunks = 4096;
  {
    const PeakMemory memory;
    auto writer = session.Writer(PackWriterOptions());
    const auto table = std::make_shared<RefTable>();
    for (std::uint64_t i = 0; i < kChunks; ++i) {
      Result<Buffer> buffer = writer->packs().Acquire();
      ASSERT_TRUE(buffer.ok());
      FillChunk(i, noise, soft, buffer->bytes());
      writer->packs().Submit(std::move(*buffer), kChunk, table, i);
    }
    ASSERT_TRUE(writer->packs().Flush().ok());
    Region region;
    region.bytes = kChunks * kChunk;  // > 4 GiB
    ASSERT_TRUE(writer->BeginRegion(region).ok());
    for (const auto& [number, ref] : table->Take()) {
      ASSERT_TRUE(writer->AddChunk(ref).ok());
    }
    ASSERT_TRUE(writer->Finish().ok());
    EXPECT_LT(memory.Growth(), 32 * kMiB);
  }
  const PeakMemory memory;
  PackSet packs;
  ASSERT_TRUE(session.AddTo(&packs).ok());
  auto stream = ChunkStream::Open(std::move(*session.Index()), &packs, {});
  ASSERT_TRUE(stream.ok());
  Bytes wanted(kChunk);
  std::uint64_t next = 0;
  for (;;) {
    Result<ChunkStream::Piece> piece = (*stream)->Next();
    ASSERT_TRUE(piece.ok()) << piece.status().ToString();
    if (piece->what == ChunkStream::Piece::What::kEnd) break;
    if (piece->what == ChunkStream::Piece::What::kRegion) continue;
    ASSERT_EQ(piece->offset, next * kChunk);
    next += piece->bytes / kChunk;
    if (piece->what == ChunkStream::Piece::What::kZeros) continue;
    FillChunk(next - 1, noise, soft, wanted);
    ASSERT_TRUE(std::equal(piece->data.begin(), piece->data.end(),
                           wanted.begin(), wanted.end()));
  }
  EXPECT_EQ(next, kChunks);
  EXPECT_LT(memory.Growth(), 36 * kMiB);  // with `wanted`
}

TEST(Memory, AnIndexOfOneTebibyteStreams) {
  if (kSanitized) GTEST_SKIP() << "memory is not the program's own";
  const TestDir dir("tebibyte");
  const std::string path = dir / "index";
  constexpr std::uint64_t kChunks = (std::uint64_t{1} << 40) / kChunk;
  const UniqueFd fd = *OpenFile(path, O_RDWR | O_CREAT);
  const PeakMemory memory;
  {
    IndexWriter writer(fd.get(), "index", StoreId(), 0, {0, 1, kChunk});
    ASSERT_TRUE(writer.AddPack(NewPackId()).ok());
    Region region;
    region.bytes = kChunks * kChunk;
    ASSERT_TRUE(writer.BeginRegion(region).ok());
    ChunkRef ref;
    ref.bytes = ref.stored = kChunk;
    for (std::uint64_t i = 0; i < kChunks; ++i) {
      ref.place = kBlockBytes + i * kChunk;
      ref.digest.bytes[0] = static_cast<std::byte>(i);
      ASSERT_TRUE(writer.AddChunk(ref).ok());
    }
    ASSERT_TRUE(writer.Finish().ok());
  }
  EXPECT_LT(*FileSize(path), 33 * kMiB);
  auto source = FdSource::Open(fd.get(), "index");
  const PackSet packs;
  auto map =
      ChunkMap::Open(std::move(*IndexReader::Open(source->get(), "i")), &packs);
  ASSERT_TRUE(map.ok()) << map.status().ToString();
  for (std::uint64_t at = 12345; at < kChunks * kChunk; at = at * 3 + 1) {
    const Result<ChunkEntry> entry = (*map)->Find(0, at);
    ASSERT_TRUE(entry.ok());
    EXPECT_EQ(entry->offset, at / kChunk * kChunk);
    EXPECT_EQ(entry->ref.place, kBlockBytes + entry->offset);
  }
  EXPECT_LT(memory.Growth(), 3 * kMiB);
}

}  // namespace
}  // namespace pos::ckpt
