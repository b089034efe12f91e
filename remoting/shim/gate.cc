#include "remoting/shim/gate.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pos/base/futex.h"

namespace pos::shim {

void Gate::Prepare() {
  // Registration is the process's and survives neither exec nor, on every
  // kernel, a restore: asked for again at each attach.
  const long rc = ::syscall(SYS_membarrier,
                            MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
  membarrier_.store(rc == 0, std::memory_order_seq_cst);
}

void Gate::Announce(ThreadState* thread) {
  if (membarrier_.load(std::memory_order_relaxed)) {
    thread->inside.store(1, std::memory_order_relaxed);
    // The compiler must not move the look at the flags before the store; the
    // processor is told by membarrier.
    std::atomic_signal_fence(std::memory_order_seq_cst);
  } else {
    thread->inside.exchange(1, std::memory_order_seq_cst);
  }
}

void Gate::HeavyFence() {
  if (membarrier_.load(std::memory_order_relaxed)) {
    ::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
  }
}

void Gate::Enter(ThreadState* thread) {
  for (;;) {
    Announce(thread);
    if (door_.load(std::memory_order_acquire) == 0) [[likely]]
      return;
    Leave(thread);
    FutexWait(&door_, 1, FutexScope::kPrivate);
  }
}

void Gate::Reenter(ThreadState* thread) {
  for (;;) {
    Announce(thread);
    if (out_.load(std::memory_order_acquire) == 0) return;
    Leave(thread);
    FutexWait(&out_, 1, FutexScope::kPrivate);
  }
}

void Gate::CloseDoor() {
  door_.store(1, std::memory_order_seq_cst);
  HeavyFence();
}

void Gate::OpenDoor() {
  door_.store(0, std::memory_order_seq_cst);
  FutexWake(&door_, FutexScope::kPrivate);
}

void Gate::SetOut() {
  out_.store(1, std::memory_order_seq_cst);
  HeavyFence();
}

void Gate::ClearOut() {
  out_.store(0, std::memory_order_seq_cst);
  FutexWake(&out_, FutexScope::kPrivate);
}

int Gate::WaitUntilEmpty(const Deadline& deadline) {
  std::uint64_t nap_ns = 20'000;
  for (;;) {
    int inside = 0;
    ThreadRegistry::Get().ForEach([&](ThreadState* thread) {
      if (thread->inside.load(std::memory_order_seq_cst) != 0) ++inside;
    });
    if (inside == 0 || deadline.Passed()) return inside;
    SleepNs(nap_ns);
    if (nap_ns < 1'000'000) nap_ns *= 2;
  }
}

}  // namespace pos::shim
