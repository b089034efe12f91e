#include "pos/cli/commands.h"

#include <unistd.h>

#include <atomic>
#include <memory>
#include <utility>

#include "pos/base/clock.h"
#include "pos/cli/client.h"
#include "pos/cli/json.h"
#include "pos/cli/progress.h"
#include "pos/cli/reconnect.h"
#include "pos/cli/run.h"
#include "pos/cli/show.h"
#include "pos/cli/signal_watch.h"
#include "pos/cli/terminal.h"
#include "pos/cli/text.h"

namespace pos::cli {
namespace {

// One command, from the connection to the exit status.
class Execution {
 public:
  Execution(const Options& options, Console* console)
      : options_(options), console_(console) {}

  int Go();

 private:
  Status Prepare();
  Status Dispatch();

  Status Ps();
  Status Logs();
  Status Wait();
  Status Stop();
  Status Devices();
  Status Check();
  Status Checkpoint();
  Status Restore();
  Status ListImages();
  Status ShowImage();
  Status VerifyImage();
  Status RemoveImage();

  void OnSignal(int signal);
  // An object with --json, else text for people.
  void Print(const std::string& json, const std::string& text);
  // The command answers with an object that has the error in it.
  void PrintFailed(const std::string& json, const std::string& text,
                   const Status& status);
  PosClient::OnProgress Progress(const std::string& title);

