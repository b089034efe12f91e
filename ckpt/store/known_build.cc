#include "ckpt/store/known_build.h"

#include <algorithm>
#include <map>
#include <set>

#include "ckpt/format/known.h"
#include "ckpt/store/index_scan.h"
#include "pos/base/files.h"
#include "pos/base/log.h"

namespace pos::ckpt {
namespace {

// The packs worth offering: of the newest image first, those of which it uses
// most. An image that builds on many packs would be slow to restore and keep
// them all from being given back, so what lies in the others is written anew.
std::set<PackId> ChoosePacks(const std::vector<Manifest>& manifests,
                             std::size_t most) {
  std::set<PackId> chosen;
  for (const Manifest& manifest : manifests) {
    std::vector<PackRecord> packs = manifest.packs;
    std::sort(packs.begin(), packs.end(),
              [](const PackRecord& a, const PackRecord& b) {
                return a.stored_bytes > b.stored_bytes;
              });
    for (const PackRecord& pack : packs) {
      if (chosen.size() == most) return chosen;
      chosen.insert(pack.pack);
    }
  }
  return chosen;
}

// About how many chunks there are to offer, at most `most`.
std::size_t ChunksOf(const std::vector<Manifest>& manifests, std::size_t most) {
  std::map<PackId, std::uint64_t> chunks;
  for (const Manifest& manifest : manifests) {
    for (const PackRecord& pack : manifest.packs) {
      chunks[pack.pack] = std::max(chunks[pack.pack], pack.chunks);
    }
  }
  std::uint64_t sum = 0;
  for (const auto& [pack, count] : chunks) {
    sum += std::min<std::uint64_t>(count, most - sum);
  }
  return static_cast<std::size_t>(sum);
}

}  // namespace

Status BuildKnownTable(const std::vector<ImageSummary>& images,
                       const KnownSource& source, const StoreOptions& options,
                       std::uint64_t digest_seed, const StoreId& store,
                       int fd) {
  std::vector<Manifest> manifests;
  for (const ImageSummary& summary : images) {
    Result<Manifest> manifest = source.manifest_of(summary.image);
    // Images of another seed (imported) or chunk size have nothing to offer.
    if (!manifest.ok() || manifest->digest_seed != digest_seed ||
        manifest->chunk_bytes != options.chunk_bytes) {
      continue;
    }
    Manifest& kept = manifests.emplace_back();  // what is needed here
    kept.image = summary.image;
    kept.sessions = std::move(manifest->sessions);
    kept.packs = std::move(manifest->packs);
  }
  const std::set<PackId> packs = ChoosePacks(manifests, options.known_packs);
  KnownTableBuilder builder(digest_seed, options.chunk_bytes,
                            ChunksOf(manifests, options.known_chunks));
  for (const Manifest& manifest : manifests) {
    if (builder.full()) break;
    for (const SessionRecord& session : manifest.sessions) {
      const std::string path =
          JoinPath(source.directory_of(manifest.image), session.index);
      const Status visited =
          VisitChunks(path, [&](const PackId& pack, const ChunkRef& ref) {
            if (!packs.contains(pack)) return Status();
            ChunkRef known = ref;
            known.pack = builder.AddPack(pack);
            builder.Add(known);
            return Status();
          });
      // Chunks that are not offered are written again; nothing is lost.
      if (!visited.ok()) {
        POS_LOG(kWarning, "an index gives no known chunks",
                {{"index", path}, {"why", visited.ToString()}});
      }
    }
  }
  return builder.Write(fd, "table of known chunks", store);
}

}  // namespace pos::ckpt
