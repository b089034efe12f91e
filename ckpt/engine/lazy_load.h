// Loads the memory of a restored session while the session runs already.
//
//   auto load = LazyLoad::Create(std::move(image), targets, options);
//   load->LoadEager();          what the session cannot begin without
//   session->SetWatch(load);    and start it
//   load->Begin(hooks);         the rest, in the order of last use
//   … hooks.ended … load->progress().status
//
// A *unit* is loaded as a whole before the first call that touches any byte of
// it is handed to the device: an allocation, or all the mappings of the same
// physical memory (their content is one). So a chunk is never written after
// the session could have written it. A call with proven accesses waits for the
// units that it touches, and they come next; any other call waits for all.
//
// Memory that a call gives back is loaded no further, and the call waits until
// no byte of it is being written: what is in its place later is left alone.
//
// Threads:   Create, LoadEager, Begin, Stop: one controlling thread.
// BeforeCall:
//            the session's worker. progress: any. Hooks run on threads of this
//            or the worker's, and must neither block nor call in here.
// Ownership: has the image's descriptors. The devices must outlive Stop, the
//            memory of the targets must stay mapped until a release of it was
//            let go by BeforeCall, or Stop has returned.
// Memory:    for each thread two chunks; 100 bytes an allocation; the index's
//            marks (ChunkMap).
// Blocking:  BeforeCall never. LoadEager at the disk's pace. Stop: for the
//            chunks that are being read.
// Errors:    the first ends the loading; progress() has it. A call that waits
//            then waits for ever: the session is lost and has to be ended.
//
// Test: tests/ckpt/engine/lazy_load_test.cc
#ifndef CKPT_ENGINE_LAZY_LOAD_H_
#define CKPT_ENGINE_LAZY_LOAD_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "ckpt/engine/session_image.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/device/device.h"
#include "pos/worker/memory_watch.h"

namespace pos::ckpt {

struct LazyLoadOptions {
  // What is loaded behind the session's back, bytes of its memory a second.
  std::uint64_t bytes_per_second = 0;  // 0: no limit
  unsigned threads = 0;                // 0: by the number of processors, 2 to 4
};

class LazyLoad : public MemoryWatch {
 public:
  // Where a region of the image belongs, at the region's address.
  struct Target {
    std::size_t region = 0;    // in ChunkMap::regions()
    Device* device = nullptr;  // null: memory of this process
    bool eager = false;
    // Not 0: regions with the same number are mappings of the same memory.
    std::uint64_t shared = 0;
  };
  struct Hooks {
    // A call that was told to wait may be asked about again.
    std::function<void()> wake;
    // Everything is loaded, or there was an error. Once.
    std::function<void()> ended;
  };
  struct Progress {
    std::uint64_t loaded_bytes = 0;  // of data; zeros are not counted
    std::uint64_t total_bytes = 0;
    bool ended = false;
    Status status;
  };

  // Regions that no target names are not loaded. kCorrupt when a chunk lies
  // outside its pack: all that can be known of chunks without reading them.
  static Result<std::unique_ptr<LazyLoad>> Create(
      std::unique_ptr<SessionImage> image, const std::vector<Target>& targets,
      const LazyLoadOptions& options);
  ~LazyLoad() override;
  LazyLoad(const LazyLoad&) = delete;
  LazyLoad& operator=(const LazyLoad&) = delete;

  // Loads the eager targets.
  Status LoadEager() POS_EXCLUDES(mu_);
  void Begin(Hooks hooks) POS_EXCLUDES(mu_);
  // Ends the threads; nothing is written from here on. Idempotent.
  void Stop() POS_EXCLUDES(mu_);

  Verdict BeforeCall(const CallAccess& access) override POS_EXCLUDES(mu_);

  [[nodiscard]] Progress progress() const POS_EXCLUDES(mu_);

 private:
  // A mapped range of the image, by address; `gone` once it was given back.
  struct Place {
    std::uint64_t end = 0;
    std::size_t unit = 0;
    bool gone = false;
  };
  struct Unit {
    std::uint64_t data_bytes = 0;
    std::uint64_t taken_bytes = 0;  // handed out as pieces
    std::uint64_t loaded_bytes = 0;
    std::uint32_t rank = ~0u;   // of its latest chunk
    std::uint32_t flying = 0;   // pieces being read or written
    std::uint32_t writing = 0;  // of those, being written
    bool eager = false;
    bool shared = false;
    bool wanted = false;   // a call waits for it
    bool dropped = false;  // its memory was given back
    bool complete = false;
  };
  // Where loading of a unit has got to. Of who holds plan_mu_.
  struct Cursor {
    std::vector<Target> targets;
    std::size_t target = 0;
    std::uint64_t offset = 0;
  };
  struct Piece {
    std::size_t unit = 0;
    Target target;
    ChunkEntry entry;
  };

