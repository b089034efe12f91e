// What a restore has to put in order around CRIU: files, streams, terminals,
// replaced files, holds; and what it refuses.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <thread>

#include "ckpt/criu/images.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/job/exit_file.h"
#include "pos/job/job_image.h"
#include "tests/pos/job/harness.h"

namespace pos::job {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class RestoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (UsableCriu(&why).empty()) GTEST_SKIP() << why;
  }

  // Runs `victim files DIR`, dumps it and kills it; or leaves it running.
  void DumpFiles(TestJob* job, bool kill) {
    job->Program({"files", files_.path()});
    job->Start();
    ASSERT_TRUE(job->WaitLog("files 5 ghost ghostly content linked linked\n"));
    const Result<Dumped> dumped =
        job->DumpTo(images_.Path("1"), kill ? Verdict::KILL : Verdict::RESUME);
    ASSERT_TRUE(dumped.ok()) << dumped.status().ToString();
    if (kill) job->WaitEnd();
    image_ = *ReadJobImage(images_.Path("1"));
  }

  std::uint64_t RecordedSize(const std::string& path) {
    for (const RecordedFile& file : image_.open_file()) {
      if (file.path() == path) return file.size_bytes();
    }
    ADD_FAILURE() << path << " is not recorded";
    return 0;
  }

  void Append(const std::string& name, const std::string& text) {
    const Result<UniqueFd> fd =
        OpenFile(files_.Path(name), O_WRONLY | O_APPEND);
    ASSERT_TRUE(fd.ok());
    ASSERT_TRUE(
        WriteFull(fd->get(), std::as_bytes(std::span(text)), name).ok());
  }

  // Every line once, in order: what a program sees that was never interrupted.
  static void ExpectUnbroken(const std::string& text) {
    ASSERT_GT(text.size(), 10u);
    for (std::size_t i = 0; i * 10 + 10 <= text.size(); ++i) {
      char line[16];
      std::snprintf(line, sizeof(line), "line %04zu\n", i);
      ASSERT_EQ(text.substr(i * 10, 10), line);
    }
  }

  ScratchDirectory images_{"images"};
  ScratchDirectory files_{"files"};
  JobImage image_;
};

TEST_F(RestoreTest, FilesOpenForWritingAreRecorded) {
  TestJob job("recorded");
  DumpFiles(&job, true);
  EXPECT_EQ(RecordedSize(files_.Path("out")), *FileSize(files_.Path("out")));
  EXPECT_EQ(RecordedSize(files_.Path("append")),
            *FileSize(files_.Path("append")));
  EXPECT_EQ(RecordedSize(files_.Path("lock")), 0u);
  for (const RecordedFile& file : image_.open_file()) {
    EXPECT_EQ(file.append_only(), file.path() == files_.Path("append"));
    EXPECT_EQ(file.processes(), 1u);
    EXPECT_THAT(file.path(), Not(HasSubstr("ghost")));
    EXPECT_THAT(file.path(), Not(HasSubstr("linked")));
    EXPECT_THAT(file.path(), Not(HasSubstr("output.log")));
  }
  EXPECT_EQ(image_.open_file_size(), 3);
}

TEST_F(RestoreTest, GrownFilesAreCutBackAndTheJobGoesOn) {
  TestJob job("grown");
  DumpFiles(&job, true);
  Append("out", "written after the checkpoint");
  Append("append", "this, too");
  TestJob again("again");
  again.Restore(images_.Path("1"));
  again.Start();
  ASSERT_TRUE(again.WaitLog("files 30 ghost ghostly content linked linked\n"));
  EXPECT_TRUE(again.SendSignal(SIGKILL).ok());
  again.WaitEnd();
  ExpectUnbroken(ReadAll(files_.Path("out")));
  ExpectUnbroken(ReadAll(files_.Path("append")));
  // What CRIU linked for the removed file is gone, the kept link stays.
  EXPECT_EQ(image_.link_remap_size(), 1);
  EXPECT_FALSE(PathExists(image_.link_remap(0).link()));
  EXPECT_TRUE(PathExists(image_.link_remap(0).kept()));
  EXPECT_TRUE(RemoveLeftovers(image_).ok());
  EXPECT_FALSE(PathExists(image_.link_remap(0).kept()));
}

