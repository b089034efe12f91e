// The first block of a pack. ckpt/FORMAT.md, "Packs".
#ifndef CKPT_FORMAT_PACK_HEADER_H_
#define CKPT_FORMAT_PACK_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ckpt/format/digest.h"
#include "ckpt/format/header.h"
#include "ckpt/format/id.h"
#include "pos/base/status.h"

namespace pos::ckpt {

struct PackHeader {
  StoreId store;
  std::uint64_t created_ms = 0;
  PackId pack;
  std::uint32_t owner_uid = 0;
  std::uint64_t digest_seed = 0;

  friend bool operator==(const PackHeader&, const PackHeader&) = default;
};

// kBlockBytes bytes.
[[nodiscard]] std::vector<std::byte> EncodePackHeader(const PackHeader& header);
// kCorrupt, or kIncompatible for a later version, digest or encryption.
Result<PackHeader> DecodePackHeader(std::span<const std::byte> block,
                                    const std::string& name);

}  // namespace pos::ckpt

#endif  // CKPT_FORMAT_PACK_HEADER_H_
