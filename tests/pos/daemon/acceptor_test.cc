#include "pos/daemon/acceptor.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <vector>

#include "pos/base/mutex.h"
#include "pos/daemon/socket_file.h"
#include "tests/pos/daemon/testing.h"

namespace pos {
namespace {

class AcceptorTest : public ::testing::Test {
 protected:
  void Open(const Acceptor::Limits& limits = {},
            const OfferTable::Limits& offer_limits = {}) {
    auto file = SocketFile::Listen(path_, 0666);
    ASSERT_TRUE(file.ok()) << file.status().ToString();
    file_ = std::move(*file);
    offers_ = std::make_unique<OfferTable>(offer_limits);
    auto acceptor = Acceptor::Start(file_->fd(), offers_.get(), limits,
                                    [this](UniqueFd connection) {
                                      MutexLock lock(&mu_);
                                      handed_.push_back(std::move(connection));
                                    });
    ASSERT_TRUE(acceptor.ok()) << acceptor.status().ToString();
    acceptor_ = std::move(*acceptor);
  }

  std::size_t Handed() {
    MutexLock lock(&mu_);
    return handed_.size();
  }
  UniqueFd TakeHanded() {
    UniqueFd fd;
    Eventually([&] { return Handed() > 0; });
    MutexLock lock(&mu_);
    if (handed_.empty()) return fd;
    fd = std::move(handed_.front());
    handed_.erase(handed_.begin());
    return fd;
  }
  // A well-behaved client is served.
  void ExpectServes() {
    const std::size_t before = Handed();
    const UniqueFd client = Dial(path_);
    ASSERT_TRUE(SendText(client.get(), kPreface));
    EXPECT_TRUE(Eventually([&] { return Handed() > before; }));
  }
  UniqueFd Offer(const Ticket& ticket, int fd) {
    Result<UniqueFd> offer = OfferStdio(path_, ticket, {fd, -1, fd}, 5000);
    EXPECT_TRUE(offer.ok()) << offer.status().ToString();
    return offer.ok() ? std::move(*offer) : UniqueFd();
  }

