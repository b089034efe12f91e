// Running programs under pos-job: identity, streams, signals, ends.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <future>

#include "pos/base/files.h"
#include "pos/job/exit_file.h"
#include "tests/pos/job/harness.h"

namespace pos::job {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class RunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!IsRoot()) GTEST_SKIP() << "needs root for namespaces and users";
  }
};

TEST_F(RunTest, ExitCodesComeBackAndAreOnDisk) {
  for (const int code : {0, 1, 42, 255}) {
    SCOPED_TRACE(code);
    TestJob job("exit");
    job.Program({"exit", std::to_string(code)});
    job.Start();
    const ProgramEnded ended = job.WaitEnd();
    EXPECT_EQ(ended.reason(), ProgramEnded::EXITED);
    EXPECT_EQ(ended.exit_code(), code);
    const Result<ProgramEnded> file = ReadExitFile(job.directory());
    ASSERT_TRUE(file.ok());
    EXPECT_EQ(file->exit_code(), code);
    EXPECT_EQ(file->ended_at_ms(), ended.ended_at_ms());
    EXPECT_TRUE(Eventually([&job] { return job.Gone(); }));
  }
}

TEST_F(RunTest, ASignalIs128PlusItsNumber) {
  for (const int number : {SIGTERM, SIGKILL, SIGSEGV}) {
    SCOPED_TRACE(number);
    TestJob job("die");
    job.Program({"die", std::to_string(number)});
    job.Start();
    const ProgramEnded ended = job.WaitEnd();
    EXPECT_EQ(ended.reason(), ProgramEnded::SIGNALED);
    EXPECT_EQ(ended.signal(), number);
    EXPECT_EQ(ended.exit_code(), 128 + number);
  }
}

TEST_F(RunTest, AProgramThatIsNotThereIsNamed) {
  TestJob job("absent");
  job.Program({})->set_argv(0, "/nonexistent/program");
  const Status status = job.TryStart();
  EXPECT_EQ(status.code(), Code::kNoSuch);
  EXPECT_THAT(status.message(), HasSubstr("/nonexistent/program"));
  ASSERT_TRUE(
      Eventually([&job] { return ReadExitFile(job.directory()).ok(); }));
  const Result<ProgramEnded> file = ReadExitFile(job.directory());
  EXPECT_EQ(file->reason(), ProgramEnded::START_FAILED);
  EXPECT_EQ(file->exit_code(), 127);
}

TEST_F(RunTest, ADirectoryThatIsNotThereIsNamed) {
  TestJob job("nodir");
  job.Program({"exit", "0"})->set_directory("/nonexistent");
  EXPECT_THAT(job.TryStart().message(), HasSubstr("/nonexistent"));
}

TEST_F(RunTest, AProgramIsSoughtInTheCallersPath) {
  TestJob job("path");
  ScratchDirectory bin("bin");
  ASSERT_EQ(::symlink(VictimPath().c_str(), bin.Path("tool").c_str()), 0);
  StartProgram* program = job.Program({"exit", "5"});
  program->set_argv(0, "tool");
  program->clear_environment();
  program->add_environment("PATH=/usr/bin:" + bin.path());
  job.Start();
  EXPECT_EQ(job.WaitEnd().exit_code(), 5);
}

TEST_F(RunTest, TheProgramHasTheCallersIdentityAndNothingElse) {
  TestJob job("who");
  ScratchDirectory work("work");
  ASSERT_EQ(::chmod(work.path().c_str(), 0777), 0);
  StartProgram* program = job.Program({"whoami"});
  program->set_uid(12345);
  program->set_gid(23456);
  program->add_groups(34567);
  program->add_groups(45678);
  program->set_umask(027);
  program->set_directory(work.path());
  program->add_environment("POS_TEST_VALUE=some value");
  ResourceLimit* limit = program->add_limits();
  limit->set_resource(RLIMIT_NOFILE);
  limit->set_soft(200);
  limit->set_hard(300);
  job.Start();
  EXPECT_EQ(job.WaitEnd().exit_code(), 0);
  const std::string log = job.Log();
  EXPECT_THAT(log, HasSubstr("pid 1001 ppid 1 sid 1001 pgid 1001\n"));
  EXPECT_THAT(log, HasSubstr("uid 12345 12345 gid 23456 23456\n"));
  EXPECT_THAT(log, HasSubstr("groups 34567 45678\n"));
  EXPECT_THAT(log, HasSubstr("cwd " + work.path() + "\n"));
  EXPECT_THAT(log, HasSubstr("umask 027\n"));
  EXPECT_THAT(log, HasSubstr("nofile 200 300\n"));
  EXPECT_THAT(log, HasSubstr("env some value\n"));
  EXPECT_THAT(log, HasSubstr("odd signals 0\n"));
  EXPECT_THAT(log, HasSubstr("open 0 1 2\n"));
  EXPECT_THAT(log, HasSubstr("tty 0 0 0"));
  EXPECT_THAT(log, HasSubstr("controlling 0\n"));
  EXPECT_EQ(job.started().ns_pid(), 1001);
}

