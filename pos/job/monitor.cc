#include "pos/job/monitor.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "ckpt/criu/criu.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/base/process.h"
#include "pos/job/exit_file.h"
#include "pos/job/messages.h"
#include "pos/job/namespaces.h"

namespace pos::job {
namespace {

constexpr std::uint64_t kMsNs = 1000000;
constexpr std::uint64_t kDefaultLingerMs = 60000;
// The end is reported when the caller has all output, or has taken none of it
// for this long.
constexpr std::uint64_t kPatienceNs = 10000 * kMsNs;
constexpr std::uint64_t kDeliverStepNs = 20 * kMsNs;
// A caller that never takes the rest is given up after this.
constexpr std::uint64_t kGiveUpNs = 24ull * 3600 * 1000 * kMsNs;

// The pid, as seen here, of the process behind a pidfd that another process
// opened.
pid_t PidOfPidFd(int pidfd) {
  const Result<std::string> info =
      ReadWholeFile("/proc/self/fdinfo/" + std::to_string(pidfd));
  if (!info.ok()) return 0;
  std::istringstream lines(*info);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, 4, "Pid:") == 0) {
      return static_cast<pid_t>(std::max(0, std::atoi(line.c_str() + 4)));
    }
  }
  return 0;
}

}  // namespace

Monitor::Monitor(JobConfig config, std::vector<UniqueFd> fds, UniqueFd posd)
    : config_(std::move(config)),
      fds_(std::move(fds)),
      first_connection_(std::move(posd)) {}

Monitor::~Monitor() {
  // Before what their handlers refer to.
  dump_.reset();
  restore_.reset();
  init_.reset();
  stdio_.reset();
  posd_.reset();
}

Status Monitor::Run() {
  posd_ = std::make_unique<PosdLink>(
      &loop_, PosdLink::Handlers{
                  [this] { return MakeHello(); },
                  [this](const ToJob& request, std::vector<UniqueFd> fds) {
                    OnRequest(request, std::move(fds));
                  },
                  [] {}});
  posd_->Adopt(std::move(first_connection_));
  const Status status = Setup();
  if (!status.ok()) FailStart(status);
  POS_RETURN_IF_ERROR(loop_.Run());
  return start_status_;
}

UniqueFd Monitor::TakeFd(std::uint32_t index) {
  return index > 0 && index <= fds_.size() ? std::move(fds_[index - 1])
                                           : UniqueFd();
}

Status Monitor::Setup() {
  POS_RETURN_IF_ERROR(posd_->Listen(JoinPath(config_.directory(), "job.sock")));
  POS_RETURN_IF_ERROR(
      MakeDirectories(JoinPath(config_.directory(), "criu/plugins")));
  POS_RETURN_IF_ERROR(RemoveFile(JoinPath(config_.directory(), "exit.json")));
  const Stdio& stdio = config_.stdio();
  JobStdio::CallerFds caller = {TakeFd(stdio.stdin_fd()),
                                TakeFd(stdio.stdout_fd()),
                                TakeFd(stdio.stderr_fd())};
  if (config_.has_restore()) {
    restore_ = std::make_unique<RestoreOperation>(
        &loop_, config_.restore(), std::move(fds_),
        JoinPath(config_.directory(), "criu"), config_.name(),
        config_.criu_log_level() > 0 ? config_.criu_log_level() : 2);
    state_ = Hello::RESTORING;
    POS_RETURN_IF_ERROR(restore_->Prepare());
  } else if (!config_.has_start()) {
    return Proto("a configuration without a program");
  }
  fds_.clear();
  POS_RETURN_IF_ERROR(SetupStreams(std::move(caller)));
  return StartInit();
}

