// Dumps and restores with the real CRIU.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>

#include "ckpt/criu/images.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/job/exit_file.h"
#include "pos/job/job_image.h"
#include "tests/pos/job/harness.h"

namespace pos::job {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

class DumpTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (UsableCriu(&why).empty()) GTEST_SKIP() << why;
  }
};

struct CountLine {
  long count = -1;
  int pid = 0;
  int parent = 0;
  double clock = 0;
  int signal = 0;
};

std::vector<CountLine> CountLines(const std::string& text) {
  std::vector<CountLine> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    CountLine parsed;
    if (std::sscanf(line.c_str(),
                    "count %ld pid %d parent %d clock %lf signal %d",
                    &parsed.count, &parsed.pid, &parsed.parent, &parsed.clock,
                    &parsed.signal) == 5) {
      lines.push_back(parsed);
    }
  }
  return lines;
}

// Numbers without a gap, one pid, a clock that neither stops nor jumps.
void ExpectOneRun(const std::string& text) {
  const std::vector<CountLine> lines = CountLines(text);
  ASSERT_GT(lines.size(), 1u);
  for (std::size_t i = 1; i < lines.size(); ++i) {
    ASSERT_EQ(lines[i].count, lines[i - 1].count + 1) << text;
    EXPECT_EQ(lines[i].pid, lines[0].pid);
    EXPECT_GT(lines[i].clock, lines[i - 1].clock);
    EXPECT_LT(lines[i].clock, lines[i - 1].clock + 5);
  }
}

long LastCount(const std::string& text) {
  const std::vector<CountLine> lines = CountLines(text);
  return lines.empty() ? -1 : lines.back().count;
}

bool WaitCount(const TestJob& job, long count) {
  return Eventually([&] { return LastCount(job.Log()) >= count; });
}

TEST_F(DumpTest, AJobRunsOnAfterADump) {
  ScratchDirectory images("images");
  TestJob job("goeson");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  const Result<Dumped> dumped = job.DumpTo(images.Path("1"), Verdict::RESUME);
  ASSERT_TRUE(dumped.ok()) << dumped.status().ToString();
  EXPECT_FALSE(dumped->killed());
  EXPECT_GT(dumped->image_bytes(), 10000u);
  EXPECT_GT(dumped->dump_us(), 0u);
  EXPECT_GE(dumped->total_us(), dumped->dump_us());
  const long at_dump = LastCount(job.Log());
  ASSERT_TRUE(WaitCount(job, at_dump + 10));
  EXPECT_TRUE(job.SendSignal(SIGKILL).ok());
  job.WaitEnd();
  ExpectOneRun(job.Log());
}

TEST_F(DumpTest, TheTreeStandsStillUntilTheVerdict) {
  ScratchDirectory images("images");
  TestJob job("frozen");
  job.Program({"tree"});
  job.Start();
  ASSERT_TRUE(job.WaitLog("tree 5:"));
  const std::uint64_t id = job.PostDump(images.Path("1"));
  Frozen frozen;
  ASSERT_TRUE(job.WaitFrozen(&frozen));
  EXPECT_EQ(frozen.dump_id(), id);
  EXPECT_EQ(frozen.processes(), 3u);
  const std::string log = job.Log();
  EXPECT_EQ(frozen.log_bytes(), log.size());
  ToJob request;
  request.mutable_list_processes();
  const Result<Reply> reply = job.Call(request);
  ASSERT_TRUE(reply.ok());
  int stopped = 0;
  for (const Processes::Process& process : reply->processes().process()) {
    if (process.state() == "t") ++stopped;
  }
  EXPECT_EQ(stopped, 3);
  SleepNs(200000000);  // time in which a running job would have counted
  EXPECT_EQ(job.Log(), log);
  EXPECT_TRUE(job.Decide(Verdict::RESUME).ok());
  EXPECT_TRUE(job.WaitDumped(id).ok());
  EXPECT_TRUE(Eventually([&] { return job.Log().size() > log.size() + 200; }));
  EXPECT_EQ(job.Decide(Verdict::RESUME).code(), Code::kNoSuch);
}

