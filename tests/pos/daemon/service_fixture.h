// A service over a FakeApi, and child processes that talk to it.
#ifndef TESTS_POS_DAEMON_SERVICE_FIXTURE_H_
#define TESTS_POS_DAEMON_SERVICE_FIXTURE_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/process.h"
#include "pos/cli/client.h"
#include "pos/daemon/service.h"
#include "tests/pos/daemon/fake_api.h"
#include "tests/pos/daemon/testing.h"

namespace pos {

// A child, killed and reaped at the end.
class Child {
 public:
  Child() = default;
  // `in`, `out`: its standard input and output; -1: /dev/null, the test's.
  Child(const std::vector<std::string>& argv, int in, int out) {
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    if (in >= 0) {
      ::posix_spawn_file_actions_adddup2(&actions, in, 0);
    } else {
      ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    }
    if (out >= 0) ::posix_spawn_file_actions_adddup2(&actions, out, 1);
    std::vector<char*> raw;
    for (const std::string& argument : argv) {
      raw.push_back(const_cast<char*>(argument.c_str()));
    }
    raw.push_back(nullptr);
    EXPECT_EQ(
        ::posix_spawn(&pid_, raw[0], &actions, nullptr, raw.data(), environ), 0)
        << argv[0];
    ::posix_spawn_file_actions_destroy(&actions);
  }
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Child& operator=(Child&& other) noexcept {
    std::swap(pid_, other.pid_);
    return *this;
  }
  ~Child() {
    if (pid_ <= 0) return;
    Kill();
    Wait();
  }

  [[nodiscard]] pid_t pid() const { return pid_; }
  void Kill() const { ::kill(pid_, SIGKILL); }
  // Exit status; 128 + n after signal n.
  int Wait() {
    int status = 0;
    if (::waitpid(std::exchange(pid_, -1), &status, 0) < 0) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
};

class ServiceFixture : public ::testing::Test {
 protected:
  void Start(ControlService::Options options = {}) {
    options.socket_path = path_;
    auto service = ControlService::Start(&api_, options);
    ASSERT_TRUE(service.ok()) << service.status().ToString();
    service_ = std::move(*service);
  }
  std::unique_ptr<cli::PosClient> Connect() {
    auto client = cli::PosClient::Connect(path_);
    EXPECT_TRUE(client.ok()) << client.status().ToString();
    return client.ok() ? std::move(*client) : nullptr;
  }
  [[nodiscard]] static std::string ClientProgram() {
    return std::string(POS_TEST_BIN) + "/service_client";
  }
  Child StartClient(uid_t uid, const std::string& what,
                    const std::string& argument = "", int in = -1,
                    int out = -1) {
    return {
        {ClientProgram(), path_, std::to_string(uid), what, argument}, in, out};
  }

  TempDir dir_;
  const std::string path_ = dir_.File("posd.sock");
  FakeApi api_;
  std::unique_ptr<ControlService> service_;  // ends before the api
};

}  // namespace pos

#endif  // TESTS_POS_DAEMON_SERVICE_FIXTURE_H_
