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

Result<ckpt::PackId> PackIdOf(const std::string& bytes) {
  ckpt::PackId id;
  if (bytes.size() != id.bytes.size()) return Proto("pack id of a wrong size");
  std::memcpy(id.bytes.data(), bytes.data(), id.bytes.size());
  return id;
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
    case runner::ToRunner::kFinishCow:
    case runner::ToRunner::kRecopy:
    case runner::ToRunner::kSaveCut:
    case runner::ToRunner::kSaveHost:
    case runner::ToRunner::kFinish:
      status = HandleSaveStep(request);
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
      if (phase_ == runner::State::WARM) status = CheckDevices();
      FillState(reply.mutable_state());
      break;
    case runner::ToRunner::kAdopt:
      FillState(reply.mutable_state());
      break;
    case runner::ToRunner::kMemoryAnswer:
      OnMemoryAnswer(request.memory_answer());
      return;
    case runner::ToRunner::REQUEST_NOT_SET:
      status = Proto("a request that this runner does not know");
      break;
  }
  SendReply(request.id(), status, &reply);
}

void Controller::OnMemoryAnswer(const runner::MemoryAnswer& answer) {
  if (ledger_ == nullptr) return;
  if (answer.only_told()) {
    ledger_->OnFree(answer.device(), answer.device_free_bytes());
  } else {
    ledger_->OnAnswer(answer.device(), answer.granted_bytes(),
                      answer.device_free_bytes());
  }
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
  POS_RETURN_IF_ERROR(OpenAt(request, reply));
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
  ledger_->SetHeadroom([this](int device, std::uint64_t promised) {
    return devices_[static_cast<std::size_t>(device)]->Headroom(promised);
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

}  // namespace pos
