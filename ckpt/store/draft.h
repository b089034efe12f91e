// An image being made. posd owns the draft; runners write their sessions
// through descriptors from it; CRIU writes to its directory.
//
//   SessionFiles files = *draft->AddSession(0);   // to the runner, then close
//   std::string criu = *draft->MakeDirectory("criu");
//   … the runner says that it is done, and has closed its descriptors …
//   Result<Manifest> sealed = draft->Seal(manifest, started_ns);
//
// Threads:  one at a time. Several drafts may be worked on at once.
// Trust:    Seal reads every index that a runner wrote and refuses (kCorrupt)
//           one that breaks a rule, that names a chunk outside the bounds of
//           the session's own pack, or one of another pack that was not offered
//           just so. It waits until nobody has a session's files open for
//           writing, so they cannot change afterwards. It does not read the
//           chunks' bytes: a runner that lies about them spoils images of its
//           own user only, and Verify finds it.
// Errors:   after a failed Seal the draft is gone, as after Abort.
//
// Test: tests/ckpt/store/store_test.cc, hostile_test.cc, crash_test.cc
#ifndef CKPT_STORE_DRAFT_H_
#define CKPT_STORE_DRAFT_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ckpt/format/known.h"
#include "ckpt/format/manifest.h"
#include "ckpt/pack/session_writer.h"
#include "ckpt/store/index_scan.h"
#include "ckpt/store/store.h"
#include "pos/base/status.h"

namespace pos::ckpt {

// Keeps images' files and chunks on the disk, also when they are removed.
class ChunkHold {
 public:
  explicit ChunkHold(Store* store) : store_(store) {}
  ~ChunkHold();
  ChunkHold(const ChunkHold&) = delete;
  ChunkHold& operator=(const ChunkHold&) = delete;

  // Holds all images for which `wanted` is true, newest first.
  std::vector<ImageSummary> HoldAll(
      const std::function<bool(const ImageSummary&)>& wanted);
  // Takes over a hold that is in the store's list already.
  void Adopt(const std::string& image) { images_.push_back(image); }

 private:
  Store* const store_;
  std::vector<std::string> images_;
};

class Draft {
 public:
  ~Draft();  // Abort, unless sealed
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  // The id that the image will have.
  [[nodiscard]] const std::string& image() const { return image_; }
  // The image's directory, private to the service until sealed.
  [[nodiscard]] const std::string& directory() const { return directory_; }
  // A directory inside; its files become part of the image.
  Result<std::string> MakeDirectory(const std::string& name);

  // Files for a session's runner. Each number once.
  Result<SessionFiles> AddSession(std::uint32_t number);

  // Completes and publishes. `manifest` needs what only the caller knows (see
  // manifest.h); its sessions must be those added, by number. `started_ns`
  // (MonotonicNs of the request) gives totals.total_ns; 0: it stays as it is.
  // Returns the manifest as written.
  Result<Manifest> Seal(Manifest manifest, std::uint64_t started_ns = 0);
  // Nothing is left but, if that failed, what the next Open clears away.
  void Abort();

 private:
  friend class Store;
  struct Session {
    std::uint32_t number = 0;
    PackId pack;
    std::uint64_t pack_created_ms = 0;
    IndexSummary summary;
  };

  Draft(Store* store, const DraftOptions& options, std::string image);
  Status Create();
  Status OfferKnownChunks();
  [[nodiscard]] std::string IndexPath(std::uint32_t number) const;
  [[nodiscard]] std::string OwnPackPath(const PackId& pack) const;

  // Seal's steps.
  Status CheckSession(Session* session);
  Status Complete(Manifest* manifest);
  Status MergeSessions(Manifest* manifest) const;
  Status MergeSession(const Session& session, SessionRecord* record,
                      Manifest* manifest) const;
  // Where `pack` is among the manifest's packs; adds it when it is new.
  Result<std::uint32_t> PositionOf(const PackId& pack, bool own,
                                   Manifest* manifest) const;
  Status PublishPacks();
  Status PublishImage(const Manifest& manifest);
  Result<Manifest> SealSteps(Manifest manifest, std::uint64_t started_ns);

  Store* const store_;
  const DraftOptions options_;
  const std::string image_;
  const std::string root_;       // tmp/ID
  const std::string directory_;  // tmp/ID/image
  std::uint64_t created_ms_ = 0;
  ChunkHold hold_;
  bool known_made_ = false;
  std::unique_ptr<KnownTable> known_;  // null: nothing is offered
  std::vector<Session> sessions_;
  std::vector<PackId> published_;  // packs already under packs/
  bool ended_ = false;
};

}  // namespace pos::ckpt

#endif  // CKPT_STORE_DRAFT_H_
