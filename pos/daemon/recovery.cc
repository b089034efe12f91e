// What an earlier posd left behind: jobs that run, jobs caught in a checkpoint
// or a restore, runners, files.
//
// Nothing is given up that can go on. A checkpoint that was under way is undone
// (the job runs on), unless its image was sealed and the job was to end with
// it; a restore that was under way is undone (its job never ran).
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <set>

#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/daemon/supervisor.h"
#include "pos/job/exit_file.h"

namespace pos {
namespace {

constexpr std::uint64_t kRequestMs = 10'000;
// How often it is looked whether a runner that was silent has answered.
constexpr std::uint64_t kAnswerSliceMs = 200;

void TakeState(const runner::State& state, JobSession* session) {
  session->silent = false;
  session->loading = state.loading();
  // Quiesced without a posd: the client has yet to answer a detach that was
  // given up; the runner tells how. An event may have told more already.
  session->ready = session->ready || state.phase() == runner::State::SERVING ||
                   state.phase() == runner::State::QUIESCED;
  if (state.verdict_address() != 0) {
    session->record.verdict_address = state.verdict_address();
    session->record.client_ns_pid = state.client_ns_pid();
  }
}

// See Job::NoteLeaving.
void NoteIfLeaving(Job* job, const runner::State& state, std::uint32_t epoch) {
  if (state.phase() != runner::State::QUIESCED) return;
  job->NoteLeaving(state.session(), epoch);
}

}  // namespace

void Supervisor::Recover() {
  Result<std::vector<std::string>> names = ListDirectory(jobs_dir_);
  if (!names.ok()) names = std::vector<std::string>();
  std::vector<RunnerPool::Found> runners =
      runners_->FindLeftBehind(DevicesOfRunners(*names));
  for (const std::string& name : *names) RecoverJob(name, &runners);
  for (const RunnerPool::Found& found : runners) {
    if (!found.state) continue;  // see OnRunnerAnswered
    POS_LOG(kInfo, "a runner without a job is ended",
            {{"runner", found.runner->name()}});
    runners_->End(found.runner);
  }
  SweepHostFiles();
  SweepPins();
  FindGoneRunners();
  runners_->DeliverLate([this](const std::shared_ptr<Runner>& runner,
                               const runner::State& state) {
    events_->Post([this, runner, state] { OnRunnerAnswered(runner, state); });
  });
}

std::map<std::string, std::vector<int>> Supervisor::DevicesOfRunners(
    const std::vector<std::string>& jobs) const {
  std::map<std::string, std::vector<int>> devices;
  for (const std::string& name : jobs) {
    const Result<std::string> text =
        ReadWholeFile(JoinPath(JobDirectory(name), "job.json"));
    if (!text.ok()) continue;
    const Result<JobRecord> record = DecodeJobRecord(*text);
    if (!record.ok()) continue;
    for (const SessionRecordEntry& session : record->sessions) {
      devices[session.runner] = record->devices;
    }
  }
  return devices;
}

void Supervisor::FindGoneRunners() {
  std::vector<JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    for (const auto& [name, job] : jobs_) jobs.push_back(job);
  }
  for (const JobPtr& job : jobs) {
    for (const JobSession& session : job->sessions()) {
      if (session.runner != nullptr && session.runner->gone()) {
        OnRunnerGone(session.runner);
      }
    }
  }
}

void Supervisor::OnRunnerAnswered(const std::shared_ptr<Runner>& runner,
                                  const runner::State& state) {
  const auto found = SessionOf(runner.get());
  if (!found) {
    {
      MutexLock lock(&mu_);
      if (unreadable_.contains(state.job())) return;
    }
    POS_LOG(kInfo, "a runner without a job is ended",
            {{"runner", runner->name()}});
    runners_->End(runner);
    return;
  }
  const JobPtr& job = found->first;
  const std::uint64_t number = found->second.record.session;
  POS_LOG(kInfo, "a runner that was busy answers",
          {{"job", job->name()}, {"session", number}});
  if (state.session() != number) {  // it had not got so far
    EndSession(job, number);
    return;
  }
  job->UpdateSession(number, [&](JobSession* s) { TakeState(state, s); });
  NoteIfLeaving(job.get(), state, job->record().epoch);
  // It may be done meanwhile, and have said so before this was noted.
  LoadProgress progress;
  PollLoading(job, &progress);
  DropPinIfLoaded(job);
}

