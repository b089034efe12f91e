#include "pos/job/sockets.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <optional>

#include "pos/base/fd.h"
#include "pos/base/process.h"

namespace pos::job {
namespace {

constexpr int kIpprotoMptcp = 262;

int IntOption(int socket, int level, int option) {
  int value = -1;
  socklen_t size = sizeof(value);
  return ::getsockopt(socket, level, option, &value, &size) == 0 ? value : -1;
}

UniqueFd Borrow(pid_t pid, int number) {
  const Result<UniqueFd> pidfd = OpenPidFd(pid);
  if (!pidfd.ok()) return UniqueFd();
  return UniqueFd(
      static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd->get(), number, 0)));
}

std::string AddressText(const sockaddr_storage& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.ss_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &address, sizeof(in));
    ::inet_ntop(AF_INET, &in.sin_addr, text.data(), text.size());
    return std::string(text.data()) + ":" + std::to_string(ntohs(in.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    sockaddr_in6 in{};
    std::memcpy(&in, &address, sizeof(in));
    ::inet_ntop(AF_INET6, &in.sin6_addr, text.data(), text.size());
    return "[" + std::string(text.data()) +
           "]:" + std::to_string(ntohs(in.sin6_port));
  }
  return "?";
}

std::string TcpBlocker(int socket) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return "";
  if (info.tcpi_state == TCP_CLOSE || info.tcpi_state == TCP_LISTEN) return "";
  sockaddr_storage local{};
  sockaddr_storage peer{};
  socklen_t local_size = sizeof(local);
  socklen_t peer_size = sizeof(peer);
  ::getsockname(socket, reinterpret_cast<sockaddr*>(&local), &local_size);
  ::getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &peer_size);
  return "is a TCP connection, " + AddressText(local) + " to " +
         AddressText(peer);
}

// Inode of the socket that a Unix socket is connected to; 0: none.
std::optional<std::uint32_t> UnixPeer(std::uint64_t inode) {
  const UniqueFd netlink(
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!netlink.valid()) return std::nullopt;
  struct {
    nlmsghdr header;
    unix_diag_req request;
  } message{};
  message.header.nlmsg_len = sizeof(message);
  message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  message.header.nlmsg_flags = NLM_F_REQUEST;
  message.request.sdiag_family = AF_UNIX;
  message.request.udiag_states = ~0u;
  message.request.udiag_ino = static_cast<std::uint32_t>(inode);
  message.request.udiag_show = UDIAG_SHOW_PEER;
  message.request.udiag_cookie[0] = ~0u;  // any
  message.request.udiag_cookie[1] = ~0u;
  if (::send(netlink.get(), &message, sizeof(message), 0) < 0) {
    return std::nullopt;
  }
  alignas(nlmsghdr) std::array<char, 4096> buffer{};
  // The kernel answers a netlink request before send returns.
  const ssize_t n =
      ::recv(netlink.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < static_cast<ssize_t>(sizeof(nlmsghdr) + sizeof(unix_diag_msg))) {
    return std::nullopt;
  }
  nlmsghdr header{};
  std::memcpy(&header, buffer.data(), sizeof(header));
  if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY ||
      header.nlmsg_len > static_cast<std::size_t>(n)) {
    return std::nullopt;
  }
  std::size_t at = NLMSG_LENGTH(sizeof(unix_diag_msg));
  while (at + sizeof(rtattr) <= header.nlmsg_len) {
    rtattr attribute{};
    std::memcpy(&attribute, buffer.data() + at, sizeof(attribute));
    if (attribute.rta_len < sizeof(rtattr) ||
        at + attribute.rta_len > header.nlmsg_len) {
      break;
    }
    if (attribute.rta_type == UNIX_DIAG_PEER &&
        attribute.rta_len >= RTA_LENGTH(sizeof(std::uint32_t))) {
      std::uint32_t peer = 0;
      std::memcpy(&peer, buffer.data() + at + RTA_LENGTH(0), sizeof(peer));
      return peer;
    }
    at += RTA_ALIGN(attribute.rta_len);
  }
  return 0;
}

// What a Unix socket's peer is bound to; abstract names begin with '@'.
std::string UnixPeerName(int socket) {
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) !=
          0 ||
      size <= offsetof(sockaddr_un, sun_path)) {
    return "";
  }
  std::string name(address.sun_path, size - offsetof(sockaddr_un, sun_path));
  if (name[0] == '\0') return "@" + name.substr(1);
  return name.c_str();
}

std::string UnixBlocker(int socket, std::uint64_t inode,
                        const std::set<std::uint64_t>& own_inodes,
                        const std::string& own_socket,
                        const std::string& attach_socket) {
  if (!attach_socket.empty() &&
      UnixPeerName(socket).ends_with("/" + attach_socket)) {
    return kBeingAttached;
  }
  const std::optional<std::uint32_t> peer = UnixPeer(inode);
  if (!peer || *peer == 0 || own_inodes.count(*peer) != 0) return "";
  const std::string name = UnixPeerName(socket);
  if (!own_socket.empty() && name.ends_with("/" + own_socket)) return "";
  return "is a Unix socket connected to a process outside the job" +
         (name.empty() ? "" : " (" + name + ")");
}

}  // namespace

std::string SocketBlocker(pid_t pid, int number, std::uint64_t inode,
                          const std::set<std::uint64_t>& own_inodes,
                          const std::string& own_socket,
                          const std::string& attach_socket) {
  const UniqueFd socket = Borrow(pid, number);
  if (!socket.valid()) return "";
  const int domain = IntOption(socket.get(), SOL_SOCKET, SO_DOMAIN);
  const int protocol = IntOption(socket.get(), SOL_SOCKET, SO_PROTOCOL);
  switch (domain) {
    case AF_INET:
    case AF_INET6:
      if (protocol == IPPROTO_TCP) return TcpBlocker(socket.get());
      if (protocol == IPPROTO_SCTP || protocol == kIpprotoMptcp) {
        return "is a socket of protocol " + std::to_string(protocol);
      }
      return "";
    case AF_UNIX:
      return UnixBlocker(socket.get(), inode, own_inodes, own_socket,
                         attach_socket);
    case AF_NETLINK:
    case AF_PACKET:
      return "";
    default:
      return "is a socket of address family " + std::to_string(domain);
  }
}

}  // namespace pos::job
