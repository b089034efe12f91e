// POS's own way to one device beside the application's work: a context of its
// own with two streams that nothing of the application's is ordered against,
// and a bounded piece of device memory to preserve chunks in.
//
// Threads:  the worker's, or any while the session is paused (pos/device/
//           device.h: one thread at a time). Completions are reported to
//           `done` on threads of the device.
// Ownership: the session outlives it. Destroyed while the session is paused;
//           that ends the copies that still run.
// Blocking: Open asks posd for memory (bounded); nothing else waits.
#ifndef CKPT_ENGINE_COPY_LANE_H_
#define CKPT_ENGINE_COPY_LANE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "pos/base/status.h"
#include "pos/device/device.h"
#include "pos/graph/address_space.h"
#include "pos/runner/session.h"

namespace pos::ckpt {

class CopyLane {
 public:
  using DoneFunction = std::function<void(std::uint64_t, DeviceError)>;
  // `shadow_bytes`: how much memory to preserve chunks in, at most; less where
  // the device has less, or none. `buffers`: where copies to this process will
  // go; a driver copies there without a detour once it knows.
  static Result<std::unique_ptr<CopyLane>> Open(Session* session, int device,
                                                std::uint64_t shadow_bytes,
                                                std::span<std::byte> buffers,
                                                DoneFunction done);
  ~CopyLane();
  CopyLane(const CopyLane&) = delete;
  CopyLane& operator=(const CopyLane&) = delete;

  // To memory of this process, one after the other. `token` goes to `done`.
  void CopyOut(DeviceAddress from, void* to, std::uint64_t bytes,
               std::uint64_t token);
  // To a place in the shadow; nullopt when there is no room.
  std::optional<DeviceAddress> Preserve(DeviceAddress from, std::uint64_t bytes,
                                        std::uint64_t token);
  void FreeShadow(DeviceAddress place) { shadow_->Free(place); }
  // Later work of `stream`, which is of the same device, waits for what was
  // submitted by CopyOut, by Preserve so far.
  void MakeWaitForCopies(DeviceStream* stream);
  void MakeWaitForPreserving(DeviceStream* stream);

  // Whether memory for preserving is there, and how much of it is in use.
  [[nodiscard]] bool has_shadow() const { return shadow_bytes_ != 0; }
  [[nodiscard]] std::uint64_t shadow_bytes() const { return shadow_bytes_; }
  [[nodiscard]] std::uint64_t shadow_used() const {
    return shadow_ ? shadow_->used_bytes() : 0;
  }
  // Nothing is preserved from now on. Once nothing is in use the memory goes
  // back, and this returns true.
  bool CloseShadow();

 private:
  class Sink : public CompletionSink {
   public:
    explicit Sink(DoneFunction done) : done_(std::move(done)) {}
    void OnComplete(std::uint64_t token, DeviceError error) override {
      done_(token, error);
    }
    void OnDeviceOutput(OutputKind, std::string_view) override {}

   private:
    const DoneFunction done_;
  };

  CopyLane(Session* session, int device, DoneFunction done)
      : session_(session), device_(device), sink_(std::move(done)) {}
  Status Init(std::uint64_t shadow_bytes);
  void Pin(std::span<std::byte> buffers);
  Status OpenShadow(std::uint64_t bytes);
  void ReturnShadowMemory();

  Session* const session_;
  const int device_;
  Sink sink_;
  std::unique_ptr<DeviceContext> context_;
  std::unique_ptr<DeviceStream> out_;
  std::unique_ptr<DeviceStream> preserve_;
  std::unique_ptr<DeviceEvent> copied_;
  std::unique_ptr<DeviceEvent> preserved_;
  std::span<std::byte> pinned_;
  DeviceAddress shadow_at_ = 0;     // of the range; 0: there is none
  std::uint64_t shadow_bytes_ = 0;  // that are mapped there
  bool closed_ = false;
  std::optional<AddressSpace> shadow_;
};

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_COPY_LANE_H_
