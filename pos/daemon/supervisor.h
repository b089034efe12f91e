// posd: jobs, devices, images, and the life of everything around them.
//
// Threads: ControlApi's methods on any number of threads; events of runners on
//   the event loop, and what follows from them on a pool of their own; events
//   of a pos-job on its client's thread; attaches on another pool. What waits
//   for processes that are not posd's own (attaches) is not waited for by what
//   everybody needs (events of runners).
// Locks:   mu_ guards the tables and is never held across a call to another
//   process. A Job has locks of its own, after mu_.
#ifndef POS_DAEMON_SUPERVISOR_H_
#define POS_DAEMON_SUPERVISOR_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ckpt/crypt/secret.h"
#include "ckpt/store/store.h"
#include "pos/base/mutex.h"
#include "pos/daemon/control_api.h"
#include "pos/daemon/device_table.h"
#include "pos/daemon/event_loop.h"
#include "pos/daemon/fair_pool.h"
#include "pos/daemon/job.h"
#include "pos/daemon/quiesce_plan.h"
#include "pos/daemon/runner_pool.h"
#include "pos/daemon/task_pool.h"
#include "remoting/wire/attach.h"

namespace pos {

// What may change while posd runs.
struct SupervisorTunables {
  std::string compress = "auto";
  std::uint32_t write_depth = 4;
  bool incremental = true;
  std::uint64_t shadow_bytes = 256u << 20;
  std::uint32_t max_rounds = 8;
  QuiescePlan quiesce;
  std::uint64_t detach_ms = 10'000;
  std::uint64_t criu_dump_ms = 300'000;
  std::uint64_t criu_restore_ms = 300'000;
  std::uint64_t hold_ms = 120'000;
  std::uint64_t stop_grace_ms = 10'000;
  std::uint64_t lazy_bytes_per_second = 0;  // of a session; 0: no limit
};

struct SupervisorOptions {
  std::string state_dir;
  std::string runtime_dir;    // sockets
  std::string program_dir;    // pos-runner, pos-job
  std::string shim;           // the client library as built
  std::string host_file_dir;  // on tmpfs: files behind host windows
  std::string log_level = "info";
  std::string criu;  // empty: looked for
  std::vector<NodeDevice> devices;
  std::string devices_why;  // why these
  std::size_t warm_runners = 1;
  std::uint32_t stage_threads = 0;
  std::uint64_t arena_base = 0x200000000000;
  std::uint64_t arena_bytes = 4ull << 40;
  std::uint64_t host_base = 0x300000000000;
  std::uint64_t host_bytes = 64ull << 30;
  std::uint64_t ring_bytes = 1u << 20;
  std::uint64_t staging_bytes = 32u << 20;
  std::uint32_t chunk_bytes = 2u << 20;
  std::size_t ended_jobs = 100;  // remembered
  std::string export_key_file;   // empty: exports are for this store alone
  SupervisorTunables tunables;
};

class Supervisor : public ControlApi {
 public:
  explicit Supervisor(SupervisorOptions options);
  ~Supervisor() override;

  // Opens the store, finds what an earlier posd left behind, serves attaches.
  Status Start();
  // Lets go of what can wait for the next posd. Before anything else of the
  // end.
  void BeginEnd() { leaving_soon_.store(true); }
  // Starts no job any more, cancels checkpoints and restores, stops the jobs.
  // Who waits for one still learns how it ended.
  void EndJobs() POS_EXCLUDES(mu_);
  // The end. `keep_jobs`: they go on without posd; else EndJobs first.
  void Shutdown(bool keep_jobs) POS_EXCLUDES(mu_);
  // For operations that begin later.
  void SetTunables(const SupervisorTunables& tunables) POS_EXCLUDES(mu_);

