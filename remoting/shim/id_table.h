// Objects by the number in the low half of a handle: a look-up is two loads
// and a comparison, without a lock.
//
// Objects are made under a lock and stay where they are for ever; one whose
// handle was destroyed is kept for the next. A thread that uses a handle which
// another one destroys at that moment (an error of the program) reads an object
// that means something else, but never freed memory.
#ifndef REMOTING_SHIM_ID_TABLE_H_
#define REMOTING_SHIM_ID_TABLE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "pos/base/mutex.h"

namespace pos::shim {

// T has a member `std::atomic<std::uint64_t> id`, 0 while it is free.
template <typename T>
class IdTable {
 public:
  // nullptr when `id` does not name a living object.
  [[nodiscard]] T* Get(std::uint64_t id) const {
    const auto index = static_cast<std::uint32_t>(id);
    if (index >= kMax || id == 0) return nullptr;
    std::atomic<T*>* const chunk =
        chunks_[index / kChunk].load(std::memory_order_acquire);
    if (chunk == nullptr) return nullptr;
    T* const object = chunk[index % kChunk].load(std::memory_order_acquire);
    if (object == nullptr || object->id.load(std::memory_order_acquire) != id) {
      return nullptr;
    }
    return object;
  }

  // An object for `id`, whose index is free. The caller fills it in and then
  // stores its id. nullptr when the index is out of bounds.
  T* Make(std::uint64_t id) POS_EXCLUDES(mu_) {
    const auto index = static_cast<std::uint32_t>(id);
    if (index >= kMax) return nullptr;
    MutexLock lock(&mu_);
    auto& slot = chunks_[index / kChunk];
    std::atomic<T*>* chunk = slot.load(std::memory_order_relaxed);
    if (chunk == nullptr) {
      owned_.push_back(std::make_unique<std::atomic<T*>[]>(kChunk));
      chunk = owned_.back().get();
      slot.store(chunk, std::memory_order_release);
    }
    T* object = chunk[index % kChunk].load(std::memory_order_relaxed);
    if (object == nullptr) {
      objects_.push_back(std::make_unique<T>());
      object = objects_.back().get();
      chunk[index % kChunk].store(object, std::memory_order_release);
    }
    return object;
  }

  // Indices for handles that exist only in this process.
  std::uint32_t NextIndex() POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    return ++last_index_;
  }

  template <typename Visit>
  void ForEach(const Visit& visit) POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    for (const auto& object : objects_) {
      if (object->id.load(std::memory_order_acquire) != 0) visit(object.get());
    }
  }

 private:
  static constexpr std::uint32_t kChunk = 4096;
  static constexpr std::uint32_t kMax = 1u << 24;
  std::array<std::atomic<std::atomic<T*>*>, kMax / kChunk> chunks_{};
  Mutex mu_;
  std::vector<std::unique_ptr<std::atomic<T*>[]>> owned_ POS_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<T>> objects_ POS_GUARDED_BY(mu_);
  std::uint32_t last_index_ POS_GUARDED_BY(mu_) = 0;
};

}  // namespace pos::shim

#endif  // REMOTING_SHIM_ID_TABLE_H_
