// The door through which threads get at the shared memory.
//
// Two flags, in private memory. `door` closed: no new call begins; a thread
// that wants to waits outside, on the door's word. `out` set (a detach): nobody
// touches shared memory, not even to fetch an answer that is waited for.
//
// A thread announces itself (ThreadState::inside), then looks at the flags; the
// control thread sets a flag, then looks at the announcements. The announcing
// side is on every call, so it uses a plain store, and the control thread's
// side pays with membarrier(2); where that system call is refused, both use
// sequentially consistent operations.
//
// Threads: Enter, Reenter, Leave: any. The rest: the control thread.
#ifndef REMOTING_SHIM_GATE_H_
#define REMOTING_SHIM_GATE_H_

#include <atomic>
#include <cstdint>

#include "pos/base/clock.h"
#include "remoting/shim/thread_state.h"

namespace pos::shim {

class Gate {
 public:
  // Decides how fences work in this process. Once a Map, before threads enter.
  void Prepare();

  // Waits while the door is closed; on return the thread is inside.
  void Enter(ThreadState* thread);
  // For a thread that waits for an answer: waits only while `out` is set.
  void Reenter(ThreadState* thread);
  void Leave(ThreadState* thread) {
    thread->inside.store(0, std::memory_order_release);
  }

  void CloseDoor();
  void OpenDoor();
  void SetOut();
  void ClearOut();
  // Waits until no thread is inside. Returns how many still were at the
  // deadline.
  int WaitUntilEmpty(const Deadline& deadline);

 private:
  void Announce(ThreadState* thread);
  void HeavyFence();

  std::atomic<std::uint32_t> door_{0};  // 1: closed
  std::atomic<std::uint32_t> out_{0};   // 1: nobody may touch shared memory
  std::atomic<bool> membarrier_{false};
};

}  // namespace pos::shim

#endif  // REMOTING_SHIM_GATE_H_
