// The course of a checkpoint, and what undoes it.
#include "pos/daemon/checkpoint.h"

#include <filesystem>
#include <thread>
#include <utility>

#include "pos/base/log.h"
#include "pos/base/process.h"
#include "pos/job/preflight.h"

namespace pos {
namespace {

constexpr std::chrono::milliseconds kDumpPoll(10);
constexpr std::chrono::milliseconds kCancelPoll(20);
// The end of a process with many threads and much memory, on a slow machine.
constexpr std::uint64_t kEndingMs = 1'000;

// Whether a client can do its part.
Status CheckClient(pid_t pid) {
  const Result<char> state = ProcessState(pid);
  const std::string process = "process " + std::to_string(pid) + " of the job";
  // It could neither close its gate nor detach, and the others would stand
  // still for as long as that is waited for.
  if (state.ok() && *state == 'T') {
    return Busy(process + " is stopped (SIGSTOP, ^Z)",
                "continue it (SIGCONT, fg) and try again");
  }
  if (!state.ok() || *state != 'Z') return {};
  const Result<UniqueFd> handle = OpenPidFd(pid);
  // So is a process that is just ending, until its last thread has gone.
  const Deadline until = Deadline::AfterMs(kEndingMs);
  bool ended = !handle.ok();
  while (!ended && !until.Passed()) {
    ended = PidFdEnded(handle->get());
    if (!ended) std::this_thread::sleep_for(kCancelPoll);
  }
  if (ended) {
    return NotReady(process + " is just ending", "try again");
  }
  // Nothing can be written into a process by that thread's number, and CRIU
  // saves none without it.
  return Incompatible(
      "the main thread of " + process + " has ended while others run",
      "a program can be checkpointed while its main thread "
      "lives: let it wait for the others (pthread_join)");
}

}  // namespace

CheckpointRun::CheckpointRun(Supervisor* supervisor, std::shared_ptr<Job> job,
                             v1::CheckpointRequest request,
                             ProgressFunction progress)
    : supervisor_(supervisor),
      tunables_(supervisor->tunables()),
      job_(std::move(job)),
      request_(std::move(request)),
      progress_(std::move(progress)),
      started_ns_(MonotonicNs()),
      trace_(started_ns_) {}

Status CheckpointRun::Report(const std::string& phase, std::uint64_t done_bytes,
                             std::uint64_t total_bytes) {
  trace_.Phase(phase);
  {
    MutexLock lock(&progress_mu_);
    shown_.set_phase(phase);
    shown_.set_done_bytes(done_bytes);
    shown_.set_total_bytes(total_bytes);
  }
  return Cancelled() ? Aborted("the checkpoint was cancelled") : Status();
}

bool CheckpointRun::Cancelled() {
  MutexLock lock(&progress_mu_);
  if (!progress_(shown_) || supervisor_->ending()) cancelled_ = true;
  return cancelled_;
}

std::string CheckpointRun::NameOf(const Member& member) {
  return "session " + std::to_string(member.session.record.session) + " (pid " +
         std::to_string(member.session.record.client_ns_pid) + ")";
}

Status CheckpointRun::ForEach(const std::function<Status(Member*)>& step) {
  std::vector<std::thread> threads;
  for (Member& member : members_) {
    threads.emplace_back([&step, &member] { member.status = step(&member); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Member& member : members_) {
    if (!member.status.ok()) {
      return member.status.WithContext(NameOf(member));
    }
  }
  return {};
}

Status CheckpointRun::WhyGiveUp() {
  if (Cancelled()) return Aborted("the checkpoint was cancelled");
  POS_RETURN_IF_ERROR(cut_error_.get());
  return hold_.lost();
}

Status CheckpointRun::ForEachUntilCancelled(
    const std::function<Status(Member*)>& step) {
  FirstError failed;
  std::future<Status> done = std::async(std::launch::async, [&] {
    return ForEach([&](Member* member) {
      Status status = step(member);
      failed.Note(status.WithContext(NameOf(*member)));
      return status;
    });
  });
  while (done.wait_for(kCancelPoll) != std::future_status::ready) {
    // What is noted once stays: what fails from here on fails because of it.
    failed.Note(WhyGiveUp());
    if (failed.get().ok()) continue;
    // More than once: a runner may not have heard of the step yet.
    runner::ToRunner request;
    request.mutable_cancel_save();
    for (Member& member : members_) {
      CallRunner(&member, request, {}, kRunnerMs).IgnoreError();
    }
  }
  done.get().IgnoreError();  // it is among those that were noted
  return failed.get();
}

Status CheckpointRun::CallRunner(Member* member,
                                 const runner::ToRunner& request,
                                 std::span<const int> fds,
                                 std::uint64_t timeout_ms,
                                 runner::FromRunner* reply) {
  const auto span =
      trace_.Begin(RunnerRequestName(request), member->session.record.session);
  POS_ASSIGN_OR_RETURN(RunnerPeer::Message message,
                       member->session.runner->Call(request, fds, timeout_ms));
  if (reply != nullptr) *reply = std::move(message.body);
  return {};
}

Result<v1::CheckpointResult> CheckpointRun::Run() {
  const std::string& mode = request_.mode();
  if (!mode.empty() && mode != "auto" && mode != "stop" && mode != "cow" &&
      mode != "recopy") {
    return Invalid("there is no checkpoint mode '" + mode + "'",
                   "use --mode auto, stop, cow or recopy");
  }
  POS_RETURN_IF_ERROR(job_->TryBegin("a checkpoint"));
  const Status ready = AwaitReady();
  if (!ready.ok()) {
    job_->End();
    if (!job_->record().alive()) supervisor_->EndSessions(job_);
    return ready;
  }
  job_->SetAttachClosed(true);
  job_->Update([this](JobRecord* r) {
    r->state = "checkpointing";
    epoch_ = ++r->epoch;
  });
  Status status = Steps();
  if (!status.ok()) Undo();
  job_->Update([](JobRecord* r) {
    if (r->state == "checkpointing") r->state = "running";
    r->end_after_checkpoint = false;
  });
  job_->SetAttachClosed(false);
  job_->End();
  if (job_->record().alive()) {
    supervisor_->EndSessionsWithoutProcess(job_);
  } else {
    supervisor_->EndSessions(job_);
  }
  if (!status.ok()) {
    POS_LOG(kWarning, "checkpoint failed",
            {{"job", job_->name()}, {"why", status.ToString()}});
    return status;
  }
  POS_LOG(kInfo, "checkpoint done",
          {{"job", job_->name()}, {"image", manifest_.image}});
  return MakeResult();
}

Status CheckpointRun::AwaitReady() {
  const auto check_runs = [this] {
    const std::string state = job_->record().state;
    return state == "running" ? Status()
                              : NotReady("job " + job_->name() + " is " + state,
                                         "a job is checkpointed while it runs");
  };
  POS_RETURN_IF_ERROR(check_runs());
  // All that the image is to hold has to be there first.
  POS_RETURN_IF_ERROR(supervisor_->WaitLoaded(
      job_, [this](std::uint64_t done, std::uint64_t total) {
        return Report("load", done, total);
      }));
  return check_runs();
}

Status CheckpointRun::Steps() {
  POS_RETURN_IF_ERROR(TakeMembers());
  POS_RETURN_IF_ERROR(Preflight());
  POS_RETURN_IF_ERROR(OpenDraft());
  POS_RETURN_IF_ERROR(ChooseMode());
  if (mode_ == ckpt::CheckpointMode::kRecopy) {
    POS_RETURN_IF_ERROR(CopyRounds());
  }
  POS_RETURN_IF_ERROR(Cut());
  if (request_.stop()) {
    POS_RETURN_IF_ERROR(FinishSaves());
    POS_RETURN_IF_ERROR(Seal());
    return EndTree();
  }
  POS_RETURN_IF_ERROR(LetRun());
  if (mode_ == ckpt::CheckpointMode::kCow) {
    POS_ASSIGN_OR_RETURN(const bool foreseen, FinishCow());
    if (!foreseen) POS_RETURN_IF_ERROR(TurnToRecopy());
  }
  POS_RETURN_IF_ERROR(FinishSaves());
  return Seal();
}

Status CheckpointRun::Cut() {
  POS_RETURN_IF_ERROR(Quiesce());
  POS_RETURN_IF_ERROR(Detach());
  POS_RETURN_IF_ERROR(DumpAndCopy());
  return SaveHost();
}

Status CheckpointRun::LetRun() {
  POS_RETURN_IF_ERROR(ResumeTree(job::Verdict::RESUME));
  return ResumeSessions();
}

Status CheckpointRun::TakeMembers() {
  for (const JobSession& session : job_->sessions()) {
    if (!session.ready || session.runner == nullptr) {
      return NotReady("a process of the job is just being attached",
                      "try again");
    }
    POS_RETURN_IF_ERROR(CheckClient(session.record.client_pid));
    Member member;
    member.session = session;
    members_.push_back(std::move(member));
  }
  return {};
}

Status CheckpointRun::Preflight() {
  POS_RETURN_IF_ERROR(Report("preflight"));
  job::ToJob request;
  request.mutable_preflight()->add_own_file(
      supervisor_->options_.host_file_dir + "/pos-");
  request.mutable_preflight()->set_own_socket(
      std::filesystem::path(supervisor_->attach_path_).filename());
  POS_ASSIGN_OR_RETURN(const job::Reply reply, job_->Call(request, {}, kJobMs));
  const job::Blockers& found = reply.blockers();
  return job::BlockersToStatus(
      {found.blocker().begin(), found.blocker().end()});
}

void CheckpointRun::Undo() {
  // Saves first: they read memory that is about to change.
  for (Member& member : members_) {
    if (!member.saving) continue;
    runner::ToRunner request;
    request.mutable_cancel_save();
    CallRunner(&member, request, {}, kRunnerMs).IgnoreError();
    member.saving = false;
  }
  if (dump_.valid() && !dump_failed_) {
    // More than once: pos-job may not even have heard of the dump yet.
    const std::uint64_t limit_ms =
        supervisor_->tunables().criu_dump_ms + kJobMs;
    const Deadline until = Deadline::AfterMs(limit_ms);
    while (dump_.wait_for(kDumpPoll) != std::future_status::ready &&
           !until.Passed()) {
      const Status status = job_->LetGo(job::Verdict::ABORT, limit_ms);
      if (status.ok()) continue;
      POS_LOG(kError, "a stopped job could not be let go",
              {{"job", job_->name()}, {"why", status.ToString()}});
      break;
    }
    dump_given_up_->store(true);
    dump_.wait();
  }
  std::vector<JobSession> away;
  for (Member& member : members_) {
    if (member.detached) away.push_back(member.session);
    if (member.detached || !member.is_quiesced) continue;
    // If its runner has ended, see Supervisor::OnRunnerGone.
    runner::ToRunner request;
    request.mutable_resume()->set_epoch(epoch_);
    const Status status = CallRunner(&member, request, {}, kRunnerMs);
    if (!status.ok()) {
      POS_LOG(kError, "a session could not be resumed",
              {{"job", job_->name()}, {"why", status.ToString()}});
    }
  }
  supervisor_->CallBack(job_, away, epoch_).status.IgnoreError();
  if (draft_ != nullptr) draft_->Abort();
  draft_.reset();
}

Result<v1::CheckpointResult> Supervisor::Checkpoint(
    const Caller& caller, const v1::CheckpointRequest& request,
    const ProgressFunction& progress) {
  POS_ASSIGN_OR_RETURN(const JobPtr job, FindJob(caller, request.job()));
  CheckpointRun run(this, job, request, progress);
  return run.Run();
}

}  // namespace pos
