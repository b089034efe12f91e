// Message channel between our own processes on one host (posd, pos-job,
// pos-runner): a SOCK_SEQPACKET Unix socket that carries bounded messages and
// descriptors. What the bytes mean is the caller's (a protobuf message).
//
// Threads:   Send may be called by several threads at once; Receive by one
//            thread at a time, at once with Send.
// Ownership: owns its socket. Descriptors passed to Send stay the caller's;
//            received ones belong to the message, close-on-exec.
// Blocking:  Receive waits up to its time-out; Send waits up to kSendTimeoutMs
//            for a peer that does not read, then fails with kTimeout.
// Errors:    kClosed when the peer is gone; kProto for a message larger than
//            kMaxMessageBytes or with more than kMaxFds descriptors.
#ifndef REMOTING_CONTROL_CHANNEL_H_
#define REMOTING_CONTROL_CHANNEL_H_

#include <sys/socket.h>
#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"

namespace pos {

// Who is at the other end, as the kernel says (SO_PEERCRED).
struct PeerCredentials {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

// All descriptors of a message that recvmsg(2) has filled in, which are its
// receiver's from then on. Adds to `fds`.
void TakeFds(msghdr* header, std::vector<UniqueFd>* fds);

class ControlChannel {
 public:
  static constexpr std::size_t kMaxMessageBytes = 96 * 1024;
  static constexpr std::size_t kMaxFds = 64;
  static constexpr int kSendTimeoutMs = 10000;

  struct Message {
    std::string bytes;
    std::vector<UniqueFd> fds;
  };

  ControlChannel() = default;  // closed
  explicit ControlChannel(UniqueFd socket) : socket_(std::move(socket)) {}
  ControlChannel(const ControlChannel&) = delete;
  ControlChannel& operator=(const ControlChannel&) = delete;

  // Two connected sockets, close-on-exec.
  static Status MakePair(UniqueFd* a, UniqueFd* b);
  static Result<UniqueFd> Connect(const std::string& path);
  // Listens at `path`, replacing a stale socket there; file mode `mode`.
  static Result<UniqueFd> Listen(const std::string& path, mode_t mode);
  // Next connection of a listener; kTimeout after `timeout_ms` (-1: none).
  static Result<UniqueFd> Accept(int listener, int timeout_ms);
  static Result<PeerCredentials> Peer(int socket);

  [[nodiscard]] int fd() const { return socket_.get(); }

  Status Send(std::string_view bytes, std::span<const int> fds = {})
      POS_EXCLUDES(send_mu_);
  // kTimeout after `timeout_ms` (-1: waits for ever); kClosed at end of file.
  Result<Message> Receive(int timeout_ms);
  // Makes a blocked Receive, here and at the peer, return kClosed.
  void Shutdown();

 private:
  UniqueFd socket_;
  Mutex send_mu_;
};

}  // namespace pos

#endif  // REMOTING_CONTROL_CHANNEL_H_
