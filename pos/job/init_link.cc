#include "pos/job/init_link.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <utility>

#include "pos/base/log.h"
#include "pos/base/process.h"
#include "pos/job/messages.h"
#include "pos/job/namespaces.h"

namespace pos::job {

Result<std::unique_ptr<InitLink>> InitLink::Start(EventLoop* loop,
                                                  InitPlan plan,
                                                  Handlers handlers) {
  UniqueFd ours;
  UniqueFd theirs;
  POS_RETURN_IF_ERROR(ControlChannel::MakePair(&ours, &theirs));
  POS_RETURN_IF_ERROR(PrepareNamespaces());
  plan.link = std::move(theirs);
  const pid_t pid = ::fork();
  if (pid < 0) return ErrnoStatus(errno, "fork");
  if (pid == 0) RunInit(std::move(plan));
  plan.link.Reset();
  Result<UniqueFd> pidfd = OpenPidFd(pid);
  if (!pidfd.ok()) {
    ::kill(pid, SIGKILL);
    return pidfd.status();
  }
  return std::unique_ptr<InitLink>(new InitLink(
      loop, pid, std::move(*pidfd), std::move(ours), std::move(handlers)));
}

InitLink::InitLink(EventLoop* loop, pid_t pid, UniqueFd pidfd, UniqueFd link,
                   Handlers handlers)
    : loop_(loop),
      pid_(pid),
      pidfd_(std::move(pidfd)),
      link_(std::move(link)),
      handlers_(std::move(handlers)) {
  loop_->Watch(link_.fd(), POLLIN, [this](short) { OnLink(); });
  loop_->Watch(pidfd_.get(), POLLIN, [this](short) { OnEnd(); });
}

InitLink::~InitLink() {
  loop_->Unwatch(link_.fd());
  loop_->Unwatch(pidfd_.get());
  if (!reaped_) Kill();
}

void InitLink::Send(const InitCommand& command, std::span<const int> fds) {
  const Status status = SendMessage(&link_, command, fds);
  if (!status.ok()) {
    POS_LOG(kWarning, "init does not listen", {{"why", status.ToString()}});
  }
}

void InitLink::Call(InitCommand command, DoneHandler done) {
  if (reaped_) {
    done(Closed("the job has ended"), UniqueFd());
    return;
  }
  command.set_id(next_id_++);
  waiting_[command.id()] = std::move(done);
  Send(command);
}

void InitLink::Kill() { ::kill(pid_, SIGKILL); }

bool InitLink::ReceiveAll() {
  for (;;) {
    Result<ControlChannel::Message> message = link_.Receive(0);
    if (!message.ok()) return message.status().code() == Code::kTimeout;
    const Result<InitReport> report = ParseMessage<InitReport>(message->bytes);
    if (report.ok()) Dispatch(*report, std::move(message->fds));
  }
}

void InitLink::OnLink() {
  // At end of file the pidfd says the rest.
  if (!ReceiveAll()) loop_->SetEvents(link_.fd(), 0);
}

void InitLink::Dispatch(const InitReport& report, std::vector<UniqueFd> fds) {
  if (report.report_case() != InitReport::kDone) {
    handlers_.report(report, std::move(fds));
    return;
  }
  const auto it = waiting_.find(report.done().id());
  if (it == waiting_.end()) return;
  const DoneHandler done = std::move(it->second);
  waiting_.erase(it);
  done(FromMessage(report.done().error()),
       fds.empty() ? UniqueFd() : std::move(fds[0]));
}

void InitLink::OnEnd() {
  int status = 0;
  const pid_t rc = ::waitpid(pid_, &status, WNOHANG);
  if (rc == 0 || (rc < 0 && errno == EINTR)) return;
  loop_->Unwatch(pidfd_.get());
  ReceiveAll();  // what it said last
  loop_->Unwatch(link_.fd());
  reaped_ = true;
  const std::map<std::uint64_t, DoneHandler> waiting = std::move(waiting_);
  waiting_.clear();
  for (const auto& [id, done] : waiting) {
    done(Closed("the job has ended"), UniqueFd());
  }
  handlers_.gone();
}

}  // namespace pos::job
