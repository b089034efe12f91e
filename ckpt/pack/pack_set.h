// The packs that a reader has descriptors of, and the one way in which a
// chunk's stored bytes become its bytes again, checked.
//
// Threads: Add before any other use; the rest by any number of threads.
// Errors:  kNoSuch for a pack that is not there, kCorrupt for bytes that are
//          not what was written, kIncompatible for a pack of a later version.
#ifndef CKPT_PACK_PACK_SET_H_
#define CKPT_PACK_PACK_SET_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "ckpt/format/chunk_index.h"
#include "ckpt/format/digest.h"
#include "ckpt/format/id.h"
#include "ckpt/format/pack_header.h"
#include "ckpt/pack/codec.h"
#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos::ckpt {

struct PackFile {
  UniqueFd fd;
  std::uint64_t bytes = 0;
  PackHeader header;
  bool direct = false;
};

class PackSet {
 public:
  // `fd`: open for reading. Checks the header. With `direct`, reads go past
  // the page cache where the file system can.
  Status Add(const PackId& id, UniqueFd fd, bool direct = true);

  // The pack, after checking that [place, place + stored) of `ref` lies in it
  // and that its digests have this seed.
  Result<const PackFile*> Find(const PackId& id, const ChunkRef& ref,
                               std::uint64_t digest_seed) const;

 private:
  std::map<PackId, PackFile> packs_;
};

// Bytes to read for a chunk: its stored bytes and what fills up their last
// block.
[[nodiscard]] std::size_t StoredBlocksBytes(const ChunkRef& ref);

// Checks `stored` (StoredBlocksBytes of them) and gives the chunk's bytes:
// `stored` itself when it is stored as it is, else in `out`, which has at
// least ref.bytes.
Result<std::span<const std::byte>> UnpackChunk(
    const ChunkRef& ref, const DigestKey& key,
    std::span<const std::byte> stored, std::span<std::byte> out,
    Decompressor* decompressor);

}  // namespace pos::ckpt

#endif  // CKPT_PACK_PACK_SET_H_
