#include "pos/job/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/log.h"

namespace pos::job {
namespace {

constexpr std::uint64_t kRetryNs = 1000000000;

}  // namespace

Result<LogFile> LogFile::Open(const std::string& path,
                              std::optional<std::uint64_t> cut_to) {
  LogFile log;
  POS_ASSIGN_OR_RETURN(
      log.fd_, OpenFile(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW));
  struct stat st {};
  if (::fstat(log.fd_.get(), &st) != 0) {
    return ErrnoStatus(errno, "stat " + path);
  }
  log.length_bytes_ = static_cast<std::uint64_t>(st.st_size);
  if (!cut_to || *cut_to == log.length_bytes_) return log;
  if (*cut_to > log.length_bytes_) {
    return Corrupt(path + " has " + std::to_string(log.length_bytes_) +
                   " bytes; the image was made when it had " +
                   std::to_string(*cut_to));
  }
  if (::ftruncate(log.fd_.get(), static_cast<off_t>(*cut_to)) != 0) {
    return ErrnoStatus(errno, "cut " + path);
  }
  log.length_bytes_ = *cut_to;
  return log;
}

std::size_t LogFile::WriteSome(std::span<const std::byte> bytes) {
  std::size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n =
        ::write(fd_.get(), bytes.data() + written, bytes.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      if (gap_bytes_ == 0) {
        POS_LOG(kWarning, "output.log cannot be written; output is lost",
                {{"why", ErrnoStatus(errno, "write").message()}});
      }
      break;
    }
    written += static_cast<std::size_t>(n);
    length_bytes_ += static_cast<std::size_t>(n);
  }
  return written;
}

bool LogFile::MarkGap() {
  if (gap_bytes_ == 0) return true;
  if (MonotonicNs() < next_attempt_ns_) return false;
  const std::string mark = "\n[pos-job: " + std::to_string(gap_bytes_) +
                           " bytes of output could not be written here]\n";
  if (WriteSome(std::as_bytes(std::span(mark))) < mark.size()) {
    next_attempt_ns_ = MonotonicNs() + kRetryNs;
    return false;
  }
  gap_bytes_ = 0;
  return true;
}

void LogFile::Append(std::span<const std::byte> bytes) {
  if (!fd_.valid() || bytes.empty()) return;
  std::size_t written = 0;
  if (MarkGap()) {
    written = WriteSome(bytes);
    if (written < bytes.size()) next_attempt_ns_ = MonotonicNs() + kRetryNs;
  }
  gap_bytes_ += bytes.size() - written;
  lost_bytes_ += bytes.size() - written;
}

}  // namespace pos::job
