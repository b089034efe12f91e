// The error that came first of several that work at once. The others often fail
// only because of it: it alone says why.
//
// Threads: any.
//
// Test: tests/pos/daemon/hold_keeper_test.cc
#ifndef POS_DAEMON_FIRST_ERROR_H_
#define POS_DAEMON_FIRST_ERROR_H_

#include "pos/base/mutex.h"
#include "pos/base/status.h"

namespace pos {

class FirstError {
 public:
  // No effect when `status` is OK or there is one already.
  void Note(const Status& status) POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    if (first_.ok()) first_ = status;
  }
  [[nodiscard]] Status get() const POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    return first_;
  }
  void Forget() POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    first_ = {};
  }

 private:
  mutable Mutex mu_;
  Status first_ POS_GUARDED_BY(mu_);
};

}  // namespace pos

#endif  // POS_DAEMON_FIRST_ERROR_H_
