// Random programs, cut at random instants and made again from the image, must
// look to themselves as if nothing had happened.
//
//   POS_SEED=N     repeats a run; the seed is printed
//   POS_LONG=1     10,000 programs instead of those of a few seconds, and of
//                  20 at least
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "pos/base/clock.h"
#include "tests/ckpt/engine/disturber.h"

namespace pos {
namespace {

constexpr std::uint64_t kShareNs = 6'000'000'000;
constexpr std::uint64_t kPrograms = 20;
constexpr std::uint64_t kLongPrograms = 10'000;

std::uint64_t FirstSeed() {
  if (const char* seed = std::getenv("POS_SEED")) {
    return std::strtoull(seed, nullptr, 10);
  }
  return static_cast<std::uint64_t>(std::time(nullptr)) * 1000;
}

bool IsLong() {
  const char* const wanted = std::getenv("POS_LONG");
  return wanted != nullptr && *wanted != '\0' && std::string(wanted) != "0";
}

struct Program {
  Script script;
  int stage_threads = 1;
  std::uint64_t cut_seed = 0;
};

Program ProgramOf(std::uint64_t seed) {
  Random random(seed);
  Program program;
  program.script = RandomScript(&random, 10 + random.Below(120));
  program.stage_threads = 1 + static_cast<int>(random.Below(3));
  program.cut_seed = random.Next();
  return program;
}

// Empty when the disturbed run equals the other.
std::string Try(const Program& program) {
  const Played want = PlayScript(program.script, program.stage_threads, {});
  Random random(program.cut_seed);
  const std::vector<Cut> cuts = RandomCuts(&random, want.calls, 4);
  const Played got = PlayScript(program.script, program.stage_threads, cuts);
  return Difference(want.log, got.log);
}

// Leaves out what is not needed for the difference, halves first.
Script Reduce(Program program) {
  for (std::size_t piece = program.script.size() / 2; piece > 0; piece /= 2) {
    for (std::size_t at = 0; at < program.script.size();) {
      Program less = program;
      const auto from = less.script.begin() + static_cast<std::ptrdiff_t>(at);
      const std::size_t count = std::min(piece, less.script.size() - at);
      less.script.erase(from, from + static_cast<std::ptrdiff_t>(count));
      if (!Try(less).empty()) {
        program = less;
      } else {
        at += piece;
      }
    }
  }
  return program.script;
}

TEST(RandomCalls, ProgramsDoNotNoticeThatTheyWereCut) {
  const std::uint64_t first = FirstSeed();
  std::printf("POS_SEED=%llu\n", static_cast<unsigned long long>(first));
  const std::uint64_t until = MonotonicNs() + kShareNs;
  std::uint64_t n = 0;
  const std::uint64_t least = IsLong() ? kLongPrograms : kPrograms;
  for (; n < least || (!IsLong() && MonotonicNs() < until); ++n) {
    const Program program = ProgramOf(first + n);
    const std::string difference = Try(program);
    if (difference.empty() && !HasFailure()) continue;
    ADD_FAILURE() << "POS_SEED=" << first + n << ", " << program.stage_threads
                  << " stage threads: " << difference << "\n"
                  << (difference.empty() ? "" : ToText(Reduce(program)));
    return;
  }
  std::printf("%llu programs\n", static_cast<unsigned long long>(n));
}

}  // namespace
}  // namespace pos
