// What users ask of the image store besides lists: comparing, freeing space,
// export and import.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <utility>

#include "ckpt/crypt/key_file.h"
#include "ckpt/store/export.h"
#include "pos/base/clock.h"
#include "pos/base/log.h"
#include "pos/daemon/caller_pipe.h"
#include "pos/daemon/supervisor.h"

namespace pos {
namespace {

constexpr std::uint64_t kGcPollNs = 20'000'000;

}  // namespace

bool Supervisor::IsMaster(const Caller& caller) {
  return caller.uid == 0 || caller.uid == ::geteuid();
}

Result<std::optional<ckpt::Secret>> Supervisor::ExportKey() const {
  if (options_.export_key_file.empty()) return std::optional<ckpt::Secret>();
  Result<ckpt::Secret> key = ckpt::ReadKeyFile(options_.export_key_file);
  POS_RETURN_IF_ERROR(key.status().WithContext("ckpt.export_key_file"));
  return std::optional<ckpt::Secret>(std::move(*key));
}

Result<v1::DiffImagesReply> Supervisor::DiffImages(
    const Caller& caller, const v1::DiffImagesRequest& request) {
  POS_RETURN_IF_ERROR(FindImage(caller, request.image_a()).status());
  POS_RETURN_IF_ERROR(FindImage(caller, request.image_b()).status());
  POS_ASSIGN_OR_RETURN(const ckpt::DiffReport report,
                       store_->Diff(request.image_a(), request.image_b()));
  v1::DiffImagesReply reply;
  reply.set_same_bytes(report.same_bytes);
  reply.set_changed_bytes(report.changed_bytes);
  reply.set_only_a_bytes(report.only_a_bytes);
  reply.set_only_b_bytes(report.only_b_bytes);
  for (const std::string& difference : report.differences) {
    reply.add_differences(difference);
  }
  return reply;
}

Result<v1::CollectGarbageReply> Supervisor::CollectGarbage(
    const Caller& caller, const std::function<bool()>& cancelled) {
  if (!IsMaster(caller)) {
    return Denied("only root frees the space of what all users have removed",
                  "posd does it by itself after `pos-cli images rm`");
  }
  const auto go_on = [&] {
    return cancelled() || leaving_soon_.load() ? Aborted("gc was cancelled")
                                               : Status();
  };
  // posd's own may be running, for what was removed just now.
  for (;;) {
    POS_RETURN_IF_ERROR(go_on());
    const Result<ckpt::GcReport> report =
        store_->Gc({.cancel = &leaving_soon_, .cancelled = cancelled});
    if (report.status().code() == Code::kBusy) {
      SleepNs(kGcPollNs);
      continue;
    }
    POS_RETURN_IF_ERROR(report.status());
    v1::CollectGarbageReply reply;
    reply.set_removed_images(report->removed_images);
    reply.set_removed_packs(report->removed_packs);
    reply.set_freed_bytes(report->freed_bytes);
    reply.set_held_back(report->held_back);
    return reply;
  }
}

Result<v1::ExportResult> Supervisor::ExportImage(
    const Caller& caller, const v1::ExportImageRequest& request, StdioFds stdio,
    const ProgressFunction& progress) {
  POS_ASSIGN_OR_RETURN(const ckpt::ImageSummary summary,
                       FindImage(caller, request.image()));
  v1::Progress shown;
  shown.set_phase("export");
  shown.set_total_bytes(summary.live_bytes);
  const auto go_on = [&] {
    return !progress(shown) || leaving_soon_.load()
               ? Aborted("the export was cancelled")
               : Status();
  };
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<CallerPipe> sink,
                       CallerPipe::Create(stdio.out.get(), go_on));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<ckpt::ImageHandle> image,
                       store_->OpenImage(request.image(), "an export"));
  POS_ASSIGN_OR_RETURN(const std::optional<ckpt::Secret> key, ExportKey());
  ckpt::ExportOptions options;
  options.encrypt = key.has_value();
  options.progress = [&](std::uint64_t bytes) {
    shown.set_done_bytes(std::min(bytes, shown.total_bytes()));
    return go_on();
  };
  POS_ASSIGN_OR_RETURN(
      const std::uint64_t bytes,
      ckpt::ExportImage(*image, store_->id(), key ? *key : store_->export_key(),
                        sink.get(), options));
  v1::ExportResult result;
  result.set_bytes(bytes);
  return result;
}

Result<v1::ImportResult> Supervisor::ImportImage(
    const Caller& caller, const v1::ImportImageRequest& request, StdioFds stdio,
    const ProgressFunction& progress) {
  v1::Progress shown;
  shown.set_phase("import");
  shown.set_total_bytes(request.total_bytes());
  const auto go_on = [&] {
    return !progress(shown) || leaving_soon_.load()
               ? Aborted("the import was cancelled")
               : Status();
  };
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<CallerPipe> feed,
                       CallerPipe::Create(stdio.in.get(), go_on));
  POS_ASSIGN_OR_RETURN(const std::optional<ckpt::Secret> key, ExportKey());
  ckpt::ImportOptions options;
  options.keys = {&store_->export_key()};
  if (key) options.keys.push_back(&*key);
  if (!IsMaster(caller)) options.owner = caller.uid;
  options.progress = [&](std::uint64_t bytes) {
    shown.set_done_bytes(bytes);
    return go_on();
  };
  POS_ASSIGN_OR_RETURN(const ckpt::ImportReport report,
                       ckpt::ImportImage(store_.get(), feed.get(), options));
  POS_LOG(kInfo, "image imported",
          {{"image", report.manifest.image}, {"source", report.source}});
  v1::ImportResult result;
  result.set_image(report.manifest.image);
  result.set_job(report.manifest.job.name);
  result.set_source(report.source);
  result.set_bytes(report.bytes);
  result.set_stored_bytes(report.manifest.totals.written_bytes);
  return result;
}

}  // namespace pos
