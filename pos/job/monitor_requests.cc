// What posd asks of the monitor; see monitor.h and job.proto.
#include <unistd.h>

#include <csignal>
#include <utility>

#include "pos/base/log.h"
#include "pos/job/messages.h"
#include "pos/job/monitor.h"
#include "pos/job/preflight.h"
#include "pos/job/process_tree.h"
#include "pos/job/sockets.h"

namespace pos::job {
namespace {

// Lists are cut so that the reply fits into one packet.
constexpr int kMaxListedProcesses = 1000;
constexpr int kMaxListedBlockers = 64;
constexpr std::size_t kMaxBlockerBytes = 1000;

}  // namespace

Hello Monitor::MakeHello() const {
  Hello hello;
  hello.set_name(config_.name());
  hello.set_state(state_);
  hello.set_pid(pid_);
  hello.set_ns_pid(ns_pid_);
  if (init_) hello.set_init_pid(init_->pid());
  hello.set_monitor_pid(::getpid());
  if (ended_) *hello.mutable_ended() = *ended_;
  if (dump_) {
    hello.set_state(dump_->state());
    hello.set_operation_id(dump_->id());
    hello.set_hold_left_ms(dump_->hold_left_ms());
    hello.set_until_told(dump_->until_told());
  }
  if (restore_ && state_ == Hello::RESTORING) {
    hello.set_state(restore_->state());
    hello.set_hold_left_ms(restore_->hold_left_ms());
    hello.set_until_told(restore_->until_told());
  }
  hello.set_attached(stdio_ && stdio_->attached());
  hello.set_log_bytes(log_.length_bytes());
  hello.set_log_lost_bytes(log_.lost_bytes());
  if (last_dump_) *hello.mutable_last_dump() = *last_dump_;
  return hello;
}

void Monitor::Answer(std::uint64_t id, const Status& status) {
  Reply reply;
  reply.set_id(id);
  if (!status.ok()) *reply.mutable_error() = ToMessage(status);
  posd_->SendReply(reply);
}

// Requests that make sense in every state; the others go on.
void Monitor::OnRequest(const ToJob& request, std::vector<UniqueFd> fds) {
  switch (request.request_case()) {
    case ToJob::kAckExit:
      if (ended_) {
        may_stop_ = true;
        MaybeStop();
      }
      break;
    case ToJob::kWindow:
      if (stdio_) stdio_->SetWindow(request.window());
      Answer(request.id(), {});
      break;
    case ToJob::kSetStdin:
      if (stdio_) stdio_->SetReading(request.set_stdin().read());
      Answer(request.id(), {});
      break;
    case ToJob::kDetachCaller:
      if (stdio_) stdio_->DetachCaller();
      Answer(request.id(), {});
      break;
    case ToJob::kVerdict:
      Answer(request.id(), Decide(request.verdict()));
      break;
    case ToJob::kHold:
      Answer(request.id(), ChangeHold(request.hold()));
      break;
    case ToJob::REQUEST_NOT_SET:
      Answer(request.id(), Proto("a request of an unknown kind"));
      break;
    default:
      if (ended_ || !init_ || !init_->alive()) {
        Answer(request.id(), Closed("the job has ended"));
      } else {
        HandleRunning(request, std::move(fds));
      }
  }
}

void Monitor::HandleRunning(const ToJob& request, std::vector<UniqueFd> fds) {
  const std::uint64_t id = request.id();
  switch (request.request_case()) {
    case ToJob::kSignal:
      HandleSignal(id, request.signal());
      break;
    case ToJob::kPreflight:
      HandlePreflight(id, request.preflight());
      break;
    case ToJob::kDump:
      HandleDump(id, request.dump(), std::move(fds));
      break;
    case ToJob::kPoke: {
      InitCommand command;
      *command.mutable_poke() = request.poke();
      init_->Call(command, [this, id](const Status& status, UniqueFd) {
        Answer(id, status);
      });
      break;
    }
    case ToJob::kListProcesses:
      HandleListProcesses(id);
      break;
    case ToJob::kOpenInside: {
      InitCommand command;
      *command.mutable_open_inside() = request.open_inside();
      init_->Call(command, [this, id](const Status& status, UniqueFd file) {
        if (!status.ok()) {
          Answer(id, status);
          return;
        }
        Reply reply;
        reply.set_id(id);
        reply.set_opened(true);
        posd_->SendReply(reply, file.get());
      });
      break;
    }
    default:
      Answer(id, Proto("a request of an unknown kind"));
  }
}

void Monitor::HandleSignal(std::uint64_t id, const Signal& signal) {
  if (signal.signal() <= 0 || signal.signal() >= NSIG) {
    Answer(id, Invalid("no such signal"));
    return;
  }
  const bool busy = dump_ != nullptr || state_ == Hello::STARTING ||
                    state_ == Hello::RESTORING;
  if (busy && signal.signal() != SIGKILL) {
    // CRIU itself runs among the job's processes, and what a signal does to a
    // half-dumped tree would be in the image, or not.
    deferred_signals_.emplace_back(id, signal);
    return;
  }
  if (signal.signal() == SIGKILL && signal.everyone()) {
    // Also before there is a program. The kernel leaves nobody out, not even
    // processes that fork faster than they can be listed.
    reason_of_kill_ = ProgramEnded::SIGNALED;
    init_->Kill();
    Answer(id, {});
    return;
  }
  InitCommand command;
  *command.mutable_signal() = signal;
  init_->Call(command, [this, id](const Status& status, UniqueFd) {
    Answer(id, status);
  });
}

void Monitor::SendDeferredSignals() {
  const std::vector<std::pair<std::uint64_t, Signal>> deferred =
      std::move(deferred_signals_);
  deferred_signals_.clear();
  for (const auto& [id, signal] : deferred) {
    if (ended_) {
      Answer(id, Closed("the job has ended"));
    } else {
      HandleSignal(id, signal);
    }
  }
}

Result<std::vector<std::string>> Monitor::Blockers(
    const Preflight& request, const std::string& attach_socket) const {
  if (config_.criu().empty()) {
    return NotReady("there is no CRIU", "run scripts/setup");
  }
  if (state_ != Hello::RUNNING) return NotReady("the job does not run yet");
  return FindBlockers({init_->pid(),
                       pid_,
                       stdio_->TerminalDevices(),
                       {request.own_file().begin(), request.own_file().end()},
                       request.own_socket(),
                       attach_socket});
}

Status Monitor::CheckDumpable(const Dump& dump) const {
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> found,
                       Blockers({}, dump.attach_socket()));
  for (const std::string& blocker : found) {
    if (blocker.ends_with(kBeingAttached))
      return NotReady(blocker, "try again");
  }
  return BlockersToStatus(found);
}

