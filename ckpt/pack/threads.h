// Threads of the readers and writers here: created checked, with all signals
// blocked, so that the process's handlers run on its own threads.
#ifndef CKPT_PACK_THREADS_H_
#define CKPT_PACK_THREADS_H_

#include <csignal>
#include <system_error>
#include <thread>
#include <utility>

#include "pos/base/status.h"

namespace pos::ckpt {

template <typename F>
Result<std::thread> StartThread(F body) {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  Status status;
  std::thread thread;
  try {
    thread = std::thread(std::move(body));
  } catch (const std::system_error& error) {
    status = ErrnoStatus(error.code().value(), "create a thread");
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!status.ok()) return status;
  return thread;
}

// By default: one of four processors, 1 to 4.
inline unsigned DefaultThreads() {
  const unsigned quarter = std::thread::hardware_concurrency() / 4;
  return quarter < 1 ? 1 : (quarter > 4 ? 4 : quarter);
}

}  // namespace pos::ckpt

#endif  // CKPT_PACK_THREADS_H_
