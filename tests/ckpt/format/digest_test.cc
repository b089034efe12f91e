// The digest against a second implementation, written from FORMAT.md with the
// library's plain seeded function, and against fixed values.
#include "ckpt/format/digest.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <random>
#include <vector>

namespace pos::ckpt {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::uint64_t kG = 0x9e3779b97f4a7c15;

Bytes Pattern(std::size_t size, unsigned seed = 1) {
  std::mt19937_64 random(seed);
  Bytes data(size);
  for (std::size_t i = 0; i < size; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(data.data() + i, &word, std::min<std::size_t>(8, size - i));
  }
  return data;
}

Bytes H(std::uint64_t seed, const Bytes& block) {
  const XXH128_hash_t hash =
      XXH3_128bits_withSeed(block.data(), block.size(), seed);
  Bytes out(16);
  std::memcpy(out.data(), &hash.low64, 8);
  std::memcpy(out.data() + 8, &hash.high64, 8);
  return out;
}

// FORMAT.md, "The digest", word for word.
Digest Reference(std::uint64_t seed, const Bytes& data) {
  Bytes level = data;
  std::uint64_t s = seed;
  Bytes top(16);
  while (!level.empty()) {
    Bytes digests;
    for (std::size_t at = 0; at < level.size(); at += 4096) {
      Bytes block(level.begin() + static_cast<std::ptrdiff_t>(at),
                  level.begin() + static_cast<std::ptrdiff_t>(
                                      std::min(at + 4096, level.size())));
      block.resize(4096);
      const Bytes d = H(s, block);
      digests.insert(digests.end(), d.begin(), d.end());
    }
    if (digests.size() == 16) {
      top = digests;
      break;
    }
    level = digests;
    s = seed + kG;
  }
  Bytes last = top;
  const std::uint64_t length = data.size();
  last.resize(4096);
  std::memcpy(last.data() + 16, &length, 8);
  Digest digest;
  const Bytes d = H(seed + 2 * kG, last);
  std::copy(d.begin(), d.end(), digest.bytes.begin());
  return digest;
}

TEST(Digest, IsWhatTheFormatSaysAtEveryBoundary) {
  const std::uint64_t seed = 0x0123456789abcdef;
  const DigestKey key(seed);
  std::vector<std::size_t> sizes = {0, 1, 2, 240, 241};
  for (const std::size_t edge : {4096u, 8192u, 255u * 4096, 256u * 4096,
                                 257u * 4096, 512u * 4096, 65536u, 2u << 20}) {
    sizes.insert(sizes.end(), {edge - 1, edge, edge + 1});
  }
  const Bytes all = Pattern((2u << 20) + 1);
  for (const std::size_t size : sizes) {
    SCOPED_TRACE(size);
    const Bytes data(all.begin(),
                     all.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_EQ(DigestOf(key, data).Hex(), Reference(seed, data).Hex());
  }
}

TEST(Digest, HasThreeLevelsAbove256MiB) {
  // 65537 blocks: the digests of level 1 no longer fit one block.
  const DigestKey key(7);
  Bytes data((256u << 20) + 1);
  data[5] = std::byte{1};
  data.back() = std::byte{2};
  EXPECT_EQ(DigestOf(key, data).Hex(), Reference(7, data).Hex());
  data.pop_back();
  EXPECT_EQ(DigestOf(key, data).Hex(), Reference(7, data).Hex());
}

TEST(Digest, DoesNotDependOnThePieces) {
  const DigestKey key(42);
  const Bytes data = Pattern(300000);
  const Digest whole = DigestOf(key, data);
  std::mt19937 random(3);
  DigestStream stream(key);
  for (int round = 0; round < 50; ++round) {
    const std::size_t most = round % 2 == 0 ? 100 : 20000;
    for (std::size_t at = 0; at < data.size();) {
      const std::size_t n =
          std::min<std::size_t>(random() % most, data.size() - at);
      stream.Update(std::span(data).subspan(at, n));
      at += n;
    }
    ASSERT_EQ(stream.Finish(), whole) << round;  // and starts anew
  }
}

TEST(Digest, SeesEveryByteAndTheLength) {
  const DigestKey key(42);
  Bytes data = Pattern(3 * 4096 + 100);
  const Digest whole = DigestOf(key, data);
  for (std::size_t i = 0; i < data.size(); i += 97) {
    data[i] ^= std::byte{0x10};
    EXPECT_NE(DigestOf(key, data), whole) << i;
    data[i] ^= std::byte{0x10};
  }
  data.push_back(std::byte{0});  // as the padding would be
  EXPECT_NE(DigestOf(key, data), whole);
  EXPECT_NE(DigestOf(DigestKey(43), Pattern(100)),
            DigestOf(DigestKey(42), Pattern(100)));
}

// The values in FORMAT.md. They may never change: images would be unreadable.
TEST(Digest, NeverChanges) {
  const DigestKey key(1);
  Bytes data(5000);
  for (std::size_t i = 0; i < data.size(); ++i) {
    data[i] = static_cast<std::byte>(i % 251);
  }
  EXPECT_EQ(DigestOf(key, {}).Hex(), "400a843f0828a70402767110cfd1007c");
  EXPECT_EQ(DigestOf(key, std::span(data).first(3)).Hex(),
            "4fc31904730fb522203a3a08ac8504fe");
  EXPECT_EQ(DigestOf(key, data).Hex(), "b1e15d5f905f74e6b9d9bd493bbfcc56");
  Bytes zeros(2u << 20);
  EXPECT_EQ(DigestOf(key, zeros).Hex(), "2da7e0bf05273b35ae42dd89879322d1");
}

TEST(Sum64, IsXxh3WithASeed) {
  const Bytes data = Pattern(1000);
  EXPECT_EQ(Sum64(data, 5), XXH3_64bits_withSeed(data.data(), 1000, 5));
  EXPECT_EQ(Sum64({}), XXH3_64bits_withSeed(nullptr, 0, 0));
}

TEST(AllZero, FindsOneByteAnywhere) {
  for (const std::size_t size : {0u, 1u, 7u, 255u, 256u, 257u, 4096u, 5001u}) {
    Bytes data(size);
    EXPECT_TRUE(AllZero(data)) << size;
    for (std::size_t i = 0; i < size; ++i) {
      data[i] = std::byte{1};
      EXPECT_FALSE(AllZero(data)) << size << " " << i;
      data[i] = std::byte{0};
    }
  }
}

// A device digests the blocks, the host goes on.
TEST(Digest, BlocksMayBeDigestedElsewhere) {
  constexpr std::uint64_t kSeed = 99;
  const DigestKey key(kSeed);
  constexpr std::size_t kMany = 1 << 20;
  for (const std::size_t size : std::initializer_list<std::size_t>{
           0, 1, 4096, 4097, 100000, kMany, kMany + 1, 3 * kMany + 77}) {
    const Bytes data = Pattern(size);
    Bytes blocks;
    for (std::size_t at = 0; at < size; at += 4096) {
      Bytes block(data.begin() + static_cast<std::ptrdiff_t>(at),
                  data.begin() +
                      static_cast<std::ptrdiff_t>(std::min(at + 4096, size)));
      block.resize(4096);
      const Bytes digest = H(kSeed, block);
      blocks.insert(blocks.end(), digest.begin(), digest.end());
    }
    // In two parts, cut at a block.
    const std::size_t first = blocks.size() / 16 / 3;
    DigestStream stream(key);
    stream.UpdateWithBlocks(std::span(blocks).first(first * 16), first * 4096);
    stream.UpdateWithBlocks(std::span(blocks).subspan(first * 16),
                            size - first * 4096);
    EXPECT_EQ(stream.Finish(), DigestOf(key, data)) << size;
  }
}

}  // namespace
}  // namespace pos::ckpt
