// A watch that notes what it was asked, and says what the test wants.
//
// Threads: BeforeCall: the session's worker; the rest: any.
#ifndef POS_TESTS_SUPPORT_RECORDING_WATCH_H_
#define POS_TESTS_SUPPORT_RECORDING_WATCH_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/backoff.h"
#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "pos/worker/memory_watch.h"

namespace pos {

class RecordingWatch : public MemoryWatch {
 public:
  struct Asked {
    std::uint64_t pc = 0;
    std::string what;
    int device = 0;
    bool has_stream = false;
    bool releases = false;
    bool makes = false;
    AccessSet set;
  };

  Verdict BeforeCall(const CallAccess& access) override {
    const MutexLock lock(&mu_);
    asked_.push_back({.pc = access.pc,
                      .what = std::string(access.what),
                      .device = access.device,
                      .has_stream = access.stream != nullptr,
                      .releases = access.releases,
                      .makes = access.makes,
                      .set = *access.set});
    return decide_ ? decide_(access) : Verdict::kGo;
  }

  // Called with the watch's lock held.
  void SetDecision(std::function<Verdict(const CallAccess&)> decide) {
    const MutexLock lock(&mu_);
    decide_ = std::move(decide);
  }
  // What was asked since the last Take.
  std::vector<Asked> Take() {
    const MutexLock lock(&mu_);
    return std::exchange(asked_, {});
  }
  [[nodiscard]] std::size_t count() {
    const MutexLock lock(&mu_);
    return asked_.size();
  }
  // False when it was not asked so often within 20 s.
  [[nodiscard]] bool Await(std::size_t count_wanted) {
    const Deadline deadline = Deadline::AfterMs(20000);
    Backoff backoff;
    while (count() < count_wanted) {
      if (deadline.Passed()) return false;
      backoff.Wait();
    }
    return true;
  }

 private:
  Mutex mu_;
  std::function<Verdict(const CallAccess&)> decide_ POS_GUARDED_BY(mu_);
  std::vector<Asked> asked_ POS_GUARDED_BY(mu_);
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_RECORDING_WATCH_H_
