// A mutator of PTX text by lines.
//
// Threads: one; libFuzzer calls targets from one.
#ifndef TESTS_FUZZ_PTX_LINES_H_
#define TESTS_FUZZ_PTX_LINES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "accepted.h"

namespace pos::fuzz {

inline std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1);
    lines.push_back(text.substr(0, end + 1));
    text.remove_prefix(end + 1);
  }
  return lines;
}

inline constexpr std::string_view kStatements[] = {
    "trap;\n",
    "brkpt;\n",
    "membar.gl;\n",
    "pmevent 1;\n",
    "griddepcontrol.wait;\n",
    "exit;\n",
    "bar.sync 1, 64;\n",
    ".pragma \"nounroll\";\n",
    "{\n",
    "}\n",
    "L1:\n",
    "bra L1;\n",
    ".reg .b32 %x<4>;\n",
    "mov.u32 %x1, %x2;\n",
    "activemask.b32 %x3;\n",
    "add.s32 %x1, %x2, -1;\n",
    "setp.ne.s32 %p1, %r1, 0;\n",
    "@%p1 bra L1;\n",
    ".local .align 8 .b8 l[8];\n",
    ".shared .align 16 .b8 s[16];\n",
    "ld.v4.u8 {%r1,%r2,%r3,%r4}, [%d1];\n"};

// Takes out, repeats, moves or puts in lines; lines of other inputs, too.
inline std::string ChangeLines(const std::string& text,
                               std::minstd_rand* random) {
  std::vector<std::string_view> lines = Lines(text);
  const std::vector<std::string_view> others =
      Lines(AcceptedInputs().Any(random));
  for (std::size_t n = (*random)() % 3 + 1; n > 0 && !lines.empty(); --n) {
    const auto at = static_cast<std::ptrdiff_t>((*random)() % lines.size());
    const std::string_view line = lines[(*random)() % lines.size()];
    switch ((*random)() % 5) {
      case 0:
        lines.erase(lines.begin() + at);
        break;
      case 1:
        lines.insert(lines.begin() + at, line);
        break;
      case 2:
        lines[static_cast<std::size_t>(at)] = line;
        break;
      case 3:
        lines.insert(lines.begin() + at, others[(*random)() % others.size()]);
        break;
      default:
        lines.insert(lines.begin() + at,
                     kStatements[(*random)() % std::size(kStatements)]);
        break;
    }
  }
  std::string changed;
  for (const std::string_view line : lines) changed += line;
  return changed;
}

// Three of four from accepted inputs, by lines.
inline std::size_t MutateLines(std::uint8_t* data, std::size_t size,
                               std::size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  if (AcceptedInputs().empty() || random() % 4 == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  const std::string text = ChangeLines(AcceptedInputs().Any(&random), &random);
  size = std::min(text.size(), max_size);
  std::copy_n(text.begin(), size, data);
  return random() % 3 == 0 ? LLVMFuzzerMutate(data, size, max_size) : size;
}

}  // namespace pos::fuzz

#endif  // TESTS_FUZZ_PTX_LINES_H_
