#include "remoting/shim/driver_log.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "pos/base/fd.h"

namespace pos::shim {
namespace {

constexpr std::size_t kLongestText = 1024;
constexpr std::string_view kMissing =
    "Some log messages were dropped: the buffer was too small.\n";

// [22:21:32.099][25642][CUDA][E] text
std::string Line(CUlogLevel level, std::string_view text) {
  timespec now{};
  tm local{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  ::localtime_r(&now.tv_sec, &local);
  std::array<char, 64> head;
  const int n = std::snprintf(
      head.data(), head.size(), "[%02d:%02d:%02d.%03ld][%ld][CUDA][%c] ",
      local.tm_hour, local.tm_min, local.tm_sec, now.tv_nsec / 1'000'000,
      ::syscall(SYS_gettid), level == CU_LOG_LEVEL_ERROR ? 'E' : 'W');
  std::string line(head.data(), static_cast<std::size_t>(n));
  for (const char c : text.substr(0, kLongestText)) {
    line += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return line;
}

// Opened for each line: a descriptor of ours would be in the way of programs
// that close all, and of checkpoints.
void WriteToLogFile(std::string line) {
  const char* const name = std::getenv("CUDA_LOG_FILE");
  if (name == nullptr || *name == '\0') return;
  line += '\n';
  int fd = -1;
  UniqueFd file;
  if (std::string_view(name) == "stdout") {
    fd = STDOUT_FILENO;
  } else if (std::string_view(name) == "stderr") {
    fd = STDERR_FILENO;
  } else {
    file =
        UniqueFd(::open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    fd = file.get();
  }
  // A failure has nowhere to be reported.
  if (fd >= 0) {
    [[maybe_unused]] const ssize_t n = ::write(fd, line.data(), line.size());
  }
}

}  // namespace

DriverLog& DriverLog::Get() {
  static DriverLog* const log = new DriverLog;
  return *log;
}

void DriverLog::Add(CUlogLevel level, std::string_view text) {
  // A callback whose own calls fail would come here without end.
  thread_local bool inside = false;
  if (inside) return;
  inside = true;
  std::string line = Line(level, text);
  std::vector<Callback> callbacks;
  {
    MutexLock lock(&mu_);
    lines_.push_back(line + '\n');
    bytes_ += lines_.back().size();
    ++next_;
    while (bytes_ > kBytes || lines_.size() > kEntries) {
      bytes_ -= lines_.front().size();
      lines_.pop_front();
    }
    for (const auto& [id, callback] : callbacks_) callbacks.push_back(callback);
  }
  WriteToLogFile(line);
  for (const Callback& callback : callbacks) {
    callback.function(callback.user, level, line.data(), line.size());
  }
  inside = false;
}

std::uint64_t DriverLog::Register(CUlogsCallback callback, void* user) {
  MutexLock lock(&mu_);
  callbacks_[++last_id_] = {callback, user};
  return last_id_;
}

bool DriverLog::Unregister(std::uint64_t id) {
  MutexLock lock(&mu_);
  return callbacks_.erase(id) != 0;
}

CUlogIterator DriverLog::Next() {
  MutexLock lock(&mu_);
  return next_;
}

bool DriverLog::Text(const CUlogIterator* from, std::size_t most_bytes,
                     std::string* text, CUlogIterator* next) {
  MutexLock lock(&mu_);
  text->clear();
  *next = next_;
  const std::size_t asked_for =
      from == nullptr ? next_ : next_ - std::min(*from, next_);
  std::size_t count = std::min(asked_for, lines_.size());
  if (count == 0) return true;
  // The newest of `count` that fit into `room`.
  const auto fitting = [this, &count](std::size_t room) POS_REQUIRES(mu_) {
    std::size_t n = 0;
    for (auto it = lines_.rbegin(); n < count && it->size() <= room;
         ++it, ++n) {
      room -= it->size();
    }
    return n;
  };
  if (count < asked_for || fitting(most_bytes) < count) {
    if (most_bytes < kMissing.size()) return false;
    count = fitting(most_bytes - kMissing.size());
    if (count == 0) return false;
    *text += kMissing;
  }
  for (auto it = lines_.end() - static_cast<std::ptrdiff_t>(count);
       it != lines_.end(); ++it) {
    *text += *it;
  }
  return true;
}

}  // namespace pos::shim
