// pos-cli and posd themselves: jobs that outlive posd. Needs root, as posd does
// for the namespaces of its jobs.
#include <gmock/gmock.h>

#include <memory>

#include "tests/pos/cli/cli_fixture.h"

namespace pos {
namespace {

using ::testing::HasSubstr;

class PosdTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    StartPosd({"--keep-jobs"});
  }
  void TearDown() override {
    // Without --keep-jobs: nothing is left behind.
    if (posd_ != nullptr && keeps_) {
      EndPosd();
      StartPosd({});
    }
    EndPosd();
  }

  void StartPosd(const std::vector<std::string>& more) {
    keeps_ = !more.empty();
    std::vector<std::string> arguments = {"--state-dir", dir_.File("state"),
                                          "--socket", socket_};
    arguments.insert(arguments.end(), more.begin(), more.end());
    posd_ = std::make_unique<CliProcess>(
        CliProcess::Setup{.arguments = arguments, .program = POSD_PROGRAM});
    ASSERT_TRUE(Eventually(
        [&] { return cli::PosClient::Connect(socket_).ok(); }, 10'000));
  }
  void EndPosd() {
    if (posd_ == nullptr) return;
    posd_->Signal(SIGTERM);
    EXPECT_EQ(posd_->Finish(), 0) << posd_->err;
    posd_.reset();
  }
  [[nodiscard]] CliProcess::Setup Cli(std::vector<std::string> words) const {
    words.insert(words.begin(), {"--socket", socket_});
    return {.arguments = words};
  }

  TempDir dir_;
  const std::string socket_ = dir_.File("posd.sock");
  std::unique_ptr<CliProcess> posd_;
  bool keeps_ = false;
};

TEST_F(PosdTest, AForegroundRunOutlivesARestartOfPosd) {
  CliProcess run(Cli({"run", "--", "sh", "-c", "read x; echo got $x; exit 4"}));
  ASSERT_TRUE(Eventually([&] {
    CliProcess ps(Cli({"ps", "--json"}));
    return ps.Finish() == 0 &&
           ps.out.find(R"("state":"running")") != std::string::npos;
  }));
  EndPosd();
  EXPECT_TRUE(run.WaitErr("waiting for posd to come back"));
  StartPosd({"--keep-jobs"});
  // The job's streams have been pos-cli's all the while.
  ASSERT_EQ(::write(run.in().get(), "it\n", 3), 3);
  EXPECT_EQ(run.Finish(), 4);
  EXPECT_EQ(run.out, "got it\n");
}

TEST_F(PosdTest, AJobIsStoppedWithPosdUnlessItIsKept) {
  EndPosd();
  StartPosd({});
  CliProcess run(Cli({"run", "-d", "--name", "a", "--", "sleep", "100"}));
  ASSERT_EQ(run.Finish(), 0) << run.err;
  EndPosd();
  StartPosd({"--keep-jobs"});
  CliProcess wait(Cli({"wait", "a", "--json"}));
  EXPECT_EQ(wait.Finish(), 128 + SIGINT) << wait.err;
  EXPECT_THAT(wait.out, HasSubstr(R"("state":"exited")"));
}

}  // namespace
}  // namespace pos