  TempDir dir_;
  const std::string path_ = dir_.File("posd.sock");
  std::unique_ptr<SocketFile> file_;
  std::unique_ptr<OfferTable> offers_;
  Mutex mu_;
  std::vector<UniqueFd> handed_ POS_GUARDED_BY(mu_);
  std::unique_ptr<Acceptor> acceptor_;  // ends before what it uses
};

TEST_F(AcceptorTest, HandsOverHttp2WithNothingRead) {
  Open();
  const UniqueFd client = Dial(path_);
  const std::string sent = std::string(kPreface) + "settings";
  ASSERT_TRUE(SendText(client.get(), sent));
  const UniqueFd handed = TakeHanded();
  ASSERT_TRUE(handed.valid());
  EXPECT_NE(::fcntl(handed.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(handed.get(), F_GETFD), FD_CLOEXEC);
  std::string got(64, '\0');
  const ssize_t n = ::recv(handed.get(), got.data(), got.size(), MSG_DONTWAIT);
  ASSERT_GT(n, 0);
  EXPECT_EQ(got.substr(0, static_cast<std::size_t>(n)), sent);
}

TEST_F(AcceptorTest, ReadsAPrefaceThatComesByteByByte) {
  Open();
  const UniqueFd client = Dial(path_);
  for (const char c : kPreface) {
    EXPECT_EQ(Handed(), 0u);
    ASSERT_TRUE(SendText(client.get(), {&c, 1}));
    // Let the acceptor see each byte alone, most of the time.
    ::sched_yield();
  }
  EXPECT_TRUE(TakeHanded().valid());
}

TEST_F(AcceptorTest, ClosesWhatItDoesNotKnow) {
  Open();
  for (const std::string_view text :
       {"GET / HTTP/1.1\r\n", "PRI * HTTP/1.0\r\n", "\x16\x03\x01", "PRX",
        "\x01POSFDX", "\n"}) {
    const UniqueFd client = Dial(path_);
    ASSERT_TRUE(SendText(client.get(), text));
    EXPECT_TRUE(IsClosedWithin(client.get(), 4000)) << text;
  }
  EXPECT_EQ(Handed(), 0u);
}

TEST_F(AcceptorTest, AClientThatHangsUpIsForgotten) {
  Open({.undecided_ms = 60000});
  const std::size_t before = OpenFdCount();
  for (const std::string_view text : {"", "PRI", "\x01POS"}) {
    UniqueFd client = Dial(path_);
    if (!text.empty()) {
      ASSERT_TRUE(SendText(client.get(), text));
    }
    ASSERT_TRUE(Eventually([&] { return acceptor_->undecided() == 1; }));
    ::shutdown(client.get(), SHUT_WR);  // half is enough
    EXPECT_TRUE(Eventually([&] { return acceptor_->undecided() == 0; }));
  }
  EXPECT_TRUE(Eventually([&] { return OpenFdCount() == before; }));
}

TEST_F(AcceptorTest, SlowClientsHaveABoundAndHinderNobody) {
  Open({.undecided_ms = 600});
  std::vector<UniqueFd> slow;
  const std::uint64_t start = MonotonicNs();
  for (int i = 0; i < 40; ++i) {
    slow.push_back(Dial(path_));
    if (i % 2 == 0) {
      ASSERT_TRUE(SendText(slow.back().get(), kPreface.substr(0, 10)));
    }
  }
  ExpectServes();
  for (const UniqueFd& client : slow) {
    EXPECT_TRUE(IsClosedWithin(client.get(), 5000));
  }
  EXPECT_GE(MonotonicNs() - start, 600'000'000u);
  EXPECT_EQ(acceptor_->undecided(), 0u);
}

TEST_F(AcceptorTest, ThousandsHalfOpenPushOutTheirOldest) {
  Open({.undecided_ms = 60000, .undecided_per_uid = 50});
  std::vector<UniqueFd> half_open;
  for (int i = 0; i < 3000; ++i) {
    half_open.push_back(Dial(path_));
    if (half_open.size() > 200) half_open.erase(half_open.begin());
  }
  ExpectServes();
  EXPECT_LE(acceptor_->undecided(), 50u);
  EXPECT_TRUE(IsClosedWithin(half_open.front().get(), 4000));
  EXPECT_FALSE(IsClosedWithin(half_open.back().get(), 0));
}

// In a child with that uid: opens `count` connections, says so, and holds them
// until its pipe closes.
pid_t HoldConnectionsAs(uid_t uid, const std::string& path, int count,
                        int ready_fd, int hold_fd) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const pid_t child = ::fork();
  if (child != 0) return child;
  if (::syscall(SYS_setresuid, uid, uid, uid) != 0) ::_exit(1);
  for (int i = 0; i < count; ++i) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) !=
        0) {
      ::_exit(2);
    }
  }
  char byte = 0;
  if (::write(ready_fd, &byte, 1) != 1) ::_exit(3);
  static_cast<void>(!::read(hold_fd, &byte, 1));
  ::_exit(0);
}

TEST_F(AcceptorTest, OneUsersFloodLeavesTheOthersAlone) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to act as another user";
  Open({.undecided_ms = 60000, .undecided_per_uid = 20});
  std::vector<UniqueFd> ours;
  for (int i = 0; i < 10; ++i) ours.push_back(Dial(path_));
  ASSERT_TRUE(Eventually([&] { return acceptor_->undecided() == 10; }));
  std::array<int, 2> ready{};
  std::array<int, 2> hold{};
  ASSERT_EQ(::pipe2(ready.data(), O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(hold.data(), O_CLOEXEC), 0);
  const pid_t child = HoldConnectionsAs(54321, path_, 300, ready[1], hold[0]);
  ASSERT_GT(child, 0);
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_TRUE(Eventually([&] { return acceptor_->undecided() == 30; }));
  ExpectServes();
  for (const UniqueFd& client : ours) {
    EXPECT_FALSE(IsClosedWithin(client.get(), 0));
  }
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(Eventually([&] { return acceptor_->undecided() == 10; }));
  for (const int fd : {ready[0], ready[1], hold[0], hold[1]}) ::close(fd);
}

TEST_F(AcceptorTest, BoundsTheConnectionsThatAreHandedOn) {
  Open({.connections_per_uid = 5});
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(Dial(path_));
    ASSERT_TRUE(SendText(clients.back().get(), kPreface));
  }
  ASSERT_TRUE(Eventually([&] { return Handed() == 5; }));
  const UniqueFd sixth = Dial(path_);
  ASSERT_TRUE(SendText(sixth.get(), kPreface));
  EXPECT_TRUE(IsClosedWithin(sixth.get(), 4000));
  EXPECT_EQ(Handed(), 5u);
  TakeHanded().Reset();  // its owner closes it
  const UniqueFd next = Dial(path_);
  ASSERT_TRUE(SendText(next.get(), kPreface));
  EXPECT_TRUE(Eventually([&] { return Handed() == 5; }));
  EXPECT_FALSE(IsClosedWithin(next.get(), 0));
}

