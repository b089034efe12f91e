// Host memory that the driver has pinned, for copies of memory that it has not.
//
// Pieces are powers of two and are kept for the next: giving one back to the
// driver would wait for the device.
//
// Threads: any.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_PINNED_POOL_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_PINNED_POOL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/cuda_impl/device_cuda/driver.h"

namespace pos::cuda_device {

class PinnedPool;

// A piece; goes back to its pool. Empty: none.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(PinnedPool* pool, void* data, int size_class)
      : pool_(pool), data_(data), size_class_(size_class) {}
  PinnedBuffer(PinnedBuffer&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        size_class_(other.size_class_) {}
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(size_class_, other.size_class_);
    return *this;
  }
  ~PinnedBuffer();
  [[nodiscard]] void* data() const { return data_; }

 private:
  PinnedPool* pool_ = nullptr;
  void* data_ = nullptr;
  int size_class_ = 0;
};

class PinnedPool {
 public:
  // `context`: one in which pinned memory can be made; outlives the pool.
  PinnedPool(const Driver& driver, CUcontext context, std::uint64_t key)
      : driver_(driver), context_(context), key_(key) {}
  ~PinnedPool();
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;

  // Empty when there is none; *result is the driver's word. May make some,
  // which takes the driver a while; leaves the pool's context current.
  PinnedBuffer Take(std::uint64_t bytes, CUresult* result) POS_EXCLUDES(mu_);

 private:
  friend class PinnedBuffer;
  static constexpr int kSmallest = 12;  // 4 KiB
  static constexpr int kClasses = 40;
  void GiveBack(void* data, int size_class) POS_EXCLUDES(mu_);

  const Driver& driver_;
  const CUcontext context_;
  const std::uint64_t key_;
  Mutex mu_;
  std::array<std::vector<void*>, kClasses> free_ POS_GUARDED_BY(mu_);
};

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_PINNED_POOL_H_
