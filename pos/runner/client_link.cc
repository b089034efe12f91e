#include "pos/runner/client_link.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "pos/base/clock.h"

namespace pos {
namespace {

Status SendWithFds(int socket, const void* record, std::size_t bytes,
                   std::span<const int> fds) {
  iovec iov{const_cast<void*>(record), bytes};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 8)> control{};
  msghdr header{};
  header.msg_iov = &iov;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* const c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(c), fds.data(), sizeof(int) * fds.size());
  }
  // A client that never reads fills its socket buffer; it is then dropped
  // rather than waited for.
  const ssize_t n = ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0) return ErrnoStatus(errno, "send to the client");
  return {};
}

// One record and the descriptor beside it, if any. Others than one are closed
// by the kernel or here.
ssize_t ReceiveWithFd(int socket, void* data, std::size_t bytes, UniqueFd* fd) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  iovec part{data, bytes};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t n = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0) return n;
  const cmsghdr* const c = CMSG_FIRSTHDR(&header);
  if (c != nullptr && c->cmsg_level == SOL_SOCKET &&
      c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int))) {
    int number = -1;
    std::memcpy(&number, CMSG_DATA(c), sizeof(number));
    fd->Reset(number);
  }
  return n;
}

}  // namespace

void ClientLink::Refuse(UniqueFd socket, wire::AttachStatus status,
                        const std::string& text) {
  wire::AttachReply reply;
  reply.status = status;
  text.copy(reply.text.data(), reply.text.size() - 1);
  SendWithFds(socket.get(), &reply, sizeof(reply), {}).IgnoreError();
}

Status ClientLink::Accept(UniqueFd socket, const RingServer& ring, int host_fd,
                          const cuda::ArenaLayout& layout,
                          std::uint64_t session, int device_count) {
  wire::AttachReply reply;
  reply.device_count = static_cast<std::uint32_t>(device_count);
  reply.session = session;
  reply.ring_map_bytes = ring.ring_map_bytes();
  reply.staging_bytes = ring.geometry().staging_bytes;
  reply.arena_base = layout.arena_base;
  reply.arena_bytes = layout.arena_bytes;
  reply.host_base = layout.host_base;
  reply.host_bytes = layout.host_bytes;
  const std::array<int, wire::kAttachFdCount> fds = {
      ring.ring_fd(), ring.staging_fd(), ring.bell_fd(), host_fd};
  POS_RETURN_IF_ERROR(SendWithFds(socket.get(), &reply, sizeof(reply), fds));
  socket_ = std::move(socket);
  said_detached_ = false;
  return {};
}

ClientLink::Event ClientLink::Read() {
  wire::SessionRecord record;
  ssize_t n = 0;
  UniqueFd file;
  do {
    n = ReceiveWithFd(socket_.get(), &record, sizeof(record), &file);
    // ECONNRESET: the other side closed with something of ours unread. It is
    // told once, before what the other side said last.
  } while (n < 0 && (errno == EINTR || errno == ECONNRESET));
  if (n < 0 && errno == EAGAIN) return Event::kNone;
  if (n <= 0) {
    socket_.Reset();
    return said_detached_ ? Event::kDetached : Event::kGone;
  }
  if (n != sizeof(record)) return Event::kMalformed;
  answered_epoch_ = record.epoch;
  switch (record.type) {
    case wire::SessionRecordType::kReady:
      verdict_address_ = record.a;
      client_pid_ = record.b;
      return Event::kReady;
    case wire::SessionRecordType::kGated:
      return Event::kGated;
    case wire::SessionRecordType::kRefusing:
      inside_ = record.a;
      return Event::kRefusing;
    case wire::SessionRecordType::kDetached:
      // Over only at the end of file: until then the process may still hold
      // the connection.
      said_detached_ = true;
      return Event::kNone;
    case wire::SessionRecordType::kHostFile:
      return file.valid() && on_file_ && on_file_(record.a, std::move(file))
                 ? Event::kNone
                 : Event::kMalformed;
    default:
      return Event::kMalformed;
  }
}

Status ClientLink::Send(wire::SessionRecordType type, std::uint32_t epoch) {
  const wire::SessionRecord record{type, epoch, 0, 0};
  return SendWithFds(socket_.get(), &record, sizeof(record), {});
}

ClientLink::Event ClientLink::WaitAnswer(std::uint32_t epoch, int timeout_ms,
                                         const Also& also) {
  int also_fd = also.fd;
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(std::max(timeout_ms, 0)));
  while (socket_.valid()) {
    std::array<pollfd, 2> polls = {pollfd{socket_.get(), POLLIN, 0},
                                   pollfd{also_fd, POLLIN, 0}};
    const int rc = ::poll(polls.data(), polls.size(), deadline.LeftMs());
    if (rc < 0 && errno == EINTR) continue;
    if (rc <= 0) return Event::kNone;
    if (polls[1].revents != 0 && !also.ready()) also_fd = -1;
    if (polls[0].revents == 0) {
      if (deadline.Passed()) return Event::kNone;
      continue;
    }
    const Event event = Read();
    const bool late = (event == Event::kGated || event == Event::kRefusing) &&
                      answered_epoch_ != epoch;
    if (event != Event::kNone && !late) return event;
  }
  return Event::kGone;
}

}  // namespace pos
