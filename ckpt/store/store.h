// The image store of one posd: a directory with images, and the packs that
// hold their chunks. ckpt/FORMAT.md, "An image on disk".
//
//   auto store = Store::Open("/var/lib/pos/images");
//   auto draft = store->BeginImage({uid, gid, "train"});   // a checkpoint
//   auto image = store->OpenImage(id, "restore of train"); // a restore
//
// Threads:   any number, except where a class says otherwise. Long operations
//            (Verify, Diff, Gc, sealing) run at once with others.
// Ownership: drafts, images and leases must be gone before the store.
// Blocking:  everything here does file I/O; nothing holds a lock meanwhile.
// Trust:     the directory is the service's own, mode 0700. What runners wrote
//            through descriptors is checked before it is believed (Draft).
// Errors:    kNoSuch for an image that is not there, kBusy for one in use,
//            kCorrupt, kIncompatible, kDiskFull, other errno codes.
//
// Crash at any point leaves every image that was visible readable. Open clears
// away what was half-made; Gc gives back the space of what nothing uses.
//
// Test: tests/ckpt/store/
#ifndef CKPT_STORE_STORE_H_
#define CKPT_STORE_STORE_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ckpt/crypt/secret.h"
#include "ckpt/format/digest.h"
#include "ckpt/format/id.h"
#include "ckpt/format/manifest.h"
#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"

namespace pos::ckpt {

class Draft;
class ImageHandle;
class Store;

struct StoreOptions {
  std::uint32_t chunk_bytes = 2u << 20;
  // Chunks and packs of earlier images that a checkpoint is offered. 524288
  // chunks of 2 MiB are 1 TiB and take 28 MiB while the table is made. Few
  // packs keep restores cheap.
  std::size_t known_chunks = 524288;
  std::size_t known_packs = 48;
  std::size_t gc_memory_bytes = 16u << 20;
  // How long Seal waits for runners to close their descriptors.
  std::uint64_t close_wait_ms = 5000;
  // Tests: called between the steps of what changes the store.
  std::function<void(std::string_view)> on_step;
};

// What `images ls` shows.
struct ImageSummary {
  std::string image;
  std::string job;
  std::string tag;
  uid_t owner_uid = 0;
  std::uint64_t created_ms = 0;
  CheckpointMode mode = CheckpointMode::kStop;
  std::uint64_t live_bytes = 0;
  std::uint64_t stored_bytes = 0;  // written for this image
  std::uint64_t reused_bytes = 0;  // of earlier images
  std::string series;              // of periodic checkpoints; empty: none
  Status damage;  // not OK: the manifest cannot be read; only `image` is valid
};

// The attachment of a manifest that names the series of periodic checkpoints
// that the image belongs to.
inline constexpr const char* kSeriesAttachment = "series";

struct DraftOptions {
  uid_t owner_uid = 0;
  gid_t owner_gid = 0;
  std::string job;
  bool incremental = true;  // offer the chunks of the owner's images
};

// One use of an image; see Store::Lease and Store::Keep.
struct PinInfo {
  std::string pin;  // empty for leases of this process
  std::string image;
  std::string holder;
  std::string reason;
  std::uint64_t created_ms = 0;
};

// Keeps an image from being removed while it lives.
class ImageLease {
 public:
  ImageLease() = default;
  ImageLease(ImageLease&& other) noexcept
      : store_(std::exchange(other.store_, nullptr)), number_(other.number_) {}
  ImageLease& operator=(ImageLease&& other) noexcept {
    if (this != &other) {
      Release();
      store_ = std::exchange(other.store_, nullptr);
      number_ = other.number_;
    }
    return *this;
  }
  ~ImageLease() { Release(); }
  void Release();

