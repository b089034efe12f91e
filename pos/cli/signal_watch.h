// Signals taken by a thread instead of by handlers.
//
// Threads:   Start blocks the signals in the calling thread, and so in every
//            thread that it makes later: call it before anything starts threads
//            (gRPC does). Handlers run on the watch's own thread, one at a
//            time.
// Ownership: the destructor ends the thread and unblocks what Start blocked;
//            signals that came meanwhile take their usual effect then. It must
//            not be called from a handler.
//
// A signal that was ignored before stays ignored (nohup).
#ifndef POS_CLI_SIGNAL_WATCH_H_
#define POS_CLI_SIGNAL_WATCH_H_

#include <sys/signalfd.h>

#include <csignal>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos::cli {

class SignalWatch {
 public:
  struct Handlers {
    std::function<void(const signalfd_siginfo&)> signal;
    // Every `tick_ms`; none when 0.
    std::function<void()> tick;
    int tick_ms = 0;
  };

  static Result<std::unique_ptr<SignalWatch>> Start(
      const std::vector<int>& signals, Handlers handlers);
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

 private:
  explicit SignalWatch(Handlers handlers) : handlers_(std::move(handlers)) {}
  void Watch();

  const Handlers handlers_;
  sigset_t blocked_before_{};
  UniqueFd signals_;
  UniqueFd end_;  // eventfd
  std::thread thread_;
};

// What makes a program end when somebody is tired of it.
[[nodiscard]] std::vector<int> InterruptSignals();
// What a foreground run passes on: all that a program may get from others.
[[nodiscard]] std::vector<int> ForwardedSignals();

}  // namespace pos::cli

#endif  // POS_CLI_SIGNAL_WATCH_H_
