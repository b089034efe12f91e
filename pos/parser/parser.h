// The parser stage: gives calls their meaning in the session's state, answers
// what needs no device, and passes the rest on to the worker.
//
// A call that cannot be parsed yet (an allocation for which there is no memory
// at the moment) is set aside and tried again; the calls behind it go on. Its
// caller waits for its answer, so nothing that follows from it can be among
// them, and what has to happen for it to go on may well be.
//
// The stage is device- and API-neutral: ApiParser holds the session's state
// and knows the calls (pos/cuda_impl/parser for CUDA).
//
// Threads: Step, Idle: the thread that runs the stage. NoticeBoard::Post: the
//   worker. The rest: while the stage is paused.
#ifndef POS_PARSER_PARSER_H_
#define POS_PARSER_PARSER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/call/api_context.h"
#include "pos/call/client_port.h"
#include "pos/call/context_pool.h"
#include "pos/queue/spsc_ring.h"
#include "pos/queue/stage.h"

namespace pos {

inline constexpr std::size_t kQueueCapacity = 4096;
using ContextQueue = SpscRing<ApiContext*, kQueueCapacity>;

// Something that the worker is done with, or has made, and that the parser
// keeps the books of. What the fields mean is between the API's two halves.
struct Notice {
  std::uint32_t what = 0;
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  std::uint64_t c = 0;
  Handle* handle = nullptr;
};

class ApiParser {
 public:
  enum class Outcome {
    kForward,   // the worker has something to do
    kAnswered,  // done with; the reply, if wanted, is in the context
    kStall      // cannot go on yet (memory is awaited): ask again later. Only
                // for calls that the parser answers.
  };
  virtual ~ApiParser() = default;
  virtual Outcome Parse(ApiContext* context) = 0;
  virtual void OnNotice(const Notice& notice) = 0;
};

// What the worker posts notices through.
class NoticeBoard {
 public:
  // The worker. Seen by the parser before any call that the client sends after
  // it got the reply that the worker sends after this.
  void Post(const Notice& notice) POS_EXCLUDES(mu_);
  // The parser: takes all there are into `*out` (emptied first).
  bool Take(std::vector<Notice>* out) POS_EXCLUDES(mu_);
  [[nodiscard]] bool empty() const {
    return count_.load(std::memory_order_acquire) == 0;
  }
  // Called after a Post, where the parser runs on another thread.
  void SetWake(std::function<void()> wake) { wake_ = std::move(wake); }

 private:
  std::function<void()> wake_;
  Mutex mu_;
  std::vector<Notice> notices_ POS_GUARDED_BY(mu_);
  std::atomic<std::uint32_t> count_{0};
};

class Parser : public Stage {
 public:
  Parser(ApiParser* api, ContextPool* pool, ClientPort* port, ContextQueue* in,
         ContextQueue* out, NoticeBoard* notices)
      : api_(api),
        pool_(pool),
        port_(port),
        in_(in),
        out_(out),
        notices_(notices) {}

  bool Step() override;
  bool Idle() override;

  // Paused: nothing is in the stage but calls that wait.
  [[nodiscard]] bool Quiet();
  // Paused: calls that were taken from the ring and cannot be parsed yet, in
  // order.
  std::deque<ApiContext*>& waiting() { return waiting_; }
  // Called after a push, to wake the worker's thread if it is another one.
  void SetDownstreamWake(std::function<void()> wake) {
    wake_downstream_ = std::move(wake);
  }

 private:
  static constexpr int kBatch = 64;
  void TakeNotices();
  bool ParseOne(ApiContext* context);  // false: stalled
  bool FlushReady();
  bool RetryWaiting();  // true when one of them went on

  ApiParser* const api_;
  ContextPool* const pool_;
  ClientPort* const port_;
  ContextQueue* const in_;
  ContextQueue* const out_;
  NoticeBoard* const notices_;
  std::function<void()> wake_downstream_;
  std::vector<Notice> taken_;
  ApiContext* ready_ = nullptr;  // parsed, the worker's queue was full
  std::deque<ApiContext*> waiting_;
};

}  // namespace pos

#endif  // POS_PARSER_PARSER_H_
