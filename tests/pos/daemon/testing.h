// What the tests of posd's socket share.
#ifndef TESTS_POS_DAEMON_TESTING_H_
#define TESTS_POS_DAEMON_TESTING_H_

#include <dirent.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "pos/base/bytes.h"
#include "pos/base/clock.h"
#include "pos/base/fd.h"
#include "pos/base/files.h"
#include "pos/daemon/stdio_offer.h"

namespace pos {

inline constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// A directory that everybody may enter, removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string name = "/tmp/pos-test-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    EXPECT_EQ(::chmod(name.c_str(), 0755), 0);
    path_ = name;
  }
  ~TempDir() { EXPECT_TRUE(RemoveTree(path_).ok()); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string File(const std::string& name) const {
    return path_ + "/" + name;
  }

 private:
  std::string path_;
};

inline UniqueFd Dial(const std::string& path) {
  Result<UniqueFd> fd = ConnectToPosd(path, 5000);
  EXPECT_TRUE(fd.ok()) << fd.status().ToString();
  return fd.ok() ? std::move(*fd) : UniqueFd();
}

inline bool SendText(int fd, std::string_view text) {
  return ::send(fd, text.data(), text.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(text.size());
}

// Whatever bytes, with descriptors beside them.
inline bool SendWithFds(int socket, std::string_view bytes,
                        std::span<const int> fds) {
  iovec iov{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 16)>
      control{};
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
  return ::sendmsg(socket, &header, MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

inline std::string OfferBytes(const StdioOffer& offer) {
  return {reinterpret_cast<const char*>(&offer), sizeof(offer)};
}

inline Ticket NewTicket() {
  Ticket ticket;
  RandomBytes(ticket);
  return ticket;
}

// The other end has closed: end of file or a reset within `timeout_ms`.
inline bool IsClosedWithin(int fd, int timeout_ms) {
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(timeout_ms));
  for (;;) {
    pollfd p{fd, POLLIN, 0};
    if (::poll(&p, 1, deadline.LeftMs()) <= 0) return false;
    std::array<char, 256> buffer{};
    const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) return true;
  }
}

// Polls until `what` holds; the bound is generous, machines are slow.
inline bool Eventually(const std::function<bool()>& what,
                       std::uint64_t timeout_ms = 5000) {
  const Deadline deadline = Deadline::AfterMs(timeout_ms);
  while (!what()) {
    if (deadline.Passed()) return false;
    SleepNs(2'000'000);
  }
  return true;
}

inline std::size_t OpenFdCount() {
  DIR* dir = ::opendir("/proc/self/fd");
  if (dir == nullptr) return 0;
  std::size_t count = 0;
  while (::readdir(dir) != nullptr) ++count;
  ::closedir(dir);
  return count;
}

}  // namespace pos

#endif  // TESTS_POS_DAEMON_TESTING_H_
