// Images, devices, checks.
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "ckpt/criu/criu.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/daemon/image_info.h"
#include "pos/daemon/supervisor.h"

namespace pos {
namespace {

std::string Mib(std::uint64_t bytes) {
  return std::to_string(bytes >> 20) + " MiB";
}

v1::CheckResult Checked(const std::string& name, const Status& status,
                        const std::string& detail) {
  v1::CheckResult check;
  check.set_name(name);
  check.set_ok(status.ok());
  check.set_detail(status.ok() ? detail : status.ToString());
  return check;
}

v1::CheckResult CheckHostFiles(const std::string& directory) {
  struct statfs fs {};
  if (::statfs(directory.c_str(), &fs) != 0) {
    return Checked("pinned memory", ErrnoStatus(errno, directory), "");
  }
  const auto free_bytes = static_cast<std::uint64_t>(fs.f_bavail) *
                          static_cast<std::uint64_t>(fs.f_bsize);
  if (fs.f_type != TMPFS_MAGIC) {
    return Checked("pinned memory",
                   Incompatible(directory + " is not on tmpfs"), "");
  }
  return Checked("pinned memory", {},
                 directory + ", " + Mib(free_bytes) + " free");
}

}  // namespace

Result<ckpt::ImageSummary> Supervisor::FindImage(const Caller& caller,
                                                 const std::string& image) {
  Result<ckpt::ImageSummary> summary = store_->Find(image);
  if (!summary.ok() || (caller.uid != 0 && caller.uid != summary->owner_uid)) {
    return NoSuch("no image '" + image + "'",
                  "`pos-cli images ls` lists the images");
  }
  return summary;
}

Result<v1::ListImagesReply> Supervisor::ListImages(const Caller& caller) {
  const std::vector<ckpt::ImageSummary> images =
      caller.uid == 0 ? store_->List() : store_->List(caller.uid);
  v1::ListImagesReply reply;
  for (const ckpt::ImageSummary& image : images) {
    v1::Image* const out = reply.add_images();
    out->set_image(image.image);
    out->set_job(image.job);
    out->set_created_at(image.created_ms);
    out->set_mode(std::string(ckpt::CheckpointModeName(image.mode)));
    out->set_live_bytes(image.live_bytes);
    out->set_stored_bytes(image.stored_bytes);
    out->set_tag(image.tag);
    out->set_uid(image.owner_uid);
    if (!image.damage.ok()) out->set_damage(image.damage.message());
  }
  return reply;
}

Result<v1::ShowImageReply> Supervisor::ShowImage(const Caller& caller,
                                                 const std::string& image) {
  POS_RETURN_IF_ERROR(FindImage(caller, image).status());
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<ckpt::ImageHandle> handle,
                       store_->OpenImage(image, "images show"));
  v1::ShowImageReply reply;
  reply.set_json(ImageJson(*handle));
  return reply;
}

Result<v1::VerifyResult> Supervisor::VerifyImage(
    const Caller& caller, const std::string& image,
    const ProgressFunction& progress) {
  POS_ASSIGN_OR_RETURN(const ckpt::ImageSummary summary,
                       FindImage(caller, image));
  std::atomic<bool> cancel{false};
  ckpt::VerifyOptions options;
  options.cancel = &cancel;
  options.progress = [&](std::uint64_t bytes) {
    v1::Progress p;
    p.set_phase("verify");
    p.set_done_bytes(bytes);
    p.set_total_bytes(summary.live_bytes);
    if (!progress(p) || leaving_soon_.load()) cancel.store(true);
  };
  POS_ASSIGN_OR_RETURN(const ckpt::VerifyReport report,
                       store_->Verify(image, options));
  v1::VerifyResult result;
  result.set_files(report.files);
  result.set_chunks(report.chunks);
  result.set_bytes(report.bytes);
  result.set_problems(report.problems);
  for (const std::string& problem : report.first_problems) {
    result.add_first_problems(problem);
  }
  return result;
}

