// What a restore makes before its job runs: the sessions' memory, the tree of
// processes.
#include <fcntl.h>

#include <chrono>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/daemon/restore.h"

namespace pos {
namespace {

constexpr std::uint64_t kLoadMs = 24ull * 3600 * 1000;
constexpr std::uint64_t kJobMs = 30'000;
constexpr std::chrono::milliseconds kCancelPoll(20);

job::StartRestore::FilePolicy PolicyOf(v1::RestoreRequest::Files files) {
  switch (files) {
    case v1::RestoreRequest::KEEP:
      return job::StartRestore::KEEP;
    case v1::RestoreRequest::COPY:
      return job::StartRestore::COPY;
    default:
      return job::StartRestore::TRUNCATE;
  }
}

}  // namespace

Status RestoreRun::LoadMember(std::size_t number, Member* member) {
  const std::shared_ptr<DeviceTable> no_table;
  DeviceTable& devices = *supervisor_->devices_;
  POS_ASSIGN_OR_RETURN(member->session.runner,
                       supervisor_->runners_->Take(devices_));
  Runner* const runner = member->session.runner.get();
  member->session.record.runner = runner->name();
  job_->UpdateSession(member->session.record.session, [&](JobSession* s) {
    s->runner = member->session.runner;
    s->record.runner = runner->name();
  });
  if (loading_given_up_.load()) return Aborted("the restore was given up");
  const ckpt::Manifest& manifest = image_->manifest();
  runner::ToRunner request;
  runner::Load* const load = request.mutable_load();
  load->set_session(member->session.record.session);
  load->set_job(job_->name());
  load->set_lazy(request_.lazy());
  load->set_lazy_bytes_per_second(tunables_.lazy_bytes_per_second);
  load->set_uid(manifest.owner_uid);
  load->set_gid(manifest.owner_gid);
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    const std::uint64_t wanted = d < member->image.granted_bytes.size()
                                     ? member->image.granted_bytes[d]
                                     : 0;
    if (wanted != 0 &&
        devices.Grant(runner->name(), devices_[d], wanted, wanted) == 0) {
      return OutOfMemory("device " + std::to_string(devices_[d]) +
                         " has not enough free memory");
    }
    load->add_granted_bytes(wanted);
  }
  POS_ASSIGN_OR_RETURN(const ckpt::SessionReadFiles files,
                       image_->OpenSession(static_cast<std::uint32_t>(number)));
  std::vector<int> fds = {member->host_file.get(), files.index.get()};
  for (const auto& [id, fd] : files.packs) {
    load->add_packs(id.bytes.data(), id.bytes.size());
    fds.push_back(fd.get());
  }
  const auto span = trace_.Begin("load", member->session.record.session);
  return runner->Call(request, fds, kLoadMs)
      .status()
      .WithContext("image " + manifest.image + ", session " +
                   std::to_string(number));
}

Status RestoreRun::StartTree() {
  POS_ASSIGN_OR_RETURN(
      const UniqueFd images,
      OpenFile(JoinPath(image_->directory(), "criu"), O_RDONLY | O_DIRECTORY));
  job::JobConfig config;
  config.set_name(job_->name());
  config.set_directory(job_->directory());
  POS_ASSIGN_OR_RETURN(const std::string criu, supervisor_->Criu());
  config.set_criu(criu);
  config.mutable_stdio()->set_log_attached(true);
  job::StartRestore* const restore = config.mutable_restore();
  std::vector<int> fds = {images.get()};
  restore->set_images_fd(1);
  restore->set_files(PolicyOf(request_.files()));
  restore->set_copy_directory(request_.copy_directory());
  restore->set_timeout_ms(tunables_.criu_restore_ms);
  restore->set_hold_ms(tunables_.hold_ms);
  restore->set_cut_log(continues_);
  for (const Member& member : members_) {
    job::ReplacedFile* const file = restore->add_replace();
    file->set_path(member.image.host_file);
    fds.push_back(member.host_file.get());
    file->set_fd(static_cast<std::uint32_t>(fds.size()));
  }
  const auto span = trace_.Begin("CRIU", 0);
  POS_RETURN_IF_ERROR(supervisor_->StartPosJob(job_, config, fds));
  tree_started_ = true;
  const Deadline until = Deadline::AfterMs(tunables_.criu_restore_ms + kJobMs);
  const auto gave_up = [this] {
    return !job_->record().alive() || !Report("restore").ok() ||
           !load_error_.get().ok();
  };
  if (job_->WaitRestoreHeld(until, gave_up)) {
    hold_.Start(tunables_.hold_ms,
                [job = job_](std::uint64_t ms) { return job->ExtendHold(ms); });
    return {};
  }
  if (cancelled_) return Aborted("the restore was cancelled");
  POS_RETURN_IF_ERROR(load_error_.get());
  // The reason came with the event that ended it.
  const Status status = job_->WaitStarted(Deadline::AfterMs(1));
  return status.ok() ? Timeout("CRIU did not restore the job in time") : status;
}

Status RestoreRun::Load() {
  POS_RETURN_IF_ERROR(Report("load"));
  // The files behind pinned memory are filled by the runners, and the tree maps
  // them when it runs; both may happen at once.
  std::vector<std::future<void>> members;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    members.push_back(std::async(std::launch::async, [this, i] {
      load_error_.Note(LoadMember(i, &members_[i]));
    }));
  }
  load_error_.Note(StartTree());
  for (const std::future<void>& member : members) {
    while (member.wait_for(kCancelPoll) != std::future_status::ready) {
      if (Cancelled()) load_error_.Note(Aborted("the restore was cancelled"));
      load_error_.Note(hold_.lost());
      if (!load_error_.get().ok()) GiveUpLoading();
    }
  }
  loaded_ns_ = MonotonicNs();
  return load_error_.get();
}

void RestoreRun::GiveUpLoading() {
  // Who has not got a runner yet sees this when it has one.
  loading_given_up_.store(true);
  for (const JobSession& session : job_->sessions()) {
    // It hears nothing while it loads.
    if (session.runner != nullptr) session.runner->Kill();
  }
}

}  // namespace pos
