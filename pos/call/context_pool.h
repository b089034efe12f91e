// Recycles ApiContexts, so that a call allocates nothing in steady state.
//
// Threads: Take: the front-end thread. Give: the parser thread and the worker
//   thread, each through its own return lane. At: any thread, for a context
//   that is out.
// Bounds:  Take hands out at most `limit` contexts at a time (back-pressure:
//   then it returns nullptr), except in unbounded mode, which a cut uses to
//   take everything that is in the ring out of it; the ring bounds that.
// Memory:  contexts are kept for reuse, large buffers only by the first
//   kKeepBuffers of them (those are the ones in use unless the pipeline is
//   clogged).
// Errors:  a context that is given back twice ends the process: it would be
//   handed to two calls.
#ifndef POS_CALL_CONTEXT_POOL_H_
#define POS_CALL_CONTEXT_POOL_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/call/api_context.h"

namespace pos {

class ContextPool {
 public:
  enum class Lane { kParser, kWorker };

  explicit ContextPool(std::uint32_t limit = 16384) : limit_(limit) {}
  ContextPool(const ContextPool&) = delete;
  ContextPool& operator=(const ContextPool&) = delete;

  // nullptr when `limit` contexts are out.
  ApiContext* Take();
  // Makes what was given back available, the latest first: those are in the
  // processor's caches. The taker calls it now and then; Take does when it runs
  // out.
  void Recycle();
  void Give(Lane lane, ApiContext* context);
  [[nodiscard]] ApiContext* At(std::uint32_t pool_index);
  void SetUnbounded(bool on) {
    unbounded_.store(on, std::memory_order_relaxed);
  }
  // Contexts that are out. Exact when all stages are paused.
  [[nodiscard]] std::uint32_t Outstanding();

 private:
  static constexpr std::uint32_t kBlock = 256;
  static constexpr std::uint32_t kMaxBlocks = 1024;
  // Times the largest frame: what a client can make a runner keep.
  static constexpr std::uint32_t kKeepBuffers = 512;

  // Contexts on their way back. A lane is a batch behind a lock that its giver
  // and the taker hold for a few instructions, uncontended in steady state.
  struct ReturnLane {
    Mutex mu;
    std::vector<ApiContext*> batch POS_GUARDED_BY(mu);
    alignas(64) std::atomic<std::uint32_t> count{0};
  };
  bool Grow();

  const std::uint32_t limit_;
  std::atomic<bool> unbounded_{false};
  // Blocks never move; the pointers are published for At.
  std::array<std::atomic<ApiContext*>, kMaxBlocks> blocks_{};
  std::vector<std::unique_ptr<ApiContext[]>> owned_;  // taker only
  std::vector<ApiContext*> free_;                     // taker only
  std::uint32_t made_ = 0;                            // taker only
  std::uint32_t out_ = 0;                             // taker only
  std::array<ReturnLane, 2> lanes_;
};

}  // namespace pos

#endif  // POS_CALL_CONTEXT_POOL_H_
