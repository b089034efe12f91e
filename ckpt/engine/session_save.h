// Writes a quiesced session to the files of an image.
//
//   auto save = SessionSave::Create(session, std::move(files), options);
//   save->CopyDevice(&cancel);     // device memory and state
//   save->CopyHost(&cancel);       // once the client's processes are frozen
//   save->Finish();                // index, pack, fsync
//
// Threads:  one at a time. The session stays paused from Create to CopyHost.
// Memory:   the pack writer's, 56 bytes for each chunk, and the state itself
//           (handles, pending calls; their size is bounded by the client's
//           staging and the number of its handles).
// Blocking: at the disk's pace; a cancel is noticed at the next chunk.
// Errors:   the first one ends the save; the caller drops the object, and the
//           draft of the image with it. The session is unharmed.
#ifndef CKPT_ENGINE_SESSION_SAVE_H_
#define CKPT_ENGINE_SESSION_SAVE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "ckpt/pack/session_writer.h"
#include "pos/base/status.h"
#include "pos/runner/session.h"

namespace pos::ckpt {

class SessionSave {
 public:
  static Result<std::unique_ptr<SessionSave>> Create(
      Session* session, SessionFiles files, const PackWriterOptions& options);
  ~SessionSave();
  SessionSave(const SessionSave&) = delete;
  SessionSave& operator=(const SessionSave&) = delete;

  Status CopyDevice(const std::atomic<bool>* cancel);
  Status CopyHost(const std::atomic<bool>* cancel);
  Status Finish();

  // Bytes read from device and host memory so far. Any thread.
  [[nodiscard]] std::uint64_t copied_bytes() const {
    return copied_bytes_.load(std::memory_order_relaxed);
  }

 private:
  class RegionSink;
  struct SavedRegion {
    Region region;
    std::shared_ptr<RegionSink> chunks;
  };

  explicit SessionSave(Session* session) : session_(session) {}
  // Copies [address, address + bytes) through `read`.
  template <typename Read>
  Status CopyRegion(const Region& region, const Read& read,
                    const std::atomic<bool>* cancel);
  Status WriteIndex();

  Session* const session_;
  std::uint32_t chunk_bytes_ = 0;
  std::unique_ptr<SessionWriter> writer_;
  std::vector<SavedRegion> regions_;
  Blob state_;
  Blob handles_;
  std::atomic<std::uint64_t> copied_bytes_{0};
};

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_SESSION_SAVE_H_
