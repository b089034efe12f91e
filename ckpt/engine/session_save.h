// Writes a session to the files of an image: at a cut (stop), after one while
// the job runs on (cow), or before one while it still runs (recopy).
//
//   auto save = SessionSave::Create(session, std::move(files), options);
//
//   stop     CopyAtCut                    at the cut
//   cow      BeginCow                     at the cut
//            FinishCow                    once the session runs again
//   recopy   CopyRounds                   while it runs
//            CopyAtCut                    at the cut: what differs
//
//   all      CopyHost                     once the client's processes are
//   frozen
//            Finish                       index, pack, fsync
//
// What makes an image right is that the digest of every copy is that of the
// memory at the cut. A cow whose copies are not (counts().unforeseen_chunks) is
// of no use as it is: CopyRounds and CopyAtCut, at another cut, go on from what
// it has copied.
//
// Threads:  one at a time. "At the cut" the session is paused from before until
//           after; otherwise the controlling thread leaves the pipeline alone
//           meanwhile (Session::WhileStill).
// Memory:   the pack writer's, 130 bytes for each chunk, and the state itself
//           (handles, pending calls; their size is bounded by the client's
//           staging and the number of its handles). On the device up to
//           `shadow_bytes`, and a context.
// Blocking: at the disk's pace; a cancel is noticed at the next chunk, Abort at
//           once.
// Errors:   the first one ends the save; the caller drops the object, and the
//           draft of the image with it. The session is unharmed: with the
//           object its hold on the session's calls ends.
#ifndef CKPT_ENGINE_SESSION_SAVE_H_
#define CKPT_ENGINE_SESSION_SAVE_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ckpt/engine/chunk_table.h"
#include "ckpt/engine/live_copy.h"
#include "ckpt/pack/session_writer.h"
#include "pos/base/status.h"
#include "pos/runner/session.h"

namespace pos::ckpt {

struct SaveOptions {
  PackWriterOptions pack;
  // Device memory to preserve chunks in, of each device, at most.
  std::uint64_t shadow_bytes = 256u << 20;
  std::uint32_t max_rounds = 8;
  // So little is left to the cut.
  std::uint64_t small_bytes = 16u << 20;
};

struct SaveCounts {
  std::uint64_t unforeseen_chunks = 0;
  std::uint32_t rounds = 0;
  // What the last round left to the cut, and whether it was little.
  std::uint64_t left_bytes = 0;
  bool converged = false;
  std::uint64_t digest_ns = 0;  // of all memory, at the last cut
  // The device let memory be copied beside the job. Else all is copied in the
  // cut.
  bool beside = false;
};

class SessionSave {
 public:
  static Result<std::unique_ptr<SessionSave>> Create(
      Session* session, SessionFiles files, const SaveOptions& options);
  ~SessionSave();
  SessionSave(const SessionSave&) = delete;
  SessionSave& operator=(const SessionSave&) = delete;

  Status CopyAtCut(const std::atomic<bool>* cancel);
  Status BeginCow(const std::atomic<bool>* cancel);
  Status FinishCow(const std::atomic<bool>* cancel);
  Status CopyRounds(const std::atomic<bool>* cancel);
  Status CopyHost(const std::atomic<bool>* cancel);
  Status Finish();
  // Any thread, during a step: it ends soon, with kAborted, though the disk
  // stands still. There is no other step.
  void Abort() { writer_->packs().Abort(); }
  // Between steps: aborts, and ends its hold on the session. What is returned
  // may wait for the disk when it is destroyed, on any thread.
  std::unique_ptr<SessionWriter> GiveUp();

  // Bytes read from device and host memory so far. Any thread.
  [[nodiscard]] std::uint64_t copied_bytes() const {
    return copied_bytes_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] const SaveCounts& counts() const { return counts_; }

 private:
  class RegionSink;
  struct HostRegion {
    Region region;
    std::shared_ptr<RegionSink> chunks;
  };

  SessionSave(Session* session, const SaveOptions& options)
      : session_(session), options_(options) {}
  Status SaveState();
  Status Digest(ChunkTable* table, const std::atomic<bool>* cancel);
  // Copies what is kLive and is not to be copied later. Paused.
  Status CopyStill(ChunkTable* table, bool hidden_only,
                   const std::atomic<bool>* cancel);
  Status CopyHostRegion(std::uint64_t address, std::uint64_t bytes,
                        const std::atomic<bool>* cancel);
  Status Watch(std::shared_ptr<ChunkTable> table, LiveCopy::Purpose purpose);
  // A round: what is to be copied is known, and the session is watched; what
  // is as it was copied is taken out.
  Status BeginRound();
  Status SkipUnchanged(const std::atomic<bool>* cancel);
  // Whether what is left had better be left to the cut.
  bool LastRound();
  // The session is nobody's but its client's again.
  void EndWatch();
  Status WriteIndex();

  Session* const session_;
  const SaveOptions options_;
  std::uint32_t chunk_bytes_ = 0;
  std::unique_ptr<SessionWriter> writer_;
  std::shared_ptr<ChunkTable> table_;
  std::unique_ptr<LiveCopy> live_;
  std::vector<HostRegion> host_;
  std::map<std::uint64_t, std::uint32_t> ranks_;  // of device memory
  Blob state_;
  Blob handles_;
  SaveCounts counts_;
  std::uint64_t last_round_bytes_ = 0;
  std::atomic<std::uint64_t> copied_bytes_{0};
};

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_SESSION_SAVE_H_
