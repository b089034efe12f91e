// One thread that waits on descriptors and calls back: posd's connections to
// runners and jobs, its attach socket, its timers.
//
// Threads: callbacks run on the loop's thread and must not block. Add, Remove,
//   Post: any thread. After Remove returned, on another thread, the callback
//   may still be running once; callbacks therefore own what they use.
// Ownership: descriptors stay the caller's.
#ifndef POS_DAEMON_EVENT_LOOP_H_
#define POS_DAEMON_EVENT_LOOP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"

namespace pos {

class EventLoop {
 public:
  using Callback = std::function<void()>;

  static Result<std::unique_ptr<EventLoop>> Create();
  ~EventLoop() { Stop(); }
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  void Start();
  // Ends and joins; not from a callback.
  void Stop();
  [[nodiscard]] bool OnLoop() const {
    return std::this_thread::get_id() == thread_.get_id();
  }

  // `callback` runs whenever `fd` is readable or has hung up. Returns a number
  // for Remove.
  std::uint64_t Add(int fd, Callback callback) POS_EXCLUDES(mu_);
  void Remove(std::uint64_t watch) POS_EXCLUDES(mu_);
  // Runs `callback` on the loop soon.
  void Post(Callback callback) POS_EXCLUDES(mu_);
  // Runs `callback` on the loop after `delay_ms`, once.
  void After(std::uint64_t delay_ms, Callback callback) POS_EXCLUDES(mu_);

 private:
  struct Watch {
    int fd = -1;
    std::shared_ptr<Callback> callback;
  };
  EventLoop() = default;
  void Run();
  void Wake();
  void RunPosted() POS_EXCLUDES(mu_);
  [[nodiscard]] int NextTimeoutMs() POS_EXCLUDES(mu_);

  UniqueFd epoll_;
  UniqueFd wake_;
  std::thread thread_;
  Mutex mu_;
  bool stopping_ POS_GUARDED_BY(mu_) = false;
  std::uint64_t next_watch_ POS_GUARDED_BY(mu_) = 1;
  std::map<std::uint64_t, Watch> watches_ POS_GUARDED_BY(mu_);
  std::vector<Callback> posted_ POS_GUARDED_BY(mu_);
  std::multimap<std::uint64_t, Callback> timers_ POS_GUARDED_BY(mu_);  // by ns
};

}  // namespace pos

#endif  // POS_DAEMON_EVENT_LOOP_H_
