// Doubly linked list through a member of its elements. Owns nothing, allocates
// nothing; an element is on at most one list per link. Not thread-safe.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_ENGINE_LIST_H_
#define POS_CUDA_IMPL_DEVICE_SIM_ENGINE_LIST_H_

#include <cstddef>

namespace pos::sim {

template <typename T>
struct Link {
  T* prev = nullptr;
  T* next = nullptr;
  bool linked = false;
};

template <typename T, Link<T> T::*kLink>
class List {
 public:
  [[nodiscard]] bool empty() const { return head_ == nullptr; }
  [[nodiscard]] T* front() const { return head_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] static T* Next(const T* item) { return (item->*kLink).next; }
  [[nodiscard]] static bool Linked(const T* item) {
    return (item->*kLink).linked;
  }

  void PushBack(T* item) {
    Link<T>& link = item->*kLink;
    link = {tail_, nullptr, true};
    (tail_ == nullptr ? head_ : (tail_->*kLink).next) = item;
    tail_ = item;
    ++size_;
  }
  // The analyzer loses track of which elements are on the list and reports
  // uses after a `delete` that follows a Remove.
  // NOLINTBEGIN(clang-analyzer-cplusplus.NewDelete)
  void Remove(T* item) {
    Link<T>& link = item->*kLink;
    (link.prev == nullptr ? head_ : (link.prev->*kLink).next) = link.next;
    (link.next == nullptr ? tail_ : (link.next->*kLink).prev) = link.prev;
    link = {};
    --size_;
  }
  // NOLINTEND(clang-analyzer-cplusplus.NewDelete)
  T* PopFront() {
    T* item = head_;
    if (item != nullptr) Remove(item);
    return item;
  }

 private:
  T* head_ = nullptr;
  T* tail_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_ENGINE_LIST_H_
