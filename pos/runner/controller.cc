// The loop, the client's side, and small things. Requests: controller_handle.cc
#include "pos/runner/controller.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "pos/base/log.h"
#include "pos/base/process.h"

namespace pos {

Controller::Controller(UniqueFd channel)
    : posd_(std::make_unique<ControlChannel>(std::move(channel))) {
  wake_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

Controller::~Controller() {
  EndSave();
  if (burial_.joinable()) burial_.join();
  if (lazy_ != nullptr) lazy_->Stop();
  if (session_ != nullptr) session_->Stop();
  UnpinStaging();
  session_.reset();
}

int Controller::Run() {
  runner::FromRunner hello;
  hello.mutable_hello()->set_pid(::getpid());
  Send(hello);
  while (!ending_) Round();
  EndSave();
  // Before the memory that it loads goes.
  if (lazy_ != nullptr) lazy_->Stop();
  if (session_ != nullptr) session_->Stop();
  return exit_status_;
}

void Controller::Round() {
  enum { kPosd, kListener, kClient, kPidFd, kWake, kCount };
  std::array<pollfd, kCount> polls;
  polls[kPosd] = {posd_ != nullptr ? posd_->fd() : -1, POLLIN, 0};
  polls[kListener] = {listener_.get(), POLLIN, 0};
  polls[kClient] = {link_.fd(), POLLIN, 0};
  polls[kPidFd] = {client_pidfd_.get(), POLLIN, 0};
  polls[kWake] = {wake_.get(), POLLIN, 0};
  const bool orphan = posd_ == nullptr && phase_ == runner::State::LOADED;
  const int limit_ms = !kept_.empty() ? 0 : orphan ? 1000 : -1;
  const int rc = ::poll(polls.data(), polls.size(), limit_ms);
  if (rc < 0 && errno != EINTR) {
    POS_LOG(kError, "poll failed", {{"errno", errno}});
    ending_ = true;
    return;
  }
  if (orphan && MonotonicNs() - posd_lost_ns_ > kOrphanMs * 1'000'000) {
    ending_ = true;
    return;
  }
  if (rc <= 0 && kept_.empty()) return;
  if (rc <= 0) polls = {};
  if (polls[kWake].revents != 0) {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t n =
        ::read(wake_.get(), &count, sizeof(count));
    if (save_step_done_.load(std::memory_order_acquire)) OnSaveDone();
    if (lazy_ended_.exchange(false, std::memory_order_acq_rel)) OnLazyEnded();
    if (malformed_.load(std::memory_order_acquire)) {
      SendEvent(runner::Event::MALFORMED, "the client broke the protocol");
      ending_ = true;
      return;
    }
  }
  if (polls[kListener].revents != 0) OnListener();
  if (polls[kPosd].revents != 0 || !kept_.empty()) OnPosd();
  // The connection before the process: what it said last counts.
  if (!ending_ && polls[kClient].revents != 0 && link_.connected()) OnClient();
  if (!ending_ && polls[kPidFd].revents != 0 && client_pidfd_.valid()) {
    OnClientEnded("its process ended");
  }
}

void Controller::OnPosd() {
  if (!kept_.empty()) {
    Message message = std::move(kept_.front());
    kept_.pop_front();
    OnPosdMessage(std::move(message));
    return;
  }
  if (posd_ == nullptr) return;
  Result<Message> message = posd_->Receive(0);
  if (!message.ok()) {
    if (message.status().code() != Code::kTimeout) LosePosd();
    return;
  }
  OnPosdMessage(std::move(*message));
}

void Controller::OnPosdMessage(Message message) {
  runner::ToRunner request;
  if (!request.ParseFromString(message.bytes)) {
    POS_LOG(kError, "posd sent something that is no request");
    LosePosd();
    return;
  }
  Handle(request, std::move(message.fds));
}

bool Controller::TakeFromPosd() {
  while (posd_ != nullptr && kept_.size() < kMostKept) {
    Result<Message> message = posd_->Receive(0);
    // That it is gone is found by Round.
    if (!message.ok()) return message.status().code() == Code::kTimeout;
    runner::ToRunner request;
    if (request.ParseFromString(message->bytes) &&
        request.request_case() == runner::ToRunner::kMemoryAnswer) {
      OnMemoryAnswer(request.memory_answer());
    } else {
      kept_.push_back(std::move(*message));
    }
  }
  return false;
}

ClientLink::Also Controller::AlsoPosd() {
  return {.fd = posd_ != nullptr ? posd_->fd() : -1,
          .ready = [this] { return TakeFromPosd(); }};
}

void Controller::LosePosd() {
  {
    MutexLock lock(&posd_mu_);
    posd_.reset();
  }
  kept_.clear();
  posd_lost_ns_ = MonotonicNs();
  if (phase_ == runner::State::WARM) {
    // A posd that was started meanwhile has looked at the sockets already.
    if (listener_.valid()) ::unlink(socket_path_.c_str());
    ending_ = true;
    return;
  }
  // Whoever was making a checkpoint is gone, and nobody will finish it. What
  // this side can undo by itself, it undoes; a detached client waits for the
  // next posd.
  EndSave();
  const bool served =
      phase_ == runner::State::SERVING || phase_ == runner::State::QUIESCED;
  if (served && (!link_.connected() || !client_pidfd_.valid())) {
    OnClientEnded("it was gone before posd");  // the save had kept the session
    return;
  }
  if (phase_ == runner::State::QUIESCED) {
    HandleResume({}).IgnoreError();
  }
}

void Controller::OnListener() {
  Result<UniqueFd> fd = ControlChannel::Accept(listener_.get(), 0);
  if (!fd.ok()) return;
  const Result<PeerCredentials> peer = ControlChannel::Peer(fd->get());
  // The socket lies in posd's own directory; this is the second lock.
  if (!peer.ok() || peer->uid != posd_uid_) {
    POS_LOG(kWarning, "connection refused",
            {{"uid", peer.ok() ? static_cast<int>(peer->uid) : -1}});
    return;
  }
  // The one before is gone, whether or not its end has been seen.
  if (posd_ != nullptr && phase_ != runner::State::WARM) LosePosd();
  {
    MutexLock lock(&posd_mu_);
    posd_ = std::make_unique<ControlChannel>(std::move(*fd));
  }
  runner::FromRunner hello;
  hello.mutable_hello()->set_runner(name_);
  hello.mutable_hello()->set_pid(::getpid());
  Send(hello);
}

void Controller::OnClient() { OnClientEvent(link_.Read()); }

void Controller::OnClientEvent(ClientLink::Event event) {
  switch (event) {
    case ClientLink::Event::kReady:
      if (phase_ == runner::State::WARM) {
        phase_ = runner::State::SERVING;
        session_->Start();
        started_ = true;
        SendEvent(runner::Event::READY, "");
        return;
      }
      if ((phase_ != runner::State::DETACHED &&
           phase_ != runner::State::LOADED) ||
          save_request_ != 0) {
        SendEvent(runner::Event::MALFORMED, "the client was not away");
        ending_ = true;
        return;
      }
      // A client that was away. What it waits for is at the slots it marked.
      if (started_) {
        session_->Resume();
      } else {
        session_->Start();
        started_ = true;
      }
      phase_ = runner::State::SERVING;
      detach_late_ = resume_late_ = false;
      if (!link_.Send(wire::SessionRecordType::kUngate, epoch_).ok()) return;
      SendEvent(runner::Event::RESUMED, "");
      return;
    case ClientLink::Event::kGone:
      if (phase_ == runner::State::DETACHED) return;
      OnClientEnded("it closed its connection");
      return;
    case ClientLink::Event::kMalformed:
      SendEvent(runner::Event::MALFORMED, "the client sent no record");
      ending_ = true;
      return;
    case ClientLink::Event::kDetached:
      phase_ = runner::State::DETACHED;
      if (detach_late_) OnLateAnswer();
      return;
    case ClientLink::Event::kRefusing:
      if (detach_late_ && link_.answered_epoch() == epoch_) {
        if (resume_late_) {
          OnLateAnswer();
        } else {
          detach_late_ =
              false;  // gated and attached, as if it had been in time
        }
      }
      return;
    case ClientLink::Event::kNone:
    case ClientLink::Event::kGated:
      return;  // late answers to a request that was given up
  }
}

Status Controller::HandleResume(const runner::Resume&) {
  // Detached, but posd did not wait for the answer: it is to call the client
  // back, as after a late detach.
  if (phase_ == runner::State::DETACHED) detach_late_ = true;
  if (detach_late_) {
    resume_late_ = true;
    if (phase_ == runner::State::DETACHED) OnLateAnswer();
    return {};
  }
  if (phase_ != runner::State::QUIESCED) return NotReady("not quiesced");
  session_->Resume();
  phase_ = runner::State::SERVING;
  return link_.Send(wire::SessionRecordType::kUngate, epoch_);
}

void Controller::OnLateAnswer() {
  if (!resume_late_) return;  // posd asks in a moment
  if (phase_ == runner::State::DETACHED) {
    SendEvent(runner::Event::DETACHED_LATE, "");
    return;
  }
  detach_late_ = resume_late_ = false;
  // A connection that has failed is found by Round.
  HandleResume({}).IgnoreError();
  SendEvent(runner::Event::RESUMED, "");
}

void Controller::OnClientEnded(const char* how) {
  client_pidfd_.Reset();
  // While it is being saved, the session outlives its client: posd kills a job
  // once its processes are saved, and the copy of device memory may still run.
  if (save_ != nullptr && posd_ != nullptr) return;
  // A restored client is another process; posd names it when it attaches.
  if (phase_ == runner::State::LOADED) return;
  POS_LOG(kInfo, "session ends", {{"why", how}, {"job", job_}});
  SendEvent(runner::Event::CLIENT_GONE, how);
  ending_ = true;
}

void Controller::Wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof(one));
}

