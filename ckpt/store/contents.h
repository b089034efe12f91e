// What a sealed image's memory consists of: which allocation takes how much,
// and the small blobs beside it.
//
// Threads: any.
// Memory:  `most` regions, one record of the index, a blob of bounded size.
// Errors:  kCorrupt, kIncompatible, as reading the index and chunks gives them.
//
// Test: tests/ckpt/store/contents_test.cc
#ifndef CKPT_STORE_CONTENTS_H_
#define CKPT_STORE_CONTENTS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ckpt/format/chunk_index.h"
#include "ckpt/store/image.h"
#include "pos/base/status.h"

namespace pos::ckpt {

struct RegionUse {
  Region region;
  std::uint64_t zero_bytes = 0;
  std::uint64_t stored_bytes = 0;  // in packs written for this image
  std::uint64_t reused_bytes = 0;  // in packs of earlier images
};

struct SessionContents {
  std::vector<RegionUse> regions;  // in the order of the index
  std::uint64_t left_out = 0;      // smaller ones than those
};

Result<SessionContents> ReadContents(const ImageHandle& image,
                                     const SessionRecord& session,
                                     std::size_t most);

// kNoSuch when there is no blob of that name, kInvalid when it has more than
// `most_bytes`.
Result<std::vector<std::byte>> ReadBlob(const ImageHandle& image,
                                        std::uint32_t session,
                                        const std::string& name,
                                        std::size_t most_bytes);

}  // namespace pos::ckpt

#endif  // CKPT_STORE_CONTENTS_H_
