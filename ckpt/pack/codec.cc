#include "ckpt/pack/codec.h"

#include <lz4.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "ckpt/format/digest.h"

namespace pos::ckpt {
namespace {

constexpr int kZstdLevel = 1;
constexpr std::size_t kSamplePiece = 4096;
constexpr std::size_t kSamplePieces = 8;
constexpr unsigned kMaxSkip = 15;
constexpr std::size_t kAlwaysPercent = 30;
constexpr std::size_t kBusyPercent = 75;

std::size_t Blocks(std::size_t bytes) {
  return (bytes + kBlockBytes - 1) / kBlockBytes;
}

}  // namespace

Compressor::~Compressor() { ::ZSTD_freeCCtx(zstd_); }

std::size_t Compressor::Zstd(std::span<const std::byte> data,
                             std::span<std::byte> out) {
  if (zstd_ == nullptr) zstd_ = ::ZSTD_createCCtx();
  if (zstd_ == nullptr) return 0;  // no memory: store as it is
  const std::size_t n = ::ZSTD_compressCCtx(
      zstd_, out.data(), out.size(), data.data(), data.size(), kZstdLevel);
  return ::ZSTD_isError(n) != 0 ? 0 : n;
}

bool Compressor::Pays(std::span<const std::byte> data, bool storage_busy) {
  if (skip_ > 0) {
    --skip_;
    return false;
  }
  constexpr std::size_t kWhole = kSamplePiece * kSamplePieces;
  std::span<const std::byte> sample = data;
  sample_.resize(2 * kWhole);
  if (data.size() > kWhole) {
    const std::size_t step = (data.size() - kSamplePiece) / (kSamplePieces - 1);
    for (std::size_t i = 0; i < kSamplePieces; ++i) {
      std::memcpy(sample_.data() + i * kSamplePiece, data.data() + i * step,
                  kSamplePiece);
    }
    sample = std::span(sample_).first(kWhole);
  }
  const std::span<std::byte> room =
      std::span(sample_).subspan(kWhole, sample.size() * kBusyPercent / 100);
  const std::size_t n = Zstd(sample, room);
  if (n != 0) {
    misses_ = 0;
    return storage_busy || n <= sample.size() * kAlwaysPercent / 100;
  }
  skip_ = std::min((1u << std::min(misses_, 8u)) - 1, kMaxSkip);
  ++misses_;
  return false;
}

Compressor::Packed Compressor::Compress(std::span<const std::byte> data,
                                        std::span<std::byte> out,
                                        bool storage_busy) {
  // What would not save a block is not worth a codec.
  const std::size_t blocks = Blocks(data.size());
  if (policy_ == Compression::kNone || blocks < 2) return {};
  const std::span<std::byte> room = out.first((blocks - 1) * kBlockBytes);
  if (policy_ == Compression::kLz4) {
    const int n = ::LZ4_compress_default(
        reinterpret_cast<const char*>(data.data()),
        reinterpret_cast<char*>(room.data()), static_cast<int>(data.size()),
        static_cast<int>(room.size()));
    if (n <= 0) return {};
    return {Codec::kLz4, static_cast<std::size_t>(n)};
  }
  if (policy_ == Compression::kAuto && !Pays(data, storage_busy)) return {};
  const std::size_t n = Zstd(data, room);
  if (n == 0) return {};
  return {Codec::kZstd, n};
}

Decompressor::~Decompressor() { ::ZSTD_freeDCtx(zstd_); }

Status Decompressor::Decompress(Codec codec, std::span<const std::byte> data,
                                std::span<std::byte> out) {
  std::size_t n = 0;
  switch (codec) {
    case Codec::kNone:
      return Internal("a chunk stored as is was to be decompressed");
    case Codec::kZstd:
      if (zstd_ == nullptr) zstd_ = ::ZSTD_createDCtx();
      if (zstd_ == nullptr) return OutOfMemory("zstd has no memory");
      n = ::ZSTD_decompressDCtx(zstd_, out.data(), out.size(), data.data(),
                                data.size());
      if (::ZSTD_isError(n) != 0) {
        return Corrupt(std::string("zstd: ") + ::ZSTD_getErrorName(n));
      }
      break;
    case Codec::kLz4: {
      const int rc = ::LZ4_decompress_safe(
          reinterpret_cast<const char*>(data.data()),
          reinterpret_cast<char*>(out.data()), static_cast<int>(data.size()),
          static_cast<int>(out.size()));
      if (rc < 0) return Corrupt("not an LZ4 block");
      n = static_cast<std::size_t>(rc);
      break;
    }
  }
  if (n != out.size()) {
    return Corrupt("a chunk of " + std::to_string(out.size()) +
                   " bytes unpacks to " + std::to_string(n));
  }
  return {};
}

}  // namespace pos::ckpt
