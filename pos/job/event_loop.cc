#include "pos/job/event_loop.h"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "pos/base/clock.h"

namespace pos::job {

void EventLoop::Watch(int fd, short events, FdHandler handler) {
  watches_[fd] = {next_generation_++, events, std::move(handler)};
}

void EventLoop::SetEvents(int fd, short events) {
  const auto it = watches_.find(fd);
  if (it != watches_.end()) it->second.events = events;
}

void EventLoop::Unwatch(int fd) { watches_.erase(fd); }

EventLoop::TimerId EventLoop::After(std::uint64_t delay_ns,
                                    TimerHandler handler) {
  const TimerId id = next_timer_++;
  timers_[id] = {MonotonicNs() + delay_ns, std::move(handler)};
  return id;
}

void EventLoop::Cancel(TimerId* id) {
  timers_.erase(*id);
  *id = 0;
}

int EventLoop::WaitMs() const {
  if (timers_.empty()) return -1;
  std::uint64_t first = std::numeric_limits<std::uint64_t>::max();
  for (const auto& [id, timer] : timers_) first = std::min(first, timer.at_ns);
  const std::uint64_t now = MonotonicNs();
  if (first <= now) return 0;
  const std::uint64_t ms = (first - now + 999999) / 1000000;
  return static_cast<int>(std::min<std::uint64_t>(ms, 3600 * 1000));
}

void EventLoop::FireTimers() {
  const std::uint64_t now = MonotonicNs();
  std::vector<TimerId> due;
  for (const auto& [id, timer] : timers_) {
    if (timer.at_ns <= now) due.push_back(id);
  }
  for (const TimerId id : due) {
    const auto it = timers_.find(id);
    if (it == timers_.end()) continue;  // cancelled by an earlier handler
    const TimerHandler handler = std::move(it->second.handler);
    timers_.erase(it);
    handler();
  }
}

void EventLoop::Dispatch(const std::vector<pollfd>& ready,
                         const std::vector<std::uint64_t>& generations) {
  for (std::size_t i = 0; i < ready.size() && !stopped_; ++i) {
    if (ready[i].revents == 0) continue;
    const auto it = watches_.find(ready[i].fd);
    if (it == watches_.end() || it->second.generation != generations[i]) {
      continue;
    }
    const FdHandler handler = it->second.handler;  // may replace itself
    handler(ready[i].revents);
  }
}

Status EventLoop::Run() {
  stopped_ = false;
  std::vector<pollfd> polled;
  std::vector<std::uint64_t> generations;
  while (!stopped_) {
    polled.clear();
    generations.clear();
    for (const auto& [fd, watch] : watches_) {
      if (watch.events == 0) continue;
      polled.push_back({fd, watch.events, 0});
      generations.push_back(watch.generation);
    }
    const int rc = ::poll(polled.data(), polled.size(), WaitMs());
    if (rc < 0 && errno != EINTR) return ErrnoStatus(errno, "poll");
    if (rc > 0) Dispatch(polled, generations);
    if (!stopped_) FireTimers();
  }
  return {};
}

}  // namespace pos::job
