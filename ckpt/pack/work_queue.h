// Work for a few threads, first in first out. Bounded by what its items hold
// (buffers of a pool), not by itself.
//
// Threads: any.
#ifndef CKPT_PACK_WORK_QUEUE_H_
#define CKPT_PACK_WORK_QUEUE_H_

#include <deque>
#include <utility>

#include "pos/base/mutex.h"

namespace pos::ckpt {

template <typename Item>
class WorkQueue {
 public:
  enum class Taken { kItem, kNothing, kClosed };

  void Push(Item item) POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    items_.push_back(std::move(item));
    changed_.NotifyOne();
  }
  // With `wait`, blocks until there is an item or the queue is closed. What is
  // in a closed queue is still handed out.
  Taken Take(Item* item, bool wait) POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    while (items_.empty()) {
      if (closed_ || !wait) return closed_ ? Taken::kClosed : Taken::kNothing;
      changed_.Wait(&mu_);
    }
    *item = std::move(items_.front());
    items_.pop_front();
    return Taken::kItem;
  }
  void Close() POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    closed_ = true;
    changed_.NotifyAll();
  }
  // Takes out everything; the caller destroys it without the lock.
  std::deque<Item> Clear() POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    return std::exchange(items_, {});
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::deque<Item> items_ POS_GUARDED_BY(mu_);
  bool closed_ POS_GUARDED_BY(mu_) = false;
};

}  // namespace pos::ckpt

#endif  // CKPT_PACK_WORK_QUEUE_H_