  const Options& options_;
  Console* const console_;
  Cancellation cancel_;
  std::atomic<int> signal_{0};
  std::unique_ptr<SignalWatch> watch_;
  std::unique_ptr<PosClient> client_;
  std::unique_ptr<ProgressLine> progress_;
  bool reported_ = false;  // an error has been printed
  int exit_status_ = 0;    // unless a Status says otherwise
};

bool TakesTime(Command command) {
  switch (command) {
    case Command::kPs:
    case Command::kDevices:
    case Command::kImagesList:
    case Command::kImagesShow:
      return false;
    default:
      return true;
  }
}

// What it means that a command was given up.
Status Interrupted(Command command) {
  switch (command) {
    case Command::kCheckpoint:
      return {
          Code::kAborted, "the checkpoint was cancelled",
          "the job runs on; `pos-cli images ls` shows whether the image was "
          "complete by then"};
    case Command::kRestore:
      return {Code::kAborted, "the restore was cancelled",
              "`pos-cli ps` shows whether the job was there by then"};
    case Command::kStop:
      return {Code::kAborted, "no longer waiting for the job's end",
              "posd goes on ending it; `pos-cli ps` shows whether it has"};
    default:
      return Aborted("interrupted");
  }
}

void Execution::OnSignal(int signal) {
  if (signal_.exchange(signal) == 0) {
    cancel_.Cancel();
    return;
  }
  if (progress_ != nullptr) progress_->Clear();
  ::_exit(kExitSignalBase + signal);
}

Status Execution::Prepare() {
  if (TakesTime(options_.command)) {
    SignalWatch::Handlers handlers;
    handlers.signal = [this](const signalfd_siginfo& info) {
      OnSignal(static_cast<int>(info.ssi_signo));
    };
    // Before the connection: gRPC starts threads.
    POS_ASSIGN_OR_RETURN(
        watch_, SignalWatch::Start(InterruptSignals(), std::move(handlers)));
  }
  POS_ASSIGN_OR_RETURN(client_, PosClient::Connect(options_.socket));
  return {};
}

int Execution::Go() {
  Status status = Prepare();
  if (status.ok()) status = Dispatch();
  if (progress_ != nullptr) progress_->Clear();
  watch_.reset();
  const int failure =
      options_.command == Command::kWait ? kExitRunFailure : kExitFailure;
  const int signal = signal_.load();
  if (!status.ok()) {
    const bool interrupted = signal != 0 && status.code() == Code::kAborted;
    // Nobody wants to read that following a log was interrupted.
    const bool quiet = interrupted && !console_->json() &&
                       (options_.command == Command::kLogs ||
                        options_.command == Command::kWait);
    if (interrupted) status = Interrupted(options_.command);
    if (!reported_ && !quiet) console_->Fail(status);
    return interrupted ? kExitSignalBase + signal : failure;
  }
  if (!console_->write_status().ok()) {
    console_->Err(ShowError(console_->write_status()));
    return failure;
  }
  return exit_status_;
}

Status Execution::Dispatch() {
  switch (options_.command) {
    case Command::kRun:
      break;  // see Execute
    case Command::kPs:
      return Ps();
    case Command::kLogs:
      return Logs();
    case Command::kWait:
      return Wait();
    case Command::kStop:
      return Stop();
    case Command::kDevices:
      return Devices();
    case Command::kCheck:
      return Check();
    case Command::kCheckpoint:
      return Checkpoint();
    case Command::kRestore:
      return Restore();
    case Command::kImagesList:
      return ListImages();
    case Command::kImagesShow:
      return ShowImage();
    case Command::kImagesVerify:
      return VerifyImage();
    case Command::kImagesRemove:
      return RemoveImage();
  }
  return Internal("a command without code");
}

void Execution::Print(const std::string& json, const std::string& text) {
  if (progress_ != nullptr) progress_->Clear();
  console_->Out(console_->json() ? json + "\n" : text);
}

void Execution::PrintFailed(const std::string& json, const std::string& text,
                            const Status& status) {
  Print(json, text);
  if (!console_->json()) console_->Fail(status);
  reported_ = true;
}

PosClient::OnProgress Execution::Progress(const std::string& title) {
  const auto size = TerminalSize();
  progress_ = std::make_unique<ProgressLine>(
      ProgressLine::StyleForStderr(console_->json()), title,
      size ? size->ws_col : 80,
      [this](std::string_view text) { console_->Err(text); }, MonotonicNs);
  return [this](const v1::Progress& progress) {
    progress_->Update(
        {progress.phase(), progress.done_bytes(), progress.total_bytes()});
  };
}

Status Execution::Ps() {
  v1::PsRequest request;
  request.set_all(true);
  POS_ASSIGN_OR_RETURN(const v1::PsReply reply, client_->Ps(request));
  Print(ToJson(reply), Show(reply, WallClockMs(), ::geteuid() == 0));
  return {};
}

Status Execution::Logs() {
  v1::LogsRequest request;
  request.set_job(options_.target);
  request.set_follow(options_.follow);
  std::string output;
  POS_RETURN_IF_ERROR(client_->Logs(
      request,
      [&](std::string_view data) {
        if (console_->json()) {
          output += data;
        } else {
          console_->Out(data);
        }
        return console_->write_status().ok();
      },
      &cancel_));
  if (console_->json()) Print(LogsJson(options_.target, output), "");
  return {};
}

Status Execution::Wait() {
  v1::WaitRequest request;
  request.set_job(options_.target);
  Result<v1::WaitReply> ended = client_->Wait(request, &cancel_);
  while (ended.status().code() == Code::kClosed) {
    client_.reset();  // a posd that ends waits for its connections
    if (!console_->json()) {
      console_->Err("pos-cli: " + Printable(ended.status().message()) +
                    "; waiting for posd to come back\n");
    }
    POS_ASSIGN_OR_RETURN(client_,
                         ConnectAgain(options_.socket, JobProcess(0),
                                      [this] { return cancel_.cancelled(); }));
    ended = client_->Wait(request, &cancel_);
  }
  POS_RETURN_IF_ERROR(ended.status());
  const v1::WaitReply& reply = *ended;
  Print(WaitJson(options_.target, reply), "");
  exit_status_ = reply.exit_code();
  if (reply.state() != v1::FAILED) return {};
  if (!console_->json()) {
    console_->Fail(
        Internal("job " + options_.target + " failed: " + reply.message()));
  }
  if (exit_status_ == 0) exit_status_ = kExitRunFailure;
  return {};
}

Status Execution::Stop() {
  v1::StopRequest request;
  request.set_job(options_.target);
  POS_ASSIGN_OR_RETURN(const v1::StopReply reply,
                       client_->Stop(request, &cancel_));
  Print(StopJson(options_.target, reply), ShowStopped(options_.target, reply));
  return {};
}

Status Execution::Devices() {
  POS_ASSIGN_OR_RETURN(const v1::DevicesReply reply, client_->Devices());
  Print(ToJson(reply), Show(reply));
  return {};
}

Status Execution::Check() {
  POS_ASSIGN_OR_RETURN(const v1::CheckReply reply, client_->Check(&cancel_));
  std::string failed;
  for (const v1::CheckResult& check : reply.checks()) {
    if (!check.ok()) failed += (failed.empty() ? "" : ", ") + check.name();
  }
  if (failed.empty()) {
    Print(CheckJson(reply, {}), Show(reply));
    return {};
  }
  const Status status =
      NotReady("not passed: " + failed, "the details say what is missing");
  PrintFailed(CheckJson(reply, status), Show(reply), status);
  return status;
}

Status Execution::Checkpoint() {
  v1::CheckpointRequest request;
  request.set_job(options_.target);
  request.set_mode(options_.mode);
  request.set_stop(options_.stop);
  request.set_tag(options_.tag);
  POS_ASSIGN_OR_RETURN(
      const v1::CheckpointResult result,
      client_->Checkpoint(
          request, Progress("checkpoint of " + Printable(options_.target)),
          &cancel_));
  Print(ToJson(result), Show(result, options_.stop));
  return {};
}

Status Execution::Restore() {
  v1::RestoreRequest request;
  request.set_image(options_.target);
  request.set_name(options_.name);
  request.set_device(options_.device);
  request.set_lazy(options_.lazy);
  switch (options_.files) {
    case FilePolicy::kTruncate:
      request.set_files(v1::RestoreRequest::TRUNCATE);
      break;
    case FilePolicy::kKeep:
      request.set_files(v1::RestoreRequest::KEEP);
      break;
    case FilePolicy::kCopy:
      request.set_files(v1::RestoreRequest::COPY);
      request.set_copy_directory(options_.copy_directory);
      break;
  }
  POS_ASSIGN_OR_RETURN(
      const v1::RestoreResult result,
      client_->Restore(request,
                       Progress("restore of " + Printable(options_.target)),
                       &cancel_));
  Print(ToJson(result), Show(result));
  return {};
}

Status Execution::ListImages() {
  POS_ASSIGN_OR_RETURN(const v1::ListImagesReply reply, client_->ListImages());
  Print(ToJson(reply), Show(reply));
  return {};
}

Status Execution::ShowImage() {
  v1::ShowImageRequest request;
  request.set_image(options_.target);
  POS_ASSIGN_OR_RETURN(const v1::ShowImageReply reply,
                       client_->ShowImage(request));
  POS_ASSIGN_OR_RETURN(const std::string json, ToJson(reply));
  POS_ASSIGN_OR_RETURN(const std::string text, Show(reply));
  Print(json, text);
  return {};
}

Status Execution::VerifyImage() {
  v1::VerifyImageRequest request;
  request.set_image(options_.target);
  POS_ASSIGN_OR_RETURN(
      const v1::VerifyResult result,
      client_->VerifyImage(request, Progress("verify " + options_.target),
                           &cancel_));
  const std::string text = ShowVerified(options_.target, result);
  if (result.problems() == 0) {
    Print(VerifyJson(options_.target, result, {}), text);
    return {};
  }
  const Status status(
      Code::kCorrupt,
      "image " + options_.target + " has " + std::to_string(result.problems()) +
          " problems",
      "restore another image of the job; `pos-cli images rm` removes this one");
  PrintFailed(VerifyJson(options_.target, result, status), text, status);
  return status;
}

Status Execution::RemoveImage() {
  v1::RemoveImageRequest request;
  request.set_image(options_.target);
  POS_RETURN_IF_ERROR(client_->RemoveImage(request, &cancel_));
  Print(RemovedJson(options_.target),
        Printable(options_.target) + " removed\n");
  return {};
}

}  // namespace

int Execute(const Options& options, Console* console) {
  if (options.command == Command::kRun) {
    return options.detach ? RunDetached(options, console)
                          : RunForeground(options, console);
  }
  return Execution(options, console).Go();
}

}  // namespace pos::cli
