// posd's door: accepts connections on its Unix socket, looks at what they begin
// with, and hands them on.
//
//   HTTP/2's preface     to `http2`, nothing read from it
//   a StdioOffer         into the offer table
//   anything else, or nothing within `undecided_ms`     closed
//
// Threads:   one of its own; `http2` is called on it and must not block.
// Ownership: `listener`, `offers` outlive the acceptor; connections are its own
//            until handed on.
// Blocking:  no client can make it wait: all its sockets are non-blocking, and
//            what it closes it closes impatiently. What no client can fill is
//            bounded: undecided connections per user and in all (the user's
//            oldest goes first), offers (OfferTable), and open connections
//            that were handed on.
// Errors:    out of descriptors: accepting pauses for a moment, and says so.
//
// Rights (SCM_RIGHTS) on an HTTP/2 connection have no use. A connection with
// some in its queue is closed, and the kernel is told to let none in
// afterwards, where it can (Linux 6.16, SO_PASSRIGHTS): gRPC would drop them on
// a thread that others need, and a drop may sleep (impatient_closer.h).
//
// Test: tests/pos/daemon/acceptor_test.cc
#ifndef POS_DAEMON_ACCEPTOR_H_
#define POS_DAEMON_ACCEPTOR_H_

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/daemon/impatient_closer.h"
#include "pos/daemon/live_connections.h"
#include "pos/daemon/offer_table.h"

namespace pos {

class Acceptor {
 public:
  struct Limits {
    std::uint64_t undecided_ms = 5000;
    std::size_t undecided_per_uid = 64;
    std::size_t undecided_total = 1024;
    std::size_t connections_per_uid = 512;
    std::size_t connections_total = 4096;
  };
  using Http2Handler = std::function<void(UniqueFd connection)>;

  static Result<std::unique_ptr<Acceptor>> Start(int listener,
                                                 OfferTable* offers,
                                                 const Limits& limits,
                                                 Http2Handler http2);
  // Closes what is undecided; `http2` is not called any more afterwards.
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // Any thread: connections that have not shown yet what they are.
  [[nodiscard]] std::size_t undecided() const {
    return undecided_count_.load(std::memory_order_relaxed);
  }

 private:
  struct Undecided {
    UniqueFd socket;
    uid_t uid = 0;
    Deadline deadline;
    bool watched = false;
  };
  using UndecidedMap = std::map<std::uint64_t, Undecided>;  // oldest first

  Acceptor(int listener, OfferTable* offers, const Limits& limits,
           Http2Handler http2);
  Status Open();
  void Run();
  [[nodiscard]] int WaitMs() const;
  void AcceptSome();
  void PauseAccepting(int error);
  void ResumeAccepting();
  void Admit(UniqueFd socket);
  void MakeRoom(uid_t uid);
  void OnEvent(std::uint64_t id, std::uint32_t events);
  // Looks again; true when the connection is undecided still.
  bool Inspect(std::uint64_t id);
  void TakeOffer(UndecidedMap::iterator it, std::span<const std::byte> record);
  void HandOver(UndecidedMap::iterator it);
  [[nodiscard]] bool HoldsRights(int socket);
  bool Watch(int fd, std::uint64_t id);
  UniqueFd Remove(UndecidedMap::iterator it);
  void Expire();

  const int listener_;
  OfferTable* const offers_;
  const Limits limits_;
  const Http2Handler http2_;
  UniqueFd epoll_;
  UniqueFd stop_;  // eventfd
  std::atomic<std::size_t> undecided_count_{0};

  // The thread's.
  ImpatientCloser closer_;
  LiveConnections live_;
  UndecidedMap undecided_;
  std::map<uid_t, std::size_t> undecided_of_;
  std::uint64_t next_id_ = 0;
  std::optional<Deadline> paused_until_;
  std::optional<Deadline> quiet_until_;  // do not log a pause again
  std::vector<std::byte> peek_;
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace pos

#endif  // POS_DAEMON_ACCEPTOR_H_
