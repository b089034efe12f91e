// Sealing: what turns a draft into an image. The order of the steps is what
// makes a crash harmless:
//
//   1. check what runners wrote         nothing is visible
//   2. flush packs, indexes, files      nothing is visible
//   3. packs -> packs/, flush           packs that nothing names: gc removes
//   4. manifest -> tmp/ID/image, flush  nothing is visible
//   5. tmp/ID/image -> images/ID        the image is there, whole
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "ckpt/format/header.h"
#include "ckpt/format/pack_header.h"
#include "ckpt/pack/pack_set.h"
#include "ckpt/store/draft.h"
#include "ckpt/store/tree.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"

namespace pos::ckpt {
namespace {

// Waits until nobody has the file behind `fd` (open for reading) open for
// writing: the kernel grants a read lease only then. Where a file system has
// no leases, there is nothing to wait for.
Status WaitForWriters(int fd, const std::string& name, std::uint64_t wait_ms) {
  const Deadline deadline = Deadline::AfterMs(wait_ms);
  while (::fcntl(fd, F_SETLEASE, F_RDLCK) != 0) {
    if (errno != EAGAIN && errno != EINTR) return {};
    if (deadline.Passed()) {
      return Busy(name + " is still open for writing in another process");
    }
    SleepNs(2000000);
  }
  ::fcntl(fd, F_SETLEASE, F_UNLCK);
  return {};
}

Result<UniqueFd> OpenSettled(const std::string& path, std::uint64_t wait_ms) {
  POS_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY));
  POS_RETURN_IF_ERROR(WaitForWriters(fd.get(), path, wait_ms));
  return fd;
}

Status Rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    return ErrnoStatus(errno, "rename " + from + " to " + to);
  }
  return {};
}

// The bounds of a chunk in the session's own pack.
Status CheckOwnChunk(const ChunkRef& ref, std::uint64_t pack_bytes) {
  const std::uint64_t need = StoredBlocksBytes(ref);
  if (ref.place > pack_bytes || need > pack_bytes - ref.place) {
    return Corrupt("a chunk at byte " + std::to_string(ref.place) +
                   " lies outside its pack of " + std::to_string(pack_bytes) +
                   " bytes");
  }
  return {};
}

}  // namespace

Status Draft::CheckSession(Session* session) {
  const std::uint64_t wait_ms = store_->options_.close_wait_ms;
  const std::string pack_path = OwnPackPath(session->pack);
  POS_ASSIGN_OR_RETURN(const UniqueFd pack, OpenSettled(pack_path, wait_ms));
  std::vector<std::byte> block(kBlockBytes);
  POS_RETURN_IF_ERROR(PreadFull(pack.get(), block, 0, pack_path));
  POS_ASSIGN_OR_RETURN(const PackHeader header,
                       DecodePackHeader(block, pack_path));
  PackHeader wanted;
  wanted.store = store_->id_;
  wanted.created_ms = session->pack_created_ms;
  wanted.pack = session->pack;
  wanted.owner_uid = options_.owner_uid;
  wanted.digest_seed = store_->digest_seed_;
  if (header != wanted) {
    return Corrupt(pack_path + ": its header is not the one it was given");
  }
  POS_ASSIGN_OR_RETURN(const std::uint64_t pack_bytes, FileSize(pack_path));

  const std::string index_path = IndexPath(session->number);
  POS_ASSIGN_OR_RETURN(const UniqueFd index, OpenSettled(index_path, wait_ms));
  const auto check_head = [&](const IndexHead& head) {
    if (head.session != session->number ||
        head.digest_seed != store_->digest_seed_ ||
        head.chunk_bytes != store_->options_.chunk_bytes) {
      return Corrupt(index_path + ": it is not of this session and store");
    }
    return Status();
  };
  const auto check_chunk = [&](const PackId& id, const ChunkRef& ref) {
    if (id == session->pack) return CheckOwnChunk(ref, pack_bytes);
    const std::optional<ChunkRef> known =
        known_ != nullptr ? known_->Find(ref.digest) : std::nullopt;
    ChunkRef named = ref;
    if (known.has_value()) named.pack = known->pack;
    if (!known.has_value() || *known != named ||
        known_->packs()[known->pack] != id) {
      return Corrupt("a chunk of pack " + PackName(id) + " was not offered");
    }
    return Status();
  };
  POS_ASSIGN_OR_RETURN(
      session->summary,
      ScanIndex(index.get(), index_path, DigestKey(store_->digest_seed_),
                check_head, check_chunk));
  POS_RETURN_IF_ERROR(SyncFd(pack.get(), pack_path));
  return SyncFd(index.get(), index_path);
}

