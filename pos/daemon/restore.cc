#include "pos/daemon/restore.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <utility>

#include "ckpt/criu/criu.h"
#include "pos/base/bytes.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/base/process.h"

namespace pos {
namespace {

constexpr std::uint64_t kJobMs = 30'000;

}  // namespace

RestoreRun::RestoreRun(Supervisor* supervisor, Caller caller,
                       v1::RestoreRequest request, ProgressFunction progress)
    : supervisor_(supervisor),
      tunables_(supervisor->tunables()),
      caller_(std::move(caller)),
      request_(std::move(request)),
      progress_(std::move(progress)),
      started_ns_(MonotonicNs()),
      trace_(started_ns_) {}

Status RestoreRun::Report(const std::string& phase, std::uint64_t done_bytes,
                          std::uint64_t total_bytes) {
  shown_.set_phase(phase);
  shown_.set_done_bytes(done_bytes);
  shown_.set_total_bytes(total_bytes);
  if (phase != "restore") trace_.Phase(phase);  // that is part of "load"
  return Cancelled() ? Aborted("the restore was cancelled") : Status();
}

bool RestoreRun::Cancelled() {
  if (!progress_(shown_) || supervisor_->ending()) cancelled_ = true;
  return cancelled_;
}

Result<v1::RestoreResult> RestoreRun::Run() {
  Status status = Preflight();
  if (status.ok()) status = MakeJob();
  if (status.ok()) status = MakeMembers();
  if (status.ok()) status = Load();
  if (status.ok()) status = Admit();
  if (!status.ok()) {
    Undo(status);
    POS_LOG(kWarning, "restore failed",
            {{"image", request_.image()}, {"why", status.ToString()}});
    return status;
  }
  job_->End();
  if (job_->record().alive()) {
    supervisor_->EndSessionsWithoutProcess(job_);
  } else {
    supervisor_->EndSessions(job_);
  }
  if (request_.lazy()) POS_RETURN_IF_ERROR(WaitLoaded());
  v1::RestoreResult result;
  result.set_job(job_->name());
  result.set_pid(job_->record().pid);
  result.set_image(request_.image());
  result.set_lazy(request_.lazy());
  result.set_restore_us((admitted_ns_ - started_ns_) / 1000);
  result.set_loaded_us((loaded_ns_ - started_ns_) / 1000);
  if (request_.trace()) {
    for (v1::TraceEvent& event : trace_.Events()) {
      *result.add_trace() = std::move(event);
    }
  }
  return result;
}

Status RestoreRun::ChooseDevices() {
  const ckpt::Manifest& manifest = image_->manifest();
  POS_ASSIGN_OR_RETURN(const auto map, ParseDeviceMap(request_.device()));
  const std::shared_ptr<const DeviceSnapshot> snapshot =
      supervisor_->devices_->snapshot();
  for (const ckpt::DeviceRecord& wanted : manifest.devices) {
    const auto mapped = map.find(static_cast<int>(wanted.ordinal));
    const NodeDevice* chosen = nullptr;
    std::string why = "no device is free";
    for (const NodeDevice& device : snapshot->devices) {
      if (mapped != map.end() && device.ordinal != mapped->second) continue;
      if (std::count(devices_.begin(), devices_.end(), device.ordinal) != 0) {
        continue;
      }
      const std::string architecture =
          "sm_" + std::to_string(device.compute_capability);
      if (device.kind != wanted.kind || architecture != wanted.architecture ||
          device.multiprocessors != wanted.multiprocessors) {
        why = "device " + std::to_string(device.ordinal) + " is " +
              device.kind + " " + architecture + ", the image needs " +
              wanted.kind + " " + wanted.architecture;
        continue;
      }
      chosen = &device;
      break;
    }
    if (chosen == nullptr) {
      return Incompatible("no device for the image's device " +
                              std::to_string(wanted.ordinal) + ": " + why,
                          "`pos-cli devices` lists what there is");
    }
    devices_.push_back(chosen->ordinal);
  }
  return {};
}

Status RestoreRun::Preflight() {
  POS_RETURN_IF_ERROR(Report("preflight"));
  POS_RETURN_IF_ERROR(
      supervisor_->FindImage(caller_, request_.image()).status());
  POS_ASSIGN_OR_RETURN(
      image_, supervisor_->store_->OpenImage(request_.image(), "a restore"));
  POS_RETURN_IF_ERROR(image_->CheckFiles());
  POS_ASSIGN_OR_RETURN(const std::string criu, supervisor_->Criu());
  POS_RETURN_IF_ERROR(RequireCriu(criu).status());
  POS_RETURN_IF_ERROR(ChooseDevices());
  const ckpt::Manifest& manifest = image_->manifest();
  const SupervisorOptions& options = supervisor_->options_;
  std::vector<std::uint64_t> needed(devices_.size());
  for (std::size_t i = 0; i < manifest.sessions.size(); ++i) {
    const ckpt::SessionRecord& session = manifest.sessions[i];
    if (session.arena_base != options.arena_base ||
        session.arena_bytes != options.arena_bytes ||
        session.window_base != options.host_base ||
        session.window_bytes != options.host_bytes) {
      return Incompatible(
          "the image's addresses are not those of this posd",
          "configure arena and host_window as where it was made: " +
              Hex(session.arena_base) + ", " + Hex(session.window_base));
    }
    POS_ASSIGN_OR_RETURN(const SessionAttachment attachment,
                         ReadSession(i, manifest));
    for (std::size_t d = 0;
         d < attachment.granted_bytes.size() && d < needed.size(); ++d) {
      needed[d] += attachment.granted_bytes[d];
    }
  }
  for (std::size_t d = 0; d < needed.size(); ++d) {
    const std::uint64_t free_bytes =
        supervisor_->devices_->FreeBytes(devices_[d]);
    if (needed[d] > free_bytes) {
      return OutOfMemory("device " + std::to_string(devices_[d]) + " has " +
                             std::to_string(free_bytes) +
                             " bytes free, the image needs " +
                             std::to_string(needed[d]),
                         "choose another device with --device, or stop a job");
    }
  }
  return {};
}

Status RestoreRun::MakeJob() {
  const ckpt::Manifest& manifest = image_->manifest();
  JobRecord record;
  record.name = request_.name().empty() ? manifest.job.name : request_.name();
  if (!IsSafeName(record.name)) {
    return Invalid("'" + record.name + "' cannot be a job's name");
  }
  record.uid = manifest.owner_uid;
  record.gid = manifest.owner_gid;
  record.argv = manifest.job.argv;
  record.cwd = manifest.job.cwd;
  record.devices = devices_;
  record.state = "restoring";
  record.detached = true;
  record.started_at = WallClockMs();
  record.image = manifest.image;
  record.lineage = manifest.job.lineage;
  // The job goes on in its log: what it had written when it ended is kept up to
  // the image's length (pos-job cuts it).
  POS_ASSIGN_OR_RETURN(
      job_, supervisor_->NewJob(record, Supervisor::NamePolicy::kContinue,
                                manifest.job.log_bytes, &continues_));
  POS_RETURN_IF_ERROR(job_->TryBegin("a restore"));
  job_->SetAttachClosed(true);
  if (request_.lazy()) {
    // The lease of this restore ends with it, or with posd.
    POS_ASSIGN_OR_RETURN(
        const std::string pin,
        supervisor_->store_->Keep(manifest.image, job_->name(),
                                  "its memory is still being loaded"));
    job_->Update([&](JobRecord* r) { r->pin = pin; });
  }
  return job_->Journal();
}

Status RestoreRun::MakeMembers() {
  const ckpt::Manifest& manifest = image_->manifest();
  const SupervisorOptions& options = supervisor_->options_;
  std::uint64_t next_session = 1;
  for (std::size_t i = 0; i < manifest.sessions.size(); ++i) {
    Member member;
    POS_ASSIGN_OR_RETURN(member.image, ReadSession(i, manifest));
    SessionRecordEntry& record = member.session.record;
    record.session = member.image.session;
    record.client_ns_pid = member.image.client_ns_pid;
    record.verdict_address = member.image.verdict_address;
    record.host_file =
        supervisor_->NewHostFilePath(job_->name(), record.session);
    POS_ASSIGN_OR_RETURN(
        member.host_file,
        OpenFile(record.host_file, O_RDWR | O_CREAT | O_EXCL, 0600));
    if (::fchown(member.host_file.get(), manifest.owner_uid,
                 manifest.owner_gid) != 0 ||
        ::ftruncate(member.host_file.get(),
                    static_cast<off_t>(options.host_bytes)) != 0) {
      const int error = errno;
      RemoveFile(record.host_file).IgnoreError();
      return ErrnoStatus(error, record.host_file);
    }
    member.session.loading = request_.lazy();
    next_session = std::max(next_session, record.session + 1);
    const Status added = job_->AddSession(member.session);
    members_.push_back(std::move(member));
    POS_RETURN_IF_ERROR(added);
  }
  job_->Update([&](JobRecord* r) { r->next_session = next_session; });
  return {};
}

Status RestoreRun::Admit() {
  POS_RETURN_IF_ERROR(Report("admit"));
  job::ToJob request;
  request.mutable_verdict()->set_kind(job::Verdict::RESUME);
  hold_.Stop();
  POS_RETURN_IF_ERROR(job_->Call(request, {}, kJobMs).status());
  POS_RETURN_IF_ERROR(job_->WaitStarted(Deadline::AfterMs(kJobMs)));
  job_->SetAttachClosed(false);
  std::vector<JobSession> sessions;
  for (const Member& member : members_) sessions.push_back(member.session);
  Supervisor::ReturnTimes times;
  POS_RETURN_IF_ERROR(supervisor_->BringBack(job_, sessions, 0, &times));
  admitted_ns_ = times.first_ns;
  job_->Update([](JobRecord* r) {
    if (r->state == "restoring") r->state = "running";
  });
  return {};
}

void RestoreRun::Undo(const Status& why) {
  if (job_ == nullptr) return;
  if (tree_started_) {
    job::ToJob request;
    request.mutable_verdict()->set_kind(job::Verdict::ABORT);
    job_->Call(request, {}, kJobMs).status().IgnoreError();
    supervisor_->SendSignal(job_, SIGKILL, true).IgnoreError();
    job_->WaitEnded(Deadline::AfterMs(kJobMs), nullptr);
  }
  supervisor_->DropTokens(job_.get());
  for (const Member& member : members_) {
    if (member.session.runner != nullptr) {
      supervisor_->runners_->End(member.session.runner);
    }
    RemoveFile(member.session.record.host_file).IgnoreError();
  }
  supervisor_->DropPin(job_, job_->TakePin());
  job_->End();
  if (continues_) {
    // The log is the user's, and was there before.
    job_->AckExit();
    job_->SetClient(nullptr);
    job_->OnLost("restore failed: " + why.message());
  } else {
    supervisor_->DropJob(job_);
  }
}

Result<v1::RestoreResult> Supervisor::Restore(
    const Caller& caller, const v1::RestoreRequest& request,
    const ProgressFunction& progress) {
  RestoreRun run(this, caller, request, progress);
  return run.Run();
}

}  // namespace pos
