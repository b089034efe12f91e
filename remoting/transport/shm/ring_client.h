// The client's end of a session's shared memory: writes frames, waits for
// replies, borrows staging.
//
// Threads:  Map and Unmap: one thread (the shim's control thread), while no
//           other is inside. Everything else: any number of threads at once.
// Blocking: Begin waits while the ring is full, until the runner makes room or
//           ends. Nothing else blocks.
// Order:    calls execute in the order of their reservations (Begin), so if
//           one call returned before another began, in whatever threads, the
//           first executes first.
// No third-party code: this is linked into the client library.
#ifndef REMOTING_TRANSPORT_SHM_RING_CLIENT_H_
#define REMOTING_TRANSPORT_SHM_RING_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/queue/parker.h"
#include "remoting/transport/shm/mapping.h"
#include "remoting/wire/ring_layout.h"

namespace pos {

class RingClient {
 public:
  RingClient() = default;
  RingClient(const RingClient&) = delete;
  RingClient& operator=(const RingClient&) = delete;

  Status Map(int ring_fd, std::uint64_t ring_map_bytes, int staging_fd,
             std::uint64_t staging_bytes);
  // Uses memory that somebody else has mapped, the ring twice in a row: a
  // client in the runner's own process (tests; ThreadSanitizer follows one
  // mapping).
  void Adopt(std::byte* ring, std::byte* staging);
  void Unmap();
  // Calls get request ids from `base` on; a new base for every Map keeps them
  // unique within the session.
  void SetRequestBase(std::uint64_t base) { request_base_ = base; }
  [[nodiscard]] bool mapped() const { return header_ != nullptr; }

  // Reserves a frame with room for `args_bytes` and `inline_bytes` behind its
  // header and returns it, everything but `commit` and the payload filled in;
  // nullptr when the runner is gone. The caller writes the payload and Commits.
  // args_bytes + inline_bytes must fit kMaxFrameBytes.
  wire::FrameHeader* Begin(std::uint16_t op, std::uint32_t args_bytes,
                           std::uint32_t inline_bytes);
  static std::byte* Args(wire::FrameHeader* frame) {
    return reinterpret_cast<std::byte*>(frame + 1);
  }
  void Commit(wire::FrameHeader* frame);

  [[nodiscard]] wire::ReplySlot& slot(std::uint32_t i) const {
    return slots_[i];
  }
  [[nodiscard]] std::uint32_t slot_count() const { return slot_count_; }
  [[nodiscard]] std::byte* Staging(std::uint32_t lease) const {
    return staging_at_ + std::uint64_t{lease} * wire::kLeaseBytes;
  }
  [[nodiscard]] std::uint32_t lease_count() const { return lease_count_; }
  [[nodiscard]] std::atomic<std::uint32_t>* leases() const { return leases_; }
  [[nodiscard]] std::atomic<std::uint32_t>* lease_waiters() const {
    return &header_->lease_waiters;
  }

  [[nodiscard]] std::int32_t sticky_error() const {
    return header_->sticky_error.load(std::memory_order_acquire);
  }
  // Text of kernels waits at the runner.
  [[nodiscard]] bool output_waits() const {
    return header_->output.load(std::memory_order_acquire) != 0;
  }
  [[nodiscard]] bool closed() const {
    return header_->closed.load(std::memory_order_acquire) != 0;
  }
  // The peer's process died without saying so: makes Begin give up.
  void MarkClosed() { header_->closed.store(1, std::memory_order_release); }

 private:
  SharedMapping ring_;
  SharedMapping staging_;
  wire::RingHeader* header_ = nullptr;
  wire::ReplySlot* slots_ = nullptr;
  std::atomic<std::uint32_t>* leases_ = nullptr;
  std::byte* frames_ = nullptr;
  std::byte* staging_at_ = nullptr;
  std::uint64_t ring_bytes_ = 0;
  std::uint32_t slot_count_ = 0;
  std::uint32_t lease_count_ = 0;
  std::uint64_t request_base_ = 0;
};

// Which units of the staging arena are lent to whom. The client decides, in
// its own memory; the runner says "consumed" by zeroing the word of a lease's
// first unit, which the next Acquire notices. Survives Unmap and Map (a
// checkpoint, a migration): Save before, Restore after.
//
// Threads: any, at once.
class StagingLeases {
 public:
  // A run of units with room for `bytes`; kNoLease when there is none now, and
  // for ever when `bytes` is 0 or more than the arena.
  std::uint32_t Acquire(RingClient* ring, std::uint64_t bytes)
      POS_EXCLUDES(mu_);
  // Gives back a lease that the client itself frees (bulk output).
  void Release(RingClient* ring, std::uint32_t lease) POS_EXCLUDES(mu_);

  // While no thread is inside: takes note of what the runner has freed, and a
  // copy of what is in the leases that are lent.
  void Save(RingClient* ring) POS_EXCLUDES(mu_);
  // Writes words and content of what is still lent into new shared memory,
  // which may be larger than before. kIncompatible when it is smaller.
  Status Restore(RingClient* ring) POS_EXCLUDES(mu_);

  // Number of units lent out; for tests.
  std::uint32_t UsedUnits(RingClient* ring) POS_EXCLUDES(mu_);

 private:
  void Sweep(RingClient* ring) POS_REQUIRES(mu_);
  void Free(std::uint32_t lease) POS_REQUIRES(mu_);

  Mutex mu_;
  // units_[i]: length of the lease that starts at unit i, else 0.
  std::vector<std::uint32_t> units_ POS_GUARDED_BY(mu_);
  std::vector<bool> used_ POS_GUARDED_BY(mu_);
  std::uint32_t next_ POS_GUARDED_BY(mu_) = 0;  // where to look first
  // Between Save and Restore: what was in the leases, in their order.
  std::vector<std::byte> content_ POS_GUARDED_BY(mu_);
};

}  // namespace pos

#endif  // REMOTING_TRANSPORT_SHM_RING_CLIENT_H_
