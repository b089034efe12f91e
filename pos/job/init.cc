#include "pos/job/init.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <optional>
#include <utility>

#include "pos/base/files.h"
#include "pos/base/process.h"
#include "pos/job/init_tasks.h"
#include "pos/job/messages.h"
#include "pos/job/namespaces.h"
#include "pos/job/program.h"

namespace pos::job {
namespace {

class Init {
 public:
  explicit Init(InitPlan plan)
      : plan_(std::move(plan)), link_(std::move(plan_.link)) {}

  [[noreturn]] void Run() {
    const Status status = Setup();
    InitReport report;
    if (!status.ok()) {
      *report.mutable_failed() = ToMessage(status);
      Send(report);
      ::_exit(1);
    }
    report.set_ready(true);
    Send(report);
    if (plan_.program != nullptr) Fork();
    for (;;) Step();
  }

 private:
  Status Setup() {
    POS_RETURN_IF_ERROR(EnterMounts());
    POS_RETURN_IF_ERROR(SetLastPid(plan_.last_pid));
    for (JobEnd& end : plan_.ends) {
      if (end.kind != StdioEndpoint::TERMINAL) continue;
      // By path and not TIOCGPTPEER: CRIU knows only what was opened through
      // the job's mounts. Stays open, so that the master never reads EIO while
      // the job lives.
      POS_ASSIGN_OR_RETURN(UniqueFd slave,
                           OpenFile(end.slave_path, O_RDWR | O_NOCTTY));
      end.fd = slave.Release();
    }
    for (const ReplacementFile& file : plan_.replacements) {
      POS_ASSIGN_OR_RETURN(UniqueFd fd, OpenReplacement(file));
      replacements_.push_back(std::move(fd));
    }
    sigset_t child;
    ::sigemptyset(&child);
    ::sigaddset(&child, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &child, nullptr);
    signals_.Reset(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_.valid()) return ErrnoStatus(errno, "signalfd");
    return {};
  }

  void Send(const InitReport& report, std::span<const int> fds = {}) {
    // Without the monitor there is nothing left to do.
    if (!SendMessage(&link_, report, fds).ok()) ::_exit(1);
  }

  // The program's process; it waits at the gate.
  void Fork() {
    std::array<int, 2> gate{};
    std::array<int, 2> outcome{};
    if (::pipe2(gate.data(), O_CLOEXEC) != 0 ||
        ::pipe2(outcome.data(), O_CLOEXEC) != 0) {
      FailStart(ErrnoStatus(errno, "pipe"));
    }
    const pid_t pid = ::fork();
    if (pid < 0) FailStart(ErrnoStatus(errno, "fork"));
    if (pid == 0) {
      ::close(gate[1]);
      BecomeProgram(*plan_.program, Streams(plan_.ends), gate[0], outcome[1]);
    }
    main_pid_ = pid;
    gate_.Reset(gate[1]);
    ::close(gate[0]);
    ::close(outcome[1]);
    outcome_.Reset(outcome[0]);
    ClosePipes();
    const Result<UniqueFd> pidfd = OpenPidFd(pid);
    if (!pidfd.ok()) FailStart(pidfd.status());
    const std::array<int, 1> fds = {pidfd->get()};
    InitReport report;
    report.set_forked_ns_pid(pid);
    Send(report, fds);
  }

  [[noreturn]] void FailStart(const Status& status) {
    InitReport report;
    *report.mutable_start_failed() = ToMessage(status);
    Send(report);
    ::_exit(1);
  }

  // The job's sides belong to the job alone now.
  void ClosePipes() {
    for (JobEnd& end : plan_.ends) {
      if (end.kind == StdioEndpoint::TERMINAL || end.fd < 0) continue;
      ::close(end.fd);
      end.fd = -1;
    }
  }

  void Step() {
    std::array<pollfd, 3> polled = {{{link_.fd(), POLLIN, 0},
                                     {signals_.get(), POLLIN, 0},
                                     {outcome_.get(), POLLIN, 0}}};
    if (::poll(polled.data(), polled.size(), -1) < 0) return;  // EINTR
    if (polled[2].revents != 0) ReadOutcome();
    if (polled[1].revents != 0) Reap();
    if (polled[0].revents != 0) ReceiveCommand();
  }

