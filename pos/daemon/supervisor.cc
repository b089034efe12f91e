// Start and end of posd.
#include "pos/daemon/supervisor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "ckpt/criu/criu.h"
#include "pos/base/bytes.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/daemon/build_id.h"
#include "pos/daemon/shim_install.h"

namespace pos {
namespace {

constexpr std::size_t kTaskThreads = 8;
constexpr std::size_t kEventThreads = 4;
// So that no user, and not all strangers together, can have all of them.
constexpr std::size_t kAttachThreads = 32;
constexpr std::size_t kAttachesOfUser = 8;
// Of one user, under way or waiting: each holds a descriptor.
constexpr std::size_t kAttachesWaiting = 256;

}  // namespace

Supervisor::Supervisor(SupervisorOptions options)
    : options_(std::move(options)), tunables_(options_.tunables) {}

Supervisor::~Supervisor() {
  leaving_.store(true);
  StopSeries();
  for (std::thread& takeover : takeovers_) takeover.join();
  if (attaches_ != nullptr) attaches_->Stop();
  if (tasks_ != nullptr) tasks_->Stop();
  if (events_ != nullptr) events_->Stop();
  if (runners_ != nullptr) runners_->Close();
  std::map<std::string, JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    jobs.swap(jobs_);
    expected_.clear();
  }
  for (const auto& [name, job] : jobs) job->SetClient(nullptr);
  jobs.clear();
  if (loop_ != nullptr) loop_->Stop();
}

void Supervisor::SetTunables(const SupervisorTunables& tunables) {
  MutexLock lock(&mu_);
  tunables_ = tunables;
}

SupervisorTunables Supervisor::tunables() {
  MutexLock lock(&mu_);
  return tunables_;
}

Status Supervisor::MakeDirectories() {
  jobs_dir_ = JoinPath(options_.state_dir, "jobs");
  runners_dir_ = JoinPath(options_.runtime_dir, "runners");
  attach_path_ = JoinPath(options_.runtime_dir, "attach.sock");
  // Below the state directory everything is the service's own; what clients
  // must reach (the client library, the attach socket) is opened to them below.
  POS_RETURN_IF_ERROR(pos::MakeDirectories(options_.state_dir, 0711));
  POS_RETURN_IF_ERROR(pos::MakeDirectories(jobs_dir_, 0700));
  POS_RETURN_IF_ERROR(pos::MakeDirectories(options_.runtime_dir, 0711));
  return pos::MakeDirectories(runners_dir_, 0700);
}

// A copy under its build id: CRIU refuses to restore a process whose mapped
// files have changed, so the library of an image has to stay as it was.
Status Supervisor::InstallShim() {
  POS_ASSIGN_OR_RETURN(const std::string id, ElfBuildId(options_.shim));
  shim_dir_ = JoinPath(JoinPath(options_.state_dir, "shim"), id);
  return InstallShimFiles(options_.shim, shim_dir_);
}

Status Supervisor::ListenForAttaches() {
  // Anybody may connect: what counts is which job the process belongs to.
  POS_ASSIGN_OR_RETURN(attach_listener_,
                       ControlChannel::Listen(attach_path_, 0666));
  attach_watch_ =
      loop_->Add(attach_listener_.get(), [this] { OnAttachListener(); });
  return {};
}

Status Supervisor::Start() {
  POS_RETURN_IF_ERROR(MakeDirectories());
  POS_RETURN_IF_ERROR(InstallShim());
  POS_RETURN_IF_ERROR(ExportKey().status());  // said now, not when needed
  ckpt::StoreOptions store_options;
  store_options.chunk_bytes = options_.chunk_bytes;
  POS_ASSIGN_OR_RETURN(
      store_,
      ckpt::Store::Open(JoinPath(options_.state_dir, "store"), store_options));
  POS_ASSIGN_OR_RETURN(loop_, EventLoop::Create());
  devices_ = std::make_unique<DeviceTable>();
  devices_->Publish(options_.devices);
  tasks_ = std::make_unique<TaskPool>(kTaskThreads);
  events_ = std::make_unique<TaskPool>(kEventThreads);
  attaches_ = std::make_unique<FairPool>(kAttachThreads, kAttachesOfUser,
                                         kAttachesWaiting);
  RunnerPoolOptions pool;
  pool.program = JoinPath(options_.program_dir, "pos-runner");
  pool.directory = runners_dir_;
  pool.log_level = options_.log_level;
  pool.warm = options_.warm_runners;
  pool.arena_base = options_.arena_base;
  pool.arena_bytes = options_.arena_bytes;
  pool.host_base = options_.host_base;
  pool.host_bytes = options_.host_bytes;
  pool.ring_bytes = options_.ring_bytes;
  pool.staging_bytes = options_.staging_bytes;
  pool.stage_threads = options_.stage_threads;
  runners_ = std::make_unique<RunnerPool>(loop_.get(), devices_.get(), pool);
  runners_->SetHandlers(
      [this](const std::shared_ptr<Runner>& runner,
             const runner::Event& event) { OnRunnerEvent(runner, event); },
      [this](const std::shared_ptr<Runner>& runner) { OnRunnerGone(runner); });
  loop_->Start();
  Recover();
  CollectGarbage();
  runners_->KeepWarm();
  POS_RETURN_IF_ERROR(ListenForAttaches());
  StartSeries();
  return {};
}

void Supervisor::EndJobs() {
  std::vector<JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    shutting_down_ = true;
    for (const auto& [name, job] : jobs_) jobs.push_back(job);
  }
  ending_.store(true);
  std::vector<std::thread> stops;
  for (const JobPtr& job : jobs) {
    if (!job->record().alive()) continue;
    stops.emplace_back([this, job] {
      v1::StopRequest request;
      request.set_job(job->name());
      Caller root;
      Stop(root, request).status().IgnoreError();
    });
  }
  for (std::thread& stop : stops) stop.join();
}

void Supervisor::Shutdown(bool keep_jobs) {
  std::vector<JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    shutting_down_ = true;
    for (const auto& [name, job] : jobs_) jobs.push_back(job);
  }
  StopSeries();
  if (attach_watch_ != 0) loop_->Remove(attach_watch_);
  if (keep_jobs) return;
  EndJobs();
  // Posted as well when a job ends, but what is posted may be dropped now.
  for (const JobPtr& job : jobs) {
    job->AckExit();
    EndSessions(job);
  }
}

Result<std::string> Supervisor::Criu() const {
  if (!options_.criu.empty()) return options_.criu;
  return FindCriu(options_.program_dir);
}

}  // namespace pos
