// pos/base: statuses, byte encoding, files, processes; remoting/control.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "pos/base/bytes.h"
#include "pos/base/files.h"
#include "pos/base/process.h"
#include "pos/base/status.h"
#include "remoting/control/channel.h"

namespace pos {
namespace {

using ::testing::HasSubstr;

std::string TestDirectory(const std::string& name) {
  const std::string path =
      ::testing::TempDir() + name + std::to_string(::getpid());
  EXPECT_TRUE(RemoveTree(path).ok());
  EXPECT_TRUE(MakeDirectories(path).ok());
  return path;
}

TEST(Status, KeepsCodeMessageAndHintThroughCopiesAndContext) {
  const Status original = Busy("job a", "wait");
  Status copy = original;
  EXPECT_EQ(copy.code(), Code::kBusy);
  copy = copy.WithContext("checkpoint");
  EXPECT_EQ(copy.ToString(), "BUSY: checkpoint: job a");
  EXPECT_EQ(copy.hint(), "wait");
  EXPECT_EQ(original.message(), "job a");
}

TEST(Status, EveryCodeNameMapsBack) {
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) {
    const Code code = static_cast<Code>(i);
    EXPECT_EQ(CodeFromName(CodeName(code)), code) << i;
  }
  EXPECT_EQ(CodeFromName("nonsense"), Code::kInternal);
}

TEST(Status, FullDiskIsItsOwnCode) {
  EXPECT_EQ(ErrnoStatus(ENOSPC, "write").code(), Code::kDiskFull);
}

TEST(Result, MadeFromOkStatusIsAnError) {
  const Result<int> r = Status();
  EXPECT_FALSE(r.ok());
  EXPECT_EQ(r.status().code(), Code::kInternal);
}

TEST(ByteReader, StopsAtEveryShortLength) {
  ByteWriter w;
  w.Put<std::uint32_t>(7);
  w.PutString("hello");
  for (std::size_t keep = 0; keep < w.bytes().size(); ++keep) {
    SCOPED_TRACE(keep);
    ByteReader r(w.bytes().first(keep));
    r.Get<std::uint32_t>();
    r.GetString();
    EXPECT_FALSE(r.ok());
  }
  ByteReader r(w.bytes());
  EXPECT_EQ(r.Get<std::uint32_t>(), 7u);
  EXPECT_EQ(r.GetString(), "hello");
  EXPECT_TRUE(r.ok());
  EXPECT_EQ(r.left(), 0u);
}

TEST(ByteReader, HugeLengthDoesNotOverflow) {
  ByteWriter w;
  w.Put<std::uint64_t>(~0ull);
  ByteReader r(w.bytes());
  EXPECT_TRUE(r.GetBytes().empty());
  EXPECT_FALSE(r.ok());
}

// In a container each posd may have the same pid.
TEST(ReplaceFile, ItsDeadPredecessorsFilesAreNoObstacle) {
  std::string dir = "/tmp/pos-replace-XXXXXX";
  ASSERT_NE(::mkdtemp(dir.data()), nullptr);
  const std::string file = JoinPath(dir, "f");
  for (int i = 0; i < 1000; ++i) {
    const std::string left =
        file + ".tmp." + std::to_string(::getpid()) + "." + std::to_string(i);
    UniqueFd fd(::open(left.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(fd.valid());
  }
  const Status status = ReplaceFile(file, "new");
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(*ReadWholeFile(file), "new");
  EXPECT_TRUE(RemoveTree(dir).ok());
}

TEST(ReplaceFile, KeepsTheOldContentWhenItCannotWrite) {
  const std::string dir = TestDirectory("replace");
  const std::string file = JoinPath(dir, "f");
  ASSERT_TRUE(ReplaceFile(file, "one").ok());
  ASSERT_TRUE(ReplaceFile(file, "two").ok());
  EXPECT_EQ(*ReadWholeFile(file), "two");
  EXPECT_EQ(ListDirectory(dir)->size(), 1u);  // no temporary left
  EXPECT_FALSE(ReplaceFile(JoinPath(dir, "absent/f"), "x").ok());
  EXPECT_TRUE(RemoveTree(dir).ok());
}

TEST(ReadWholeFile, RefusesMoreThanItsLimit) {
  const std::string dir = TestDirectory("limit");
  const std::string file = JoinPath(dir, "f");
  ASSERT_TRUE(ReplaceFile(file, std::string(100, 'x')).ok());
  EXPECT_EQ(ReadWholeFile(file, 100)->size(), 100u);
  EXPECT_EQ(ReadWholeFile(file, 99).status().code(), Code::kInvalid);
  EXPECT_TRUE(RemoveTree(dir).ok());
}

TEST(Process, KnowsItself) {
  const Result<UniqueFd> self = OpenPidFd(::getpid());
  ASSERT_TRUE(self.ok());
  EXPECT_FALSE(PidFdEnded(self->get()));
  EXPECT_EQ(*ProcessState(::getpid()), 'R');
  EXPECT_FALSE(ProcessState(-1).ok());
  EXPECT_GT(*ProcessStartTicks(::getpid()), 0u);
  EXPECT_GT(*InnermostPid(::getpid()), 0);
}

TEST(FindProcess, FindsWhoHasANumberInAPidNamespace) {
  const Result<std::uint64_t> here = NamespaceInode(::getpid(), "pid");
  const Result<pid_t> inner = InnermostPid(::getpid());
  ASSERT_TRUE(here.ok() && inner.ok());
  EXPECT_EQ(*FindProcess(*here, *inner), ::getpid());
  EXPECT_EQ(FindProcess(*here + 1, *inner).status().code(), Code::kNoSuch);
  constexpr pid_t kBeyondAll = 1 << 22;  // PID_MAX_LIMIT
  EXPECT_EQ(FindProcess(*here, kBeyondAll).status().code(), Code::kNoSuch);
}

TEST(Process, NamesFitForDirectories) {
  EXPECT_TRUE(IsSafeName("train-7b.v2_x"));
  EXPECT_FALSE(IsSafeName(""));
  EXPECT_FALSE(IsSafeName("../up"));
  EXPECT_FALSE(IsSafeName(".hidden"));
  EXPECT_FALSE(IsSafeName("a/b"));
  EXPECT_FALSE(IsSafeName(std::string(65, 'a')));
}

TEST(ControlChannel, CarriesBytesAndDescriptors) {
  UniqueFd a;
  UniqueFd b;
  ASSERT_TRUE(ControlChannel::MakePair(&a, &b).ok());
  ControlChannel left(std::move(a));
  ControlChannel right(std::move(b));
  UniqueFd pipe_read;
  UniqueFd pipe_write;
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  pipe_read.Reset(fds[0]);
  pipe_write.Reset(fds[1]);
  const int sent[1] = {pipe_write.get()};
  ASSERT_TRUE(left.Send("hello", sent).ok());
  Result<ControlChannel::Message> got = right.Receive(1000);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->bytes, "hello");
  ASSERT_EQ(got->fds.size(), 1u);
  ASSERT_EQ(::write(got->fds[0].get(), "x", 1), 1);
  char c = 0;
  EXPECT_EQ(::read(pipe_read.get(), &c, 1), 1);
  EXPECT_EQ(c, 'x');
}

TEST(ControlChannel, BoundsItsWaitsAndItsMessages) {
  UniqueFd a;
  UniqueFd b;
  ASSERT_TRUE(ControlChannel::MakePair(&a, &b).ok());
  ControlChannel left(std::move(a));
  EXPECT_EQ(left.Receive(10).status().code(), Code::kTimeout);
  const std::string big(ControlChannel::kMaxMessageBytes + 1, 'x');
  EXPECT_EQ(left.Send(big).code(), Code::kProto);
  b.Reset();
  EXPECT_EQ(left.Receive(1000).status().code(), Code::kClosed);
  EXPECT_FALSE(left.Send("x").ok());
}

TEST(ControlChannel, AnEndThatLeftSomethingUnreadIsGone) {
  UniqueFd a;
  UniqueFd b;
  ASSERT_TRUE(ControlChannel::MakePair(&a, &b).ok());
  ControlChannel here(std::move(a));
  ASSERT_TRUE(here.Send("unread").ok());
  b.Reset();
  const auto received = here.Receive(1000);
  EXPECT_EQ(received.status().code(), Code::kClosed);
  EXPECT_THAT(received.status().ToString(), HasSubstr("is gone"));
}

TEST(ControlChannel, RefusesAPathThatDoesNotFit) {
  const Result<UniqueFd> r =
      ControlChannel::Connect("/" + std::string(200, 'x'));
  EXPECT_EQ(r.status().code(), Code::kInvalid);
  EXPECT_THAT(r.status().hint(), HasSubstr("shorter"));
}

}  // namespace
}  // namespace pos
