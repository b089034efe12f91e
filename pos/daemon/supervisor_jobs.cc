// Jobs: their table and their end; wait, signal, ps, logs, stop. How one
// starts: supervisor_run.cc.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "pos/base/bytes.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/base/process.h"
#include "pos/daemon/supervisor.h"

namespace pos {
namespace {

constexpr std::uint64_t kRequestMs = 10'000;
constexpr std::uint64_t kLogPollNs = 100'000'000;

struct StateRow {
  v1::JobState state;
  const char* name;
};
constexpr std::array<StateRow, 9> kStates = {{
    {v1::STARTING, "starting"},
    {v1::RUNNING, "running"},
    {v1::CHECKPOINTING, "checkpointing"},
    {v1::STOPPED, "stopped"},
    {v1::RESTORING, "restoring"},
    {v1::MIGRATING, "migrating"},
    {v1::IN_DOUBT, "in-doubt"},
    {v1::EXITED, "exited"},
    {v1::FAILED, "failed"},
}};

std::uint64_t LogBytes(const Job& job) {
  const Result<std::uint64_t> bytes = FileSize(job.LogPath());
  return bytes.ok() ? *bytes : 0;
}

}  // namespace

v1::JobState JobStateOf(const std::string& name) {
  for (const StateRow& row : kStates) {
    if (name == row.name) return row.state;
  }
  return v1::FAILED;
}

std::string Supervisor::JobDirectory(const std::string& name) const {
  return JoinPath(jobs_dir_, name);
}

Result<Supervisor::JobPtr> Supervisor::FindJob(const Caller& caller,
                                               const std::string& name) {
  MutexLock lock(&mu_);
  const auto it = jobs_.find(name);
  if (it == jobs_.end() ||
      (caller.uid != 0 && caller.uid != it->second->uid())) {
    return NoSuch("no job '" + name + "'", "`pos-cli ps` lists the jobs");
  }
  return it->second;
}

Result<Supervisor::JobPtr> Supervisor::NewJob(JobRecord record,
                                              NamePolicy policy,
                                              std::uint64_t log_bytes,
                                              bool* continues) {
  const std::string wanted = record.name;
  JobPtr job;
  JobPtr replaced;
  {
    MutexLock lock(&mu_);
    if (shutting_down_) return Closed("posd is ending");
    for (int n = 2;; ++n) {
      const auto it = jobs_.find(record.name);
      const bool reserved = unreadable_.contains(record.name);
      if (it == jobs_.end() && !reserved) break;
      const JobRecord old = reserved ? JobRecord() : it->second->record();
      if (!reserved && !old.alive() &&
          (record.uid == 0 || old.uid == record.uid) &&
          (policy == NamePolicy::kExact ||
           (policy == NamePolicy::kContinue && old.lineage == record.lineage &&
            old.uid == record.uid && LogBytes(*it->second) >= log_bytes))) {
        replaced = it->second;
        break;
      }
      if (policy == NamePolicy::kExact) {
        return Exists("a job named '" + wanted + "' is there",
                      "choose another --name, or stop it first");
      }
      record.name = wanted + "-" + std::to_string(n);
    }
    job = std::make_shared<Job>(record, JobDirectory(record.name));
    jobs_[record.name] = job;
  }
  if (replaced != nullptr) {
    replaced->SetClient(nullptr);
    replaced->Retire();
  }
  const bool keep_log = replaced != nullptr && policy == NamePolicy::kContinue;
  if (continues != nullptr) *continues = keep_log;
  const Status status = MakeJobDirectory(*job, keep_log);
  if (!status.ok()) {
    DropJob(job);
    return status;
  }
  return job;
}

Status Supervisor::MakeJobDirectory(const Job& job, bool keep_log) {
  if (!keep_log) {
    POS_RETURN_IF_ERROR(RemoveTree(job.directory()));
    return pos::MakeDirectories(job.directory(), 0700);
  }
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory(job.directory()));
  for (const std::string& name : names) {
    const std::string path = JoinPath(job.directory(), name);
    if (path != job.LogPath()) POS_RETURN_IF_ERROR(RemoveTree(path));
  }
  return {};
}

void Supervisor::DropJob(const JobPtr& job) {
  job->AckExit();  // else pos-job stays for somebody to ask
  job->SetClient(nullptr);
  job->Retire();
  {
    MutexLock lock(&mu_);
    const auto it = jobs_.find(job->name());
    if (it == jobs_.end() || it->second != job) return;
    jobs_.erase(it);
  }
  RemoveTree(job->directory()).IgnoreError();
}

