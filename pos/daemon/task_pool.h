// A few threads for work that blocks and must not be done on the event loop.
//
// Threads: Post: any. Tasks run at once, in no order. Stop waits for those that
//   run and drops the others.
#ifndef POS_DAEMON_TASK_POOL_H_
#define POS_DAEMON_TASK_POOL_H_

#include <deque>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"

namespace pos {

class TaskPool {
 public:
  explicit TaskPool(std::size_t threads) {
    for (std::size_t i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { Run(); });
    }
  }
  ~TaskPool() { Stop(); }
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  // False once stopped; the task is then dropped.
  bool Post(std::function<void()> task) POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    if (stopping_) return false;
    tasks_.push_back(std::move(task));
    changed_.NotifyOne();
    return true;
  }
  void Stop() POS_EXCLUDES(mu_) {
    {
      MutexLock lock(&mu_);
      stopping_ = true;
      tasks_.clear();
      changed_.NotifyAll();
    }
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

 private:
  void Run() POS_EXCLUDES(mu_) {
    for (;;) {
      std::function<void()> task;
      {
        MutexLock lock(&mu_);
        while (tasks_.empty() && !stopping_) changed_.Wait(&mu_);
        if (stopping_) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  Mutex mu_;
  CondVar changed_;
  bool stopping_ POS_GUARDED_BY(mu_) = false;
  std::deque<std::function<void()>> tasks_ POS_GUARDED_BY(mu_);
  std::vector<std::thread> threads_;
};

}  // namespace pos

#endif  // POS_DAEMON_TASK_POOL_H_