  Result<v1::RunReply> Run(const Caller& caller, const v1::RunRequest& request,
                           StdioFds stdio) override;
  Result<v1::WaitReply> Wait(const Caller& caller,
                             const v1::WaitRequest& request,
                             const std::function<bool()>& cancelled) override;
  Status Signal(const Caller& caller,
                const v1::SignalRequest& request) override;
  Status SetTerminal(const Caller& caller,
                     const v1::SetTerminalRequest& request) override;
  Result<v1::PsReply> Ps(const Caller& caller,
                         const v1::PsRequest& request) override;
  Status Logs(const Caller& caller, const v1::LogsRequest& request,
              const std::function<bool(std::string_view)>& write,
              const std::function<bool()>& cancelled) override;
  Result<v1::StopReply> Stop(const Caller& caller,
                             const v1::StopRequest& request) override;
  Result<v1::DevicesReply> Devices(const Caller& caller) override;
  Result<v1::CheckReply> Check(const Caller& caller) override;
  Result<v1::CheckpointResult> Checkpoint(
      const Caller& caller, const v1::CheckpointRequest& request,
      const ProgressFunction& progress) override;
  Result<v1::RestoreResult> Restore(const Caller& caller,
                                    const v1::RestoreRequest& request,
                                    const ProgressFunction& progress) override;
  Result<v1::ListImagesReply> ListImages(const Caller& caller) override;
  Result<v1::ShowImageReply> ShowImage(const Caller& caller,
                                       const std::string& image) override;
  Result<v1::VerifyResult> VerifyImage(
      const Caller& caller, const std::string& image,
      const ProgressFunction& progress) override;
  Status RemoveImage(const Caller& caller, const std::string& image) override;
  Result<v1::DiffImagesReply> DiffImages(
      const Caller& caller, const v1::DiffImagesRequest& request) override;
  Result<v1::CollectGarbageReply> CollectGarbage(
      const Caller& caller, const std::function<bool()>& cancelled) override;
  Result<v1::ExportResult> ExportImage(
      const Caller& caller, const v1::ExportImageRequest& request,
      StdioFds stdio, const ProgressFunction& progress) override;
  Result<v1::ImportResult> ImportImage(
      const Caller& caller, const v1::ImportImageRequest& request,
      StdioFds stdio, const ProgressFunction& progress) override;
  Status SetSeries(const Caller& caller,
                   const v1::SetSeriesRequest& request) override;

 private:
  friend class CheckpointRun;
  friend class RestoreRun;

  using JobPtr = std::shared_ptr<Job>;

  // Start's steps.
  Status MakeDirectories();
  Status InstallShim();
  Status ListenForAttaches();
  void Recover();
  void SweepHostFiles() POS_EXCLUDES(mu_);
  // The devices of runners that have sessions, as the journals of these jobs
  // say.
  [[nodiscard]] std::map<std::string, std::vector<int>> DevicesOfRunners(
      const std::vector<std::string>& jobs) const;
  // A runner that was silent has said how it is.
  void OnRunnerAnswered(const std::shared_ptr<Runner>& runner,
                        const runner::State& state) POS_EXCLUDES(mu_);
  // Runners that ended while their sessions were not known yet.
  void FindGoneRunners() POS_EXCLUDES(mu_);
  void RecoverJob(const std::string& name,
                  std::vector<RunnerPool::Found>* runners);
  // A job whose record is damaged. If it has ended, its directory is set aside,
  // for somebody to look at; else it runs on, and nobody gets its name, and so
  // its directory, until a posd finds that it has ended.
  void RecoverUnreadable(const std::string& name,
                         std::vector<RunnerPool::Found>* runners)
      POS_EXCLUDES(mu_);
  // To <state>/unreadable.
  Status SetAside(const std::string& name);
  // The job ended while no posd was there.
  void RecordEndWithoutPosJob(const JobPtr& job);
  // The job's pos-job has answered; `lost`: sessions without a runner.
  void TakeOver(const JobPtr& job, const JobRecord& record,
                const job::Hello& hello, const std::vector<JobSession>& lost);
  // What a checkpoint left half-done is put back: the tree runs (or ends, when
  // its image is there), clients come back. `held`: by a dump.
  void UndoInterrupted(const JobPtr& job, bool held,
                       const std::vector<JobSession>& lost);
  // A word to the clients of sessions that are not ready, as their runners
  // answer. False when that was given up, because posd ends.
  bool ResumeSessions(const JobPtr& job, const JobRecord& record);
  // Returns those whose runner is gone.
  std::vector<JobSession> RecoverSessions(
      const JobPtr& job, const JobRecord& record,
      std::vector<RunnerPool::Found>* runners);

