// A fixed number of equal buffers in one mapping: the bound on what writing or
// reading a checkpoint takes, and memory that a device can be told about once.
//
// Threads:   any.
// Ownership: a Buffer gives itself back when it is destroyed; all of them
//            before the pool.
// Blocking:  Acquire waits until a buffer is free, at most its time-out.
#ifndef CKPT_PACK_BUFFER_POOL_H_
#define CKPT_PACK_BUFFER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/base/status.h"

namespace pos::ckpt {

class BufferPool;

// One buffer of a pool, or none.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)),
        bytes_(std::exchange(other.bytes_, {})) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      Release();
      pool_ = std::exchange(other.pool_, nullptr);
      bytes_ = std::exchange(other.bytes_, {});
    }
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { Release(); }

  [[nodiscard]] bool valid() const { return pool_ != nullptr; }
  // All of it, aligned to kBlockBytes. Its content is whatever was there.
  [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }
  void Release();

 private:
  friend class BufferPool;
  Buffer(BufferPool* pool, std::span<std::byte> bytes)
      : pool_(pool), bytes_(bytes) {}

  BufferPool* pool_ = nullptr;
  std::span<std::byte> bytes_;
};

class BufferPool {
 public:
  // `buffer_bytes` is a multiple of kBlockBytes.
  static Result<std::unique_ptr<BufferPool>> Create(std::size_t buffer_bytes,
                                                    std::size_t count);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // kTimeout; or what Close was given.
  Result<Buffer> Acquire(std::uint64_t timeout_ms) POS_EXCLUDES(mu_);
  // Not valid when none is free.
  Buffer TryAcquire() POS_EXCLUDES(mu_);
  // Makes every Acquire, waiting or later, return `why`. The first call
  // counts.
  void Close(const Status& why) POS_EXCLUDES(mu_);

  // All buffers, for registering with a device.
  [[nodiscard]] std::span<std::byte> region() const { return region_; }
  [[nodiscard]] std::size_t count() const { return count_; }

 private:
  friend class Buffer;
  BufferPool(std::span<std::byte> region, std::size_t buffer_bytes,
             std::size_t count);
  void Return(std::span<std::byte> bytes) POS_EXCLUDES(mu_);

  const std::span<std::byte> region_;
  const std::size_t buffer_bytes_;
  const std::size_t count_;
  Mutex mu_;
  CondVar returned_;
  std::vector<std::byte*> free_ POS_GUARDED_BY(mu_);
  Status closed_ POS_GUARDED_BY(mu_);
};

}  // namespace pos::ckpt

#endif  // CKPT_PACK_BUFFER_POOL_H_
