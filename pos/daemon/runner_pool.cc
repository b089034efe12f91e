#include "pos/daemon/runner_pool.h"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "pos/base/bytes.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/base/process.h"
#include "pos/daemon/spawn.h"

namespace pos {
namespace {

constexpr std::uint64_t kEndMs = 3'000;
constexpr std::uint64_t kPingMs = 5'000;
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

void Runner::Kill() const {
  if (process_.valid()) SignalPidFd(process_.get(), SIGKILL).IgnoreError();
}

Result<RunnerPeer::Message> Runner::Call(const runner::ToRunner& request,
                                         std::span<const int> fds,
                                         std::uint64_t timeout_ms) {
  POS_ASSIGN_OR_RETURN(RunnerPeer::Message reply,
                       peer_->Call(request, fds, timeout_ms));
  POS_RETURN_IF_ERROR(ErrorOf(reply.body));
  return reply;
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
        OnGone(r);
        if (on_gone_) on_gone_(r);
      });
}

void RunnerPool::OnGone(const std::shared_ptr<Runner>& runner) {
  MutexLock lock(&mu_);
  std::erase(ending_, runner);
  std::erase(killed_, runner);
  std::erase_if(asked_, [&](const Found& f) { return f.runner == runner; });
  if (std::erase(warm_, runner) != 0 && !closed_) {
    POS_LOG(kWarning, "a warm runner has ended", {{"runner", runner->name()}});
    FillWarmLater();
  }
  changed_.NotifyAll();
}

void RunnerPool::OnMessage(const std::shared_ptr<Runner>& runner,
                           const runner::FromRunner& message) {
  switch (message.body_case()) {
    case runner::FromRunner::kEvent:
      if (on_event_) on_event_(runner, message.event());
      break;
    case runner::FromRunner::kOpening:
      runner->opening_.store(message.opening().ordinal());
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

Status RunnerPool::Configure(Runner* runner, std::vector<int>* failed) {
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
  POS_ASSIGN_OR_RETURN(const RunnerPeer::Message reply,
                       runner->peer_->Call(request, {}, options_.configure_ms));
  failed->assign(reply.body.failed_devices().begin(),
                 reply.body.failed_devices().end());
  return ErrorOf(reply.body);
}

Result<std::shared_ptr<Runner>> RunnerPool::StartRunner(
    const std::vector<int>& devices) {
  UniqueFd ours;
  UniqueFd theirs;
  POS_RETURN_IF_ERROR(ControlChannel::MakePair(&ours, &theirs));
  auto runner = std::make_shared<Runner>(NewRunnerName(), devices);
  POS_ASSIGN_OR_RETURN(const pid_t pid,
                       SpawnWithChannel({options_.program, "--channel", "3",
                                         "--log-level", options_.log_level},
                                        std::move(theirs)));
  // Fails for one that has ended already, which then needs no killing.
  Result<UniqueFd> process = OpenPidFd(pid);
  if (process.ok()) runner->process_ = std::move(*process);
  Connect(runner, std::move(ours));
  std::vector<int> failed;
  const Status status = Configure(runner.get(), &failed);
  if (!status.ok()) {
    Kill(runner);
    NoteFailure(*runner, std::move(failed), status);
    return status.WithContext("start a runner");
  }
  return runner;
}

void RunnerPool::Kill(const std::shared_ptr<Runner>& runner) {
  MutexLock lock(&mu_);
  if (runner->peer_->closed()) return;
  killed_.push_back(runner);
  runner->Kill();
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
    if (status.ok()) {
      MutexLock lock(&mu_);
      refill_ms_ = kRefillMs;
      return taken;
    }
    POS_LOG(kWarning, "a warm runner is of no use any more",
            {{"runner", taken->name()}, {"why", status.message()}});
    Kill(taken);
  }
}

Result<std::shared_ptr<Runner>> RunnerPool::Take(
    const std::vector<int>& devices) {
  std::shared_ptr<Runner> taken = TakeWarm(devices);
  {
    MutexLock lock(&mu_);
    if (closed_) {
      if (taken != nullptr) taken->peer_->Shutdown();
      return Closed("posd is ending");
    }
  }
  if (taken == nullptr) {
    POS_ASSIGN_OR_RETURN(taken, StartRunner(devices));
  }
  KeepWarm();
  return taken;
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
  std::vector<std::thread> threads;
  std::vector<std::shared_ptr<Runner>> warm;
  {
    MutexLock lock(&mu_);
    closed_ = true;
    if (filler_.joinable()) threads.push_back(std::move(filler_));
    if (trier_.joinable()) threads.push_back(std::move(trier_));
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads) thread.join();
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
    runner->Kill();
    RemoveFile(SocketPath(runner->name())).IgnoreError();
  }
}

}  // namespace pos
