#include "ckpt/store/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "ckpt/crypt/key_file.h"
#include "ckpt/format/record.h"
#include "ckpt/store/draft.h"
#include "ckpt/store/image.h"
#include "pos/base/bytes.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/log.h"

namespace pos::ckpt {
namespace {

constexpr std::uint32_t kRecordStore = 0x0201;
constexpr std::array<const char*, 5> kDirectories = {"images", "packs", "tmp",
                                                     "trash", "pins"};

// Removes what is in `directory`; returns how many entries there were.
Result<std::uint64_t> Empty(const std::string& directory) {
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory(directory));
  for (const std::string& name : names) {
    POS_RETURN_IF_ERROR(RemoveTree(JoinPath(directory, name)));
  }
  return std::uint64_t{names.size()};
}

// Removes those of `candidates` (oldest first) but the last `keep` and those
// in use.
Result<std::vector<std::string>> RemoveAllBut(
    Store* store, std::size_t keep,
    const std::vector<std::string>& candidates) {
  std::vector<std::string> removed;
  for (std::size_t i = 0; i + keep < candidates.size(); ++i) {
    const Status status = store->Remove(candidates[i]);
    if (status.code() == Code::kBusy || status.code() == Code::kNoSuch) {
      continue;
    }
    POS_RETURN_IF_ERROR(status);
    removed.push_back(candidates[i]);
  }
  return removed;
}

}  // namespace

Result<std::unique_ptr<Store>> Store::Open(const std::string& path,
                                           const StoreOptions& options) {
  if (!IsChunkBytes(options.chunk_bytes)) {
    return Invalid(
        "chunks cannot have " + std::to_string(options.chunk_bytes) + " bytes",
        "use a power of two from 64 KiB to 16 MiB");
  }
  POS_RETURN_IF_ERROR(MakeDirectories(path, 0700));
  std::unique_ptr<Store> store(new Store(path, options));
  POS_RETURN_IF_ERROR(store->TakeLock());
  POS_RETURN_IF_ERROR(store->LoadIdentity());
  POS_RETURN_IF_ERROR(store->LoadExportKey());
  for (const char* const name : kDirectories) {
    POS_RETURN_IF_ERROR(MakeDirectories(JoinPath(path, name), 0700));
  }
  POS_RETURN_IF_ERROR(SyncDirectory(path));
  POS_RETURN_IF_ERROR(store->ClearLeftovers());
  POS_RETURN_IF_ERROR(store->LoadImages());
  POS_RETURN_IF_ERROR(store->LoadPins());
  return store;
}

Store::~Store() = default;

Status Store::TakeLock() {
  const std::string path = JoinPath(path_, "lock");
  POS_ASSIGN_OR_RETURN(lock_, OpenFile(path, O_RDWR | O_CREAT));
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock " + path);
    const Result<std::string> pid = ReadWholeFile(path, 64);
    return Busy("the image store " + path_ + " is used by another process" +
                    (pid.ok() && !pid->empty() ? ", " + *pid : ""),
                "end that posd, or give this one another state directory");
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(lock_.get(), 0) != 0) return ErrnoStatus(errno, path);
  return PwriteFull(lock_.get(), std::as_bytes(std::span(pid)), 0, path);
}

Status Store::LoadIdentity() {
  const std::string path = JoinPath(path_, "store");
  if (!PathExists(path)) {
    for (const char* const name : {"images", "packs"}) {
      const Result<std::vector<std::string>> there =
          ListDirectory(JoinPath(path_, name));
      if (there.ok() && !there->empty()) {
        return Corrupt("the image store " + path_ + " has " + name +
                       " but no identity (its file 'store' is missing)");
      }
    }
    std::uint64_t seed = 0;
    RandomBytes(std::as_writable_bytes(std::span(&seed, 1)));
    const StoreId id = NewStoreId();
    ByteWriter out;
    out.Put(id.bytes);
    out.Put(kDigestTreeXxh3);
    out.Put(std::uint32_t{0});
    out.Put(seed);
    POS_RETURN_IF_ERROR(WriteRecordFile(
        path, FileKind::kStore, id, WallClockMs(), kRecordStore, out.bytes()));
    Step("identity written");
  }
  POS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<FdSource> source,
                       FdSource::Open(fd.get(), path));
  POS_ASSIGN_OR_RETURN(
      const std::unique_ptr<RecordReader> reader,
      RecordReader::Open(source.get(), FileKind::kStore, path));
  Record record;
  for (;;) {
    POS_ASSIGN_OR_RETURN(const bool any, reader->Next(&record));
    if (!any) break;
    if (record.type != kRecordStore) {
      if (record.optional) continue;
      return reader->UnknownRecord(record);
    }
    ByteReader in(record.payload);
    id_.bytes = in.Get<decltype(id_.bytes)>();
    const auto digest = in.Get<std::uint32_t>();
    in.Get<std::uint32_t>();
    digest_seed_ = in.Get<std::uint64_t>();
    if (!in.ok()) return reader->BadRecord(record, "it is too short");
    if (digest != kDigestTreeXxh3) {
      return Incompatible("the image store " + path_ + " uses digest " +
                          std::to_string(digest) + "; this POS knows 1");
    }
  }
  if (id_ == StoreId()) return Corrupt(path + ": it has no STORE record");
  return {};
}

