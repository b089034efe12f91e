// Bounded FIFO between exactly two threads: what carries API contexts from the
// front end to the parser and from the parser to the worker.
//
// Threads:   one producer (TryPush) and one consumer (TryPop, Empty); they may
//            run at once. Which thread plays a part may change only with
//            outside synchronization.
// Ordering:  a popped element happens-after everything its producer did before
//            pushing it (release store of tail_, acquire load in TryPop).
// Ownership: a pushed element belongs to the ring until popped. Elements still
//            inside die with the ring; stop both sides first.
// Blocking:  no call blocks, allocates or makes a system call. Sleeping when
//            empty is the business of pos/queue/parker.h.
//
// Invariant: head_ <= tail_ <= head_ + kCapacity, both counting elements since
//            construction; slot i lives at i % kCapacity.
//
// Each side keeps a private copy of the other's index and re-reads the shared
// one only when the copy says full or empty, so that in steady state the two
// cache lines do not bounce on every call.
//
// Test: tests/pos/queue/spsc_ring_test.cc   Bench: eval/queue/
#ifndef POS_QUEUE_SPSC_RING_H_
#define POS_QUEUE_SPSC_RING_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace pos {

inline constexpr std::size_t kCacheLine = 64;

template <typename T, std::size_t kCapacity>  // kCapacity: elements, not bytes
class SpscRing {
  static_assert(kCapacity > 0 && (kCapacity & (kCapacity - 1)) == 0,
                "a power of two, so that the slot is a mask away");

 public:
  SpscRing() = default;
  SpscRing(const SpscRing&) = delete;
  SpscRing& operator=(const SpscRing&) = delete;

  // Producer only. Takes `value` and returns true, or returns false and leaves
  // `value` untouched when full: back-pressure is the caller's job.
  [[nodiscard]] bool TryPush(T& value) {
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_seen_ == kCapacity) {
      head_seen_ = head_.load(std::memory_order_acquire);
      if (tail - head_seen_ == kCapacity) return false;
    }
    slots_[tail % kCapacity] = std::move(value);
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }

  // Consumer only. Moves the oldest element into `*out`; false when empty.
  [[nodiscard]] bool TryPop(T* out) {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_seen_) {
      tail_seen_ = tail_.load(std::memory_order_acquire);
      if (head == tail_seen_) return false;
    }
    *out = std::move(slots_[head % kCapacity]);
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

  // Consumer only: whether TryPop would fail right now.
  [[nodiscard]] bool Empty() {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    if (head != tail_seen_) return false;
    tail_seen_ = tail_.load(std::memory_order_acquire);
    return head == tail_seen_;
  }

  // Any thread; a moment's truth, for metrics.
  [[nodiscard]] std::size_t SizeApprox() const {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    return tail > head ? static_cast<std::size_t>(tail - head) : 0;
  }

 private:
  alignas(kCacheLine) std::atomic<std::uint64_t> head_{0};
  std::uint64_t tail_seen_ = 0;  // consumer's copy
  alignas(kCacheLine) std::atomic<std::uint64_t> tail_{0};
  std::uint64_t head_seen_ = 0;  // producer's copy
  alignas(kCacheLine) std::array<T, kCapacity> slots_{};
};

}  // namespace pos

#endif  // POS_QUEUE_SPSC_RING_H_