void Supervisor::ForgetOldJobs() {
  std::vector<JobPtr> ended;
  {
    MutexLock lock(&mu_);
    for (const auto& [name, job] : jobs_) {
      if (!job->record().alive()) ended.push_back(job);
    }
  }
  if (ended.size() <= options_.ended_jobs) return;
  std::sort(ended.begin(), ended.end(), [](const JobPtr& a, const JobPtr& b) {
    return a->record().started_at < b->record().started_at;
  });
  ended.resize(ended.size() - options_.ended_jobs);
  for (const JobPtr& job : ended) DropJob(job);
}

job::JobClient::Handlers Supervisor::HandlersFor(const JobPtr& job) {
  // Weak: the client that calls these belongs to the job.
  const std::weak_ptr<Job> weak = job;
  job::JobClient::Handlers handlers;
  handlers.event = [this, weak](const job::Event& event) {
    if (const JobPtr j = weak.lock()) OnJobEvent(j, event);
  };
  handlers.closed = [this, weak] {
    const JobPtr j = weak.lock();
    if (leaving_.load()) return;  // it is posd that goes, the job is kept
    if (j == nullptr) return;
    if (j->record().alive()) {
      j->OnLost("pos-job is gone");
      RemoveFile(JoinPath(j->directory(), "job.sock")).IgnoreError();
      OnJobEnded(j);
    }
    // Nothing more will come: the job may be remembered for long. Not here, on
    // the client's own thread.
    tasks_->Post([j] { j->SetClient(nullptr); });
  };
  return handlers;
}

void Supervisor::OnJobEvent(const JobPtr& job, const job::Event& event) {
  job->OnEvent(event);
  if (event.has_ended() || event.has_start_failed()) OnJobEnded(job);
}

void Supervisor::OnJobEnded(const JobPtr& job) {
  const JobRecord record = job->record();
  POS_LOG(kInfo, "job ended",
          {{"job", job->name()},
           {"state", record.state},
           {"exit_code", record.exit_code}});
  DropTokens(job.get());
  // On another thread: this may be the job's own, which must not be waited for.
  tasks_->Post([this, job] {
    job->AckExit();
    // A checkpoint may be reading a runner's memory; it ends its sessions.
    if (job->TryBegin("ending").ok()) {
      EndSessions(job);
      job->End();
    }
    ForgetOldJobs();
  });
}

void Supervisor::EndSessions(const JobPtr& job) {
  for (const JobSession& session : job->sessions()) {
    if (session.runner != nullptr) runners_->End(session.runner);
    job->RemoveSession(session.record.session);
    RemoveFile(session.record.host_file).IgnoreError();
  }
  DropPinIfLoaded(job);
}

Status Supervisor::StartPosJob(const JobPtr& job, const job::JobConfig& config,
                               std::span<const int> fds) {
  POS_ASSIGN_OR_RETURN(
      std::unique_ptr<job::JobClient> client,
      job::JobClient::Spawn(JoinPath(options_.program_dir, "pos-job"), config,
                            fds, HandlersFor(job)));
  const std::int32_t init_pid = client->hello().init_pid();
  job->SetClient(std::move(client));
  job->Update([&](JobRecord* r) {
    if (init_pid != 0) r->init_pid = init_pid;  // else it comes with Started
  });
  return {};
}

