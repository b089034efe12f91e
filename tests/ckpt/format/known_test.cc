#include "ckpt/format/known.h"

#include <gtest/gtest.h>

#include "tests/ckpt/testing.h"

namespace pos::ckpt {
namespace {

ChunkRef MakeRef(std::uint64_t number, std::uint32_t pack) {
  ChunkRef ref;
  const Bytes noise = Noise(16, number + 1);
  std::copy(noise.begin(), noise.end(), ref.digest.bytes.begin());
  ref.place = (number + 1) * kBlockBytes;
  ref.bytes = 2u << 20;
  ref.stored = 1000;
  ref.codec = Codec::kZstd;
  ref.pack = pack;
  ref.sum = number;
  return ref;
}

TEST(KnownTable, FindsWhatWasAddedAndNothingElse) {
  KnownTableBuilder builder(5, 2u << 20, 1000);
  const std::vector<PackId> packs = {NewPackId(), NewPackId()};
  EXPECT_EQ(builder.AddPack(packs[0]), 0u);
  EXPECT_EQ(builder.AddPack(packs[1]), 1u);
  EXPECT_EQ(builder.AddPack(packs[0]), 0u);
  for (std::uint64_t i = 0; i < 1000; ++i) {
    EXPECT_TRUE(builder.Add(MakeRef(i, i % 2)));
  }
  EXPECT_TRUE(builder.full());
  EXPECT_TRUE(builder.Add(MakeRef(3, 1)));      // known already
  EXPECT_FALSE(builder.Add(MakeRef(5000, 0)));  // no room
  const UniqueFd fd = MemFile();
  ASSERT_TRUE(builder.Write(fd.get(), "known", NewStoreId()).ok());
  auto table = KnownTable::Open(fd.get(), "known");
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  EXPECT_EQ((*table)->digest_seed(), 5u);
  EXPECT_EQ((*table)->chunk_bytes(), 2u << 20);
  EXPECT_EQ((*table)->packs(), packs);
  for (std::uint64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ((*table)->Find(MakeRef(i, 0).digest), MakeRef(i, i % 2));
  }
  EXPECT_EQ((*table)->Find(MakeRef(5000, 0).digest), std::nullopt);
}

TEST(KnownTable, MayBeEmpty) {
  const KnownTableBuilder builder(5, 2u << 20, 0);
  const UniqueFd fd = MemFile();
  ASSERT_TRUE(builder.Write(fd.get(), "known", NewStoreId()).ok());
  auto table = KnownTable::Open(fd.get(), "known");
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  EXPECT_EQ((*table)->size(), 0u);
  EXPECT_EQ((*table)->Find(MakeRef(1, 0).digest), std::nullopt);
}

TEST(KnownTable, NeverReadsOutsideADamagedFile) {
  KnownTableBuilder builder(5, 2u << 20, 20);
  builder.AddPack(NewPackId());
  for (std::uint64_t i = 0; i < 20; ++i) builder.Add(MakeRef(i, 0));
  const UniqueFd whole = MemFile();
  ASSERT_TRUE(builder.Write(whole.get(), "known", NewStoreId()).ok());
  const Bytes content = ContentOf(whole.get());
  for (std::size_t at = 0; at < content.size(); ++at) {
    Bytes damaged = content;
    damaged[at] ^= std::byte{0xff};
    damaged.resize(at % 2 == 0 ? content.size() : at);
    const UniqueFd fd = MemFile();
    ASSERT_TRUE(PwriteFull(fd.get(), damaged, 0, "known").ok());
    auto table = KnownTable::Open(fd.get(), "known");
    if (!table.ok()) continue;
    for (std::uint64_t i = 0; i < 20; ++i) {
      (void)(*table)->Find(MakeRef(i, 0).digest);
    }
  }
}

}  // namespace
}  // namespace pos::ckpt
