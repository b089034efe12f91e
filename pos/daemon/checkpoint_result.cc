// What a checkpoint says about itself: the image's manifest, the command's
// answer.
#include <algorithm>
#include <string>
#include <utility>

#include "pos/daemon/checkpoint.h"
#include "pos/daemon/image_info.h"

namespace pos {

void CheckpointRun::FillManifest() {
  const JobRecord record = job_->record();
  manifest_.mode = mode_;
  manifest_.tag = request_.tag();
  manifest_.reason = reason_;
  FillJobInfo(record, criu_dir_, &manifest_);
  FillHostInfo(supervisor_->Criu(), &manifest_);
  FillDevices(record, *supervisor_->devices_->snapshot(), &manifest_);
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const Member& member = members_[i];
    ckpt::SessionRecord session;
    session.number = static_cast<std::uint32_t>(i);
    session.client_ns_pid =
        static_cast<std::uint32_t>(member.session.record.client_ns_pid);
    session.arena_base = supervisor_->options_.arena_base;
    session.arena_bytes = supervisor_->options_.arena_bytes;
    session.window_base = supervisor_->options_.host_base;
    session.window_bytes = supervisor_->options_.host_bytes;
    for (std::size_t d = 0; d < record.devices.size(); ++d) {
      session.devices.push_back(static_cast<std::uint32_t>(d));
    }
    session.name = std::to_string(member.session.record.session);
    manifest_.sessions.push_back(std::move(session));
    manifest_.totals.copied_bytes += member.saved.copied_bytes();
    manifest_.totals.rounds =
        std::max<std::uint64_t>(manifest_.totals.rounds, member.saved.rounds());
    AttachSession(i, member.session.record, member.quiesced, &manifest_);
  }
  if (!series_.empty()) {
    manifest_.attachments.push_back({ckpt::kSeriesAttachment, series_});
  }
  manifest_.totals.unforeseen_chunks = unforeseen_;
  manifest_.totals.cpu_dump_ns = (earlier_cpu_us_ + CpuDumpUs()) * 1000;
  if (gate_opened_ns_ != 0) {
    manifest_.totals.stall_ns =
        earlier_stall_ns_ + gate_opened_ns_ - gate_closed_ns_;
  }
}

// A tree that ends with its image is held until that is sealed: then the time
// to the freeze is all there is.
std::uint64_t CheckpointRun::CpuDumpUs() const {
  return dumped_.total_us() != 0 ? dumped_.total_us() - dumped_.held_us()
                                 : frozen_us_;
}

v1::CheckpointResult CheckpointRun::MakeResult() const {
  v1::CheckpointResult result;
  const ckpt::Totals& totals = manifest_.totals;
  result.set_image(manifest_.image);
  result.set_job(job_->name());
  result.set_mode(std::string(ckpt::CheckpointModeName(manifest_.mode)));
  result.set_reason(manifest_.reason);
  result.set_stall_us((earlier_stall_ns_ + gate_opened_ns_ - gate_closed_ns_) /
                      1000);
  result.set_cpu_dump_us(earlier_cpu_us_ + CpuDumpUs());
  result.set_total_us((MonotonicNs() - started_ns_) / 1000);
  result.set_live_bytes(totals.live_bytes);
  result.set_copied_bytes(totals.copied_bytes);
  result.set_written_bytes(totals.written_bytes);
  result.set_chunks(totals.chunks);
  result.set_unforeseen_chunks(totals.unforeseen_chunks);
  result.set_rounds(static_cast<std::uint32_t>(totals.rounds));
  std::uint64_t digest_ns = 0;
  for (const Member& member : members_) {
    digest_ns = std::max(digest_ns, member.saved.digest_ns());
  }
  result.set_digest_us(digest_ns / 1000);
  result.set_attempts(attempts_);
  result.set_attempts_stall_us(failed_ns_ / 1000);
  if (request_.trace()) {
    for (v1::TraceEvent& event : trace_.Events()) {
      *result.add_trace() = std::move(event);
    }
  }
  return result;
}

}  // namespace pos
