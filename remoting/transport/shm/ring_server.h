// The runner's end of a session's shared memory: takes frames off the ring in
// order, answers into reply slots, lends out staging.
//
// Threads:  Next, Publish and doorbell(): the front-end thread. Complete,
//           ReleaseLease, SetSticky, SetOutput, SetClosed, Bell: any thread.
// Blocking: nothing blocks.
// Trust:    every number read from shared memory is copied before it is
//           checked, and checked before it is used.
#ifndef REMOTING_TRANSPORT_SHM_RING_SERVER_H_
#define REMOTING_TRANSPORT_SHM_RING_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/queue/parker.h"
#include "remoting/transport/shm/mapping.h"
#include "remoting/wire/ring_layout.h"

namespace pos {

struct RingGeometry {
  std::uint64_t ring_bytes = 1 << 20;  // power of two, ≥ 256 KiB
  std::uint32_t slot_count = 256;
  std::uint64_t staging_bytes = 32 << 20;  // multiple of wire::kLeaseBytes
};

class RingServer {
 public:
  static Result<std::unique_ptr<RingServer>> Create(
      const RingGeometry& geometry);

  RingServer(const RingServer&) = delete;
  RingServer& operator=(const RingServer&) = delete;

  // Descriptors for the client; owned here.
  [[nodiscard]] int ring_fd() const { return ring_fd_.get(); }
  [[nodiscard]] int staging_fd() const { return staging_fd_.get(); }
  [[nodiscard]] int bell_fd() const { return bell_fd_.get(); }
  // What the client maps of ring_fd (once, without the mirror).
  [[nodiscard]] std::uint64_t ring_map_bytes() const { return ring_.bytes(); }
  [[nodiscard]] const RingGeometry& geometry() const { return geometry_; }
  // The mappings themselves, for a client in this process.
  [[nodiscard]] std::byte* ring_memory() const { return ring_.data(); }
  [[nodiscard]] std::byte* staging_memory() const { return staging_.data(); }

  enum class NextResult { kNone, kFrame, kCorrupt };
  // Size of the next complete frame without taking it, for the caller to find
  // room; kCorrupt when the client wrote an impossible size.
  NextResult PeekSize(std::uint32_t* frame_bytes);
  // Copies the frame that PeekSize found into `frame` (of that size), zeroes
  // its place and steps over it.
  void Take(std::span<std::byte> frame);
  // Tells waiting producers about the room made. Take does it now and then;
  // called before the consumer sleeps.
  void Publish();
  // True when a producer has reserved bytes that are not consumed yet.
  [[nodiscard]] bool HasReservations() const;
  // Where the consumer sleeps; the client rings it.
  Parker& doorbell() { return *doorbell_; }

  [[nodiscard]] bool ValidSlot(std::uint32_t slot) const {
    return slot < geometry_.slot_count;
  }
  // Answers the call that waits in `slot` (valid). `data` at most
  // wire::kSlotDataBytes.
  void Complete(std::uint32_t slot, std::int32_t result,
                std::span<const std::byte> data, std::uint64_t bulk_bytes);

  // The `bytes` of staging that start at unit `lease`; empty when that is not
  // inside the arena.
  [[nodiscard]] std::span<std::byte> Staging(std::uint32_t lease,
                                             std::uint64_t bytes) const;
  void ReleaseLease(std::uint32_t lease);

  void SetSticky(std::int32_t error);
  void SetOutput(bool waiting);
  void SetClosed();

 private:
  explicit RingServer(const RingGeometry& geometry) : geometry_(geometry) {}
  Status Init();
  void Bell();
  [[nodiscard]] wire::RingHeader* header() const;
  [[nodiscard]] wire::ReplySlot* slots() const;
  [[nodiscard]] std::atomic<std::uint32_t>* leases() const;

  const RingGeometry geometry_;
  UniqueFd ring_fd_;
  UniqueFd staging_fd_;
  UniqueFd bell_fd_;
  SharedMapping ring_;
  SharedMapping staging_;
  std::uint64_t ring_offset_ = 0;
  std::uint64_t slots_offset_ = 0;
  std::uint64_t leases_offset_ = 0;
  std::uint32_t lease_count_ = 0;
  std::uint64_t head_ = 0;          // consumed; ours, not the shared one
  std::uint64_t published_ = 0;     // last value the client was told
  std::optional<Parker> doorbell_;  // set by Init, over the shared word
};

}  // namespace pos

#endif  // REMOTING_TRANSPORT_SHM_RING_SERVER_H_
