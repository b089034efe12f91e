#include "tests/pos/job/harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>

#include "ckpt/criu/criu.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/process.h"

extern char** environ;

namespace pos::job {

std::string VictimPath() { return POS_TEST_VICTIM; }
std::string PosJobPath() { return POS_TEST_POS_JOB; }
bool IsRoot() { return ::geteuid() == 0; }

namespace {

Result<std::string> LookForCriu() {
  if (!IsRoot()) return Denied("CRIU needs root");
  POS_ASSIGN_OR_RETURN(std::string criu, FindCriu(POS_TEST_BIN_DIRECTORY));
  POS_RETURN_IF_ERROR(CheckCriu(criu));
  return criu;
}

}  // namespace

std::string UsableCriu(std::string* why) {
  static const Result<std::string> criu = LookForCriu();
  if (criu.ok()) return *criu;
  *why = criu.status().message();
  return "";
}

ScratchDirectory::ScratchDirectory(const std::string& name) {
  static int counter = 0;
  path_ = "/tmp/posjob." + std::to_string(::getpid()) + "." +
          std::to_string(counter++) + "." + name;
  EXPECT_TRUE(RemoveTree(path_).ok());
  EXPECT_TRUE(MakeDirectories(path_, 0755).ok());
}

ScratchDirectory::~ScratchDirectory() { EXPECT_TRUE(RemoveTree(path_).ok()); }

std::string ScratchDirectory::Path(const std::string& name) const {
  return JoinPath(path_, name);
}

std::string ReadAll(const std::string& path) {
  const Result<std::string> content = ReadWholeFile(path, 1u << 30);
  return content.ok() ? *content : "";
}

bool Eventually(const std::function<bool()>& condition, int timeout_ms) {
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(timeout_ms));
  while (!condition()) {
    if (deadline.Passed()) return false;
    SleepNs(2000000);
  }
  return true;
}

Pipe::Pipe() {
  std::array<int, 2> fds{};
  EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
  read_end.Reset(fds[0]);
  write_end.Reset(fds[1]);
}

std::string ReadFdUntil(int fd, const std::string& text, int timeout_ms) {
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(timeout_ms));
  std::string got;
  std::array<char, 4096> buffer;
  while (text.empty() || got.find(text) == std::string::npos) {
    pollfd p{fd, POLLIN, 0};
    if (::poll(&p, 1, deadline.LeftMs()) <= 0) break;
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n <= 0) break;
    got.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return got;
}

std::string Pipe::ReadToEnd(int timeout_ms) {
  write_end.Reset();
  return ReadFdUntil(read_end.get(), "", timeout_ms);
}

std::string Pipe::ReadUntil(const std::string& text, int timeout_ms) {
  return ReadFdUntil(read_end.get(), text, timeout_ms);
}

TestJob::TestJob(const std::string& name) : scratch_(name) {
  config_.set_name(name);
  config_.set_directory(scratch_.path());
  config_.set_linger_ms(2000);
  std::string why;
  config_.set_criu(UsableCriu(&why));
}

TestJob::~TestJob() {
  if (client_ != nullptr) client_->AckExit().IgnoreError();
  if (monitor_pid_ > 0 && !Eventually([this] { return Gone(); }, 50)) {
    ::kill(monitor_pid_, SIGKILL);
  }
  // Reaps it.
  client_.reset();
  if (monitor_pid_ > 0) {
    EXPECT_TRUE(Eventually([this] { return Gone(); }))
        << "processes of the job are left";
  }
}

bool TestJob::Gone() const {
  const auto ended = [](pid_t pid) {
    if (pid <= 0) return true;
    const std::string stat = ReadAll("/proc/" + std::to_string(pid) + "/stat");
    const std::size_t close = stat.rfind(')');
    return close == std::string::npos || stat.substr(close + 2, 1) == "Z";
  };
  return ended(monitor_pid_) && ended(init_pid_) && ended(started_.pid());
}