Status Monitor::SetupStreams(JobStdio::CallerFds caller) {
  std::optional<std::uint64_t> cut;
  if (restore_ && config_.restore().cut_log()) {
    cut = restore_->image().log_bytes();
  }
  POS_ASSIGN_OR_RETURN(
      log_, LogFile::Open(JoinPath(config_.directory(), "output.log"), cut));
  stdio_ =
      std::make_unique<JobStdio>(&loop_, &log_, config_.stdio(),
                                 [this](int stream, const std::string& why) {
                                   Event event;
                                   event.mutable_caller_gone()->set_stream(
                                       static_cast<std::uint32_t>(stream));
                                   event.mutable_caller_gone()->set_why(why);
                                   posd_->SendEvent(event);
                                 });
  if (restore_) {
    return stdio_->CreateFromImage(restore_->image(), std::move(caller));
  }
  return stdio_->CreateNew(std::move(caller), config_.start().uid(),
                           config_.start().gid());
}

Status Monitor::StartInit() {
  InitPlan plan;
  plan.ends = stdio_->JobSide();
  plan.criu = config_.criu();
  plan.plugin_directory = JoinPath(config_.directory(), "criu/plugins");
  const Result<std::string> own = OwnDirectory();
  if (own.ok()) {
    const std::string library = *own + "/../lib/pos/libpos-criu-compat.so";
    if (PathExists(library)) plan.compat_library = library;
  }
  if (restore_) {
    plan.last_pid = restore_->last_pid();
    plan.replacements = restore_->replacements();
  } else {
    plan.last_pid = kFirstLastPid;
    plan.program = &config_.start();
  }
  POS_ASSIGN_OR_RETURN(
      init_, InitLink::Start(
                 &loop_, std::move(plan),
                 {[this](const InitReport& report, std::vector<UniqueFd> fds) {
                    OnInitReport(report, std::move(fds));
                  },
                  [this] { OnInitGone(); }}));
  stdio_->CloseJobSide();
  return {};
}

void Monitor::FailStart(const Status& status) {
  if (ended_) return;
  POS_LOG(kError, "the job could not be started", {{"why", status.ToString()}});
  start_status_ = status;
  ProgramEnded ended;
  ended.set_reason(ProgramEnded::START_FAILED);
  // As a shell: 127 for a program that is not there, else 126.
  ended.set_exit_code(status.code() == Code::kNoSuch ? 127 : 126);
  ended.set_ended_at_ms(WallClockMs());
  ended.set_message(status.message());
  SetEnded(ended);
  Event event;
  *event.mutable_start_failed() = ToMessage(status);
  posd_->SendEvent(event);
  if (init_ && init_->alive()) {
    init_->Kill();  // the rest in OnInitGone
  } else {
    OnInitGone();
  }
}

void Monitor::OnInitReport(const InitReport& report,
                           std::vector<UniqueFd> fds) {
  CriuRun* criu = restore_ ? restore_->criu() : nullptr;
  if (dump_) criu = dump_->criu();
  switch (report.report_case()) {
    case InitReport::kReady:
      OnInitReady();
      break;
    case InitReport::kFailed:
      FailStart(FromMessage(report.failed()).WithContext("namespaces"));
      break;
    case InitReport::kForkedNsPid:
      OnForked(report.forked_ns_pid(), fds);
      break;
    case InitReport::kStarted:
      ProgramRuns(report.started());
      break;
    case InitReport::kStartFailed:
      FailStart(FromMessage(report.start_failed()));
      break;
    case InitReport::kEndedWaitStatus:
      if (!ended_) SetEnded(EndedFromWait(report.ended_wait_status()));
      break;
    case InitReport::kCriuStarted:
      if (criu != nullptr && !fds.empty()) criu->OnStarted(std::move(fds[0]));
      break;
    case InitReport::kCriuWaitStatus:
      if (criu != nullptr) criu->OnExited(report.criu_wait_status());
      break;
    case InitReport::kDone:
    case InitReport::REPORT_NOT_SET:
      break;
  }
}

void Monitor::OnForked(pid_t ns_pid, const std::vector<UniqueFd>& fds) {
  ns_pid_ = ns_pid;
  pid_ = fds.empty() ? 0 : PidOfPidFd(fds[0].get());
  stdio_->Start();
  InitCommand command;
  command.set_run_program(true);
  init_->Send(command);
}

