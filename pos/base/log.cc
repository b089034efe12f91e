#include "pos/base/log.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>

namespace pos {
namespace {

std::atomic<LogSink> g_sink{nullptr};
std::atomic<LogLevel> g_level{LogLevel::kInfo};
std::atomic<int> g_fd{STDERR_FILENO};
std::atomic<const char*> g_name{"pos"};

constexpr std::array<const char*, 4> kLevelNames = {"debug", "info", "warning",
                                                    "error"};

void WriteToStderr(LogLevel level, std::string_view message) {
  std::string line = g_name.load(std::memory_order_relaxed);
  line += ": ";
  if (level >= LogLevel::kWarning) {
    line += kLevelNames[static_cast<std::size_t>(level)];
    line += ": ";
  }
  line += message;
  line += '\n';
  // One write, so that lines of several processes do not mix. A failure has
  // nowhere to be reported.
  [[maybe_unused]] const ssize_t n =
      ::write(g_fd.load(std::memory_order_relaxed), line.data(), line.size());
}

void AppendValue(std::string* out, const std::string& value) {
  if (!value.empty() && value.find_first_of(" \"\n=") == std::string::npos) {
    *out += value;
    return;
  }
  *out += '"';
  for (const char c : value) {
    if (c == '"' || c == '\\') *out += '\\';
    *out += c == '\n' ? ' ' : c;
  }
  *out += '"';
}

}  // namespace

void SetLogSink(LogSink sink) { g_sink.store(sink, std::memory_order_release); }

void SetLogLevel(LogLevel lowest) {
  g_level.store(lowest, std::memory_order_relaxed);
}

LogLevel GetLogLevel() { return g_level.load(std::memory_order_relaxed); }

void SetLogFd(int fd) { g_fd.store(fd, std::memory_order_relaxed); }

void SetLogName(const char* name) {
  g_name.store(name, std::memory_order_relaxed);
}

bool ParseLogLevel(std::string_view name, LogLevel* level) {
  for (std::size_t i = 0; i < kLevelNames.size(); ++i) {
    if (name == kLevelNames[i]) {
      *level = static_cast<LogLevel>(i);
      return true;
    }
  }
  if (name != "off") return false;
  *level = LogLevel::kOff;
  return true;
}

void Log(LogLevel level, std::string_view message,
         std::initializer_list<LogField> fields) {
  std::string text(message);
  for (const LogField& field : fields) {
    text += ' ';
    text += field.key;
    text += '=';
    AppendValue(&text, field.value);
  }
  const LogSink sink = g_sink.load(std::memory_order_acquire);
  (sink != nullptr ? sink : WriteToStderr)(level, text);
}

std::string Hex(std::uint64_t value) {
  std::array<char, 19> text;
  const int n = std::snprintf(text.data(), text.size(), "0x%llx",
                              static_cast<unsigned long long>(value));
  return {text.data(), static_cast<std::size_t>(n)};
}

}  // namespace pos