TEST_F(RestoreTest, CheckpointThenCrashThenRestore) {
  TestJob job("main");
  DumpFiles(&job, false);
  ASSERT_TRUE(job.WaitLog("files 20 "));  // goes on writing
  ASSERT_TRUE(job.SendSignal(SIGKILL).ok());
  job.WaitEnd();
  ASSERT_GT(*FileSize(files_.Path("out")), RecordedSize(files_.Path("out")));
  for (int round = 0; round < 2; ++round) {  // more than once
    SCOPED_TRACE(round);
    TestJob again("again");
    again.Restore(images_.Path("1"));
    again.Start();
    ASSERT_TRUE(again.WaitLog("files 25 ghost ghostly content linked linked"));
    EXPECT_TRUE(again.SendSignal(SIGKILL).ok());
    again.WaitEnd();
    ExpectUnbroken(ReadAll(files_.Path("out")));
  }
}

TEST_F(RestoreTest, AnAbortedDumpLeavesNoLinks) {
  TestJob job("nolinks");
  job.Program({"files", files_.path()});
  job.Start();
  ASSERT_TRUE(job.WaitLog("files 5 "));
  EXPECT_EQ(job.DumpTo(images_.Path("1"), Verdict::ABORT).status().code(),
            Code::kAborted);
  const Result<std::vector<std::string>> names = ListDirectory(files_.path());
  ASSERT_TRUE(names.ok());
  for (const std::string& name : *names) {
    EXPECT_THAT(name, Not(HasSubstr("keep")));
    EXPECT_THAT(name, Not(HasSubstr("remap")));
  }
}

TEST_F(RestoreTest, AFileThatAnotherProcessWritesIsNotCut) {
  TestJob job("writes");
  DumpFiles(&job, false);
  const std::uint64_t size = RecordedSize(files_.Path("out"));
  ASSERT_TRUE(
      Eventually([&] { return *FileSize(files_.Path("out")) > size + 50; }));
  TestJob again("again");
  again.Restore(images_.Path("1"));
  const Status status = again.TryStart();
  EXPECT_EQ(status.code(), Code::kBusy) << status.ToString();
  EXPECT_THAT(status.message(), HasSubstr("another process"));
  EXPECT_GT(*FileSize(files_.Path("out")), size + 50);
  EXPECT_TRUE(job.SendSignal(SIGKILL).ok());
}

TEST_F(RestoreTest, KeptFilesKeepWhatIsInThem) {
  TestJob job("kept");
  DumpFiles(&job, true);
  const std::uint64_t size = RecordedSize(files_.Path("append"));
  Append("append", "kept text\n");
  Append("out", std::string(2000, 'k'));
  TestJob again("again");
  again.Restore(images_.Path("1"))->set_files(StartRestore::KEEP);
  again.Start();
  ASSERT_TRUE(again.WaitLog("files 30 "));
  EXPECT_TRUE(again.SendSignal(SIGKILL).ok());
  again.WaitEnd();
  EXPECT_EQ(ReadAll(files_.Path("append")).substr(size, 10), "kept text\n");
  EXPECT_EQ(ReadAll(files_.Path("out")).back(), 'k');
}

TEST_F(RestoreTest, CopiesLeaveTheOriginalsAlone) {
  TestJob job("copies");
  DumpFiles(&job, true);
  Append("out", "of the original");
  const std::string before = ReadAll(files_.Path("out"));
  ScratchDirectory copies("copies");
  TestJob a("a");
  StartRestore* restore = a.Restore(images_.Path("1"));
  restore->set_files(StartRestore::COPY);
  restore->set_copy_directory(copies.Path("a"));
  a.Start();
  ASSERT_TRUE(a.WaitLog("files 30 "));
  // The same image once more, beside it, into another directory.
  TestJob b("b");
  restore = b.Restore(images_.Path("1"));
  restore->set_files(StartRestore::COPY);
  restore->set_copy_directory(copies.Path("b"));
  b.Start();
  ASSERT_TRUE(b.WaitLog("files 30 "));
  TestJob c("c");
  restore = c.Restore(images_.Path("1"));
  restore->set_files(StartRestore::COPY);
  restore->set_copy_directory(copies.Path("b"));
  EXPECT_EQ(c.TryStart().code(), Code::kExists);
  for (TestJob* one : {&a, &b}) {
    EXPECT_TRUE(one->SendSignal(SIGKILL).ok());
    one->WaitEnd();
  }
  EXPECT_EQ(ReadAll(files_.Path("out")), before);
  ExpectUnbroken(ReadAll(copies.Path("a") + files_.Path("out")));
  ExpectUnbroken(ReadAll(copies.Path("b") + files_.Path("out")));
}

