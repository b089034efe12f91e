// Puts one thread to sleep until another has work for it.
//
// The sleeper announces itself in a word, looks for work once more, and only
// then sleeps; a notifier publishes its work first and then looks at the word.
// Both touch the word with a read-modify-write, so one comes after the other
// in its modification order: either the notifier sees the announcement, or the
// sleeper's exchange reads the notifier's value and thereby sees the work. (A
// plain load in Notify could be satisfied before the work leaves the store
// buffer.)
//
//   consumer                               producer
//     for (;;) {                             queue.TryPush(x);
//       while (queue.TryPop(&x)) …           parker.Notify();
//       parker.Prepare();
//       if (!queue.Empty()) { parker.Cancel(); continue; }
//       parker.Sleep(timeout);
//     }
//
// Threads:  Prepare, Cancel, Sleep: one thread. Notify: any.
// The word: 0 awake, 1 about to sleep or asleep. It may lie in memory shared
//   with another process (the ring's doorbell). A hostile process that writes
//   to it can wake the thread that serves it, or make it sleep through a
//   Notify; whoever must not wait for that thread for ever uses Rouse, again
//   and again.
// Spurious: Sleep may return without a notification.
#ifndef POS_QUEUE_PARKER_H_
#define POS_QUEUE_PARKER_H_

#include <atomic>
#include <cstdint>

#include "pos/base/futex.h"

namespace pos {

class Parker {
 public:
  // A word of its own, private to this process.
  Parker() : word_(&own_word_), scope_(FutexScope::kPrivate) {}
  // A word that somebody else owns and that outlives the parker.
  Parker(std::atomic<std::uint32_t>* word, FutexScope scope)
      : word_(word), scope_(scope) {}
  Parker(const Parker&) = delete;
  Parker& operator=(const Parker&) = delete;

  void Prepare() { word_->exchange(1, std::memory_order_acq_rel); }
  void Cancel() { word_->store(0, std::memory_order_relaxed); }
  // `timeout_ns` 0: no bound.
  void Sleep(std::uint64_t timeout_ns) {
    FutexWait(word_, 1, scope_, timeout_ns);
    word_->store(0, std::memory_order_relaxed);
  }

  void Notify() { NotifyWord(word_, scope_); }
  // As Notify, but wakes whatever the word says.
  void Rouse() {
    word_->exchange(0, std::memory_order_acq_rel);
    FutexWake(word_, scope_, 1);
  }

  static void NotifyWord(std::atomic<std::uint32_t>* word, FutexScope scope) {
    if (word->fetch_add(0, std::memory_order_acq_rel) == 0) return;
    if (word->exchange(0, std::memory_order_acq_rel) != 0) {
      FutexWake(word, scope, 1);
    }
  }

 private:
  std::atomic<std::uint32_t> own_word_{0};
  std::atomic<std::uint32_t>* const word_;
  const FutexScope scope_;
};

}  // namespace pos

#endif  // POS_QUEUE_PARKER_H_
