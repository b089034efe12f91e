// `pos-cli run`: what the job is given, signals, exit statuses.
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>

#include "tests/pos/cli/cli_fixture.h"

namespace pos {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class RunTest : public CliFixture {
 protected:
  // A job that ends when `end_` says so.
  void ServeJob() {
    api_.run = [this](const Caller&, const v1::RunRequest& request,
                      StdioFds stdio) {
      request_ = request;
      stdio_ = std::move(stdio);
      v1::RunReply reply;
      reply.set_job("job");
      reply.set_pid(::getpid());
      reply.set_ns_pid(2);
      return reply;
    };
    api_.wait =
        [this](const Caller&, const v1::WaitRequest&,
               const FakeApi::Cancelled& cancelled) -> Result<v1::WaitReply> {
      Eventually([&] { return end_.load() >= 0 || cancelled(); }, 10'000);
      if (end_.load() < 0) return Closed("posd is ending");
      stdio_ = StdioFds();
      v1::WaitReply reply;
      reply.set_state(state_.load());
      reply.set_exit_code(end_.load());
      reply.set_message("so it is");
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
  bool Waits() {
    return Eventually([&] {
      const auto calls = api_.calls();
      return !calls.empty() && calls.back() == "Wait job";
    });
  }
  bool Called(const std::string& call) {
    return Eventually([&] {
      const auto calls = api_.calls();
      return std::count(calls.begin(), calls.end(), call) > 0;
    });
  }

  v1::RunRequest request_;
  StdioFds stdio_;
  std::atomic<int> end_{-1};
  std::atomic<v1::JobState> state_{v1::EXITED};
};

TEST_F(RunTest, TheJobIsGivenWhatAProgramHas) {
  end_.store(0);
  ServeJob();
  const mode_t mask = ::umask(027);
  CliProcess process({.arguments = Arguments({"run", "--name", "n", "--device",
                                              "1", "--", "prog", "a b", ""}),
                      .environment = {"ODD=\xff\x01"}});
  ::umask(mask);
  EXPECT_EQ(process.Finish(), 0);
  EXPECT_EQ(process.out + process.err, "");
  EXPECT_EQ(request_.name(), "n");
  EXPECT_EQ(request_.device(), "1");
  EXPECT_THAT(request_.argv(), ElementsAre("prog", "a b", ""));
  EXPECT_THAT(request_.environment(), Contains("ODD=\xff\x01"));
  EXPECT_EQ(request_.umask(), 027u);
  EXPECT_EQ(request_.ticket().size(), kTicketBytes);
  EXPECT_FALSE(request_.stdin_paused());
  EXPECT_FALSE(request_.has_window());
  EXPECT_EQ(request_.limits_size(), RLIMIT_NLIMITS);
  std::array<char, 4096> directory{};
  ASSERT_NE(::getcwd(directory.data(), directory.size()), nullptr);
  EXPECT_EQ(request_.directory(), directory.data());
}

TEST_F(RunTest, TheStreamsAreTheCallers) {
  ServeJob();
  CliProcess process({.arguments = Arguments({"run", "--", "cat"})});
  ASSERT_TRUE(Waits());
  ASSERT_TRUE(stdio_.in.valid() && stdio_.out.valid() && stdio_.err.valid());
  EXPECT_EQ(::write(process.in().get(), "in", 2), 2);
  std::array<char, 8> buffer{};
  EXPECT_EQ(::read(stdio_.in.get(), buffer.data(), buffer.size()), 2);
  EXPECT_EQ(::write(stdio_.out.get(), "out", 3), 3);
  EXPECT_EQ(::write(stdio_.err.get(), "err", 3), 3);
  end_.store(0);
  EXPECT_EQ(process.Finish(), 0);
  EXPECT_EQ(process.out, "out");
  EXPECT_EQ(process.err, "err");
}

TEST_F(RunTest, TheExitStatusIsTheJobs) {
  ServeJob();
  for (const int code : {0, 1, 2, 77, 125, 137, 255}) {
    end_.store(code);
    EXPECT_EQ(Cli({"run", "--", "prog"}).status, code);
  }
}

TEST_F(RunTest, AJobThatFailedSaysWhy) {
  ServeJob();
  state_.store(v1::FAILED);
  end_.store(137);
  Outcome outcome = Cli({"run", "--", "prog"});
  EXPECT_EQ(outcome.status, 137);
  EXPECT_EQ(outcome.err, "pos-cli: job job failed: so it is\n");
  end_.store(0);
  EXPECT_EQ(Cli({"run", "--", "prog"}).status, 125);
  // Standard output has been the program's.
  outcome = Cli({"run", "--json", "--", "prog"});
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, StartsWith(R"({"error":{"code":"INTERNAL")"));
}

TEST_F(RunTest, AJobThatCannotBeStartedSaysWhy) {
  api_.run = [](const Caller&, const v1::RunRequest&, StdioFds) {
    return NoSuch("no device 5", "look at the devices");
  };
  Start();
  Outcome outcome = Cli({"run", "--", "true"});
  EXPECT_EQ(outcome.status, 125);
  EXPECT_EQ(outcome.err, "pos-cli: no device 5\nhint: look at the devices\n");
  outcome = Cli({"run", "--json", "--", "true"});
  EXPECT_EQ(outcome.status, 125);
  EXPECT_THAT(outcome.out, StartsWith(R"({"error":{"code":"NO_SUCH")"));
  EXPECT_EQ(outcome.err, "");
}

TEST_F(RunTest, AProgramThatIsTheReasonHasAShellsStatus) {
  api_.run = [](const Caller&, const v1::RunRequest& request,
                StdioFds) -> Result<v1::RunReply> {
    if (request.argv(0) == "/etc/passwd") return Denied("no");
    if (request.argv(0) == "busy") return Busy("no");
    return NoSuch("no");
  };
  Start();
  EXPECT_EQ(Cli({"run", "--", "/no/such/program"}).status, 127);
  EXPECT_EQ(Cli({"run", "--", "no-such-program"}).status, 127);
  EXPECT_EQ(Cli({"run", "-d", "--", "no-such-program"}).status, 127);
  EXPECT_EQ(Cli({"run", "--", "/etc/passwd"}).status, 126);
  EXPECT_EQ(Cli({"run", "--", "busy"}).status, 125);
}

TEST_F(RunTest, DetachedPrintsTheJobAndOffersNothing) {
  ServeJob();
  EXPECT_EQ(Cli({"run", "-d", "--", "prog"}).out, "job\n");
  EXPECT_TRUE(request_.ticket().empty());
  EXPECT_FALSE(stdio_.out.valid());
  const Outcome json = Cli({"run", "--detach", "--json", "--", "prog"});
  EXPECT_EQ(json.status, 0);
  EXPECT_EQ(json.out, R"({"job":"job","pid":)" + std::to_string(::getpid()) +
                          R"(,"ns_pid":2})"
                          "\n");
}

TEST_F(RunTest, SignalsArePassedOn) {
  ServeJob();
  CliProcess process({.arguments = Arguments({"run", "--", "prog"})});
  ASSERT_TRUE(Waits());
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
                           SIGALRM, SIGRTMIN + 3}) {
    process.Signal(signal);
    EXPECT_TRUE(Called("Signal job " + std::to_string(signal))) << signal;
  }
  end_.store(128 + SIGTERM);
  EXPECT_EQ(process.Finish(), 143);
}

TEST_F(RunTest, ASignalDuringTheStartComesAfterIt) {
  ServeJob();
  std::atomic<bool> start{false};
  const auto run = api_.run;
  service_.reset();
  api_.run = [&](const Caller& caller, const v1::RunRequest& request,
                 StdioFds stdio) {
    Eventually([&] { return start.load(); });
    return run(caller, request, std::move(stdio));
  };
  Start();
  CliProcess process({.arguments = Arguments({"run", "--", "prog"})});
  ASSERT_TRUE(Called("Run "));
  process.Signal(SIGTERM);
  start.store(true);
  EXPECT_TRUE(Called("Signal job 15"));
  end_.store(143);
  EXPECT_EQ(process.Finish(), 143);
}

TEST_F(RunTest, ASecondSignalDuringTheStartEndsIt) {
  std::atomic<bool> release{false};
  api_.run = [&](const Caller&, const v1::RunRequest&,
                 StdioFds stdio) -> Result<v1::RunReply> {
    stdio = StdioFds();
    Eventually([&] { return release.load(); }, 10'000);
    return Aborted("");
  };
  Start();
  CliProcess process({.arguments = Arguments({"run", "--", "prog"})});
  ASSERT_TRUE(Called("Run "));
  process.Signal(SIGINT);
  process.Signal(SIGTERM);
  const int status = process.Finish();
  EXPECT_TRUE(status == 128 + SIGINT || status == 128 + SIGTERM) << status;
  release.store(true);
  service_.reset();  // before `release` goes
}

TEST_F(RunTest, AnIgnoredSignalStaysIgnored) {
  ServeJob();
  CliProcess process(
      {.arguments = Arguments({"run", "--", "prog"}), .ignored = {SIGHUP}});
  ASSERT_TRUE(Waits());
  process.Signal(SIGHUP);
  process.Signal(SIGUSR1);
  EXPECT_TRUE(Called("Signal job 10"));
  EXPECT_THAT(api_.calls(), Not(Contains("Signal job 1")));
  end_.store(0);
  EXPECT_EQ(process.Finish(), 0);
}

TEST_F(RunTest, AStopStopsTheJobToo) {
  ServeJob();
  CliProcess process({.arguments = Arguments({"run", "--", "prog"})});
  ASSERT_TRUE(Waits());
  process.Signal(SIGTSTP);
  ASSERT_TRUE(process.WaitStopped());
  EXPECT_TRUE(Called("Signal job 19 everyone"));
  EXPECT_THAT(api_.calls(), Not(Contains("Signal job 18 everyone")));
  process.Signal(SIGCONT);
  EXPECT_TRUE(Called("Signal job 18 everyone"));
  end_.store(0);
  EXPECT_EQ(process.Finish(), 0);
}

TEST_F(RunTest, PosdMayComeBackWhileTheJobRuns) {
  ServeJob();
  CliProcess process({.arguments = Arguments({"run", "--", "prog"})});
  ASSERT_TRUE(Waits());
  service_.reset();
  EXPECT_TRUE(process.WaitErr("pos-cli: posd is ending; waiting for posd"));
  process.Signal(SIGTERM);
  Start();
  EXPECT_TRUE(Called("Signal job 15"));
  end_.store(9);
  EXPECT_EQ(process.Finish(), 9);
}

TEST_F(RunTest, WaitingForPosdCanBeGivenUp) {
  ServeJob();
  CliProcess process({.arguments = Arguments({"run", "--", "prog"})});
  ASSERT_TRUE(Waits());
  service_.reset();
  stdio_ = StdioFds();
  EXPECT_TRUE(process.WaitErr("waiting for posd"));
  process.Signal(SIGINT);
  process.Signal(SIGTERM);
  const int status = process.Finish();
  EXPECT_TRUE(status == 128 + SIGINT || status == 128 + SIGTERM) << status;
}

TEST_F(RunTest, WaitGoesOnWithTheNextPosd) {
  ServeJob();
  CliProcess process({.arguments = Arguments({"wait", "job"})});
  ASSERT_TRUE(Waits());
  service_.reset();
  EXPECT_TRUE(process.WaitErr("waiting for posd to come back"));
  Start();
  end_.store(9);
  EXPECT_EQ(process.Finish(), 9);
}

TEST_F(RunTest, ClosedStreamsAreNoOnesElse) {
  end_.store(0);
  ServeJob();
  const Outcome outcome = [&] {
    const std::string command = std::string("exec ") + POS_CLI_PROGRAM +
                                " --socket " + path_ +
                                " run -- prog <&- >&- 2>&-";
    Outcome o;
    Child shell({"/bin/sh", "-c", command}, -1, -1);
    o.status = shell.Wait();
    return o;
  }();
  EXPECT_EQ(outcome.status, 0);
}

}  // namespace
}  // namespace pos
