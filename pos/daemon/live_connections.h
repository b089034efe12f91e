// How many connections each user has open, when their owner does not say when
// it closes one (gRPC owns them).
//
// A connection is remembered by descriptor number and socket inode. Whether it
// is still open is looked up only when a limit is reached: then the number
// names another file or none.
//
// Threads: one.
//
// Test: tests/pos/daemon/acceptor_test.cc
#ifndef POS_DAEMON_LIVE_CONNECTIONS_H_
#define POS_DAEMON_LIVE_CONNECTIONS_H_

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <vector>

namespace pos {

class LiveConnections {
 public:
  LiveConnections(std::size_t per_uid, std::size_t total)
      : per_uid_(per_uid), total_(total) {}

  // Notes that `socket`, open now, is a connection of `uid`. False, and nothing
  // noted, when that user or all together have too many.
  [[nodiscard]] bool Admit(int socket, uid_t uid);

  // Looks which are still open.
  [[nodiscard]] std::size_t CountOpen();

 private:
  struct Entry {
    int socket = -1;
    uid_t uid = 0;
    std::string target;  // "socket:[inode]"
  };

  [[nodiscard]] bool Full(uid_t uid) const;
  void ForgetClosed();

  const std::size_t per_uid_;
  const std::size_t total_;
  std::vector<Entry> entries_;
};

}  // namespace pos

#endif  // POS_DAEMON_LIVE_CONNECTIONS_H_
