// A foreground run on a terminal: raw while the job has it, given back on every
// way out, its size told.
#include <gmock/gmock.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <algorithm>
#include <atomic>

#include "tests/pos/cli/cli_fixture.h"

namespace pos {
namespace {

using ::testing::HasSubstr;

class TerminalTest : public CliFixture {
 protected:
  void SetUp() override {
    int master = -1;
    int slave = -1;
    winsize size{40, 100, 0, 0};
    ASSERT_EQ(::openpty(&master, &slave, nullptr, nullptr, &size), 0);
    master_.Reset(master);
    slave_.Reset(slave);
    ASSERT_EQ(::tcgetattr(slave, &before_), 0);
    api_.run = [this](const Caller&, const v1::RunRequest& request, StdioFds) {
      request_ = request;
      v1::RunReply reply;
      reply.set_job("job");
      reply.set_pid(job_pid_);
      return reply;
    };
    api_.wait =
        [this](const Caller&, const v1::WaitRequest&,
               const FakeApi::Cancelled& cancelled) -> Result<v1::WaitReply> {
      Eventually([&] { return end_.load() >= 0 || cancelled(); }, 10'000);
      if (end_.load() < 0) return Closed("posd is ending");
      v1::WaitReply reply;
      reply.set_state(v1::EXITED);
      reply.set_exit_code(end_.load());
      return reply;
    };
    api_.signal = [](const Caller&, const v1::SignalRequest&) {
      return Status();
    };
    api_.set_terminal = [](const Caller&, const v1::SetTerminalRequest&) {
      return Status();
    };
    Start();
  }
  [[nodiscard]] CliProcess::Setup OnTerminal() const {
    return {.arguments = Arguments({"run", "--", "prog"}),
            .terminal = slave_.get(),
            .own_session = true};
  }
  [[nodiscard]] bool IsRaw() const {
    termios now{};
    EXPECT_EQ(::tcgetattr(slave_.get(), &now), 0);
    return (now.c_lflag & (ICANON | ISIG | ECHO)) == 0;
  }
  [[nodiscard]] bool IsAsBefore() const {
    termios now{};
    EXPECT_EQ(::tcgetattr(slave_.get(), &now), 0);
    return now.c_lflag == before_.c_lflag && now.c_iflag == before_.c_iflag &&
           now.c_oflag == before_.c_oflag && now.c_cflag == before_.c_cflag;
  }
  bool BecomesRaw() {
    return Eventually([&] { return IsRaw(); });
  }
  bool Called(const std::string& call, int times = 1) {
    return Eventually([&] {
      const auto calls = api_.calls();
      return std::count(calls.begin(), calls.end(), call) >= times;
    });
  }

  UniqueFd master_;
  UniqueFd slave_;
  termios before_{};
  v1::RunRequest request_;
  pid_t job_pid_ = 0;
  std::atomic<int> end_{-1};
};

TEST_F(TerminalTest, IsRawWhileTheJobRuns) {
  CliProcess process(OnTerminal());
  ASSERT_TRUE(BecomesRaw());
  EXPECT_FALSE(request_.stdin_paused());
  EXPECT_EQ(request_.window().rows(), 40u);
  EXPECT_EQ(request_.window().columns(), 100u);
  // Ctrl-C is a key like others.
  ASSERT_EQ(::write(master_.get(), "\x03", 1), 1);
  char key = 0;
  ASSERT_EQ(::read(slave_.get(), &key, 1), 1);
  EXPECT_EQ(key, 3);
  end_.store(7);
  EXPECT_EQ(process.Finish(), 7);
  EXPECT_TRUE(IsAsBefore());
  EXPECT_THAT(api_.calls(), ::testing::ElementsAre("Run ", "Wait job"));
}

TEST_F(TerminalTest, IsGivenBackWhenPosdAndTheJobEnd) {
  Child job({"/bin/sleep", "60"}, -1, -1);
  job_pid_ = job.pid();
  CliProcess process(OnTerminal());
  ASSERT_TRUE(Called("Wait job"));
  ASSERT_TRUE(BecomesRaw());
  service_.reset();
  EXPECT_TRUE(process.WaitErr("waiting for posd to come back\r\n"));
  EXPECT_TRUE(IsRaw());
  job.Kill();
  EXPECT_EQ(process.Finish(), 125);
  EXPECT_THAT(process.err, HasSubstr("job job: posd at " + path_ +
                                     " is gone and the job has ended"));
  EXPECT_TRUE(IsAsBefore());
}

TEST_F(TerminalTest, IsGivenBackWhenTheJobCannotBeStarted) {
  service_.reset();
  api_.run = [](const Caller&, const v1::RunRequest&, StdioFds) {
    return Busy("no");
  };
  Start();
  CliProcess process(OnTerminal());
  EXPECT_EQ(process.Finish(), 125);
  EXPECT_TRUE(IsAsBefore());
}

TEST_F(TerminalTest, IsGivenBackWhenPosCliCrashes) {
  for (const int signal : {SIGSEGV, SIGABRT, SIGBUS}) {
    CliProcess process(OnTerminal());
    ASSERT_TRUE(BecomesRaw());
    process.Signal(signal);
    EXPECT_EQ(process.Finish(), 128 + signal);
    EXPECT_TRUE(IsAsBefore()) << signal;
  }
}

TEST_F(TerminalTest, TellsItsNewSize) {
  CliProcess process(OnTerminal());
  ASSERT_TRUE(BecomesRaw());
  const winsize size{50, 132, 0, 0};
  ASSERT_EQ(::ioctl(master_.get(), TIOCSWINSZ, &size), 0);
  EXPECT_TRUE(Called("SetTerminal job 50x132"));
  end_.store(0);
  EXPECT_EQ(process.Finish(), 0);
}

TEST_F(TerminalTest, IsGivenBackForATimeWhenStopped) {
  CliProcess process(OnTerminal());
  ASSERT_TRUE(BecomesRaw());
  process.Signal(SIGTSTP);
  ASSERT_TRUE(process.WaitStopped());
  EXPECT_TRUE(IsAsBefore());
  EXPECT_TRUE(Called("Signal job 19 everyone"));
  EXPECT_TRUE(Called("SetTerminal job off"));
  process.Signal(SIGCONT);
  EXPECT_TRUE(BecomesRaw());
  EXPECT_TRUE(Called("Signal job 18 everyone"));
  EXPECT_TRUE(Called("SetTerminal job on"));
  end_.store(0);
  EXPECT_EQ(process.Finish(), 0);
  EXPECT_TRUE(IsAsBefore());
}

// Output that does not come from the job's terminal needs its line ends.
TEST_F(TerminalTest, KeepsItsLineEndsForOthersInAPipeline) {
  CliProcess process({.arguments = Arguments({"run", "--", "prog"}),
                      .terminal = slave_.get(),
                      .own_session = true,
                      .output_to_pipe = true});
  ASSERT_TRUE(BecomesRaw());
  termios now{};
  ASSERT_EQ(::tcgetattr(slave_.get(), &now), 0);
  EXPECT_NE(now.c_oflag & OPOST, 0u);
  end_.store(0);
  EXPECT_EQ(process.Finish(), 0);
  EXPECT_TRUE(IsAsBefore());
}

// As `pos-cli run … &` and `fg` in a shell.
TEST_F(TerminalTest, IsLeftAloneInTheBackground) {
  // A shell: leader of the session, in the terminal's foreground.
  const std::string command = std::string("set -m; ") + POS_CLI_PROGRAM +
                              " --socket " + path_ +
                              " run -- prog & read line; fg; exit $?";
  CliProcess process({.arguments = {"-c", command},
                      .terminal = slave_.get(),
                      .own_session = true,
                      .errors_to_terminal = true,
                      .program = "/bin/bash"});
  ASSERT_TRUE(Called("Wait job"));
  EXPECT_TRUE(request_.stdin_paused());
  EXPECT_TRUE(IsAsBefore());
  ASSERT_EQ(::write(master_.get(), "\n", 1), 1);
  EXPECT_TRUE(Called("SetTerminal job on"));
  EXPECT_TRUE(IsRaw());
  end_.store(3);
  EXPECT_EQ(process.Finish(), 3);
  EXPECT_TRUE(IsAsBefore());
}

}  // namespace
}  // namespace pos