// Files that no job of the journal has: their posd died between making one and
// writing it down.
void Supervisor::SweepHostFiles() {
  std::set<std::string> known;
  {
    MutexLock lock(&mu_);
    for (const auto& [name, job] : jobs_) {
      for (const JobSession& session : job->sessions()) {
        known.insert(session.record.host_file);
      }
    }
  }
  // Of jobs whose records cannot be read: the file's name tells.
  const auto kept = [this](const std::string& file) {
    MutexLock lock(&mu_);
    return std::any_of(unreadable_.begin(), unreadable_.end(),
                       [&](const std::string& job) {
                         return file.find("-" + job + "-") != std::string::npos;
                       });
  };
  const std::string prefix = HostFilePrefix();
  const Result<std::vector<std::string>> names =
      ListDirectory(options_.host_file_dir);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    const std::string path = JoinPath(options_.host_file_dir, name);
    if (!name.starts_with(prefix) || known.contains(path) || kept(name))
      continue;
    POS_LOG(kInfo, "a file without a session is removed", {{"file", path}});
    RemoveFile(path).IgnoreError();
  }
}

void Supervisor::RecoverJob(const std::string& name,
                            std::vector<RunnerPool::Found>* runners) {
  const std::string path = JoinPath(JobDirectory(name), "job.json");
  Result<std::string> text = ReadWholeFile(path);
  Result<JobRecord> record =
      text.ok() ? DecodeJobRecord(*text) : Result<JobRecord>(text.status());
  if (!record.ok() || record->name != name) {
    // Without one, nothing was started: posd ended before it wrote the first.
    if (text.ok() || text.status().code() != Code::kNoSuch) {
      POS_LOG(kError, "a job's journal cannot be read",
              {{"job", name}, {"why", record.status().ToString()}});
      RecoverUnreadable(name, runners);
    }
    return;
  }
  const JobPtr job = std::make_shared<Job>(*record, JobDirectory(name));
  {
    MutexLock lock(&mu_);
    jobs_[name] = job;
  }
  if (!record->alive()) return;
  // Before anything else: every change of the record writes the journal, with
  // the sessions that are known by then.
  const std::vector<JobSession> lost = RecoverSessions(job, *record, runners);
  Result<std::unique_ptr<job::JobClient>> client =
      job::JobClient::Connect(job->directory(), HandlersFor(job));
  if (!client.ok()) {
    RecordEndWithoutPosJob(job);
    return;
  }
  const job::Hello hello = (*client)->hello();
  job->SetClient(std::move(*client));
  TakeOver(job, *record, hello, lost);
}

void Supervisor::RecoverUnreadable(const std::string& name,
                                   std::vector<RunnerPool::Found>* runners) {
  Result<std::unique_ptr<job::JobClient>> client =
      job::JobClient::Connect(JobDirectory(name), {});
  const Code code = client.ok() ? Code::kOk : client.status().code();
  const bool ended = client.ok()
                         ? (*client)->hello().has_ended()
                         : code == Code::kNoSuch || code == Code::kClosed;
  if (ended) {
    if (client.ok()) (*client)->AckExit().IgnoreError();
    const Status status = SetAside(name);
    if (status.ok()) return;
    POS_LOG(kError, "a job's directory could not be set aside",
            {{"job", name}, {"why", status.ToString()}});
  } else {
    POS_LOG(kError, "the job runs on unmanaged, its name stays taken",
            {{"job", name}, {"directory", JobDirectory(name)}});
    std::erase_if(*runners, [&](const RunnerPool::Found& found) {
      return found.state && found.state->job() == name;
    });
  }
  MutexLock lock(&mu_);
  unreadable_.insert(name);
}

Status Supervisor::SetAside(const std::string& name) {
  const std::string top = JoinPath(options_.state_dir, "unreadable");
  POS_RETURN_IF_ERROR(pos::MakeDirectories(top, 0700));
  std::string to = JoinPath(top, name);
  for (int n = 2; PathExists(to); ++n) {
    to = JoinPath(top, name + "-" + std::to_string(n));
  }
  // Its pos-job may be about to end, and takes it away, or was killed.
  RemoveFile(JoinPath(JobDirectory(name), "job.sock")).IgnoreError();
  if (::rename(JobDirectory(name).c_str(), to.c_str()) != 0) {
    return ErrnoStatus(errno, to);
  }
  POS_LOG(kWarning, "the directory of an ended job was set aside",
          {{"job", name}, {"directory", to}});
  return {};
}

void Supervisor::RecordEndWithoutPosJob(const JobPtr& job) {
  const Result<job::ProgramEnded> ended = job::ReadExitFile(job->directory());
  if (ended.ok()) {
    job::Event event;
    *event.mutable_ended() = *ended;
    job->OnEvent(event);
  } else {
    job->OnLost("pos-job ended while posd was away");
  }
  // A pos-job that was killed left its socket.
  RemoveFile(JoinPath(job->directory(), "job.sock")).IgnoreError();
  EndSessions(job);
}

