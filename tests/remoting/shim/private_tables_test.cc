// The private tables as a library meets them that calls what nobody was seen to
// call: every word is a function, and those that have no meaning here say so by
// name. And the log (cuLogs…) that the runtime fills through one of them. None
// of it needs a session. What the tables are for is seen where runtimes run.
#include <cuda.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "pos/base/fd.h"

namespace pos {
namespace {

template <typename F>
F* Function(const char* name) {
  static void* const library = ::dlopen(POS_SHIM_PATH, RTLD_NOW);
  EXPECT_NE(library, nullptr) << ::dlerror();
  void* const found = ::dlsym(library, name);
  EXPECT_NE(found, nullptr) << name;
  return reinterpret_cast<F*>(found);
}
#define SHIM(name) Function<decltype(name)>(#name)

using Word = std::uint64_t;

struct Known {
  const char* name;
  std::array<std::uint8_t, 16> uuid;
  std::size_t words;  // 0: no size
  std::set<std::size_t> served;
  Word refusal;
};
const std::vector<Known>& KnownTables() {
  static const std::vector<Known> tables = {
      {"CUDART",
       {0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39,
        0x12, 0xfd, 0x9d, 0xf9},
       13,
       {0, 2, 12},
       801},
      {"TOOLS_RT_CB",
       {0xa0, 0x94, 0x79, 0x8c, 0x2e, 0x74, 0x2e, 0x74, 0x93, 0xf2, 0x08, 0x00,
        0x20, 0x0c, 0x0a, 0x66},
       7,
       {0, 2, 6},
       801},
      {"TOOLS_TLS",
       {0x42, 0xd8, 0x5a, 0x81, 0x23, 0xf6, 0xcb, 0x47, 0x82, 0x98, 0xf6, 0xe7,
        0x8a, 0x3a, 0xec, 0xdc},
       4,
       {0, 2},
       801},
      {"CLS",
       {0xc6, 0x93, 0x33, 0x6e, 0x11, 0x21, 0xdf, 0x11, 0xa8, 0xc3, 0x68, 0xf3,
        0x55, 0xd8, 0x95, 0x93},
       0,
       {0, 1, 2},
       801},
      {"CTX_CHECKS",
       {0x26, 0x3e, 0x88, 0x60, 0x7c, 0xd2, 0x61, 0x43, 0x92, 0xf6, 0xbb, 0xd5,
        0x00, 0x6d, 0xfa, 0x7e},
       4,
       {0, 2, 3},
       801},
      {"INTEGRITY",
       {0xd4, 0x08, 0x20, 0x55, 0xbd, 0xe6, 0x70, 0x4b, 0x8d, 0x34, 0xba, 0x12,
        0x3c, 0x66, 0xe1, 0xf2},
       3,
       {0, 1},
       801},
      {"TOOLS_CTX",
       {0x21, 0x31, 0x8c, 0x60, 0x97, 0x14, 0x32, 0x48, 0x8c, 0xa6, 0x41, 0xff,
        0x73, 0x24, 0xc8, 0xf2},
       56,
       {0, 4, 39, 51},
       801},
      {"TOOLS_MODULE",
       {0x6e, 0x16, 0x3f, 0xbe, 0xb9, 0x58, 0x44, 0x4d, 0x83, 0x5c, 0xe1, 0x82,
        0xaf, 0xf1, 0x99, 0x1e},
       10,
       {0, 7},
       0},
      {"ERROR_LOG",
       {0xf8, 0xcf, 0xf9, 0x51, 0x21, 0x46, 0x8b, 0x4e, 0xb9, 0xe2, 0xfb, 0x46,
        0x9e, 0x7c, 0x0d, 0xd9},
       2,
       {0, 1},
       801},
  };
  return tables;
}

const Word* Table(const Known& known) {
  CUuuid uuid{};
  std::memcpy(&uuid, known.uuid.data(), known.uuid.size());
  const void* table = nullptr;
  EXPECT_EQ(SHIM(cuGetExportTable)(&table, &uuid), CUDA_SUCCESS) << known.name;
  return static_cast<const Word*>(table);
}

// What a child that ran `body` wrote to standard error.
template <typename Body>
std::string InChild(const Body& body, int* wait_status) {
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  UniqueFd in(ends[0]);
  UniqueFd out(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
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

TEST(PrivateTables, HaveHonestSizes) {
  for (const Known& known : KnownTables()) {
    const Word* const table = Table(known);
    ASSERT_NE(table, nullptr) << known.name;
    if (known.words != 0) {
      EXPECT_EQ(table[0], known.words * sizeof(Word)) << known.name;
    }
  }
}

// Also behind the size that a table says it has: a newer library may know a
// longer one, and not every library looks.
TEST(PrivateTables, EveryWordIsAFunctionThatRefusesByName) {
  using Any = Word(Word, Word, Word, Word, Word, Word, Word, Word);
  for (const Known& known : KnownTables()) {
    const Word* const table = Table(known);
    ASSERT_NE(table, nullptr);
    constexpr std::size_t kWords = 64;
    int status = 0;
    const std::string log = InChild(
        [&] {
          for (int round = 0; round < 2; ++round) {
            for (std::size_t slot = 0; slot < kWords; ++slot) {
              if (known.served.count(slot) != 0) continue;
              const Word answer =
                  reinterpret_cast<Any*>(table[slot])(1, 2, 3, 4, 5, 6, 7, 8);
              if (answer != known.refusal) return 1;
            }
          }
          return 0;
        },
        &status);
    EXPECT_EQ(status, 0) << known.name << ": " << log;
    std::istringstream lines(log);
    std::string line;
    std::size_t count = 0;
    for (std::size_t slot = 0; slot < kWords; ++slot) {
      if (known.served.count(slot) != 0) continue;
      ++count;
      const std::string want = "slot " + std::to_string(slot) +
                               " of private table " + known.name + '"';
      EXPECT_NE(log.find(want), std::string::npos) << want << "\n" << log;
    }
    std::size_t seen = 0;
    while (std::getline(lines, line)) ++seen;
    EXPECT_EQ(seen, count) << "one line each: " << log;
  }
}

TEST(PrivateTables, ServedSlotsTakeNothingWithoutASession) {
  // CUDART: the runtime of 13.2 fails with what this returns.
  const Word* const cudart = Table(KnownTables()[0]);
  EXPECT_EQ(reinterpret_cast<int (*)()>(cudart[12])(), 0);
  CUcontext context = nullptr;
  EXPECT_NE(reinterpret_cast<int (*)(CUcontext*, int)>(cudart[2])(&context, 0),
            0);
}

TEST(PrivateTables, AnUnknownOneIsRefused) {
  const CUuuid uuid = {{1, 2, 3}};
  const void* table = &uuid;
  EXPECT_EQ(SHIM(cuGetExportTable)(&table, &uuid), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(table, nullptr);
}

// As the runtime does it: printf's arguments behind a level.
void SayAsRuntime(int level, const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  const Word* const table = Table(KnownTables()[8]);
  using Say = void(const char*, int, const char*, std::va_list);
  reinterpret_cast<Say*>(table[1])("CUDA", level, format, arguments);
  va_end(arguments);
}

CUlogIterator Now() {
  CUlogIterator now = 0;
  EXPECT_EQ(SHIM(cuLogsCurrent)(&now, 0), CUDA_SUCCESS);
  return now;
}

// All since `from`, in a buffer of `room` bytes.
std::string Dump(CUlogIterator* from, std::size_t room, CUresult want) {
  std::vector<char> buffer(room + 1, '#');
  std::size_t size = room;
  EXPECT_EQ(SHIM(cuLogsDumpToMemory)(from, buffer.data(), &size, 0), want)
      << room;
  EXPECT_EQ(buffer[room], '#') << "written behind its end";
  EXPECT_LT(size, room);
  EXPECT_EQ(buffer[size], '\0');
  return {buffer.data(), size};
}

TEST(Logs, HoldWhatTheRuntimeSays) {
  CUlogIterator from = Now();
  SayAsRuntime(0, "Insufficient driver: %d < %d", 12, 13);
  SayAsRuntime(1, "%s\nis odd", "this");
  EXPECT_EQ(Now(), from + 2);
  const std::string text = Dump(&from, 4096, CUDA_SUCCESS);
  EXPECT_EQ(from, Now());
  EXPECT_NE(text.find("][CUDA][E] Insufficient driver: 12 < 13\n["),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("][CUDA][W] this is odd\n"), std::string::npos) << text;
  EXPECT_EQ(Dump(&from, 4096, CUDA_SUCCESS), "");
}

TEST(Logs, HoldWhatWasRefusedEachTime) {
  CUlogIterator from = Now();
  int status = 0;
  InChild(  // which has a copy of the log, and says it on its standard error
      [&] {
        using Refused = int(Word, Word, Word);
        for (int i = 0; i < 2; ++i)
          Function<Refused>("cuTexRefCreate")(0, 0, 0);
        const std::string text = Dump(&from, 4096, CUDA_SUCCESS);
        const std::string want = "POS does not support cuTexRefCreate\n";
        const std::size_t at = text.find(want);
        return at != std::string::npos &&
                       text.find(want, at + 1) != std::string::npos
                   ? 0
                   : 1;
      },
      &status);
  EXPECT_EQ(status, 0);
}

TEST(Logs, GiveTheNewestThatFitsAndSayThatSomeAreMissing) {
  const CUlogIterator start = Now();
  for (int i = 0; i < 5; ++i) SayAsRuntime(0, "message %d", i);
  CUlogIterator all = start;
  const std::string whole = Dump(&all, 4096, CUDA_SUCCESS);
  const std::size_t line = whole.find('\n') + 1;
  for (std::size_t room = 1; room <= whole.size() + 2; ++room) {
    CUlogIterator from = start;
    std::vector<char> buffer(room + 1, '#');
    std::size_t size = room;
    const CUresult result =
        SHIM(cuLogsDumpToMemory)(&from, buffer.data(), &size, 0);
    ASSERT_EQ(buffer[room], '#') << room;
    const std::string text(buffer.data(), size);
    if (result != CUDA_SUCCESS) {
      EXPECT_EQ(result, CUDA_ERROR_INVALID_VALUE);
      EXPECT_EQ(text, "");
      EXPECT_EQ(from, start) << "it can be tried again";
      EXPECT_LT(room, 60 + line + 1);
    } else if (room > whole.size()) {
      EXPECT_EQ(text, whole);
    } else {
      EXPECT_LT(text.size(), room);
      EXPECT_EQ(text.find("Some log messages were dropped"), 0u) << text;
      EXPECT_NE(text.find("message 4\n"), std::string::npos) << text;
      EXPECT_EQ(from, start + 5);
    }
  }
}

TEST(Logs, KeepsAtMostTheLastHundred) {
  const CUlogIterator start = Now();
  for (int i = 0; i < 150; ++i) SayAsRuntime(0, "number %d.", i);
  CUlogIterator from = start;
  const std::string text = Dump(&from, 1 << 16, CUDA_SUCCESS);
  EXPECT_EQ(text.find("Some log messages were dropped"), 0u) << text;
  EXPECT_EQ(text.find("number 49."), std::string::npos);
  EXPECT_NE(text.find("number 50."), std::string::npos);
  EXPECT_NE(text.find("number 149."), std::string::npos);
  // No iterator: all that is kept, to a file as well.
  EXPECT_EQ(Dump(nullptr, 1 << 16, CUDA_SUCCESS), text);
  const std::string path =
      testing::TempDir() + "/pos-logs-" + std::to_string(::getpid());
  from = start;
  EXPECT_EQ(SHIM(cuLogsDumpToFile)(&from, path.c_str(), 0), CUDA_SUCCESS);
  EXPECT_EQ(from, Now());
  std::stringstream file;
  file << std::ifstream(path).rdbuf();
  EXPECT_EQ(file.str(), text);
  ::unlink(path.c_str());
  // 100 of the longest do not fit into the buffer either.
  const std::string longest(2000, 'x');
  for (int i = 0; i < 100; ++i) SayAsRuntime(0, "%s", longest.c_str());
  EXPECT_LE(Dump(nullptr, 1 << 18, CUDA_SUCCESS).size(), 25600u + 100);
}

struct Heard {
  std::vector<std::string> lines;
  std::vector<CUlogLevel> levels;
};

void CUDA_CB Listen(void* data, CUlogLevel level, char* message,
                    std::size_t length) {
  auto* const heard = static_cast<Heard*>(data);
  heard->lines.emplace_back(message, length);
  heard->levels.push_back(level);
  SayAsRuntime(0, "said while listening");  // must not come back
}

TEST(Logs, AreToldToWhoeverRegistered) {
  Heard one, two;
  CUlogsCallbackHandle first = nullptr, second = nullptr;
  EXPECT_EQ(SHIM(cuLogsRegisterCallback)(&Listen, &one, &first), CUDA_SUCCESS);
  EXPECT_EQ(SHIM(cuLogsRegisterCallback)(&Listen, &two, &second), CUDA_SUCCESS);
  EXPECT_NE(first, second);
  SayAsRuntime(1, "both");
  EXPECT_EQ(SHIM(cuLogsUnregisterCallback)(first), CUDA_SUCCESS);
  EXPECT_EQ(SHIM(cuLogsUnregisterCallback)(first), CUDA_ERROR_INVALID_VALUE);
  SayAsRuntime(0, "one");
  EXPECT_EQ(SHIM(cuLogsUnregisterCallback)(second), CUDA_SUCCESS);
  SayAsRuntime(0, "nobody");
  ASSERT_EQ(one.lines.size(), 1u);
  ASSERT_EQ(two.lines.size(), 2u);
  EXPECT_NE(one.lines[0].find("[CUDA][W] both"), std::string::npos);
  EXPECT_EQ(one.levels[0], CU_LOG_LEVEL_WARNING);
  EXPECT_NE(two.lines[1].find("[CUDA][E] one"), std::string::npos);
  EXPECT_EQ(two.levels[1], CU_LOG_LEVEL_ERROR);
}

TEST(Logs, GoToTheFileThatTheEnvironmentNames) {
  int status = 0;
  const std::string text = InChild(
      [] {
        ::setenv("CUDA_LOG_FILE", "stderr", 1);
        SayAsRuntime(0, "to standard error");
        return 0;
      },
      &status);
  EXPECT_EQ(status, 0);
  EXPECT_NE(text.find("[CUDA][E] to standard error\n"), std::string::npos)
      << text;
}

TEST(Logs, RefuseWhatMakesNoSense) {
  CUlogIterator now = 0;
  std::array<char, 64> buffer;
  std::size_t size = 0;
  EXPECT_EQ(SHIM(cuLogsCurrent)(nullptr, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(SHIM(cuLogsCurrent)(&now, 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(SHIM(cuLogsRegisterCallback)(nullptr, nullptr, nullptr),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(SHIM(cuLogsDumpToMemory)(&now, buffer.data(), &size, 0),
            CUDA_ERROR_INVALID_VALUE);
  size = buffer.size();
  EXPECT_EQ(SHIM(cuLogsDumpToMemory)(&now, nullptr, &size, 0),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(SHIM(cuLogsDumpToFile)(&now, "/nonexistent/x", 0),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(SHIM(cuLogsDumpToFile)(&now, nullptr, 0), CUDA_ERROR_INVALID_VALUE);
}

}  // namespace
}  // namespace pos
