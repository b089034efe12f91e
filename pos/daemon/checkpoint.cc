#include "pos/daemon/checkpoint.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <thread>
#include <utility>

#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/job/preflight.h"

namespace pos {
namespace {

constexpr std::uint64_t kRunnerMs = 30'000;
constexpr std::uint64_t kJobMs = 30'000;
constexpr std::chrono::milliseconds kDumpPoll(10);
constexpr std::uint64_t kPausePollNs = 20'000'000;
// A frozen tree waits this long for its verdict; extended while work goes on.
constexpr std::uint64_t kHoldMs = 120'000;
// Copying and sealing may take as long as the disk does; each wait is for one
// step, and a disk that stands still is noticed by the pack writer.
constexpr std::uint64_t kCopyMs = 24ull * 3600 * 1000;

runner::Save::Compress CompressOf(const std::string& name) {
  if (name == "none") return runner::Save::NONE;
  if (name == "zstd") return runner::Save::ZSTD;
  if (name == "lz4") return runner::Save::LZ4;
  return runner::Save::AUTO;
}

std::string BytesOf(std::span<const std::byte> id) {
  return {reinterpret_cast<const char*>(id.data()), id.size()};
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
  shown_.set_phase(phase);
  trace_.Phase(phase);
  shown_.set_done_bytes(done_bytes);
  shown_.set_total_bytes(total_bytes);
  return Cancelled() ? Aborted("the checkpoint was cancelled") : Status();
}

bool CheckpointRun::Cancelled() {
  if (!progress_(shown_) || supervisor_->ending()) cancelled_ = true;
  return cancelled_;
}

Status CheckpointRun::ForEach(const std::function<Status(Member*)>& step) {
  std::vector<std::thread> threads;
  for (Member& member : members_) {
    threads.emplace_back([&step, &member] { member.status = step(&member); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Member& member : members_) {
    if (!member.status.ok()) {
      return member.status.WithContext(
          "session " + std::to_string(member.session.record.session) +
          " (pid " + std::to_string(member.session.record.client_ns_pid) + ")");
    }
  }
  return {};
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
  if (!mode.empty() && mode != "auto" && mode != "stop") {
    return Invalid("there is no checkpoint mode '" + mode + "'",
                   "use --mode auto or --mode stop");
  }
  POS_RETURN_IF_ERROR(job_->TryBegin("a checkpoint"));
  const std::string before = job_->record().state;
  if (before != "running") {
    job_->End();
    return NotReady("job " + job_->name() + " is " + before,
                    "a job is checkpointed while it runs");
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

Status CheckpointRun::Steps() {
  POS_RETURN_IF_ERROR(TakeMembers());
  POS_RETURN_IF_ERROR(Preflight());
  POS_RETURN_IF_ERROR(OpenDraft());
  POS_RETURN_IF_ERROR(Quiesce());
  POS_RETURN_IF_ERROR(Detach());
  POS_RETURN_IF_ERROR(DumpAndCopy());
  POS_RETURN_IF_ERROR(SaveHost());
  if (request_.stop()) {
    POS_RETURN_IF_ERROR(FinishSaves());
    POS_RETURN_IF_ERROR(Seal());
    // The image is there. A posd that is started after a crash here goes on
    // with ending the job.
    job_->Update([](JobRecord* r) { r->end_after_checkpoint = true; });
    POS_RETURN_IF_ERROR(ResumeTree(job::Verdict::KILL));
    job_->WaitEnded(Deadline::AfterMs(kJobMs), nullptr);
    gate_opened_ns_ = MonotonicNs();
    return {};
  }
  POS_RETURN_IF_ERROR(ResumeTree(job::Verdict::RESUME));
  POS_RETURN_IF_ERROR(ResumeSessions());
  POS_RETURN_IF_ERROR(FinishSaves());
  return Seal();
}

Status CheckpointRun::TakeMembers() {
  for (const JobSession& session : job_->sessions()) {
    if (!session.ready || session.runner == nullptr) {
      return NotReady("a process of the job is just being attached",
                      "try again");
    }
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

Status CheckpointRun::OpenDraft() {
  const JobRecord record = job_->record();
  ckpt::DraftOptions options;
  options.owner_uid = record.uid;
  options.owner_gid = record.gid;
  options.job = job_->name();
  options.incremental = tunables_.incremental;
  POS_ASSIGN_OR_RETURN(draft_, supervisor_->store_->BeginImage(options));
  POS_ASSIGN_OR_RETURN(criu_dir_, draft_->MakeDirectory("criu"));
  for (std::size_t i = 0; i < members_.size(); ++i) {
    POS_ASSIGN_OR_RETURN(members_[i].files,
                         draft_->AddSession(static_cast<std::uint32_t>(i)));
  }
  return {};
}

Status CheckpointRun::QuiesceOnce(std::uint64_t drain_ms) {
  // A late answer to the attempt before must not be taken for this one's.
  if (attempts_ > 0)
    job_->Update([this](JobRecord* r) { epoch_ = ++r->epoch; });
  const std::uint64_t began_ns = MonotonicNs();
  runner::ToRunner request;
  request.mutable_quiesce()->set_epoch(epoch_);
  request.mutable_quiesce()->set_drain_ms(drain_ms);
  const Status status = ForEach([&](Member* member) {
    runner::FromRunner reply;
    POS_RETURN_IF_ERROR(
        CallRunner(member, request, {}, drain_ms + kRunnerMs, &reply));
    member->quiesced = reply.quiesced();
    member->is_quiesced = true;
    return Status();
  });
  ++attempts_;
  if (status.ok()) return {};
  // All or none: who is at rest runs on, so that what the others wait for can
  // come.
  for (Member& member : members_) {
    if (!member.is_quiesced) continue;
    runner::ToRunner resume;
    resume.mutable_resume()->set_epoch(epoch_);
    CallRunner(&member, resume, {}, kRunnerMs).IgnoreError();
    member.is_quiesced = false;
  }
  failed_ns_ += MonotonicNs() - began_ns;
  return status;
}

Status CheckpointRun::Pause(std::uint64_t ms) {
  const Deadline until = Deadline::AfterMs(ms);
  while (!until.Passed()) {
    POS_RETURN_IF_ERROR(Report("quiesce"));
    SleepNs(std::min(until.LeftNs(), kPausePollNs));
  }
  return {};
}

Status CheckpointRun::Quiesce() {
  const QuiescePlan& plan = tunables_.quiesce;
  Status status;
  for (std::uint32_t i = 0; i < plan.attempts(); ++i) {
    POS_RETURN_IF_ERROR(Report("quiesce"));
    status = QuiesceOnce(plan.DrainMs(i));
    if (status.ok()) break;
    if (status.code() != Code::kTimeout && status.code() != Code::kBusy) {
      return status;
    }
    POS_RETURN_IF_ERROR(Pause(plan.PauseMs(i)));
  }
  POS_RETURN_IF_ERROR(status.WithContext(
      "the job does not come to rest, " + std::to_string(attempts_) +
      " attempts of up to " + std::to_string(plan.drain_ms) + " ms"));
  for (const Member& member : members_) {
    const std::uint64_t at = member.quiesced.gate_closed_ns();
    if (gate_closed_ns_ == 0 || at < gate_closed_ns_) gate_closed_ns_ = at;
  }
  if (gate_closed_ns_ == 0) gate_closed_ns_ = MonotonicNs();
  return {};
}

Status CheckpointRun::Detach() {
  POS_RETURN_IF_ERROR(Report("detach"));
  runner::ToRunner request;
  request.mutable_detach()->set_epoch(epoch_);
  request.mutable_detach()->set_timeout_ms(
      static_cast<std::uint32_t>(tunables_.detach_ms));
  return ForEach([&](Member* member) {
    POS_RETURN_IF_ERROR(
        CallRunner(member, request, {}, tunables_.detach_ms + kRunnerMs));
    member->detached = true;
    return Status();
  });
}

Status CheckpointRun::Dump() {
  POS_ASSIGN_OR_RETURN(const UniqueFd directory,
                       OpenFile(criu_dir_, O_RDONLY | O_DIRECTORY));
  job::ToJob request;
  job::Dump* const dump = request.mutable_dump();
  dump->set_images_fd(1);
  dump->set_timeout_ms(tunables_.criu_dump_ms);
  dump->set_hold_ms(kHoldMs);
  dump->add_exclude(supervisor_->options_.host_file_dir + "/pos-");
  const std::uint64_t asked_ns = MonotonicNs();
  // The request is answered when the tree is let go; until then this future
  // holds the call.
  job_->ForgetFrozen();
  auto fd = std::make_shared<UniqueFd>();
  POS_ASSIGN_OR_RETURN(*fd, DuplicateFd(directory.get()));
  dump_ = std::async(std::launch::async, [job = job_, request, fd] {
    const std::array<int, 1> fds = {fd->get()};
    return job->Call(request, fds, kCopyMs);
  });
  const auto answered = [this] {
    return dump_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  };
  const Deadline until = Deadline::AfterMs(tunables_.criu_dump_ms + kJobMs);
  frozen_ = job_->WaitFrozen(until, [&] { return answered() || Cancelled(); });
  dump_asked_ns_ = asked_ns;
  frozen_us_ = (MonotonicNs() - asked_ns) / 1000;
  if (frozen_) return {};
  if (answered()) {
    dump_failed_ = true;
    Result<job::Reply> reply = dump_.get();
    return reply.ok() ? Internal("CRIU ended without a word") : reply.status();
  }
  return cancelled_ ? Aborted("the checkpoint was cancelled")
                    : Timeout("CRIU did not freeze the job");
}

Status CheckpointRun::DumpAndCopy() {
  std::uint64_t live_bytes = 0;
  for (const Member& member : members_) {
    live_bytes += member.quiesced.live_bytes();
  }
  POS_RETURN_IF_ERROR(Report("copy", 0, live_bytes));
  Status dump_status;
  std::thread dump([&] { dump_status = Dump(); });
  const Status copied = ForEach([this](Member* member) {
    const ckpt::SessionFiles& files = member->files;
    runner::ToRunner request;
    runner::Save* const save = request.mutable_save();
    save->set_store(BytesOf(files.store.bytes));
    save->set_session(files.session);
    save->set_digest_seed(files.digest_seed);
    save->set_chunk_bytes(files.chunk_bytes);
    save->set_pack(BytesOf(files.pack_id.bytes));
    save->set_has_known(files.known.valid());
    save->set_compress(CompressOf(tunables_.compress));
    save->set_depth(tunables_.write_depth);
    std::vector<int> fds = {files.pack.get(), files.index.get()};
    if (files.known.valid()) fds.push_back(files.known.get());
    member->saving = true;
    runner::FromRunner reply;
    const Status status = CallRunner(member, request, fds, kCopyMs, &reply);
    // The runner has its own descriptors now; sealing waits for all to close.
    member->files = {};
    POS_RETURN_IF_ERROR(status);
    member->copied_bytes = reply.saved().copied_bytes();
    return Status();
  });
  dump.join();
  POS_RETURN_IF_ERROR(dump_status);
  return copied;
}

Status CheckpointRun::SaveHost() {
  POS_RETURN_IF_ERROR(Report("host memory"));
  runner::ToRunner request;
  request.mutable_save_host();
  return ForEach([&](Member* member) {
    runner::FromRunner reply;
    POS_RETURN_IF_ERROR(CallRunner(member, request, {}, kCopyMs, &reply));
    member->copied_bytes = reply.saved().copied_bytes();
    return Status();
  });
}

Status CheckpointRun::ResumeTree(job::Verdict::Kind kind) {
  job::ToJob request;
  request.mutable_verdict()->set_kind(kind);
  POS_RETURN_IF_ERROR(job_->Call(request, {}, kJobMs).status());
  frozen_ = false;
  dump_failed_ = true;  // nothing is left to be undone on that side
  Result<job::Reply> reply = dump_.get();
  POS_RETURN_IF_ERROR(reply.status());
  dumped_ = reply->dumped();
  trace_.Add("CRIU", 0, dump_asked_ns_, dump_asked_ns_ + CpuDumpUs() * 1000);
  return {};
}

Status CheckpointRun::ResumeSessions() {
  std::vector<JobSession> sessions;
  for (Member& member : members_) {
    sessions.push_back(member.session);
    // Whatever happens from here on, they have been told.
    member.detached = false;
    member.is_quiesced = false;
  }
  Supervisor::ReturnTimes times;
  const Status status = supervisor_->BringBack(job_, sessions, epoch_, &times);
  gate_opened_ns_ = times.last_ns;
  return status;
}

Status CheckpointRun::FinishSaves() {
  runner::ToRunner request;
  request.mutable_finish();
  POS_RETURN_IF_ERROR(ForEach([&](Member* member) {
    return CallRunner(member, request, {}, kCopyMs);
  }));
  runner::ToRunner end;
  end.mutable_cancel_save();
  return ForEach([&](Member* member) {
    POS_RETURN_IF_ERROR(CallRunner(member, end, {}, kRunnerMs));
    member->saving = false;
    return Status();
  });
}

Status CheckpointRun::Seal() {
  if (!frozen_) {
    Report("seal").IgnoreError();  // the job runs again: nothing to cancel for
  } else {
    POS_RETURN_IF_ERROR(Report("seal"));
    job::ToJob hold;
    hold.mutable_hold()->set_hold_ms(kHoldMs);
    POS_RETURN_IF_ERROR(job_->Call(hold, {}, kJobMs).status());
  }
  FillManifest();
  Result<ckpt::Manifest> sealed =
      draft_->Seal(std::move(manifest_), started_ns_);
  POS_RETURN_IF_ERROR(sealed.status());
  manifest_ = std::move(*sealed);
  draft_.reset();
  return {};
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
    dump_.wait();
  }
  for (Member& member : members_) {
    Status status;
    if (member.detached) {
      status = supervisor_->WriteVerdict(job_, member.session, epoch_);
    } else if (member.is_quiesced) {
      runner::ToRunner request;
      request.mutable_resume()->set_epoch(epoch_);
      status = CallRunner(&member, request, {}, kRunnerMs);
    }
    if (!status.ok()) {
      POS_LOG(kError, "a session could not be resumed",
              {{"job", job_->name()}, {"why", status.ToString()}});
    }
  }
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