void Monitor::HandlePreflight(std::uint64_t id, const Preflight& request) {
  if (dump_) {
    Answer(id, Busy("the job is being dumped"));
    return;
  }
  const Result<std::vector<std::string>> found = Blockers(request, "");
  if (!found.ok()) {
    Answer(id, found.status());
    return;
  }
  Reply reply;
  reply.set_id(id);
  for (const std::string& blocker : *found) {
    if (reply.blockers().blocker_size() < kMaxListedBlockers) {
      reply.mutable_blockers()->add_blocker(
          blocker.substr(0, kMaxBlockerBytes));
    } else {
      reply.mutable_blockers()->set_left_out(reply.blockers().left_out() + 1);
    }
  }
  reply.mutable_blockers();
  posd_->SendReply(reply);
}

void Monitor::HandleDump(std::uint64_t id, const Dump& dump,
                         std::vector<UniqueFd> fds) {
  if (dump_) {
    Answer(id, Busy("the job is being dumped already"));
    return;
  }
  const Status status = StartDump(id, dump, std::move(fds));
  if (!status.ok()) {
    dump_.reset();
    Answer(id, status);
  }
}

Status Monitor::StartDump(std::uint64_t id, const Dump& dump,
                          std::vector<UniqueFd> fds) {
  if (config_.criu().empty()) {
    return NotReady("there is no CRIU", "run scripts/setup");
  }
  if (dump.images_fd() == 0 || dump.images_fd() > fds.size()) {
    return Proto("a dump needs the descriptor of a directory");
  }
  if (!dump.skip_preflight()) {
    POS_RETURN_IF_ERROR(CheckDumpable(dump));
  } else if (state_ != Hello::RUNNING) {
    return NotReady("the job does not run yet");
  }
  DumpSubject subject;
  subject.name = config_.name();
  subject.work_directory = config_.directory() + "/criu";
  subject.log_level =
      config_.criu_log_level() > 0 ? config_.criu_log_level() : 2;
  subject.ns_pid = ns_pid_;
  if (restore_) {
    const JobImage& image = restore_->image();
    subject.uid = image.uid();
    subject.gid = image.gid();
    subject.groups = {image.groups().begin(), image.groups().end()};
  } else {
    subject.uid = config_.start().uid();
    subject.gid = config_.start().gid();
    subject.groups = {config_.start().groups().begin(),
                      config_.start().groups().end()};
  }
  dump_ = std::make_unique<DumpOperation>(
      &loop_, init_.get(), stdio_.get(), &log_, std::move(subject), id, dump,
      std::move(fds[dump.images_fd() - 1]),
      DumpOperation::Handlers{
          [this](const Frozen& frozen) {
            Event event;
            *event.mutable_frozen() = frozen;
            posd_->SendEvent(event);
          },
          [this, id](const Status& status, const Dumped& dumped) {
            OnDumpDone(id, status, dumped);
          }});
  return dump_->Start();
}

