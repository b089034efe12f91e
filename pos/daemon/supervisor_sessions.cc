// Sessions: processes of jobs that come for a device, and that come back.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "pos/base/bytes.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/base/process.h"
#include "pos/daemon/supervisor.h"

namespace pos {
namespace {

constexpr std::uint64_t kAttachMs = 30'000;
constexpr std::uint64_t kRequestMs = 10'000;
constexpr std::uint64_t kStartingMs = 20'000;  // many at once
constexpr int kRecordMs = 2'000;
constexpr std::uint64_t kStrangersLane = ~std::uint64_t{0};  // no user id

void Answer(UniqueFd socket, wire::AttachStatus status,
            const std::string& text) {
  wire::AttachReply reply;
  reply.status = status;
  text.copy(reply.text.data(), reply.text.size() - 1);
  // A client that does not read has itself to blame.
  [[maybe_unused]] const ssize_t n =
      ::send(socket.get(), &reply, sizeof(reply), MSG_NOSIGNAL | MSG_DONTWAIT);
}

// In time that does not depend on where they differ.
bool SameToken(const wire::Token& a, const wire::Token& b) {
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned>(a[i] ^ b[i]);
  }
  return difference == 0;
}

Status ReadRequest(int socket, wire::AttachRequest* request) {
  pollfd p{socket, POLLIN, 0};
  if (::poll(&p, 1, kRecordMs) <= 0) return Timeout("no attach request came");
  const ssize_t n = ::recv(socket, request, sizeof(*request), MSG_DONTWAIT);
  if (n != static_cast<ssize_t>(sizeof(*request)) ||
      request->magic != wire::kAttachMagic) {
    return Proto("that was no attach request");
  }
  if (request->version < wire::kAttachVersionOldest ||
      request->version > wire::kAttachVersion) {
    return Incompatible("the client library speaks version " +
                        std::to_string(request->version) +
                        ", this posd versions " +
                        std::to_string(wire::kAttachVersionOldest) + " to " +
                        std::to_string(wire::kAttachVersion));
  }
  return {};
}

}  // namespace

void Supervisor::OnAttachListener() {
  Result<UniqueFd> socket = ControlChannel::Accept(attach_listener_.get(), 0);
  if (!socket.ok()) return;
  // std::function wants what it holds to be copyable.
  auto shared = std::make_shared<UniqueFd>(std::move(*socket));
  const Result<PeerCredentials> peer = ControlChannel::Peer(shared->get());
  if (!peer.ok()) return;
  if (!attaches_->Post(AttachLane(peer->uid),
                       [this, shared] { HandleAttach(std::move(*shared)); })) {
    // It waits a little and comes again.
    Answer(std::move(*shared), wire::AttachStatus::kRetry, "");
  }
}

// Anybody may connect, and say nothing. Each user who has a job has a share of
// the threads; who has none, and so most likely no business here, shares one
// with all others of that kind.
std::uint64_t Supervisor::AttachLane(uid_t uid) {
  MutexLock lock(&mu_);
  const bool known =
      std::any_of(jobs_.begin(), jobs_.end(), [uid](const auto& entry) {
        return entry.second->uid() == uid && entry.second->record().alive();
      });
  return known ? uid : kStrangersLane;
}

void Supervisor::HandleAttach(UniqueFd socket) {
  const Result<PeerCredentials> peer = ControlChannel::Peer(socket.get());
  if (!peer.ok() || peer->pid <= 0) return;
  wire::AttachRequest request;
  Status status = ReadRequest(socket.get(), &request);
  // The answer goes out on a copy: the runner takes the connection itself.
  Result<UniqueFd> copy = DuplicateFd(socket.get());
  if (!copy.ok()) return;
  if (status.ok() && request.kind == wire::AttachKind::kResume) {
    status = AttachAgain(request.token, std::move(socket), peer->pid);
  } else if (status.ok()) {
    const JobPtr job = JobOfProcess(peer->pid);
    if (job == nullptr) {
      status = Denied("this process is not part of a job",
                      "start the program with `pos-cli run -- PROGRAM`");
    } else if (job->attach_closed()) {
      Answer(std::move(*copy), wire::AttachStatus::kRetry, "");
      return;
    } else {
      status = AttachNew(job, std::move(socket), peer->pid);
    }
  }
  if (status.ok()) return;
  POS_LOG(kWarning, "attach refused",
          {{"pid", peer->pid}, {"why", status.ToString()}});
  std::string text = status.message();
  if (!status.hint().empty()) text += " (" + status.hint() + ")";
  Answer(std::move(*copy),
         status.code() == Code::kDeviceGone ? wire::AttachStatus::kGone
                                            : wire::AttachStatus::kRefused,
         text);
}

