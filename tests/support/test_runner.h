// posd's attach socket and runners for its clients, in the test's process:
// programs started with POS_ATTACH=path() get a session each on a simulated
// device.
//
// Threads: one that accepts, one for each client.
#ifndef POS_TESTS_SUPPORT_TEST_RUNNER_H_
#define POS_TESTS_SUPPORT_TEST_RUNNER_H_

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/runner/client_link.h"
#include "tests/support/sim_session.h"

namespace pos {

class TestRunner {
 public:
  TestRunner()
      : path_("/tmp/pos-test-runner-" + std::to_string(::getpid()) + ".sock") {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    listener_.Reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address),
                     sizeof(address)),
              0);
    EXPECT_EQ(::listen(listener_.get(), 16), 0);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~TestRunner() {
    end_.store(true);
    acceptor_.join();
    for (std::thread& t : clients_) t.join();
    ::unlink(path_.c_str());
  }
  TestRunner(const TestRunner&) = delete;
  TestRunner& operator=(const TestRunner&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int attached() const { return attached_.load(); }
  // Clients that broke the protocol.
  [[nodiscard]] int malformed() const { return malformed_.load(); }
  // Ends the session of a client that says so by its number, from 0: what a
  // runner that dies looks like to its client.
  void Kill(int client) { killed_.store(client); }

  // Has the first client detach, and ends its session with that.
  enum class Leave {
    kUnheard,  // nobody is there to hear that it has detached
    kTold,     // a verdict is in its memory before the request
    kToldOld,  // the same, but of an earlier detach; the right one follows
  };
  void Detach(Leave how) { leave_.store(static_cast<int>(how)); }
  // First bytes of the tokens with which clients came back, in order. All are
  // told that their session has ended.
  [[nodiscard]] std::vector<int> tokens() const {
    MutexLock lock(&mu_);
    return tokens_;
  }

 private:
  void Accept() {
    while (!end_.load()) {
      pollfd p{listener_.get(), POLLIN, 0};
      if (::poll(&p, 1, 20) <= 0) continue;
      UniqueFd socket(
          ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!socket.valid()) continue;
      const int number = attached_.fetch_add(1);
      clients_.emplace_back([this, number, fd = socket.Release()] {
        Serve(number, UniqueFd(fd));
      });
    }
  }
  void Serve(int number, UniqueFd socket) {
    wire::AttachRequest request;
    if (::recv(socket.get(), &request, sizeof(request), 0) != sizeof(request)) {
      return;
    }
    if (request.kind == wire::AttachKind::kResume) {
      {
        MutexLock lock(&mu_);
        tokens_.push_back(request.token[0]);
      }
      ClientLink::Refuse(std::move(socket), wire::AttachStatus::kGone, "ended");
      return;
    }
    SimSession session(0, number % 64);
    ClientLink link;
    link.SetFileSink([&session](std::uint64_t n, UniqueFd file) {
      return session.session().window().AddFile(n, std::move(file));
    });
    const Status accepted = link.Accept(
        std::move(socket), *session.ring(), session.session().host_fd(),
        session.session().layout(), static_cast<std::uint64_t>(number) + 1, 1);
    EXPECT_TRUE(accepted.ok()) << accepted.ToString();
    while (!end_.load() && link.connected() && killed_.load() != number) {
      pollfd p{link.fd(), POLLIN, 0};
      if (::poll(&p, 1, 20) > 0 &&
          link.Read() == ClientLink::Event::kMalformed) {
        break;
      }
      const int how = leave_.load();
      if (number == 0 && how >= 0) {
        DetachFirst(&link, static_cast<Leave>(how));
        break;
      }
    }
    session.session().Destroy();
    malformed_.fetch_add(session.session().malformed());
  }

  void DetachFirst(ClientLink* link, Leave how) {
    constexpr std::uint32_t kEpoch = 2;
    if (how == Leave::kUnheard) ::shutdown(link->fd(), SHUT_RD);
    if (how == Leave::kTold) WriteVerdict(*link, kEpoch);
    if (how == Leave::kToldOld) WriteVerdict(*link, kEpoch - 1);
    EXPECT_TRUE(link->Send(wire::SessionRecordType::kDetach, kEpoch).ok());
    pollfd p{link->fd(), 0, 0};
    EXPECT_EQ(::poll(&p, 1, 20000), 1);  // until it has closed its end
    if (how != Leave::kToldOld) return;
    // It has looked at the old one a few times by then.
    pollfd comes{listener_.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&comes, 1, 20), 0) << "it followed the old verdict";
    WriteVerdict(*link, kEpoch);
  }
  // As posd has it written. The token is the epoch, over and over.
  void WriteVerdict(const ClientLink& link, std::uint32_t epoch) {
    wire::Verdict verdict;
    path_.copy(verdict.path.data(), verdict.path.size() - 1);
    verdict.token.fill(static_cast<std::uint8_t>(epoch));
    verdict.epoch = epoch;
    verdict.word = wire::kVerdictResume;
    constexpr std::size_t kWordAt = offsetof(wire::Verdict, word);
    auto* const bytes = reinterpret_cast<char*>(&verdict);
    const auto write = [&](std::size_t at, std::size_t count) {
      iovec from{bytes + at, count};
      iovec to{reinterpret_cast<void*>(link.verdict_address() + at),  // NOLINT
               count};
      EXPECT_EQ(::process_vm_writev(static_cast<pid_t>(link.client_pid()),
                                    &from, 1, &to, 1, 0),
                static_cast<ssize_t>(count));
    };
    write(0, kWordAt);
    write(kWordAt, sizeof(verdict.word));
  }

  const std::string path_;
  UniqueFd listener_;
  std::atomic<bool> end_{false};
  std::atomic<int> attached_{0};
  std::atomic<int> malformed_{0};
  std::atomic<int> killed_{-1};
  std::atomic<int> leave_{-1};
  mutable Mutex mu_;
  std::vector<int> tokens_ POS_GUARDED_BY(mu_);
  std::vector<std::thread> clients_;
  std::thread acceptor_;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_TEST_RUNNER_H_
