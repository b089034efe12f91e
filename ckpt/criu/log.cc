#include "ckpt/criu/log.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <deque>
#include <span>

#include "pos/base/files.h"

namespace pos {
namespace {

constexpr std::size_t kMaxBytes = 4000;
constexpr std::uint64_t kTailBytes = 256 * 1024;

bool IsHarmless(std::string_view line) {
  return line.find("rlimit: Can't setup RLIMIT_NOFILE") !=
         std::string_view::npos;
}

// The end of the file: that is where the reason stands.
Result<std::string> ReadTail(const std::string& path) {
  POS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return ErrnoStatus(errno, "stat " + path);
  const auto size = static_cast<std::uint64_t>(st.st_size);
  std::string text(static_cast<std::size_t>(std::min(size, kTailBytes)), '\0');
  POS_RETURN_IF_ERROR(PreadFull(fd.get(),
                                std::as_writable_bytes(std::span(text)),
                                size - text.size(), path));
  return text;
}

}  // namespace

std::string CriuErrorLines(std::string_view log, std::size_t max_lines) {
  std::deque<std::string_view> lines;
  std::size_t bytes = 0;
  while (!log.empty()) {
    const std::size_t end = log.find('\n');
    const std::string_view line = log.substr(0, end);
    log.remove_prefix(end == std::string_view::npos ? log.size() : end + 1);
    if (line.find("Error (") == std::string_view::npos || IsHarmless(line)) {
      continue;
    }
    lines.push_back(line.substr(0, kMaxBytes / 2));
    bytes += lines.back().size() + 1;
    while (lines.size() > max_lines || bytes > kMaxBytes) {
      bytes -= lines.front().size() + 1;
      lines.pop_front();
    }
  }
  std::string text;
  for (const std::string_view line : lines) {
    if (!text.empty()) text += '\n';
    text += line;
  }
  return text;
}

Status CriuFailure(const std::string& what, const std::string& log_path,
                   const std::string& output_path) {
  const Result<std::string> log = ReadTail(log_path);
  std::string words = log.ok() ? CriuErrorLines(*log) : "";
  if (words.empty()) {
    const Result<std::string> output = ReadTail(output_path);
    if (output.ok() && !output->empty()) {
      words =
          output->substr(output->size() - std::min(output->size(), kMaxBytes));
      while (!words.empty() && words.back() == '\n') words.pop_back();
    }
  }
  if (words.empty()) words = "CRIU gave no reason";
  const bool full = words.find("No space left") != std::string::npos ||
                    words.find("Disk quota exceeded") != std::string::npos;
  return {full ? Code::kDiskFull : Code::kCriu, what + ": " + words,
          "CRIU's log: " + log_path};
}

}  // namespace pos