Status Store::LoadExportKey() {
  const std::string path = JoinPath(path_, "export_key");
  Result<Secret> key = ReadKeyFile(path);
  const Code code = key.status().code();
  if (code == Code::kNoSuch || code == Code::kInvalid) {
    if (code == Code::kInvalid) {
      POS_LOG(
          kError,
          "the store's export key is damaged: earlier exports are root's to "
          "import",
          {{"file", path}});
    }
    key = RandomSecret();
    const std::span<const std::byte> bytes = key->bytes();
    POS_RETURN_IF_ERROR(ReplaceFile(
        path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  }
  POS_RETURN_IF_ERROR(key.status());
  export_key_ = std::move(*key);
  return {};
}

Status Store::ClearLeftovers() {
  // The lock is held, so nobody works on these.
  POS_ASSIGN_OR_RETURN(recovery_.drafts, Empty(JoinPath(path_, "tmp")));
  POS_ASSIGN_OR_RETURN(recovery_.trash, Empty(JoinPath(path_, "trash")));
  if (recovery_.drafts > 0) {
    POS_LOG(kWarning, "cleared away unfinished checkpoints",
            {{"store", path_}, {"count", recovery_.drafts}});
  }
  return {};
}

Status Store::LoadImages() {
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory(JoinPath(path_, "images")));
  MutexLock lock(&mu_);
  for (const std::string& name : names) {
    if (!IsImageId(name)) {
      POS_LOG(kWarning, "not an image, left alone", {{"name", name}});
      continue;
    }
    const Result<Manifest> manifest = ReadManifestOf(name);
    ImageSummary& summary = images_[name];
    summary.image = name;
    summary.damage = manifest.status();
    if (manifest.ok()) {
      summary = Summarize(*manifest);
      continue;
    }
    ++recovery_.damaged;
    POS_LOG(kError, "an image cannot be read",
            {{"image", name}, {"why", summary.damage.ToString()}});
  }
  return {};
}

std::string Store::ImageDir(const std::string& image) const {
  return path_ + "/images/" + image;
}
std::string Store::TrashDir(const std::string& image) const {
  return path_ + "/trash/" + image;
}
std::string Store::DraftDir(const std::string& image) const {
  return path_ + "/tmp/" + image;
}
std::string Store::PackPath(const PackId& pack) const {
  return path_ + "/packs/" + PackName(pack) + ".pack";
}
std::string Store::PinPath(const std::string& pin) const {
  return path_ + "/pins/" + pin;
}

Result<std::string> Store::DirectoryOf(const std::string& image) const {
  // In this order: an image moves from the one to the other only.
  for (const std::string& path : {ImageDir(image), TrashDir(image)}) {
    if (PathExists(path)) return path;
  }
  return NoSuch("there is no image " + image, "see pos-cli images ls");
}

Result<Manifest> Store::ReadManifestOf(const std::string& image) const {
  POS_ASSIGN_OR_RETURN(const std::string directory, DirectoryOf(image));
  const std::string path = directory + "/manifest";
  Result<UniqueFd> opened = OpenFile(path, O_RDONLY);
  if (opened.status().code() == Code::kNoSuch) {  // moved just now, or gone
    opened = OpenFile(TrashDir(image) + "/manifest", O_RDONLY);
  }
  POS_RETURN_IF_ERROR(opened.status());
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<FdSource> source,
                       FdSource::Open(opened->get(), path));
  POS_ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(source.get(), path));
  if (manifest.image != image) {
    return Corrupt("the manifest in " + directory + " is that of image " +
                   manifest.image);
  }
  return manifest;
}

