// The worker stage: executes calls in order on the device. It never waits for
// the device: what has to wait becomes a token there and is finished when the
// token comes back, out of order, by context.
//
// Threads: Step, Idle: the thread that runs the stage. CompletionQueue: the
//   device's threads push. SetHold, Retry, still, in_flight, completed: any.
//   The rest: while the stage is paused.
#ifndef POS_WORKER_WORKER_H_
#define POS_WORKER_WORKER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/call/api_context.h"
#include "pos/call/client_port.h"
#include "pos/call/context_pool.h"
#include "pos/device/device.h"
#include "pos/parser/parser.h"
#include "pos/queue/stage.h"

namespace pos {

// Knows how to execute the calls of one API.
class ApiExecutor {
 public:
  enum class Outcome {
    kDone,      // finished; result and reply are in the context
    kInFlight,  // the device holds TokenOf(context)
    // Execute only: nothing has been done; the call and all later ones wait
    // until Worker::Retry, and then it is executed anew.
    kBlocked,
  };
  virtual ~ApiExecutor() = default;
  virtual Outcome Execute(ApiContext* context) = 0;
  // The token of `context` came back with `error`. Fills in what remains of the
  // answer. kInFlight when the context went to the device again.
  virtual Outcome Complete(ApiContext* context, DeviceError error) = 0;

  static std::uint64_t TokenOf(const ApiContext* context) {
    return std::uint64_t{context->pool_index} + 1;
  }
};

class CompletionQueue : public CompletionSink {
 public:
  struct Item {
    std::uint64_t token;
    DeviceError error;
  };
  void OnComplete(std::uint64_t token, DeviceError error) override
      POS_EXCLUDES(mu_);
  // Text comes with its context's name (OutputFifo); what comes without goes.
  void OnDeviceOutput(OutputKind, std::string_view) override {}

  bool Take(std::vector<Item>* out) POS_EXCLUDES(mu_);
  [[nodiscard]] bool empty() const {
    return count_.load(std::memory_order_acquire) == 0;
  }
  // Set before the device can complete anything.
  void SetWake(std::function<void()> wake) { wake_ = std::move(wake); }

 private:
  Mutex mu_;
  std::vector<Item> items_ POS_GUARDED_BY(mu_);
  std::atomic<std::uint32_t> count_{0};
  std::function<void()> wake_;
};

class Worker : public Stage {
 public:
  Worker(ApiExecutor* api, ContextPool* pool, ClientPort* port,
         ContextQueue* in, CompletionQueue* completions)
      : api_(api),
        pool_(pool),
        port_(port),
        in_(in),
        completions_(completions) {}

  bool Step() override;
  bool Idle() override;

  // Has a call that waits (Outcome::kBlocked) executed anew, and one that is
  // just being found blocked. The stage's thread is woken by the caller.
  void Retry() { retry_.store(true, std::memory_order_release); }
  // A cut is wanted. While the worker holds, nothing is handed to the device,
  // and calls that arrive are set aside in `pending`.
  enum class Hold : std::uint8_t {
    kNone,
    // Holds from the first moment on at which nothing is on the device; until
    // then calls go on as ever.
    kWhenIdle,
    kNow,
  };
  void SetHold(Hold hold) {
    still_.store(false, std::memory_order_relaxed);
    hold_.store(hold, std::memory_order_release);
  }
  // A cut is wanted, the worker holds, and nothing is on the device. Stays true
  // until SetHold.
  [[nodiscard]] bool still() const {
    return still_.load(std::memory_order_acquire);
  }
  // Paused: nothing is on the device or in the queue.
  [[nodiscard]] bool Quiet();
  // Paused: parsed calls that were not handed to the device, in order.
  std::deque<ApiContext*>& pending() { return pending_; }
  [[nodiscard]] std::uint64_t in_flight() const {
    return in_flight_.load(std::memory_order_relaxed);
  }
  // Calls that came back from the device so far.
  [[nodiscard]] std::uint64_t completed() const {
    return completed_.load(std::memory_order_relaxed);
  }

 private:
  static constexpr int kBatch = 64;
  bool TakeCompletions();
  bool ExecuteSome();
  // Whether a call waits that nobody wants to be tried again.
  bool Blocked();
  // Whether nothing may be handed to the device.
  bool Holds();
  void Finish(ApiContext* context);

  ApiExecutor* const api_;
  ContextPool* const pool_;
  ClientPort* const port_;
  ContextQueue* const in_;
  CompletionQueue* const completions_;
  std::atomic<Hold> hold_{Hold::kNone};
  std::atomic<bool> still_{false};
  std::atomic<bool> retry_{false};
  // The call at the front of `pending_` waits for Retry.
  bool blocked_ = false;
  std::atomic<std::uint64_t> in_flight_{0};
  std::atomic<std::uint64_t> completed_{0};
  std::vector<CompletionQueue::Item> taken_;
  std::deque<ApiContext*> pending_;
};

}  // namespace pos

#endif  // POS_WORKER_WORKER_H_
