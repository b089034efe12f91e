#include "ckpt/pack/io_queue.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <deque>

#include "ckpt/format/digest.h"
#include "pos/base/fd.h"

namespace pos::ckpt {
namespace {

// Does each operation when it is asked for.
class SyncQueue final : public IoQueue {
 public:
  Status Write(int fd, std::span<const std::byte> bytes, std::uint64_t offset,
               std::uint64_t cookie) override {
    done_.push_back({cookie, PwriteFull(fd, bytes, offset, "chunk")});
    return {};
  }
  Status Read(int fd, std::span<std::byte> bytes, std::uint64_t offset,
              std::uint64_t cookie) override {
    done_.push_back({cookie, PreadFull(fd, bytes, offset, "chunk")});
    return {};
  }
  Result<IoDone> Wait() override {
    if (done_.empty()) return Internal("nothing is in flight");
    IoDone done = std::move(done_.front());
    done_.pop_front();
    return done;
  }
  [[nodiscard]] bool Finished() override { return !done_.empty(); }
  [[nodiscard]] std::size_t in_flight() const override { return done_.size(); }
  [[nodiscard]] bool asynchronous() const override { return false; }
  [[nodiscard]] std::size_t depth() const override { return 1; }

 private:
  std::deque<IoDone> done_;
};

}  // namespace

Result<std::unique_ptr<IoQueue>> MakeIoQueue(IoKind kind, unsigned depth) {
  if (kind != IoKind::kSync) {
    std::unique_ptr<IoQueue> uring = MakeUringQueue(depth);
    if (uring != nullptr) return uring;
    if (kind == IoKind::kUring) {
      return Incompatible("io_uring is refused here",
                          "allow it in the seccomp filter and in "
                          "/proc/sys/kernel/io_uring_disabled");
    }
  }
  return std::unique_ptr<IoQueue>(std::make_unique<SyncQueue>());
}

bool EnableDirectIo(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return false;
  struct statx info {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
      (info.stx_mask & STATX_DIOALIGN) != 0 &&
      (info.stx_dio_mem_align == 0 || info.stx_dio_mem_align > kBlockBytes ||
       info.stx_dio_offset_align > kBlockBytes)) {
    return false;
  }
  return ::fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
}

}  // namespace pos::ckpt
