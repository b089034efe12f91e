#include "ckpt/pack/codec.h"

#include <gtest/gtest.h>

#include "tests/ckpt/testing.h"

namespace pos::ckpt {
namespace {

constexpr std::size_t kChunk = 2u << 20;

TEST(Compressor, WhatItPacksComesBack) {
  for (const Compression policy :
       {Compression::kAuto, Compression::kZstd, Compression::kLz4}) {
    Compressor compressor(policy);
    Decompressor decompressor;
    for (const std::size_t size :
         {std::size_t{4097}, std::size_t{8192}, std::size_t{32768},
          std::size_t{32769}, std::size_t{100000}, kChunk}) {
      SCOPED_TRACE(size);
      const Bytes data = Compressible(size);
      Bytes packed(size);
      const Compressor::Packed result = compressor.Compress(data, packed, true);
      ASSERT_GT(result.bytes, 0u);
      EXPECT_EQ(result.codec,
                policy == Compression::kLz4 ? Codec::kLz4 : Codec::kZstd);
      // Saves a block at least.
      EXPECT_LT((result.bytes + 4095) / 4096, (size + 4095) / 4096);
      packed.resize(result.bytes);
      Bytes out(size);
      ASSERT_TRUE(decompressor.Decompress(result.codec, packed, out).ok());
      EXPECT_EQ(out, data);
    }
  }
}

TEST(Compressor, LeavesAloneWhatDoesNotShrink) {
  for (const Compression policy : {Compression::kNone, Compression::kAuto,
                                   Compression::kZstd, Compression::kLz4}) {
    Compressor compressor(policy);
    const Bytes noise = Noise(kChunk);
    Bytes packed(kChunk);
    EXPECT_EQ(compressor.Compress(noise, packed, true).bytes, 0u);
    EXPECT_EQ(
        compressor.Compress(std::span(noise).first(1), packed, true).bytes, 0u);
  }
  Compressor none(Compression::kNone);
  const Bytes data = Compressible(kChunk);
  Bytes packed(kChunk);
  EXPECT_EQ(none.Compress(data, packed, true).bytes, 0u);
}

TEST(Compressor, AutoFindsCompressibleDataAgainAfterManyMisses) {
  Compressor compressor(Compression::kAuto);
  const Bytes noise = Noise(kChunk);
  const Bytes data = Compressible(kChunk);
  Bytes packed(kChunk);
  for (int i = 0; i < 100; ++i) compressor.Compress(noise, packed, true);
  int missed = 0;
  while (compressor.Compress(data, packed, true).bytes == 0)
    ASSERT_LT(++missed, 16);
  // And from then on every time.
  for (int i = 0; i < 20; ++i) {
    EXPECT_NE(compressor.Compress(data, packed, true).bytes, 0u);
  }
}

TEST(Compressor, AutoLeavesMildSavingsAloneWhileTheStorageIsIdle) {
  Compressor compressor(Compression::kAuto);
  Bytes packed(kChunk);
  const Bytes half = [] {
    Bytes data = Noise(kChunk);
    for (std::byte& b : data) b &= std::byte{15};
    return data;
  }();
  EXPECT_EQ(compressor.Compress(half, packed, false).bytes, 0u);
  EXPECT_NE(compressor.Compress(half, packed, true).bytes, 0u);
  Bytes hollow(kChunk);
  hollow[5] = std::byte{1};
  EXPECT_NE(compressor.Compress(hollow, packed, false).bytes, 0u);
}

TEST(Decompressor, RefusesDamageAndOtherSizes) {
  for (const Compression policy : {Compression::kZstd, Compression::kLz4}) {
    Compressor compressor(policy);
    Decompressor decompressor;
    const Bytes data = Compressible(20000);
    Bytes packed(20000);
    const Compressor::Packed result = compressor.Compress(data, packed, true);
    packed.resize(result.bytes);
    Bytes small(19999);
    EXPECT_EQ(decompressor.Decompress(result.codec, packed, small).code(),
              Code::kCorrupt);
    Bytes large(20001);
    EXPECT_EQ(decompressor.Decompress(result.codec, packed, large).code(),
              Code::kCorrupt);
    Bytes out(20000);
    // Any damage either is noticed or gives bytes of the right number; the
    // chunk's digest decides. Nothing is read or written outside.
    for (std::size_t at = 0; at < packed.size(); at += 7) {
      packed[at] ^= std::byte{0x55};
      decompressor.Decompress(result.codec, packed, out).IgnoreError();
      packed[at] ^= std::byte{0x55};
    }
    for (std::size_t keep = 0; keep < packed.size(); keep += 11) {
      EXPECT_FALSE(
          decompressor
              .Decompress(result.codec, std::span(packed).first(keep), out)
              .ok());
    }
  }
}

}  // namespace
}  // namespace pos::ckpt