std::uint32_t TestJob::AddFd(int fd) {
  Result<UniqueFd> copy = DuplicateFd(fd);
  EXPECT_TRUE(copy.ok());
  fds_.push_back(std::move(*copy));
  return static_cast<std::uint32_t>(fds_.size());
}

StartProgram* TestJob::Program(const std::vector<std::string>& args) {
  StartProgram* program = config_.mutable_start();
  program->Clear();
  program->add_argv(VictimPath());
  for (const std::string& arg : args) program->add_argv(arg);
  for (char** variable = environ; *variable != nullptr; ++variable) {
    program->add_environment(*variable);
  }
  program->set_directory("/");
  program->set_uid(::geteuid());
  program->set_gid(::getegid());
  program->set_umask(022);
  return program;
}

StartRestore* TestJob::Restore(const std::string& image_directory) {
  StartRestore* restore = config_.mutable_restore();
  restore->Clear();
  const Result<UniqueFd> fd = OpenFile(image_directory, O_RDONLY | O_DIRECTORY);
  EXPECT_TRUE(fd.ok());
  restore->set_images_fd(AddFd(fd->get()));
  return restore;
}

JobClient::Handlers TestJob::MakeHandlers() {
  JobClient::Handlers handlers;
  handlers.event = [this](const Event& event) {
    MutexLock lock(&mu_);
    events_.push_back(event);
    changed_.NotifyAll();
  };
  handlers.stray_reply = [this](const Reply& reply) {
    MutexLock lock(&mu_);
    stray_.push_back(reply);
    changed_.NotifyAll();
  };
  return handlers;
}

Status TestJob::TryStart() {
  std::vector<int> fds;
  for (const UniqueFd& fd : fds_) fds.push_back(fd.get());
  Result<std::unique_ptr<JobClient>> client =
      JobClient::Spawn(PosJobPath(), config_, fds, MakeHandlers());
  fds_.clear();
  POS_RETURN_IF_ERROR(client.status());
  client_ = std::move(*client);
  monitor_pid_ = client_->hello().monitor_pid();
  Event event;
  if (!WaitEvent(
          [](const Event& e) {
            return e.has_started() || e.has_start_failed();
          },
          &event)) {
    return Timeout("the job did not start");
  }
  if (event.has_start_failed()) {
    return {CodeFromName(event.start_failed().code()),
            event.start_failed().message(), event.start_failed().hint()};
  }
  started_ = event.started();
  return {};
}

void TestJob::Start() {
  const Status status = TryStart();
  ASSERT_TRUE(status.ok()) << status.ToString() << "\n"
                           << ReadAll(scratch_.Path("pos-job.log"));
}

void TestJob::Reconnect() {
  client_.reset();
  Result<std::unique_ptr<JobClient>> client =
      JobClient::Connect(scratch_.path(), MakeHandlers());
  ASSERT_TRUE(client.ok()) << client.status().ToString();
  client_ = std::move(*client);
  init_pid_ = client_->hello().init_pid();
}

bool TestJob::WaitEvent(const std::function<bool(const Event&)>& fits,
                        Event* event, int timeout_ms) {
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(timeout_ms));
  MutexLock lock(&mu_);
  for (;;) {
    for (auto it = events_.begin(); it != events_.end(); ++it) {
      if (!fits(*it)) continue;
      *event = *it;
      events_.erase(it);
      return true;
    }
    if (deadline.Passed()) return false;
    changed_.WaitFor(&mu_, std::chrono::nanoseconds(deadline.LeftNs()));
  }
}

ProgramEnded TestJob::WaitEnd(int timeout_ms) {
  Event event;
  if (client_ == nullptr) return {};  // did not start, said already
  if (!WaitEvent([](const Event& e) { return e.has_ended(); }, &event,
                 timeout_ms)) {
    ADD_FAILURE() << "the program did not end";
    return {};
  }
  client_->AckExit().IgnoreError();
  return event.ended();
}

