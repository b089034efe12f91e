#include "ckpt/criu/criu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "pos/base/clock.h"
#include "pos/base/files.h"

namespace pos {
namespace {

using ::testing::HasSubstr;

class CriuProgram : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ =
        ::testing::TempDir() + "criu_program." + std::to_string(::getpid());
    ASSERT_TRUE(MakeDirectories(directory_ + "/bin").ok());
    ASSERT_TRUE(MakeDirectories(directory_ + "/criu").ok());
    ::unsetenv("POS_CRIU");
  }
  void TearDown() override {
    EXPECT_TRUE(RemoveTree(directory_).ok());
    ::unsetenv("POS_CRIU");
  }

  // A program that behaves as `script` says.
  std::string Fake(const std::string& name, const std::string& script) {
    std::string path = JoinPath(directory_, name);
    EXPECT_TRUE(ReplaceFile(path, "#!/bin/sh\n" + script + "\n", 0700).ok());
    return path;
  }

  std::string directory_;
};

TEST_F(CriuProgram, IsTheNamedOneThenTheOneBesidePos) {
  const std::string beside = Fake("criu/criu", "exit 0");
  const std::string named = Fake("mine", "exit 0");
  EXPECT_EQ(*FindCriu(directory_ + "/bin"), beside);
  ::setenv("POS_CRIU", named.c_str(), 1);
  EXPECT_EQ(*FindCriu(directory_ + "/bin"), named);
  ::setenv("POS_CRIU", "/nonexistent", 1);
  const Status wrong = FindCriu(directory_ + "/bin").status();
  EXPECT_EQ(wrong.code(), Code::kNoSuch);
  EXPECT_THAT(wrong.message(), HasSubstr("/nonexistent"));
}

TEST_F(CriuProgram, VersionsAreComparedNumberByNumber) {
  EXPECT_TRUE(RequireCriu(Fake("a", "echo Version: 4.1")).ok());
  EXPECT_TRUE(RequireCriu(Fake("b", "echo Version: 4.1.1")).ok());
  EXPECT_TRUE(RequireCriu(Fake("c", "echo Version: 10.0")).ok());
  for (const char* old : {"4.0", "3.17.1", "4.0.9"}) {
    const Status status =
        RequireCriu(Fake("d", std::string("echo Version: ") + old)).status();
    EXPECT_EQ(status.code(), Code::kIncompatible) << old;
    EXPECT_THAT(status.message(), HasSubstr(old));
    EXPECT_THAT(status.message(), HasSubstr("4.1"));
  }
  EXPECT_EQ(GetCriuVersion(Fake("e", "echo hello")).status().code(),
            Code::kIncompatible);
  EXPECT_EQ(
      GetCriuVersion(Fake("f", "echo Version: 4.1; exit 1")).status().code(),
      Code::kIncompatible);
}

TEST_F(CriuProgram, CheckShowsItsWords) {
  const std::string criu =
      Fake("a",
           "[ $1 = --version ] && echo Version: 4.1 && exit 0\n"
           "echo 'Error (criu/cr-check.c:1): kernel lacks it'; exit 1");
  const Status status = CheckCriu(criu);
  EXPECT_EQ(status.code(), Code::kCriu);
  EXPECT_THAT(status.message(), HasSubstr("kernel lacks it"));
  EXPECT_FALSE(CriuHasFeature(criu, "timens"));
}

TEST_F(CriuProgram, AToolThatHangsIsKilled) {
  const Deadline deadline = Deadline::AfterMs(5000);
  EXPECT_EQ(RunTool({Fake("a", "exec sleep 60")}, 50).status().code(),
            Code::kTimeout);
  EXPECT_EQ(
      RunTool({Fake("b", "exec >&- 2>&-; exec sleep 60")}, 50).status().code(),
      Code::kTimeout);
  EXPECT_FALSE(deadline.Passed());
}

TEST_F(CriuProgram, AToolsOutputIsBoundedAndItsEndReported) {
  const Result<ToolResult> much =
      RunTool({Fake("a", "head -c 1000000 /dev/zero; exit 3")}, 5000);
  ASSERT_TRUE(much.ok());
  EXPECT_EQ(much->exit_code, 3);
  EXPECT_EQ(much->output.size(), 64u * 1024);
  const Result<ToolResult> killed = RunTool({Fake("b", "kill -9 $$")}, 5000);
  ASSERT_TRUE(killed.ok());
  EXPECT_EQ(killed->exit_code, 137);
  EXPECT_FALSE(RunTool({directory_ + "/absent"}, 1000).ok());
}

}  // namespace
}  // namespace pos
