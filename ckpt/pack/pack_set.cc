#include "ckpt/pack/pack_set.h"

#include <sys/stat.h>

#include <cerrno>
#include <vector>

#include "ckpt/pack/io_queue.h"

namespace pos::ckpt {

Status PackSet::Add(const PackId& id, UniqueFd fd, bool direct) {
  const std::string name = "pack " + PackName(id);
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return ErrnoStatus(errno, "stat " + name);
  PackFile pack;
  pack.bytes = static_cast<std::uint64_t>(st.st_size);
  std::vector<std::byte> block(kBlockBytes);
  POS_RETURN_IF_ERROR(PreadFull(fd.get(), block, 0, name));
  POS_ASSIGN_OR_RETURN(pack.header, DecodePackHeader(block, name));
  if (pack.header.pack != id) {
    return Corrupt(name + " says that it is pack " +
                   PackName(pack.header.pack));
  }
  pack.direct = direct && EnableDirectIo(fd.get());
  pack.fd = std::move(fd);
  packs_[id] = std::move(pack);
  return {};
}

Result<const PackFile*> PackSet::Find(const PackId& id, const ChunkRef& ref,
                                      std::uint64_t digest_seed) const {
  const auto found = packs_.find(id);
  if (found == packs_.end()) {
    return NoSuch("pack " + PackName(id) + " is not there");
  }
  const PackFile& pack = found->second;
  const std::uint64_t need = StoredBlocksBytes(ref);
  if (ref.place > pack.bytes || need > pack.bytes - ref.place) {
    return Corrupt(
        "pack " + PackName(id) + " has " + std::to_string(pack.bytes) +
        " bytes; a chunk should lie at byte " + std::to_string(ref.place));
  }
  if (pack.header.digest_seed != digest_seed) {
    return Corrupt("pack " + PackName(id) +
                   " and the index that names it have different digest seeds");
  }
  return &pack;
}

std::size_t StoredBlocksBytes(const ChunkRef& ref) {
  return (std::size_t{ref.stored} + kBlockBytes - 1) / kBlockBytes *
         kBlockBytes;
}

Result<std::span<const std::byte>> UnpackChunk(
    const ChunkRef& ref, const DigestKey& key,
    std::span<const std::byte> stored, std::span<std::byte> out,
    Decompressor* decompressor) {
  const std::span<const std::byte> body = stored.first(ref.stored);
  if (!AllZero(stored.subspan(ref.stored))) {
    return Corrupt("the bytes after a chunk are not zero");
  }
  std::span<const std::byte> chunk = body;
  if (ref.codec != Codec::kNone) {
    if (Sum64(body) != ref.sum) {
      return Corrupt("a chunk's stored bytes do not match their checksum");
    }
    chunk = out.first(ref.bytes);
    POS_RETURN_IF_ERROR(
        decompressor->Decompress(ref.codec, body, out.first(ref.bytes)));
  }
  const Digest digest = DigestOf(key, chunk);
  if (digest != ref.digest) {
    return Corrupt("a chunk's digest is " + digest.Hex() + ", not " +
                   ref.digest.Hex());
  }
  return chunk;
}

}  // namespace pos::ckpt