Result<Reply> TestJob::Call(const ToJob& request, const std::vector<int>& fds,
                            int timeout_ms, UniqueFd* opened) {
  return client_->Call(request, fds, timeout_ms, opened);
}

Status TestJob::SendSignal(int number, bool everyone) {
  ToJob request;
  request.mutable_signal()->set_signal(number);
  request.mutable_signal()->set_everyone(everyone);
  return Call(request).status();
}

std::uint64_t TestJob::PostDump(const std::string& directory,
                                std::uint64_t hold_ms,
                                std::uint64_t timeout_ms) {
  EXPECT_TRUE(MakeDirectories(directory).ok());
  const Result<UniqueFd> fd = OpenFile(directory, O_RDONLY | O_DIRECTORY);
  EXPECT_TRUE(fd.ok());
  ToJob request;
  request.mutable_dump()->set_images_fd(1);
  request.mutable_dump()->set_hold_ms(hold_ms);
  request.mutable_dump()->set_timeout_ms(timeout_ms);
  const std::array<int, 1> fds = {fd->get()};
  const Result<std::uint64_t> id = client_->Post(request, fds);
  EXPECT_TRUE(id.ok()) << id.status().ToString();
  return id.ok() ? *id : 0;
}

bool TestJob::WaitFrozen(Frozen* frozen, int timeout_ms) {
  Event event;
  if (!WaitEvent([](const Event& e) { return e.has_frozen(); }, &event,
                 timeout_ms)) {
    return false;
  }
  *frozen = event.frozen();
  return true;
}

Status TestJob::Decide(Verdict::Kind kind) {
  ToJob request;
  request.mutable_verdict()->set_kind(kind);
  return Call(request).status();
}

bool TestJob::TakeAnswer(std::uint64_t id, Result<Dumped>* answer) {
  for (const Reply& reply : stray_) {
    if (reply.id() != id) continue;
    if (reply.has_error()) {
      *answer = Status(CodeFromName(reply.error().code()),
                       reply.error().message(), reply.error().hint());
    } else {
      *answer = reply.dumped();
    }
    return true;
  }
  return false;
}

Result<Dumped> TestJob::WaitDumped(std::uint64_t id, int timeout_ms) {
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(timeout_ms));
  Result<Dumped> answer = Timeout("no answer to the dump");
  MutexLock lock(&mu_);
  while (!TakeAnswer(id, &answer) && !deadline.Passed()) {
    changed_.WaitFor(&mu_, std::chrono::nanoseconds(deadline.LeftNs()));
  }
  return answer;
}

Result<Dumped> TestJob::DumpTo(const std::string& directory,
                               Verdict::Kind verdict) {
  const std::uint64_t id = PostDump(directory);
  const Deadline deadline = Deadline::AfterMs(kWaitMs);
  bool frozen = false;
  Result<Dumped> answer = Timeout("the dump did not come to an end");
  {
    MutexLock lock(&mu_);
    while (!frozen && !TakeAnswer(id, &answer) && !deadline.Passed()) {
      for (const Event& event : events_) frozen |= event.has_frozen();
      if (!frozen) {
        changed_.WaitFor(&mu_, std::chrono::nanoseconds(deadline.LeftNs()));
      }
    }
  }
  if (!frozen) return answer;
  Frozen event;
  WaitFrozen(&event, 0);
  POS_RETURN_IF_ERROR(Decide(verdict));
  return WaitDumped(id);
}

std::string TestJob::Log() const {
  return ReadAll(scratch_.Path("output.log"));
}

bool TestJob::LogHas(const std::string& text) const {
  return Log().find(text) != std::string::npos;
}

bool TestJob::WaitLog(const std::string& text) const {
  return Eventually([this, &text] { return LogHas(text); });
}

}  // namespace pos::job