TEST_F(RunTest, ALimitAboveWhatMayBeSetIsLoweredWithANote) {
  TestJob job("limit");
  StartProgram* program = job.Program({"exit", "0"});
  rlimit own{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &own), 0);
  ResourceLimit* limit = program->add_limits();
  limit->set_resource(RLIMIT_NOFILE);
  limit->set_soft(own.rlim_cur);
  limit->set_hard(own.rlim_max * 2);
  job.Start();
  EXPECT_EQ(job.WaitEnd().exit_code(), 0);
  // With CAP_SYS_RESOURCE it can be set, and there is nothing to note.
  if (job.started().note_size() > 0) {
    EXPECT_THAT(job.started().note(0), HasSubstr("resource limit"));
  }
}

TEST_F(RunTest, StreamsOfAnAttachedJobGoThroughPipes) {
  TestJob job("cat");
  job.Program({"cat"});
  Pipe in;
  Pipe out;
  job.SetStdin(in.read_end.get());
  job.SetStdout(out.write_end.get());
  job.Start();
  in.read_end.Reset();
  ASSERT_EQ(::write(in.write_end.get(), "hello\n", 6), 6);
  out.write_end.Reset();
  EXPECT_EQ(out.ReadUntil("hello\n"), "hello\n");
  in.write_end.Reset();
  EXPECT_EQ(job.WaitEnd().exit_code(), 0);
  EXPECT_EQ(out.ReadToEnd(), "end of input\n");
  EXPECT_EQ(job.Log(), "");
}

TEST_F(RunTest, AnAttachedJobIsLoggedWhenAsked) {
  TestJob job("both");
  job.Program({"print", "one", "two"});
  Pipe out;
  job.SetStdout(out.write_end.get());
  job.SetStderr(out.write_end.get());
  job.config()->mutable_stdio()->set_log_attached(true);
  job.Start();
  job.WaitEnd();
  EXPECT_EQ(out.ReadToEnd(), "one\ntwo\n");
  EXPECT_EQ(job.Log(), "one\ntwo\n");
}

TEST_F(RunTest, ASlowCallerLosesNothingAndSlowsTheJob) {
  TestJob job("slow");
  constexpr std::size_t kBytes = 1 << 20;
  job.Program({"flood", std::to_string(kBytes)});
  Pipe out;
  Pipe err;
  job.SetStdout(out.write_end.get());
  job.SetStderr(err.write_end.get());
  job.Start();
  out.write_end.Reset();
  err.write_end.Reset();
  // Nobody reads: the job cannot have written all of it.
  EXPECT_EQ(err.ReadUntil("flooded", 300), "");
  const std::string all = out.ReadToEnd();
  EXPECT_EQ(all.size(), kBytes);
  EXPECT_EQ(job.WaitEnd().exit_code(), 0);
}

TEST_F(RunTest, ACallerThatIsGoneLeavesTheRestToTheLog) {
  TestJob job("gone");
  job.Program({"count", "2", "100"});
  Pipe out;
  job.SetStdout(out.write_end.get());
  job.Start();
  out.write_end.Reset();
  const std::string first = out.ReadUntil("count 3 ");
  EXPECT_THAT(first, HasSubstr("count 0 "));
  out.read_end.Reset();
  EXPECT_EQ(job.WaitEnd().exit_code(), 42);
  EXPECT_THAT(job.Log(), HasSubstr("count 99 "));
  EXPECT_THAT(job.Log(), Not(HasSubstr("count 0 ")));
  Event event;
  EXPECT_TRUE(job.WaitEvent([](const Event& e) { return e.has_caller_gone(); },
                            &event, 0));
  EXPECT_EQ(event.caller_gone().stream(), 1u);
}

