// What CRIU says in its log, turned into a Status.
//
// Whether an operation succeeded is decided by CRIU's exit code and response
// alone: good runs log lines with "Error" too (a service without
// CAP_SYS_RESOURCE always has one about RLIMIT_NOFILE).
//
// Test: tests/ckpt/criu/log_test.cc
#ifndef CKPT_CRIU_LOG_H_
#define CKPT_CRIU_LOG_H_

#include <string>
#include <string_view>

#include "pos/base/status.h"

namespace pos {

// The last error lines of a log, verbatim, at most `max_lines` and 4000 bytes
// of them, joined by newlines; without those that good runs have as well.
// Empty when there are none.
[[nodiscard]] std::string CriuErrorLines(std::string_view log,
                                         std::size_t max_lines = 12);

// Error of a failed operation: `what`, then CRIU's own words, from its log or,
// when it did not come as far as that, from `output_path`, its standard output
// and error. The code is kDiskFull when CRIU ran out of space, else kCriu; the
// hint names the log.
[[nodiscard]] Status CriuFailure(const std::string& what,
                                 const std::string& log_path,
                                 const std::string& output_path);

}  // namespace pos

#endif  // CKPT_CRIU_LOG_H_
