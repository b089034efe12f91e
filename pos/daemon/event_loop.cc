#include "pos/daemon/event_loop.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "pos/base/clock.h"

namespace pos {
namespace {

constexpr std::uint64_t kWakeWatch = 0;

}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::Create() {
  std::unique_ptr<EventLoop> loop(new EventLoop);
  loop->epoll_.Reset(::epoll_create1(EPOLL_CLOEXEC));
  loop->wake_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->epoll_.valid() || !loop->wake_.valid()) {
    return ErrnoStatus(errno, "event loop");
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeWatch;
  if (::epoll_ctl(loop->epoll_.get(), EPOLL_CTL_ADD, loop->wake_.get(),
                  &event) != 0) {
    return ErrnoStatus(errno, "event loop");
  }
  return loop;
}

void EventLoop::Start() {
  thread_ = std::thread([this] { Run(); });
  ::pthread_setname_np(thread_.native_handle(), "posd-loop");
}

void EventLoop::Stop() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(&mu_);
    stopping_ = true;
  }
  Wake();
  thread_.join();
}

void EventLoop::Wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof(one));
}

std::uint64_t EventLoop::Add(int fd, Callback callback) {
  MutexLock lock(&mu_);
  const std::uint64_t watch = next_watch_++;
  watches_[watch] = {fd, std::make_shared<Callback>(std::move(callback))};
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.u64 = watch;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  return watch;
}

void EventLoop::Remove(std::uint64_t watch) {
  MutexLock lock(&mu_);
  const auto it = watches_.find(watch);
  if (it == watches_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, it->second.fd, nullptr);
  watches_.erase(it);
}

void EventLoop::Post(Callback callback) {
  {
    MutexLock lock(&mu_);
    posted_.push_back(std::move(callback));
  }
  Wake();
}

void EventLoop::After(std::uint64_t delay_ms, Callback callback) {
  {
    MutexLock lock(&mu_);
    timers_.emplace(MonotonicNs() + delay_ms * 1'000'000, std::move(callback));
  }
  Wake();
}

int EventLoop::NextTimeoutMs() {
  MutexLock lock(&mu_);
  if (!posted_.empty()) return 0;
  if (timers_.empty()) return -1;
  const std::uint64_t now = MonotonicNs();
  const std::uint64_t at = timers_.begin()->first;
  return at <= now ? 0 : static_cast<int>((at - now) / 1'000'000 + 1);
}

void EventLoop::RunPosted() {
  std::vector<Callback> due;
  {
    MutexLock lock(&mu_);
    due.swap(posted_);
    const std::uint64_t now = MonotonicNs();
    while (!timers_.empty() && timers_.begin()->first <= now) {
      due.push_back(std::move(timers_.begin()->second));
      timers_.erase(timers_.begin());
    }
  }
  for (const Callback& callback : due) callback();
}

void EventLoop::Run() {
  std::array<epoll_event, 64> events;
  for (;;) {
    {
      MutexLock lock(&mu_);
      if (stopping_) return;
    }
    const int n =
        ::epoll_wait(epoll_.get(), events.data(),
                     static_cast<int>(events.size()), NextTimeoutMs());
    for (int i = 0; i < n; ++i) {
      const std::uint64_t watch = events[static_cast<std::size_t>(i)].data.u64;
      if (watch == kWakeWatch) {
        std::uint64_t count = 0;
        [[maybe_unused]] const ssize_t r =
            ::read(wake_.get(), &count, sizeof(count));
        continue;
      }
      std::shared_ptr<Callback> callback;
      {
        MutexLock lock(&mu_);
        const auto it = watches_.find(watch);
        if (it == watches_.end()) continue;  // removed meanwhile
        callback = it->second.callback;
      }
      (*callback)();
    }
    RunPosted();
  }
}

}  // namespace pos
