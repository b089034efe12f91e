// The job's output.log.
//
// A log that cannot be written (disk full) does not stop the job: the bytes are
// counted and dropped, and once writing works again a line in the log says how
// many are missing. At most one attempt per second is made while it fails.
//
// Threads: one. Blocking: Append writes to a file.
#ifndef POS_JOB_LOG_FILE_H_
#define POS_JOB_LOG_FILE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos::job {

class LogFile {
 public:
  LogFile() = default;  // closed

  // Opens `path` for appending, making it (mode 0600) when it is absent. With
  // `cut_to`, what is beyond that length is removed first: kCorrupt, and
  // nothing changed, when the file is shorter.
  static Result<LogFile> Open(const std::string& path,
                              std::optional<std::uint64_t> cut_to);

  [[nodiscard]] bool valid() const { return fd_.valid(); }
  void Append(std::span<const std::byte> bytes);

  [[nodiscard]] std::uint64_t length_bytes() const { return length_bytes_; }
  [[nodiscard]] std::uint64_t lost_bytes() const { return lost_bytes_; }

 private:
  // Writes as much as goes in; returns how much that was.
  std::size_t WriteSome(std::span<const std::byte> bytes);
  // True when there is no gap, or it could be marked just now.
  bool MarkGap();

  UniqueFd fd_;
  std::uint64_t length_bytes_ = 0;
  std::uint64_t lost_bytes_ = 0;  // ever
  std::uint64_t gap_bytes_ = 0;   // not yet marked in the file
  std::uint64_t next_attempt_ns_ = 0;
};

}  // namespace pos::job

#endif  // POS_JOB_LOG_FILE_H_