  // Jobs.
  [[nodiscard]] std::string JobDirectory(const std::string& name) const;
  Result<JobPtr> FindJob(const Caller& caller, const std::string& name)
      POS_EXCLUDES(mu_);
  // What to do when a job has the wanted name already.
  enum class NamePolicy {
    // A living job: kExists. An ended one makes room.
    kExact,
    // Another one: NAME-2, NAME-3, … So that no log of an ended job is lost.
    kNextUnused,
    // An ended job of the same line with a log of `log_bytes` or more makes
    // room, and the log stays; else as kNextUnused.
    kContinue,
  };
  // Takes the name and makes the directory. `continues`: there is a log.
  Result<JobPtr> NewJob(JobRecord record, NamePolicy policy,
                        std::uint64_t log_bytes = 0, bool* continues = nullptr)
      POS_EXCLUDES(mu_);
  static Status MakeJobDirectory(const Job& job, bool keep_log);
  void DropJob(const JobPtr& job) POS_EXCLUDES(mu_);
  void ForgetOldJobs() POS_EXCLUDES(mu_);
  Status StartPosJob(const JobPtr& job, const job::JobConfig& config,
                     std::span<const int> fds);
  [[nodiscard]] job::JobClient::Handlers HandlersFor(const JobPtr& job);
  void OnJobEvent(const JobPtr& job, const job::Event& event);
  void OnJobEnded(const JobPtr& job);
  std::vector<std::string> JobEnvironment(const v1::RunRequest& request) const;
  // What a request says that does not depend on the name it will get.
  Result<JobRecord> NewRecord(const Caller& caller,
                              const v1::RunRequest& request) const;
  void FillProgram(const Caller& caller, const v1::RunRequest& request,
                   job::StartProgram* start) const;
  void EndSessions(const JobPtr& job);
  Status SendSignal(const JobPtr& job, int signal, bool everyone);

  // Sessions.
  void OnAttachListener();
  [[nodiscard]] std::uint64_t AttachLane(uid_t uid) POS_EXCLUDES(mu_);
  void HandleAttach(UniqueFd socket);
  Status AttachNew(const JobPtr& job, UniqueFd socket, pid_t pid);
  Status AttachAgain(const wire::Token& token, UniqueFd socket, pid_t pid);
  JobPtr JobOfProcess(pid_t pid) POS_EXCLUDES(mu_);
  void OnRunnerEvent(const std::shared_ptr<Runner>& runner,
                     const runner::Event& event);
  void OnRunnerGone(const std::shared_ptr<Runner>& runner);
  std::optional<std::pair<JobPtr, JobSession>> SessionOf(const Runner* runner)
      POS_EXCLUDES(mu_);
  [[nodiscard]] std::string HostFilePrefix() const;
  [[nodiscard]] std::string NewHostFilePath(const std::string& job,
                                            std::uint64_t session) const;
  Result<UniqueFd> MakeHostFile(const JobPtr& job, std::uint64_t session,
                                std::string* path);
  // Tells a detached client to come back: a fresh token, written into it.
  Status WriteVerdict(const JobPtr& job, const JobSession& session,
                      std::uint32_t epoch);
  // The same for several, and again for those whom it did not reach, for some
  // seconds, unless they have ended. Those that it reached, which lie in
  // `sessions`, and why it did not reach another (logged, too).
  struct Called {
    std::vector<const JobSession*> told;
    Status status;
  };
  Called CallBack(const JobPtr& job, std::span<const JobSession> sessions,
                  std::uint32_t epoch);
  // The same for one that left for a checkpoint that was given up meanwhile.
  void AnswerLate(const JobPtr& job, const JobSession& session,
                  std::uint32_t epoch);
  // When the first and the last process came back (CLOCK_MONOTONIC).
  struct ReturnTimes {
    std::uint64_t first_ns = 0;
    std::uint64_t last_ns = 0;
  };
  // Tells detached clients to come back and waits until each of them has, or
  // has ended. The sessions of those that have ended stay.
  Status BringBack(const JobPtr& job, std::span<const JobSession> sessions,
                   std::uint32_t epoch, ReturnTimes* times);
  // Whether the session's process lives. True as well where that cannot be
  // found out.
  static bool ProcessRuns(const JobPtr& job, const SessionRecordEntry& session);
  void EndSession(const JobPtr& job, std::uint64_t number);
  // A runner that was busy with a checkpoint when its client ended stayed.
  void EndSessionsWithoutProcess(const JobPtr& job);
  void DropTokens(const Job* job) POS_EXCLUDES(mu_);

