#include "pos/cli/run.h"

#include <unistd.h>

#include <memory>
#include <utility>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/mutex.h"
#include "pos/cli/client.h"
#include "pos/cli/json.h"
#include "pos/cli/reconnect.h"
#include "pos/cli/run_request.h"
#include "pos/cli/signal_watch.h"
#include "pos/cli/terminal.h"
#include "pos/cli/text.h"

namespace pos::cli {
namespace {

// A run in the background looks this often whether it has been brought to the
// foreground: the shell says nothing when it was not stopped.
constexpr int kForegroundPollMs = 250;

bool WouldEnd(int signal) {
  return signal == SIGINT || signal == SIGTERM || signal == SIGHUP ||
         signal == SIGQUIT;
}

v1::WindowSize ToWindow(const winsize& size) {
  v1::WindowSize window;
  window.set_rows(size.ws_row);
  window.set_columns(size.ws_col);
  window.set_x_pixels(size.ws_xpixel);
  window.set_y_pixels(size.ws_ypixel);
  return window;
}

class ForegroundRun {
 public:
  ForegroundRun(const Options& options, Console* console)
      : options_(options), console_(console), terminal_(STDIN_FILENO) {}

  int Go() POS_EXCLUDES(mu_);

 private:
  Status Start() POS_EXCLUDES(mu_);
  Status StartJob(PosClient* client) POS_EXCLUDES(mu_);
  // The job is there and so is posd: signals that came before are passed on.
  void Connected() POS_REQUIRES(mu_);
  Result<v1::WaitReply> WaitForEnd() POS_EXCLUDES(mu_);
  Status Reconnect(const Status& why) POS_EXCLUDES(mu_);

  // On the watch's thread.
  void OnSignal(const signalfd_siginfo& info) POS_EXCLUDES(mu_);
  void OnTick() POS_EXCLUDES(mu_);

  void Handle(int signal, bool everyone) POS_REQUIRES(mu_);
  void Suspend() POS_REQUIRES(mu_);
  // Takes the terminal, or leaves it, as this process is in the foreground or
  // not.
  void FollowForeground() POS_REQUIRES(mu_);
  void Send(int signal, bool everyone) POS_REQUIRES(mu_);
  void SendWindow() POS_REQUIRES(mu_);
  void SendReading(bool read) POS_REQUIRES(mu_);

  struct Pending {
    int signal;
    bool everyone;
  };

