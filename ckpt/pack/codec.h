// Compression of single chunks.
//
// What pays: zstd (level 1) makes 0.5 to 1 GB/s per thread of ordinary data,
// less than one disk writes. So `auto` looks at a sample of 32 KiB and
// compresses what shrinks below 30 %, and what shrinks below 75 % while the
// storage is busy anyway: then it costs no time, and in the long run disk and
// processor are both in use. After misses only every second, fourth, …
// sixteenth chunk is sampled, so data that does not compress costs nothing
// measurable. The named codecs always try and keep the result when it saves a
// block.
//
// Threads: one thread per Compressor or Decompressor.
// Memory:  about 1.3 MiB for each Compressor that uses zstd (level 1), 160 KiB
//          for each Decompressor.
// Sources: libzstd, liblz4.
//
// Test: tests/ckpt/pack/codec_test.cc
#ifndef CKPT_PACK_CODEC_H_
#define CKPT_PACK_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ckpt/format/chunk_index.h"
#include "pos/base/status.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace pos::ckpt {

enum class Compression { kNone, kAuto, kZstd, kLz4 };

class Compressor {
 public:
  explicit Compressor(Compression policy) : policy_(policy) {}
  ~Compressor();
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  // Bytes written to `out` (at least as large as `data`) and how, or 0 and
  // kNone when the chunk is better stored as it is.
  struct Packed {
    Codec codec = Codec::kNone;
    std::size_t bytes = 0;
  };
  // `storage_busy`: the chunk would have to wait before it is written.
  Packed Compress(std::span<const std::byte> data, std::span<std::byte> out,
                  bool storage_busy);

 private:
  bool Pays(std::span<const std::byte> data, bool storage_busy);
  // 0 when it does not fit `out`.
  std::size_t Zstd(std::span<const std::byte> data, std::span<std::byte> out);

  const Compression policy_;
  ZSTD_CCtx_s* zstd_ = nullptr;  // made when first used
  std::vector<std::byte> sample_;
  unsigned misses_ = 0;  // in a row
  unsigned skip_ = 0;    // chunks to store without a look
};

class Decompressor {
 public:
  Decompressor() = default;
  ~Decompressor();
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  // `data` must become exactly out.size() bytes: anything else is kCorrupt.
  Status Decompress(Codec codec, std::span<const std::byte> data,
                    std::span<std::byte> out);

 private:
  ZSTD_DCtx_s* zstd_ = nullptr;
};

}  // namespace pos::ckpt

#endif  // CKPT_PACK_CODEC_H_