  // Lazy restores.
  struct LoadProgress {
    // Bytes loaded and altogether, by session.
    std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> sessions;
  };
  using OnLoadProgress =
      std::function<Status(std::uint64_t done, std::uint64_t total)>;
  // Waits until no session of the job loads any more; returns the error that
  // ended one, or what `report` said.
  Status WaitLoaded(const JobPtr& job, const OnLoadProgress& report);
  // Asks the runners that load; false: there is none.
  bool PollLoading(const JobPtr& job, LoadProgress* progress);
  void OnSessionLoaded(const JobPtr& job, std::uint64_t number,
                       std::uint64_t at_ns);
  // The job's image may go once no session is loaded from it any more.
  void DropPinIfLoaded(const JobPtr& job);
  void DropPin(const JobPtr& job, const std::string& pin);
  // At posd's start: pins that nobody needs any more.
  void SweepPins() POS_EXCLUDES(mu_);

  // Images.
  // In the background: frees what removed images and cut-off checkpoints took.
  void CollectGarbage() POS_EXCLUDES(mu_);
  // May do what root may: root, and who runs posd.
  [[nodiscard]] static bool IsMaster(const Caller& caller);
  // The key that exports are known again by, if one is configured.
  Result<std::optional<ckpt::Secret>> ExportKey() const;
  Result<ckpt::ImageSummary> FindImage(const Caller& caller,
                                       const std::string& image);
  Result<std::string> Criu() const;

  // Periodic checkpoints: supervisor_series.cc.
  void StartSeries();
  void StopSeries() POS_EXCLUDES(mu_);
  // Of the thread that waits for the next one.
  void RunSeries() POS_EXCLUDES(mu_);
  // Begins what is due; when to look again (milliseconds from now).
  std::uint64_t BeginDueSeries() POS_EXCLUDES(mu_);
  void CheckpointOfSeries(const JobPtr& job) POS_EXCLUDES(mu_);

  [[nodiscard]] SupervisorTunables tunables() POS_EXCLUDES(mu_);
  // In EndJobs: operations should give up.
  [[nodiscard]] bool ending() const { return ending_.load(); }

  const SupervisorOptions options_;
  std::string jobs_dir_;
  std::string runners_dir_;
  std::string attach_path_;
  std::string shim_dir_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<DeviceTable> devices_;
  std::unique_ptr<RunnerPool> runners_;
  std::unique_ptr<ckpt::Store> store_;
  std::unique_ptr<TaskPool> tasks_;
  std::unique_ptr<TaskPool> events_;  // of runners
  std::unique_ptr<FairPool> attaches_;
  // Of jobs with a runner that was silent at the start: each waits for its own.
  std::vector<std::thread> takeovers_;  // Start and destructor
  UniqueFd attach_listener_;
  std::uint64_t attach_watch_ = 0;

  // Connections are closed from here on: that says nothing about their jobs.
  std::atomic<bool> leaving_{false};
  std::atomic<bool> ending_{false};
  // Work that the next posd can do as well is given up.
  std::atomic<bool> leaving_soon_{false};
  Mutex mu_;
  SupervisorTunables tunables_ POS_GUARDED_BY(mu_);
  std::map<std::string, JobPtr> jobs_ POS_GUARDED_BY(mu_);
  // Names of jobs that run, or may, and whose records cannot be read.
  std::set<std::string> unreadable_ POS_GUARDED_BY(mu_);
  // Sessions whose client was told to come back.
  struct Expected {
    wire::Token token;
    JobPtr job;
    std::uint64_t session;
  };
  std::vector<Expected> expected_ POS_GUARDED_BY(mu_);
  bool shutting_down_ POS_GUARDED_BY(mu_) = false;
  bool garbage_wanted_ POS_GUARDED_BY(mu_) = false;
  bool garbage_running_ POS_GUARDED_BY(mu_) = false;
  std::set<std::string> series_running_ POS_GUARDED_BY(mu_);  // jobs
  bool series_changed_ POS_GUARDED_BY(mu_) = false;
  bool series_stop_ POS_GUARDED_BY(mu_) = false;
  CondVar series_wake_;
  std::unique_ptr<TaskPool> series_tasks_;
  std::thread series_thread_;
};

void FillWindow(const v1::WindowSize& from, job::WindowSize* to);
[[nodiscard]] v1::JobState JobStateOf(const std::string& name);

}  // namespace pos

#endif  // POS_DAEMON_SUPERVISOR_H_
