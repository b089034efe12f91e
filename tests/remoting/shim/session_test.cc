// The client library as a program has it, and a runner for it in this process:
// each case is a program of its own (client_errors.cc, client_process.cc).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "pos/base/process.h"
#include "tests/support/test_runner.h"

namespace pos {
namespace {

// A client program under way; its standard output is a pipe.
class Program {
 public:
  Program(const TestRunner& runner, const char* name) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    out_.Reset(ends[0]);
    const UniqueFd in(ends[1]);
    const std::string attach = "POS_ATTACH=" + runner.path();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(in.get(), 1);
      const char* const argv[] = {POS_SHIM_CLIENT, name, nullptr};
      const char* const environment[] = {attach.c_str(), nullptr};
      ::execve(argv[0], const_cast<char* const*>(argv),
               const_cast<char* const*>(environment));
      ::_exit(127);
    }
    EXPECT_GT(pid_, 0);
  }
  // Until it has written something.
  void AwaitOutput() {
    pollfd p{out_.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&p, 1, 20000), 1);
  }
  void Kill() { ::kill(pid_, SIGKILL); }
  // How it ended, within 50 s.
  int Join() {
    Result<UniqueFd> handle = OpenPidFd(pid_);
    EXPECT_TRUE(handle.ok());
    if (!WaitPidFd(handle->get(), 50000)) {
      ADD_FAILURE() << "it hangs";
      ::kill(pid_, SIGKILL);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    return status;
  }

 private:
  UniqueFd out_;
  pid_t pid_ = -1;
};

class ShimSession : public ::testing::TestWithParam<const char*> {
 protected:
  TestRunner runner_;
};

TEST_P(ShimSession, ProgramSeesWhatCudaWouldSay) {
  EXPECT_EQ(Program(runner_, GetParam()).Join(), 0);
  EXPECT_GE(runner_.attached(), 1);
  EXPECT_EQ(runner_.malformed(), 0);
}
INSTANTIATE_TEST_SUITE_P(
    Cases, ShimSession,
    ::testing::Values("ErrorsAtTheCall", "OutOfMemory", "LaunchLimits",
                      "Handles", "SynchronousCopies", "IllegalAddress",
                      "MisalignedAddress", "Trap", "FaultBesideAnotherContext",
                      "NullArguments", "ManagedMemory", "ForkAfterUse",
                      "ForkBeforeUse", "ForkUnderLoad", "ExitHandlers",
                      "LimitsOfAContext", "HeapLimit", "StackLimit",
                      "PrintfLimit", "DynamicSharedMemory", "LargeParameters",
                      "OutputOfThreads", "Clusters"),
    [](const auto& one) { return std::string(one.param); });

TEST_F(ShimSession, CallsFailWhenTheRunnerIsGone) {
  Program program(runner_, "RunnerGone");
  program.AwaitOutput();
  runner_.Kill(0);
  EXPECT_EQ(program.Join(), 0);
}

TEST_F(ShimSession, CallsFailWhenTheRunnerDoesNotHearThatTheClientDetached) {
  Program program(runner_, "RunnerGone");
  program.AwaitOutput();
  runner_.Detach(TestRunner::Leave::kUnheard);
  EXPECT_EQ(program.Join(), 0);
  EXPECT_TRUE(runner_.tokens().empty());
}

TEST_F(ShimSession, VerdictCountsThatCameBeforeTheRequestToDetach) {
  Program program(runner_, "RunnerGone");
  program.AwaitOutput();
  runner_.Detach(TestRunner::Leave::kTold);
  EXPECT_EQ(program.Join(), 0);
  EXPECT_EQ(runner_.tokens(), std::vector<int>{2});
}

TEST_F(ShimSession, VerdictOfAnEarlierDetachDoesNotCount) {
  Program program(runner_, "RunnerGone");
  program.AwaitOutput();
  runner_.Detach(TestRunner::Leave::kToldOld);
  EXPECT_EQ(program.Join(), 0);
  EXPECT_EQ(runner_.tokens(), std::vector<int>{2});
}

TEST_F(ShimSession, ProgramThatIsKilledTakesNobodyAlong) {
  Program other(runner_, "OutOfMemory");
  for (int i = 0; i < 3; ++i) {
    Program program(runner_, "RunnerGone");
    program.AwaitOutput();
    program.Kill();
    EXPECT_TRUE(WIFSIGNALED(program.Join()));
  }
  EXPECT_EQ(other.Join(), 0);
}

}  // namespace
}  // namespace pos