TEST_F(RunTest, ABrokenPipeBreaksTheJobsPipeWhenAsked) {
  TestJob job("yes");
  job.Program({"flood", "1000000000"});
  Pipe out;
  job.SetStdout(out.write_end.get());
  job.config()->mutable_stdio()->set_caller_gone(Stdio::BREAK_PIPE);
  job.Start();
  out.write_end.Reset();
  EXPECT_NE(out.ReadUntil("x"), "");
  out.read_end.Reset();
  EXPECT_EQ(job.WaitEnd().signal(), SIGPIPE);
}

TEST_F(RunTest, ADetachedCallerLeavesTheJobRunning) {
  TestJob job("detach");
  job.Program({"count", "5"});
  Pipe out;
  job.SetStdout(out.write_end.get());
  job.Start();
  out.write_end.Reset();
  out.ReadUntil("count 1 ");
  ToJob request;
  request.mutable_detach_caller();
  EXPECT_TRUE(job.Call(request).ok());
  EXPECT_THAT(out.ReadToEnd(), Not(HasSubstr("count 500 ")));
  EXPECT_TRUE(job.WaitLog("count "));
  EXPECT_TRUE(job.SendSignal(SIGKILL).ok());
  EXPECT_EQ(job.WaitEnd().exit_code(), 137);
}