Result<v1::WaitReply> Supervisor::Wait(const Caller& caller,
                                       const v1::WaitRequest& request,
                                       const std::function<bool()>& cancelled) {
  POS_ASSIGN_OR_RETURN(const JobPtr job, FindJob(caller, request.job()));
  // No bound but the job's life: that is what waiting for a job means.
  while (!job->WaitEnded(Deadline::AfterMs(60'000), cancelled)) {
    if (cancelled()) return Aborted("no longer waiting");
  }
  const JobRecord record = job->record();
  v1::WaitReply reply;
  reply.set_state(JobStateOf(record.state));
  reply.set_exit_code(record.exit_code);
  reply.set_message(record.message);
  return reply;
}

Status Supervisor::SendSignal(const JobPtr& job, int signal, bool everyone) {
  job::ToJob request;
  request.mutable_signal()->set_signal(signal);
  request.mutable_signal()->set_everyone(everyone);
  return job->Call(request, {}, kRequestMs).status();
}

Status Supervisor::Signal(const Caller& caller,
                          const v1::SignalRequest& request) {
  POS_ASSIGN_OR_RETURN(const JobPtr job, FindJob(caller, request.job()));
  if (request.signal() < 1 || request.signal() > SIGRTMAX) {
    return Invalid("no signal " + std::to_string(request.signal()));
  }
  return SendSignal(job, request.signal(), request.everyone());
}

Status Supervisor::SetTerminal(const Caller& caller,
                               const v1::SetTerminalRequest& request) {
  POS_ASSIGN_OR_RETURN(const JobPtr job, FindJob(caller, request.job()));
  if (request.has_window()) {
    job::ToJob message;
    FillWindow(request.window(), message.mutable_window());
    POS_RETURN_IF_ERROR(job->Call(message, {}, kRequestMs).status());
  }
  if (request.set_stdin()) {
    job::ToJob message;
    message.mutable_set_stdin()->set_read(request.read_stdin());
    POS_RETURN_IF_ERROR(job->Call(message, {}, kRequestMs).status());
  }
  return {};
}

Result<v1::PsReply> Supervisor::Ps(const Caller& caller,
                                   const v1::PsRequest& request) {
  std::vector<JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    for (const auto& [name, job] : jobs_) {
      if (caller.uid == 0 || caller.uid == job->uid()) jobs.push_back(job);
    }
  }
  v1::PsReply reply;
  for (const JobPtr& job : jobs) {
    const JobRecord record = job->record();
    if (!record.alive() && !request.all()) continue;
    v1::Job* const out = reply.add_jobs();
    out->set_job(record.name);
    out->set_pid(record.pid);
    out->set_state(JobStateOf(record.state));
    out->set_has_exit_code(record.has_exit_code);
    out->set_exit_code(record.exit_code);
    for (const int device : record.devices) {
      out->add_devices(std::to_string(device));
    }
    out->set_uid(record.uid);
    out->set_started_at(record.started_at);
    std::string command;
    for (const std::string& arg : record.argv) {
      command += (command.empty() ? "" : " ") + arg;
    }
    out->set_command(command);
    out->set_message(record.message);
    if (record.alive() && record.series_every_ms != 0) {
      v1::Series* const series = out->mutable_series();
      series->set_every_ms(record.series_every_ms);
      series->set_keep(record.series_keep);
      series->set_next_at(record.series_next_at);
      series->set_last_image(record.series_last_image);
      series->set_last_error(record.series_last_error);
    }
    for (const JobSession& session : job->sessions()) {
      v1::Session* const s = out->add_sessions();
      s->set_session(std::to_string(session.record.session));
      s->set_pid(session.record.client_pid);
      if (session.runner == nullptr || session.silent) continue;
      runner::ToRunner ping;
      ping.mutable_ping();
      const auto state = session.runner->Call(ping, {}, 1000);
      if (!state.ok()) continue;
      s->set_calls(state->body.state().calls());
      s->set_device_bytes(state->body.state().device_bytes());
    }
  }
  return reply;
}

Status Supervisor::Logs(const Caller& caller, const v1::LogsRequest& request,
                        const std::function<bool(std::string_view)>& write,
                        const std::function<bool()>& cancelled) {
  POS_ASSIGN_OR_RETURN(const JobPtr job, FindJob(caller, request.job()));
  std::uint64_t offset = 0;
  std::array<char, 65536> buffer;
  for (;;) {
    // Looked at before the log: what is in it now may be all there will be.
    const bool ended = !job->record().alive();
    Result<UniqueFd> fd = OpenFile(job->LogPath(), O_RDONLY);
    while (fd.ok()) {
      const ssize_t n = ::pread(fd->get(), buffer.data(), buffer.size(),
                                static_cast<off_t>(offset));
      if (n <= 0) break;
      offset += static_cast<std::uint64_t>(n);
      if (!write({buffer.data(), static_cast<std::size_t>(n)})) return {};
    }
    if (!request.follow() || ended) return {};
    if (cancelled()) return Aborted("no longer following");
    SleepNs(kLogPollNs);
  }
}

Result<v1::StopReply> Supervisor::Stop(const Caller& caller,
                                       const v1::StopRequest& request) {
  POS_ASSIGN_OR_RETURN(const JobPtr job, FindJob(caller, request.job()));
  v1::StopReply reply;
  // Ask as a user at the terminal would, insist, end it. Whatever does not
  // react in its time moves on to the next rung.
  struct Rung {
    const char* name;
    int signal;
    bool everyone;
    std::uint64_t wait_ms;
  };
  const std::uint64_t grace = tunables().stop_grace_ms;
  const std::array<Rung, 3> ladder = {{{"asked", SIGINT, false, grace},
                                       {"SIGTERM", SIGTERM, true, grace / 2},
                                       {"SIGKILL", SIGKILL, true, 10'000}}};
  for (const Rung& rung : ladder) {
    if (request.now() && rung.signal != SIGKILL) continue;
    if (!job->record().alive()) break;
    reply.set_rung(rung.name);
    const Status sent = SendSignal(job, rung.signal, rung.everyone);
    if (!sent.ok()) {
      POS_LOG(kWarning, "signal not delivered",
              {{"job", job->name()}, {"why", sent.ToString()}});
    }
    if (job->WaitEnded(Deadline::AfterMs(rung.wait_ms), nullptr)) break;
  }
  const JobRecord record = job->record();
  if (record.alive()) {
    return Timeout("job " + job->name() + " does not end");
  }
  POS_LOG(kInfo, "job stopped", {{"job", job->name()}, {"rung", reply.rung()}});
  reply.set_exit_code(record.exit_code);
  return reply;
}

}  // namespace pos