Result<std::uint32_t> Draft::PositionOf(const PackId& pack, bool own,
                                        Manifest* m) const {
  const auto found =
      std::find_if(m->packs.begin(), m->packs.end(),
                   [&pack](const PackRecord& p) { return p.pack == pack; });
  const auto position = static_cast<std::uint32_t>(found - m->packs.begin());
  if (found != m->packs.end()) return position;
  PackRecord record;
  record.pack = pack;
  record.own = own;
  POS_ASSIGN_OR_RETURN(
      record.file_bytes,
      FileSize(own ? OwnPackPath(pack) : store_->PackPath(pack)));
  m->packs.push_back(record);
  return position;
}

Status Draft::MergeSession(const Session& session, SessionRecord* record,
                           Manifest* m) const {
  const IndexSummary& summary = session.summary;
  record->live_bytes = summary.live_bytes;
  record->chunks = summary.chunks;
  record->zero_bytes = summary.zero_bytes;
  record->index_bytes = summary.file_bytes;
  record->index_digest = summary.file_digest;
  record->index = "session-" + std::to_string(record->number) + ".idx";
  record->own_stored_bytes = 0;
  record->packs.clear();
  Totals& totals = m->totals;
  for (const auto& [id, use] : summary.packs) {
    const bool own = id == session.pack;
    (own ? record->own_stored_bytes : totals.reused_bytes) += use.stored_bytes;
    POS_ASSIGN_OR_RETURN(const std::uint32_t position, PositionOf(id, own, m));
    m->packs[position].chunks += use.chunks;
    m->packs[position].stored_bytes += use.stored_bytes;
    record->packs.push_back(position);
  }
  totals.live_bytes += record->live_bytes;
  totals.chunks += record->chunks;
  totals.zero_bytes += record->zero_bytes;
  totals.written_bytes += record->own_stored_bytes + record->index_bytes;
  return {};
}

Status Draft::MergeSessions(Manifest* m) const {
  if (m->sessions.size() != sessions_.size()) {
    return Invalid("the manifest has " + std::to_string(m->sessions.size()) +
                   " sessions, the draft " + std::to_string(sessions_.size()));
  }
  m->packs.clear();
  m->totals.live_bytes = m->totals.written_bytes = m->totals.chunks = 0;
  m->totals.zero_bytes = m->totals.reused_bytes = 0;
  for (SessionRecord& record : m->sessions) {
    const auto found = std::find_if(
        sessions_.begin(), sessions_.end(),
        [&record](const Session& s) { return s.number == record.number; });
    if (found == sessions_.end()) {
      return Invalid("the draft has no session " +
                     std::to_string(record.number));
    }
    POS_RETURN_IF_ERROR(MergeSession(*found, &record, m));
  }
  return {};
}

