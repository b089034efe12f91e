// The library's symbols as a program meets them: found by dlsym and by
// cuGetProcAddress at every version, refused ones saying so, served ones
// surviving any argument. The library is loaded as cudart loads it.
#include <cuda.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "pos/base/fd.h"

namespace pos {
namespace {

enum Variant { kLegacy, kPerThread };
enum Service { kServed, kRefused };
struct Row {
  const char* symbol;
  const char* name;
  int version;
  Variant variant;
  Service service;
};
constexpr Row kRows[] = {
#define POS_CU_SYMBOL(symbol, name, version, variant, status) \
  Row{#symbol, #name, version, variant, status},
#include "pos/cuda_impl/api/symbols.def"
#undef POS_CU_SYMBOL
};

void* Library() {
  static void* const library = ::dlopen(POS_SHIM_PATH, RTLD_NOW);
  EXPECT_NE(library, nullptr) << ::dlerror();
  return library;
}

void* Symbol(const char* name) { return ::dlsym(Library(), name); }

template <typename F>
F Function(const char* name) {
  return reinterpret_cast<F>(Symbol(name));
}

using GetProcAddressV1 = int (*)(const char*, void**, int, std::uint64_t);
using GetProcAddress = int (*)(const char*, void**, int, std::uint64_t, int*);

GetProcAddress Look() {
  return Function<GetProcAddress>("cuGetProcAddress_v2");
}

// What the rule says: the newest symbol of the name that is not newer than what
// was asked for; of the per-thread variant first where that is asked for.
const Row* Expected(const std::string& name, int version, bool per_thread) {
  for (const Variant variant : {kPerThread, kLegacy}) {
    if (variant == kPerThread && !per_thread) continue;
    const Row* best = nullptr;
    for (const Row& row : kRows) {
      if (row.name == name && row.variant == variant &&
          row.version <= version &&
          (best == nullptr || row.version > best->version)) {
        best = &row;
      }
    }
    if (best != nullptr) return best;
  }
  return nullptr;
}

TEST(GetProcAddress, GivesTheNewestThatIsNotTooNewForEveryNameAndVersion) {
  std::map<std::string, std::set<int>> versions;
  for (const Row& row : kRows) {
    versions[row.name].insert({row.version - 1, row.version, row.version + 1});
  }
  int asked = 0;
  for (auto& [name, at] : versions) {
    at.insert({0, 1, 2000, 12000, 13000, 1 << 30});
    for (const int version : at) {
      for (const std::uint64_t flags : {0u, 1u, 2u}) {
        const Row* const expected = Expected(name, version, flags == 2);
        void* found = &found;
        int status = -1;
        const int result =
            Look()(name.c_str(), &found, version, flags, &status);
        SCOPED_TRACE(name + " " + std::to_string(version) + " " +
                     std::to_string(flags));
        ++asked;
        if (expected == nullptr) {
          ASSERT_EQ(result, CUDA_ERROR_NOT_FOUND);
          ASSERT_EQ(found, nullptr);
          ASSERT_EQ(status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
        } else {
          ASSERT_EQ(result, CUDA_SUCCESS);
          ASSERT_EQ(found, Symbol(expected->symbol)) << expected->symbol;
          ASSERT_EQ(status, CU_GET_PROC_ADDRESS_SUCCESS);
        }
      }
    }
  }
  EXPECT_GT(asked, 5000);
}

// Seen in the look-ups of cudart 13.0: old versions are asked for on purpose.
TEST(GetProcAddress, ServesTheVersionsThatTheRuntimeAsksFor) {
  const struct {
    const char* name;
    int version;
    std::uint64_t flags;
    const char* symbol;
  } kCases[] = {
      {"cuCtxGetDevice", 2000, 0, "cuCtxGetDevice"},
      {"cuCtxGetDevice", 13000, 0, "cuCtxGetDevice_v2"},
      {"cuCtxSynchronize", 2000, 0, "cuCtxSynchronize"},
      {"cuCtxSynchronize", 13000, 0, "cuCtxSynchronize_v2"},
      {"cuEventElapsedTime", 2000, 0, "cuEventElapsedTime"},
      {"cuEventElapsedTime", 12080, 0, "cuEventElapsedTime_v2"},
      {"cuStreamGetCaptureInfo", 12030, 0, "cuStreamGetCaptureInfo_v3"},
      {"cuDeviceGetUuid", 9020, 0, "cuDeviceGetUuid"},
      {"cuDevicePrimaryCtxRelease", 7000, 0, "cuDevicePrimaryCtxRelease"},
      {"cuDevicePrimaryCtxReset", 7000, 0, "cuDevicePrimaryCtxReset"},
      {"cuCtxCreate", 3020, 0, "cuCtxCreate_v2"},
      {"cuLaunchKernel", 7000, 2, "cuLaunchKernel_ptsz"},
      {"cuMemcpyHtoD", 13000, 2, "cuMemcpyHtoD_v2_ptds"},
      {"cuMemAlloc", 13000, 2, "cuMemAlloc_v2"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(std::string(c.name) + " " + std::to_string(c.version));
    void* found = nullptr;
    EXPECT_EQ(Look()(c.name, &found, c.version, c.flags, nullptr), 0);
    ASSERT_NE(Symbol(c.symbol), nullptr) << c.symbol;
    EXPECT_EQ(found, Symbol(c.symbol)) << "wanted " << c.symbol;
  }
}

TEST(GetProcAddress, RefusesWhatIsNoNameWithoutTouchingMoreThanItMust) {
  void* found = &found;
  int status = -1;
  EXPECT_EQ(Look()("", &found, 0, 0, nullptr), CUDA_ERROR_NOT_FOUND);
  EXPECT_EQ(found, nullptr);
  for (const char* name : {"cuNoSuchThing", "cuMemAlloc_v2x", "malloc", "cu"}) {
    found = &found;
    EXPECT_EQ(Look()(name, &found, 13000, 0, &status), CUDA_ERROR_NOT_FOUND);
    EXPECT_EQ(found, nullptr);
    EXPECT_EQ(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  }
  EXPECT_EQ(Look()(nullptr, &found, 13000, 0, &status),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Look()("cuInit", nullptr, 13000, 0, &status),
            CUDA_ERROR_INVALID_VALUE);
  const auto first = Function<GetProcAddressV1>("cuGetProcAddress");
  EXPECT_EQ(first("cuInit", &found, 13000, 0), 0);
  EXPECT_EQ(found, Symbol("cuInit"));
}

// The first argument of every call is 0, and so are all others.
int CallWithZeros(const char* symbol) {
  using Any =
      int (*)(std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t,
              std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t,
              std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t);
  return Function<Any>(symbol)(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
}

// Runs `body` in a child; what it wrote to standard error, and how it ended.
template <typename Body>
std::string InChild(const Body& body, int* wait_status) {
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  UniqueFd in(ends[0]);
  UniqueFd out(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::setenv("POS_ATTACH", "/nonexistent/attach.sock", 1);
    ::dup2(out.get(), 2);
    ::_exit(body());
  }
  out.Reset();
  std::string text;
  std::array<std::byte, 4096> part;
  for (;;) {
    const auto n = ReadSome(in.get(), part, "the child's output");
    if (!n.ok() || *n == 0) break;
    text.append(reinterpret_cast<const char*>(part.data()), *n);
  }
  EXPECT_EQ(::waitpid(child, wait_status, 0), child);
  return text;
}

TEST(Symbols, RefusedOnesSaySoOnceByNameAndNothingElse) {
  int status = 0;
  const std::string log = InChild(
      [] {
        for (int round = 0; round < 2; ++round) {
          for (const Row& row : kRows) {
            if (row.service == kServed) continue;
            if (CallWithZeros(row.symbol) != CUDA_ERROR_NOT_SUPPORTED) {
              std::fprintf(stderr, "WRONG %s\n", row.symbol);
            }
          }
        }
        return 0;
      },
      &status);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(log.find("WRONG"), std::string::npos) << log;
  std::map<std::string, int> lines;
  std::size_t count = 0;
  for (std::size_t at = 0; at < log.size(); ++count) {
    const std::size_t end = log.find('\n', at);
    const std::string line = log.substr(at, end - at);
    const std::size_t field = line.find("function=");
    ASSERT_NE(field, std::string::npos) << line;
    ++lines[line.substr(field + 9)];
    at = end + 1;
  }
  std::size_t refused = 0;
  for (const Row& row : kRows) {
    if (row.service == kServed) continue;
    ++refused;
    EXPECT_EQ(lines[row.symbol], 1) << row.symbol;
  }
  EXPECT_EQ(count, refused);
}

TEST(Symbols, ServedOnesTakeAnythingBeforeInitialization) {
  std::vector<const char*> bad;
  for (const Row& row : kRows) {
    if (row.service == kRefused) continue;
    int status = 0;
    const std::string log = InChild(
        [&row] {
          return CallWithZeros(row.symbol) == CUDA_ERROR_NOT_SUPPORTED ? 1 : 0;
        },
        &status);
    EXPECT_EQ(status, 0) << row.symbol << ": "
                         << (WIFSIGNALED(status) ? "signal " : "exit ")
                         << (WIFSIGNALED(status) ? WTERMSIG(status)
                                                 : WEXITSTATUS(status))
                         << " " << log;
  }
}

TEST(Symbols, InitializationWithoutAServiceFailsAndCanBeTriedAgain) {
  int status = 0;
  const std::string log = InChild(
      [] {
        const auto init = Function<int (*)(unsigned)>("cuInit");
        const auto count = Function<int (*)(int*)>("cuDeviceGetCount");
        int devices = 0;
        const int first = init(0);
        if (first == 0 || init(0) != first) return 1;
        return count(&devices) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 2;
      },
      &status);
  EXPECT_EQ(status, 0) << log;
  EXPECT_NE(log.find("attach"), std::string::npos)
      << "says what it did not find: " << log;
}

}  // namespace
}  // namespace pos
