#include "pos/cuda_impl/device_cuda/pinned_pool.h"

#include <algorithm>
#include <bit>

#include "pos/cuda_impl/device_cuda/core.h"

namespace pos::cuda_device {

PinnedBuffer::~PinnedBuffer() {
  if (pool_ != nullptr) pool_->GiveBack(data_, size_class_);
}

PinnedPool::~PinnedPool() {
  if (MakeCurrent(driver_, context_, key_) != CUDA_SUCCESS) return;
  for (const std::vector<void*>& pieces : free_) {
    for (void* const piece : pieces) driver_.MemFreeHost(piece);
  }
}

PinnedBuffer PinnedPool::Take(std::uint64_t bytes, CUresult* result) {
  *result = CUDA_ERROR_OUT_OF_MEMORY;
  const int bits =
      std::max(kSmallest, static_cast<int>(std::bit_width(bytes - 1)));
  const int size_class = bits - kSmallest;
  if (bytes == 0 || size_class >= kClasses) return {};
  {
    MutexLock lock(&mu_);
    auto& pieces = free_[static_cast<std::size_t>(size_class)];
    if (!pieces.empty()) {
      void* const piece = pieces.back();
      pieces.pop_back();
      return {this, piece, size_class};
    }
  }
  void* piece = nullptr;
  *result = MakeCurrent(driver_, context_, key_);
  if (*result == CUDA_SUCCESS) {
    *result = driver_.MemHostAlloc(&piece, std::size_t{1} << bits,
                                   CU_MEMHOSTALLOC_PORTABLE);
  }
  if (*result != CUDA_SUCCESS) return {};
  return {this, piece, size_class};
}

void PinnedPool::GiveBack(void* data, int size_class) {
  MutexLock lock(&mu_);
  free_[static_cast<std::size_t>(size_class)].push_back(data);
}

}  // namespace pos::cuda_device
