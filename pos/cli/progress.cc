#include "pos/cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "pos/cli/text.h"

namespace pos::cli {
namespace {

constexpr std::size_t kBarColumns = 24;
// A rate over less time than this says nothing.
constexpr std::uint64_t kRateAfterNs = 500'000'000;
constexpr std::uint64_t kRedrawNs = 50'000'000;
constexpr std::uint64_t kLineNs = 5'000'000'000;

std::string Bar(double fraction) {
  const std::size_t inner = kBarColumns - 2;
  const auto filled =
      static_cast<std::size_t>(fraction * static_cast<double>(inner));
  std::string bar = "[" + std::string(filled, '=');
  if (filled < inner) bar += '>' + std::string(inner - filled - 1, ' ');
  return bar + "]";
}

}  // namespace

std::string RenderProgress(const ProgressState& state, double bytes_per_s,
                           std::size_t columns) {
  std::string line = Printable(state.phase);
  const auto add = [&line, columns](const std::string& part) {
    if (line.size() + 2 + part.size() <= columns) line += "  " + part;
  };
  if (state.total_bytes > 0) {
    const double fraction =
        std::min(1.0, static_cast<double>(state.done_bytes) /
                          static_cast<double>(state.total_bytes));
    std::string percent = std::to_string(static_cast<int>(fraction * 100));
    percent.insert(0, 3 - percent.size(), ' ');
    add(Bar(fraction));
    add(percent + "%");
    add(FormatBytes(state.done_bytes) + " of " +
        FormatBytes(state.total_bytes));
  } else if (state.done_bytes > 0) {
    add(FormatBytes(state.done_bytes));
  }
  if (bytes_per_s >= 1) {
    add(FormatBytes(static_cast<std::uint64_t>(bytes_per_s)) + "/s");
  }
  if (line.size() > columns) line.resize(columns);
  return line;
}

ProgressLine::ProgressLine(Style style, std::string title, std::size_t columns,
                           std::function<void(std::string_view)> write,
                           std::function<std::uint64_t()> now_ns)
    : style_(style),
      title_(std::move(title)),
      columns_(columns),
      write_(std::move(write)),
      now_ns_(std::move(now_ns)) {}

ProgressLine::Style ProgressLine::StyleForStderr(bool json) {
  if (json) return Style::kNone;
  const char* term = std::getenv("TERM");
  const bool dumb = term == nullptr || std::string_view(term) == "dumb";
  return ::isatty(STDERR_FILENO) == 1 && !dumb ? Style::kRedraw : Style::kLines;
}

double ProgressLine::Rate(const ProgressState& state) {
  const std::uint64_t elapsed_ns = now_ns_() - phase_start_ns_;
  if (elapsed_ns < kRateAfterNs || state.done_bytes <= phase_start_bytes_) {
    return 0;
  }
  return static_cast<double>(state.done_bytes - phase_start_bytes_) * 1e9 /
         static_cast<double>(elapsed_ns);
}

void ProgressLine::Update(const ProgressState& state) {
  if (style_ == Style::kNone) return;
  MutexLock lock(&mu_);
  const std::uint64_t now = now_ns_();
  const bool new_phase = state.phase != phase_ || phase_start_ns_ == 0;
  if (new_phase) {
    phase_ = state.phase;
    phase_start_ns_ = now;
    phase_start_bytes_ = state.done_bytes;
  }
  const std::uint64_t gap = style_ == Style::kRedraw ? kRedrawNs : kLineNs;
  if (!new_phase && now - written_at_ns_ < gap) return;
  written_at_ns_ = now;
  if (style_ == Style::kLines) {
    write_(title_ + ": " + RenderProgress(state, Rate(state), 200) + "\n");
    return;
  }
  // The last column stays free: a terminal may wrap after it.
  const std::size_t room = columns_ > 1 ? columns_ - 1 : 79;
  write_("\r\x1b[K" + RenderProgress(state, Rate(state), room));
  drawn_ = true;
}

void ProgressLine::Clear() {
  MutexLock lock(&mu_);
  if (drawn_) write_("\r\x1b[K");
  drawn_ = false;
}

}  // namespace pos::cli