TEST_F(DumpTest, AKilledJobContinuesAfterARestore) {
  ScratchDirectory images("images");
  std::string first;
  {
    TestJob job("one");
    job.Program({"count", "5"});
    job.Start();
    ASSERT_TRUE(WaitCount(job, 5));
    const Result<Dumped> dumped = job.DumpTo(images.Path("1"), Verdict::KILL);
    ASSERT_TRUE(dumped.ok()) << dumped.status().ToString();
    EXPECT_TRUE(dumped->killed());
    const ProgramEnded ended = job.WaitEnd();
    EXPECT_EQ(ended.reason(), ProgramEnded::DUMPED);
    first = job.Log();
    const Result<JobImage> image = ReadJobImage(images.Path("1"));
    ASSERT_TRUE(image.ok());
    EXPECT_EQ(image->log_bytes(), first.size());  // not a byte ran after it
    EXPECT_EQ(image->root_ns_pid(), 1001);
  }
  TestJob job("two");
  job.Restore(images.Path("1"));
  job.Start();
  EXPECT_EQ(job.started().ns_pid(), 1001);
  EXPECT_GT(job.started().restore_us(), 0u);
  ASSERT_TRUE(WaitCount(job, LastCount(first) + 10));
  EXPECT_TRUE(job.SendSignal(SIGUSR1).ok());
  EXPECT_TRUE(job.WaitLog("signal 10\n"));
  EXPECT_TRUE(job.SendSignal(SIGKILL).ok());
  EXPECT_EQ(job.WaitEnd().exit_code(), 137);
  ExpectOneRun(first + job.Log());
  EXPECT_EQ(CountLines(job.Log())[0].parent, 1);
}

