// What the preflight of a dump names, and what it does not.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "pos/base/files.h"
#include "remoting/control/channel.h"
#include "tests/pos/job/harness.h"

namespace pos::job {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PreflightTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!IsRoot()) GTEST_SKIP() << "needs root for namespaces";
  }

  // The findings about `victim ARGS`, once it counts. Skips when the program
  // says (77) that it cannot have the thing here.
  static std::vector<std::string> Findings(
      const std::vector<std::string>& args) {
    TestJob job("preflight");
    job.Program(args);
    job.Start();
    Event event;
    const bool ready = Eventually([&] {
      return job.LogHas("count 1 ") ||
             job.WaitEvent([](const Event& e) { return e.has_ended(); }, &event,
                           0);
    });
    EXPECT_TRUE(ready);
    if (event.ended().exit_code() == 77) return {"not here"};
    ToJob request;
    request.mutable_preflight();
    const Result<Reply> reply = job.Call(request);
    EXPECT_TRUE(reply.ok()) << reply.status().ToString();
    if (!reply.ok()) return {};
    const Blockers& blockers = reply->blockers();
    return {blockers.blocker().begin(), blockers.blocker().end()};
  }
};

#define EXPECT_FINDING(args, text)                            \
  do {                                                        \
    const std::vector<std::string> found = Findings args;     \
    if (found == std::vector<std::string>{"not here"}) {      \
      GTEST_SKIP() << "the kernel does not let us have it";   \
    }                                                         \
    EXPECT_THAT(found, ::testing::Contains(HasSubstr(text))); \
  } while (false)

TEST_F(PreflightTest, WhatCriuCarriesIsNotNamed) {
  ScratchDirectory directory("harmless");
  EXPECT_THAT(Findings({"harmless", directory.path()}), IsEmpty());
}

TEST_F(PreflightTest, WhatIsNotNamedCanBeCarried) {
  std::string why;
  if (UsableCriu(&why).empty()) GTEST_SKIP() << why;
  ScratchDirectory directory("harmless");
  ScratchDirectory images("images");
  TestJob job("harmless");
  job.Program({"harmless", directory.path()});
  job.Start();
  ASSERT_TRUE(job.WaitLog("count 1 "));
  ASSERT_EQ(job.DumpTo(images.Path("1"), Verdict::KILL).status().ToString(),
            "OK");
  job.WaitEnd();
  TestJob again("again");
  again.Restore(images.Path("1"));
  again.Start();
  EXPECT_TRUE(again.WaitLog("count "));
}

TEST_F(PreflightTest, IoUring) {
  EXPECT_FINDING(({"io_uring"}), "is [io_uring]");
}

TEST_F(PreflightTest, UserFault) {
  EXPECT_FINDING(({"userfault"}), "is [userfaultfd]");
}

TEST_F(PreflightTest, TcpConnectionsWithBothAddresses) {
  EXPECT_FINDING(({"connected"}), "is a TCP connection, 127.0.0.1:");
}

TEST_F(PreflightTest, UnixConnectionsToTheOutside) {
  ScratchDirectory directory("unix");
  const Result<UniqueFd> listener =
      ControlChannel::Listen(directory.Path("packet"), 0600);
  ASSERT_TRUE(listener.ok());
  const UniqueFd stream(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  directory.Path("stream").copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(stream.get(), reinterpret_cast<sockaddr*>(&address),
                   sizeof(address)),
            0);
  ASSERT_EQ(::listen(stream.get(), 4), 0);
  std::thread server([&stream] {
    const UniqueFd accepted(::accept(stream.get(), nullptr, nullptr));
    char byte = 0;  // until the job ends
    EXPECT_LE(::read(accepted.get(), &byte, 1), 0);
  });
  EXPECT_FINDING(({"unix", directory.Path("stream")}),
                 "connected to a process outside the job (" +
                     directory.Path("stream") + ")");
  server.join();
}

TEST_F(PreflightTest, Devices) {
  EXPECT_FINDING(({"device", "/dev/fuse"}), "is the device /dev/fuse");
}

TEST_F(PreflightTest, SystemVMemory) {
  EXPECT_FINDING(({"shm"}), "System V shared memory");
}

