// The front end: takes frames off a session's ring, refuses what is malformed,
// numbers the calls and passes them to the parser.
//
// The client is not trusted. A frame is copied to the runner's memory before
// any of it is looked at, and nothing is read twice. Checked here: the call
// exists, its sizes are exactly or at most what the table says, slot and lease
// lie inside the shared memory, flags fit the call. What arguments mean is the
// parser's business. The first malformed frame ends the session (Malformed).
//
// Threads: Step, Idle: the thread that runs the stage. failure(): any.
#ifndef REMOTING_FRONTEND_FRONT_END_H_
#define REMOTING_FRONTEND_FRONT_END_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "pos/base/status.h"
#include "pos/call/call_info.h"
#include "pos/call/context_pool.h"
#include "pos/parser/parser.h"
#include "pos/queue/stage.h"
#include "remoting/transport/shm/ring_server.h"

namespace pos {

// Checks a frame (header, arguments, payload) that lies in our own memory
// against the table and the ring's geometry. kProto names what is wrong.
Status ValidateFrame(std::span<const std::byte> frame, CallTable table,
                     const RingGeometry& geometry);

class FrontEnd : public Stage {
 public:
  // `on_malformed`: called once, on the stage's thread, with the reason.
  FrontEnd(RingServer* ring, CallTable table, ContextPool* pool,
           ContextQueue* out, std::function<void(const Status&)> on_malformed)
      : ring_(ring),
        table_(table),
        pool_(pool),
        out_(out),
        on_malformed_(std::move(on_malformed)) {}

  bool Step() override;
  bool Idle() override;

  // Paused: nothing is left in the ring or here. (Gated clients reserve
  // nothing more.)
  [[nodiscard]] bool Quiet() const;
  // The pc that the next call gets. Set at restore.
  [[nodiscard]] std::uint64_t next_pc() const {
    return next_pc_.load(std::memory_order_relaxed);
  }
  void set_next_pc(std::uint64_t pc) {
    next_pc_.store(pc, std::memory_order_relaxed);
  }
  // Fills in what follows from a frame that is in `context` already, checked
  // (a call loaded from an image).
  void SetInfo(ApiContext* context) const;
  // Whether such a call's slot, lease and flags are those that were checked.
  static bool IsOfItsFrame(const ApiContext& context);
  void SetDownstreamWake(std::function<void()> wake) {
    wake_downstream_ = std::move(wake);
  }

 private:
  static constexpr int kBatch = 64;
  // False: nothing taken (none there, no room, or malformed).
  bool TakeOne();
  void Fill(ApiContext* context);
  bool FlushReady();
  void Fail(const Status& status);

  RingServer* const ring_;
  const CallTable table_;
  ContextPool* const pool_;
  ContextQueue* const out_;
  const std::function<void(const Status&)> on_malformed_;
  std::function<void()> wake_downstream_;
  std::atomic<std::uint64_t> next_pc_{1};
  ApiContext* ready_ = nullptr;  // taken, the parser's queue was full
  ApiContext* spare_ = nullptr;  // from the pool, not used yet
  bool failed_ = false;
};

}  // namespace pos

#endif  // REMOTING_FRONTEND_FRONT_END_H_