void Controller::Send(const runner::FromRunner& message) {
  MutexLock lock(&posd_mu_);
  if (posd_ == nullptr) return;
  posd_->Send(message.SerializeAsString()).IgnoreError();
}

void Controller::SendReply(std::uint64_t id, const Status& status,
                           runner::FromRunner* reply) {
  reply->set_id(id);
  if (!status.ok()) {
    reply->clear_body();
    reply->set_error_code(std::string(CodeName(status.code())));
    reply->set_error_message(status.message());
  }
  Send(*reply);
}

void Controller::SendEvent(runner::Event::What what, const std::string& text) {
  runner::FromRunner message;
  runner::Event* const event = message.mutable_event();
  event->set_what(what);
  event->set_at_ns(MonotonicNs());
  event->set_client_ns_pid(link_.client_pid());
  event->set_verdict_address(link_.verdict_address());
  event->set_text(text);
  event->set_epoch(epoch_);
  Send(message);
}

void Controller::FillState(runner::State* state) const {
  state->set_phase(phase_);
  state->set_session(session_number_);
  state->set_job(job_);
  state->set_client_pid(client_pid_);
  state->set_client_ns_pid(link_.client_pid());
  state->set_verdict_address(link_.verdict_address());
  state->set_epoch(epoch_);
  if (session_ != nullptr) state->set_calls(session_->calls());
  if (lazy_ != nullptr) {
    const ckpt::LazyLoad::Progress progress = lazy_->progress();
    state->set_loading(true);
    state->set_loaded_bytes(progress.loaded_bytes);
    state->set_load_bytes(progress.total_bytes);
  }
  std::uint64_t bytes = 0;
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    const std::uint64_t granted = ledger_->Granted(static_cast<int>(i));
    used += ledger_->Used(static_cast<int>(i));
    state->add_granted_bytes(granted);
    bytes += granted;
  }
  state->set_device_bytes(bytes);
  state->set_used_bytes(used);
}

}  // namespace pos
