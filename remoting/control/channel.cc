#include "remoting/control/channel.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "pos/base/clock.h"

namespace pos {
namespace {

Status FillAddress(const std::string& path, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  if (path.size() >= sizeof(address->sun_path)) {
    return Invalid("socket path is longer than " +
                       std::to_string(sizeof(address->sun_path) - 1) +
                       " bytes: " + path,
                   "choose a shorter state directory");
  }
  std::memcpy(address->sun_path, path.c_str(), path.size() + 1);
  return {};
}

Status WaitFor(int fd, short events, int timeout_ms, const char* what) {
  const Deadline deadline = Deadline::AfterMs(
      timeout_ms < 0 ? 0 : static_cast<std::uint64_t>(timeout_ms));
  for (;;) {
    pollfd p{fd, events, 0};
    const int rc = ::poll(&p, 1, timeout_ms < 0 ? -1 : deadline.LeftMs());
    if (rc > 0) return {};
    if (rc == 0)
      return Timeout(std::string(what) + ": nothing within " +
                     std::to_string(timeout_ms) + " ms");
    if (errno != EINTR) return ErrnoStatus(errno, "poll");
  }
}

constexpr std::size_t kControlBytes =
    CMSG_SPACE(sizeof(int) * ControlChannel::kMaxFds);

}  // namespace

void TakeFds(msghdr* header, std::vector<UniqueFd>* fds) {
  for (cmsghdr* c = CMSG_FIRSTHDR(header); c != nullptr;
       c = CMSG_NXTHDR(header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      fds->emplace_back(fd);
    }
  }
}

Status ControlChannel::MakePair(UniqueFd* a, UniqueFd* b) {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.data()) !=
      0) {
    return ErrnoStatus(errno, "socketpair");
  }
  a->Reset(fds[0]);
  b->Reset(fds[1]);
  return {};
}

Result<UniqueFd> ControlChannel::Connect(const std::string& path) {
  sockaddr_un address;
  POS_RETURN_IF_ERROR(FillAddress(path, &address));
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoStatus(errno, "socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                sizeof(address)) != 0) {
    return ErrnoStatus(errno, "connect to " + path);
  }
  return fd;
}

Result<UniqueFd> ControlChannel::Listen(const std::string& path, mode_t mode) {
  sockaddr_un address;
  POS_RETURN_IF_ERROR(FillAddress(path, &address));
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoStatus(errno, "socket");
  ::unlink(path.c_str());
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
             sizeof(address)) != 0) {
    return ErrnoStatus(errno, "bind " + path);
  }
  if (::chmod(path.c_str(), mode) != 0) return ErrnoStatus(errno, path);
  if (::listen(fd.get(), 128) != 0) return ErrnoStatus(errno, "listen");
  return fd;
}

Result<UniqueFd> ControlChannel::Accept(int listener, int timeout_ms) {
  POS_RETURN_IF_ERROR(WaitFor(listener, POLLIN, timeout_ms, "accept"));
  UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "accept");
  return fd;
}

Result<PeerCredentials> ControlChannel::Peer(int socket) {
  ucred cred{};
  socklen_t size = sizeof(cred);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &size) != 0) {
    return ErrnoStatus(errno, "SO_PEERCRED");
  }
  return PeerCredentials{cred.pid, cred.uid, cred.gid};
}

Status ControlChannel::Send(std::string_view bytes, std::span<const int> fds) {
  if (bytes.size() > kMaxMessageBytes || fds.size() > kMaxFds) {
    return Proto("control message of " + std::to_string(bytes.size()) +
                 " bytes and " + std::to_string(fds.size()) +
                 " descriptors is over the limit");
  }
  iovec iov{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control{};
  msghdr header{};
  header.msg_iov = &iov;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(c), fds.data(), sizeof(int) * fds.size());
  }
  MutexLock lock(&send_mu_);
  for (;;) {
    const ssize_t n =
        ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) return {};
    if (errno == EAGAIN) {
      POS_RETURN_IF_ERROR(
          WaitFor(socket_.get(), POLLOUT, kSendTimeoutMs, "send"));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return Closed("the process at the other end is gone");
    } else if (errno != EINTR) {
      return ErrnoStatus(errno, "send on a control channel");
    }
  }
}

Result<ControlChannel::Message> ControlChannel::Receive(int timeout_ms) {
  POS_RETURN_IF_ERROR(WaitFor(socket_.get(), POLLIN, timeout_ms, "receive"));
  Message message;
  message.bytes.resize(kMaxMessageBytes + 1);
  iovec iov{message.bytes.data(), message.bytes.size()};
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control{};
  msghdr header{};
  header.msg_iov = &iov;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t n = 0;
  do {
    n = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && errno == ECONNRESET) {  // it left something unread
    return Closed("the process at the other end is gone");
  }
  if (n < 0) return ErrnoStatus(errno, "receive on a control channel");
  TakeFds(&header, &message.fds);
  if (n == 0) return Closed("the other end of a control channel is gone");
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return Proto("control message is over the limit");
  }
  message.bytes.resize(static_cast<std::size_t>(n));
  return message;
}

void ControlChannel::Shutdown() { ::shutdown(socket_.get(), SHUT_RDWR); }

}  // namespace pos
