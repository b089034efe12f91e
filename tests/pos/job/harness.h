// A pos-job under test: started as posd does it, in a directory of its own,
// with everything that it says kept, and with nothing left at the end.
#ifndef TESTS_POS_JOB_HARNESS_H_
#define TESTS_POS_JOB_HARNESS_H_

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/job/client.h"
#include "pos/job/job.pb.h"

namespace pos::job {

inline constexpr int kWaitMs = 8000;

// Path of the program that jobs run (victim.cc).
std::string VictimPath();
std::string PosJobPath();
// Empty, with the reason in *why, when dumps cannot be tested here.
std::string UsableCriu(std::string* why);
bool IsRoot();

// A directory below /tmp that is removed at the end.
class ScratchDirectory {
 public:
  explicit ScratchDirectory(const std::string& name);
  ~ScratchDirectory();
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string Path(const std::string& name) const;

 private:
  std::string path_;
};

std::string ReadAll(const std::string& path);  // "" when absent
// Polls `condition` until it holds; false after kWaitMs.
bool Eventually(const std::function<bool()>& condition,
                int timeout_ms = kWaitMs);
// Descriptors of a new pipe, close-on-exec.
struct Pipe {
  Pipe();
  // All that comes until end of file or the time-out.
  std::string ReadToEnd(int timeout_ms = kWaitMs);
  // Until `text` has come.
  std::string ReadUntil(const std::string& text, int timeout_ms = kWaitMs);
  UniqueFd read_end;
  UniqueFd write_end;
};
std::string ReadFdUntil(int fd, const std::string& text,
                        int timeout_ms = kWaitMs);

class TestJob {
 public:
  explicit TestJob(const std::string& name);
  // Kills what is left.
  ~TestJob();

  // The configuration that Start will use: this process's identity and
  // environment, the victim with `args`, detached.
  StartProgram* Program(const std::vector<std::string>& args);
  // A restore of the image in `directory`.
  StartRestore* Restore(const std::string& image_directory);
  void SetStdin(int fd) { config_.mutable_stdio()->set_stdin_fd(AddFd(fd)); }
  void SetStdout(int fd) { config_.mutable_stdio()->set_stdout_fd(AddFd(fd)); }
  void SetStderr(int fd) { config_.mutable_stdio()->set_stderr_fd(AddFd(fd)); }
  std::uint32_t AddFd(int fd);
  JobConfig* config() { return &config_; }

  // Starts pos-job and waits until the program runs.
  void Start();
  // The same; a start that fails is returned.
  Status TryStart();
  // As a posd that was started again.
  void Reconnect();
  void Disconnect() { client_.reset(); }

  // First event that has not been taken and fits, in order.
  bool WaitEvent(const std::function<bool(const Event&)>& fits, Event* event,
                 int timeout_ms = kWaitMs);
  // Waits for the program's end and acknowledges it.
  ProgramEnded WaitEnd(int timeout_ms = kWaitMs);

  Result<Reply> Call(const ToJob& request, const std::vector<int>& fds = {},
                     int timeout_ms = kWaitMs, UniqueFd* opened = nullptr);
  Status SendSignal(int number, bool everyone = false);
  // Posts a Dump into `directory` (made); the answer comes with WaitDumped.
  std::uint64_t PostDump(const std::string& directory,
                         std::uint64_t hold_ms = 0,
                         std::uint64_t timeout_ms = 0);
  bool WaitFrozen(Frozen* frozen, int timeout_ms = kWaitMs);
  Status Decide(Verdict::Kind kind);
  Result<Dumped> WaitDumped(std::uint64_t id, int timeout_ms = kWaitMs);
  // Dump, verdict, answer.
  Result<Dumped> DumpTo(const std::string& directory, Verdict::Kind verdict);

  [[nodiscard]] const std::string& directory() const { return scratch_.path(); }
  [[nodiscard]] std::string Log() const;
  [[nodiscard]] bool LogHas(const std::string& text) const;
  [[nodiscard]] bool WaitLog(const std::string& text) const;
  [[nodiscard]] const ProgramStarted& started() const { return started_; }
  [[nodiscard]] JobClient* client() { return client_.get(); }
  [[nodiscard]] pid_t monitor_pid() const { return monitor_pid_; }
  // No process of the job is left, and pos-job itself has ended.
  [[nodiscard]] bool Gone() const;

 private:
  JobClient::Handlers MakeHandlers();
  // Whether the answer to a Dump has come.
  bool TakeAnswer(std::uint64_t id, Result<Dumped>* answer) POS_REQUIRES(mu_);

  ScratchDirectory scratch_;
  JobConfig config_;
  std::vector<UniqueFd> fds_;
  Mutex mu_;
  CondVar changed_;
  std::deque<Event> events_ POS_GUARDED_BY(mu_);
  std::vector<Reply> stray_ POS_GUARDED_BY(mu_);
  std::unique_ptr<JobClient> client_;
  ProgramStarted started_;
  pid_t monitor_pid_ = 0;
  pid_t init_pid_ = 0;
};

}  // namespace pos::job

#endif  // TESTS_POS_JOB_HARNESS_H_
