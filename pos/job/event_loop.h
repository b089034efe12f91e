// One thread that waits for descriptors and points in time (poll(2)).
//
// Threads: one; handlers run inside Run.
// Blocking: Run waits for events; handlers must not block.
// Handlers may watch, unwatch and set timers freely, themselves included; a
// handler that was unwatched in a round is not called in that round.
#ifndef POS_JOB_EVENT_LOOP_H_
#define POS_JOB_EVENT_LOOP_H_

#include <poll.h>

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "pos/base/status.h"

namespace pos::job {

class EventLoop {
 public:
  // `events` that happened, as poll(2) reports them.
  using FdHandler = std::function<void(short events)>;
  using TimerHandler = std::function<void()>;
  using TimerId = std::uint64_t;  // 0: no timer

  EventLoop() = default;
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Replaces the watch on `fd`, if any. The descriptor stays the caller's and
  // must be unwatched before it is closed.
  void Watch(int fd, short events, FdHandler handler);
  // No effect when `fd` is not watched. 0 pauses: nothing is reported then, not
  // even a hang-up.
  void SetEvents(int fd, short events);
  void Unwatch(int fd);

  TimerId After(std::uint64_t delay_ns, TimerHandler handler);
  void Cancel(TimerId* id);  // sets it to 0

  // Handles events until Stop. Fails only when poll(2) does.
  Status Run();
  void Stop() { stopped_ = true; }

 private:
  struct WatchEntry {
    std::uint64_t generation = 0;
    short events = 0;
    FdHandler handler;
  };
  struct TimerEntry {
    std::uint64_t at_ns = 0;
    TimerHandler handler;
  };

  [[nodiscard]] int WaitMs() const;
  void FireTimers();
  void Dispatch(const std::vector<pollfd>& ready,
                const std::vector<std::uint64_t>& generations);

  std::map<int, WatchEntry> watches_;
  std::map<TimerId, TimerEntry> timers_;
  std::uint64_t next_generation_ = 1;
  TimerId next_timer_ = 1;
  bool stopped_ = false;
};

}  // namespace pos::job

#endif  // POS_JOB_EVENT_LOOP_H_
