#include "pos/job/criu_run.h"

#include <sys/socket.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "ckpt/criu/log.h"
#include "pos/base/log.h"

namespace pos::job {
namespace {

constexpr std::uint64_t kMsNs = 1000000;
// A killed CRIU that does not even die is waited for this long.
constexpr std::uint64_t kKilledMs = 30000;
// One that was made to give up cleans up within this.
constexpr std::uint64_t kGraceMs = 5000;

}  // namespace

CriuRun::CriuRun(EventLoop* loop, InitLink* init, Plan plan, Handlers handlers)
    : loop_(loop),
      init_(init),
      plan_(std::move(plan)),
      handlers_(std::move(handlers)) {}

CriuRun::~CriuRun() {
  loop_->Cancel(&timer_);
  if (rpc_.valid()) loop_->Unwatch(rpc_.get());
}

void CriuRun::Start() {
  InitCommand command;
  *command.mutable_run_criu() = plan_.command;
  const std::array<int, 2> fds = {plan_.images_fd, plan_.work_fd};
  init_->Send(command, fds);
  StartTimer();
}

void CriuRun::StartTimer() {
  loop_->Cancel(&timer_);
  timer_ = loop_->After(plan_.timeout_ms * kMsNs, [this] {
    timer_ = 0;
    Kill(Timeout(plan_.what + ": CRIU did not finish within " +
                     std::to_string(plan_.timeout_ms) + " ms",
                 "CRIU's log: " + plan_.log_path));
  });
}

void CriuRun::OnStarted(UniqueFd rpc) {
  rpc_ = std::move(rpc);
  loop_->Watch(rpc_.get(), POLLIN, [this](short) { OnRpc(); });
  if (::send(rpc_.get(), plan_.request.data(), plan_.request.size(),
             MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    // It has ended already; what it said comes with its exit.
    if (errno == EPIPE || errno == ECONNRESET) return;
    Kill(ErrnoStatus(errno, "send a request to CRIU"));
  }
}

void CriuRun::OnRpc() {
  std::array<char, 65536> buffer;
  const ssize_t n =
      ::recv(rpc_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {  // its exit is reported by init
    loop_->Unwatch(rpc_.get());
    rpc_.Reset();
    return;
  }
  const Result<CriuResponse> response =
      DecodeCriuResponse({buffer.data(), static_cast<std::size_t>(n)});
  if (!response.ok()) {
    Kill(response.status());
    return;
  }
  if (!response->notification) {
    said_success_ = response->success;
    return;
  }
  // Its first notification, pre-dump, comes before it touches a task.
  touched_ = true;
  if (!killed_.ok()) {
    Decide(false);
    return;
  }
  switch (handlers_.notify(response->script)) {
    case Answer::kGoOn:
      Decide(true);
      break;
    case Answer::kGiveUp:
      Decide(false);
      break;
    case Answer::kHold:
      loop_->Cancel(&timer_);
      break;
  }
}

void CriuRun::Decide(bool go_on) {
  const std::string reply = EncodeCriuNotifyReply(go_on);
  if (!rpc_.valid() || ::send(rpc_.get(), reply.data(), reply.size(),
                              MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    Kill(Internal("CRIU does not take an answer"));
    return;
  }
  if (timer_ == 0) StartTimer();
}

void CriuRun::Kill(const Status& why) {
  if (!killed_.ok()) return;  // under way
  killed_ = why;
  POS_LOG(kWarning, "ending CRIU", {{"why", why.ToString()}});
  if (!plan_.dump || !touched_) {
    KillNow();
    return;
  }
  InitCommand command;
  command.set_abort_criu(true);
  init_->Send(command);
  loop_->Cancel(&timer_);
  timer_ = loop_->After(kGraceMs * kMsNs, [this] {
    timer_ = 0;
    POS_LOG(kWarning, "CRIU does not give up; killing it");
    KillNow();
  });
}

void CriuRun::KillNow() {
  InitCommand command;
  command.set_kill_criu(true);
  init_->Send(command);
  loop_->Cancel(&timer_);
  timer_ = loop_->After(kKilledMs * kMsNs, [this] {
    timer_ = 0;
    Finish(killed_);
  });
}

void CriuRun::OnExited(int wait_status) {
  // Its last words may still be on the way.
  for (int i = 0; i < 16 && rpc_.valid(); ++i) OnRpc();
  const bool exited_well =
      WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
  if (!killed_.ok()) {
    Finish(killed_);
  } else if (exited_well && said_success_) {
    Finish({});
  } else if (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL) {
    // Not by us; for want of memory, say. It had no time for a word.
    Finish({Code::kCriu, plan_.what + ": CRIU was killed",
            "CRIU's log: " + plan_.log_path});
  } else {
    Finish(CriuFailure(plan_.what, plan_.log_path, plan_.output_path));
  }
}

void CriuRun::OnGone() {
  Finish(Closed(plan_.what + ": the job ended under CRIU"));
}

void CriuRun::Finish(const Status& status) {
  if (finished_) return;
  finished_ = true;
  loop_->Cancel(&timer_);
  handlers_.done(status);  // may destroy this
}

}  // namespace pos::job
