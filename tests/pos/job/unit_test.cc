// pos/job without processes: event loop, log, streams, images, files.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <thread>

#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/job/act_as.h"
#include "pos/job/caller_fd.h"
#include "pos/job/event_loop.h"
#include "pos/job/exit_file.h"
#include "pos/job/file_copy.h"
#include "pos/job/hold_timer.h"
#include "pos/job/input_pump.h"
#include "pos/job/job_image.h"
#include "pos/job/log_file.h"
#include "pos/job/messages.h"
#include "pos/job/namespaces.h"
#include "pos/job/output_pump.h"
#include "tests/pos/job/harness.h"

namespace pos::job {
namespace {

using ::testing::HasSubstr;

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST(EventLoop, FiresTimersInOrderAndStops) {
  EventLoop loop;
  std::string order;
  loop.After(3000000, [&] { order += "3"; });
  loop.After(1000000, [&] { order += "1"; });
  EventLoop::TimerId cancelled = loop.After(2000000, [&] { order += "x"; });
  loop.After(0, [&] { order += "0"; });
  loop.Cancel(&cancelled);
  EXPECT_EQ(cancelled, 0u);
  loop.After(5000000, [&] { loop.Stop(); });
  EXPECT_TRUE(loop.Run().ok());
  EXPECT_EQ(order, "013");
}

TEST(HoldTimer, EndsByItselfOnce) {
  EventLoop loop;
  std::vector<std::uint64_t> expired;
  HoldTimer timer(&loop, [&](std::uint64_t ms) { expired.push_back(ms); });
  EXPECT_EQ(timer.left_ms(), 0u);
  timer.Start(1);
  loop.After(20000000, [&] { loop.Stop(); });
  ASSERT_TRUE(loop.Run().ok());
  EXPECT_THAT(expired, ::testing::ElementsAre(1u));
  EXPECT_EQ(timer.left_ms(), 0u);
}

TEST(HoldTimer, IsChangedAndEnded) {
  EventLoop loop;
  bool expired = false;
  HoldTimer timer(&loop, [&](std::uint64_t) { expired = true; });
  timer.Start(60000);
  EXPECT_GT(timer.left_ms(), 50000u);
  EXPECT_LE(timer.left_ms(), 60000u);
  Hold hold;
  hold.set_until_told(true);
  timer.Change(hold);
  EXPECT_TRUE(timer.until_told());
  EXPECT_EQ(timer.left_ms(), 0u);
  hold.set_until_told(false);
  hold.set_hold_ms(~std::uint64_t{0});  // does not wrap into the past
  timer.Change(hold);
  EXPECT_FALSE(timer.until_told());
  EXPECT_GT(timer.left_ms(), 1000000u);
  hold.set_hold_ms(1);
  timer.Change(hold);
  timer.End();
  EXPECT_EQ(timer.left_ms(), 0u);
  loop.After(20000000, [&] { loop.Stop(); });
  ASSERT_TRUE(loop.Run().ok());
  EXPECT_FALSE(expired);
}

TEST(HoldTimer, MayBeDestroyedByWhatItCalls) {
  EventLoop loop;
  std::unique_ptr<HoldTimer> timer;
  timer = std::make_unique<HoldTimer>(&loop, [&](std::uint64_t) {
    timer.reset();
    loop.Stop();
  });
  timer->Start(0);
  ASSERT_TRUE(loop.Run().ok());
  EXPECT_EQ(timer, nullptr);
}

TEST(EventLoop, AHandlerMayUnwatchItselfAndOthers) {
  EventLoop loop;
  Pipe a;
  Pipe b;
  ASSERT_EQ(::write(a.write_end.get(), "x", 1), 1);
  ASSERT_EQ(::write(b.write_end.get(), "x", 1), 1);
  int calls = 0;
  const auto both = [&](short) {
    ++calls;
    loop.Unwatch(a.read_end.get());
    loop.Unwatch(b.read_end.get());
  };
  loop.Watch(a.read_end.get(), POLLIN, both);
  loop.Watch(b.read_end.get(), POLLIN, both);
  loop.After(5000000, [&] { loop.Stop(); });
  EXPECT_TRUE(loop.Run().ok());
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, APausedDescriptorIsSilentEvenWhenItHangsUp) {
  EventLoop loop;
  Pipe a;
  a.write_end.Reset();
  int calls = 0;
  loop.Watch(a.read_end.get(), 0, [&](short) { ++calls; });
  loop.After(3000000, [&] { loop.Stop(); });
  EXPECT_TRUE(loop.Run().ok());
  EXPECT_EQ(calls, 0);
}

TEST(ChooseLastPid, IsAboveAllIdsOrInAGap) {
  EXPECT_EQ(*ChooseLastPid({}, 32768), kFirstLastPid);
  EXPECT_EQ(*ChooseLastPid({1001, 1007}, 32768), 1007);
  EXPECT_EQ(*ChooseLastPid({5}, 32768), kFirstLastPid);
  // No room above: the first gap of kReservedPids.
  EXPECT_EQ(*ChooseLastPid({1001, 32700}, 32768), 1001);
  EXPECT_EQ(*ChooseLastPid({32700}, 32768), kFirstLastPid);
  std::vector<pid_t> all;
  for (pid_t id = 1001; id < 32768; id += 100) all.push_back(id);
  EXPECT_EQ(ChooseLastPid(all, 32768).status().code(), Code::kIncompatible);
  // Every result leaves its promise.
  for (pid_t last = 1001; last < 32768; last += 37) {
    const pid_t start = *ChooseLastPid({1001, last}, 32768);
    for (const pid_t id : {1001, last}) {
      EXPECT_FALSE(id > start && id <= start + kReservedPids - 1)
          << last << " " << start;
    }
    EXPECT_LT(start + kReservedPids, 32768);
  }
}

TEST(LogFile, AppendsAndCutsBack) {
  ScratchDirectory directory("log");
  const std::string path = directory.Path("output.log");
  {
    Result<LogFile> log = LogFile::Open(path, std::nullopt);
    ASSERT_TRUE(log.ok());
    log->Append(Bytes("hello world"));
    EXPECT_EQ(log->length_bytes(), 11u);
  }
  EXPECT_EQ(LogFile::Open(path, 12).status().code(), Code::kCorrupt);
  EXPECT_EQ(ReadAll(path), "hello world");
  Result<LogFile> log = LogFile::Open(path, 5);
  ASSERT_TRUE(log.ok());
  log->Append(Bytes("!"));
  EXPECT_EQ(ReadAll(path), "hello!");
  EXPECT_EQ(log->length_bytes(), 6u);
  struct stat st {};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
}

TEST(LogFile, AFullDiskLosesOutputVisibly) {
  if (!IsRoot()) GTEST_SKIP() << "needs root to mount a small file system";
  ScratchDirectory directory("full");
  ASSERT_EQ(::mount("none", directory.path().c_str(), "tmpfs", 0, "size=64k"),
            0);
  {
    Result<LogFile> log =
        LogFile::Open(directory.Path("output.log"), std::nullopt);
    ASSERT_TRUE(log.ok());
    log->Append(Bytes(std::string(60000, 'a')));
    EXPECT_EQ(log->lost_bytes(), 0u);
    log->Append(Bytes(std::string(60000, 'b')));
    log->Append(Bytes("not even tried"));
    const std::uint64_t lost = log->lost_bytes();
    EXPECT_GT(lost, 50000u);
    EXPECT_EQ(log->length_bytes() + lost, 120000u + 14);
    ASSERT_EQ(::mount("none", directory.path().c_str(), "tmpfs", MS_REMOUNT,
                      "size=1m"),
              0);
    SleepNs(1050000000);  // at most one attempt per second
    log->Append(Bytes("after"));
    EXPECT_EQ(log->lost_bytes(), lost);
    const std::string text = ReadAll(directory.Path("output.log"));
    EXPECT_THAT(text, HasSubstr("[pos-job: " + std::to_string(lost) +
                                " bytes of output could not be written "
                                "here]\nafter"));
  }
  EXPECT_EQ(::umount(directory.path().c_str()), 0);
}

TEST(CallerFd, LeavesTheCallersDescriptionAsItIs) {
  Pipe pipe;
  Result<UniqueFd> copy = DuplicateFd(pipe.write_end.get());
  CallerFd caller =
      CallerFd::Open(std::move(*copy), CallerFd::Direction::kWrite);
  EXPECT_EQ(::fcntl(pipe.write_end.get(), F_GETFL) & O_NONBLOCK, 0);
  const std::string block(65536, 'x');
  std::size_t moved = 0;
  EXPECT_EQ(caller.Write(Bytes(block), &moved), CallerFd::Outcome::kDone);
  EXPECT_EQ(moved, block.size());
  EXPECT_EQ(caller.Write(Bytes(block), &moved), CallerFd::Outcome::kWait);
  pipe.read_end.Reset();
  EXPECT_EQ(caller.Write(Bytes(block), &moved), CallerFd::Outcome::kBroken);
}

TEST(CallerFd, APipeWithoutReadersIsBrokenFromTheStart) {
  Pipe pipe;
  pipe.read_end.Reset();
  CallerFd caller =
      CallerFd::Open(std::move(pipe.write_end), CallerFd::Direction::kWrite);
  std::size_t moved = 0;
  EXPECT_EQ(caller.Write(Bytes("x"), &moved), CallerFd::Outcome::kBroken);
}

TEST(CallerFd, SocketsAndFilesDoNotBlock) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  UniqueFd peer(fds[1]);
  CallerFd reader =
      CallerFd::Open(UniqueFd(fds[0]), CallerFd::Direction::kRead);
  std::array<std::byte, 16> buffer;
  std::size_t moved = 0;
  EXPECT_EQ(reader.Read(buffer, &moved), CallerFd::Outcome::kWait);
  ASSERT_EQ(::write(peer.get(), "abc", 3), 3);
  EXPECT_EQ(reader.Read(buffer, &moved), CallerFd::Outcome::kDone);
  EXPECT_EQ(moved, 3u);
  peer.Reset();
  EXPECT_EQ(reader.Read(buffer, &moved), CallerFd::Outcome::kEnd);
  ScratchDirectory directory("file");
  ASSERT_TRUE(ReplaceFile(directory.Path("f"), "content").ok());
  Result<UniqueFd> file = OpenFile(directory.Path("f"), O_RDONLY);
  ASSERT_EQ(::lseek(file->get(), 3, SEEK_SET), 3);
  // The caller's offset counts: `pos-cli run < file` after a partial read.
  CallerFd input = CallerFd::Open(std::move(*file), CallerFd::Direction::kRead);
  EXPECT_EQ(input.Read(buffer, &moved), CallerFd::Outcome::kDone);
  EXPECT_EQ(moved, 4u);
}

TEST(InputPump, KnowsWhatTheJobHasNotRead) {
  EventLoop loop;
  Pipe caller;
  Pipe job;
  ASSERT_TRUE(SetNonBlocking(job.write_end.get(), true).ok());
  Result<UniqueFd> probe = DuplicateFd(job.read_end.get());
  InputPump pump(
      &loop, std::move(job.write_end), std::move(*probe), false,
      CallerFd::Open(std::move(caller.read_end), CallerFd::Direction::kRead),
      false, "first ");
  pump.Start();
  const std::string many(200000, 'm');
  std::thread writer([&] {
    EXPECT_TRUE(
        WriteFull(caller.write_end.get(), Bytes("second " + many), "x").ok());
    caller.write_end.Reset();
  });
  std::array<char, 13> head{};
  loop.After(20000000, [&] { loop.Stop(); });
  EXPECT_TRUE(loop.Run().ok());
  ASSERT_EQ(::read(job.read_end.get(), head.data(), head.size()), 13);
  EXPECT_EQ(std::string(head.data(), head.size()), "first second ");
  // Whatever was carried over and not read is pending, in order.
  const std::string pending = pump.Pending();
  EXPECT_GT(pending.size(), 60000u);
  EXPECT_EQ(pending, many.substr(0, pending.size()));
  EXPECT_FALSE(pump.ended());
  std::string rest;
  std::thread reader([&] {
    std::array<char, 4096> buffer;
    for (;;) {
      const ssize_t n =
          ::read(job.read_end.get(), buffer.data(), buffer.size());
      if (n <= 0) break;
      rest.append(buffer.data(), static_cast<std::size_t>(n));
    }
  });
  EventLoop::TimerId tick = 0;
  std::function<void()> check = [&] {
    if (pump.ended()) {
      loop.Stop();
    } else {
      tick = loop.After(1000000, check);
    }
  };
  check();
  EXPECT_TRUE(loop.Run().ok());
  writer.join();
  reader.join();
  EXPECT_EQ(rest, many);
  EXPECT_EQ(pump.Pending(), "");
}

TEST(JobImage, ReadsWhatItWroteAndRefusesEveryDamage) {
  ScratchDirectory directory("image");
  JobImage image;
  image.set_root_ns_pid(1001);
  image.set_name("job");
  image.add_open_file()->set_path(std::string("/odd\xff\0path", 10));
  ASSERT_TRUE(WriteJobImage(directory.path(), image).ok());
  const Result<JobImage> back = ReadJobImage(directory.path());
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->SerializeAsString(), image.SerializeAsString());
  const std::string path = directory.Path(kJobImageFile);
  const std::string good = ReadAll(path);
  for (std::size_t i = 0; i < good.size(); ++i) {
    SCOPED_TRACE(i);
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    ASSERT_TRUE(ReplaceFile(path, bad).ok());
    EXPECT_EQ(ReadJobImage(directory.path()).status().code(), Code::kCorrupt);
    ASSERT_TRUE(ReplaceFile(path, good.substr(0, i)).ok());
    EXPECT_EQ(ReadJobImage(directory.path()).status().code(), Code::kCorrupt);
  }
}