ImageSummary Store::Summarize(const Manifest& m) {
  ImageSummary summary;
  summary.image = m.image;
  summary.job = m.job.name;
  summary.tag = m.tag;
  summary.owner_uid = m.owner_uid;
  summary.created_ms = m.created_ms;
  summary.mode = m.mode;
  summary.live_bytes = m.totals.live_bytes;
  summary.stored_bytes = m.totals.written_bytes;
  summary.reused_bytes = m.totals.reused_bytes;
  for (const Attachment& attachment : m.attachments) {
    if (attachment.name == kSeriesAttachment) summary.series = attachment.value;
  }
  return summary;
}

std::vector<ImageSummary> Store::List(std::optional<uid_t> owner) const {
  std::vector<ImageSummary> list;
  MutexLock lock(&mu_);
  for (const auto& [image, summary] : images_) {
    const bool shown = !owner.has_value() ||
                       (summary.damage.ok() && summary.owner_uid == *owner);
    if (shown) list.push_back(summary);
  }
  return list;
}

Result<ImageSummary> Store::Find(const std::string& image) const {
  MutexLock lock(&mu_);
  const auto found = images_.find(image);
  if (found == images_.end()) {
    return NoSuch("there is no image " + image, "see pos-cli images ls");
  }
  return found->second;
}

Result<Manifest> Store::Show(const std::string& image) const {
  POS_ASSIGN_OR_RETURN(const ImageSummary summary, Find(image));
  POS_RETURN_IF_ERROR(summary.damage);
  return ReadManifestOf(image);
}

Result<std::unique_ptr<ImageHandle>> Store::OpenImage(
    const std::string& image, const std::string& holder) {
  POS_ASSIGN_OR_RETURN(ImageLease lease, Lease(image, holder));
  POS_ASSIGN_OR_RETURN(Manifest manifest, Show(image));
  return std::unique_ptr<ImageHandle>(
      new ImageHandle(std::move(lease), std::move(manifest), ImageDir(image),
                      JoinPath(path_, "packs")));
}

Result<std::unique_ptr<Draft>> Store::BeginImage(const DraftOptions& options) {
  std::string image;
  {
    MutexLock lock(&mu_);
    // Ids of one process never repeat, and ascend, whatever the clock does.
    last_id_ms_ = std::max(WallClockMs(), last_id_ms_ + 1);
    do {
      image = NewImageId(last_id_ms_);
    } while (images_.contains(image) || trash_.contains(image));
  }
  std::unique_ptr<Draft> draft(new Draft(this, options, image));
  POS_RETURN_IF_ERROR(draft->Create());
  return draft;
}

Status Store::Remove(const std::string& image) {
  ImageSummary summary;
  {
    MutexLock lock(&mu_);
    const auto found = images_.find(image);
    if (found == images_.end()) {
      return NoSuch("there is no image " + image, "see pos-cli images ls");
    }
    if (const PinInfo* holder = HolderOf(image); holder != nullptr) {
      return Busy("image " + image + " is used by " + holder->holder +
                      (holder->reason.empty() ? "" : ", " + holder->reason),
                  "wait until that has ended");
    }
    summary = found->second;
    images_.erase(found);
    trash_.insert(image);
    // Until the removal is on the disk: its chunks must not go before it.
    holds_.insert(image);
  }
  Step("remove: before rename");
  if (::rename(ImageDir(image).c_str(), TrashDir(image).c_str()) != 0) {
    const Status status = ErrnoStatus(errno, "remove image " + image);
    MutexLock lock(&mu_);
    trash_.erase(image);
    holds_.erase(holds_.find(image));
    images_[image] = summary;
    return status;
  }
  Step("remove: renamed");
  // If this fails Gc does it again before it takes anything away.
  const Status synced = SyncRemovals();
  MutexLock lock(&mu_);
  holds_.erase(holds_.find(image));
  return synced;
}

Status Store::SyncRemovals() const {
  POS_RETURN_IF_ERROR(SyncDirectory(JoinPath(path_, "images")));
  return SyncDirectory(JoinPath(path_, "trash"));
}

Result<std::vector<std::string>> Store::Expire(uid_t owner,
                                               const std::string& job,
                                               std::size_t keep) {
  std::vector<std::string> candidates;
  for (const ImageSummary& summary : List(owner)) {
    if (summary.job == job && summary.tag.empty()) {
      candidates.push_back(summary.image);
    }
  }
  return RemoveAllBut(this, keep, candidates);
}

Result<std::vector<std::string>> Store::ExpireSeries(uid_t owner,
                                                     const std::string& series,
                                                     std::size_t keep) {
  std::vector<std::string> candidates;
  for (const ImageSummary& summary : List(owner)) {
    if (summary.series == series && summary.tag.empty()) {
      candidates.push_back(summary.image);
    }
  }
  return RemoveAllBut(this, keep, candidates);
}

}  // namespace pos::ckpt
