#include "ckpt/store/index_scan.h"

#include <fcntl.h>

#include "ckpt/format/record.h"
#include "ckpt/store/tree.h"
#include "pos/base/files.h"

namespace pos::ckpt {

Result<IndexSummary> ScanIndex(
    int fd, const std::string& name, const DigestKey& key,
    const std::function<Status(const IndexHead& head)>& check_head,
    const std::function<Status(const PackId& pack, const ChunkRef& ref)>&
        check) {
  IndexSummary summary;
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<FdSource> source,
                       FdSource::Open(fd, name));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<IndexReader> index,
                       IndexReader::Open(source.get(), name));
  POS_RETURN_IF_ERROR(check_head(index->head()));
  for (;;) {
    POS_ASSIGN_OR_RETURN(const IndexReader::What what, index->Next());
    if (what == IndexReader::What::kEnd) break;
    if (what == IndexReader::What::kRegion) {
      const Region& region = index->region();
      if (region.kind == RegionKind::kDeviceMemory ||
          region.kind == RegionKind::kDeviceArray) {
        if (region.bytes > ~summary.live_bytes) {
          return Corrupt(name + ": more memory than there are addresses");
        }
        summary.live_bytes += region.bytes;
      }
      continue;
    }
    const ChunkEntry& entry = index->entry();
    if (entry.zero()) {
      summary.zero_bytes += entry.bytes;
      continue;
    }
    const PackId& pack = index->packs()[entry.ref.pack];
    POS_RETURN_IF_ERROR(check(pack, entry.ref).WithContext(name));
    ++summary.chunks;
    PackUse& use = summary.packs[pack];
    ++use.chunks;
    use.stored_bytes += entry.ref.stored;
  }
  POS_ASSIGN_OR_RETURN(summary.file_digest,
                       DigestFile(fd, name, key, &summary.file_bytes));
  if (summary.file_bytes != source->size()) {
    return Corrupt(name + ": the file changed while it was read");
  }
  return summary;
}

Status VisitChunks(const std::string& path,
                   const std::function<Status(const PackId& pack,
                                              const ChunkRef& ref)>& visit) {
  POS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<FdSource> source,
                       FdSource::Open(fd.get(), path));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<IndexReader> index,
                       IndexReader::Open(source.get(), path));
  for (;;) {
    POS_ASSIGN_OR_RETURN(const IndexReader::What what, index->Next());
    if (what == IndexReader::What::kEnd) return {};
    if (what != IndexReader::What::kEntry || index->entry().zero()) continue;
    const ChunkRef& ref = index->entry().ref;
    POS_RETURN_IF_ERROR(visit(index->packs()[ref.pack], ref));
  }
}

}  // namespace pos::ckpt