 private:
  friend class Store;
  ImageLease(Store* store, std::uint64_t number)
      : store_(store), number_(number) {}
  Store* store_ = nullptr;
  std::uint64_t number_ = 0;
};

struct VerifyOptions {
  const std::atomic<bool>* cancel = nullptr;  // kAborted once it is true
  // Bytes of memory checked so far.
  std::function<void(std::uint64_t)> progress;
};

struct VerifyReport {
  std::uint64_t files = 0;
  std::uint64_t chunks = 0;
  std::uint64_t bytes = 0;  // of memory
  std::uint64_t problems = 0;
  std::vector<std::string> first_problems;  // up to 100
};

// Bytes of two images' memory, compared place by place.
struct DiffReport {
  std::uint64_t same_bytes = 0;
  std::uint64_t changed_bytes = 0;
  std::uint64_t only_a_bytes = 0;
  std::uint64_t only_b_bytes = 0;
  std::vector<std::string> differences;  // in what is not memory, in words
};

struct GcOptions {
  // kAborted soon after it is true; what was freed by then stays free, and the
  // rest is found again.
  const std::atomic<bool>* cancel = nullptr;
  // The same, for who has to be asked.
  std::function<bool()> cancelled = nullptr;
};

struct GcReport {
  std::uint64_t removed_packs = 0;
  std::uint64_t removed_images = 0;  // out of the trash
  std::uint64_t freed_bytes = 0;     // of disk, holes included
  std::string held_back;  // not empty: why nothing but trash was removed
};

// What Open found and cleared away.
struct RecoveryReport {
  std::uint64_t drafts = 0;   // checkpoints that a crash cut short
  std::uint64_t trash = 0;    // images removed, but not yet from the disk
  std::uint64_t damaged = 0;  // images whose manifest cannot be read
};

class Store {
 public:
  // Creates the directory if need be. kBusy when another process uses it.
  static Result<std::unique_ptr<Store>> Open(const std::string& path,
                                             const StoreOptions& options = {});
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  [[nodiscard]] const RecoveryReport& recovery() const { return recovery_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const StoreId& id() const { return id_; }
  [[nodiscard]] std::uint64_t digest_seed() const { return digest_seed_; }
  // Of this store alone: what it exports is known again by it.
  [[nodiscard]] const Secret& export_key() const { return export_key_; }
  [[nodiscard]] std::uint32_t chunk_bytes() const {
    return options_.chunk_bytes;
  }

  // A new image, invisible until it is sealed.
  Result<std::unique_ptr<Draft>> BeginImage(const DraftOptions& options)
      POS_EXCLUDES(mu_);

  // Oldest first; all owners' without a uid.
  [[nodiscard]] std::vector<ImageSummary> List(
      std::optional<uid_t> owner = {}) const POS_EXCLUDES(mu_);
  Result<ImageSummary> Find(const std::string& image) const POS_EXCLUDES(mu_);
  Result<Manifest> Show(const std::string& image) const POS_EXCLUDES(mu_);
  // With a lease on it.
  Result<std::unique_ptr<ImageHandle>> OpenImage(const std::string& image,
                                                 const std::string& holder)
      POS_EXCLUDES(mu_);
  // Reads every byte of it. An error only when it could not be done; what is
  // wrong with the image is in the report.
  Result<VerifyReport> Verify(const std::string& image,
                              const VerifyOptions& options = {})
      POS_EXCLUDES(mu_);
  Result<DiffReport> Diff(const std::string& a, const std::string& b)
      POS_EXCLUDES(mu_);

  // The image is gone at once, its space with the next Gc. kBusy while a
  // lease or pin holds it, naming the holder. Chunks that a running
  // checkpoint relies on stay. Another error with the image gone: a crash
  // before the next Gc may bring it back, whole.
  Status Remove(const std::string& image) POS_EXCLUDES(mu_);
  // Removes the oldest images of a job but the last `keep`; what has a tag or
  // is held stays and does not count. Returns what was removed.
  Result<std::vector<std::string>> Expire(uid_t owner, const std::string& job,
                                          std::size_t keep) POS_EXCLUDES(mu_);
  // The same for the images of a series (kSeriesAttachment).
  Result<std::vector<std::string>> ExpireSeries(uid_t owner,
                                                const std::string& series,
                                                std::size_t keep)
      POS_EXCLUDES(mu_);
  // kBusy while another Gc runs.
  Result<GcReport> Gc(const GcOptions& options = {}) POS_EXCLUDES(mu_);

  // For as long as the lease lives.
  Result<ImageLease> Lease(const std::string& image, const std::string& holder)
      POS_EXCLUDES(mu_);
  // Until Drop, across restarts: what a lazy restore relies on. The caller's
  // journal knows the pin.
  Result<std::string> Keep(const std::string& image, const std::string& holder,
                           const std::string& reason) POS_EXCLUDES(mu_);
  // After an error the pin holds, and Drop may be tried again.
  Status Drop(const std::string& pin) POS_EXCLUDES(mu_);
  [[nodiscard]] std::vector<PinInfo> Pins() const POS_EXCLUDES(mu_);

 private:
  friend class Draft;
  friend class ImageLease;
  friend class Collector;
  friend class ChunkHold;

  Store(std::string path, const StoreOptions& options)
      : path_(std::move(path)), options_(options) {}

  // Open's steps.
  Status TakeLock();
  Status LoadIdentity();
  Status LoadExportKey();
  Status ClearLeftovers();
  Status LoadPins();
  Status LoadImages();

  [[nodiscard]] std::string ImageDir(const std::string& image) const;
  [[nodiscard]] std::string TrashDir(const std::string& image) const;
  [[nodiscard]] std::string DraftDir(const std::string& image) const;
  [[nodiscard]] std::string PackPath(const PackId& pack) const;
  [[nodiscard]] std::string PinPath(const std::string& pin) const;
  void Step(std::string_view name) const {
    if (options_.on_step) options_.on_step(name);
  }
  // Where the image is, in the trash too.
  Result<std::string> DirectoryOf(const std::string& image) const;
  Result<Manifest> ReadManifestOf(const std::string& image) const;
  [[nodiscard]] static ImageSummary Summarize(const Manifest& m);
  // The first holder of `image`, if any.
  [[nodiscard]] const PinInfo* HolderOf(const std::string& image) const
      POS_REQUIRES(mu_);
  void ReleaseLease(std::uint64_t number) POS_EXCLUDES(mu_);
  // What has been moved to the trash is there after a crash, too.
  [[nodiscard]] Status SyncRemovals() const;

  const std::string path_;
  const StoreOptions options_;
  UniqueFd lock_;
  StoreId id_;
  std::uint64_t digest_seed_ = 0;
  Secret export_key_;
  RecoveryReport recovery_;

  mutable Mutex mu_;
  std::map<std::string, ImageSummary> images_ POS_GUARDED_BY(mu_);
  // Removed from images_, still in the trash directory.
  std::set<std::string> trash_ POS_GUARDED_BY(mu_);
  // Uses that forbid Remove: leases of this process and kept pins.
  std::map<std::uint64_t, PinInfo> leases_ POS_GUARDED_BY(mu_);
  std::map<std::string, PinInfo> pins_ POS_GUARDED_BY(mu_);
  std::uint64_t next_lease_ POS_GUARDED_BY(mu_) = 1;
  // Uses that only keep an image's files and chunks on the disk: by drafts
  // that were offered them, by Gc while it reads, by Remove until it is done.
  std::multiset<std::string> holds_ POS_GUARDED_BY(mu_);
  // Packs of drafts: Gc leaves them alone.
  std::set<PackId> draft_packs_ POS_GUARDED_BY(mu_);
  std::uint64_t last_id_ms_ POS_GUARDED_BY(mu_) = 0;
  bool gc_running_ POS_GUARDED_BY(mu_) = false;
};

}  // namespace pos::ckpt

#endif  // CKPT_STORE_STORE_H_
