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
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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
    }
    session.session().Destroy();
    malformed_.fetch_add(session.session().malformed());
  }

  const std::string path_;
  UniqueFd listener_;
  std::atomic<bool> end_{false};
  std::atomic<int> attached_{0};
  std::atomic<int> malformed_{0};
  std::atomic<int> killed_{-1};
  std::vector<std::thread> clients_;
  std::thread acceptor_;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_TEST_RUNNER_H_
