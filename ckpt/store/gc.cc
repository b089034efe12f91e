// Garbage collection: packs that no image names are removed, and dead extents
// of the others are punched out.
//
// What is alive is decided once, at the start: every image, and every removed
// image that a draft was offered. Later checkpoints can only refer to chunks of
// those, or to packs of their own, which are left alone while they are drafts
// and were not listed if they are newer. So nothing has to stop meanwhile.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "ckpt/pack/pack_set.h"
#include "ckpt/store/draft.h"
#include "ckpt/store/index_scan.h"
#include "ckpt/store/store.h"
#include "pos/base/files.h"
#include "pos/base/log.h"

namespace pos::ckpt {

class Collector {
 public:
  Collector(Store* store, const GcOptions& options)
      : store_(store), options_(options), hold_(store) {}
  Result<GcReport> Run();

 private:
  struct Pack {
    std::string path;
    std::uint64_t bytes = 0;
    bool whole = false;      // the image it was written for is alive
    bool unknown = false;    // an index that uses it cannot be read
    std::vector<bool> live;  // by block, while its group is worked on
  };

  Status Snapshot();
  Status EmptyTrash();
  Status RemoveUnusedPacks();
  Status PunchDeadExtents();
  Status MarkGroup(std::map<PackId, Pack*>* group);
  Status PunchPack(const Pack& pack);
  [[nodiscard]] Status GoOn() const {
    const bool cancelled = (options_.cancel != nullptr &&
                            options_.cancel->load(std::memory_order_relaxed)) ||
                           (options_.cancelled && options_.cancelled());
    return cancelled ? Aborted("gc was cancelled") : Status();
  }

  Store* const store_;
  const GcOptions options_;
  ChunkHold hold_;
  std::vector<std::string> dead_trash_;
  std::vector<Manifest> images_;  // image, sessions and packs only
  std::map<PackId, Pack> packs_;  // on the disk, not of drafts
  GcReport report_;
};

namespace {

std::uint64_t DiskBytes(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return 0;
  return static_cast<std::uint64_t>(st.st_blocks) * 512;
}

}  // namespace

Status Collector::Snapshot() {
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory(JoinPath(store_->path_, "packs")));
  std::vector<std::string> images;
  std::set<PackId> of_drafts;
  {
    MutexLock lock(&store_->mu_);
    for (const auto& [image, summary] : store_->images_) {
      images.push_back(image);
      if (!summary.damage.ok()) {
        report_.held_back =
            "image " + image + " cannot be read: " + summary.damage.message();
      }
    }
    for (const std::string& image : store_->trash_) {
      if (store_->holds_.contains(image)) {
        images.push_back(image);
      } else {
        dead_trash_.push_back(image);
      }
    }
    of_drafts = store_->draft_packs_;
    for (const std::string& image : images) {
      store_->holds_.insert(image);
      hold_.Adopt(image);
    }
  }
  for (const std::string& name : names) {
    if (!name.ends_with(".pack")) continue;
    const Result<PackId> id = ParsePackName(name.substr(0, name.size() - 5));
    if (!id.ok() || of_drafts.contains(*id)) continue;
    Pack pack;
    pack.path = store_->PackPath(*id);
    const Result<std::uint64_t> bytes = FileSize(pack.path);
    if (bytes.ok()) pack.bytes = *bytes;
    packs_[*id] = pack;
  }
  for (const std::string& image : images) {
    POS_RETURN_IF_ERROR(GoOn());
    Result<Manifest> manifest = store_->ReadManifestOf(image);
    if (!manifest.ok()) {
      report_.held_back =
          "image " + image + " cannot be read: " + manifest.status().message();
      continue;
    }
    Manifest& kept = images_.emplace_back();
    kept.image = image;
    kept.sessions = std::move(manifest->sessions);
    kept.packs = std::move(manifest->packs);
  }
  return {};
}

Status Collector::EmptyTrash() {
  // A crash may not bring an image back once its chunks are gone.
  if (!dead_trash_.empty()) POS_RETURN_IF_ERROR(store_->SyncRemovals());
  for (const std::string& image : dead_trash_) {
    POS_RETURN_IF_ERROR(GoOn());
    POS_RETURN_IF_ERROR(RemoveTree(store_->TrashDir(image)));
    store_->Step("gc: image removed");
    ++report_.removed_images;
    MutexLock lock(&store_->mu_);
    store_->trash_.erase(image);
  }
  return {};
}

Status Collector::RemoveUnusedPacks() {
  std::set<PackId> used;
  for (const Manifest& image : images_) {
    for (const PackRecord& pack : image.packs) {
      used.insert(pack.pack);
      const auto found = packs_.find(pack.pack);
      if (found != packs_.end() && pack.own) found->second.whole = true;
    }
  }
  for (auto it = packs_.begin(); it != packs_.end();) {
    if (used.contains(it->first)) {
      ++it;
      continue;
    }
    POS_RETURN_IF_ERROR(GoOn());
    const std::uint64_t bytes = DiskBytes(it->second.path);
    POS_RETURN_IF_ERROR(RemoveFile(it->second.path));
    store_->Step("gc: pack removed");
    ++report_.removed_packs;
    report_.freed_bytes += bytes;
    it = packs_.erase(it);
  }
  return {};
}

