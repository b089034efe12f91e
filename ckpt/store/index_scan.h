// Reads a session's index as a runner left it, believing nothing.
#ifndef CKPT_STORE_INDEX_SCAN_H_
#define CKPT_STORE_INDEX_SCAN_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "ckpt/format/chunk_index.h"
#include "ckpt/format/digest.h"
#include "ckpt/format/id.h"
#include "pos/base/status.h"

namespace pos::ckpt {

// What an index uses of one pack.
struct PackUse {
  std::uint64_t chunks = 0;
  std::uint64_t stored_bytes = 0;
};

struct IndexSummary {
  std::uint64_t file_bytes = 0;
  Digest file_digest;
  std::uint64_t live_bytes = 0;  // of device memory and arrays
  std::uint64_t chunks = 0;      // with data
  std::uint64_t zero_bytes = 0;
  std::map<PackId, PackUse> packs;  // those with chunks
};

// Reads the whole index behind `fd` and calls `check` for each chunk that is
// not zeros; its error ends the scan.
Result<IndexSummary> ScanIndex(
    int fd, const std::string& name, const DigestKey& key,
    const std::function<Status(const IndexHead& head)>& check_head,
    const std::function<Status(const PackId& pack, const ChunkRef& ref)>&
        check);

// Opens an index file and calls `visit` for each chunk with data. The reading
// half of ScanIndex, for indexes that were checked when they were sealed.
Status VisitChunks(const std::string& path,
                   const std::function<Status(const PackId& pack,
                                              const ChunkRef& ref)>& visit);

}  // namespace pos::ckpt

#endif  // CKPT_STORE_INDEX_SCAN_H_