Status Draft::Complete(Manifest* m) {
  m->image = image_;
  m->owner_uid = options_.owner_uid;
  m->owner_gid = options_.owner_gid;
  m->created_ms = created_ms_;
  m->digest_seed = store_->digest_seed_;
  m->chunk_bytes = store_->options_.chunk_bytes;
  if (m->job.name.empty()) m->job.name = options_.job;
  POS_RETURN_IF_ERROR(MergeSessions(m));
  const DigestKey key(store_->digest_seed_);
  POS_ASSIGN_OR_RETURN(const Tree tree, ListTree(directory_));
  m->files.clear();
  for (const std::string& path : tree.files) {
    const bool index = std::any_of(
        m->sessions.begin(), m->sessions.end(),
        [&path](const SessionRecord& s) { return s.index == path; });
    if (index) continue;
    POS_ASSIGN_OR_RETURN(FileRecord record,
                         DescribeFile(directory_, path, key, true));
    m->totals.written_bytes += record.bytes;
    m->files.push_back(std::move(record));
  }
  for (const std::string& path : tree.directories) {
    POS_RETURN_IF_ERROR(SyncDirectory(JoinPath(directory_, path)));
  }
  return {};
}

Status Draft::PublishPacks() {
  for (const Session& session : sessions_) {
    const std::string from = OwnPackPath(session.pack);
    if (!session.summary.packs.contains(session.pack)) {
      // Nothing of it is used: an image of zeros, or of known chunks.
      POS_RETURN_IF_ERROR(RemoveFile(from));
      continue;
    }
    POS_RETURN_IF_ERROR(Rename(from, store_->PackPath(session.pack)));
    published_.push_back(session.pack);
    store_->Step("seal: pack in place");
  }
  return SyncDirectory(JoinPath(store_->path_, "packs"));
}

Status Draft::PublishImage(const Manifest& manifest) {
  const std::string path = directory_ + "/manifest";
  {
    POS_ASSIGN_OR_RETURN(const UniqueFd fd,
                         OpenFile(path, O_RDWR | O_CREAT | O_EXCL));
    POS_RETURN_IF_ERROR(WriteManifest(manifest, store_->id_, fd.get(), path));
    POS_RETURN_IF_ERROR(SyncFd(fd.get(), path));
  }
  POS_RETURN_IF_ERROR(SyncDirectory(directory_));
  store_->Step("seal: manifest written");
  const std::string final_path = store_->ImageDir(image_);
  POS_RETURN_IF_ERROR(Rename(directory_, final_path));
  store_->Step("seal: image in place");
  const Status synced = SyncDirectory(JoinPath(store_->path_, "images"));
  // What is not known to be durable must not be seen. If it cannot be taken
  // back it is an image like any other: its packs are in use.
  if (!synced.ok() && !Rename(final_path, directory_).ok()) {
    published_.clear();
    MutexLock lock(&store_->mu_);
    store_->images_[image_] = Store::Summarize(manifest);
  }
  return synced;
}

Result<Manifest> Draft::SealSteps(Manifest manifest, std::uint64_t started_ns) {
  for (Session& session : sessions_) {
    POS_RETURN_IF_ERROR(CheckSession(&session).WithContext(
        "session " + std::to_string(session.number)));
    store_->Step("seal: session checked");
  }
  POS_RETURN_IF_ERROR(Complete(&manifest));
  store_->Step("seal: files described");
  POS_RETURN_IF_ERROR(PublishPacks());
  if (started_ns != 0) {
    manifest.totals.total_ns = MonotonicNs() - started_ns;
  }
  POS_RETURN_IF_ERROR(PublishImage(manifest));
  return manifest;
}

Result<Manifest> Draft::Seal(Manifest manifest, std::uint64_t started_ns) {
  if (ended_) return Invalid("the draft of " + image_ + " has ended");
  Result<Manifest> sealed = SealSteps(std::move(manifest), started_ns);
  if (!sealed.ok()) {
    Abort();
    return sealed.status().WithContext("image " + image_);
  }
  ended_ = true;
  {
    MutexLock lock(&store_->mu_);
    store_->images_[image_] = Store::Summarize(*sealed);
    for (const Session& session : sessions_) {
      store_->draft_packs_.erase(session.pack);
    }
  }
  store_->Step("seal: done");
  RemoveTree(root_).IgnoreError();  // else the next Open does
  return sealed;
}

}  // namespace pos::ckpt
