// Standard output and standard error of pos-cli.
//
// Threads: any for Err; Out and Fail from one at a time.
#ifndef POS_CLI_CONSOLE_H_
#define POS_CLI_CONSOLE_H_

#include <string>
#include <string_view>

#include "pos/base/status.h"

namespace pos::cli {

// Exit statuses. Of `run` and `wait` the job's comes through as it is, so what
// is pos-cli's own has a number that programs rarely use (as env(1) does).
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitRunFailure = 125;
// As a shell says it: the program is there but cannot be run; is not there.
inline constexpr int kExitCannotExecute = 126;
inline constexpr int kExitNoProgram = 127;
inline constexpr int kExitSignalBase = 128;

class Console {
 public:
  explicit Console(bool json) : json_(json) {}

  [[nodiscard]] bool json() const { return json_; }

  // What is not written is remembered: see write_status.
  void Out(std::string_view text);
  void Err(std::string_view text);
  // The error as an object on standard output with --json, else on standard
  // error for people.
  void Fail(const Status& status);
  // The same when standard output belongs to somebody else.
  void FailOnStderr(const Status& status);

  // The first failure of Out.
  [[nodiscard]] const Status& write_status() const { return write_status_; }

 private:
  const bool json_;
  Status write_status_;
};

}  // namespace pos::cli

#endif  // POS_CLI_CONSOLE_H_
