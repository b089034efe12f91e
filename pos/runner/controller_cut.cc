// posd's requests that make a cut: rest, gate, detach.
#include <algorithm>
#include <string>

#include "pos/runner/controller.h"

namespace pos {
namespace {

constexpr int kGateMs = 5000;     // the client gives up after 3 s
constexpr int kDetachMs = 10000;  // likewise, unless posd says otherwise
// How often it is looked whether the device is at rest.
constexpr std::uint64_t kLookNs = 50'000;

}  // namespace

// While the device comes to rest the client runs: what it sends over its
// connection (files of host memory that calls wait for) is taken, and so is
// what posd grants.
Status Controller::AwaitRest(std::uint64_t silence_ms,
                             std::uint64_t longest_ms) {
  const Deadline longest = Deadline::AfterMs(longest_ms);
  Deadline silence = Deadline::AfterMs(silence_ms);
  std::uint64_t completed = session_->completed();
  while (!session_->AtRest()) {
    const std::uint64_t now = session_->completed();
    if (now != completed) {
      completed = now;
      silence = Deadline::AfterMs(silence_ms);
    }
    if (silence.Passed() || longest.Passed()) {
      return Timeout(std::to_string(session_->on_device()) +
                     " calls are still on the device");
    }
    TakeFromPosd();
    switch (link_.Read()) {
      case ClientLink::Event::kGone:
      case ClientLink::Event::kDetached:
        OnClientEnded("it closed its connection");
        return Closed("the client is gone");
      case ClientLink::Event::kMalformed:
        OnClientEvent(ClientLink::Event::kMalformed);
        return Closed("the client sent no record");
      default:
        break;
    }
    SleepNs(kLookNs);
  }
  return {};
}

Status Controller::BringToRest(const runner::Quiesce& request,
                               std::uint64_t* held_ns) {
  *held_ns = MonotonicNs();
  session_->SeekRest(Session::Rest::kNow);
  Status status = AwaitRest(request.drain_ms(),
                            std::max(request.drain_ms(), request.longest_ms()));
  if (status.code() == Code::kTimeout && request.watch_ms() != 0) {
    session_->SeekRest(Session::Rest::kWhenIdle);
    const Status watched = AwaitRest(request.watch_ms(), request.watch_ms());
    *held_ns = MonotonicNs();
    // What was in the way at first says more.
    if (watched.code() != Code::kTimeout) status = watched;
  }
  if (!status.ok()) session_->EndRest();
  return status;
}

Status Controller::CloseGate() {
  session_->MakeRoom();
  POS_RETURN_IF_ERROR(link_.Send(wire::SessionRecordType::kGate, epoch_));
  switch (link_.WaitAnswer(epoch_, kGateMs, AlsoPosd())) {
    case ClientLink::Event::kGated:
      return {};
    case ClientLink::Event::kRefusing:
      return Busy(std::to_string(link_.inside()) +
                  " threads of the client are inside calls");
    case ClientLink::Event::kGone:
    case ClientLink::Event::kDetached:
      OnClientEnded("it closed its connection");
      return Closed("the client is gone");
    default:
      // Another attempt would only hold the job's other sessions up again.
      link_.Send(wire::SessionRecordType::kUngate, epoch_).IgnoreError();
      return NotReady("process " + std::to_string(client_pid_) +
                      " did not close its gate within " +
                      std::to_string(kGateMs / 1000) +
                      " s: it is stopped, or gets no processor");
  }
}

Status Controller::HandleQuiesce(const runner::Quiesce& request,
                                 runner::FromRunner* reply) {
  if (detach_late_) return Busy("the client stands still in a detach");
  if (phase_ != runner::State::SERVING) return NotReady("no client is served");
  if (lazy_ != nullptr) return Busy("its memory is still being loaded");
  if (save_request_ != 0) return Busy("a step of the save is running");
  // A save keeps the session though its client is gone.
  if (!link_.connected()) return Closed("the client is gone");
  epoch_ = request.epoch();
  runner::Quiesced* const out = reply->mutable_quiesced();
  std::uint64_t held_ns = 0;
  POS_RETURN_IF_ERROR(BringToRest(request, &held_ns));
  out->set_gate_closed_ns(held_ns);
  const Status gated = CloseGate();
  if (!gated.ok()) {
    session_->EndRest();
    return gated;
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
  switch (link_.WaitAnswer(request.epoch(), limit_ms, AlsoPosd())) {
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

}  // namespace pos
