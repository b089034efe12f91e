// Runners that an earlier posd left behind.
#include <algorithm>
#include <chrono>
#include <utility>

#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/base/process.h"
#include "pos/daemon/runner_pool.h"

namespace pos {
namespace {

// Nearly all answer in a millisecond, and posd's start waits for them. Who is
// waited for longer holds up its own job only.
constexpr std::uint64_t kAdoptMs = 1'000;
// Above what a runner's own waits add up to.
constexpr std::uint64_t kSilentMs = 60'000;

}  // namespace

std::vector<RunnerPool::Found> RunnerPool::FindLeftBehind(
    const std::map<std::string, std::vector<int>>& devices_of) {
  std::vector<Found> found;
  const Result<std::vector<std::string>> names =
      ListDirectory(options_.directory);
  if (!names.ok()) return found;
  for (const std::string& file : *names) {
    if (!file.ends_with(".sock")) continue;
    const std::string name = file.substr(0, file.size() - 5);
    Result<UniqueFd> socket = ControlChannel::Connect(SocketPath(name));
    if (!socket.ok()) {
      const Code code = socket.status().code();
      if (code == Code::kNoSuch || code == Code::kClosed) {
        RemoveFile(SocketPath(name)).IgnoreError();
      } else {
        POS_LOG(kError, "a runner cannot be reached",
                {{"runner", name}, {"why", socket.status().ToString()}});
      }
      continue;
    }
    const auto devices = devices_of.find(name);
    auto runner = std::make_shared<Runner>(name, devices != devices_of.end()
                                                     ? devices->second
                                                     : std::vector<int>());
    const Result<PeerCredentials> peer = ControlChannel::Peer(socket->get());
    if (peer.ok()) {
      Result<UniqueFd> process = OpenPidFd(peer->pid);
      if (process.ok()) runner->process_ = std::move(*process);
    }
    {
      MutexLock lock(&mu_);
      asked_.push_back({runner, std::nullopt});
    }
    Connect(runner, std::move(*socket));
    runner::ToRunner request;
    request.mutable_adopt();
    const std::weak_ptr<Runner> weak = runner;
    runner->peer_->Ask(request,
                       [this, weak](Result<RunnerPeer::Message> reply) {
                         if (const auto r = weak.lock())
                           OnAdopted(r, std::move(reply));
                       });
  }
  const Deadline until = Deadline::AfterMs(kAdoptMs);
  MutexLock lock(&mu_);
  const auto silent = [](const Found& f) { return !f.state.has_value(); };
  while (std::any_of(asked_.begin(), asked_.end(), silent) && !until.Passed()) {
    changed_.WaitFor(&mu_, std::chrono::nanoseconds(until.LeftNs()));
  }
  found = asked_;
  std::erase_if(asked_, [&](const Found& f) { return !silent(f); });
  for (const Found& f : asked_) {
    POS_LOG(kWarning, "a runner is busy; its job waits for it",
            {{"runner", f.runner->name()}});
  }
  if (!asked_.empty()) {
    loop_->After(kSilentMs, [this] { WarnOfSilent(); });
  }
  return found;
}

void RunnerPool::OnAdopted(const std::shared_ptr<Runner>& runner,
                           Result<RunnerPeer::Message> reply) {
  if (!reply.ok()) return;  // its end: see OnGone
  if (!reply->body.error_code().empty() || !reply->body.has_state()) {
    POS_LOG(kError, "a runner does not say how it is",
            {{"runner", runner->name()}, {"why", reply->body.error_message()}});
    runner->peer_->Shutdown();
    return;
  }
  const runner::State& state = reply->body.state();
  // Here, where what it asks for and returns from now on is counted, too.
  for (std::size_t d = 0;
       d < runner->devices().size() &&
       d < static_cast<std::size_t>(state.granted_bytes_size());
       ++d) {
    devices_->AddGranted(runner->name(), runner->devices()[d],
                         state.granted_bytes(static_cast<int>(d)));
  }
  LateFunction on_late;
  {
    MutexLock lock(&mu_);
    const auto it =
        std::find_if(asked_.begin(), asked_.end(),
                     [&](const Found& f) { return f.runner == runner; });
    if (it == asked_.end()) return;
    if (on_late_) {
      on_late = on_late_;
      asked_.erase(it);
    } else {
      it->state = state;
      changed_.NotifyAll();
    }
  }
  if (on_late) on_late(runner, state);
}

void RunnerPool::DeliverLate(LateFunction on_late) {
  std::vector<Found> answered;
  {
    MutexLock lock(&mu_);
    on_late_ = on_late;
    for (const Found& f : asked_) {
      if (f.state) answered.push_back(f);
    }
    std::erase_if(asked_, [](const Found& f) { return f.state.has_value(); });
  }
  for (const Found& f : answered) on_late(f.runner, *f.state);
}

void RunnerPool::WarnOfSilent() {
  MutexLock lock(&mu_);
  for (const Found& f : asked_) {
    POS_LOG(kError,
            "a runner has not answered for a minute; its process lives, so its "
            "session is kept",
            {{"runner", f.runner->name()}});
  }
}

}  // namespace pos
