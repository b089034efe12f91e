// Sends the latest of a sequence of values on a thread of its own.
//
// For progress on its way to a client: the work that reports it must never wait
// for a client that does not read. Values that the receiver is too slow for are
// skipped.
//
// Threads:   Offer and Finish by one thread; `send` runs on the sender's.
// Blocking:  Offer never; Finish waits for a `send` that is under way.
// Errors:    without a thread (the system has no more) nothing is sent.
//
// Test: tests/pos/daemon/latest_sender_test.cc
#ifndef POS_DAEMON_LATEST_SENDER_H_
#define POS_DAEMON_LATEST_SENDER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "pos/base/clock.h"
#include "pos/base/mutex.h"

namespace pos {

template <typename T>
class LatestSender {
 public:
  using Send = std::function<void(const T& value)>;

  // At least `gap_ms` lie between two values.
  LatestSender(Send send, std::uint64_t gap_ms)
      : send_(std::move(send)), gap_ms_(gap_ms) {
    try {
      thread_ = std::thread([this] { Run(); });
    } catch (const std::system_error&) {
    }
  }
  ~LatestSender() { Finish(); }
  LatestSender(const LatestSender&) = delete;
  LatestSender& operator=(const LatestSender&) = delete;

  void Offer(T value) POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    latest_ = std::move(value);
    changed_.NotifyOne();
  }

  // A value that has not been sent yet is dropped.
  void Finish() POS_EXCLUDES(mu_) {
    {
      MutexLock lock(&mu_);
      finished_ = true;
      changed_.NotifyOne();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Run() POS_EXCLUDES(mu_) {
    for (;;) {
      std::optional<T> value;
      {
        MutexLock lock(&mu_);
        while (!finished_ && !latest_) changed_.Wait(&mu_);
        if (finished_) return;
        value.swap(latest_);
      }
      send_(*value);
      const Deadline gap = Deadline::AfterMs(gap_ms_);
      MutexLock lock(&mu_);
      while (!finished_ && !gap.Passed()) {
        changed_.WaitFor(&mu_, std::chrono::nanoseconds(gap.LeftNs()));
      }
    }
  }

  const Send send_;
  const std::uint64_t gap_ms_;
  Mutex mu_;
  CondVar changed_;
  std::optional<T> latest_ POS_GUARDED_BY(mu_);
  bool finished_ POS_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace pos

#endif  // POS_DAEMON_LATEST_SENDER_H_
