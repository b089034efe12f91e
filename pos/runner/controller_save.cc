// The saves: what of them posd asks for, and the thread that does it.
#include <cstring>
#include <functional>
#include <utility>

#include "pos/runner/controller.h"

namespace pos {
namespace {

ckpt::Compression CompressionOf(runner::Save::Compress compress) {
  switch (compress) {
    case runner::Save::NONE:
      return ckpt::Compression::kNone;
    case runner::Save::ZSTD:
      return ckpt::Compression::kZstd;
    case runner::Save::LZ4:
      return ckpt::Compression::kLz4;
    default:
      return ckpt::Compression::kAuto;
  }
}

}  // namespace

Status Controller::HandleSave(std::uint64_t id, const runner::Save& request,
                              std::vector<UniqueFd> fds) {
  const runner::Save::Mode mode = request.mode();
  const bool ready = mode == runner::Save::RECOPY
                         ? phase_ == runner::State::SERVING
                         : AtRest();
  if (!ready) return NotReady("the session is not where this mode begins");
  if (save_ != nullptr) return Busy("a save is under way");
  if (lazy_ != nullptr) return Busy("its memory is still being loaded");
  if (fds.size() != (request.has_known() ? 3u : 2u) ||
      request.store().size() != 16) {
    return Proto("wrong number of descriptors");
  }
  ckpt::SessionFiles files;
  std::memcpy(files.store.bytes.data(), request.store().data(), 16);
  files.session = request.session();
  files.digest_seed = request.digest_seed();
  files.chunk_bytes = request.chunk_bytes();
  if (request.pack().size() != files.pack_id.bytes.size()) {
    return Proto("pack id of a wrong size");
  }
  std::memcpy(files.pack_id.bytes.data(), request.pack().data(),
              files.pack_id.bytes.size());
  files.pack = std::move(fds[0]);
  files.index = std::move(fds[1]);
  if (request.has_known()) files.known = std::move(fds[2]);
  ckpt::SaveOptions options;
  options.pack.compress = CompressionOf(request.compress());
  if (request.depth() != 0) options.pack.depth = request.depth();
  options.shadow_bytes = request.shadow_bytes();
  if (request.max_rounds() != 0) options.max_rounds = request.max_rounds();
  POS_ASSIGN_OR_RETURN(save_, ckpt::SessionSave::Create(
                                  session_.get(), std::move(files), options));
  save_cancel_.store(false);
  return StartSaveStep(id, [this, mode] {
    switch (mode) {
      case runner::Save::COW:
        return save_->BeginCow(&save_cancel_);
      case runner::Save::RECOPY:
        return save_->CopyRounds(&save_cancel_);
      default:
        return save_->CopyAtCut(&save_cancel_);
    }
  });
}

Status Controller::HandleSaveStep(const runner::ToRunner& request) {
  const bool serving = phase_ == runner::State::SERVING;
  const std::atomic<bool>* const cancel = &save_cancel_;
  const auto start = [&](auto step) {
    return StartSaveStep(request.id(), std::move(step));
  };
  switch (request.request_case()) {
    case runner::ToRunner::kFinishCow:
      if (!serving) return NotReady("the client is not back");
      return start([this, cancel] { return save_->FinishCow(cancel); });
    case runner::ToRunner::kRecopy:
      if (!serving) return NotReady("no client is served");
      return start([this, cancel] { return save_->CopyRounds(cancel); });
    case runner::ToRunner::kSaveCut:
      if (!AtRest()) return NotReady("not quiesced");
      return start([this, cancel] { return save_->CopyAtCut(cancel); });
    case runner::ToRunner::kSaveHost:
      return start([this, cancel] { return save_->CopyHost(cancel); });
    case runner::ToRunner::kFinish:
      return start([this] { return save_->Finish(); });
    default:
      return Internal("no step of a save");
  }
}

Status Controller::StartSaveStep(std::uint64_t id,
                                 std::function<Status()> step) {
  if (save_ == nullptr) return NotReady("no save is under way");
  if (save_request_ != 0) return Busy("a step of the save is running");
  if (save_thread_.joinable()) save_thread_.join();
  save_request_ = id;
  save_step_done_.store(false);
  save_thread_ = std::thread([this, step = std::move(step)] {
    save_status_ = step();
    save_step_done_.store(true, std::memory_order_release);
    Wake();
  });
  return {};
}

void Controller::OnSaveDone() {
  if (save_thread_.joinable()) save_thread_.join();
  save_step_done_.store(false);
  SendSaved();
}

void Controller::SendSaved() {
  runner::FromRunner reply;
  runner::Saved* const saved = reply.mutable_saved();
  const ckpt::SaveCounts& counts = save_->counts();
  saved->set_copied_bytes(save_->copied_bytes());
  saved->set_unforeseen_chunks(counts.unforeseen_chunks);
  saved->set_rounds(counts.rounds);
  saved->set_left_bytes(counts.left_bytes);
  saved->set_converged(counts.converged);
  saved->set_digest_ns(counts.digest_ns);
  saved->set_beside(counts.beside);
  SendReply(std::exchange(save_request_, 0), save_status_, &reply);
}

void Controller::EndSave() {
  save_cancel_.store(true);
  // A step that waits for the disk looks at nothing else.
  if (save_ != nullptr) save_->Abort();
  if (save_thread_.joinable()) save_thread_.join();
  if (save_step_done_.exchange(false) && save_ != nullptr) SendSaved();
  save_request_ = 0;
  if (save_ == nullptr) return;
  // Writes under way are waited for where nobody is kept waiting.
  if (burial_.joinable()) burial_.join();
  burial_ =
      std::thread([writer = save_->GiveUp()]() mutable { writer.reset(); });
  save_.reset();
}

}  // namespace pos
