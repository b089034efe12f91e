// How many calls each user has in progress, and how many there are in all.
//
// Threads: any.
#ifndef POS_DAEMON_CALL_GATE_H_
#define POS_DAEMON_CALL_GATE_H_

#include <sys/types.h>

#include <cstddef>
#include <map>

#include "pos/base/mutex.h"

namespace pos {

class CallGate {
 public:
  CallGate(std::size_t per_uid, std::size_t total)
      : per_uid_(per_uid), total_(total) {}

  [[nodiscard]] bool Enter(uid_t uid) POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    const auto it = of_uid_.find(uid);
    const std::size_t of_uid = it == of_uid_.end() ? 0 : it->second;
    if (of_uid >= per_uid_ || inside_ >= total_) return false;
    of_uid_[uid] = of_uid + 1;
    ++inside_;
    return true;
  }
  void Leave(uid_t uid) POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    --inside_;
    if (const auto it = of_uid_.find(uid); --it->second == 0) {
      of_uid_.erase(it);
    }
  }

 private:
  const std::size_t per_uid_;
  const std::size_t total_;
  Mutex mu_;
  std::size_t inside_ POS_GUARDED_BY(mu_) = 0;
  std::map<uid_t, std::size_t> of_uid_ POS_GUARDED_BY(mu_);
};

}  // namespace pos

#endif  // POS_DAEMON_CALL_GATE_H_