  const Options& options_;
  Console* const console_;
  Cancellation starting_;
  // The main thread's.
  JobProcess process_{0};
  int start_failure_ = kExitRunFailure;
  std::unique_ptr<SignalWatch> watch_;
  std::unique_ptr<PosClient> client_;
  Mutex mu_;
  Terminal terminal_ POS_GUARDED_BY(mu_);
  bool reading_ POS_GUARDED_BY(mu_) = true;     // the job reads standard input
  std::string job_ POS_GUARDED_BY(mu_);         // empty: not there yet
  bool connected_ POS_GUARDED_BY(mu_) = false;  // job_ can be asked for
  bool given_up_ POS_GUARDED_BY(mu_) = false;
  std::vector<Pending> pending_ POS_GUARDED_BY(mu_);
  int ending_signal_ POS_GUARDED_BY(mu_) = 0;
};

Status ForegroundRun::StartJob(PosClient* client) {
  POS_ASSIGN_OR_RETURN(v1::RunRequest request, MakeRunRequest(options_));
  Ticket ticket;
  RandomBytes(ticket);
  request.set_ticket(ticket.data(), ticket.size());
  if (const auto size = TerminalSize()) {
    *request.mutable_window() = ToWindow(*size);
  }
  {
    MutexLock lock(&mu_);
    reading_ = !terminal_.is_terminal() || terminal_.InForeground();
    request.set_stdin_paused(!reading_);
  }
  POS_ASSIGN_OR_RETURN(
      const UniqueFd offer,
      client->Offer(ticket, {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}));
  const Result<v1::RunReply> run = client->Run(request, &starting_);
  if (!run.ok()) {
    start_failure_ = ExitStatusFor(run.status(), options_.argv.front());
    return run.status();
  }
  const v1::RunReply& reply = *run;
  process_ = JobProcess(reply.pid());
  MutexLock lock(&mu_);
  job_ = reply.job();
  Connected();
  return {};
}

void ForegroundRun::Connected() {
  connected_ = true;
  ending_signal_ = 0;
  FollowForeground();
  for (const Pending& pending : std::exchange(pending_, {})) {
    Handle(pending.signal, pending.everyone);
  }
}

Status ForegroundRun::Start() {
  SignalWatch::Handlers handlers;
  handlers.signal = [this](const signalfd_siginfo& info) { OnSignal(info); };
  bool terminal = false;
  {
    MutexLock lock(&mu_);
    terminal = terminal_.is_terminal();
  }
  if (terminal) {
    handlers.tick = [this] { OnTick(); };
    handlers.tick_ms = kForegroundPollMs;
  }
  // Before the connection: gRPC starts threads.
  POS_ASSIGN_OR_RETURN(
      watch_, SignalWatch::Start(ForwardedSignals(), std::move(handlers)));
  POS_ASSIGN_OR_RETURN(std::unique_ptr<PosClient> client,
                       PosClient::Connect(options_.socket));
  {
    MutexLock lock(&mu_);
    client_ = std::move(client);
  }
  return StartJob(client_.get());
}

int ForegroundRun::Go() {
  const Status started = Start();
  if (!started.ok()) {
    watch_.reset();
    MutexLock lock(&mu_);
    terminal_.Restore();
    if (ending_signal_ != 0 && started.code() == Code::kAborted) {
      return kExitSignalBase + ending_signal_;
    }
    console_->Fail(started);
    return start_failure_;
  }
  const Result<v1::WaitReply> ended = WaitForEnd();
  std::string job;
  int signal = 0;
  {
    MutexLock lock(&mu_);
    connected_ = false;
    terminal_.Restore();
    job = job_;
    if (given_up_) signal = ending_signal_;
  }
  watch_.reset();
  if (!ended.ok()) {
    console_->FailOnStderr(ended.status().WithContext("job " + job));
    return signal != 0 ? kExitSignalBase + signal : kExitRunFailure;
  }
  if (ended->state() == v1::FAILED) {
    console_->FailOnStderr(
        Internal("job " + job + " failed: " + ended->message()));
    return ended->exit_code() == 0 ? kExitRunFailure : ended->exit_code();
  }
  return ended->exit_code();
}

Result<v1::WaitReply> ForegroundRun::WaitForEnd() {
  v1::WaitRequest request;
  PosClient* client = nullptr;
  for (;;) {
    {
      MutexLock lock(&mu_);
      request.set_job(job_);
      client = client_.get();
    }
    Result<v1::WaitReply> ended = client->Wait(request, nullptr);
    if (ended.ok() || ended.status().code() != Code::kClosed) return ended;
    POS_RETURN_IF_ERROR(Reconnect(ended.status()));
  }
}

Status ForegroundRun::Reconnect(const Status& why) {
  {
    MutexLock lock(&mu_);
    connected_ = false;
    client_.reset();  // a posd that ends waits for its connections
    if (!console_->json()) {
      console_->Err("pos-cli: " + Printable(why.message()) + "; waiting for " +
                    "posd to come back" + (terminal_.raw() ? "\r\n" : "\n"));
    }
  }
  POS_ASSIGN_OR_RETURN(std::unique_ptr<PosClient> client,
                       ConnectAgain(options_.socket, process_, [this] {
                         MutexLock lock(&mu_);
                         return given_up_;
                       }));
  MutexLock lock(&mu_);
  client_.swap(client);
  Connected();
  return {};
}

void ForegroundRun::OnSignal(const signalfd_siginfo& info) {
  const int signal = static_cast<int>(info.ssi_signo);
  // A terminal's keys, and its end, are for everyone.
  const bool everyone = info.ssi_code == SI_KERNEL;
  MutexLock lock(&mu_);
  if (connected_) {
    Handle(signal, everyone);
    return;
  }
  if (WouldEnd(signal)) {
    if (ending_signal_ != 0) {
      given_up_ = true;
      starting_.Cancel();
    }
    ending_signal_ = signal;
  }
  pending_.push_back({signal, everyone});
}

void ForegroundRun::OnTick() {
  MutexLock lock(&mu_);
  if (connected_) FollowForeground();
}

void ForegroundRun::Handle(int signal, bool everyone) {
  switch (signal) {
    case SIGWINCH:
      SendWindow();
      return;
    case SIGTSTP:
      Suspend();
      return;
    case SIGCONT:
      // Our own end of a stop is told in Suspend; somebody else's SIGCONT is
      // for a job that somebody else has stopped.
      Send(SIGCONT, true);
      FollowForeground();
      return;
    default:
      Send(signal, everyone);
  }
}

void ForegroundRun::Suspend() {
  Send(SIGSTOP, true);
  if (reading_ && terminal_.is_terminal()) SendReading(false);
  terminal_.Restore();
  // To this thread, so that it goes no further before the process is stopped.
  ::raise(SIGSTOP);
  // Here again after SIGCONT.
  Send(SIGCONT, true);
  FollowForeground();
  SendWindow();
}

void ForegroundRun::FollowForeground() {
  if (!terminal_.is_terminal()) return;
  const bool foreground = terminal_.InForeground();
  if (foreground && !terminal_.raw()) {
    const Status status = terminal_.MakeRaw(::isatty(STDOUT_FILENO) == 1);
    if (status.ok() && !reading_) {
      SendWindow();
      SendReading(true);
    }
  } else if (!foreground && terminal_.raw()) {
    terminal_.Forget();
    SendReading(false);
  }
}

void ForegroundRun::Send(int signal, bool everyone) {
  v1::SignalRequest request;
  request.set_job(job_);
  request.set_signal(signal);
  request.set_everyone(everyone);
  // A job that has just ended takes no signal; its end is on its way here.
  client_->Signal(request).IgnoreError();
}

void ForegroundRun::SendWindow() {
  const auto size = TerminalSize();
  if (!size) return;
  v1::SetTerminalRequest request;
  request.set_job(job_);
  *request.mutable_window() = ToWindow(*size);
  client_->SetTerminal(request).IgnoreError();
}

void ForegroundRun::SendReading(bool read) {
  v1::SetTerminalRequest request;
  request.set_job(job_);
  request.set_set_stdin(true);
  request.set_read_stdin(read);
  client_->SetTerminal(request).IgnoreError();
  reading_ = read;
}

}  // namespace

int RunForeground(const Options& options, Console* console) {
  return ForegroundRun(options, console).Go();
}

int RunDetached(const Options& options, Console* console) {
  int failure = kExitRunFailure;
  const auto run = [&]() -> Result<v1::RunReply> {
    POS_ASSIGN_OR_RETURN(const v1::RunRequest request, MakeRunRequest(options));
    POS_ASSIGN_OR_RETURN(const std::unique_ptr<PosClient> client,
                         PosClient::Connect(options.socket));
    Result<v1::RunReply> reply = client->Run(request, nullptr);
    if (!reply.ok()) {
      failure = ExitStatusFor(reply.status(), options.argv.front());
    }
    return reply;
  };
  const Result<v1::RunReply> reply = run();
  if (!reply.ok()) {
    console->Fail(reply.status());
    return failure;
  }
  console->Out(console->json() ? ToJson(*reply) + "\n"
                               : Printable(reply->job()) + "\n");
  return console->write_status().ok() ? 0 : kExitRunFailure;
}

}  // namespace pos::cli
