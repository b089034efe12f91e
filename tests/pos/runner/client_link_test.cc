// The runner's side of a client's connection, against a client of ours.
#include "pos/runner/client_link.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <memory>

#include "remoting/control/channel.h"

namespace pos {
namespace {

using Event = ClientLink::Event;
using Type = wire::SessionRecordType;

class ClientLinkTest : public ::testing::Test {
 protected:
  ClientLinkTest() {
    MakeRing();
    UniqueFd ours;
    EXPECT_TRUE(ControlChannel::MakePair(&ours, &client_).ok());
    EXPECT_TRUE(link_.Accept(std::move(ours), *ring_, 0, {}, 1, 1).ok());
    wire::AttachReply reply;
    EXPECT_GT(::recv(client_.get(), &reply, sizeof(reply), 0), 0);
  }

  void MakeRing() {
    auto ring = RingServer::Create({});
    ASSERT_TRUE(ring.ok()) << ring.status().ToString();
    ring_ = std::move(*ring);
  }

  void Say(Type type, std::uint32_t epoch, std::uint64_t a = 0) {
    const wire::SessionRecord record{type, epoch, a, 0};
    ASSERT_EQ(::send(client_.get(), &record, sizeof(record), 0),
              static_cast<ssize_t>(sizeof(record)));
  }

  std::unique_ptr<RingServer> ring_;
  UniqueFd client_;
  ClientLink link_;
};

TEST_F(ClientLinkTest, AnAnswerToThePresentRequestIsTaken) {
  Say(Type::kGated, 7);
  EXPECT_EQ(link_.WaitAnswer(7, 1000), Event::kGated);
  Say(Type::kRefusing, 8, 3);
  EXPECT_EQ(link_.WaitAnswer(8, 1000), Event::kRefusing);
  EXPECT_EQ(link_.inside(), 3u);
}

// The client was stopped during the attempt before: it has closed its gate for
// that one, and is about to open it again.
TEST_F(ClientLinkTest, LateAnswersToEarlierRequestsArePassedOver) {
  Say(Type::kGated, 7);
  Say(Type::kRefusing, 8, 1);
  EXPECT_EQ(link_.WaitAnswer(9, 0), Event::kNone);
  Say(Type::kGated, 7);
  Say(Type::kGated, 9);
  EXPECT_EQ(link_.WaitAnswer(9, 1000), Event::kGated);
}

TEST_F(ClientLinkTest, AClientThatIsGoneIsNoLateAnswer) {
  Say(Type::kGated, 7);
  client_.Reset();
  EXPECT_EQ(link_.WaitAnswer(9, 1000), Event::kGone);
}

TEST_F(ClientLinkTest, SomethingElseIsServedWhileAnAnswerIsWaitedFor) {
  UniqueFd bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const auto ring = [&] {
    const std::uint64_t one = 1;
    EXPECT_EQ(::write(bell.get(), &one, sizeof(one)), 8);
  };
  ring();
  int served = 0;
  const ClientLink::Also also{.fd = bell.get(), .ready = [&] {
                                std::uint64_t count = 0;
                                EXPECT_EQ(::read(bell.get(), &count, 8), 8);
                                // Only now does the client get to answer.
                                if (++served == 2) Say(Type::kGated, 7);
                                if (served == 1) ring();
                                return true;
                              }};
  EXPECT_EQ(link_.WaitAnswer(7, 5000, also), Event::kGated);
  EXPECT_EQ(served, 2);
  // What is gone is not asked again and again.
  ring();
  served = 0;
  const ClientLink::Also gone{.fd = bell.get(), .ready = [&] {
                                ++served;
                                return false;
                              }};
  EXPECT_EQ(link_.WaitAnswer(8, 20, gone), Event::kNone);
  EXPECT_EQ(served, 1);
}

// What it was sent after it had said so, it never read: the kernel reports that
// as an error, once, before what it said.
TEST_F(ClientLinkTest, AClientThatDetachesWithSomethingUnreadHasDetached) {
  ASSERT_TRUE(link_.Send(Type::kUngate, 7).ok());
  Say(Type::kDetached, 7);
  client_.Reset();
  EXPECT_EQ(link_.Read(), Event::kNone);
  EXPECT_EQ(link_.answered_epoch(), 7u);
  EXPECT_EQ(link_.Read(), Event::kDetached);
  EXPECT_FALSE(link_.connected());
}

TEST_F(ClientLinkTest, UnknownRecordsAreMalformed) {
  for (const std::uint32_t type : {0u, 5u, 6u, 16u, 17u, 18u, ~0u}) {
    Say(static_cast<Type>(type), 7);
    EXPECT_EQ(link_.Read(), Event::kMalformed) << type;
  }
}

}  // namespace
}  // namespace pos