// A terminal of the caller's: the two ends.
struct Terminal {
  Terminal() {
    master.Reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    ::unlockpt(master.get());
    slave.Reset(::open(::ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    winsize size{};
    size.ws_row = 30;
    size.ws_col = 100;
    ::ioctl(master.get(), TIOCSWINSZ, &size);
  }
  // As pos-cli does it once the job has its own terminal.
  void MakeRaw() {
    termios settings{};
    ::tcgetattr(slave.get(), &settings);
    ::cfmakeraw(&settings);
    ::tcsetattr(slave.get(), TCSANOW, &settings);
  }
  UniqueFd master;
  UniqueFd slave;
};

TEST_F(RunTest, ACallerOnATerminalGivesTheJobOne) {
  TestJob job("tty");
  Terminal terminal;
  job.Program({"whoami"});
  job.SetStdin(terminal.slave.get());
  job.SetStdout(terminal.slave.get());
  job.SetStderr(terminal.slave.get());
  job.Start();
  EXPECT_TRUE(job.started().terminal());
  const std::string text = ReadFdUntil(terminal.master.get(), "controlling 1");
  EXPECT_THAT(text, HasSubstr("tty 1 1 1 window 30 100"));
  EXPECT_THAT(text, HasSubstr("open 0 1 2\r"));
  EXPECT_EQ(job.WaitEnd().exit_code(), 0);
}

TEST_F(RunTest, AMixOfTerminalAndPipeStaysOne) {
  TestJob job("mix");
  Terminal terminal;
  Pipe out;
  job.Program({"whoami"});
  job.SetStdin(terminal.slave.get());
  job.SetStdout(out.write_end.get());
  job.SetStderr(terminal.slave.get());
  job.Start();
  out.write_end.Reset();
  EXPECT_THAT(out.ReadToEnd(), HasSubstr("tty 1 0 1"));
  EXPECT_EQ(job.WaitEnd().exit_code(), 0);
}

TEST_F(RunTest, KeysAndWindowSizesReachAJobOnATerminal) {
  TestJob job("keys");
  Terminal terminal;
  job.Program({"count", "5"});
  job.SetStdin(terminal.slave.get());
  job.SetStdout(terminal.slave.get());
  job.SetStderr(terminal.slave.get());
  job.Start();
  terminal.MakeRaw();
  ReadFdUntil(terminal.master.get(), "count 1 ");
  ToJob request;
  request.mutable_window()->set_rows(50);
  request.mutable_window()->set_columns(200);
  EXPECT_TRUE(job.Call(request).ok());
  EXPECT_THAT(ReadFdUntil(terminal.master.get(), "signal 28"),
              HasSubstr("signal 28"));  // SIGWINCH
  ASSERT_EQ(::write(terminal.master.get(), "\x03", 1), 1);
  EXPECT_THAT(ReadFdUntil(terminal.master.get(), "signal 2\r"),
              HasSubstr("signal 2\r"));  // SIGINT
  EXPECT_TRUE(job.SendSignal(SIGKILL, true).ok());
  EXPECT_EQ(job.WaitEnd().signal(), SIGKILL);
}

TEST_F(RunTest, ACallersTerminalThatHangsUpLeavesTheJobRunning) {
  TestJob job("hangup");
  job.Program({"count", "5"});
  {
    Terminal terminal;
    job.SetStdin(terminal.slave.get());
    job.SetStdout(terminal.slave.get());
    job.SetStderr(terminal.slave.get());
    job.Start();
    ReadFdUntil(terminal.master.get(), "count 1 ");
  }
  EXPECT_TRUE(job.WaitLog("count 20 "));
  EXPECT_THAT(job.Log(), HasSubstr("signal 0"));
  EXPECT_TRUE(job.SendSignal(SIGKILL).ok());
  job.WaitEnd();
}

TEST_F(RunTest, PausedInputIsLeftToTheCaller) {
  TestJob job("paused");
  job.Program({"cat"});
  Pipe in;
  job.SetStdin(in.read_end.get());
  job.config()->mutable_stdio()->set_stdin_paused(true);
  job.Start();
  ASSERT_EQ(::write(in.write_end.get(), "first\n", 6), 6);
  // What the job does not take the caller still can.
  EXPECT_EQ(in.ReadUntil("first\n"), "first\n");
  ToJob request;
  request.mutable_set_stdin()->set_read(true);
  EXPECT_TRUE(job.Call(request).ok());
  ASSERT_EQ(::write(in.write_end.get(), "second\n", 7), 7);
  EXPECT_TRUE(job.WaitLog("second\n"));
  EXPECT_FALSE(job.LogHas("first"));
  in.write_end.Reset();
  in.read_end.Reset();
  EXPECT_EQ(job.WaitEnd().exit_code(), 0);
}

TEST_F(RunTest, OrphansAreAdoptedAndEndWithTheProgram) {
  TestJob job("orphan");
  job.Program({"orphan"});
  job.Start();
  EXPECT_TRUE(job.WaitLog(" of 1\n"));
  ToJob request;
  request.mutable_list_processes();
  const Result<Reply> reply = job.Call(request);
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->processes().process_size(), 2);
  const pid_t orphan = reply->processes().process(1).pid();
  EXPECT_TRUE(job.SendSignal(SIGTERM).ok());
  EXPECT_EQ(job.WaitEnd().signal(), SIGTERM);
  EXPECT_FALSE(PathExists("/proc/" + std::to_string(orphan)));
}

TEST_F(RunTest, AProgramThatAdoptsOrphansIsTheirParent) {
  TestJob job("adopt");
  job.Program({"orphan"})->set_adopt_orphans(true);
  job.Start();
  EXPECT_TRUE(job.WaitLog(" of 1001\n"));
  EXPECT_TRUE(job.SendSignal(SIGKILL, true).ok());
  EXPECT_EQ(job.WaitEnd().signal(), SIGKILL);
}

TEST_F(RunTest, WhatAProgramLeavesBehindEndsWithIt) {
  TestJob job("abandon");
  job.Program({"abandon"});
  job.Start();
  EXPECT_EQ(job.WaitEnd().exit_code(), 7);
  EXPECT_TRUE(Eventually([&job] { return job.Gone(); }));
}

TEST_F(RunTest, SignalsReachTheProgramOrEveryone) {
  TestJob job("signals");
  job.Program({"count", "5"});
  job.Start();
  EXPECT_TRUE(job.WaitLog("count 1 "));
  EXPECT_TRUE(job.SendSignal(SIGUSR1).ok());
  EXPECT_TRUE(job.WaitLog("signal 10\n"));
  EXPECT_TRUE(job.SendSignal(SIGHUP, true).ok());
  EXPECT_TRUE(job.WaitLog("signal 1\n"));
  EXPECT_EQ(job.SendSignal(999).code(), Code::kInvalid);
  EXPECT_TRUE(job.SendSignal(SIGKILL, true).ok());
  const ProgramEnded ended = job.WaitEnd();
  EXPECT_EQ(ended.reason(), ProgramEnded::SIGNALED);
  EXPECT_EQ(ended.exit_code(), 137);
}

TEST_F(RunTest, NothingIsLeftWhenPosJobIsKilled) {
  TestJob job("killed");
  job.Program({"orphan"});
  job.Start();
  EXPECT_TRUE(job.WaitLog(" of 1\n"));
  ToJob request;
  request.mutable_list_processes();
  const Result<Reply> reply = job.Call(request);
  ASSERT_TRUE(reply.ok());
  ASSERT_EQ(::kill(job.monitor_pid(), SIGKILL), 0);
  for (const Processes::Process& process : reply->processes().process()) {
    EXPECT_TRUE(Eventually([&process] {
      return !PathExists("/proc/" + std::to_string(process.pid()));
    }));
  }
  EXPECT_TRUE(Eventually([&job] { return job.Gone(); }));
}

TEST_F(RunTest, AnAnswerCanBeGivenUp) {
  TestJob job("given_up");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_EQ(::kill(job.monitor_pid(), SIGSTOP), 0);
  ToJob request;
  request.mutable_list_processes();
  std::atomic<bool> given_up{false};
  constexpr int kLongMs = 24 * 3600 * 1000;
  std::future<Result<Reply>> reply = std::async(std::launch::async, [&] {
    return job.client()->Call(request, {}, kLongMs, nullptr, &given_up);
  });
  given_up.store(true);
  EXPECT_EQ(reply.wait_for(std::chrono::milliseconds(kWaitMs)),
            std::future_status::ready);
  ASSERT_EQ(::kill(job.monitor_pid(), SIGCONT), 0);
  EXPECT_EQ(reply.get().status().code(), Code::kTimeout);
  // What comes late is nobody's; the next answer is the next request's.
  given_up.store(false);
  EXPECT_TRUE(
      job.client()->Call(request, {}, kWaitMs, nullptr, &given_up).ok());
}

TEST_F(RunTest, AKilledInitIsReportedAsLost) {
  TestJob job("lost");
  job.Program({"count", "5"});
  job.Start();
  EXPECT_TRUE(job.WaitLog("count 1 "));
  job.Reconnect();
  ASSERT_EQ(::kill(job.client()->hello().init_pid(), SIGKILL), 0);
  const ProgramEnded ended = job.WaitEnd();
  EXPECT_EQ(ended.reason(), ProgramEnded::LOST);
  EXPECT_EQ(ended.exit_code(), 137);
}

TEST_F(RunTest, ALaterPosdFindsARunningJob) {
  TestJob job("later");
  job.Program({"count", "5"});
  job.Start();
  EXPECT_TRUE(job.WaitLog("count 1 "));
  job.Reconnect();
  const Hello& hello = job.client()->hello();
  EXPECT_EQ(hello.name(), "later");
  EXPECT_EQ(hello.state(), Hello::RUNNING);
  EXPECT_EQ(hello.pid(), job.started().pid());
  EXPECT_EQ(hello.ns_pid(), 1001);
  EXPECT_GT(hello.log_bytes(), 0u);
  EXPECT_FALSE(hello.attached());
  EXPECT_TRUE(job.SendSignal(SIGKILL).ok());
  EXPECT_EQ(job.WaitEnd().exit_code(), 137);
}

TEST_F(RunTest, ALaterPosdFindsAnEndedJob) {
  TestJob job("ended");
  job.Program({"count", "1", "5"});
  job.Start();
  job.Disconnect();
  ASSERT_TRUE(
      Eventually([&job] { return ReadExitFile(job.directory()).ok(); }));
  job.Reconnect();
  EXPECT_EQ(job.client()->hello().state(), Hello::ENDED);
  EXPECT_EQ(job.client()->hello().ended().exit_code(), 42);
  EXPECT_TRUE(job.client()->AckExit().ok());
  EXPECT_TRUE(Eventually([&job] { return job.Gone(); }));
}

TEST_F(RunTest, WithoutPosdItLingersForABoundedTime) {
  TestJob job("linger");
  job.config()->set_linger_ms(100);
  job.Program({"exit", "3"});
  job.Start();
  job.Disconnect();
  EXPECT_TRUE(Eventually([&job] { return job.Gone(); }));
  EXPECT_EQ(ReadExitFile(job.directory())->exit_code(), 3);
  EXPECT_FALSE(PathExists(job.directory() + "/job.sock"));
}

TEST_F(RunTest, AWordInMemoryCanBeWritten) {
  TestJob job("poke");
  job.Program({"word"});
  job.Start();
  ASSERT_TRUE(job.WaitLog("word at 0x"));
  const std::string log = job.Log();
  const std::uint64_t address =
      std::strtoull(log.c_str() + log.find("0x"), nullptr, 16);
  ToJob request;
  Poke* poke = request.mutable_poke();
  poke->set_ns_pid(1001);
  poke->set_address(address);
  poke->set_data(std::string("\x44\x33\x22\x11", 4));
  poke->set_expected("nope");
  EXPECT_EQ(job.Call(request).status().code(), Code::kInvalid);
  poke->set_expected("no");
  EXPECT_EQ(job.Call(request).status().code(), Code::kInvalid);
  poke->set_address(16);
  poke->clear_expected();
  EXPECT_FALSE(job.Call(request).ok());
  poke->set_ns_pid(1);
  EXPECT_EQ(job.Call(request).status().code(), Code::kInvalid);
  poke->set_ns_pid(1001);
  poke->set_data(std::string(4097, 'x'));
  EXPECT_EQ(job.Call(request).status().code(), Code::kInvalid);
  poke->set_data(std::string("\x44\x33\x22\x11", 4));
  poke->set_address(address);
  poke->set_expected("\x11\x11\x11\x11");
  EXPECT_TRUE(job.Call(request).ok());
  EXPECT_TRUE(job.WaitLog("word is 11223344\n"));
  EXPECT_EQ(job.WaitEnd().exit_code(), 0);
}

TEST_F(RunTest, FilesOpenInsideTheJob) {
  TestJob job("inside");
  ScratchDirectory files("files");
  job.Program({"count", "5"});
  job.Start();
  ToJob request;
  OpenInside* open = request.mutable_open_inside();
  open->set_path(files.Path("f"));
  open->set_flags(O_RDWR | O_CREAT);
  open->set_mode(0640);
  open->set_uid(12345);
  open->set_gid(23456);
  UniqueFd fd;
  ASSERT_TRUE(job.Call(request, {}, kWaitMs, &fd).ok());
  struct stat st {};
  ASSERT_EQ(::fstat(fd.get(), &st), 0);
  EXPECT_EQ(st.st_uid, 12345u);
  EXPECT_EQ(st.st_gid, 23456u);
  EXPECT_EQ(st.st_mode & 07777, 0640u);
  EXPECT_EQ(job.Call(request).status().code(), Code::kExists);
  open->set_flags(O_RDONLY);
  open->set_path(files.Path("absent"));
  EXPECT_EQ(job.Call(request).status().code(), Code::kNoSuch);
}

TEST_F(RunTest, RequestsAreRefusedOnceTheJobHasEnded) {
  TestJob job("over");
  job.Program({"exit", "0"});
  job.Start();
  Event event;
  ASSERT_TRUE(
      job.WaitEvent([](const Event& e) { return e.has_ended(); }, &event));
  EXPECT_EQ(job.SendSignal(SIGTERM).code(), Code::kClosed);
  EXPECT_EQ(job.Decide(Verdict::RESUME).code(), Code::kNoSuch);
  EXPECT_EQ(job.Call(ToJob()).status().code(), Code::kProto);
}

TEST_F(RunTest, OrdinaryUsersCannotReachAJobsSocket) {
  TestJob job("socket");
  job.Program({"count", "5"});
  job.Start();
  struct stat st {};
  ASSERT_EQ(::stat((job.directory() + "/job.sock").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

}  // namespace
}  // namespace pos::job
