// What the test programs share: error checks, a digest, the last line.
//
// A program takes an optional iteration count (default: about a second on a
// slow device), prints "iteration I/N" as it goes, compares every result with a
// computation on the CPU, and ends with
//   digest <16 hex digits>
//   PASS
// and status 0, or with "FAIL: why" and status 1. The digest depends on the
// count alone: two runs with the same count print the same one, interrupted,
// moved or not.
#ifndef POS_TESTS_PROGRAMS_CHECK_H_
#define POS_TESTS_PROGRAMS_CHECK_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define FAIL(...)             \
  do {                        \
    std::printf("FAIL: ");    \
    std::printf(__VA_ARGS__); \
    std::printf("\n");        \
    std::fflush(stdout);      \
    std::exit(1);             \
  } while (0)

#define CUDA(call)                                     \
  do {                                                 \
    const cudaError_t check_e = (call);                \
    if (check_e != cudaSuccess) {                      \
      FAIL("%s:%d: %s: %s", __FILE__, __LINE__, #call, \
           cudaGetErrorName(check_e));                 \
    }                                                  \
  } while (0)

#define EXPECT(condition)                                                \
  do {                                                                   \
    if (!(condition)) FAIL("%s:%d: %s", __FILE__, __LINE__, #condition); \
  } while (0)

inline int Iterations(int argc, char** argv, int otherwise) {
  const int n = argc > 1 ? std::atoi(argv[1]) : otherwise;
  return n < 1 ? 1 : n;
}

inline void Progress(int i, int n) {
  std::printf("iteration %d/%d\n", i + 1, n);
  std::fflush(stdout);
}

// FNV-1a over everything that was computed.
struct Digest {
  std::uint64_t value = 1469598103934665603ull;
  void Add(const void* data, std::size_t bytes) {
    const unsigned char* p = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < bytes; ++i) {
      value = (value ^ p[i]) * 1099511628211ull;
    }
  }
  template <typename T>
  void AddValue(T one) {
    Add(&one, sizeof(one));
  }
  int Pass() const {
    std::printf("digest %016llx\nPASS\n",
                static_cast<unsigned long long>(value));
    std::fflush(stdout);
    return 0;
  }
};

// Numbers that are the same everywhere.
struct Random {
  std::uint64_t state;
  explicit Random(std::uint64_t seed) : state(seed * 2654435761u + 1) {}
  std::uint32_t Next() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<std::uint32_t>(state >> 33);
  }
};

#endif  // POS_TESTS_PROGRAMS_CHECK_H_