  explicit LazyLoad(std::unique_ptr<SessionImage> image,
                    const LazyLoadOptions& options)
      : image_(std::move(image)), options_(options) {}
  Status MakePlan(const std::vector<Target>& targets)
      POS_EXCLUDES(plan_mu_, mu_);
  void MakeUnits(const std::vector<Target>& targets)
      POS_REQUIRES(plan_mu_, mu_);
  // Reads the index: sizes, order, and whether chunks can be where it says.
  Status ReadIndex() POS_REQUIRES(plan_mu_, mu_);
  void OrderUnits() POS_REQUIRES(mu_);
  Status StartThreads();

  // Threads of this.
  void Run();
  // The next piece; false when there is none any more.
  Result<bool> Take(Piece* piece) POS_EXCLUDES(plan_mu_, mu_);
  // Waits for a unit with something left to load; false: there is none.
  bool ChooseUnit(std::size_t* unit) POS_REQUIRES(plan_mu_) POS_EXCLUDES(mu_);
  // As far as what may be loaded now goes; units_.size(): nothing.
  std::size_t NextUnit() POS_REQUIRES(mu_);
  // How long until the limit allows another piece.
  [[nodiscard]] std::uint64_t LimitLeftNs() const POS_REQUIRES(mu_);
  Status NextEntry(std::size_t unit, Piece* piece) POS_REQUIRES(plan_mu_);
  Status LoadPiece(const Piece& piece, ChunkMap::Reader* reader)
      POS_EXCLUDES(mu_);
  // `began`: a write of it was. `written`: and has succeeded.
  void EndPiece(const Piece& piece, bool began, bool written) POS_EXCLUDES(mu_);
  void Fail(const Status& status) POS_EXCLUDES(mu_);

  // What is to be called when mu_ was let go.
  struct Calls {
    bool wake = false;
    bool ended = false;
  };
  void CompleteIfDone(std::size_t unit, Calls* calls) POS_REQUIRES(mu_);
  void Make(const Calls& calls) POS_EXCLUDES(mu_);

  // BeforeCall's: true when there is nothing to wait for.
  bool WantAll() POS_REQUIRES(mu_);
  bool Want(std::size_t unit) POS_REQUIRES(mu_);
  bool WantRange(const MemoryRange& range) POS_REQUIRES(mu_);
  bool Release(const MemoryRange& range, Calls* calls) POS_REQUIRES(mu_);
  // The first place that ends behind `address`.
  std::map<std::uint64_t, Place>::iterator PlaceAt(std::uint64_t address)
      POS_REQUIRES(mu_);

  const std::unique_ptr<SessionImage> image_;
  const LazyLoadOptions options_;
  std::vector<std::thread> threads_;
  // Everything is loaded: nothing has to be asked any more.
  std::atomic<bool> all_loaded_{false};

  // Held while the next piece is chosen and found in the index. Before mu_.
  Mutex plan_mu_;
  std::vector<Cursor> cursors_ POS_GUARDED_BY(plan_mu_);

  mutable Mutex mu_;
  CondVar changed_;
  std::vector<Unit> units_ POS_GUARDED_BY(mu_);
  std::map<std::uint64_t, Place> places_ POS_GUARDED_BY(mu_);
  std::vector<std::size_t> order_ POS_GUARDED_BY(mu_);  // of last use
  std::size_t next_ POS_GUARDED_BY(mu_) = 0;            // in order_
  std::deque<std::size_t> wanted_ POS_GUARDED_BY(mu_);
  std::size_t left_ POS_GUARDED_BY(mu_) = 0;  // units not complete
  std::size_t shared_left_ POS_GUARDED_BY(mu_) = 0;
  std::size_t wanted_left_ POS_GUARDED_BY(mu_) = 0;  // not complete
  std::uint64_t loaded_bytes_ POS_GUARDED_BY(mu_) = 0;
  std::uint64_t total_bytes_ POS_GUARDED_BY(mu_) = 0;
  std::uint64_t free_at_ns_ POS_GUARDED_BY(mu_) = 0;  // the limit's
  bool call_waits_ POS_GUARDED_BY(mu_) = false;
  bool waits_for_all_ POS_GUARDED_BY(mu_) = false;  // that call
  bool begun_ POS_GUARDED_BY(mu_) = false;
  bool stopped_ POS_GUARDED_BY(mu_) = false;
  bool ended_ POS_GUARDED_BY(mu_) = false;
  Hooks hooks_ POS_GUARDED_BY(mu_);
  Status status_ POS_GUARDED_BY(mu_);
};

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_LAZY_LOAD_H_
