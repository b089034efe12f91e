#include <liburing.h>

#include <cerrno>
#include <vector>

#include "ckpt/pack/io_queue.h"
#include "pos/base/clock.h"
#include "pos/base/sanitizers.h"

#if defined(POS_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
#endif

namespace pos::ckpt {
namespace {

// liburing maps and unmaps rings without libc, so ThreadSanitizer does not see
// that a ring at the address of an earlier one comes after it. These say so.
#if defined(POS_THREAD_SANITIZER)
char g_rings;
void BeforeRing() { __tsan_acquire(&g_rings); }
void AfterRing() { __tsan_release(&g_rings); }
#else
void BeforeRing() {}
void AfterRing() {}
#endif

// How long a queue that is destroyed waits for what it has in flight. Memory
// of a direct transfer is pinned by the kernel, so giving up is safe.
constexpr std::uint64_t kDrainMs = 10000;
constexpr unsigned kSubmitTries = 1000;

class UringQueue final : public IoQueue {
 public:
  static std::unique_ptr<UringQueue> Make(unsigned depth) {
    std::unique_ptr<UringQueue> queue(new UringQueue(depth));
    io_uring_params params{};
    if (::io_uring_queue_init_params(depth, &queue->ring_, &params) != 0) {
      return nullptr;
    }
    BeforeRing();
    queue->open_ = true;
    // Waiting with a time-out without a request of its own (Linux 5.11).
    if ((params.features & IORING_FEAT_EXT_ARG) == 0) return nullptr;
    return queue;
  }

  ~UringQueue() override {
    if (!open_) return;
    const Deadline deadline = Deadline::AfterMs(kDrainMs);
    while (in_flight_ > 0 && !deadline.Passed()) {
      if (!Reap(deadline.LeftNs()).ok()) break;
    }
    AfterRing();
    ::io_uring_queue_exit(&ring_);
  }
  UringQueue(const UringQueue&) = delete;
  UringQueue& operator=(const UringQueue&) = delete;

  Status Write(int fd, std::span<const std::byte> bytes, std::uint64_t offset,
               std::uint64_t cookie) override {
    // One request type for both directions; a write does not write to it.
    return Start({fd, const_cast<std::byte*>(bytes.data()), bytes.size(),
                  offset, cookie, true, true});
  }
  Status Read(int fd, std::span<std::byte> bytes, std::uint64_t offset,
              std::uint64_t cookie) override {
    return Start({fd, bytes.data(), bytes.size(), offset, cookie, false, true});
  }
  Result<IoDone> Wait() override { return Reap(kIoStallMs * 1000000); }
  [[nodiscard]] bool Finished() override {
    return ::io_uring_cq_ready(&ring_) > 0;
  }
  [[nodiscard]] std::size_t in_flight() const override { return in_flight_; }
  [[nodiscard]] bool asynchronous() const override { return true; }
  [[nodiscard]] std::size_t depth() const override { return slots_.size(); }

 private:
  // What is left of one operation.
  struct Slot {
    int fd = -1;
    std::byte* data = nullptr;
    std::size_t bytes = 0;
    std::uint64_t offset = 0;
    std::uint64_t cookie = 0;
    bool write = false;
    bool used = false;
  };

  explicit UringQueue(unsigned depth) : slots_(depth) {}

  Status Start(const Slot& operation) {
    for (Slot& slot : slots_) {
      if (slot.used) continue;
      slot = operation;
      const Status status = Submit(&slot);
      slot.used = status.ok();
      if (status.ok()) ++in_flight_;
      return status;
    }
    return Internal("an I/O queue is full");
  }

  Status Submit(Slot* slot) {
    io_uring_sqe* const sqe = ::io_uring_get_sqe(&ring_);
    if (sqe == nullptr) return Internal("io_uring has no free request");
    // The kernel takes 32-bit lengths; chunks are far smaller.
    const auto bytes = static_cast<unsigned>(slot->bytes);
    if (slot->write) {
      ::io_uring_prep_write(sqe, slot->fd, slot->data, bytes, slot->offset);
    } else {
      ::io_uring_prep_read(sqe, slot->fd, slot->data, bytes, slot->offset);
    }
    ::io_uring_sqe_set_data(sqe, slot);
    int rc = 0;
    for (unsigned tries = 0; tries < kSubmitTries; ++tries) {
      rc = ::io_uring_submit(&ring_);
      if (rc > 0) return {};
      if (rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) break;
      if (rc != -EINTR) SleepNs(1000000);  // the kernel is short of memory
    }
    return ErrnoStatus(rc < 0 ? -rc : EIO, "io_uring_submit");
  }

  // The next operation to finish; goes on with the rest of short transfers.
  Result<IoDone> Reap(std::uint64_t timeout_ns) {
    const Deadline deadline = Deadline::After(timeout_ns);
    while (in_flight_ > 0) {
      io_uring_cqe* cqe = nullptr;
      const std::uint64_t left = deadline.LeftNs();
      __kernel_timespec ts{};
      ts.tv_sec = static_cast<long long>(left / 1000000000u);
      ts.tv_nsec = static_cast<long long>(left % 1000000000u);
      const int rc = ::io_uring_wait_cqe_timeout(&ring_, &cqe, &ts);
      if (rc == -EINTR || rc == -EAGAIN) continue;
      if (rc == -ETIME) {
        return Timeout("no transfer has finished for " +
                           std::to_string(timeout_ns / 1000000000u) + " s",
                       "the storage hangs; see the kernel log");
      }
      if (rc != 0) return ErrnoStatus(-rc, "io_uring_wait_cqe");
      Slot* const slot = static_cast<Slot*>(::io_uring_cqe_get_data(cqe));
      const int result = cqe->res;
      ::io_uring_cqe_seen(&ring_, cqe);
      Status status = OnResult(slot, result);
      if (status.ok() && slot->bytes > 0) {
        status = Submit(slot);
        if (status.ok()) continue;
      }
      slot->used = false;
      --in_flight_;
      return IoDone{slot->cookie, std::move(status)};
    }
    return Internal("nothing is in flight");
  }

  static Status OnResult(Slot* slot, int result) {
    const char* const what = slot->write ? "write chunk" : "read chunk";
    if (result == -EINTR || result == -EAGAIN) return {};
    if (result < 0) return ErrnoStatus(-result, what);
    if (result == 0) {
      return slot->write
                 ? ErrnoStatus(ENOSPC, what)
                 : Corrupt("read chunk: file ends at byte " +
                           std::to_string(slot->offset) + ", " +
                           std::to_string(slot->bytes) + " bytes too early");
    }
    const auto moved = static_cast<std::size_t>(result);
    slot->data += moved;
    slot->bytes -= moved;
    slot->offset += moved;
    return {};
  }

  io_uring ring_{};
  bool open_ = false;
  std::vector<Slot> slots_;  // addresses are given to the kernel
  std::size_t in_flight_ = 0;
};

}  // namespace

std::unique_ptr<IoQueue> MakeUringQueue(unsigned depth) {
  return UringQueue::Make(depth);
}

}  // namespace pos::ckpt
