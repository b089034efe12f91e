#include "pos/daemon/live_connections.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

namespace pos {
namespace {

// "socket:[123]": what the number stands for now. Read from /proc, because the
// descriptor may belong to somebody else by now.
std::string TargetOf(int fd) {
  std::array<char, 64> target{};
  const ssize_t n = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(),
                               target.data(), target.size());
  return n < 0 ? "" : std::string(target.data(), static_cast<std::size_t>(n));
}

}  // namespace

bool LiveConnections::Full(uid_t uid) const {
  if (entries_.size() >= total_) return true;
  const auto of_uid =
      std::count_if(entries_.begin(), entries_.end(),
                    [uid](const Entry& entry) { return entry.uid == uid; });
  return static_cast<std::size_t>(of_uid) >= per_uid_;
}

void LiveConnections::ForgetClosed() {
  std::erase_if(entries_, [](const Entry& entry) {
    return TargetOf(entry.socket) != entry.target;
  });
}

bool LiveConnections::Admit(int socket, uid_t uid) {
  std::string target = TargetOf(socket);
  if (target.empty()) return false;
  // The number was free before: whoever had it is gone.
  std::erase_if(entries_, [socket](const Entry& entry) {
    return entry.socket == socket;
  });
  if (Full(uid)) {
    ForgetClosed();
    if (Full(uid)) return false;
  }
  entries_.push_back({socket, uid, std::move(target)});
  return true;
}

std::size_t LiveConnections::CountOpen() {
  ForgetClosed();
  return entries_.size();
}

}  // namespace pos
