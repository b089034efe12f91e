// How long a stopped tree waits for a verdict. A hold that nobody ends in its
// time ends by itself, unless it lasts until told.
//
// Threads: the loop's. `expired` runs on it, at most once a hold, and may
//   destroy the timer.
#ifndef POS_JOB_HOLD_TIMER_H_
#define POS_JOB_HOLD_TIMER_H_

#include <cstdint>
#include <functional>

#include "pos/job/event_loop.h"
#include "pos/job/job.pb.h"

namespace pos::job {

class HoldTimer {
 public:
  // `expired` gets how long the hold was to last, in ms.
  HoldTimer(EventLoop* loop, std::function<void(std::uint64_t ms)> expired);
  ~HoldTimer();
  HoldTimer(const HoldTimer&) = delete;
  HoldTimer& operator=(const HoldTimer&) = delete;

  // A hold of `ms` from now, instead of the one that runs.
  void Start(std::uint64_t ms);
  // As posd asks for it.
  void Change(const Hold& hold);
  // There is a verdict.
  void End();

  // 0: none runs, or it lasts until told.
  [[nodiscard]] std::uint64_t left_ms() const;
  [[nodiscard]] bool until_told() const { return until_told_; }

 private:
  EventLoop* const loop_;
  const std::function<void(std::uint64_t ms)> expired_;
  EventLoop::TimerId timer_ = 0;  // 0: no hold with an end
  std::uint64_t until_ns_ = 0;
  bool until_told_ = false;
};

}  // namespace pos::job

#endif  // POS_JOB_HOLD_TIMER_H_