Status Supervisor::RemoveImage(const Caller& caller, const std::string& image) {
  POS_RETURN_IF_ERROR(FindImage(caller, image).status());
  POS_RETURN_IF_ERROR(store_->Remove(image));
  CollectGarbage();
  return {};
}

void Supervisor::CollectGarbage() {
  {
    MutexLock lock(&mu_);
    garbage_wanted_ = true;
    if (garbage_running_) return;  // it looks again when it is done
    garbage_running_ = true;
  }
  const bool posted = tasks_->Post([this] {
    for (;;) {
      {
        MutexLock lock(&mu_);
        garbage_running_ = garbage_wanted_;
        if (!garbage_wanted_) return;
        garbage_wanted_ = false;
      }
      const Result<ckpt::GcReport> report =
          store_->Gc({.cancel = &leaving_soon_});
      if (report.status().code() == Code::kAborted) {
        POS_LOG(kInfo, "the next posd frees the space of removed images");
      } else if (!report.ok()) {
        POS_LOG(kError, "space of removed images could not be freed",
                {{"why", report.status().ToString()}});
      } else if (report->removed_images + report->removed_packs != 0) {
        POS_LOG(kInfo, "space of removed images is free",
                {{"freed_bytes", report->freed_bytes},
                 {"held_back", report->held_back}});
      }
    }
  });
  if (posted) return;
  MutexLock lock(&mu_);
  garbage_running_ = false;  // posd ends
}

Result<v1::DevicesReply> Supervisor::Devices(const Caller&) {
  v1::DevicesReply reply;
  for (const NodeDevice& device : devices_->snapshot()->devices) {
    v1::Device* const out = reply.add_devices();
    out->set_device(std::to_string(device.ordinal));
    out->set_kind(device.kind);
    out->set_name(device.name);
    out->set_memory_bytes(device.memory_bytes);
    out->set_free_bytes(devices_->FreeBytes(device.ordinal));
    out->set_state(device.state);
    out->set_sessions(devices_->Sessions(device.ordinal));
  }
  return reply;
}

Result<v1::CheckReply> Supervisor::Check(const Caller&) {
  v1::CheckReply reply;
  for (const NodeDevice& device : devices_->snapshot()->devices) {
    *reply.add_checks() = Checked(
        "device " + std::to_string(device.ordinal),
        device.why.empty() ? Status() : Status(Code::kDeviceGone, device.why),
        device.kind + ": " + device.name + ", " + Mib(device.memory_bytes));
  }
  *reply.add_checks() = Checked("devices", {}, options_.devices_why);
  const Result<std::string> criu = Criu();
  Status status = criu.status();
  std::string detail;
  if (status.ok()) {
    const Result<CriuVersion> version = RequireCriu(*criu);
    status = version.status();
    if (status.ok()) detail = *criu + ", version " + version->ToString();
  }
  *reply.add_checks() = Checked("criu", status, detail);
  if (status.ok()) {
    *reply.add_checks() =
        Checked("kernel for criu", CheckCriu(*criu), "supported");
    *reply.add_checks() = Checked("dirty tracking for criu", {},
                                  CriuHasFeature(*criu, "mem_dirty_track")
                                      ? "supported"
                                      : "not in this kernel: no pre-dump");
  }
  struct statvfs fs {};
  status = ::statvfs(store_->path().c_str(), &fs) == 0
               ? Status()
               : ErrnoStatus(errno, store_->path());
  *reply.add_checks() =
      Checked("store", status,
              store_->path() + ", " +
                  Mib(std::uint64_t{fs.f_bavail} * fs.f_frsize) + " free");
  *reply.add_checks() = CheckHostFiles(options_.host_file_dir);
  *reply.add_checks() = Checked(
      "privileges",
      ::geteuid() == 0 ? Status()
                       : Denied("posd does not run as root: no namespaces, no "
                                "checkpoints"),
      "root");
  return reply;
}

}  // namespace pos
