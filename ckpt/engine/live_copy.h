// Copies device memory to the pack while the job runs, as the session's
// MemoryWatch.
//
//   kPreserve (cow): the image shows the cut that has just been. Nobody may
//     write a chunk before its content is safe: a call that is about to gets
//     the chunk copied aside on the device first and waits for that on its
//     stream; where there is no room it waits here.
//   kTrack (recopy): the image will show a later cut. Copies are taken as they
//     come, and what is written meanwhile is marked dirty.
//
//   chunk: live ─> preserving ─> shadow ─> copying ─> done
//            └────────────────────────────────┘
//
// Neither believes what a call says of itself: the digest of every copy is
// compared with the memory's at the cut (chunk_table.h).
//
// Threads:  BeforeCall, Step, Idle: the worker's; all chunks' states are its
//           own, and all of the devices' work is submitted there, so that a
//           device is called by one thread. Run, GaveUp, Reclaim, and what
//           counts: any.
// Bounds:   kInFlight copies at once; application copies come first.
#ifndef CKPT_ENGINE_LIVE_COPY_H_
#define CKPT_ENGINE_LIVE_COPY_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ckpt/engine/chunk_table.h"
#include "ckpt/engine/copy_lane.h"
#include "pos/base/mutex.h"
#include "pos/worker/memory_watch.h"

namespace pos::ckpt {

class LiveCopy : public MemoryWatch {
 public:
  enum class Purpose : std::uint8_t { kPreserve, kTrack };
  static constexpr std::size_t kInFlight = 4;

  // Copies the chunks of `table` that are kLive. `session` is paused, and
  // outlives this; so does `writer`. Opens a lane to every device. Then the
  // session's SetWatch and SetReclaim are for the caller.
  static Result<std::unique_ptr<LiveCopy>> Open(
      Session* session, std::shared_ptr<ChunkTable> table, PackWriter* writer,
      Purpose purpose, std::uint64_t shadow_bytes);
  // Goes on with another table once Run has returned. The session is paused.
  void Start(std::shared_ptr<ChunkTable> table) POS_EXCLUDES(mu_);
  // Chunk `index`, which is kLive, need not be copied. Before Run, paused.
  void Skip(std::size_t index) POS_EXCLUDES(mu_);
  // Not the session's watch any more; the session is paused.
  ~LiveCopy() override;
  LiveCopy(const LiveCopy&) = delete;
  LiveCopy& operator=(const LiveCopy&) = delete;

  Verdict BeforeCall(const CallAccess& access) override;
  bool Step() override;

  // Feeds the copies with buffers until all chunks are copied and have their
  // results. kAborted when `*cancel` becomes true.
  Status Run(const std::atomic<bool>* cancel) POS_EXCLUDES(mu_);
  // The job needs memory of `device`. True when some will be given back: then
  // the session is woken when it has been. Any thread.
  bool Reclaim(int device);

  [[nodiscard]] std::uint64_t copied_bytes() const { return copied_bytes_; }
  // Kernels and calls that were handed to a device meanwhile; a few.
  [[nodiscard]] std::vector<std::string> SeenCalls() POS_EXCLUDES(mu_);

 private:
  struct Flight {
    Buffer buffer;
    std::size_t index = 0;
    bool busy = false;
  };
  struct Finished {
    std::uint64_t token;
    DeviceError error;
  };
  enum TokenKind : std::uint64_t { kCopied = 1, kPreserved = 2 };

  LiveCopy(Session* session, PackWriter* writer, Purpose purpose)
      : session_(session), writer_(writer), purpose_(purpose) {}
  void OnDone(std::uint64_t token, DeviceError error) POS_EXCLUDES(mu_);
  bool TakeFinished() POS_EXCLUDES(mu_);
  void OnCopied(std::size_t index);
  bool SubmitCopies() POS_EXCLUDES(mu_);
  bool CloseShadows();
  // The next chunk to be copied; false when there is none now.
  bool NextChunk(std::size_t* index);
  void SubmitCopy(std::size_t index, Buffer buffer);
  void Finish(Chunk* chunk);
  void Fail(const Status& why) POS_EXCLUDES(mu_);
  void Note(const CallAccess& access) POS_EXCLUDES(mu_);

  // What a call still needs.
  struct Needs {
    bool wait = false;        // it cannot go now
    bool copies = false;      // its stream waits for copies to the host
    bool preserving = false;  // its stream waits for copies aside
  };
  void Visit(std::size_t index, const CallAccess& access, Needs* needs);
  void VisitTracked(std::size_t index, const CallAccess& access, Needs* needs);
  template <typename Function>
  void ForEachWritten(const CallAccess& access, const Function& function);

  Session* const session_;
  std::shared_ptr<ChunkTable> table_;
  PackWriter* const writer_;
  const Purpose purpose_;
  std::vector<std::unique_ptr<CopyLane>> lanes_;  // by device

  // The worker's.
  std::vector<Flight> flights_{kInFlight};
  std::size_t in_flight_ = 0;
  std::size_t left_ = 0;    // chunks that are not done
  std::size_t unsafe_ = 0;  // of them, not in the shadow either
  std::size_t cursor_ = 0;
  std::deque<std::size_t> urgent_;
  std::deque<std::size_t> shadowed_;
  bool all_dirty_ = false;  // no chunk was copied since all were marked
  bool failed_ = false;
  std::string last_noted_;

  std::atomic<std::uint64_t> copied_bytes_{0};
  std::atomic<std::uint32_t> reclaim_{0};  // by device, a bit each
  std::atomic<std::uint32_t> has_shadow_{0};
  Mutex mu_;
  CondVar changed_;
  std::vector<Finished> finished_ POS_GUARDED_BY(mu_);
  std::vector<Finished> taken_;  // the worker's
  std::vector<Buffer> free_ POS_GUARDED_BY(mu_);
  // Chunks that still need a buffer.
  std::size_t unfed_ POS_GUARDED_BY(mu_) = 0;
  bool all_copied_ POS_GUARDED_BY(mu_) = false;
  Status status_ POS_GUARDED_BY(mu_);
  std::set<std::string> seen_ POS_GUARDED_BY(mu_);
};

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_LIVE_COPY_H_