TEST_F(AcceptorTest, KeepsAnOfferUntilItIsTaken) {
  Open();
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  const UniqueFd read_end(pipe[0]);
  UniqueFd write_end(pipe[1]);
  const Ticket ticket = NewTicket();
  const UniqueFd client = Offer(ticket, write_end.get());
  EXPECT_EQ(acceptor_->undecided(), 0u);
  Result<UniqueFd> taken = offers_->Take(::geteuid(), ticket);
  ASSERT_TRUE(taken.ok());
  Result<StdioFds> stdio = ReceiveOffer(taken->get());
  ASSERT_TRUE(stdio.ok()) << stdio.status().ToString();
  EXPECT_FALSE(stdio->out.valid());
  write_end.Reset();
  EXPECT_EQ(::write(stdio->err.get(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(read_end.get(), &byte, 1), 1);
}

TEST_F(AcceptorTest, AnOfferDiesWithItsClientAndWithTime) {
  Open({}, {.lifetime_ms = 400});
  const std::size_t before = OpenFdCount();
  {
    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    Ticket ticket = NewTicket();
    UniqueFd client = Offer(ticket, null.get());
    client.Reset();
    EXPECT_TRUE(Eventually([&] { return offers_->size() == 0; }, 300));
    EXPECT_FALSE(offers_->Take(::geteuid(), ticket).ok());

    ticket = NewTicket();
    client = Offer(ticket, null.get());
    EXPECT_TRUE(IsClosedWithin(client.get(), 4000));
    EXPECT_EQ(offers_->size(), 0u);
    EXPECT_FALSE(offers_->Take(::geteuid(), ticket).ok());
  }
  EXPECT_TRUE(Eventually([&] { return OpenFdCount() == before; }));
}

TEST_F(AcceptorTest, AnUnusedOfferHoldsNoDescriptorOfTheCallers) {
  Open();
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  const UniqueFd read_end(pipe[0]);
  UniqueFd write_end(pipe[1]);
  const std::size_t before = OpenFdCount();
  UniqueFd client = Offer(NewTicket(), write_end.get());
  EXPECT_EQ(OpenFdCount(), before + 2);  // both ends of one connection
  write_end.Reset();
  client.Reset();
  // With the offer the last writer is gone.
  pollfd p{read_end.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&p, 1, 4000), 1);
  EXPECT_NE(p.revents & POLLHUP, 0);
}

TEST_F(AcceptorTest, TellsAClientWhyItsOfferIsRefused) {
  Open({}, {.per_uid = 2});
  const Ticket ticket = NewTicket();
  const UniqueFd first = Offer(ticket, 0);
  EXPECT_EQ(OfferStdio(path_, ticket, {0, 1, 2}, 5000).status().code(),
            Code::kExists);
  const UniqueFd second = Offer(NewTicket(), 0);
  const Result<UniqueFd> third =
      OfferStdio(path_, NewTicket(), {0, 1, 2}, 5000);
  EXPECT_EQ(third.status().code(), Code::kBusy);
  EXPECT_FALSE(third.status().hint().empty());
  StdioOffer odd;
  odd.reserved = 1;
  const UniqueFd client = Dial(path_);
  ASSERT_TRUE(SendText(client.get(), OfferBytes(odd)));
  OfferReply reply;
  ASSERT_EQ(::recv(client.get(), &reply, sizeof(reply), MSG_WAITALL),
            static_cast<ssize_t>(sizeof(reply)));
  EXPECT_EQ(static_cast<OfferResult>(reply.result), OfferResult::kMalformed);
  EXPECT_TRUE(IsClosedWithin(client.get(), 4000));
}

TEST_F(AcceptorTest, RefusesRightsOnHttp2) {
  Open();
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const std::array<int, 1> fds = {null.get()};
  {  // beside the preface
    const UniqueFd client = Dial(path_);
    ASSERT_TRUE(SendWithFds(client.get(), kPreface, fds));
    EXPECT_TRUE(IsClosedWithin(client.get(), 4000));
  }
  {  // behind it, there when the acceptor looks
    const UniqueFd client = Dial(path_);
    ASSERT_TRUE(SendText(client.get(), kPreface.substr(0, 3)));
    ASSERT_TRUE(Eventually([&] { return acceptor_->undecided() == 1; }));
    std::string rest(kPreface.substr(3));
    ASSERT_TRUE(SendWithFds(client.get(), rest + "x", fds));
    EXPECT_TRUE(IsClosedWithin(client.get(), 4000));
  }
  EXPECT_EQ(Handed(), 0u);
  // Later: the kernel refuses.
  const UniqueFd client = Dial(path_);
  ASSERT_TRUE(SendText(client.get(), kPreface));
  ASSERT_TRUE(Eventually([&] { return Handed() == 1; }));
  if (SendWithFds(client.get(), "x", fds)) {
    GTEST_SKIP() << "this kernel has no SO_PASSRIGHTS";
  }
  EXPECT_EQ(errno, EPERM);
}

// A TCP connection whose last close waits for a minute, because its peer does
// not read.
struct Lingering {
  UniqueFd socket;
  UniqueFd peer;
};

Lingering MakeLingering() {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(::bind(listener.get(), generic, sizeof(address)), 0);
  EXPECT_EQ(::listen(listener.get(), 1), 0);
  EXPECT_EQ(::getsockname(listener.get(), generic, &size), 0);
  Lingering pair;
  pair.socket.Reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(pair.socket.get(), generic, sizeof(address)), 0);
  pair.peer.Reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const std::string piece(65536, 'x');
  while (::send(pair.socket.get(), piece.data(), piece.size(), MSG_DONTWAIT) >
         0) {
  }
  const linger wait{1, 60};
  EXPECT_EQ(::setsockopt(pair.socket.get(), SOL_SOCKET, SO_LINGER, &wait,
                         sizeof(wait)),
            0);
  return pair;
}