// The job whose pid namespace the process is in. A program may ask for a device
// before posd has heard that it runs: while a job is starting, that is waited
// for.
Supervisor::JobPtr Supervisor::JobOfProcess(pid_t pid) {
  const Result<std::uint64_t> inode = NamespaceInode(pid, "pid");
  if (!inode.ok()) return nullptr;
  const Deadline until = Deadline::AfterMs(kStartingMs);
  for (;;) {
    std::vector<JobPtr> jobs;
    {
      MutexLock lock(&mu_);
      for (const auto& [name, job] : jobs_) jobs.push_back(job);
    }
    bool starting = false;
    for (const JobPtr& job : jobs) {
      const JobRecord record = job->record();
      if (!record.alive()) continue;
      starting = starting || record.pid == 0;
      for (const pid_t member : {record.init_pid, record.pid}) {
        if (member == 0) continue;
        const Result<std::uint64_t> own = NamespaceInode(member, "pid");
        if (!own.ok() || *own != *inode) continue;
        if (job->has_client()) return job;
        starting = true;  // the event was quicker than who started it
      }
    }
    if (!starting || until.Passed()) return nullptr;
    SleepNs(5'000'000);
  }
}

// The names of one state directory's files begin alike, so that the next posd
// finds what a killed one left.
std::string Supervisor::HostFilePrefix() const {
  const std::span<const std::byte> id =
      std::as_bytes(std::span(store_->id().bytes));
  return "pos-" + HexBytes(id.first(6)) + "-";
}

std::string Supervisor::NewHostFilePath(const std::string& job,
                                        std::uint64_t session) const {
  // Random: a name must not be prepared by somebody.
  std::array<std::byte, 8> random;
  RandomBytes(random);
  return JoinPath(options_.host_file_dir, HostFilePrefix() + HexBytes(random) +
                                              "-" + job + "-" +
                                              std::to_string(session));
}

Result<UniqueFd> Supervisor::MakeHostFile(const JobPtr& job,
                                          std::uint64_t session,
                                          std::string* path) {
  *path = NewHostFilePath(job->name(), session);
  const JobRecord record = job->record();
  job::ToJob request;
  job::OpenInside* const open = request.mutable_open_inside();
  open->set_path(*path);
  open->set_flags(O_RDWR | O_CREAT | O_EXCL);
  open->set_mode(0600);
  open->set_uid(record.uid);
  open->set_gid(record.gid);
  UniqueFd file;
  POS_RETURN_IF_ERROR(job->Call(request, {}, kRequestMs, &file).status());
  if (::ftruncate(file.get(), static_cast<off_t>(options_.host_bytes)) != 0) {
    const int error = errno;
    RemoveFile(*path).IgnoreError();
    return ErrnoStatus(error, *path);
  }
  return file;
}

Status Supervisor::AttachNew(const JobPtr& job, UniqueFd socket, pid_t pid) {
  std::uint64_t number = 0;
  job->Update([&](JobRecord* r) { number = r->next_session++; });
  const JobRecord record = job->record();
  JobSession session;
  session.record.session = number;
  session.record.client_pid = pid;
  POS_ASSIGN_OR_RETURN(const UniqueFd host_file,
                       MakeHostFile(job, number, &session.record.host_file));
  Result<std::shared_ptr<Runner>> runner = runners_->Take(record.devices);
  if (!runner.ok()) {
    RemoveFile(session.record.host_file).IgnoreError();
    return runner.status();
  }
  session.runner = *runner;
  session.record.runner = (*runner)->name();
  // On record before it exists, so that nothing is left behind if posd dies.
  Status status = job->AddSession(session);
  runner::ToRunner request;
  runner::Attach* const attach = request.mutable_attach();
  attach->set_session(number);
  attach->set_job(job->name());
  attach->set_uid(record.uid);
  attach->set_gid(record.gid);
  attach->set_pid(pid);
  const std::array<int, 2> fds = {socket.get(), host_file.get()};
  if (status.ok()) status = (*runner)->Call(request, fds, kAttachMs).status();
  if (!status.ok()) {
    job->RemoveSession(number);
    RemoveFile(session.record.host_file).IgnoreError();
    runners_->End(*runner);
  }
  return status;
}

Status Supervisor::AttachAgain(const wire::Token& token, UniqueFd socket,
                               pid_t pid) {
  std::optional<Expected> expected;
  {
    MutexLock lock(&mu_);
    for (auto it = expected_.begin(); it != expected_.end(); ++it) {
      if (!SameToken(it->token, token)) continue;
      expected = *it;
      expected_.erase(it);  // good once
      break;
    }
  }
  if (!expected) return Denied("no session is expected with this token");
  const JobPtr& job = expected->job;
  // The token was written into one process; that process must present it.
  if (JobOfProcess(pid) != job) {
    return Denied("the token belongs to another job");
  }
  for (const JobSession& session : job->sessions()) {
    if (session.record.session != expected->session) continue;
    const Result<pid_t> ns_pid = InnermostPid(pid);
    if (!ns_pid.ok() ||
        static_cast<std::uint64_t>(*ns_pid) != session.record.client_ns_pid) {
      return Denied("the token belongs to another process");
    }
    job->UpdateSession(expected->session,
                       [pid](JobSession* s) { s->record.client_pid = pid; });
    runner::ToRunner request;
    request.mutable_attach()->set_session(expected->session);
    request.mutable_attach()->set_pid(pid);
    request.mutable_attach()->set_resume(true);
    const std::array<int, 1> fds = {socket.get()};
    const Status status =
        session.runner->Call(request, fds, kAttachMs).status();
    // The token is used up, so there is no second try.
    if (status.ok()) return status;
    return Status(Code::kDeviceGone, status.message());
  }
  return Status(Code::kDeviceGone, "the session has ended");
}

