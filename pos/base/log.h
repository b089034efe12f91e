// Structured log lines: a level, the place, a message with key=value fields.
//
//   POS_LOG(kWarning, "kernel faulted", {{"kernel", name}, {"pc", pc}});
//
// Where a line goes is decided by the process: the default sink writes one
// line to standard error; daemons install a sink over their logging library
// (pos/base/log_spdlog.h). The client-side shim uses the default sink, so this
// header has no third-party dependency.
//
// Threads: any. A sink is installed once, before threads start.
#ifndef POS_BASE_LOG_H_
#define POS_BASE_LOG_H_

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace pos {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// One key=value pair of a line.
struct LogField {
  LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  LogField(std::string_view k, const char* v) : key(k), value(v) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(v) {}
  LogField(std::string_view k, std::integral auto v)
      : key(k), value(std::to_string(v)) {}
  std::string_view key;
  std::string value;
};

// Receives whole messages, fields already appended, without a newline.
using LogSink = void (*)(LogLevel level, std::string_view message);

void SetLogSink(LogSink sink);      // nullptr: the default sink
void SetLogLevel(LogLevel lowest);  // default kInfo
[[nodiscard]] LogLevel GetLogLevel();
// Where the default sink writes; standard error at first. Any time.
void SetLogFd(int fd);
// Prefix of the default sink's lines, e.g. "posd". Must outlive the process.
void SetLogName(const char* name);
[[nodiscard]] bool ParseLogLevel(std::string_view name, LogLevel* level);

void Log(LogLevel level, std::string_view message,
         std::initializer_list<LogField> fields = {});
// 0x… spelling for addresses in messages.
[[nodiscard]] std::string Hex(std::uint64_t value);

}  // namespace pos

#define POS_LOG(level, ...)                               \
  do {                                                    \
    if (::pos::LogLevel::level >= ::pos::GetLogLevel()) { \
      ::pos::Log(::pos::LogLevel::level, __VA_ARGS__);    \
    }                                                     \
  } while (false)

#endif  // POS_BASE_LOG_H_