// Without care each of them would keep the acceptor's thread for a minute.
TEST_F(AcceptorTest, DescriptorsThatCloseSlowlyDelayNobody) {
  Open({.undecided_ms = 300}, {.lifetime_ms = 300});
  std::vector<UniqueFd> peers;
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 8; ++i) {
    Lingering pair = MakeLingering();
    const std::array<int, 1> fds = {pair.socket.get()};
    peers.push_back(std::move(pair.peer));
    clients.push_back(Dial(path_));
    StdioOffer offer;
    offer.streams = 1;
    offer.ticket = NewTicket();
    // An offer that expires, or something that is never finished.
    ASSERT_TRUE(SendWithFds(clients.back().get(),
                            i % 2 == 0 ? "PRI" : OfferBytes(offer), fds));
    pair.socket.Reset();  // the acceptor's is the last one
  }
  for (const UniqueFd& client : clients) {
    EXPECT_TRUE(IsClosedWithin(client.get(), 8000));
  }
  ExpectServes();
}

TEST_F(AcceptorTest, GoesOnAfterRunningOutOfDescriptors) {
  Open();
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(
        UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  }
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  // No number is left below the limit.
  std::vector<UniqueFd> fill;
  const rlimit tight{64, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  for (;;) {
    UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) break;
    fill.push_back(std::move(fd));
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.c_str(), path_.size());
  for (const UniqueFd& client : clients) {
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address),
                        sizeof(address)),
              0);
    ASSERT_TRUE(SendText(client.get(), kPreface));
  }
  EXPECT_FALSE(Eventually([&] { return Handed() > 0; }, 150));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
  EXPECT_TRUE(Eventually([&] { return Handed() == 3; }));
}

TEST_F(AcceptorTest, EndsAtOnceAndClosesEverything) {
  const std::size_t before = OpenFdCount();
  Open({.undecided_ms = 60000});
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(Dial(path_));
  clients.push_back(Offer(NewTicket(), 0));
  ASSERT_TRUE(Eventually([&] { return acceptor_->undecided() == 20; }));
  const std::uint64_t start = MonotonicNs();
  acceptor_.reset();
  offers_.reset();
  file_.reset();
  EXPECT_LT(MonotonicNs() - start, 2'000'000'000u);
  for (const UniqueFd& client : clients) {
    EXPECT_TRUE(IsClosedWithin(client.get(), 1000));
  }
  clients.clear();
  EXPECT_EQ(OpenFdCount(), before);
}

}  // namespace
}  // namespace pos
