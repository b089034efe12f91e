// Threads for work of several parties that must not keep each other waiting:
// of one lane so many tasks run at once at most, and lanes take turns.
//
// Threads: Post: any. Tasks of a lane start in the order in which they came.
//   Stop waits for those that run and drops the others.
#ifndef POS_DAEMON_FAIR_POOL_H_
#define POS_DAEMON_FAIR_POOL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"

namespace pos {

class FairPool {
 public:
  // `at_once`: tasks of one lane that run; `most`: that run or wait.
  FairPool(std::size_t threads, std::size_t at_once, std::size_t most)
      : at_once_(at_once), most_(most) {
    for (std::size_t i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { Run(); });
    }
  }
  ~FairPool() { Stop(); }
  FairPool(const FairPool&) = delete;
  FairPool& operator=(const FairPool&) = delete;

  // False when the lane is full, or once stopped; the task is then dropped.
  bool Post(std::uint64_t lane, std::function<void()> task) POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    if (stopping_) return false;
    Lane& l = lanes_[lane];
    if (l.running + l.waiting.size() >= most_) return false;
    l.waiting.push_back(std::move(task));
    changed_.NotifyOne();
    return true;
  }
  void Stop() POS_EXCLUDES(mu_) {
    {
      MutexLock lock(&mu_);
      stopping_ = true;
      changed_.NotifyAll();
    }
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
    MutexLock lock(&mu_);
    lanes_.clear();
  }

 private:
  struct Lane {
    std::size_t running = 0;
    std::deque<std::function<void()>> waiting;
  };
  using Lanes = std::map<std::uint64_t, Lane>;

  // The next lane, after the one whose turn was last, that may run something.
  Lanes::iterator Next() POS_REQUIRES(mu_) {
    auto it = lanes_.upper_bound(last_);
    for (std::size_t i = 0; i < lanes_.size(); ++i, ++it) {
      if (it == lanes_.end()) it = lanes_.begin();
      if (!it->second.waiting.empty() && it->second.running < at_once_) {
        return it;
      }
    }
    return lanes_.end();
  }

  void Run() POS_EXCLUDES(mu_) {
    mu_.Lock();
    for (;;) {
      auto it = Next();
      if (stopping_) break;
      if (it == lanes_.end()) {
        changed_.Wait(&mu_);
        continue;
      }
      last_ = it->first;
      ++it->second.running;
      std::function<void()> task = std::move(it->second.waiting.front());
      it->second.waiting.pop_front();
      mu_.Unlock();
      task();
      task = nullptr;
      mu_.Lock();
      --it->second.running;  // nobody erases a lane that runs something
      if (it->second.running == 0 && it->second.waiting.empty()) {
        lanes_.erase(it);
      }
    }
    mu_.Unlock();
  }

  const std::size_t at_once_;
  const std::size_t most_;
  Mutex mu_;
  CondVar changed_;
  bool stopping_ POS_GUARDED_BY(mu_) = false;
  std::uint64_t last_ POS_GUARDED_BY(mu_) = 0;
  Lanes lanes_ POS_GUARDED_BY(mu_);
  std::vector<std::thread> threads_;
};

}  // namespace pos

#endif  // POS_DAEMON_FAIR_POOL_H_
