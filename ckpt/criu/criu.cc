#include "ckpt/criu/criu.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <tuple>

#include "ckpt/criu/log.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"

extern char** environ;

namespace pos {
namespace {

constexpr int kToolTimeoutMs = 20000;
constexpr std::size_t kOutputLimit = 64 * 1024;

bool IsProgram(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) &&
         ::access(path.c_str(), X_OK) == 0;
}

std::string FindInPath(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path != nullptr ? path : "";
  // Where a service's PATH lacks them, system programs are still there.
  const std::string all =
      std::string(rest) + ":/usr/local/sbin:/usr/sbin:/sbin";
  rest = all;
  while (!rest.empty()) {
    const std::size_t end = rest.find(':');
    const std::string_view dir = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (dir.empty()) continue;
    std::string candidate = JoinPath(dir, name);
    if (IsProgram(candidate)) return candidate;
  }
  return "";
}

Result<pid_t> SpawnTool(const std::vector<std::string>& argv, int output_fd) {
  std::vector<char*> pointers;
  pointers.reserve(argv.size() + 1);
  for (const std::string& arg : argv) {
    pointers.push_back(const_cast<char*>(arg.c_str()));
  }
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, output_fd, 1);
  ::posix_spawn_file_actions_adddup2(&actions, output_fd, 2);
  pid_t pid = -1;
  const int rc = ::posix_spawn(&pid, argv[0].c_str(), &actions, nullptr,
                               pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (rc != 0) return ErrnoStatus(rc, "run " + argv[0]);
  return pid;
}

// Reads until end of file or the deadline.
bool Collect(int fd, const Deadline& deadline, std::string* output) {
  std::array<std::byte, 4096> buffer;
  for (;;) {
    pollfd p{fd, POLLIN, 0};
    const int rc = ::poll(&p, 1, deadline.LeftMs());
    if (rc < 0 && errno == EINTR) continue;
    if (rc <= 0) return false;
    const Result<std::size_t> n = ReadSome(fd, buffer, "output of a program");
    if (!n.ok() || *n == 0) return true;
    const std::size_t keep = std::min(*n, kOutputLimit - output->size());
    output->append(reinterpret_cast<const char*>(buffer.data()), keep);
  }
}

// Waits for `pid`, up to the deadline.
bool Reap(pid_t pid, const Deadline& deadline, int* status) {
  for (;;) {
    const pid_t rc = ::waitpid(pid, status, WNOHANG);
    if (rc == pid) return true;
    if (rc < 0 && errno != EINTR) return false;
    if (deadline.Passed()) return false;
    SleepNs(500000);
  }
}

}  // namespace

std::string CriuVersion::ToString() const {
  std::string text = std::to_string(major) + "." + std::to_string(minor);
  if (patch != 0) text += "." + std::to_string(patch);
  return text;
}

Result<ToolResult> RunTool(const std::vector<std::string>& argv,
                           int timeout_ms) {
  if (argv.empty()) return Invalid("no program to run");
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  const UniqueFd read_end(fds[0]);
  UniqueFd write_end(fds[1]);
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(std::max(timeout_ms, 0)));
  POS_ASSIGN_OR_RETURN(const pid_t pid, SpawnTool(argv, write_end.get()));
  write_end.Reset();
  ToolResult result;
  int status = 0;
  bool done = Collect(read_end.get(), deadline, &result.output) &&
              Reap(pid, deadline, &status);
  if (!done) {
    ::kill(pid, SIGKILL);
    Reap(pid, Deadline::AfterMs(5000), &status);
    return Timeout(argv[0] + " did not end within " +
                   std::to_string(timeout_ms) + " ms");
  }
  result.exit_code =
      WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return result;
}

Result<std::string> OwnDirectory() {
  std::error_code error;
  const std::filesystem::path self =
      std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return ErrnoStatus(error.value(), "read /proc/self/exe");
  return std::string(self.parent_path());
}

Result<std::string> FindCriu(const std::string& near) {
  const char* named = std::getenv("POS_CRIU");
  if (named != nullptr && *named != '\0') {
    if (IsProgram(named)) return std::string(named);
    return NoSuch(
        std::string("POS_CRIU names ") + named + ", which is not a program",
        "correct or unset POS_CRIU");
  }
  if (!near.empty()) {
    std::error_code error;
    const std::filesystem::path beside = std::filesystem::weakly_canonical(
        std::filesystem::path(near) / ".." / "criu" / "criu", error);
    if (!error && IsProgram(beside)) return std::string(beside);
  }
  std::string found = FindInPath("criu");
  if (!found.empty()) return found;
  return NoSuch("CRIU is not installed", "run scripts/setup, or install criu " +
                                             kCriuMinimum.ToString() +
                                             " and name it in POS_CRIU");
}

Result<CriuVersion> GetCriuVersion(const std::string& criu) {
  POS_ASSIGN_OR_RETURN(const ToolResult run,
                       RunTool({criu, "--version"}, kToolTimeoutMs));
  constexpr std::string_view kLabel = "Version:";
  const std::size_t at = run.output.find(kLabel);
  CriuVersion version;
  if (run.exit_code != 0 || at == std::string::npos ||
      std::sscanf(run.output.c_str() + at + kLabel.size(), " %d.%d.%d",
                  &version.major, &version.minor, &version.patch) < 1) {
    return Incompatible(criu + " does not answer --version as CRIU does: " +
                        run.output.substr(0, 200));
  }
  return version;
}

Result<CriuVersion> RequireCriu(const std::string& criu) {
  POS_ASSIGN_OR_RETURN(const CriuVersion version, GetCriuVersion(criu));
  if (std::tie(version.major, version.minor, version.patch) <
      std::tie(kCriuMinimum.major, kCriuMinimum.minor, kCriuMinimum.patch)) {
    return Incompatible(criu + " is version " + version.ToString() +
                            "; jobs need " + kCriuMinimum.ToString() +
                            " or newer",
                        "run scripts/setup, or name a newer one in POS_CRIU");
  }
  return version;
}

Status CheckCriu(const std::string& criu) {
  POS_RETURN_IF_ERROR(RequireCriu(criu).status());
  POS_ASSIGN_OR_RETURN(const ToolResult run,
                       RunTool({criu, "check"}, kToolTimeoutMs));
  if (run.exit_code == 0) return {};
  std::string words = CriuErrorLines(run.output);
  if (words.empty()) words = run.output.substr(0, 1000);
  return {Code::kCriu, criu + " check: " + words,
          ::geteuid() == 0 ? "" : "CRIU needs root"};
}

bool CriuHasFeature(const std::string& criu, const std::string& feature) {
  const Result<ToolResult> run =
      RunTool({criu, "check", "--feature", feature}, kToolTimeoutMs);
  return run.ok() && run->exit_code == 0;
}

}  // namespace pos
