// A bug for a fuzzer to find: in NAME_planted programs only, which their tests
// run to see that the search gets as deep as it must to be worth anything.
//
// A target calls PlantedBug with a condition that no input of its corpus meets
// and that a reader only reaches with input it has accepted.
#ifndef TESTS_FUZZ_PLANTED_H_
#define TESTS_FUZZ_PLANTED_H_

#include <cstdio>
#include <cstdlib>

namespace pos::fuzz {

#ifdef POS_FUZZ_PLANTED
inline constexpr bool kPlanted = true;
#else
inline constexpr bool kPlanted = false;
#endif

inline void PlantedBug(bool reached) {
  if (!kPlanted || !reached) return;
  std::fputs("the planted bug\n", stderr);
  std::abort();
}

}  // namespace pos::fuzz

#endif  // TESTS_FUZZ_PLANTED_H_
