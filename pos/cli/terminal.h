// The terminal that a foreground run takes over.
//
// While the job reads the keys, the terminal is raw: every key, Ctrl-C too, is
// a byte for the job's own terminal, which makes of it what the job asked for.
// Whatever ends pos-cli gives the terminal back as it was: the destructor, and
// for signals that mean a bug (SIGSEGV, SIGABRT, …) a handler.
//
// Threads: one at a time.
#ifndef POS_CLI_TERMINAL_H_
#define POS_CLI_TERMINAL_H_

#include <sys/ioctl.h>
#include <termios.h>

#include <optional>

#include "pos/base/status.h"

namespace pos::cli {

class Terminal {
 public:
  // `fd`: standard input; may be no terminal, then nothing happens below. One
  // object at a time in a process.
  explicit Terminal(int fd);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  [[nodiscard]] bool is_terminal() const { return is_terminal_; }
  [[nodiscard]] bool raw() const { return raw_; }
  // This process may read the keys. True also of a terminal that no session has
  // as its own.
  [[nodiscard]] bool InForeground() const;
  // Only in the foreground. `raw_output`: what is shown comes from the job's
  // terminal, which has ended lines properly already.
  Status MakeRaw(bool raw_output);
  // As it was before MakeRaw.
  void Restore();
  // The shell has taken the terminal back, with settings of its own.
  void Forget();

 private:
  const int fd_;
  const bool is_terminal_;
  bool raw_ = false;
  termios saved_{};
};

// Of the first terminal among the standard streams.
[[nodiscard]] std::optional<winsize> TerminalSize();

}  // namespace pos::cli

#endif  // POS_CLI_TERMINAL_H_
