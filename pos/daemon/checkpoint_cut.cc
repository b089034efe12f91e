// The cut: the job comes to rest, its tree is saved, and it runs again.
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <utility>

#include "pos/base/files.h"
#include "pos/daemon/checkpoint.h"

namespace pos {
namespace {

constexpr std::uint64_t kPausePollNs = 20'000'000;

}  // namespace

Status CheckpointRun::QuiesceOnce(std::uint32_t number) {
  const QuiescePlan& plan = tunables_.quiesce;
  const std::uint64_t watch_ms = plan.WatchMs(number, members_.size());
  // A late answer to the attempt before must not be taken for this one's.
  if (attempts_ > 0)
    job_->Update([this](JobRecord* r) { epoch_ = ++r->epoch; });
  const std::uint64_t began_ns = MonotonicNs();
  runner::ToRunner request;
  request.mutable_quiesce()->set_epoch(epoch_);
  request.mutable_quiesce()->set_drain_ms(plan.DrainMs(number));
  request.mutable_quiesce()->set_longest_ms(plan.drain_ms);
  request.mutable_quiesce()->set_watch_ms(watch_ms);
  const std::uint64_t limit_ms =
      std::max(plan.drain_ms, plan.DrainMs(number)) + watch_ms + kRunnerMs;
  const Status status = ForEach([&](Member* member) {
    runner::FromRunner reply;
    const Deadline limit = Deadline::AfterMs(limit_ms);
    Status one = CallRunner(member, request, {}, limit_ms, &reply);
    member->is_quiesced = one.ok();
    // Its runner may say so, too, but in less time.
    member->unanswered = one.code() == Code::kTimeout && limit.Passed();
    if (one.ok()) member->quiesced = reply.quiesced();
    return one;
  });
  ++attempts_;
  if (status.ok()) return {};
  // All or none: who is at rest runs on, so that what the others wait for can
  // come.
  for (Member& member : members_) {
    if (!member.is_quiesced && !member.unanswered) continue;
    runner::ToRunner resume;
    resume.mutable_resume()->set_epoch(epoch_);
    // A runner reads it once it has done what it did not answer yet. That has
    // been waited for long enough.
    CallRunner(&member, resume, {}, member.unanswered ? 0 : kRunnerMs)
        .IgnoreError();
    member.is_quiesced = false;
  }
  // While it was watched, it ran.
  const std::uint64_t took_ns = MonotonicNs() - began_ns;
  failed_ns_ += took_ns - std::min(took_ns, watch_ms * 1'000'000);
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
    status = QuiesceOnce(i);
    if (status.ok()) break;
    const bool hangs =
        std::any_of(members_.begin(), members_.end(),
                    [](const Member& member) { return member.unanswered; });
    if (hangs ||
        (status.code() != Code::kTimeout && status.code() != Code::kBusy)) {
      return status;
    }
    POS_RETURN_IF_ERROR(Pause(plan.PauseMs(i, members_.size())));
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
    const std::uint64_t session = member->session.record.session;
    // Should its runner end now: the client may have the request already, or
    // reads it later.
    job_->NoteLeaving(session, epoch_);
    Status one =
        CallRunner(member, request, {}, tunables_.detach_ms + kRunnerMs);
    member->detached = one.ok();
    // It is away, which is the checkpoint's own matter; or it has stayed.
    if (one.ok() || one.code() == Code::kBusy) job_->TakeLeaving(session);
    return one;
  });
}