std::optional<std::pair<Supervisor::JobPtr, JobSession>> Supervisor::SessionOf(
    const Runner* runner) {
  std::vector<JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    for (const auto& [name, job] : jobs_) jobs.push_back(job);
  }
  for (const JobPtr& job : jobs) {
    if (auto session = job->SessionOf(runner)) return std::pair(job, *session);
  }
  return std::nullopt;
}

void Supervisor::OnRunnerEvent(const std::shared_ptr<Runner>& runner,
                               const runner::Event& event) {
  switch (event.what()) {
    case runner::Event::READY:
    case runner::Event::RESUMED:
    case runner::Event::CLIENT_GONE:
      // At once: the runner's own end must find it forgotten.
      if (const auto found = SessionOf(runner.get())) {
        found->first->TakeLeaving(found->second.record.session);
      }
      break;
    default:
      break;
  }
  // What follows may write the journal: not on the event loop.
  events_->Post([this, runner, event] {
    const auto found = SessionOf(runner.get());
    if (!found) return;
    const JobPtr& job = found->first;
    const std::uint64_t number = found->second.record.session;
    switch (event.what()) {
      case runner::Event::READY:
      case runner::Event::RESUMED:
        job->UpdateSession(number, [&](JobSession* s) {
          s->ready = true;
          s->record.client_ns_pid = event.client_ns_pid();
          s->record.verdict_address = event.verdict_address();
        });
        if (event.what() == runner::Event::RESUMED) {
          job->NoteReturn(number, event.at_ns());
        }
        break;
      case runner::Event::DETACHED_LATE:
        AnswerLate(job, found->second, event.epoch());
        break;
      case runner::Event::LOADED:
        OnSessionLoaded(job, number, event.at_ns());
        break;
      case runner::Event::LOAD_FAILED:
        POS_LOG(
            kError, "a session's memory could not be loaded",
            {{"job", job->name()}, {"session", number}, {"why", event.text()}});
        // The runner ends, and the session with it: see OnRunnerGone.
        job->NoteLoadError(Corrupt("memory of session " +
                                   std::to_string(number) +
                                   " could not be loaded: " + event.text()));
        break;
      case runner::Event::CLIENT_GONE:
      case runner::Event::MALFORMED:
        POS_LOG(
            kInfo, "session ended",
            {{"job", job->name()}, {"session", number}, {"why", event.text()}});
        break;  // the runner ends; see OnRunnerGone
      default:
        break;
    }
  });
}

void Supervisor::OnRunnerGone(const std::shared_ptr<Runner>& runner) {
  events_->Post([this, runner] {
    const auto found = SessionOf(runner.get());
    if (!found) return;
    const auto& [job, session] = *found;
    // A client that left for a checkpoint comes, and is told that the session
    // has ended. Before it is off the record: a posd that is started after a
    // crash here does the same.
    if (const auto epoch = job->TakeLeaving(session.record.session)) {
      CallBack(job, {&session, 1}, *epoch).status.IgnoreError();
    }
    const auto removed = job->RemoveSession(session.record.session);
    if (removed) RemoveFile(removed->record.host_file).IgnoreError();
    DropPinIfLoaded(job);
  });
}

Status Supervisor::WriteVerdict(const JobPtr& job, const JobSession& session,
                                std::uint32_t epoch) {
  wire::Verdict verdict;
  if (attach_path_.size() >= verdict.path.size()) {
    return Invalid("the attach socket's path is too long: " + attach_path_);
  }
  attach_path_.copy(verdict.path.data(), verdict.path.size() - 1);
  RandomBytes(std::as_writable_bytes(std::span(verdict.token)));
  verdict.epoch = epoch;
  verdict.word = wire::kVerdictResume;
  {
    MutexLock lock(&mu_);
    std::erase_if(expected_, [&](const Expected& e) {
      return e.job == job && e.session == session.record.session;
    });
    expected_.push_back({verdict.token, job, session.record.session});
  }
  // Everything but the word, then the word: the client acts on it at once.
  const auto* const bytes = reinterpret_cast<const char*>(&verdict);
  constexpr std::size_t kWordAt = offsetof(wire::Verdict, word);
  job::ToJob request;
  job::Poke* const poke = request.mutable_poke();
  poke->set_ns_pid(static_cast<std::int32_t>(session.record.client_ns_pid));
  poke->set_address(session.record.verdict_address);
  poke->set_data(bytes, kWordAt);
  POS_RETURN_IF_ERROR(job->Call(request, {}, kRequestMs).status());
  poke->set_address(session.record.verdict_address + kWordAt);
  poke->set_data(bytes + kWordAt, sizeof(verdict.word));
  return job->Call(request, {}, kRequestMs).status();
}

void Supervisor::DropTokens(const Job* job) {
  MutexLock lock(&mu_);
  std::erase_if(expected_,
                [job](const Expected& e) { return e.job.get() == job; });
}

}  // namespace pos
