// pos-cli as a process, talking to a service over a FakeApi.
#ifndef TESTS_POS_CLI_CLI_FIXTURE_H_
#define TESTS_POS_CLI_CLI_FIXTURE_H_

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/pos/daemon/service_fixture.h"

namespace pos {

struct Pipe {
  Pipe() {
    std::array<int, 2> fds{};
    EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
    read.Reset(fds[0]);
    write.Reset(fds[1]);
  }
  UniqueFd read;
  UniqueFd write;
};

// A child in a process group of its own; killed and reaped at the end.
class CliProcess {
 public:
  // Pipes; with `terminal` that is standard input and output instead.
  struct Setup {
    std::vector<std::string> arguments = {};
    std::vector<std::string> environment = {};  // beside the test's own
    int terminal = -1;                          // the slave
    bool own_session = false;     // and `terminal` is its controlling terminal
    bool output_to_pipe = false;  // whatever `terminal` says
    bool errors_to_terminal = false;
    std::vector<int> ignored = {};  // signals
    std::string program = POS_CLI_PROGRAM;
  };

  explicit CliProcess(const Setup& setup) {
    std::vector<std::string> argv = {setup.program};
    argv.insert(argv.end(), setup.arguments.begin(), setup.arguments.end());
    pid_ = ::fork();
    EXPECT_GE(pid_, 0);
    if (pid_ == 0) Exec(setup, argv);
    in_.read.Reset();
    out_.write.Reset();
    err_.write.Reset();
  }
  ~CliProcess() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
  }
  CliProcess(const CliProcess&) = delete;
  CliProcess& operator=(const CliProcess&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  void Signal(int signal) const { EXPECT_EQ(::kill(pid_, signal), 0); }
  UniqueFd& in() { return in_.write; }

  // Reads to the end of both streams, then waits for the process. -1 when that
  // takes more than 10 s; 128 + n after signal n.
  int Finish() {
    const Deadline deadline = Deadline::AfterMs(10'000);
    std::array<pollfd, 2> fds{};
    fds[0] = {out_.read.get(), POLLIN, 0};
    fds[1] = {err_.read.get(), POLLIN, 0};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
      if (::poll(fds.data(), fds.size(), deadline.LeftMs()) <= 0) return -1;
      for (std::size_t i = 0; i < fds.size(); ++i) {
        if (fds[i].fd < 0 || fds[i].revents == 0) continue;
        std::array<char, 65536> buffer{};
        const ssize_t n = ::read(fds[i].fd, buffer.data(), buffer.size());
        if (n <= 0) {
          fds[i].fd = -1;
        } else {
          (i == 0 ? out : err)
              .append(buffer.data(), static_cast<std::size_t>(n));
        }
      }
    }
    int status = 0;
    if (!Eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; },
                    10'000)) {
      return -1;
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  // Standard error holds `text` within 5 s.
  bool WaitErr(const std::string& text) {
    return Eventually([&] {
      pollfd fd{err_.read.get(), POLLIN, 0};
      std::array<char, 4096> buffer{};
      if (::poll(&fd, 1, 0) > 0) {
        const ssize_t n = ::read(fd.fd, buffer.data(), buffer.size());
        if (n > 0) err.append(buffer.data(), static_cast<std::size_t>(n));
      }
      return err.find(text) != std::string::npos;
    });
  }

  // The process is stopped within 5 s, without having ended.
  [[nodiscard]] bool WaitStopped() const {
    int status = 0;
    return Eventually([&] {
      return ::waitpid(pid_, &status, WNOHANG | WUNTRACED) == pid_ &&
             WIFSTOPPED(status);
    });
  }

  std::string out;
  std::string err;

 private:
  [[noreturn]] void Exec(const Setup& setup, std::vector<std::string> argv) {
    if (setup.own_session) {
      ::setsid();
      ::ioctl(setup.terminal, TIOCSCTTY, 0);
    } else {
      ::setpgid(0, 0);
    }
    ::dup2(setup.terminal >= 0 ? setup.terminal : in_.read.get(), 0);
    const bool pipe = setup.terminal < 0 || setup.output_to_pipe;
    ::dup2(pipe ? out_.write.get() : setup.terminal, 1);
    ::dup2(setup.errors_to_terminal ? setup.terminal : err_.write.get(), 2);
    for (const int signal : setup.ignored) ::signal(signal, SIG_IGN);
    for (const std::string& entry : setup.environment) {
      const std::size_t equals = entry.find('=');
      ::setenv(entry.substr(0, equals).c_str(),
               entry.substr(equals + 1).c_str(), 1);
    }
    std::vector<char*> raw;
    for (std::string& word : argv) raw.push_back(word.data());
    raw.push_back(nullptr);
    ::execv(raw[0], raw.data());
    ::_exit(99);
  }

  Pipe in_;
  Pipe out_;
  Pipe err_;
  pid_t pid_ = -1;
};

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

class CliFixture : public ServiceFixture {
 protected:
  // `words` after --socket.
  [[nodiscard]] std::vector<std::string> Arguments(
      std::vector<std::string> words) const {
    words.insert(words.begin(), {"--socket", path_});
    return words;
  }
  Outcome Cli(std::vector<std::string> words) {
    CliProcess process({.arguments = Arguments(std::move(words))});
    process.in().Reset();
    Outcome outcome;
    outcome.status = process.Finish();
    outcome.out = process.out;
    outcome.err = process.err;
    return outcome;
  }
};

}  // namespace pos

#endif  // TESTS_POS_CLI_CLI_FIXTURE_H_
