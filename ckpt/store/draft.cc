#include "ckpt/store/draft.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "ckpt/format/pack_header.h"
#include "ckpt/store/known_build.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/log.h"

namespace pos::ckpt {

Draft::Draft(Store* store, const DraftOptions& options, std::string image)
    : store_(store),
      options_(options),
      image_(std::move(image)),
      root_(store->DraftDir(image_)),
      directory_(root_ + "/image"),
      created_ms_(WallClockMs()),
      hold_(store) {}

Draft::~Draft() { Abort(); }

Status Draft::Create() {
  POS_RETURN_IF_ERROR(MakeDirectories(directory_, 0700));
  return MakeDirectories(root_ + "/packs", 0700);
}

std::string Draft::IndexPath(std::uint32_t number) const {
  return directory_ + "/session-" + std::to_string(number) + ".idx";
}

std::string Draft::OwnPackPath(const PackId& pack) const {
  return root_ + "/packs/" + PackName(pack) + ".pack";
}

Result<std::string> Draft::MakeDirectory(const std::string& name) {
  if (!IsInnerPath(name)) return Invalid("not a directory's name: " + name);
  const std::string path = JoinPath(directory_, name);
  POS_RETURN_IF_ERROR(MakeDirectories(path, 0700));
  return path;
}

Status Draft::OfferKnownChunks() {
  known_made_ = true;
  if (!options_.incremental) return {};
  std::vector<ImageSummary> images =
      hold_.HoldAll([this](const ImageSummary& summary) {
        return summary.damage.ok() && summary.owner_uid == options_.owner_uid;
      });
  if (images.empty()) return {};
  // The job's own images first: they have most in common with this one.
  std::stable_partition(
      images.begin(), images.end(),
      [this](const ImageSummary& s) { return s.job == options_.job; });
  const std::string path = root_ + "/known";
  POS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT));
  const KnownSource source = {
      [this](const std::string& image) { return store_->Show(image); },
      [this](const std::string& image) { return store_->ImageDir(image); }};
  POS_RETURN_IF_ERROR(BuildKnownTable(images, source, store_->options_,
                                      store_->digest_seed_, store_->id_,
                                      fd.get()));
  POS_ASSIGN_OR_RETURN(known_, KnownTable::Open(fd.get(), path));
  return {};
}

Result<SessionFiles> Draft::AddSession(std::uint32_t number) {
  if (ended_) return Invalid("the draft of " + image_ + " has ended");
  const bool there =
      std::any_of(sessions_.begin(), sessions_.end(),
                  [number](const Session& s) { return s.number == number; });
  if (there) {
    return Exists("session " + std::to_string(number) +
                  " is in the draft already");
  }
  if (!known_made_) POS_RETURN_IF_ERROR(OfferKnownChunks());
  Session session;
  session.number = number;
  session.pack = NewPackId();
  session.pack_created_ms = created_ms_;
  {
    MutexLock lock(&store_->mu_);
    store_->draft_packs_.insert(session.pack);
  }
  sessions_.push_back(session);

  SessionFiles files;
  files.store = store_->id_;
  files.session = number;
  files.digest_seed = store_->digest_seed_;
  files.chunk_bytes = store_->options_.chunk_bytes;
  files.pack_id = session.pack;
  POS_ASSIGN_OR_RETURN(files.pack, OpenFile(OwnPackPath(session.pack),
                                            O_RDWR | O_CREAT | O_EXCL));
  POS_ASSIGN_OR_RETURN(files.index,
                       OpenFile(IndexPath(number), O_RDWR | O_CREAT | O_EXCL));
  if (known_ != nullptr) {
    POS_ASSIGN_OR_RETURN(files.known, OpenFile(root_ + "/known", O_RDONLY));
  }
  PackHeader header;
  header.store = store_->id_;
  header.created_ms = session.pack_created_ms;
  header.pack = session.pack;
  header.owner_uid = options_.owner_uid;
  header.digest_seed = store_->digest_seed_;
  POS_RETURN_IF_ERROR(PwriteFull(files.pack.get(), EncodePackHeader(header), 0,
                                 OwnPackPath(session.pack)));
  store_->Step("session added");
  return files;
}

void Draft::Abort() {
  if (ended_) return;
  ended_ = true;
  for (const PackId& pack : published_) {
    RemoveFile(store_->PackPath(pack)).IgnoreError();
  }
  if (Status removed = RemoveTree(root_); !removed.ok()) {
    POS_LOG(kWarning, "an unfinished image stays until the next start",
            {{"image", image_}, {"why", removed.ToString()}});
  }
  MutexLock lock(&store_->mu_);
  for (const Session& session : sessions_) {
    store_->draft_packs_.erase(session.pack);
  }
}

}  // namespace pos::ckpt