void Supervisor::TakeOver(const JobPtr& job, const JobRecord& record,
                          const job::Hello& hello,
                          const std::vector<JobSession>& lost) {
  if (hello.has_ended()) {
    job::Event event;
    *event.mutable_ended() = hello.ended();
    OnJobEvent(job, event);
    EndSessions(job);
    return;
  }
  job->Update([&](JobRecord* r) {
    r->init_pid = hello.init_pid();
    if (hello.pid() != 0) r->pid = hello.pid();
    if (hello.ns_pid() != 0) r->ns_pid = hello.ns_pid();
  });
  POS_LOG(kInfo, "job taken over",
          {{"job", job->name()}, {"state", record.state}});
  const bool restoring =
      record.state == "restoring" || record.state == "starting";
  if (restoring && hello.state() != job::Hello::RUNNING) {
    SendSignal(job, SIGKILL, true).IgnoreError();
    job->WaitEnded(Deadline::AfterMs(kRequestMs), nullptr);
    EndSessions(job);
    DropJob(job);
    return;
  }
  const bool held = hello.state() == job::Hello::DUMPING ||
                    hello.state() == job::Hello::FROZEN ||
                    hello.state() == job::Hello::RESUMING;
  // The rest takes as long as CRIU does, and posd serves meanwhile.
  if (!job->TryBegin("taking over").ok()) return;
  const std::vector<JobSession> sessions = job->sessions();
  const bool waits = std::any_of(sessions.begin(), sessions.end(),
                                 [](const JobSession& s) { return s.silent; });
  const auto undo = [this, job, held, lost] {
    UndoInterrupted(job, held, lost);
    job->End();
    if (!job->record().alive()) EndSessions(job);
  };
  if (waits) {
    takeovers_.emplace_back(undo);
  } else {
    tasks_->Post(undo);
  }
}

void Supervisor::UndoInterrupted(const JobPtr& job, bool held,
                                 const std::vector<JobSession>& lost) {
  Status status;
  const JobRecord r = job->record();
  if (held) {
    status = job->LetGo(
        r.end_after_checkpoint ? job::Verdict::KILL : job::Verdict::ABORT,
        tunables().criu_dump_ms);
    if (!status.ok()) {
      POS_LOG(kError, "a stopped job could not be let go",
              {{"job", job->name()}, {"why", status.ToString()}});
    }
  }
  std::vector<JobSession> away;
  // Their clients may wait for a word: they come, and are told.
  for (const JobSession& session : lost) {
    if (session.record.verdict_address != 0) away.push_back(session);
  }
  CallBack(job, away, r.epoch).status.IgnoreError();
  if (!ResumeSessions(job, r)) return;
  job->Update([](JobRecord* j) {
    if (j->alive()) j->state = "running";
    j->end_after_checkpoint = false;
  });
}

bool Supervisor::ResumeSessions(const JobPtr& job, const JobRecord& record) {
  std::vector<JobSession> waiting = job->sessions();
  for (;;) {
    const std::vector<JobSession> now = job->sessions();
    std::vector<JobSession> away;
    std::erase_if(waiting, [&](const JobSession& session) {
      const auto it =
          std::find_if(now.begin(), now.end(), [&](const JobSession& s) {
            return s.record.session == session.record.session;
          });
      const bool lost = it == now.end();
      if (!lost && it->silent) return false;
      if (record.end_after_checkpoint || (!lost && it->ready)) return true;
      if (lost && session.record.verdict_address == 0) return true;
      // Whose runner has ended is told so when it comes.
      away.push_back(lost ? session : *it);
      return true;
    });
    CallBack(job, away, record.epoch).status.IgnoreError();
    if (waiting.empty() || !job->record().alive()) return true;
    if (leaving_soon_.load()) return false;
    job->WaitAnswered(Deadline::AfterMs(kAnswerSliceMs),
                      [this] { return leaving_soon_.load(); });
  }
}

std::vector<JobSession> Supervisor::RecoverSessions(
    const JobPtr& job, const JobRecord& record,
    std::vector<RunnerPool::Found>* runners) {
  std::vector<JobSession> sessions;
  std::vector<JobSession> lost;
  for (const SessionRecordEntry& entry : record.sessions) {
    JobSession session;
    session.record = entry;
    for (auto it = runners->begin(); it != runners->end(); ++it) {
      if (it->runner->name() != entry.runner ||
          (it->state && it->state->session() != entry.session)) {
        continue;
      }
      session.runner = it->runner;
      if (it->state) {
        TakeState(*it->state, &session);
        NoteIfLeaving(job.get(), *it->state, record.epoch);
      } else {
        session.silent = true;
      }
      runners->erase(it);
      break;
    }
    if (session.runner == nullptr) {
      POS_LOG(kWarning, "a session's runner is gone",
              {{"job", job->name()}, {"session", entry.session}});
      RemoveFile(entry.host_file).IgnoreError();
      lost.push_back(std::move(session));
      continue;
    }
    sessions.push_back(std::move(session));
  }
  job->SetSessions(std::move(sessions));
  return lost;
}

}  // namespace pos
