// posd's requests.
#include <grp.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>

#include "ckpt/engine/session_load.h"
#include "pos/base/log.h"
#include "pos/base/process.h"
#include "pos/runner/controller.h"
#include "pos/runner/sandbox.h"

namespace pos {
namespace {

constexpr int kGateMs = 5000;     // the client gives up after 3 s
constexpr int kDetachMs = 10000;  // likewise, unless posd says otherwise

Result<ckpt::PackId> PackIdOf(const std::string& bytes) {
  ckpt::PackId id;
  if (bytes.size() != id.bytes.size()) return Proto("pack id of a wrong size");
  std::memcpy(id.bytes.data(), bytes.data(), id.bytes.size());
  return id;
}

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

void Controller::Handle(const runner::ToRunner& request,
                        std::vector<UniqueFd> fds) {
  runner::FromRunner reply;
  Status status;
  switch (request.request_case()) {
    case runner::ToRunner::kConfigure:
      status = HandleConfigure(request.configure(), &reply);
      break;
    case runner::ToRunner::kAttach:
      status = HandleAttach(request.attach(), std::move(fds));
      break;
    case runner::ToRunner::kLoad:
      status = HandleLoad(request.load(), std::move(fds), &reply);
      break;
    case runner::ToRunner::kQuiesce:
      status = HandleQuiesce(request.quiesce(), &reply);
      break;
    case runner::ToRunner::kDetach:
      status = HandleDetach(request.detach());
      break;
    case runner::ToRunner::kSave:
      status = HandleSave(request.id(), request.save(), std::move(fds));
      if (status.ok()) return;  // answered when it is done
      break;
    case runner::ToRunner::kSaveHost:
      status = StartSaveStep(request.id(),
                             [this] { return save_->CopyHost(&save_cancel_); });
      if (status.ok()) return;
      break;
    case runner::ToRunner::kFinish:
      status = StartSaveStep(request.id(), [this] { return save_->Finish(); });
      if (status.ok()) return;
      break;
    case runner::ToRunner::kCancelSave:
      EndSave();
      break;
    case runner::ToRunner::kResume:
      status = HandleResume(request.resume());
      break;
    case runner::ToRunner::kEnd:
      ending_ = true;
      break;
    case runner::ToRunner::kPing:
    case runner::ToRunner::kAdopt:
      FillState(reply.mutable_state());
      break;
    case runner::ToRunner::kMemoryAnswer:
      if (ledger_ != nullptr) {
        ledger_->OnAnswer(request.memory_answer().device(),
                          request.memory_answer().granted_bytes(),
                          request.memory_answer().device_free_bytes());
      }
      return;
    case runner::ToRunner::REQUEST_NOT_SET:
      status = Proto("a request that this runner does not know");
      break;
  }
  SendReply(request.id(), status, &reply);
}

Status Controller::HandleConfigure(const runner::Configure& request,
                                   runner::FromRunner* reply) {
  if (!devices_.empty()) return Invalid("configured already");
  if (request.devices_size() < 1 ||
      request.devices_size() > static_cast<int>(cuda::ArenaLayout::kDevices)) {
    return Invalid("a session has 1 to 8 devices");
  }
  name_ = request.runner();
  socket_path_ = request.socket_path();
  options_.layout.arena_base = request.arena_base();
  options_.layout.arena_bytes = request.arena_bytes();
  options_.layout.host_base = request.host_base();
  options_.layout.host_bytes = request.host_bytes();
  options_.ring.ring_bytes = request.ring_bytes();
  options_.ring.staging_bytes = request.staging_bytes();
  options_.stage_threads = static_cast<int>(request.stage_threads());
  POS_RETURN_IF_ERROR(options_.layout.Check());
  POS_RETURN_IF_ERROR(OpenAt(request));
  reply->mutable_configured()->set_arena_base(options_.layout.arena_base);
  ledger_ = std::make_unique<RunnerLedger>(devices_.size());
  ledger_->SetSend(
      [this](int device, std::uint64_t bytes) {
        runner::FromRunner message;
        message.mutable_memory_wanted()->set_device(device);
        message.mutable_memory_wanted()->set_wanted_bytes(bytes);
        MutexLock lock(&posd_mu_);
        return posd_ != nullptr &&
               posd_->Send(message.SerializeAsString()).ok();
      },
      [this](int device, std::uint64_t bytes) {
        runner::FromRunner message;
        message.mutable_memory_returned()->set_device(device);
        message.mutable_memory_returned()->set_bytes(bytes);
        MutexLock lock(&posd_mu_);
        return posd_ != nullptr &&
               posd_->Send(message.SerializeAsString()).ok();
      });
  if (!socket_path_.empty()) {
    POS_ASSIGN_OR_RETURN(listener_, ControlChannel::Listen(socket_path_, 0600));
  }
  for (const auto& device : devices_) {
    const DeviceInfo& info = device->info();
    runner::DeviceReport* const report =
        reply->mutable_configured()->add_devices();
    report->set_kind(info.kind);
    report->set_name(info.name);
    report->set_uuid(info.uuid.data(), info.uuid.size());
    report->set_memory_bytes(info.memory_bytes);
  }
  return {};
}

Status Controller::MakeSession(std::uint64_t number, const std::string& job,
                               UniqueFd host_file) {
  if (devices_.empty()) return NotReady("the runner was not configured");
  if (session_ != nullptr) return Busy("the runner has a session");
  POS_ASSIGN_OR_RETURN(
      window_,
      TmpfsWindow::Create(std::move(host_file), options_.layout.host_base,
                          options_.layout.host_bytes));
  std::vector<Device*> devices;
  for (const auto& device : devices_) devices.push_back(device.get());
  POS_ASSIGN_OR_RETURN(
      session_,
      Session::Create(options_, std::move(devices), ledger_.get(),
                      window_.get(), [this](const Status& status) {
                        POS_LOG(kError, "malformed frame",
                                {{"why", status.message()}, {"job", job_}});
                        malformed_.store(true, std::memory_order_release);
                        Wake();
                      }));
  PinStaging();
  link_.SetFileSink([this](std::uint64_t file_number, UniqueFd file) {
    return window_->AddFile(file_number, std::move(file));
  });
  Session* const session = session_.get();
  ledger_->SetWake([session] { session->Wake(); });
  session_number_ = number;
  job_ = job;
  return {};
}

Status Controller::DropPrivileges(std::uint32_t uid, std::uint32_t gid) {
  if (::getuid() == 0) {
    if (uid != 0) {
      if (::setgroups(0, nullptr) != 0 || ::setresgid(gid, gid, gid) != 0 ||
          ::setresuid(uid, uid, uid) != 0) {
        return ErrnoStatus(errno, "become the client's user");
      }
    }
  } else if (::getuid() != uid) {
    return Denied("this runner cannot serve another user");
  }
  if (::prctl(PR_SET_DUMPABLE, 0) != 0) return ErrnoStatus(errno, "prctl");
  return EnterSandbox();
}

Status Controller::HandleAttach(const runner::Attach& request,
                                std::vector<UniqueFd> fds) {
  const std::size_t wanted = request.resume() ? 1 : 2;
  if (fds.size() != wanted) return Proto("wrong number of descriptors");
  UniqueFd socket = std::move(fds[0]);
  if (request.resume()) {
    if (session_ == nullptr || link_.connected() ||
        (phase_ != runner::State::DETACHED &&
         phase_ != runner::State::LOADED)) {
      ClientLink::Refuse(std::move(socket), wire::AttachStatus::kRefused,
                         "no session waits for this client");
      return NotReady("no session waits for a client");
    }
  } else {
    POS_RETURN_IF_ERROR(
        MakeSession(request.session(), request.job(), std::move(fds[1])));
  }
  POS_ASSIGN_OR_RETURN(client_pidfd_, OpenPidFd(request.pid()));
  client_pid_ = request.pid();
  if (!request.resume()) {
    POS_RETURN_IF_ERROR(DropPrivileges(request.uid(), request.gid()));
  }
  return link_.Accept(std::move(socket), *session_->ring(), window_->fd(),
                      options_.layout, session_number_,
                      static_cast<int>(devices_.size()));
}

Status Controller::HandleLoad(const runner::Load& request,
                              std::vector<UniqueFd> fds,
                              runner::FromRunner* reply) {
  if (fds.size() != 2 + static_cast<std::size_t>(request.packs_size())) {
    return Proto("wrong number of descriptors");
  }
  ckpt::SessionLoadFiles files;
  files.index = std::move(fds[1]);
  for (int i = 0; i < request.packs_size(); ++i) {
    POS_ASSIGN_OR_RETURN(const ckpt::PackId id, PackIdOf(request.packs(i)));
    files.packs.emplace_back(id,
                             std::move(fds[2 + static_cast<std::size_t>(i)]));
  }
  POS_RETURN_IF_ERROR(
      MakeSession(request.session(), request.job(), std::move(fds[0])));
  POS_RETURN_IF_ERROR(DropPrivileges(request.uid(), request.gid()));
  if (request.lazy()) {
    POS_RETURN_IF_ERROR(LoadLazily(request, std::move(files), reply));
  } else {
    POS_ASSIGN_OR_RETURN(const std::uint64_t bytes,
                         ckpt::LoadSession(session_.get(), std::move(files)));
    reply->mutable_loaded()->set_bytes(bytes);
  }
  // Loading takes nothing; from here on the session does.
  const int granted =
      std::min(request.granted_bytes_size(), static_cast<int>(devices_.size()));
  for (int i = 0; i < granted; ++i) {
    ledger_->SetGranted(i, request.granted_bytes(i), session_->TakenBytes(i));
  }
  phase_ = runner::State::LOADED;
  return {};
}

Status Controller::HandleQuiesce(const runner::Quiesce& request,
                                 runner::FromRunner* reply) {
  if (detach_late_) return Busy("the client stands still in a detach");
  if (phase_ != runner::State::SERVING) return NotReady("no client is served");
  if (lazy_ != nullptr) return Busy("its memory is still being loaded");
  epoch_ = request.epoch();
  runner::Quiesced* const out = reply->mutable_quiesced();
  out->set_gate_closed_ns(MonotonicNs());
  POS_RETURN_IF_ERROR(link_.Send(wire::SessionRecordType::kGate, epoch_));
  switch (link_.WaitAnswer(epoch_, kGateMs)) {
    case ClientLink::Event::kGated:
      break;
    case ClientLink::Event::kRefusing:
      return Busy(std::to_string(link_.inside()) +
                  " threads of the client are inside calls");
    case ClientLink::Event::kGone:
    case ClientLink::Event::kDetached:
      OnClientEnded("it closed its connection");
      return Closed("the client is gone");
    default:
      link_.Send(wire::SessionRecordType::kUngate, epoch_).IgnoreError();
      return Timeout("the client did not close its gate");
  }
  const Status status =
      session_->Quiesce(Deadline::AfterMs(request.drain_ms()));
  if (!status.ok()) {
    link_.Send(wire::SessionRecordType::kUngate, epoch_).IgnoreError();
    return status;
  }
  phase_ = runner::State::QUIESCED;
  out->set_drained_ns(MonotonicNs());
  out->set_pending_calls(session_->pending_calls());
  out->set_live_bytes(session_->memory().block_bytes());
  std::uint64_t host_bytes = 0;
  for (const auto& [address, bytes] : session_->host_blocks()) {
    host_bytes += bytes;
  }
  out->set_host_bytes(host_bytes);
  out->set_client_ns_pid(link_.client_pid());
  out->set_verdict_address(link_.verdict_address());
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    out->add_granted_bytes(ledger_->Granted(static_cast<int>(i)));
  }
  return {};
}

Status Controller::HandleDetach(const runner::Detach& request) {
  if (phase_ != runner::State::QUIESCED) return NotReady("not quiesced");
  if (detach_late_) return Busy("the client stands still in a detach");
  POS_RETURN_IF_ERROR(
      link_.Send(wire::SessionRecordType::kDetach, request.epoch()));
  const int limit_ms = request.timeout_ms() == 0
                           ? kDetachMs
                           : static_cast<int>(request.timeout_ms());
  switch (link_.WaitAnswer(request.epoch(), limit_ms)) {
    case ClientLink::Event::kDetached:
      phase_ = runner::State::DETACHED;
      return {};
    case ClientLink::Event::kRefusing:
      return Busy(std::to_string(link_.inside()) +
                  " threads of the client are inside calls");
    case ClientLink::Event::kGone:
      OnClientEnded("it closed its connection");
      return Closed("the client is gone");
    default:
      epoch_ = request.epoch();
      detach_late_ = true;
      return Timeout("the client did not detach");
  }
}

Status Controller::HandleSave(std::uint64_t id, const runner::Save& request,
                              std::vector<UniqueFd> fds) {
  if (phase_ != runner::State::QUIESCED && phase_ != runner::State::DETACHED) {
    return NotReady("not quiesced");
  }
  if (save_ != nullptr) return Busy("a save is under way");
  if (fds.size() != (request.has_known() ? 3u : 2u) ||
      request.store().size() != 16) {
    return Proto("wrong number of descriptors");
  }
  ckpt::SessionFiles files;
  std::memcpy(files.store.bytes.data(), request.store().data(), 16);
  files.session = request.session();
  files.digest_seed = request.digest_seed();
  files.chunk_bytes = request.chunk_bytes();
  POS_ASSIGN_OR_RETURN(files.pack_id, PackIdOf(request.pack()));
  files.pack = std::move(fds[0]);
  files.index = std::move(fds[1]);
  if (request.has_known()) files.known = std::move(fds[2]);
  ckpt::PackWriterOptions options;
  options.compress = CompressionOf(request.compress());
  if (request.depth() != 0) options.depth = request.depth();
  POS_ASSIGN_OR_RETURN(save_, ckpt::SessionSave::Create(
                                  session_.get(), std::move(files), options));
  save_cancel_.store(false);
  return StartSaveStep(id, [this] { return save_->CopyDevice(&save_cancel_); });
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
  runner::FromRunner reply;
  reply.mutable_saved()->set_copied_bytes(save_->copied_bytes());
  SendReply(std::exchange(save_request_, 0), save_status_, &reply);
}

void Controller::EndSave() {
  save_cancel_.store(true);
  if (save_thread_.joinable()) save_thread_.join();
  if (save_step_done_.exchange(false) && save_ != nullptr) {
    runner::FromRunner reply;
    reply.mutable_saved()->set_copied_bytes(save_->copied_bytes());
    SendReply(std::exchange(save_request_, 0), save_status_, &reply);
  }
  save_.reset();
  save_request_ = 0;
}

}  // namespace pos
