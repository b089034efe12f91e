#include "pos/daemon/runner_pool.h"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "pos/base/bytes.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/daemon/spawn.h"

namespace pos {
namespace {

constexpr std::uint64_t kConfigureMs = 60'000;  // a context on a GPU takes time
constexpr std::uint64_t kAdoptMs = 5'000;
constexpr std::uint64_t kEndMs = 3'000;
constexpr std::uint64_t kPingMs = 5'000;
// Between two tries of a device that failed.
constexpr auto kTryAgain = std::chrono::seconds(5);
// Granted along with what is asked for, so that small allocations do not each
// cost a round trip.
constexpr std::uint64_t kGrantAhead = 64u << 20;

std::string NewRunnerName() {
  std::array<std::byte, 6> random;
  RandomBytes(random);
  return "r" + HexBytes(random);
}

Status ErrorOf(const runner::FromRunner& message) {
  if (message.error_code().empty()) return {};
  return {CodeFromName(message.error_code()), message.error_message()};
}

}  // namespace

Result<RunnerPeer::Message> Runner::Call(const runner::ToRunner& request,
                                         std::span<const int> fds,
                                         std::uint64_t timeout_ms) {
  POS_ASSIGN_OR_RETURN(RunnerPeer::Message reply,
                       peer_->Call(request, fds, timeout_ms));
  POS_RETURN_IF_ERROR(ErrorOf(reply.body));
  return reply;
}

void Runner::Kill() {
  if (pid_ > 0 && !peer_->closed()) ::kill(pid_, SIGKILL);
}

RunnerPool::~RunnerPool() { Close(); }

std::string RunnerPool::SocketPath(const std::string& name) const {
  return JoinPath(options_.directory, name + ".sock");
}

void RunnerPool::Connect(const std::shared_ptr<Runner>& runner,
                         UniqueFd socket) {
  const std::weak_ptr<Runner> weak = runner;
  runner->peer_ = RunnerPeer::Create(
      loop_, std::move(socket),
      [this, weak](RunnerPeer::Message message) {
        if (const auto r = weak.lock()) OnMessage(r, message.body);
      },
      [this, weak, name = runner->name()] {
        ReapChildren();
        // Whether or not somebody still holds the runner.
        devices_->Release(name);
        RemoveFile(SocketPath(name)).IgnoreError();
        const auto r = weak.lock();
        if (r == nullptr) return;
        if (on_gone_) on_gone_(r);
        MutexLock lock(&mu_);
        std::erase(ending_, r);
        changed_.NotifyAll();
      });
}

void RunnerPool::OnMessage(const std::shared_ptr<Runner>& runner,
                           const runner::FromRunner& message) {
  switch (message.body_case()) {
    case runner::FromRunner::kEvent:
      if (on_event_) on_event_(runner, message.event());
      break;
    case runner::FromRunner::kMemoryWanted:
      OnMemoryWanted(runner, message.memory_wanted());
      break;
    case runner::FromRunner::kMemoryReturned: {
      const auto device =
          static_cast<std::size_t>(message.memory_returned().device());
      if (device < runner->devices().size()) {
        devices_->GiveBack(runner->name(), runner->devices()[device],
                           message.memory_returned().bytes());
      }
      break;
    }
    default:
      break;
  }
}

void RunnerPool::OnMemoryWanted(const std::shared_ptr<Runner>& runner,
                                const runner::MemoryWanted& wanted) {
  const auto device = static_cast<std::size_t>(wanted.device());
  runner::ToRunner answer;
  runner::MemoryAnswer* const body = answer.mutable_memory_answer();
  body->set_device(wanted.device());
  body->set_only_told(wanted.wanted_bytes() == 0);
  if (device < runner->devices().size()) {
    const int ordinal = runner->devices()[device];
    if (wanted.wanted_bytes() != 0) {
      body->set_granted_bytes(
          devices_->Grant(runner->name(), ordinal, wanted.wanted_bytes(),
                          wanted.wanted_bytes() + kGrantAhead));
    }
    body->set_device_free_bytes(devices_->FreeBytes(ordinal));
  }
  runner->peer_->Send(answer).IgnoreError();
}

Status RunnerPool::Configure(Runner* runner) {
  runner::ToRunner request;
  runner::Configure* const configure = request.mutable_configure();
  configure->set_runner(runner->name());
  configure->set_socket_path(SocketPath(runner->name()));
  const std::shared_ptr<const DeviceSnapshot> snapshot = devices_->snapshot();
  for (const int ordinal : runner->devices()) {
    const auto it = std::find_if(
        snapshot->devices.begin(), snapshot->devices.end(),
        [ordinal](const NodeDevice& d) { return d.ordinal == ordinal; });
    if (it == snapshot->devices.end()) {
      return NoSuch("no device " + std::to_string(ordinal));
    }
    runner::DeviceSpec* const spec = configure->add_devices();
    spec->set_kind(it->kind == "cuda" ? runner::DeviceSpec::CUDA
                                      : runner::DeviceSpec::SIM);
    spec->set_driver_library(it->driver_library);
    spec->set_driver_ordinal(it->driver_ordinal);
    spec->set_ordinal(ordinal);
    spec->set_memory_bytes(it->memory_bytes);
    spec->set_copy_bytes_per_second(it->copy_bytes_per_second);
    spec->set_compute_threads(it->compute_threads);
    spec->set_compute_capability(it->compute_capability);
  }
  configure->set_arena_base(options_.arena_base);
  configure->set_arena_bytes(options_.arena_bytes);
  configure->set_host_base(options_.host_base);
  configure->set_host_bytes(options_.host_bytes);
  configure->set_ring_bytes(options_.ring_bytes);
  configure->set_staging_bytes(options_.staging_bytes);
  configure->set_stage_threads(options_.stage_threads);
  return runner->Call(request, {}, kConfigureMs).status();
}

Result<std::shared_ptr<Runner>> RunnerPool::StartRunner(
    const std::vector<int>& devices) {
  UniqueFd ours;
  UniqueFd theirs;
  POS_RETURN_IF_ERROR(ControlChannel::MakePair(&ours, &theirs));
  auto runner = std::make_shared<Runner>(NewRunnerName(), devices);
  POS_ASSIGN_OR_RETURN(runner->pid_,
                       SpawnWithChannel({options_.program, "--channel", "3",
                                         "--log-level", options_.log_level},
                                        std::move(theirs)));
  Connect(runner, std::move(ours));
  Status status = Configure(runner.get());
  if (!status.ok()) {
    runner->peer_->Shutdown();
    NoteFailure(devices, status);
    return status.WithContext("start a runner");
  }
  return runner;
}

void RunnerPool::KeepWarm() {
  MutexLock lock(&mu_);
  if (closed_ || filling_ || warm_.size() >= options_.warm) return;
  filling_ = true;
  fillers_.emplace_back([this] {
    for (;;) {
      const std::shared_ptr<const DeviceSnapshot> snapshot =
          devices_->snapshot();
      {
        MutexLock fill_lock(&mu_);
        if (closed_ || warm_.size() >= options_.warm ||
            snapshot->devices.empty()) {
          filling_ = false;
          return;
        }
      }
      Result<std::shared_ptr<Runner>> runner =
          StartRunner({snapshot->devices.front().ordinal});
      MutexLock fill_lock(&mu_);
      if (!runner.ok()) {
        POS_LOG(kError, "cannot keep a runner warm",
                {{"why", runner.status().ToString()}});
        filling_ = false;
        return;
      }
      warm_.push_back(std::move(*runner));
    }
  });
}

void RunnerPool::NoteFailure(const std::vector<int>& devices,
                             const Status& status) {
  switch (status.code()) {
    case Code::kDeviceGone:
    case Code::kInternal:
    case Code::kNoSuch:
    case Code::kTimeout:
    case Code::kClosed:
      break;
    default:  // full, or not as configured
      return;
  }
  bool any = false;
  for (const NodeDevice& device : devices_->snapshot()->devices) {
    if (device.kind != "cuda" || std::find(devices.begin(), devices.end(),
                                           device.ordinal) == devices.end()) {
      continue;
    }
    if (device.state != "failed") {
      POS_LOG(kError, "a device does not work",
              {{"device", device.ordinal}, {"why", status.message()}});
    }
    devices_->SetWorks(device.ordinal, status.message());
    any = true;
  }
  MutexLock lock(&mu_);
  if (!any || closed_ || trying_) return;
  trying_ = true;
  if (trier_.joinable()) trier_.join();  // it has returned
  trier_ = std::thread([this] { TryFailedDevices(); });
}

void RunnerPool::TryFailedDevices() {
  for (;;) {
    {
      MutexLock lock(&mu_);
      const Deadline until = Deadline::AfterMs(
          std::chrono::duration_cast<std::chrono::milliseconds>(kTryAgain)
              .count());
      while (!closed_ && !until.Passed()) {
        changed_.WaitFor(&mu_, std::chrono::nanoseconds(until.LeftNs()));
      }
    }
    bool left = false;
    for (const NodeDevice& device : devices_->snapshot()->devices) {
      if (device.state != "failed") continue;
      {
        MutexLock lock(&mu_);
        if (closed_) break;
      }
      const Result<std::shared_ptr<Runner>> runner =
          StartRunner({device.ordinal});
      if (!runner.ok()) {
        left = true;
        continue;
      }
      POS_LOG(kInfo, "a device works again", {{"device", device.ordinal}});
      devices_->SetWorks(device.ordinal, "");
      End(*runner);
    }
    MutexLock lock(&mu_);
    if (left && !closed_) continue;
    trying_ = false;
    return;
  }
}

std::shared_ptr<Runner> RunnerPool::TakeWarm(const std::vector<int>& devices) {
  for (;;) {
    std::shared_ptr<Runner> taken;
    {
      MutexLock lock(&mu_);
      const auto it = std::find_if(
          warm_.begin(), warm_.end(), [&](const std::shared_ptr<Runner>& r) {
            return r->devices() == devices && !r->peer_->closed();
          });
      if (it == warm_.end()) return nullptr;
      taken = *it;
      warm_.erase(it);
    }
    // It may have waited for long.
    runner::ToRunner request;
    request.mutable_ping();
    const Status status = taken->Call(request, {}, kPingMs).status();
    if (status.ok()) return taken;
    POS_LOG(kWarning, "a warm runner is of no use any more",
            {{"runner", taken->name()}, {"why", status.message()}});
    // One that hangs in the driver ends no other way.
    if (taken->pid_ > 0 && !taken->peer_->closed()) {
      ::kill(taken->pid_, SIGKILL);
    }
  }
}

Result<std::shared_ptr<Runner>> RunnerPool::Take(
    const std::vector<int>& devices) {
  std::shared_ptr<Runner> taken = TakeWarm(devices);
  std::vector<std::thread> done;
  {
    MutexLock lock(&mu_);
    if (closed_) {
      if (taken != nullptr) taken->peer_->Shutdown();
      return Closed("posd is ending");
    }
    std::erase_if(warm_, [](const std::shared_ptr<Runner>& r) {
      return r->peer_->closed();
    });
    if (!filling_) done.swap(fillers_);
  }
  for (std::thread& thread : done) thread.join();
  if (taken != nullptr) {
    KeepWarm();
    return taken;
  }
  return StartRunner(devices);
}

void RunnerPool::End(const std::shared_ptr<Runner>& runner) {
  {
    MutexLock lock(&mu_);
    if (runner->peer_->closed()) return;
    ending_.push_back(runner);
  }
  runner::ToRunner request;
  request.mutable_end();
  runner->peer_->Send(request).IgnoreError();
}

void RunnerPool::Close() {
  std::vector<std::thread> fillers;
  std::vector<std::shared_ptr<Runner>> warm;
  {
    MutexLock lock(&mu_);
    closed_ = true;
    fillers.swap(fillers_);
    if (trier_.joinable()) fillers.push_back(std::move(trier_));
    changed_.NotifyAll();
  }
  for (std::thread& thread : fillers) thread.join();
  {
    MutexLock lock(&mu_);
    warm.swap(warm_);
  }
  for (const auto& runner : warm) End(runner);
  const Deadline until = Deadline::AfterMs(kEndMs);
  MutexLock lock(&mu_);
  while (!ending_.empty() && !until.Passed()) {
    changed_.WaitFor(&mu_, std::chrono::nanoseconds(until.LeftNs()));
  }
  for (const auto& runner : ending_) {
    POS_LOG(kWarning, "a runner did not end when asked",
            {{"runner", runner->name()}});
    if (runner->pid_ > 0) ::kill(runner->pid_, SIGKILL);
    RemoveFile(SocketPath(runner->name())).IgnoreError();
  }
}

std::vector<RunnerPool::Found> RunnerPool::FindLeftBehind() {
  std::vector<Found> found;
  const Result<std::vector<std::string>> names =
      ListDirectory(options_.directory);
  if (!names.ok()) return found;
  for (const std::string& file : *names) {
    if (!file.ends_with(".sock")) continue;
    const std::string name = file.substr(0, file.size() - 5);
    Result<UniqueFd> socket = ControlChannel::Connect(SocketPath(name));
    if (!socket.ok()) {
      RemoveFile(SocketPath(name)).IgnoreError();
      continue;
    }
    const Result<PeerCredentials> peer = ControlChannel::Peer(socket->get());
    // Its devices are known once its job is; see Supervisor.
    auto runner = std::make_shared<Runner>(name, std::vector<int>{});
    if (peer.ok()) runner->pid_ = peer->pid;
    Connect(runner, std::move(*socket));
    runner::ToRunner request;
    request.mutable_adopt();
    Result<RunnerPeer::Message> reply = runner->Call(request, {}, kAdoptMs);
    if (!reply.ok() || !reply->body.has_state()) {
      POS_LOG(kWarning, "a runner does not answer", {{"runner", name}});
      runner->peer_->Shutdown();
      continue;
    }
    found.push_back({std::move(runner), reply->body.state()});
  }
  return found;
}

}  // namespace pos
