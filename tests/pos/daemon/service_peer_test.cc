// Who is at the other end: identities, offers, strangers.
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "tests/pos/daemon/service_fixture.h"

namespace pos {
namespace {

using cli::PosClient;

constexpr uid_t kSomebody = 54321;

class ServicePeerTest : public ServiceFixture {
 protected:
  // Number and socket of every socket that this process has open.
  static std::map<int, std::string> Sockets() {
    std::map<int, std::string> sockets;
    const auto names = ListDirectory("/proc/self/fd");
    for (const std::string& name : names.value()) {
      std::array<char, 64> target{};
      const ssize_t n = ::readlink(("/proc/self/fd/" + name).c_str(),
                                   target.data(), target.size() - 1);
      if (n > 0 && std::string(target.data()).rfind("socket:", 0) == 0) {
        sockets[std::stoi(name)] = target.data();
      }
    }
    return sockets;
  }
};

// Many users, many short connections, descriptor numbers reused all the time,
// clients that vanish in the middle of a call: nobody is ever taken for
// somebody else.
TEST_F(ServicePeerTest, NobodyIsTakenForSomebodyElse) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to act as other users";
  std::atomic<int> right{0};
  std::atomic<int> wrong{0};
  const auto judge = [&](const Caller& caller, const std::string& claim) {
    const uid_t uid = static_cast<uid_t>(std::stoul(claim));
    std::vector<gid_t> groups = caller.groups;
    std::sort(groups.begin(), groups.end());
    const bool same = caller.uid == uid && caller.gid == uid &&
                      groups == std::vector<gid_t>{uid + 1, uid + 2};
    (same ? right : wrong).fetch_add(1);
  };
  api_.signal = [&](const Caller& caller, const v1::SignalRequest& request) {
    judge(caller, request.job());
    return Status();
  };
  api_.wait =
      [&](const Caller& caller, const v1::WaitRequest& request,
          const FakeApi::Cancelled& cancelled) -> Result<v1::WaitReply> {
    judge(caller, request.job());
    Eventually(cancelled);
    return Aborted("cancelled");
  };
  Start();
  constexpr int kUsers = 6;
  constexpr int kRounds = 120;
  std::vector<Child> children;
  for (int i = 0; i < kUsers; ++i) {
    children.push_back(StartClient(kSomebody + 10 * static_cast<uid_t>(i),
                                   "signal", std::to_string(kRounds)));
  }
  for (Child& child : children) EXPECT_EQ(child.Wait(), 0);
  EXPECT_GE(right.load(), kUsers * kRounds);
  EXPECT_EQ(wrong.load(), 0);
}

// What the identity rests on: the connection's descriptor stays open, and its
// number is given to nobody else, until the call has returned, even when its
// client died long ago.
TEST_F(ServicePeerTest, ACallKeepsItsConnectionsDescriptor) {
  std::atomic<bool> inside{false};
  std::atomic<bool> cancelled_seen{false};
  std::atomic<bool> release{false};
  api_.wait =
      [&](const Caller&, const v1::WaitRequest&,
          const FakeApi::Cancelled& cancelled) -> Result<v1::WaitReply> {
    inside.store(true);
    cancelled_seen.store(Eventually(cancelled));
    Eventually([&] { return release.load(); });
    return Aborted("cancelled");
  };
  api_.ps = [](const Caller&, const v1::PsRequest&) { return v1::PsReply(); };
  Start();
  const auto before = Sockets();
  Child child = StartClient(::geteuid(), "wait");
  ASSERT_TRUE(Eventually([&] { return inside.load(); }));
  std::pair<int, std::string> connection{-1, ""};
  for (const auto& entry : Sockets()) {
    if (before.count(entry.first) == 0) connection = entry;
  }
  ASSERT_GE(connection.first, 0);
  child.Kill();
  child.Wait();
  ASSERT_TRUE(Eventually([&] { return cancelled_seen.load(); }));
  for (int i = 0; i < 30; ++i) {
    EXPECT_TRUE(Connect()->Ps({}).ok());
    ASSERT_EQ(Sockets()[connection.first], connection.second);
  }
  release.store(true);
  EXPECT_TRUE(Eventually(
      [&] { return Sockets()[connection.first] != connection.second; }));
}

TEST_F(ServicePeerTest, RunGetsTheStreamsThatWereOffered) {
  std::string got;
  api_.run = [&](const Caller&, const v1::RunRequest&,
                 StdioFds stdio) -> Result<v1::RunReply> {
    EXPECT_FALSE(stdio.err.valid());
    std::array<char, 16> buffer{};
    const ssize_t n = ::read(stdio.in.get(), buffer.data(), buffer.size());
    got.assign(buffer.data(),
               static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    EXPECT_EQ(::write(stdio.out.get(), "world", 5), 5);
    return v1::RunReply();
  };
  Start();
  const auto client = Connect();
  const std::size_t before = OpenFdCount();
  for (int i = 0; i < 50; ++i) {
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    ASSERT_EQ(::pipe2(in.data(), O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(out.data(), O_CLOEXEC), 0);
    ASSERT_EQ(::write(in[1], "hello", 5), 5);
    const Ticket ticket = NewTicket();
    const Result<UniqueFd> offer = client->Offer(ticket, {in[0], out[1], -1});
    ASSERT_TRUE(offer.ok()) << offer.status().ToString();
    v1::RunRequest request;
    request.set_ticket(ticket.data(), ticket.size());
    ASSERT_TRUE(client->Run(request, nullptr).ok());
    EXPECT_EQ(got, "hello");
    std::array<char, 16> buffer{};
    EXPECT_EQ(::read(out[0], buffer.data(), buffer.size()), 5);
    for (const int fd : {in[0], in[1], out[0], out[1]}) ::close(fd);
    // Used once.
    EXPECT_EQ(client->Run(request, nullptr).status().code(), Code::kNoSuch);
  }
  EXPECT_TRUE(Eventually([&] { return OpenFdCount() == before; }));
}

TEST_F(ServicePeerTest, ATicketOfSomebodyElsesIsNone) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to act as another user";
  api_.run = [&](const Caller&, const v1::RunRequest&,
                 StdioFds) -> Result<v1::RunReply> { return v1::RunReply(); };
  Start();
  const Ticket ticket = NewTicket();
  std::array<int, 2> in{};
  std::array<int, 2> out{};
  ASSERT_EQ(::pipe2(in.data(), O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(out.data(), O_CLOEXEC), 0);
  Child child =
      StartClient(kSomebody, "offer", HexBytes(ticket), in[0], out[1]);
  char byte = 0;
  ASSERT_EQ(::read(out[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'o');
  v1::RunRequest request;
  request.set_ticket(ticket.data(), ticket.size());
  // Not even root: the descriptors are that user's.
  EXPECT_EQ(Connect()->Run(request, nullptr).status().code(), Code::kNoSuch);
  for (const int fd : {in[0], in[1], out[0], out[1]}) ::close(fd);
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(ServicePeerTest, ATicketMustBeOne) {
  api_.run = [&](const Caller&, const v1::RunRequest&,
                 StdioFds stdio) -> Result<v1::RunReply> {
    EXPECT_FALSE(stdio.in.valid());
    return v1::RunReply();
  };
  Start();
  const auto client = Connect();
  for (std::size_t size = 0; size <= 40; ++size) {
    v1::RunRequest request;
    request.set_ticket(std::string(size, 't'));
    const Code expected = size == 0              ? Code::kOk  // detached
                          : size == kTicketBytes ? Code::kNoSuch
                                                 : Code::kInvalid;
    EXPECT_EQ(client->Run(request, nullptr).status().code(), expected) << size;
  }
}

TEST_F(ServicePeerTest, AnOfferExpires) {
  ControlService::Options options;
  options.offers.lifetime_ms = 200;
  Start(options);
  const auto client = Connect();
  const Ticket ticket = NewTicket();
  const Result<UniqueFd> offer = client->Offer(ticket, {0, 1, 2});
  ASSERT_TRUE(offer.ok());
  EXPECT_TRUE(IsClosedWithin(offer->get(), 4000));
  v1::RunRequest request;
  request.set_ticket(ticket.data(), ticket.size());
  EXPECT_EQ(client->Run(request, nullptr).status().code(), Code::kNoSuch);
}

TEST_F(ServicePeerTest, StrangersDoNotDisturb) {
  api_.ps = [](const Caller&, const v1::PsRequest&) { return v1::PsReply(); };
  Start();
  ASSERT_TRUE(Connect()->Ps({}).ok());
  const std::size_t before = OpenFdCount();
  {
    std::vector<UniqueFd> strangers;
    const std::string noise(2000, '\xa5');
    for (int i = 0; i < 1500; ++i) {
      UniqueFd stranger = Dial(path_);
      switch (i % 5) {
        case 0:  // says nothing
          break;
        case 1:
          SendText(stranger.get(), "GET / HTTP/1.1\r\n\r\n");
          break;
        case 2:  // HTTP/2 that goes wrong
          SendText(stranger.get(), std::string(kPreface) + noise);
          break;
        case 3:  // a frame of 16 MB that never comes
          SendText(stranger.get(),
                   std::string(kPreface) + std::string("\xff\xff\xff\x00", 4));
          break;
        default:
          SendText(stranger.get(), kPreface.substr(0, 12));
          break;
      }
      if (i % 7 != 0) continue;
      strangers.push_back(std::move(stranger));
    }
    EXPECT_TRUE(Connect()->Ps({}).ok());
  }
  EXPECT_TRUE(Connect()->Ps({}).ok());
  EXPECT_TRUE(Eventually([&] { return OpenFdCount() <= before; }));
}

TEST_F(ServicePeerTest, AnIdleConnectionIsClosed) {
  ControlService::Options options;
  options.idle_ms = 200;
  Start(options);
  const UniqueFd client = Dial(path_);
  // Preface and empty SETTINGS: a connection, but no call.
  ASSERT_TRUE(SendText(client.get(), std::string(kPreface) +
                                         std::string("\0\0\0\4\0\0\0\0\0", 9)));
  EXPECT_TRUE(IsClosedWithin(client.get(), 8000));
}

}  // namespace
}  // namespace pos
