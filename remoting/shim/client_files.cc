// Files that the client gives to its runner.
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "remoting/shim/client.h"

namespace pos::shim {

std::uint64_t Client::SendFile(int file) {
  const std::uint64_t number = files_sent_.fetch_add(1) + 1;
  wire::SessionRecord record{wire::SessionRecordType::kHostFile, 0, number, 0};
  iovec part{&record, sizeof(record)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  cmsghdr* const c = CMSG_FIRSTHDR(&header);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(c), &file, sizeof(file));
  // The connection changes only while no thread is inside.
  ThreadState* const thread = CurrentThread();
  gate_.Reenter(thread);
  ssize_t n = -1;
  if (Usable()) {
    do {
      n = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
  }
  gate_.Leave(thread);
  return n == static_cast<ssize_t>(sizeof(record)) ? number : 0;
}

}  // namespace pos::shim
