// std::mutex with the annotations that clang's -Wthread-safety checks, and
// ThreadRole, the capability "on the right thread".
//
// Lock order is stated where a mutex is declared. A mutex is never held across
// a device call, a system call that may block without a bound, or a callback.
#ifndef POS_BASE_MUTEX_H_
#define POS_BASE_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define POS_TSA_(x) __attribute__((x))
#else
#define POS_TSA_(x)
#endif
#define POS_CAPABILITY(x) POS_TSA_(capability(x))
#define POS_SCOPED_CAPABILITY POS_TSA_(scoped_lockable)
#define POS_GUARDED_BY(x) POS_TSA_(guarded_by(x))
#define POS_PT_GUARDED_BY(x) POS_TSA_(pt_guarded_by(x))
#define POS_REQUIRES(...) POS_TSA_(requires_capability(__VA_ARGS__))
#define POS_EXCLUDES(...) POS_TSA_(locks_excluded(__VA_ARGS__))
#define POS_ACQUIRE(...) POS_TSA_(acquire_capability(__VA_ARGS__))
#define POS_RELEASE(...) POS_TSA_(release_capability(__VA_ARGS__))
#define POS_ASSERT_CAPABILITY(x) POS_TSA_(assert_capability(x))
#define POS_NO_THREAD_SAFETY POS_TSA_(no_thread_safety_analysis)

namespace pos {

class POS_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() POS_ACQUIRE() { mu_.lock(); }
  void Unlock() POS_RELEASE() { mu_.unlock(); }
  // Tells the compiler, for a function that is called with the lock held
  // through something it cannot look through (a std::function).
  void AssertHeld() const POS_ASSERT_CAPABILITY(this) {}

 private:
  friend class CondVar;
  std::mutex mu_;
};

class POS_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex* mu) POS_ACQUIRE(mu) : mu_(mu) { mu_->Lock(); }
  ~MutexLock() POS_RELEASE() { mu_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mu_;
};

// Condition variable used with Mutex. Every wait is in a loop that checks its
// condition; spurious wake-ups happen.
class CondVar {
 public:
  void Wait(Mutex* mu) POS_REQUIRES(mu) {
    std::unique_lock<std::mutex> lock(mu->mu_, std::adopt_lock);
    cv_.wait(lock);
    lock.release();
  }
  // False when `timeout` passed without a wake-up.
  bool WaitFor(Mutex* mu, std::chrono::nanoseconds timeout) POS_REQUIRES(mu) {
    std::unique_lock<std::mutex> lock(mu->mu_, std::adopt_lock);
    const std::cv_status status = cv_.wait_for(lock, timeout);
    lock.release();
    return status == std::cv_status::no_timeout;
  }
  void NotifyOne() { cv_.notify_one(); }
  void NotifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

// Stands for "this code runs on the one thread that owns the data". Data
// guarded by a role need no lock; AssertHere() tells the compiler.
class POS_CAPABILITY("role") ThreadRole {
 public:
  void AssertHere() const POS_ASSERT_CAPABILITY(this) {}
};

}  // namespace pos

#endif  // POS_BASE_MUTEX_H_
