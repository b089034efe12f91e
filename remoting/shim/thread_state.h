// What the client library keeps for each thread of the program.
//
// A thread's state is made at its first call and given back when the thread
// ends. States are recycled, never freed: the control thread walks them at any
// time, exit handlers may run late, and the process image of a checkpoint holds
// them.
#ifndef REMOTING_SHIM_THREAD_STATE_H_
#define REMOTING_SHIM_THREAD_STATE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "pos/base/mutex.h"
#include "remoting/wire/ring_layout.h"

namespace pos::shim {

struct Context;

// How a thread waits, besides spinning: on this word, in private memory. The
// control thread sets it to 1 and wakes. (A thread asleep on a futex in shared
// memory could not survive the unmapping at a detach.)
struct Waiter {
  std::atomic<std::uint32_t> word{0};
  // The reply slot waited for, or kNoSlot. Set before the thread sleeps.
  std::atomic<std::uint32_t> slot{wire::kNoSlot};
  std::atomic<bool> for_lease{false};
};

struct ThreadState {
  // 1 while the thread may touch shared memory (see Gate).
  alignas(64) std::atomic<std::uint32_t> inside{0};
  Waiter waiter;
  // Reply slot used last, tried first.
  std::uint32_t slot_hint = 0;
  bool in_use = false;  // guarded by the registry's lock

  // The thread's own; nobody else reads them.
  std::vector<Context*> contexts;  // stack; the last one is current
  // Streams that stand for "this thread's default stream", by context.
  struct OwnStream {
    std::uint64_t context_generation;
    std::uint64_t stream;
  };
  std::vector<OwnStream> own_streams;
  // A call of this thread saw that text of kernels waits (output.h).
  bool output_seen = false;
  std::uint32_t capture_mode = 0;  // CU_STREAM_CAPTURE_MODE_GLOBAL
};

// The calling thread's state; made if there is none.
ThreadState* CurrentThread();

// All states in use.
class ThreadRegistry {
 public:
  static ThreadRegistry& Get();
  ThreadState* Acquire() POS_EXCLUDES(mu_);
  void Release(ThreadState* state) POS_EXCLUDES(mu_);
  // Calls `visit` for each state in use, with the lock held.
  void ForEach(const std::function<void(ThreadState*)>& visit)
      POS_EXCLUDES(mu_);

 private:
  Mutex mu_;
  std::vector<ThreadState*> states_ POS_GUARDED_BY(mu_);
};

}  // namespace pos::shim

#endif  // REMOTING_SHIM_THREAD_STATE_H_
