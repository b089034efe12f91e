// What is written: the draft, the sessions' memory, the seal.
#include <thread>
#include <utility>

#include "pos/daemon/checkpoint.h"

namespace pos {
namespace {

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

Status CheckpointRun::DumpAndCopy() {
  std::uint64_t live_bytes = 0;
  for (const Member& member : members_) {
    live_bytes += member.quiesced.live_bytes();
  }
  POS_RETURN_IF_ERROR(Report("copy", 0, live_bytes));
  // Either ends with the other: neither is of use alone, and the job stands
  // still for both.
  cut_error_.Forget();
  std::thread dump([this] { cut_error_.Note(Dump()); });
  cut_error_.Note(ForEachUntilCancelled(
      [this](Member* member) { return CopyInCut(member); }));
  dump.join();
  return cut_error_.get();
}

Status CheckpointRun::CopyInCut(Member* member) {
  if (mode_ == ckpt::CheckpointMode::kCow) {
    return BeginSave(member, runner::Save::COW);
  }
  if (!member->saving) return BeginSave(member, runner::Save::STOP);
  runner::ToRunner request;
  request.mutable_save_cut();
  return CallSave(member, request);
}

Status CheckpointRun::BeginSave(Member* member, runner::Save::Mode mode) {
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
  save->set_mode(mode);
  save->set_shadow_bytes(tunables_.shadow_bytes);
  save->set_max_rounds(tunables_.max_rounds);
  std::vector<int> fds = {files.pack.get(), files.index.get()};
  if (files.known.valid()) fds.push_back(files.known.get());
  member->saving = true;
  const Status status = CallSave(member, request, fds);
  // The runner has its own descriptors now; sealing waits for all to close.
  member->files = {};
  return status;
}

Status CheckpointRun::CallSave(Member* member, const runner::ToRunner& request,
                               std::span<const int> fds) {
  runner::FromRunner reply;
  POS_RETURN_IF_ERROR(CallRunner(member, request, fds, kCopyMs, &reply));
  member->saved = reply.saved();
  return {};
}

Status CheckpointRun::SaveHost() {
  POS_RETURN_IF_ERROR(Report("host memory"));
  runner::ToRunner request;
  request.mutable_save_host();
  return ForEachUntilCancelled(
      [&](Member* member) { return CallSave(member, request); });
}

Status CheckpointRun::FinishSaves() {
  runner::ToRunner request;
  request.mutable_finish();
  POS_RETURN_IF_ERROR(ForEachUntilCancelled([&](Member* member) {
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
    POS_RETURN_IF_ERROR(hold_.Check());
  }
  FillManifest();
  Result<ckpt::Manifest> sealed =
      draft_->Seal(std::move(manifest_), started_ns_);
  POS_RETURN_IF_ERROR(sealed.status());
  manifest_ = std::move(*sealed);
  draft_.reset();
  return {};
}

}  // namespace pos