void Monitor::OnInitReady() {
  if (!restore_) return;
  stdio_->Start();
  restore_->Run(init_.get(), stdio_->JobSide(),
                {[this](pid_t pid, pid_t ns_pid) {
                   pid_ = pid;
                   ns_pid_ = ns_pid;
                   Event event;
                   event.mutable_restore_held()->set_pid(pid);
                   event.mutable_restore_held()->set_ns_pid(ns_pid);
                   posd_->SendEvent(event);
                 },
                 [this](pid_t pid, std::uint64_t restore_us) {
                   pid_ = pid;
                   ns_pid_ = restore_->image().root_ns_pid();
                   ProgramStarted started;
                   started.set_restore_us(restore_us);
                   for (const std::string& note : restore_->notes()) {
                     started.add_note(note);
                   }
                   ProgramRuns(started);
                 },
                 [this](const Status& status) { FailStart(status); }});
}

void Monitor::ProgramRuns(ProgramStarted started) {
  state_ = Hello::RUNNING;
  started.set_pid(pid_);
  started.set_ns_pid(ns_pid_);
  started.set_terminal(stdio_->has_terminal());
  if (init_) started.set_init_pid(init_->pid());
  Event event;
  *event.mutable_started() = started;
  posd_->SendEvent(event);
  SendDeferredSignals();
}

void Monitor::SetEnded(const ProgramEnded& ended) {
  ended_ = std::make_unique<ProgramEnded>(ended);
  state_ = Hello::ENDED;
  const Status status = WriteExitFile(config_.directory(), *ended_);
  if (!status.ok()) {
    POS_LOG(kError, "exit.json cannot be written",
            {{"why", status.ToString()}});
  }
}

void Monitor::OnInitGone() {
  if (!ended_) {
    ProgramEnded ended;
    ended.set_reason(reason_of_kill_);
    ended.set_exit_code(137);
    ended.set_signal(9);
    ended.set_ended_at_ms(WallClockMs());
    if (reason_of_kill_ == ProgramEnded::LOST) {
      ended.set_message("the job's first process was killed");
    }
    SetEnded(ended);
  }
  // Operations end with an error, or, after the verdict KILL, well.
  if (dump_ && dump_->criu() != nullptr) dump_->criu()->OnGone();
  if (restore_ && restore_->criu() != nullptr) restore_->criu()->OnGone();
  stalled_since_ns_ = MonotonicNs();
  DeliverRest();
}

// Nothing of the job is alive: what it wrote can be read to its end.
void Monitor::DeliverRest() {
  loop_.Cancel(&patience_timer_);
  if (stdio_) stdio_->Finish();
  const bool finished = !stdio_ || stdio_->finished();
  const std::uint64_t now = MonotonicNs();
  const std::uint64_t taken = stdio_ ? stdio_->taken_bytes() : 0;
  if (taken != delivered_bytes_) {
    delivered_bytes_ = taken;
    stalled_since_ns_ = now;
  }
  if (finished || now - stalled_since_ns_ >= kPatienceNs) ReportEnd();
  if (finished || now - stalled_since_ns_ >= kGiveUpNs) {
    stdio_.reset();
    MaybeStop();
    return;
  }
  patience_timer_ = loop_.After(kDeliverStepNs, [this] {
    patience_timer_ = 0;
    DeliverRest();
  });
}

void Monitor::ReportEnd() {
  if (end_reported_) return;
  end_reported_ = true;
  if (ended_->reason() != ProgramEnded::START_FAILED) {
    Event event;
    *event.mutable_ended() = *ended_;
    posd_->SendEvent(event);
  }
  const std::uint64_t linger =
      config_.linger_ms() > 0 ? config_.linger_ms() : kDefaultLingerMs;
  loop_.After(linger * kMsNs, [this] {
    may_stop_ = true;
    MaybeStop();
  });
}

void Monitor::MaybeStop() {
  if (may_stop_ && end_reported_ && !stdio_) loop_.Stop();
}

}  // namespace pos::job