TEST_F(RestoreTest, ShrunkAndMissingFilesAreRefusedByName) {
  TestJob job("shrunk");
  DumpFiles(&job, true);
  Append("append", "must not be cut");
  const std::string append = ReadAll(files_.Path("append"));
  ASSERT_EQ(::truncate(files_.Path("out").c_str(), 3), 0);
  {
    TestJob again("again");
    again.Restore(images_.Path("1"));
    const Status status = again.TryStart();
    EXPECT_EQ(status.code(), Code::kInvalid);
    EXPECT_THAT(status.message(), HasSubstr(files_.Path("out") + " shrank"));
    const ProgramEnded ended = *ReadExitFile(again.directory());
    EXPECT_EQ(ended.reason(), ProgramEnded::START_FAILED);
  }
  ASSERT_TRUE(RemoveFile(files_.Path("out")).ok());
  TestJob again("again");
  again.Restore(images_.Path("1"));
  const Status status = again.TryStart();
  EXPECT_EQ(status.code(), Code::kNoSuch);
  EXPECT_THAT(status.message(), HasSubstr(files_.Path("out")));
  EXPECT_EQ(ReadAll(files_.Path("append")), append);  // nothing was touched
}

TEST_F(RestoreTest, AProgramThatChangedIsRefusedByName) {
  const std::string program = files_.Path("program");
  ASSERT_TRUE(ReplaceFile(program, ReadAll(VictimPath()), 0755).ok());
  TestJob job("program");
  job.Program({"count", "5"})->set_argv(0, program);
  job.Start();
  ASSERT_TRUE(job.WaitLog("count 3 "));
  ASSERT_EQ(job.DumpTo(images_.Path("1"), Verdict::KILL).status().ToString(),
            "OK");
  job.WaitEnd();
  Append("program", "changed");
  for (const auto policy : {StartRestore::TRUNCATE, StartRestore::KEEP}) {
    TestJob again("again");
    again.Restore(images_.Path("1"))->set_files(policy);
    const Status status = again.TryStart();
    EXPECT_EQ(status.code(), Code::kInvalid);
    EXPECT_THAT(status.message(), HasSubstr(program + " changed"));
  }
}

