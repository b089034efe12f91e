#include "pos/daemon/job.h"

#include <algorithm>
#include <utility>

#include "pos/base/files.h"
#include "pos/base/log.h"

namespace pos {
namespace {

// Waiters look this often whether they were cancelled.
constexpr std::uint64_t kCancelPollNs = 100'000'000;
constexpr std::uint64_t kFreezePollNs = 10'000'000;
constexpr std::uint64_t kRequestMs = 10'000;

}  // namespace

Job::Job(JobRecord record, std::string directory)
    : name_(record.name),
      directory_(std::move(directory)),
      uid_(record.uid),
      record_(std::move(record)) {}

std::string Job::LogPath() const { return JoinPath(directory_, "output.log"); }

JobRecord Job::record() const {
  MutexLock lock(&mu_);
  return record_;
}

Status Job::Journal() {
  MutexLock journal(&journal_mu_);
  if (retired_) return {};
  std::string text;
  {
    MutexLock lock(&mu_);
    record_.sessions.clear();
    for (const JobSession& session : sessions_) {
      record_.sessions.push_back(session.record);
    }
    text = EncodeJobRecord(record_);
  }
  const Status status = ReplaceFile(JoinPath(directory_, "job.json"), text);
  if (!status.ok()) {
    POS_LOG(kError, "cannot write the journal",
            {{"job", name_}, {"why", status.ToString()}});
  }
  return status;
}

void Job::Retire() {
  MutexLock journal(&journal_mu_);
  retired_ = true;
}

void Job::Update(const std::function<void(JobRecord*)>& change) {
  {
    MutexLock lock(&mu_);
    change(&record_);
    changed_.NotifyAll();
  }
  Journal().IgnoreError();
}

std::vector<JobSession> Job::sessions() const {
  MutexLock lock(&mu_);
  return sessions_;
}

Status Job::AddSession(JobSession session) {
  {
    MutexLock lock(&mu_);
    sessions_.push_back(std::move(session));
  }
  return Journal();
}

void Job::SetSessions(std::vector<JobSession> sessions) {
  {
    MutexLock lock(&mu_);
    sessions_ = std::move(sessions);
    changed_.NotifyAll();
  }
  Journal().IgnoreError();
}

void Job::UpdateSession(std::uint64_t number,
                        const std::function<void(JobSession*)>& change) {
  {
    MutexLock lock(&mu_);
    for (JobSession& session : sessions_) {
      if (session.record.session == number) change(&session);
    }
    changed_.NotifyAll();
  }
  Journal().IgnoreError();
}

std::optional<JobSession> Job::RemoveSession(std::uint64_t number) {
  std::optional<JobSession> removed;
  {
    MutexLock lock(&mu_);
    const auto it = std::find_if(
        sessions_.begin(), sessions_.end(),
        [number](const JobSession& s) { return s.record.session == number; });
    if (it == sessions_.end()) return removed;
    removed = std::move(*it);
    sessions_.erase(it);
    changed_.NotifyAll();
  }
  Journal().IgnoreError();
  return removed;
}

std::optional<JobSession> Job::SessionOf(const Runner* runner) const {
  MutexLock lock(&mu_);
  for (const JobSession& session : sessions_) {
    if (session.runner.get() == runner) return session;
  }
  return std::nullopt;
}

void Job::SetClient(std::unique_ptr<job::JobClient> client) {
  std::shared_ptr<job::JobClient> old;
  MutexLock lock(&mu_);
  old = std::move(client_);
  client_ = std::move(client);
}

Result<job::Reply> Job::Call(const job::ToJob& request,
                             std::span<const int> fds, std::uint64_t timeout_ms,
                             UniqueFd* opened,
                             const std::atomic<bool>* given_up) {
  std::shared_ptr<job::JobClient> client;
  {
    MutexLock lock(&mu_);
    client = client_;
  }
  if (client == nullptr) return Closed("job " + name_ + " is not running");
  return client->Call(request, fds, static_cast<int>(timeout_ms), opened,
                      given_up);
}

Status Job::ExtendHold(std::uint64_t ms) {
  job::ToJob request;
  request.mutable_hold()->set_hold_ms(ms);
  return Call(request, {}, kRequestMs).status();
}

Status Job::LetGo(job::Verdict::Kind kind, std::uint64_t limit_ms) {
  const Deadline until = Deadline::AfterMs(limit_ms);
  for (;;) {
    job::ToJob request;
    request.mutable_verdict()->set_kind(kind);
    const Status status = Call(request, {}, kRequestMs).status();
    if (status.ok() || status.code() == Code::kNoSuch) return {};
    // Not frozen yet: CRIU is still at work.
    if (status.code() != Code::kNotReady || until.Passed()) return status;
    SleepNs(kFreezePollNs);
  }
}

void Job::AckExit() {
  std::shared_ptr<job::JobClient> client;
  {
    MutexLock lock(&mu_);
    client = client_;
  }
  if (client != nullptr) client->AckExit().IgnoreError();
}

void Job::OnStarted(const job::ProgramStarted& started) {
  Update([&](JobRecord* r) {
    r->pid = started.pid();
    r->init_pid = started.init_pid();
    r->ns_pid = started.ns_pid();
    if (r->state == "starting") r->state = "running";
    // Update holds the lock of these, too.
    mu_.AssertHeld();
    started_ = true;
    restore_us_ = started.restore_us();
  });
  for (const std::string& note : started.note()) {
    POS_LOG(kWarning, note, {{"job", name_}});
  }
}

void Job::OnStartFailed(const job::StatusMessage& error) {
  Update([&](JobRecord* r) {
    mu_.AssertHeld();
    start_error_ =
        Status(CodeFromName(error.code()), error.message(), error.hint());
    r->state = "failed";
    r->message = error.message();
  });
}

void Job::OnEnded(const job::ProgramEnded& ended) {
  Update([&](JobRecord* r) {
    const bool ran = ended.reason() != job::ProgramEnded::START_FAILED &&
                     ended.reason() != job::ProgramEnded::LOST;
    // Stopped: it waits in its image.
    r->state = !ran ? "failed" : r->end_after_checkpoint ? "stopped" : "exited";
    r->has_exit_code = true;
    r->exit_code = ended.exit_code();
    r->pid = 0;
    r->message = ended.message();
    mu_.AssertHeld();
    if (!load_error_.ok()) r->message = load_error_.message();
  });
}

void Job::OnEvent(const job::Event& event) {
  switch (event.event_case()) {
    case job::Event::kStarted:
      OnStarted(event.started());
      break;
    case job::Event::kStartFailed:
      OnStartFailed(event.start_failed());
      break;
    case job::Event::kFrozen: {
      MutexLock lock(&mu_);
      frozen_ = true;
      last_frozen_ = event.frozen();
      changed_.NotifyAll();
      break;
    }
    case job::Event::kRestoreHeld: {
      MutexLock lock(&mu_);
      restore_held_ = true;
      record_.pid = event.restore_held().pid();
      record_.ns_pid = event.restore_held().ns_pid();
      changed_.NotifyAll();
      break;
    }
    case job::Event::kEnded:
      OnEnded(event.ended());
      break;
    case job::Event::kCallerGone:
      POS_LOG(kInfo, "the job's caller is gone",
              {{"job", name_},
               {"stream", static_cast<int>(event.caller_gone().stream())}});
      break;
    case job::Event::EVENT_NOT_SET:
      break;
  }
}

void Job::OnLost(const std::string& why) {
  {
    MutexLock lock(&mu_);
    if (!record_.alive()) return;
  }
  Update([&](JobRecord* r) {
    r->state = "failed";
    r->message = why;
    r->pid = 0;
    if (!r->has_exit_code) {
      r->has_exit_code = true;
      r->exit_code = 128 + 9;
    }
  });
}

template <typename Condition>
bool Job::WaitUntil(const Condition& condition, const Deadline& until,
                    const std::function<bool()>& cancelled) {
  for (;;) {
    {
      MutexLock lock(&mu_);
      if (condition()) return true;
      if (until.Passed()) return false;
      const std::uint64_t left = std::min(until.LeftNs(), kCancelPollNs);
      changed_.WaitFor(&mu_, std::chrono::nanoseconds(left));
      if (condition()) return true;
    }
    if (cancelled && cancelled()) return false;
  }
}

bool Job::WaitEnded(const Deadline& until,
                    const std::function<bool()>& cancelled) {
  return WaitUntil([this]() POS_NO_THREAD_SAFETY { return !record_.alive(); },
                   until, cancelled);
}

Status Job::WaitStarted(const Deadline& until) {
  const bool known = WaitUntil(
      [this]() POS_NO_THREAD_SAFETY {
        return started_ || !start_error_.ok() || !record_.alive();
      },
      until, nullptr);
  MutexLock lock(&mu_);
  if (!start_error_.ok()) return start_error_;
  if (started_) return {};
  if (!known) return Timeout("the program did not start in time");
  return Internal("the job ended before it ran: " + record_.message);
}

void Job::ForgetFrozen() {
  MutexLock lock(&mu_);
  frozen_ = false;
}

bool Job::WaitFrozen(const Deadline& until,
                     const std::function<bool()>& gave_up) {
  const bool frozen = WaitUntil(
      [this]() POS_NO_THREAD_SAFETY { return frozen_; }, until, gave_up);
  return frozen;
}

bool Job::WaitRestoreHeld(const Deadline& until,
                          const std::function<bool()>& gave_up) {
  return WaitUntil([this]() POS_NO_THREAD_SAFETY { return restore_held_; },
                   until, gave_up);
}

void Job::ForgetReturns() {
  MutexLock lock(&mu_);
  returns_.clear();
}

void Job::NoteReturn(std::uint64_t session, std::uint64_t at_ns) {
  MutexLock lock(&mu_);
  returns_.emplace(session, at_ns);
  changed_.NotifyAll();
}

void Job::NoteLeaving(std::uint64_t session, std::uint32_t epoch) {
  MutexLock lock(&mu_);
  leaving_[session] = epoch;
}

std::optional<std::uint32_t> Job::TakeLeaving(std::uint64_t session) {
  MutexLock lock(&mu_);
  const auto found = leaving_.extract(session);
  if (found.empty()) return std::nullopt;
  return found.mapped();
}

Job::Returns Job::WaitReturned(std::size_t count, const Deadline& until) {
  WaitUntil(
      [&]() POS_NO_THREAD_SAFETY {
        return returns_.size() >= count || !record_.alive();
      },
      until, nullptr);
  MutexLock lock(&mu_);
  return returns_;
}

bool Job::WaitAnswered(const Deadline& until,
                       const std::function<bool()>& cancelled) {
  return WaitUntil(
      [this]() POS_NO_THREAD_SAFETY {
        return !record_.alive() ||
               std::none_of(sessions_.begin(), sessions_.end(),
                            [](const JobSession& s) { return s.silent; });
      },
      until, cancelled);
}

void Job::WaitLoadChange(const Deadline& until) {
  WaitUntil([this]() POS_NO_THREAD_SAFETY { return !Loading(); }, until,
            nullptr);
}

Status Job::TryBegin(const std::string& what) {
  MutexLock lock(&mu_);
  if (!operation_.empty()) {
    return Busy("job " + name_ + ": " + operation_ + " is under way",
                "try again when it has ended");
  }
  operation_ = what;
  return {};
}

void Job::End() {
  MutexLock lock(&mu_);
  operation_.clear();
  changed_.NotifyAll();
}

job::Frozen Job::last_frozen() const {
  MutexLock lock(&mu_);
  return last_frozen_;
}

std::uint64_t Job::restore_us() const {
  MutexLock lock(&mu_);
  return restore_us_;
}

}  // namespace pos
