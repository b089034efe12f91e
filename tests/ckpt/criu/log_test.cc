#include "ckpt/criu/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "pos/base/files.h"

namespace pos {
namespace {

using ::testing::HasSubstr;

constexpr const char* kHarmless =
    "Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: "
    "Operation not permitted\n";

TEST(CriuErrorLines, KeepsErrorsVerbatimAndDropsTheHarmlessOne) {
  const std::string log = std::string(kHarmless) +
                          "Warn  (criu/x.c:1): something\n"
                          "(00.030) Error (criu/files.c:9): Can't dump 7\n"
                          "Unfreezing tasks into 1\n"
                          "Error (criu/cr-dump.c:2111): Dumping FAILED.\n";
  EXPECT_EQ(CriuErrorLines(log),
            "(00.030) Error (criu/files.c:9): Can't dump 7\n"
            "Error (criu/cr-dump.c:2111): Dumping FAILED.");
  EXPECT_EQ(CriuErrorLines(kHarmless), "");
  EXPECT_EQ(CriuErrorLines(""), "");
}

TEST(CriuErrorLines, KeepsTheLastOnesAndIsBounded) {
  std::string log;
  for (int i = 0; i < 1000; ++i) {
    log += "Error (a.c:1): number " + std::to_string(i) + "\n";
  }
  const std::string lines = CriuErrorLines(log, 3);
  EXPECT_EQ(lines,
            "Error (a.c:1): number 997\nError (a.c:1): number 998\n"
            "Error (a.c:1): number 999");
  EXPECT_LE(CriuErrorLines("Error (" + std::string(100000, 'x')).size(), 4000u);
}

TEST(CriuFailure, NamesTheLogAndKnowsAFullDisk) {
  const std::string path =
      ::testing::TempDir() + "criu_log." + std::to_string(::getpid());
  ASSERT_TRUE(ReplaceFile(path, "Error (criu/a.c:1): Can't dump pipe\n").ok());
  const Status failed = CriuFailure("dump of job a", path, "");
  EXPECT_EQ(failed.code(), Code::kCriu);
  EXPECT_EQ(failed.message(),
            "dump of job a: Error (criu/a.c:1): Can't dump pipe");
  EXPECT_THAT(failed.hint(), HasSubstr(path));
  ASSERT_TRUE(
      ReplaceFile(path, "Error (criu/a.c:1): write: No space left on device\n")
          .ok());
  EXPECT_EQ(CriuFailure("dump", path, "").code(), Code::kDiskFull);
  ASSERT_TRUE(ReplaceFile(path, "sh: criu: not found\n").ok());
  EXPECT_EQ(CriuFailure("dump", "/nonexistent", path).message(),
            "dump: sh: criu: not found");
  ASSERT_TRUE(RemoveFile(path).ok());
  EXPECT_THAT(CriuFailure("dump", path, path).message(),
              HasSubstr("no reason"));
}

}  // namespace
}  // namespace pos