TEST_F(RestoreTest, LocksAreHeldAgain) {
  TestJob job("locks");
  DumpFiles(&job, true);
  TestJob again("again");
  again.Restore(images_.Path("1"));
  again.Start();
  ASSERT_TRUE(again.WaitLog("files "));
  const Result<UniqueFd> lock = OpenFile(files_.Path("lock"), O_RDWR);
  EXPECT_NE(::flock(lock->get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_TRUE(again.SendSignal(SIGKILL).ok());
  again.WaitEnd();
  EXPECT_EQ(::flock(lock->get(), LOCK_EX | LOCK_NB), 0);
}

TEST_F(RestoreTest, TheLogIsCutBackToTheImagesLength) {
  TestJob job("log");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(job.WaitLog("count 5 "));
  ASSERT_EQ(job.DumpTo(images_.Path("1"), Verdict::RESUME).status().ToString(),
            "OK");
  ASSERT_TRUE(job.WaitLog("count 40 "));
  EXPECT_TRUE(job.SendSignal(SIGKILL).ok());
  job.WaitEnd();
  EXPECT_TRUE(Eventually([&job] { return job.Gone(); }));
  // The same name: the same directory.
  TestJob again("again");
  ASSERT_TRUE(ReplaceFile(again.directory() + "/output.log", job.Log()).ok());
  again.Restore(images_.Path("1"))->set_cut_log(true);
  again.Start();
  ASSERT_TRUE(again.WaitLog("count 60 "));
  EXPECT_TRUE(again.SendSignal(SIGKILL).ok());
  again.WaitEnd();
  const std::string log = again.Log();
  for (int i = 0; i <= 60; ++i) {  // every number exactly once
    const std::string line = "count " + std::to_string(i) + " pid";
    const std::size_t at = log.find(line);
    ASSERT_NE(at, std::string::npos) << line;
    EXPECT_EQ(log.find(line, at + 1), std::string::npos) << line;
  }
  TestJob shorter("shorter");
  ASSERT_TRUE(ReplaceFile(shorter.directory() + "/output.log", "short").ok());
  shorter.Restore(images_.Path("1"))->set_cut_log(true);
  EXPECT_EQ(shorter.TryStart().code(), Code::kCorrupt);
}

TEST_F(RestoreTest, UnreadInputIsInTheImage) {
  TestJob job("input");
  Pipe in;
  // A program that does not read yet.
  StartProgram* program = job.Program({});
  program->set_argv(0, "/bin/sh");
  program->add_argv("-c");
  program->add_argv("while [ ! -e " + files_.Path("go") +
                    " ]; do sleep 0.02; done; exec cat");
  job.SetStdin(in.read_end.get());
  job.Start();
  ASSERT_EQ(::write(in.write_end.get(), "not read yet\n", 13), 13);
  in.write_end.Reset();
  in.read_end.Reset();
  // pos-job has carried it into the job's pipe, and closed that.
  JobImage image;
  for (int i = 0; image.stdin_pending().empty() && i < 20; ++i) {
    const std::string directory = images_.Path(std::to_string(i));
    ASSERT_EQ(job.DumpTo(directory, Verdict::RESUME).status().ToString(), "OK");
    image = *ReadJobImage(directory);
    ASSERT_TRUE(image.stdin_pending().empty() ||
                ::rename(directory.c_str(), images_.Path("it").c_str()) == 0);
  }
  EXPECT_EQ(image.stdin_pending(), "not read yet\n");
  EXPECT_TRUE(job.SendSignal(SIGKILL, true).ok());
  job.WaitEnd();
  TestJob again("again");
  again.Restore(images_.Path("it"));
  again.Start();
  ASSERT_TRUE(ReplaceFile(files_.Path("go"), "").ok());
  EXPECT_EQ(again.WaitEnd().exit_code(), 0);  // and its input ends
  EXPECT_EQ(again.Log(), "not read yet\n");
}

TEST_F(RestoreTest, ARestoredJobTakesACallersPipes) {
  TestJob job("pipes");
  job.Program({"cat"});
  Pipe in;
  job.SetStdin(in.read_end.get());
  job.Start();
  ASSERT_EQ(::write(in.write_end.get(), "one\n", 4), 4);
  ASSERT_TRUE(job.WaitLog("one\n"));
  ASSERT_EQ(job.DumpTo(images_.Path("1"), Verdict::KILL).status().ToString(),
            "OK");
  job.WaitEnd();
  TestJob again("again");
  Pipe second;
  Pipe out;
  again.Restore(images_.Path("1"));
  again.SetStdin(second.read_end.get());
  again.SetStdout(out.write_end.get());
  again.Start();
  out.write_end.Reset();
  second.read_end.Reset();
  ASSERT_EQ(::write(second.write_end.get(), "two\n", 4), 4);
  EXPECT_EQ(out.ReadUntil("two\n"), "two\n");
  second.write_end.Reset();
  EXPECT_EQ(again.WaitEnd().exit_code(), 0);
  EXPECT_EQ(out.ReadToEnd(), "end of input\n");
}

TEST_F(RestoreTest, AJobOnATerminalHasOneAfterwards) {
  UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  ::unlockpt(master.get());
  UniqueFd slave(
      ::open(::ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
  TestJob job("terminal");
  job.Program({"count", "5"});
  job.SetStdin(slave.get());
  job.SetStdout(slave.get());
  job.SetStderr(slave.get());
  WindowSize* window = job.config()->mutable_stdio()->mutable_window();
  window->set_rows(33);
  window->set_columns(99);
  job.Start();
  EXPECT_THAT(ReadFdUntil(master.get(), "count 3 "), HasSubstr("count 3 "));
  const Result<Dumped> dumped = job.DumpTo(images_.Path("1"), Verdict::KILL);
  ASSERT_TRUE(dumped.ok()) << dumped.status().ToString();
  job.WaitEnd();
  {  // detached: its terminal's output goes to the log
    TestJob again("again");
    again.Restore(images_.Path("1"));
    again.Start();
    EXPECT_TRUE(again.started().terminal());
    EXPECT_TRUE(again.WaitLog("count 200 "));
    EXPECT_THAT(again.Log(), HasSubstr("\r\n"));
    // And again.
    ASSERT_EQ(
        again.DumpTo(images_.Path("2"), Verdict::RESUME).status().ToString(),
        "OK");
    const JobImage image = *ReadJobImage(images_.Path("2"));
    ASSERT_EQ(image.endpoint_size(), 1);
    EXPECT_EQ(image.endpoint(0).window().rows(), 33u);
    EXPECT_EQ(image.endpoint(0).window().columns(), 99u);
    EXPECT_TRUE(again.SendSignal(SIGKILL).ok());
    again.WaitEnd();
  }
  TestJob attached("attached");
  attached.Restore(images_.Path("2"));
  attached.SetStdin(slave.get());
  attached.SetStdout(slave.get());
  attached.SetStderr(slave.get());
  attached.Start();
  EXPECT_THAT(ReadFdUntil(master.get(), "count "), HasSubstr("count "));
  termios settings{};
  ::tcgetattr(slave.get(), &settings);
  ::cfmakeraw(&settings);
  ::tcsetattr(slave.get(), TCSANOW, &settings);
  ASSERT_EQ(::write(master.get(), "\x03", 1), 1);  // controlling, too
  EXPECT_THAT(ReadFdUntil(master.get(), "signal 2\r"), HasSubstr("signal 2\r"));
}

TEST_F(RestoreTest, AFileTakesThePlaceOfARecordedOne) {
  ScratchDirectory memory("memory");
  const std::string page(4096, '\0');
  ASSERT_TRUE(ReplaceFile(memory.Path("a"), "first" + page).ok());
  TestJob job("replaced");
  job.Program({"mapped", memory.Path("a")});
  job.Start();
  ASSERT_TRUE(job.WaitLog(" first\n"));
  ToJob request;
  ASSERT_TRUE(MakeDirectories(images_.Path("1")).ok());
  const Result<UniqueFd> directory =
      OpenFile(images_.Path("1"), O_RDONLY | O_DIRECTORY);
  request.mutable_dump()->set_images_fd(1);
  request.mutable_dump()->add_exclude(memory.path());
  const std::array<int, 1> fds = {directory->get()};
  const std::uint64_t id = *job.client()->Post(request, fds);
  Frozen frozen;
  ASSERT_TRUE(job.WaitFrozen(&frozen));
  EXPECT_EQ(frozen.open_files(), 0u);  // POS's own
  ASSERT_TRUE(job.Decide(Verdict::KILL).ok());
  ASSERT_TRUE(job.WaitDumped(id).ok());
  job.WaitEnd();
  ASSERT_TRUE(RemoveFile(memory.Path("a")).ok());
  ASSERT_TRUE(ReplaceFile(memory.Path("b"), "second" + page).ok());
  TestJob again("again");
  StartRestore* restore = again.Restore(images_.Path("1"));
  ReplacedFile* file = restore->add_replace();
  file->set_path(memory.Path("a"));
  const Result<UniqueFd> fd = OpenFile(memory.Path("b"), O_RDWR);
  file->set_fd(again.AddFd(fd->get()));
  again.Start();
  ASSERT_TRUE(again.WaitLog(" second\n"));
  const Result<Dumped> dumped =
      again.DumpTo(images_.Path("2"), Verdict::RESUME);
  ASSERT_TRUE(dumped.ok()) << dumped.status().ToString();
  const JobImage image = *ReadJobImage(images_.Path("2"));
  ASSERT_EQ(image.open_file_size(), 1);
  EXPECT_EQ(image.open_file(0).path(), memory.Path("b"));
}

TEST_F(RestoreTest, ARestoredTreeCanBeHeld) {
  TestJob job("held");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(job.WaitLog("count 5 "));
  ASSERT_EQ(job.DumpTo(images_.Path("1"), Verdict::KILL).status().ToString(),
            "OK");
  job.WaitEnd();
  for (const auto verdict : {Verdict::RESUME, Verdict::ABORT}) {
    TestJob again("again");
    again.Restore(images_.Path("1"))->set_hold_ms(5000);
    Status outcome;
    std::thread start([&] { outcome = again.TryStart(); });
    Event event;
    ASSERT_TRUE(again.WaitEvent(
        [](const Event& e) { return e.has_restore_held(); }, &event));
    EXPECT_EQ(event.restore_held().ns_pid(), 1001);
    EXPECT_TRUE(
        PathExists("/proc/" + std::to_string(event.restore_held().pid())));
    EXPECT_EQ(again.Log(), "");
    EXPECT_TRUE(again.Decide(verdict).ok());
    start.join();
    if (verdict == Verdict::RESUME) {
      EXPECT_TRUE(outcome.ok()) << outcome.ToString();
      EXPECT_TRUE(again.WaitLog("count "));
    } else {
      EXPECT_EQ(outcome.code(), Code::kAborted);
      EXPECT_EQ(again.Log(), "");
      // It is killed by then; its entry goes when the kernel gets to it.
      const std::string entry =
          "/proc/" + std::to_string(event.restore_held().pid());
      EXPECT_TRUE(Eventually([&] { return !PathExists(entry); }));
    }
  }
}

TEST_F(RestoreTest, AHoldWithoutAVerdictEnds) {
  TestJob job("ends");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(job.WaitLog("count 5 "));
  ASSERT_EQ(job.DumpTo(images_.Path("1"), Verdict::KILL).status().ToString(),
            "OK");
  TestJob again("again");
  again.Restore(images_.Path("1"))->set_hold_ms(100);
  EXPECT_EQ(again.TryStart().code(), Code::kTimeout);
  EXPECT_EQ(again.Log(), "");
}

TEST_F(RestoreTest, DamagedImagesAreRefused) {
  TestJob job("damaged");
  job.Program({"count", "5"});
  job.Start();
  ASSERT_TRUE(job.WaitLog("count 5 "));
  ASSERT_EQ(job.DumpTo(images_.Path("1"), Verdict::RESUME).status().ToString(),
            "OK");
  const std::string good = ReadAll(images_.Path("1/job.img"));
  std::string bad = good;
  bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
  ASSERT_TRUE(ReplaceFile(images_.Path("1/job.img"), bad).ok());
  {
    TestJob again("again");
    again.Restore(images_.Path("1"));
    EXPECT_EQ(again.TryStart().code(), Code::kCorrupt);
  }
  ASSERT_TRUE(ReplaceFile(images_.Path("1/job.img"), good).ok());
  ASSERT_TRUE(RemoveFile(images_.Path("1/core-1001.img")).ok());
  TestJob again("again");
  again.Restore(images_.Path("1"));
  const Status status = again.TryStart();
  EXPECT_EQ(status.code(), Code::kCriu);
  EXPECT_THAT(status.message(), HasSubstr("Restoring FAILED"));
  EXPECT_THAT(status.hint(), HasSubstr("restore.log"));
}

TEST_F(RestoreTest, AJobOfAnotherUserIsThatUsersAfterwards) {
  ASSERT_EQ(::chmod(files_.path().c_str(), 0777), 0);
  TestJob job("user");
  StartProgram* program = job.Program({"files", files_.path()});
  program->set_uid(12345);
  program->set_gid(23456);
  program->add_groups(34567);
  job.Start();
  ASSERT_TRUE(job.WaitLog("files 5 "));
  ASSERT_EQ(job.DumpTo(images_.Path("1"), Verdict::KILL).status().ToString(),
            "OK");
  job.WaitEnd();
  Append("out", "grown");
  TestJob again("again");
  again.Restore(images_.Path("1"));
  again.Start();
  ASSERT_TRUE(again.WaitLog("files 20 "));
  const std::string status =
      ReadAll("/proc/" + std::to_string(again.started().pid()) + "/status");
  EXPECT_THAT(status, HasSubstr("Uid:\t12345\t12345\t12345\t12345"));
  EXPECT_THAT(status, HasSubstr("Gid:\t23456\t23456\t23456\t23456"));
  EXPECT_THAT(status, HasSubstr("Groups:\t34567"));
  ASSERT_EQ(
      again.DumpTo(images_.Path("2"), Verdict::RESUME).status().ToString(),
      "OK");
  EXPECT_EQ(ReadJobImage(images_.Path("2"))->uid(), 12345u);
  EXPECT_TRUE(RemoveLeftovers(*ReadJobImage(images_.Path("2"))).ok());
}

// A path of a user's image must not lead root to another's file.
TEST_F(RestoreTest, FilesAreCutWithTheUsersRightsOnly) {
  ASSERT_EQ(::chmod(files_.path().c_str(), 0777), 0);
  TestJob job("rights");
  StartProgram* program = job.Program({"files", files_.path()});
  program->set_uid(12345);
  program->set_gid(23456);
  job.Start();
  ASSERT_TRUE(job.WaitLog("files 5 "));
  ASSERT_EQ(job.DumpTo(images_.Path("1"), Verdict::KILL).status().ToString(),
            "OK");
  job.WaitEnd();
  const std::string secret = std::string(100000, 's');
  ASSERT_TRUE(ReplaceFile(images_.Path("secret"), secret, 0600).ok());
  ASSERT_TRUE(RemoveFile(files_.Path("out")).ok());
  ASSERT_EQ(
      ::symlink(images_.Path("secret").c_str(), files_.Path("out").c_str()), 0);
  TestJob again("again");
  again.Restore(images_.Path("1"));
  EXPECT_EQ(again.TryStart().code(), Code::kDenied);
  EXPECT_EQ(ReadAll(images_.Path("secret")), secret);
}

}  // namespace
}  // namespace pos::job