TEST(ExitFile, ReadsWhatItWrote) {
  ScratchDirectory directory("exit");
  EXPECT_EQ(ReadExitFile(directory.path()).status().code(), Code::kNoSuch);
  for (const int status : {0, 3 << 8, SIGKILL, SIGSEGV | 0x80}) {
    ProgramEnded ended = EndedFromWait(status);
    ended.set_message("odd \xff and \"quoted\"\n");
    ASSERT_TRUE(WriteExitFile(directory.path(), ended).ok());
    const Result<ProgramEnded> back = ReadExitFile(directory.path());
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->reason(), ended.reason());
    EXPECT_EQ(back->exit_code(), ended.exit_code());
    EXPECT_EQ(back->signal(), ended.signal());
    EXPECT_EQ(back->core_dumped(), ended.core_dumped());
    EXPECT_EQ(back->ended_at_ms(), ended.ended_at_ms());
  }
  for (const char* text : {"", "{", "[]", "{\"reason\": 3}", "nonsense"}) {
    ASSERT_TRUE(ReplaceFile(directory.Path("exit.json"), text).ok());
    EXPECT_EQ(ReadExitFile(directory.path()).status().code(), Code::kCorrupt)
        << text;
  }
}

TEST(FileCopy, CutsCopiesAndSeesWriters) {
  ScratchDirectory directory("copy");
  const std::string path = directory.Path("f");
  ASSERT_TRUE(ReplaceFile(path, "0123456789", 0640).ok());
  EXPECT_FALSE(IsWrittenByOthers(path));
  {
    const Result<UniqueFd> writer = OpenFile(path, O_WRONLY);
    // Our own descriptor counts as another's: leases know no processes.
    EXPECT_TRUE(IsWrittenByOthers(path));
  }
  EXPECT_TRUE(CopyFile(path, directory.Path("a/b/c"), 4).ok());
  EXPECT_EQ(ReadAll(directory.Path("a/b/c")), "0123");
  struct stat st {};
  ASSERT_EQ(::stat(directory.Path("a/b/c").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0640u);
  EXPECT_EQ(CopyFile(path, directory.Path("a/b/c"), 4).code(), Code::kExists);
  EXPECT_EQ(CopyFile(path, directory.Path("d"), 11).code(), Code::kCorrupt);
  EXPECT_FALSE(PathExists(directory.Path("d")));
  EXPECT_TRUE(CutFile(path, 7).ok());
  EXPECT_EQ(ReadAll(path), "0123456");
  EXPECT_EQ(CutFile(path, 8).code(), Code::kInvalid);
  ASSERT_EQ(::mkfifo(directory.Path("fifo").c_str(), 0600), 0);
  EXPECT_FALSE(CutFile(directory.Path("fifo"), 0).ok());  // and does not wait
}

TEST(ActAs, TakesTheUsersRightsAndGivesThemBack) {
  if (!IsRoot()) GTEST_SKIP() << "needs root";
  ScratchDirectory directory("act");
  ASSERT_TRUE(ReplaceFile(directory.Path("secret"), "x", 0600).ok());
  {
    const ActAs user(12345, 23456, {34567});
    ASSERT_TRUE(user.status().ok());
    EXPECT_EQ(OpenFile(directory.Path("secret"), O_RDONLY).status().code(),
              Code::kDenied);
    EXPECT_EQ(ReplaceFile(directory.Path("new"), "x").code(), Code::kDenied);
  }
  EXPECT_TRUE(OpenFile(directory.Path("secret"), O_RDONLY).ok());
}

TEST(Messages, StatusesSurviveTheWay) {
  const Status status = Busy("path \xff", "wait");
  EXPECT_EQ(FromMessage(ToMessage(status)).ToString(), status.ToString());
  EXPECT_EQ(FromMessage(ToMessage(status)).hint(), "wait");
  EXPECT_TRUE(FromMessage(StatusMessage()).ok());
  Reply reply;
  *reply.mutable_error() = ToMessage(status);
  EXPECT_TRUE(ParseMessage<Reply>(reply.SerializeAsString()).ok());
  EXPECT_EQ(ParseMessage<Reply>("\xff\xff").status().code(), Code::kProto);
}

// Writes to broken pipes are errors here, as in pos-job.
const bool kIgnored = std::signal(SIGPIPE, SIG_IGN) != SIG_ERR;

}  // namespace
}  // namespace pos::job