void Monitor::OnDumpDone(std::uint64_t id, const Status& status,
                         const Dumped& dumped) {
  // We are called by what is to be destroyed.
  loop_.After(0,
              [retired = std::shared_ptr<DumpOperation>(std::move(dump_))] {});
  last_dump_ = std::make_unique<Reply>();
  last_dump_->set_id(id);
  if (status.ok()) {
    *last_dump_->mutable_dumped() = dumped;
  } else {
    *last_dump_->mutable_error() = ToMessage(status);
  }
  posd_->SendReply(*last_dump_);
  SendDeferredSignals();
}

Status Monitor::Decide(const Verdict& verdict) {
  if (dump_) {
    if (verdict.kind() == Verdict::KILL && dump_->state() == Hello::FROZEN) {
      reason_of_kill_ = ProgramEnded::DUMPED;
    }
    return dump_->Decide(verdict.kind());
  }
  if (restore_ && state_ == Hello::RESTORING) {
    return restore_->Decide(verdict.kind());
  }
  return NoSuch("nothing waits for a verdict");
}

Status Monitor::ChangeHold(const Hold& hold) {
  if (dump_) return dump_->ChangeHold(hold);
  if (restore_ && state_ == Hello::RESTORING) return restore_->ChangeHold(hold);
  return NotReady("nothing is held");
}

void Monitor::HandleListProcesses(std::uint64_t id) {
  const Result<std::vector<ProcessInfo>> processes =
      ListJobProcesses(init_->pid());
  if (!processes.ok()) {
    Answer(id, processes.status());
    return;
  }
  Reply reply;
  reply.set_id(id);
  Processes* list = reply.mutable_processes();
  for (const ProcessInfo& info : *processes) {
    if (list->process_size() >= kMaxListedProcesses) {
      list->set_left_out(list->left_out() + 1);
      continue;
    }
    Processes::Process* process = list->add_process();
    process->set_pid(info.pid);
    process->set_ns_pid(info.ns_pid);
    process->set_parent_ns_pid(info.parent_ns_pid);
    process->set_name(info.name);
    process->set_state(std::string(1, info.state));
  }
  posd_->SendReply(reply);
}

}  // namespace pos::job
