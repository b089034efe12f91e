#include "pos/cli/commands.h"

#include <unistd.h>

#include <utility>

#include "pos/base/clock.h"
#include "pos/cli/execution.h"
#include "pos/cli/json.h"
#include "pos/cli/reconnect.h"
#include "pos/cli/run.h"
#include "pos/cli/show.h"
#include "pos/cli/terminal.h"
#include "pos/cli/text.h"
#include "pos/cli/trace_file.h"

namespace pos::cli {
namespace {

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

// What it means that a command was given up. `in_place`: what an export writes
// is seen at once, as in a FIFO.
Status Interrupted(Command command, bool in_place) {
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
    case Command::kImagesExport:
      return {Code::kAborted, "the export was cancelled",
              in_place ? "what has been written by then is no image"
                       : "there is no file"};
    case Command::kImagesImport:
      return {Code::kAborted, "the import was cancelled",
              "`pos-cli images ls` shows whether the image was complete by "
              "then"};
    default:
      return Aborted("interrupted");
  }
}

}  // namespace

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
    if (interrupted) status = Interrupted(options_.command, writes_in_place_);
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
    case Command::kImagesDiff:
      return DiffImages();
    case Command::kImagesGc:
      return CollectGarbage();
    case Command::kImagesExport:
      return ExportImage();
    case Command::kImagesImport:
      return ImportImage();
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

Status Execution::SetSeries() {
  v1::SetSeriesRequest request;
  request.set_job(options_.target);
  request.set_every_ms(*options_.every_ms);
  request.set_keep(options_.keep);
  request.set_mode(options_.mode);
  POS_RETURN_IF_ERROR(client_->SetSeries(request));
  Print(SeriesJson(request), ShowSeries(request));
  return {};
}

Status Execution::Checkpoint() {
  if (options_.every_ms) return SetSeries();
  v1::CheckpointRequest request;
  request.set_job(options_.target);
  request.set_mode(options_.mode);
  request.set_stop(options_.stop);
  request.set_tag(options_.tag);
  POS_ASSIGN_OR_RETURN(const UniqueFd trace, OpenTrace(options_.trace));
  request.set_trace(trace.valid());
  POS_ASSIGN_OR_RETURN(
      const v1::CheckpointResult result,
      client_->Checkpoint(
          request, Progress("checkpoint of " + Printable(options_.target)),
          &cancel_));
  Print(ToJson(result), Show(result, options_.stop));
  return WriteTrace(trace.get(), options_.trace,
                    "checkpoint of " + options_.target, result.trace());
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
  POS_ASSIGN_OR_RETURN(const UniqueFd trace, OpenTrace(options_.trace));
  request.set_trace(trace.valid());
  POS_ASSIGN_OR_RETURN(
      const v1::RestoreResult result,
      client_->Restore(request,
                       Progress("restore of " + Printable(options_.target)),
                       &cancel_));
  Print(ToJson(result), Show(result));
  return WriteTrace(trace.get(), options_.trace,
                    "restore of " + options_.target, result.trace());
}

int Execute(const Options& options, Console* console) {
  if (options.command == Command::kRun) {
    return options.detach ? RunDetached(options, console)
                          : RunForeground(options, console);
  }
  return Execution(options, console).Go();
}

}  // namespace pos::cli
