#include "ckpt/pack/buffer_pool.h"

#include <sys/mman.h>

#include <cerrno>
#include <chrono>

#include "pos/base/clock.h"

namespace pos::ckpt {

void Buffer::Release() {
  if (pool_ != nullptr) pool_->Return(bytes_);
  pool_ = nullptr;
  bytes_ = {};
}

Result<std::unique_ptr<BufferPool>> BufferPool::Create(std::size_t buffer_bytes,
                                                       std::size_t count) {
  const std::size_t size = buffer_bytes * count;
  void* const map = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) {
    return ErrnoStatus(errno, "map " + std::to_string(size) + " bytes");
  }
  // Both only make it better: fewer TLB misses, and no copy in a child.
  ::madvise(map, size, MADV_HUGEPAGE);
  ::madvise(map, size, MADV_DONTFORK);
  return std::unique_ptr<BufferPool>(new BufferPool(
      {static_cast<std::byte*>(map), size}, buffer_bytes, count));
}

BufferPool::BufferPool(std::span<std::byte> region, std::size_t buffer_bytes,
                       std::size_t count)
    : region_(region), buffer_bytes_(buffer_bytes), count_(count) {
  for (std::size_t i = count; i-- > 0;) {
    free_.push_back(region.data() + i * buffer_bytes);
  }
}

BufferPool::~BufferPool() { ::munmap(region_.data(), region_.size()); }

Result<Buffer> BufferPool::Acquire(std::uint64_t timeout_ms) {
  const Deadline deadline = Deadline::AfterMs(timeout_ms);
  MutexLock lock(&mu_);
  while (free_.empty() && closed_.ok()) {
    if (deadline.Passed()) {
      return Timeout("no buffer has become free for " +
                     std::to_string(timeout_ms) + " ms");
    }
    returned_.WaitFor(&mu_, std::chrono::nanoseconds(deadline.LeftNs()));
  }
  if (!closed_.ok()) return closed_;
  std::byte* const data = free_.back();
  free_.pop_back();
  return Buffer(this, {data, buffer_bytes_});
}

Buffer BufferPool::TryAcquire() {
  MutexLock lock(&mu_);
  if (free_.empty() || !closed_.ok()) return {};
  std::byte* const data = free_.back();
  free_.pop_back();
  return {this, {data, buffer_bytes_}};
}

void BufferPool::Close(const Status& why) {
  MutexLock lock(&mu_);
  if (closed_.ok()) closed_ = why;
  returned_.NotifyAll();
}

void BufferPool::Return(std::span<std::byte> bytes) {
  MutexLock lock(&mu_);
  free_.push_back(bytes.data());
  returned_.NotifyOne();
}

}  // namespace pos::ckpt
