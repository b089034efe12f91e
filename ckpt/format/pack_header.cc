#include "ckpt/format/pack_header.h"

#include <array>
#include <cstring>

#include "pos/base/bytes.h"

namespace pos::ckpt {
namespace {

// Of the common header a pack has all but the sum.
constexpr std::size_t kCommonBytes = kHeaderBytes - sizeof(std::uint64_t);
constexpr std::size_t kSumAt = kBlockBytes - sizeof(std::uint64_t);

}  // namespace

std::vector<std::byte> EncodePackHeader(const PackHeader& header) {
  const auto common =
      EncodeHeader(FileKind::kPack, header.store, header.created_ms);
  ByteWriter out;
  out.PutRaw(std::span(common).first(kCommonBytes));
  out.Put(header.pack.bytes);
  out.Put(header.owner_uid);
  out.Put(kDigestTreeXxh3);
  out.Put(header.digest_seed);
  out.Put(std::uint32_t{0});  // crypt
  out.Put(static_cast<std::uint32_t>(kBlockBytes));
  out.Put(std::array<std::byte, 16>{});  // key_id
  std::vector<std::byte> block = out.Take();
  block.resize(kSumAt);
  const std::uint64_t sum = Sum64(block);
  block.resize(kBlockBytes);
  std::memcpy(block.data() + kSumAt, &sum, sizeof(sum));
  return block;
}

Result<PackHeader> DecodePackHeader(std::span<const std::byte> block,
                                    const std::string& name) {
  if (block.size() < kBlockBytes) {
    return Corrupt(name + ": a pack's header has 4096 bytes, the file " +
                   std::to_string(block.size()));
  }
  Result<FileHeader> decoded = DecodeHeader(block, FileKind::kPack, name);
  ByteReader sum_in(block.subspan(kSumAt));
  const bool intact = sum_in.Get<std::uint64_t>() == Sum64(block.first(kSumAt));
  if (!decoded.ok() && (intact || decoded.status().code() == Code::kCorrupt)) {
    return decoded.status();
  }
  // Before the version is believed: damage is told from age.
  if (!intact) {
    return Corrupt(name + ": the header does not match its checksum");
  }
  const FileHeader& common = *decoded;
  ByteReader in(block.subspan(kCommonBytes));
  PackHeader header;
  header.store = common.store;
  header.created_ms = common.created_ms;
  header.pack.bytes = in.Get<decltype(header.pack.bytes)>();
  header.owner_uid = in.Get<std::uint32_t>();
  const auto digest_id = in.Get<std::uint32_t>();
  header.digest_seed = in.Get<std::uint64_t>();
  const auto crypt = in.Get<std::uint32_t>();
  const auto block_bytes = in.Get<std::uint32_t>();
  if (digest_id != kDigestTreeXxh3 || crypt != 0) {
    return Incompatible(name + " uses digest " + std::to_string(digest_id) +
                        " and encryption " + std::to_string(crypt) +
                        " (written by POS " + common.writer +
                        "); this POS knows digest 1 and no encryption");
  }
  if (block_bytes != kBlockBytes) {
    return Corrupt(name + ": its blocks have " + std::to_string(block_bytes) +
                   " bytes, not 4096");
  }
  return header;
}

}  // namespace pos::ckpt
