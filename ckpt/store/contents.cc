#include "ckpt/store/contents.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>
#include <tuple>

#include "ckpt/format/record.h"
#include "ckpt/pack/chunk_map.h"

namespace pos::ckpt {
namespace {

auto OrderOf(const RegionUse& use) {
  const Region& r = use.region;
  return std::tie(r.kind, r.device, r.address, r.name);
}

// Leaves the `most` largest.
void DropSmall(std::size_t most, SessionContents* contents) {
  std::vector<RegionUse>& regions = contents->regions;
  if (regions.size() <= most) return;
  const auto middle = regions.begin() + static_cast<std::ptrdiff_t>(most);
  std::nth_element(regions.begin(), middle, regions.end(),
                   [](const RegionUse& a, const RegionUse& b) {
                     return a.region.bytes > b.region.bytes;
                   });
  contents->left_out += regions.size() - most;
  regions.resize(most);
}

}  // namespace

Result<SessionContents> ReadContents(const ImageHandle& image,
                                     const SessionRecord& session,
                                     std::size_t most) {
  POS_ASSIGN_OR_RETURN(const SessionReadFiles files,
                       image.OpenSession(session.number));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<FdSource> source,
                       FdSource::Open(files.index.get(), session.index));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<IndexReader> index,
                       IndexReader::Open(source.get(), session.index));
  std::set<PackId> own;
  for (const PackRecord& pack : image.manifest().packs) {
    if (pack.own) own.insert(pack.pack);
  }
  SessionContents contents;
  for (;;) {
    POS_ASSIGN_OR_RETURN(const IndexReader::What what, index->Next());
    if (what == IndexReader::What::kEnd) break;
    if (what == IndexReader::What::kRegion) {
      if (contents.regions.size() > 2 * most) DropSmall(most, &contents);
      contents.regions.emplace_back().region = index->region();
      continue;
    }
    const ChunkEntry& entry = index->entry();
    RegionUse& use = contents.regions.back();
    if (entry.zero()) {
      use.zero_bytes += entry.bytes;
    } else if (own.contains(index->packs()[entry.ref.pack])) {
      use.stored_bytes += entry.ref.stored;
    } else {
      use.reused_bytes += entry.ref.stored;
    }
  }
  DropSmall(most, &contents);
  std::sort(contents.regions.begin(), contents.regions.end(),
            [](const RegionUse& a, const RegionUse& b) {
              return OrderOf(a) < OrderOf(b);
            });
  return contents;
}

Result<std::vector<std::byte>> ReadBlob(const ImageHandle& image,
                                        std::uint32_t session,
                                        const std::string& name,
                                        std::size_t most_bytes) {
  POS_ASSIGN_OR_RETURN(SessionReadFiles files, image.OpenSession(session));
  PackSet packs;
  for (auto& [id, fd] : files.packs) {
    POS_RETURN_IF_ERROR(packs.Add(id, std::move(fd), /*direct=*/false));
  }
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<FdSource> source,
                       FdSource::Open(files.index.get(), "chunk index"));
  POS_ASSIGN_OR_RETURN(std::unique_ptr<IndexReader> index,
                       IndexReader::Open(source.get(), "chunk index"));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<ChunkMap> map,
                       ChunkMap::Open(std::move(index), &packs));
  for (std::size_t i = 0; i < map->regions().size(); ++i) {
    const Region& region = map->regions()[i];
    if (region.kind != RegionKind::kBlob || region.name != name) continue;
    if (region.bytes > most_bytes) {
      return Invalid("blob " + name + " has " + std::to_string(region.bytes) +
                     " bytes");
    }
    std::vector<std::byte> blob(region.bytes);
    ChunkMap::Reader reader(map.get());
    for (std::uint64_t offset = 0; offset < region.bytes;) {
      POS_ASSIGN_OR_RETURN(const ChunkEntry entry, map->Find(i, offset));
      if (!entry.zero()) {
        POS_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes,
                             reader.Read(entry));
        std::memcpy(blob.data() + entry.offset, bytes.data(), bytes.size());
      }
      offset = entry.offset + entry.bytes;
    }
    return blob;
  }
  return NoSuch("the session has no blob " + name);
}

}  // namespace pos::ckpt
