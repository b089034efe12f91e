#include "pos/daemon/stdio_offer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "pos/base/clock.h"
#include "remoting/control/channel.h"

namespace pos {
namespace {

// RFC 9113, section 3.4.
constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr std::uint32_t kAllStreams = 7;
// Room for one descriptor too many, so that it is noticed.
constexpr std::size_t kMaxFds = 4;

bool SamePrefix(std::span<const std::byte> bytes, std::string_view text) {
  const std::size_t size = std::min(bytes.size(), text.size());
  return std::memcmp(bytes.data(), text.data(), size) == 0;
}

Status FillAddress(const std::string& path, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address->sun_path)) {
    return Invalid("the socket path \"" + path + "\" must have 1 to " +
                   std::to_string(sizeof(address->sun_path) - 1) + " bytes");
  }
  std::memcpy(address->sun_path, path.c_str(), path.size() + 1);
  return {};
}

Status SendOffer(int socket, const StdioOffer& offer,
                 std::span<const int> fds) {
  StdioOffer copy = offer;
  iovec iov{&copy, sizeof(copy)};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 3)> control{};
  msghdr header{};
  header.msg_iov = &iov;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
  }
  ssize_t n = 0;
  do {
    n = ::sendmsg(socket, &header, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return ErrnoStatus(errno, "offer the standard streams");
  if (n != static_cast<ssize_t>(sizeof(copy))) {
    return Internal("the offer of the standard streams was cut short");
  }
  return {};
}

Status WaitReadable(int socket, const Deadline& deadline) {
  for (;;) {
    pollfd p{socket, POLLIN, 0};
    const int rc = ::poll(&p, 1, deadline.LeftMs());
    if (rc > 0) return {};
    if (rc == 0) return Timeout("posd does not answer");
    if (errno != EINTR) return ErrnoStatus(errno, "poll");
  }
}

Status AwaitReply(int socket, const Deadline& deadline) {
  OfferReply reply;
  std::size_t have = 0;
  while (have < sizeof(reply)) {
    POS_RETURN_IF_ERROR(WaitReadable(socket, deadline));
    const ssize_t n = ::recv(socket, reinterpret_cast<char*>(&reply) + have,
                             sizeof(reply) - have, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "answer to the offer");
    if (n == 0) return Closed("posd refused the offer of standard streams");
    have += static_cast<std::size_t>(n);
  }
  if (reply.magic != OfferReply::kMagic) {
    return Proto("what listens there is not posd");
  }
  switch (static_cast<OfferResult>(reply.result)) {
    case OfferResult::kTaken:
      return {};
    case OfferResult::kMalformed:
      return Proto("posd does not understand the offer of standard streams");
    case OfferResult::kTooMany:
      return Busy("too many runs of yours are being started",
                  "try again when they have started");
    case OfferResult::kInUse:
      return Exists("the ticket is in use");
  }
  return Proto("posd's answer to the offer is not known here");
}

}  // namespace

Opening ClassifyOpening(std::span<const std::byte> first) {
  if (first.empty()) return Opening::kUndecided;
  if (SamePrefix(first, kHttp2Preface)) {
    return first.size() >= kHttp2Preface.size() ? Opening::kHttp2
                                                : Opening::kUndecided;
  }
  if (SamePrefix(first,
                 {StdioOffer::kMagic.data(), StdioOffer::kMagic.size()})) {
    return first.size() >= sizeof(StdioOffer) ? Opening::kOffer
                                              : Opening::kUndecided;
  }
  return Opening::kNeither;
}

Result<UniqueFd> ConnectToPosd(const std::string& path, int timeout_ms) {
  sockaddr_un address;
  POS_RETURN_IF_ERROR(FillAddress(path, &address));
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(std::max(timeout_ms, 0)));
  for (;;) {
    UniqueFd fd(
        ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return ErrnoStatus(errno, "socket");
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                  sizeof(address)) == 0) {
      POS_RETURN_IF_ERROR(SetNonBlocking(fd.get(), false));
      return fd;
    }
    if (errno != EAGAIN && errno != EINTR) {  // EAGAIN: the queue is full
      return ErrnoStatus(errno, "connect to " + path);
    }
    if (deadline.Passed()) return Timeout("connect to " + path + ": no answer");
    SleepNs(5'000'000);
  }
}

Result<UniqueFd> OfferStdio(const std::string& path, const Ticket& ticket,
                            const std::array<int, 3>& fds, int timeout_ms) {
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(std::max(timeout_ms, 0)));
  StdioOffer offer;
  offer.ticket = ticket;
  std::array<int, 3> present{};
  std::size_t count = 0;
  for (std::size_t i = 0; i < fds.size(); ++i) {
    if (fds[i] < 0) continue;
    offer.streams |= 1u << i;
    present[count++] = fds[i];
  }
  POS_ASSIGN_OR_RETURN(UniqueFd socket, ConnectToPosd(path, timeout_ms));
  POS_RETURN_IF_ERROR(
      SendOffer(socket.get(), offer, std::span(present).first(count)));
  POS_RETURN_IF_ERROR(AwaitReply(socket.get(), deadline));
  return socket;
}

Result<StdioFds> ReceiveOffer(int connection) {
  StdioOffer offer;
  iovec iov{&offer, sizeof(offer)};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * kMaxFds)>
      control{};
  msghdr header{};
  header.msg_iov = &iov;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t n = 0;
  do {
    n = ::recvmsg(connection, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return ErrnoStatus(errno, "receive the standard streams");
  std::vector<UniqueFd> fds;
  TakeFds(&header, &fds);
  if (n != static_cast<ssize_t>(sizeof(offer)) ||
      (header.msg_flags & MSG_CTRUNC) != 0 ||
      offer.magic != StdioOffer::kMagic || offer.reserved != 0 ||
      (offer.streams & ~kAllStreams) != 0 ||
      fds.size() != static_cast<std::size_t>(std::popcount(offer.streams))) {
    return Proto("the standard streams offered are not those announced");
  }
  StdioFds stdio;
  std::size_t next = 0;
  if ((offer.streams & 1) != 0) stdio.in = std::move(fds[next++]);
  if ((offer.streams & 2) != 0) stdio.out = std::move(fds[next++]);
  if ((offer.streams & 4) != 0) stdio.err = std::move(fds[next++]);
  return stdio;
}

}  // namespace pos
