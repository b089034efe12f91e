// Closes descriptors that strangers have filled, without waiting for them.
//
// close(2) may sleep: the queue of a Unix socket may hold descriptors that
// nobody else has (SCM_RIGHTS), and the last close of a TCP socket with
// SO_LINGER waits for its peer for as long as the stranger has set, hours if he
// likes. That sleep ends with a signal, so a timer sends one every millisecond
// while a close lasts. Files with a flush of their own (FUSE) are not reached
// this way, only by descriptors that were received: do not receive them.
//
// The signal is SIGURG, which the kernel ignores by default: an empty handler
// is installed for the process unless there is one already.
//
// Threads: belongs to the thread that made it.
#ifndef POS_DAEMON_IMPATIENT_CLOSER_H_
#define POS_DAEMON_IMPATIENT_CLOSER_H_

#include <time.h>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos {

class ImpatientCloser {
 public:
  ImpatientCloser() = default;
  ~ImpatientCloser();
  ImpatientCloser(const ImpatientCloser&) = delete;
  ImpatientCloser& operator=(const ImpatientCloser&) = delete;

  // On the thread that closes. Without it, or when it fails, Close may sleep.
  Status Prepare();
  void Close(UniqueFd fd);

 private:
  timer_t timer_{};
  bool have_timer_ = false;
};

}  // namespace pos

#endif  // POS_DAEMON_IMPATIENT_CLOSER_H_
