// Objects that are handed out and taken back without allocating in steady
// state. Objects keep what they own (buffers) while free. Not thread-safe;
// everything is freed with the pool.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_ENGINE_POOL_H_
#define POS_CUDA_IMPL_DEVICE_SIM_ENGINE_POOL_H_

#include <cstddef>
#include <memory>
#include <vector>

namespace pos::sim {

template <typename T>
class Pool {
 public:
  T* Take() {
    if (free_.empty()) Grow();
    T* item = free_.back();
    free_.pop_back();
    return item;
  }
  void Give(T* item) { free_.push_back(item); }

 private:
  static constexpr std::size_t kSlab = 64;  // objects

  void Grow() {
    slabs_.push_back(std::make_unique<T[]>(kSlab));
    free_.reserve(slabs_.size() * kSlab);
    for (std::size_t i = 0; i < kSlab; ++i) {
      free_.push_back(&slabs_.back()[i]);
    }
  }

  std::vector<std::unique_ptr<T[]>> slabs_;
  std::vector<T*> free_;  // room for all, so that Give does not allocate
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_ENGINE_POOL_H_