TEST_F(PreflightTest, NamespacesOfItsOwn) {
  EXPECT_FINDING(({"namespace"}), "in a namespace (uts)");
}

TEST_F(PreflightTest, TracedProcesses) {
  EXPECT_FINDING(({"traced"}), "is being traced by process");
}

TEST_F(PreflightTest, Daemons) {
  TestJob job("daemon");
  job.Program({"orphan"});
  job.Start();
  ASSERT_TRUE(job.WaitLog(" of 1\n"));
  ToJob request;
  request.mutable_preflight();
  const Result<Reply> reply = job.Call(request);
  ASSERT_TRUE(reply.ok());
  EXPECT_THAT(reply->blockers().blocker(),
              ElementsAre(HasSubstr("is a daemon")));
}

// With adopt_orphans the same tree can be dumped, and restored.
TEST_F(PreflightTest, ADaemonThatTheProgramAdoptedIsPartOfTheTree) {
  std::string why;
  if (UsableCriu(&why).empty()) GTEST_SKIP() << why;
  ScratchDirectory images("images");
  TestJob job("adopted");
  job.Program({"orphan"})->set_adopt_orphans(true);
  job.Start();
  ASSERT_TRUE(job.WaitLog(" of 1001\n"));
  ASSERT_EQ(job.DumpTo(images.Path("1"), Verdict::KILL).status().ToString(),
            "OK");
  TestJob again("again");
  again.Restore(images.Path("1"));
  again.Start();
  ToJob request;
  request.mutable_list_processes();
  const Result<Reply> reply = again.Call(request);
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->processes().process_size(), 2);
}

TEST_F(PreflightTest, FilesHandedInFromOutside) {
  ScratchDirectory directory("outside");
  TestJob job("outside");
  // A regular file that was opened here reaches the program only by force: as
  // /proc/PID/fd of a process that holds it open.
  ASSERT_TRUE(ReplaceFile(directory.Path("f"), "x").ok());
  job.Program({"receive", directory.Path("socket")});
  job.Start();
  ASSERT_TRUE(job.WaitLog("listening\n"));
  Result<UniqueFd> socket = ControlChannel::Connect(directory.Path("socket"));
  ASSERT_TRUE(socket.ok()) << socket.status().ToString();
  const Result<UniqueFd> file = OpenFile(directory.Path("f"), O_RDWR);
  {
    ControlChannel channel(std::move(*socket));
    const std::array<int, 1> fds = {file->get()};
    ASSERT_TRUE(channel.Send("x", fds).ok());
    ASSERT_TRUE(job.WaitLog("received\n"));
  }
  ToJob request;
  request.mutable_preflight();
  const Result<Reply> reply = job.Call(request);
  ASSERT_TRUE(reply.ok());
  EXPECT_THAT(reply->blockers().blocker(),
              ElementsAre(HasSubstr("was opened outside the job")));
}

// And one that was opened inside, by OpenInside, is as good as its own.
TEST_F(PreflightTest, FilesOpenedInsideCanBeHandedIn) {
  std::string why;
  if (UsableCriu(&why).empty()) GTEST_SKIP() << why;
  ScratchDirectory directory("inside");
  ScratchDirectory images("images");
  ASSERT_TRUE(ReplaceFile(directory.Path("f"), "x").ok());
  TestJob job("inside");
  job.Program({"receive", directory.Path("socket")});
  job.Start();
  ASSERT_TRUE(job.WaitLog("listening\n"));
  ToJob request;
  request.mutable_open_inside()->set_path(directory.Path("f"));
  request.mutable_open_inside()->set_flags(O_RDWR);
  UniqueFd fd;
  ASSERT_TRUE(job.Call(request, {}, kWaitMs, &fd).ok());
  {
    Result<UniqueFd> socket = ControlChannel::Connect(directory.Path("socket"));
    ASSERT_TRUE(socket.ok());
    ControlChannel channel(std::move(*socket));
    const std::array<int, 1> fds = {fd.get()};
    ASSERT_TRUE(channel.Send("x", fds).ok());
    ASSERT_TRUE(job.WaitLog("received\n"));
  }
  EXPECT_EQ(job.DumpTo(images.Path("1"), Verdict::RESUME).status().ToString(),
            "OK");
}

}  // namespace
}  // namespace pos::job