Status CheckpointRun::Dump() {
  POS_ASSIGN_OR_RETURN(const UniqueFd directory,
                       OpenFile(criu_dir_, O_RDONLY | O_DIRECTORY));
  job::ToJob request;
  job::Dump* const dump = request.mutable_dump();
  dump->set_images_fd(1);
  dump->set_timeout_ms(tunables_.criu_dump_ms);
  dump->set_hold_ms(tunables_.hold_ms);
  dump->add_exclude(supervisor_->options_.host_file_dir + "/pos-");
  dump->set_attach_socket(
      std::filesystem::path(supervisor_->attach_path_).filename());
  const std::uint64_t asked_ns = MonotonicNs();
  // The request is answered when the tree is let go; until then this future
  // holds the call.
  job_->ForgetFrozen();
  auto fd = std::make_shared<UniqueFd>();
  POS_ASSIGN_OR_RETURN(*fd, DuplicateFd(directory.get()));
  dump_given_up_ = std::make_shared<std::atomic<bool>>(false);
  dump_ = std::async(
      std::launch::async, [job = job_, request, fd, given_up = dump_given_up_] {
        const std::array<int, 1> fds = {fd->get()};
        return job->Call(request, fds, kCopyMs, nullptr, given_up.get());
      });
  const auto answered = [this] {
    return dump_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  };
  const Deadline until = Deadline::AfterMs(tunables_.criu_dump_ms + kJobMs);
  frozen_ = job_->WaitFrozen(until, [&] {
    return answered() || Cancelled() || !cut_error_.get().ok();
  });
  dump_asked_ns_ = asked_ns;
  frozen_us_ = (MonotonicNs() - asked_ns) / 1000;
  if (frozen_) {
    hold_.Start(tunables_.hold_ms,
                [job = job_](std::uint64_t ms) { return job->ExtendHold(ms); });
    return {};
  }
  if (answered()) {
    dump_failed_ = true;
    Result<job::Reply> reply = dump_.get();
    return reply.ok() ? Internal("CRIU ended without a word") : reply.status();
  }
  POS_RETURN_IF_ERROR(cut_error_.get());
  return cancelled_ ? Aborted("the checkpoint was cancelled")
                    : Timeout("CRIU did not freeze the job");
}

Result<job::Reply> CheckpointRun::AwaitDump(std::uint64_t limit_ms) {
  if (dump_.wait_for(std::chrono::milliseconds(limit_ms)) !=
      std::future_status::ready) {
    dump_given_up_->store(true);
  }
  return dump_.get();
}

Status CheckpointRun::ResumeTree(job::Verdict::Kind kind) {
  job::ToJob request;
  request.mutable_verdict()->set_kind(kind);
  hold_.Stop();
  // That there is still something to be decided proves that the tree was held
  // all the time.
  POS_RETURN_IF_ERROR(job_->Call(request, {}, kJobMs).status());
  frozen_ = false;
  dump_failed_ = true;  // nothing is left to be undone on that side
  // CRIU's time for the rest is pos-job's to limit.
  Result<job::Reply> reply = AwaitDump(tunables_.criu_dump_ms + kJobMs);
  POS_RETURN_IF_ERROR(reply.status());
  dumped_ = reply->dumped();
  trace_.Add("CRIU", 0, dump_asked_ns_, dump_asked_ns_ + CpuDumpUs() * 1000);
  return {};
}

Status CheckpointRun::EndTree() {
  // A posd that is started after a crash here goes on with ending the job.
  job_->Update([](JobRecord* r) { r->end_after_checkpoint = true; });
  const Status status = ResumeTree(job::Verdict::KILL);
  const bool refused = frozen_ && (status.code() == Code::kNoSuch ||
                                   status.code() == Code::kNotReady);
  // Then its processes were let go, or have ended under CRIU.
  if (refused) dump_failed_ = true;
  const bool let_go =
      refused && AwaitDump(kJobMs).status().code() != Code::kClosed;
  if (!let_go) {
    const bool ended = job_->WaitEnded(Deadline::AfterMs(kJobMs), nullptr);
    gate_opened_ns_ = MonotonicNs();
    if (ended || status.ok()) return {};
    // It may still end: the image has to stay.
    return status.WithContext("image " + manifest_.image +
                              " was made, but its job could not be ended");
  }
  job_->Update([](JobRecord* r) { r->end_after_checkpoint = false; });
  POS_RETURN_IF_ERROR(
      supervisor_->store_->Remove(manifest_.image)
          .WithContext("the job runs on, but its image could not be removed"));
  supervisor_->CollectGarbage();
  return Timeout(
      "the job was let go before its image was complete: it runs "
      "on, and the image was removed");
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

}  // namespace pos