TEST_F(DumpTest, TheRestoredProgramsExitStatusComesBack) {
  ScratchDirectory images("images");
  TestJob job("one");
  job.Program({"count", "20", "40"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  ASSERT_TRUE(job.DumpTo(images.Path("1"), Verdict::KILL).ok());
  TestJob again("two");
  again.Restore(images.Path("1"));
  again.Start();
  const ProgramEnded ended = again.WaitEnd();
  EXPECT_EQ(ended.reason(), ProgramEnded::EXITED);
  EXPECT_EQ(ended.exit_code(), 42);
}

TEST_F(DumpTest, ARestoredJobCanBeDumpedAndRestoredAgain) {
  ScratchDirectory images("images");
  std::string text;
  TestJob first("zero");
  first.Program({"count", "5"});
  first.Start();
  ASSERT_TRUE(WaitCount(first, 3));
  ASSERT_TRUE(first.DumpTo(images.Path("0"), Verdict::KILL).ok());
  first.WaitEnd();
  text = first.Log();
  for (int round = 1; round < 4; ++round) {
    SCOPED_TRACE(round);
    TestJob job("round");
    job.Restore(images.Path(std::to_string(round - 1)));
    job.Start();
    ASSERT_TRUE(WaitCount(job, LastCount(text) + 3));
    const Result<Dumped> dumped =
        job.DumpTo(images.Path(std::to_string(round)), Verdict::KILL);
    ASSERT_TRUE(dumped.ok()) << dumped.status().ToString();
    job.WaitEnd();
    text += job.Log();
  }
  ExpectOneRun(text);
}

TEST_F(DumpTest, AnImageRestoresTwiceBesideItsOriginal) {
  ScratchDirectory images("images");
  TestJob original("original");
  original.Program({"tree"});
  original.Start();
  ASSERT_TRUE(original.WaitLog("tree 5:"));
  ASSERT_TRUE(original.DumpTo(images.Path("1"), Verdict::RESUME).ok());
  TestJob a("a");
  a.Restore(images.Path("1"));
  a.Start();
  TestJob b("b");
  b.Restore(images.Path("1"));
  b.Start();
  EXPECT_EQ(a.started().ns_pid(), b.started().ns_pid());
  EXPECT_NE(a.started().pid(), b.started().pid());
  for (TestJob* job : {&original, &a, &b}) {
    EXPECT_TRUE(job->WaitLog("tree 30:"));
  }
  for (TestJob* job : {&original, &a, &b}) {
    EXPECT_TRUE(job->SendSignal(SIGKILL).ok());
    EXPECT_EQ(job->WaitEnd().exit_code(), 137);
  }
}

TEST_F(DumpTest, ATreeWithThreadsGoesOnTogether) {
  ScratchDirectory images("images");
  TestJob job("tree");
  job.Program({"tree"});
  job.Start();
  ASSERT_TRUE(job.WaitLog("tree 5:"));
  ASSERT_TRUE(job.DumpTo(images.Path("1"), Verdict::KILL).ok());
  job.WaitEnd();
  TestJob again("again");
  again.Restore(images.Path("1"));
  again.Start();
  ASSERT_TRUE(again.WaitLog("tree 30:"));
  std::array<long, 5> before{};
  std::array<long, 5> after{};
  const auto parse = [](const std::string& text, std::array<long, 5>* to) {
    const std::size_t at = text.rfind("tree ", text.rfind('\n'));
    std::sscanf(text.c_str() + at, "tree %*d: %ld %ld %ld %ld %ld", to->data(),
                to->data() + 1, to->data() + 2, to->data() + 3, to->data() + 4);
  };
  parse(job.Log(), &before);
  parse(again.Log(), &after);
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_GT(after[i], before[i]) << "counter " << i;
  }
}

TEST_F(DumpTest, WithoutAVerdictInTimeTheJobRunsOn) {
  ScratchDirectory images("images");
  TestJob job("hold");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  const std::uint64_t id = job.PostDump(images.Path("1"), 150);
  Frozen frozen;
  ASSERT_TRUE(job.WaitFrozen(&frozen));
  const Result<Dumped> dumped = job.WaitDumped(id);
  EXPECT_EQ(dumped.status().code(), Code::kTimeout);
  EXPECT_THAT(dumped.status().message(), HasSubstr("150 ms"));
  const long at = LastCount(job.Log());
  EXPECT_TRUE(WaitCount(job, at + 5));
  ExpectOneRun(job.Log());
  // And can be dumped again.
  EXPECT_TRUE(job.DumpTo(images.Path("2"), Verdict::RESUME).ok());
}

TEST_F(DumpTest, AHoldCanLastUntilTold) {
  ScratchDirectory images("images");
  TestJob job("until");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  const std::uint64_t id = job.PostDump(images.Path("1"), 300);
  Frozen frozen;
  ASSERT_TRUE(job.WaitFrozen(&frozen));
  ToJob request;
  request.mutable_hold()->set_until_told(true);
  ASSERT_TRUE(job.Call(request).ok());
  // The posd that gave the job away is gone; nothing may run.
  job.Disconnect();
  const std::string log = job.Log();
  SleepNs(600000000);  // twice the hold
  EXPECT_EQ(job.Log(), log);
  job.Reconnect();
  EXPECT_EQ(job.client()->hello().state(), Hello::FROZEN);
  EXPECT_TRUE(job.client()->hello().until_told());
  EXPECT_EQ(job.client()->hello().operation_id(), id);
  EXPECT_TRUE(job.Decide(Verdict::KILL).ok());
  EXPECT_EQ(job.WaitEnd().reason(), ProgramEnded::DUMPED);
  EXPECT_EQ(job.Log(), log);
}

TEST_F(DumpTest, AnAbortedDumpLeavesTheJobAsItWas) {
  ScratchDirectory images("images");
  TestJob job("abort");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  const Result<Dumped> dumped = job.DumpTo(images.Path("1"), Verdict::ABORT);
  EXPECT_EQ(dumped.status().code(), Code::kAborted);
  const long at = LastCount(job.Log());
  EXPECT_TRUE(WaitCount(job, at + 5));
  ExpectOneRun(job.Log());
}

TEST_F(DumpTest, ALaterPosdDecidesAboutAFrozenJob) {
  ScratchDirectory images("images");
  TestJob job("decides");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  const std::uint64_t id = job.PostDump(images.Path("1"), 5000);
  Frozen frozen;
  ASSERT_TRUE(job.WaitFrozen(&frozen));
  job.Reconnect();
  const Hello& hello = job.client()->hello();
  EXPECT_EQ(hello.state(), Hello::FROZEN);
  EXPECT_EQ(hello.operation_id(), id);
  EXPECT_GT(hello.hold_left_ms(), 1000u);
  EXPECT_TRUE(job.Decide(Verdict::RESUME).ok());
  EXPECT_TRUE(job.WaitDumped(id).ok());
  job.Reconnect();
  EXPECT_EQ(job.client()->hello().state(), Hello::RUNNING);
  EXPECT_EQ(job.client()->hello().last_dump().id(), id);
  EXPECT_TRUE(job.client()->hello().last_dump().has_dumped());
}

TEST_F(DumpTest, AnotherDumpMeanwhileIsRefused) {
  ScratchDirectory images("images");
  TestJob job("twice");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  const std::uint64_t id = job.PostDump(images.Path("1"));
  const std::uint64_t second = job.PostDump(images.Path("2"));
  EXPECT_EQ(job.WaitDumped(second).status().code(), Code::kBusy);
  Frozen frozen;
  ASSERT_TRUE(job.WaitFrozen(&frozen));
  ToJob request;
  request.mutable_preflight();
  EXPECT_EQ(job.Call(request).status().code(), Code::kBusy);
  EXPECT_TRUE(job.Decide(Verdict::RESUME).ok());
  EXPECT_TRUE(job.WaitDumped(id).ok());
}

TEST_F(DumpTest, SignalsWaitForTheEndOfADumpButKillDoesNot) {
  ScratchDirectory images("images");
  TestJob job("signals");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  const std::uint64_t id = job.PostDump(images.Path("1"));
  Frozen frozen;
  ASSERT_TRUE(job.WaitFrozen(&frozen));
  ToJob request;
  request.mutable_signal()->set_signal(SIGUSR1);
  EXPECT_EQ(job.Call(request, {}, 100).status().code(), Code::kTimeout);
  EXPECT_TRUE(job.Decide(Verdict::RESUME).ok());
  EXPECT_TRUE(job.WaitDumped(id).ok());
  EXPECT_TRUE(job.WaitLog("signal 10\n"));
  const std::uint64_t next = job.PostDump(images.Path("2"));
  ASSERT_TRUE(job.WaitFrozen(&frozen));
  EXPECT_TRUE(job.SendSignal(SIGKILL, true).ok());
  EXPECT_EQ(job.WaitDumped(next).status().code(), Code::kClosed);
  EXPECT_EQ(job.WaitEnd().exit_code(), 137);
}

TEST_F(DumpTest, AnUsedDirectoryIsRefused) {
  ScratchDirectory images("images");
  TestJob job("used");
  job.Program({"count", "5"});
  job.Start();
  EXPECT_EQ(job.WaitDumped(job.PostDump(job.directory())).status().code(),
            Code::kExists);
}

TEST_F(DumpTest, ADumpThatCriuRefusesShowsItsWordsAndTheJobRunsOn) {
  ScratchDirectory images("images");
  TestJob job("refused");
  // Connected to something outside: the preflight knows that, so it is left out
  // the second time.
  job.Program({"connected"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  ASSERT_TRUE(MakeDirectories(images.Path("1")).ok());
  const Result<UniqueFd> fd =
      OpenFile(images.Path("1"), O_RDONLY | O_DIRECTORY);
  ToJob request;
  request.mutable_dump()->set_images_fd(1);
  const Status refused = job.Call(request, {fd->get()}).status();
  EXPECT_EQ(refused.code(), Code::kIncompatible);
  EXPECT_THAT(refused.message(), HasSubstr("is a TCP connection, 127.0.0.1:"));
  request.mutable_dump()->set_skip_preflight(true);
  const Status failed = job.Call(request, {fd->get()}).status();
  EXPECT_EQ(failed.code(), Code::kCriu);
  EXPECT_THAT(failed.message(), HasSubstr("Error ("));
  EXPECT_THAT(failed.message(), HasSubstr("onnected TCP socket"));
  EXPECT_THAT(failed.hint(), HasSubstr("criu/dump.log"));
  const long at = LastCount(job.Log());
  EXPECT_TRUE(WaitCount(job, at + 5));
  ExpectOneRun(job.Log());
}

TEST_F(DumpTest, AFullDiskIsSaidAndTheJobRunsOn) {
  ScratchDirectory images("images");
  ASSERT_TRUE(MakeDirectories(images.Path("small")).ok());
  ASSERT_EQ(
      ::mount("none", images.Path("small").c_str(), "tmpfs", 0, "size=1m"), 0);
  {
    TestJob job("full");
    job.Program({"memory", "8"});
    job.Start();
    ASSERT_TRUE(WaitCount(job, 3));
    const Result<Dumped> dumped =
        job.DumpTo(images.Path("small/1"), Verdict::RESUME);
    EXPECT_EQ(dumped.status().code(), Code::kDiskFull)
        << dumped.status().ToString();
    const long at = LastCount(job.Log());
    EXPECT_TRUE(WaitCount(job, at + 5));
    EXPECT_TRUE(job.DumpTo(images.Path("large"), Verdict::RESUME).ok());
    ExpectOneRun(job.Log());
  }
  EXPECT_EQ(::umount(images.Path("small").c_str()), 0);
}

TEST_F(DumpTest, ACriuThatHangsIsEndedAndTheJobRunsOn) {
  ScratchDirectory images("images");
  TestJob job("hangs");
  const std::string fake = images.Path("criu");
  ASSERT_TRUE(ReplaceFile(fake, "#!/bin/sh\nexec sleep 100\n", 0755).ok());
  job.config()->set_criu(fake);
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  const std::uint64_t id = job.PostDump(images.Path("1"), 0, 200);
  const Result<Dumped> dumped = job.WaitDumped(id);
  EXPECT_EQ(dumped.status().code(), Code::kTimeout);
  EXPECT_THAT(dumped.status().message(), HasSubstr("200 ms"));
  const long at = LastCount(job.Log());
  EXPECT_TRUE(WaitCount(job, at + 5));
}

// One that has the tree in its hands is given time to clean up first.
TEST_F(DumpTest, ACriuThatDoesNotEvenGiveUpIsKilledInTheEnd) {
  ScratchDirectory images("images");
  TestJob job("stubborn");
  const std::string fake = images.Path("criu");
  ASSERT_TRUE(
      ReplaceFile(fake,
                  "#!/usr/bin/env python3\n"
                  "import socket, sys, time\n"
                  "rpc = socket.socket(fileno=int(sys.argv[2]))\n"
                  "rpc.recv(65536)\n"
                  "rpc.send(b'\\x08\\x06\\x10\\x01*\\n\\n\\x08pre-dump')\n"
                  "time.sleep(100)\n",
                  0755)
          .ok());
  job.config()->set_criu(fake);
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  const std::uint64_t id = job.PostDump(images.Path("1"), 0, 500);
  EXPECT_EQ(job.WaitDumped(id).status().code(), Code::kTimeout);
  const long at = LastCount(job.Log());
  EXPECT_TRUE(WaitCount(job, at + 5));
  EXPECT_THAT(ReadAll(job.directory() + "/pos-job.log"),
              HasSubstr("does not give up"));
}

// Whenever a dump runs out of time, the tree has to run on. (A CRIU that is
// simply killed takes the job along in 1 of 100 cases.)
TEST_F(DumpTest, AJobSurvivesADumpThatEndsAtAnyTime) {
  ScratchDirectory images("images");
  TestJob job("killed");
  job.Program({"memory", "64"});
  job.Start();
  ASSERT_TRUE(WaitCount(job, 3));
  for (int ms = 5; ms < 60; ms += 1) {
    SCOPED_TRACE(ms);
    const std::uint64_t id = job.PostDump(images.Path(std::to_string(ms)), 1,
                                          static_cast<std::uint64_t>(ms));
    const Result<Dumped> dumped = job.WaitDumped(id);
    EXPECT_EQ(dumped.status().code(), Code::kTimeout)
        << dumped.status().ToString();
    const long at = LastCount(job.Log());
    ASSERT_TRUE(WaitCount(job, at + 2));
  }
  ExpectOneRun(job.Log());
}

TEST_F(DumpTest, NothingIsLeftWhenPosJobIsKilledWhileFrozen) {
  ScratchDirectory images("images");
  TestJob job("nothing");
  job.Program({"tree"});
  job.Start();
  ASSERT_TRUE(job.WaitLog("tree 2:"));
  job.PostDump(images.Path("1"));
  Frozen frozen;
  ASSERT_TRUE(job.WaitFrozen(&frozen));
  ToJob request;
  request.mutable_list_processes();
  const Result<Reply> reply = job.Call(request);
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->processes().process_size(), 4);  // CRIU, too
  ASSERT_EQ(::kill(job.monitor_pid(), SIGKILL), 0);
  for (const Processes::Process& process : reply->processes().process()) {
    EXPECT_TRUE(Eventually([&process] {
      return !PathExists("/proc/" + std::to_string(process.pid()));
    }));
  }
}

}  // namespace
}  // namespace pos::job
