// Progress of a long command on standard error: one line that is redrawn on a
// terminal, a line now and then elsewhere.
//
// Debian 12 packages no C++ library for this; it is one line of text.
//
// Threads:   any; calls are serialized.
//
// Test: tests/pos/cli/progress_test.cc
#ifndef POS_CLI_PROGRESS_H_
#define POS_CLI_PROGRESS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "pos/base/mutex.h"

namespace pos::cli {

struct ProgressState {
  std::string phase;
  std::uint64_t done_bytes = 0;
  std::uint64_t total_bytes = 0;  // 0: not known
};

// "copy  [=====>    ]  52%  1.2 GiB of 2.3 GiB  640 MiB/s", at most `columns`
// wide; parts that do not fit are left out. `bytes_per_s` 0: not known.
[[nodiscard]] std::string RenderProgress(const ProgressState& state,
                                         double bytes_per_s,
                                         std::size_t columns);

class ProgressLine {
 public:
  enum class Style { kNone, kLines, kRedraw };

  // `title`: what is going on, before each plain line. `write` gets text for
  // standard error, `now_ns` is the clock.
  ProgressLine(Style style, std::string title, std::size_t columns,
               std::function<void(std::string_view)> write,
               std::function<std::uint64_t()> now_ns);
  ~ProgressLine() { Clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // The style for standard error as it is now: kNone with `json`.
  static Style StyleForStderr(bool json);

  void Update(const ProgressState& state) POS_EXCLUDES(mu_);
  // Removes what was drawn: before anything else is written.
  void Clear() POS_EXCLUDES(mu_);

 private:
  // Bytes per second over the phase; 0 in its first moments.
  double Rate(const ProgressState& state) POS_REQUIRES(mu_);

  const Style style_;
  const std::string title_;
  const std::size_t columns_;
  const std::function<void(std::string_view)> write_;
  const std::function<std::uint64_t()> now_ns_;
  Mutex mu_;
  std::string phase_ POS_GUARDED_BY(mu_);
  std::uint64_t phase_start_ns_ POS_GUARDED_BY(mu_) = 0;
  std::uint64_t phase_start_bytes_ POS_GUARDED_BY(mu_) = 0;
  std::uint64_t written_at_ns_ POS_GUARDED_BY(mu_) = 0;
  bool drawn_ POS_GUARDED_BY(mu_) = false;
};

}  // namespace pos::cli

#endif  // POS_CLI_PROGRESS_H_
