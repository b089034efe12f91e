#include "remoting/shim/thread_state.h"

#include <pthread.h>

#include <algorithm>

#include "remoting/shim/driver_state.h"

namespace pos::shim {
namespace {

// A pointer in the initial TLS block: reached without a function call. Its
// eight bytes fit what glibc keeps free for libraries loaded later.
__attribute__((tls_model("initial-exec"))) thread_local ThreadState* t_state =
    nullptr;

pthread_key_t ExitKey() {
  static const pthread_key_t key = [] {
    pthread_key_t k = 0;
    ::pthread_key_create(&k, [](void* value) {
      auto* const state = static_cast<ThreadState*>(value);
      // Other keys' destructors may have called in and made a new state.
      if (t_state == nullptr) t_state = state;
      Driver::Get().DropOwnStreams(state);
      t_state = nullptr;
      ThreadRegistry::Get().Release(state);
    });
    return k;
  }();
  return key;
}

}  // namespace

ThreadState* CurrentThread() {
  if (t_state == nullptr) [[unlikely]] {
    t_state = ThreadRegistry::Get().Acquire();
    ::pthread_setspecific(ExitKey(), t_state);
  }
  return t_state;
}

ThreadRegistry& ThreadRegistry::Get() {
  // Leaked: exit handlers call in after static destructors have run.
  static ThreadRegistry* const registry = new ThreadRegistry;
  return *registry;
}

ThreadState* ThreadRegistry::Acquire() {
  MutexLock lock(&mu_);
  const auto it = std::find_if(states_.begin(), states_.end(),
                               [](ThreadState* s) { return !s->in_use; });
  ThreadState* state = nullptr;
  if (it != states_.end()) {
    state = *it;
  } else {
    state = new ThreadState;
    states_.push_back(state);
  }
  state->in_use = true;
  return state;
}

void ThreadRegistry::Release(ThreadState* state) {
  MutexLock lock(&mu_);
  state->contexts.clear();
  state->own_streams.clear();
  state->capture_mode = 0;
  state->inside.store(0, std::memory_order_release);
  state->in_use = false;
}

void ThreadRegistry::ForEach(const std::function<void(ThreadState*)>& visit) {
  MutexLock lock(&mu_);
  for (ThreadState* state : states_) {
    if (state->in_use) visit(state);
  }
}

}  // namespace pos::shim
