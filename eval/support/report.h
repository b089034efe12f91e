// What the benchmark programs share: the --smoke flag, order statistics, one
// way of printing.
#ifndef POS_EVAL_SUPPORT_REPORT_H_
#define POS_EVAL_SUPPORT_REPORT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace pos::eval {

// --smoke: every measurement once and short, to see that the program works.
inline bool IsSmoke(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--smoke") return true;
  }
  return false;
}

// The value below which a share of the samples lies; 0 without samples.
inline double Quantile(std::vector<double> samples, double share) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  const auto at =
      static_cast<std::size_t>(share * static_cast<double>(samples.size()));
  return samples[std::min(at, samples.size() - 1)];
}

// One line: what, how much, of what, and what is aimed at ("" for nothing).
inline void Row(const std::string& what, double value, const char* unit,
                const char* target = "") {
  std::printf("%-52s %12.2f %-10s %s\n", what.c_str(), value, unit, target);
  std::fflush(stdout);
}

}  // namespace pos::eval

#endif  // POS_EVAL_SUPPORT_REPORT_H_