Status Collector::MarkGroup(std::map<PackId, Pack*>* group) {
  for (const Manifest& image : images_) {
    const bool concerned = std::any_of(
        image.packs.begin(), image.packs.end(),
        [&](const PackRecord& p) { return group->contains(p.pack); });
    if (!concerned) continue;
    for (const SessionRecord& session : image.sessions) {
      const auto mark = [this, group](const PackId& id, const ChunkRef& ref) {
        POS_RETURN_IF_ERROR(GoOn());
        const auto pack = group->find(id);
        if (pack == group->end()) return Status();
        const std::size_t first = ref.place / kBlockBytes;
        const std::size_t count = StoredBlocksBytes(ref) / kBlockBytes;
        std::vector<bool>& live = pack->second->live;
        for (std::size_t i = first; i < first + count && i < live.size(); ++i) {
          live[i] = true;
        }
        return Status();
      };
      // The image may be removed, and so move, at any time.
      const auto in = [&](const std::string& directory) {
        return VisitChunks(JoinPath(directory, session.index), mark);
      };
      Status visited = in(store_->ImageDir(image.image));
      if (visited.code() == Code::kNoSuch) {
        visited = in(store_->TrashDir(image.image));
      }
      POS_RETURN_IF_ERROR(GoOn());
      store_->Step("gc: index read");
      if (visited.ok()) continue;
      POS_LOG(kWarning, "an index cannot be read; its packs are left alone",
              {{"image", image.image}, {"why", visited.ToString()}});
      for (const PackRecord& pack : image.packs) {
        const auto found = group->find(pack.pack);
        if (found != group->end()) found->second->unknown = true;
      }
    }
  }
  return {};
}

Status Collector::PunchPack(const Pack& pack) {
  POS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(pack.path, O_RDWR));
  const std::uint64_t before = DiskBytes(pack.path);
  const std::vector<bool>& live = pack.live;
  for (std::size_t at = 1; at < live.size();) {
    if (live[at]) {
      ++at;
      continue;
    }
    std::size_t end = at;
    while (end < live.size() && !live[end]) ++end;
    POS_RETURN_IF_ERROR(GoOn());
    const auto from = static_cast<off_t>(at * kBlockBytes);
    const auto to = static_cast<off_t>(end * kBlockBytes);
    at = end;
    const off_t data = ::lseek(fd.get(), from, SEEK_DATA);
    if (data < 0 || data >= to) continue;  // a hole already
    if (::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from,
                    to - from) != 0) {
      if (errno == EOPNOTSUPP) return {};  // only space is lost
      return ErrnoStatus(errno, "punch " + pack.path);
    }
    store_->Step("gc: hole punched");
  }
  const std::uint64_t after = DiskBytes(pack.path);
  report_.freed_bytes += before > after ? before - after : 0;
  return {};
}

Status Collector::PunchDeadExtents() {
  // Whole packs were punched by their writer: only those whose image is gone
  // can have dead extents.
  std::vector<std::pair<PackId, Pack*>> candidates;
  for (auto& [id, pack] : packs_) {
    if (!pack.whole) candidates.emplace_back(id, &pack);
  }
  const std::uint64_t room =
      8 * std::uint64_t{store_->options_.gc_memory_bytes};
  for (std::size_t next = 0; next < candidates.size();) {
    std::map<PackId, Pack*> group;
    for (std::uint64_t blocks = 0; next < candidates.size(); ++next) {
      Pack* const pack = candidates[next].second;
      const std::uint64_t size = pack->bytes / kBlockBytes;
      if (!group.empty() && blocks + size > room) break;
      blocks += size;
      pack->live.resize(size);
      group[candidates[next].first] = pack;
    }
    POS_RETURN_IF_ERROR(MarkGroup(&group));
    for (const auto& [id, pack] : group) {
      if (!pack->unknown) POS_RETURN_IF_ERROR(PunchPack(*pack));
      pack->live = {};
    }
  }
  return {};
}

Result<GcReport> Collector::Run() {
  POS_RETURN_IF_ERROR(Snapshot());
  POS_RETURN_IF_ERROR(EmptyTrash());
  if (!report_.held_back.empty()) {
    POS_LOG(kWarning, "gc keeps all packs", {{"why", report_.held_back}});
    return report_;
  }
  POS_RETURN_IF_ERROR(RemoveUnusedPacks());
  POS_RETURN_IF_ERROR(PunchDeadExtents());
  return report_;
}

Result<GcReport> Store::Gc(const GcOptions& options) {
  {
    MutexLock lock(&mu_);
    if (gc_running_) return Busy("a gc is running already", "wait for it");
    gc_running_ = true;
  }
  Result<GcReport> report = Collector(this, options).Run();
  MutexLock lock(&mu_);
  gc_running_ = false;
  return report;
}

}  // namespace pos::ckpt
