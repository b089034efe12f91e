// Keeps a stopped tree stopped for as long as posd works on what belongs to it.
//
// pos-job lets a tree go that it has not been told about for the length of a
// hold (Hold in pos/job/job.proto): a posd that has died must not leave a job
// standing still. Work may take longer than that. So the hold is asked for
// anew, four times in its length, by a thread of the keeper's, until Stop.
//
// A tree that was let go nevertheless (posd itself stood still for the length
// of a hold, say) does not come back: the keeper says so and ends.
//
// Threads: Start and Stop by one thread at a time; lost and Check by any.
//   `extend` runs on the keeper's thread, and on those of Check.
// Blocking: Stop waits for an `extend` that is under way.
//
// Test: tests/pos/daemon/hold_keeper_test.cc
#ifndef POS_DAEMON_HOLD_KEEPER_H_
#define POS_DAEMON_HOLD_KEEPER_H_

#include <cstdint>
#include <functional>
#include <thread>

#include "pos/base/mutex.h"
#include "pos/base/status.h"

namespace pos {

class HoldKeeper {
 public:
  // Asks for another hold of that many milliseconds from now. Of what it
  // returns, kNotReady, kNoSuch and kClosed say that nothing is held any more;
  // after any other error it is asked again.
  using Extend = std::function<Status(std::uint64_t hold_ms)>;

  HoldKeeper() = default;
  ~HoldKeeper() { Stop(); }
  HoldKeeper(const HoldKeeper&) = delete;
  HoldKeeper& operator=(const HoldKeeper&) = delete;

  // The tree is held, for `hold_ms` at first. One that is kept already is
  // forgotten.
  void Start(std::uint64_t hold_ms, Extend extend) POS_EXCLUDES(mu_);
  // There is a verdict, or is about to be. No effect when nothing is kept.
  void Stop() POS_EXCLUDES(mu_);

  // Not OK (kTimeout) once the tree that was kept last is known to have been
  // let go. Does not ask.
  [[nodiscard]] Status lost() const POS_EXCLUDES(mu_);
  // Asks now. OK: it is held, for a whole hold from now.
  Status Check() POS_EXCLUDES(mu_);

 private:
  void Run() POS_EXCLUDES(mu_);
  Status Ask() POS_EXCLUDES(mu_);

  mutable Mutex mu_;
  CondVar changed_;
  bool stop_ POS_GUARDED_BY(mu_) = false;
  Status lost_ POS_GUARDED_BY(mu_);
  std::uint64_t hold_ms_ = 0;  // while there is a thread: constant
  Extend extend_;              // the same
  std::thread thread_;
};

}  // namespace pos

#endif  // POS_DAEMON_HOLD_KEEPER_H_