  void ReadOutcome() {
    std::array<std::byte, 4096> buffer;
    const Result<std::size_t> n =
        ReadSome(outcome_.get(), buffer, "the start's outcome");
    if (n.ok() && *n > 0) {
      outcome_bytes_.append(reinterpret_cast<const char*>(buffer.data()), *n);
      return;
    }
    outcome_.Reset();
    const Result<StartOutcome> outcome =
        ParseMessage<StartOutcome>(outcome_bytes_);
    if (!outcome.ok()) FailStart(outcome.status());
    if (outcome->has_error()) FailStart(FromMessage(outcome->error()));
    InitReport report;
    report.mutable_started()->set_ns_pid(main_pid_);
    *report.mutable_started()->mutable_note() = outcome->note();
    Send(report);
    started_ = true;
    MaybeEnd();
  }

  void Reap() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof(info)) > 0) {
    }
    for (;;) {
      int status = 0;
      const pid_t pid = ::waitpid(-1, &status, WNOHANG);
      if (pid <= 0) break;
      if (pid == criu_pid_) {
        CriuEnded(status);
      } else if (pid == main_pid_) {
        main_status_ = status;
      }
    }
    MaybeEnd();
  }

  void CriuEnded(int status) {
    const bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!well) EndGroup(criu_pid_);
    criu_pid_ = 0;
    ::close(kImagesFdInInit);
    ::close(kWorkFdInInit);
    InitReport report;
    report.set_criu_wait_status(status);
    Send(report);
    if (restoring_) {
      restoring_ = false;
      started_ = well;
    }
  }

  // The end of the main program is the end of everything, but it is reported
  // after its start.
  void MaybeEnd() {
    if (!main_status_ || !started_) return;
    InitReport report;
    report.set_ended_wait_status(*main_status_);
    Send(report);
    ::_exit(0);
  }

  void ReceiveCommand() {
    Result<ControlChannel::Message> message = link_.Receive(0);
    if (!message.ok()) {
      if (message.status().code() == Code::kTimeout) return;
      ::_exit(1);  // the monitor is gone
    }
    const Result<InitCommand> command =
        ParseMessage<InitCommand>(message->bytes);
    if (!command.ok()) ::_exit(1);
    Execute(*command, std::move(message->fds));
  }

  void Execute(const InitCommand& command, std::vector<UniqueFd> fds) {
    switch (command.command_case()) {
      case InitCommand::kRunProgram: {
        const char go = 1;
        [[maybe_unused]] const ssize_t n = ::write(gate_.get(), &go, 1);
        gate_.Reset();
        break;
      }
      case InitCommand::kRunCriu:
        RunCriuCommand(command.run_criu(), std::move(fds));
        break;
      case InitCommand::kKillCriu:
        // With its helpers: it leads a group of its own.
        if (criu_pid_ > 0) ::kill(-criu_pid_, SIGKILL);
        break;
      case InitCommand::kAbortCriu:
        if (criu_pid_ > 0) MakeWritesFail(criu_pid_);
        break;
      case InitCommand::kSignal:
        AnswerDone(command.id(), Deliver(command.signal()));
        break;
      case InitCommand::kPoke:
        AnswerDone(command.id(), WriteIntoProcess(command.poke()));
        break;
      case InitCommand::kOpenInside: {
        const Result<UniqueFd> file = OpenForJob(command.open_inside());
        AnswerDone(command.id(), file.status(), file.ok() ? file->get() : -1);
        break;
      }
      case InitCommand::kEnd:
        ::_exit(0);
      case InitCommand::COMMAND_NOT_SET:
        break;
    }
  }

  void AnswerDone(std::uint64_t id, const Status& status, int fd = -1) {
    InitReport report;
    report.mutable_done()->set_id(id);
    if (!status.ok()) {
      *report.mutable_done()->mutable_error() = ToMessage(status);
    }
    const std::array<int, 1> fds = {fd};
    Send(report, fd >= 0 ? std::span<const int>(fds) : std::span<const int>());
  }

  Status Deliver(const Signal& signal) {
    const pid_t target = signal.everyone() ? -1 : main_pid_;
    if (target == 0) return NotReady("the program does not run yet");
    if (::kill(target, signal.signal()) != 0) {
      return ErrnoStatus(errno,
                         "send signal " + std::to_string(signal.signal()));
    }
    return {};
  }

  void RunCriuCommand(const RunCriu& command, std::vector<UniqueFd> fds) {
    const Result<UniqueFd> rpc = StartCriu(command, std::move(fds));
    InitReport report;
    if (!rpc.ok()) {  // as if CRIU had failed at once
      report.set_criu_wait_status(127 << 8);
      Send(report);
      return;
    }
    report.set_criu_started(true);
    const std::array<int, 1> sent = {rpc->get()};
    Send(report, sent);
  }

  Result<UniqueFd> StartCriu(const RunCriu& command,
                             std::vector<UniqueFd> fds) {
    if (fds.size() != 2 || criu_pid_ != 0) return Proto("odd order for CRIU");
    if (::dup3(fds[0].get(), kImagesFdInInit, O_CLOEXEC) < 0 ||
        ::dup3(fds[1].get(), kWorkFdInInit, O_CLOEXEC) < 0) {
      return ErrnoStatus(errno, "dup3");
    }
    CriuLaunch launch;
    launch.criu = plan_.criu;
    launch.plugin_directory = plan_.plugin_directory;
    launch.compat_library = plan_.compat_library;
    launch.dumps = command.restored_root() == 0;
    for (int i = 0; i < command.endpoint_number_size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (command.endpoint_number(i) > 0 && at < plan_.ends.size()) {
        launch.inherit.emplace_back(plan_.ends[at].fd,
                                    command.endpoint_number(i));
      }
    }
    for (int i = 0; i < command.replacement_number_size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (command.replacement_number(i) > 0 && at < replacements_.size()) {
        launch.inherit.emplace_back(replacements_[at].get(),
                                    command.replacement_number(i));
      }
    }
    if (command.restored_root() > 0) {
      main_pid_ = command.restored_root();
      restoring_ = true;
    }
    POS_ASSIGN_OR_RETURN(UniqueFd rpc, launch.Start(&criu_pid_));
    ClosePipes();
    replacements_.clear();
    return rpc;
  }

  InitPlan plan_;
  ControlChannel link_;
  UniqueFd signals_;
  UniqueFd gate_;
  UniqueFd outcome_;
  std::string outcome_bytes_;
  std::vector<UniqueFd> replacements_;
  pid_t main_pid_ = 0;
  pid_t criu_pid_ = 0;
  bool started_ = false;
  bool restoring_ = false;
  std::optional<int> main_status_;
};

// Closes everything but what the plan names: init must hold neither the
// caller's descriptors nor posd's connection open.
void CloseOthers(const InitPlan& plan) {
  std::vector<int> keep = {STDERR_FILENO, plan.link.get()};
  for (const JobEnd& end : plan.ends) {
    if (end.fd >= 0) keep.push_back(end.fd);
  }
  std::sort(keep.begin(), keep.end());
  unsigned next = 0;
  for (const int fd : keep) {
    const auto kept = static_cast<unsigned>(fd);
    if (kept > next) ::syscall(SYS_close_range, next, kept - 1, 0);
    next = kept + 1;
  }
  ::syscall(SYS_close_range, next, ~0u, 0);
  // So that no descriptor of ours gets the number of a standard stream.
  for (int i = 0; i < 2; ++i) ::open("/dev/null", O_RDWR | O_CLOEXEC);
}

}  // namespace

void RunInit(InitPlan plan) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_NAME, "pos-job-init");
  ::prctl(PR_SET_DUMPABLE, 0);
  ::setsid();
  ::umask(0);  // OpenInside gives exact modes
  CloseOthers(plan);
  Init(std::move(plan)).Run();
}

}  // namespace pos::job
