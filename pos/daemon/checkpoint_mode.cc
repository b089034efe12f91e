// Modes: which one is taken, and what is done while the job runs.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/daemon/checkpoint.h"

namespace pos {
namespace {

// Less than this is copied in the time that a cut takes anyway.
constexpr std::uint64_t kQuickBytes = 64u << 20;
// With less than this share of a job's memory free on its devices there is
// hardly a place to preserve anything in.
constexpr std::uint64_t kShadowShare = 64;

std::string MiB(std::uint64_t bytes) {
  return std::to_string((bytes + (1u << 19)) >> 20) + " MiB";
}

}  // namespace

ckpt::CheckpointMode CheckpointRun::ChooseAuto(std::uint64_t bytes) {
  using ckpt::CheckpointMode;
  if (request_.stop()) {
    reason_ = "the job ends with its image";
    return CheckpointMode::kStop;
  }
  if (bytes <= kQuickBytes) {
    reason_ = MiB(bytes) + ", which is soon copied";
    return CheckpointMode::kStop;
  }
  const Job::CopyHistory history = job_->copy_history();
  if (history.too_fast) {
    reason_ = "the job writes its memory faster than that is copied, it did";
    return CheckpointMode::kStop;
  }
  if (history.unforeseen) {
    reason_ = "the job writes memory that its calls do not name, it did";
    return CheckpointMode::kRecopy;
  }
  std::uint64_t free_bytes = 0;
  for (const int ordinal : job_->record().devices) {
    free_bytes += supervisor_->devices_->FreeBytes(ordinal);
  }
  if (free_bytes < bytes / kShadowShare) {
    reason_ = "only " + MiB(free_bytes) + " of device memory are free";
    return CheckpointMode::kRecopy;
  }
  reason_ = MiB(bytes) + ", and " + MiB(free_bytes) +
            " of device memory are free to preserve them in";
  return CheckpointMode::kCow;
}

Status CheckpointRun::ChooseMode() {
  using ckpt::CheckpointMode;
  const std::string& mode = request_.mode();
  reason_ = "asked for";
  if (mode == "stop") {
    mode_ = CheckpointMode::kStop;
  } else if (mode == "recopy") {
    mode_ = CheckpointMode::kRecopy;
  } else if (mode == "cow") {
    mode_ = CheckpointMode::kCow;
    if (request_.stop()) {
      mode_ = CheckpointMode::kStop;
      reason_ = "the job ends with its image; nothing is gained by cow";
    }
  } else {
    std::uint64_t bytes = 0;
    for (Member& member : members_) {
      runner::ToRunner request;
      request.mutable_ping();
      runner::FromRunner reply;
      POS_RETURN_IF_ERROR(CallRunner(&member, request, {}, kRunnerMs, &reply));
      bytes += reply.state().used_bytes();
    }
    mode_ = ChooseAuto(bytes);
  }
  return {};
}

bool CheckpointRun::Beside() {
  const bool all =
      std::all_of(members_.begin(), members_.end(),
                  [](const Member& member) { return member.saved.beside(); });
  if (!all) {
    mode_ = ckpt::CheckpointMode::kStop;
    reason_ += "; but a device did not let memory be copied beside the job";
  }
  return all;
}

Status CheckpointRun::CopyRounds() {
  POS_RETURN_IF_ERROR(Report("background copy"));
  POS_RETURN_IF_ERROR(ForEachUntilCancelled([this](Member* member) {
    if (!member->saving) return BeginSave(member, runner::Save::RECOPY);
    runner::ToRunner request;
    request.mutable_recopy();
    return CallSave(member, request);
  }));
  bool converged = true;
  std::uint64_t left = 0;
  std::uint32_t rounds = 0;
  for (const Member& member : members_) {
    converged = converged && member.saved.converged();
    left += member.saved.left_bytes();
    rounds = std::max(rounds, member.saved.rounds());
  }
  if (!Beside()) return {};
  if (converged) return {};
  // What is left is copied while the job stands still.
  mode_ = ckpt::CheckpointMode::kStop;
  reason_ += "; but after " + std::to_string(rounds) + " rounds " + MiB(left) +
             " were written again";
  job_->NoteTooFast();
  return {};
}

Result<bool> CheckpointRun::FinishCow() {
  // The cut is over: who comes now is not part of it.
  job_->SetAttachClosed(false);
  POS_RETURN_IF_ERROR(Report("background copy"));
  runner::ToRunner request;
  request.mutable_finish_cow();
  POS_RETURN_IF_ERROR(ForEachUntilCancelled(
      [&](Member* member) { return CallSave(member, request); }));
  for (const Member& member : members_) {
    unforeseen_ += member.saved.unforeseen_chunks();
  }
  if (unforeseen_ == 0) {
    Beside();
    return true;
  }
  job_->NoteUnforeseen();
  POS_LOG(kWarning, "a checkpoint is made again: memory was written unforeseen",
          {{"job", job_->name()}, {"chunks", unforeseen_}});
  return false;
}

Status CheckpointRun::TurnToRecopy() {
  job_->SetAttachClosed(true);
  const std::vector<JobSession> now = job_->sessions();
  const bool same =
      now.size() == members_.size() &&
      std::all_of(now.begin(), now.end(), [this](const JobSession& session) {
        return std::any_of(
            members_.begin(), members_.end(), [&](const Member& member) {
              return member.session.record.session == session.record.session;
            });
      });
  if (!same) {
    return NotReady("processes of the job came or went meanwhile", "try again");
  }
  reason_ += "; turned to recopy: " + std::to_string(unforeseen_) +
             " chunks were written unforeseen";
  mode_ = ckpt::CheckpointMode::kRecopy;
  earlier_stall_ns_ = gate_opened_ns_ - gate_closed_ns_;
  earlier_cpu_us_ = CpuDumpUs();
  gate_opened_ns_ = gate_closed_ns_ = 0;
  dumped_ = {};
  dump_failed_ = false;
  POS_RETURN_IF_ERROR(CopyRounds());
  // Another process image takes the place of the first.
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory(criu_dir_));
  for (const std::string& name : names) {
    POS_RETURN_IF_ERROR(RemoveTree(JoinPath(criu_dir_, name)));
  }
  POS_RETURN_IF_ERROR(Cut());
  return LetRun();
}

}  // namespace pos
