// Starting a program as a job.
#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/process.h"
#include "pos/daemon/supervisor.h"

namespace pos {
namespace {

constexpr std::uint64_t kStartMs = 30'000;

// A job's name from its program: "python3" of "/usr/bin/python3".
std::string NameOf(const std::string& program) {
  std::string name = std::filesystem::path(program).filename();
  for (char& c : name) {
    if (!IsSafeName(std::string("a") + c)) c = '_';
  }
  name = name.substr(0, 40);
  return IsSafeName(name) ? name : "job";
}

// `fds`: what goes beside the configuration; stays the caller's.
void FillStdio(const StdioFds& stdio, const v1::RunRequest& request,
               job::Stdio* streams, std::vector<int>* fds) {
  const auto add = [fds](const UniqueFd& fd) -> std::uint32_t {
    if (!fd.valid()) return 0;
    fds->push_back(fd.get());
    return static_cast<std::uint32_t>(fds->size());
  };
  streams->set_stdin_fd(add(stdio.in));
  streams->set_stdout_fd(add(stdio.out));
  streams->set_stderr_fd(add(stdio.err));
  streams->set_log_attached(true);
  streams->set_caller_gone(job::Stdio::BREAK_PIPE);
  streams->set_stdin_paused(request.stdin_paused());
  if (request.has_window()) {
    FillWindow(request.window(), streams->mutable_window());
  }
}

}  // namespace

void FillWindow(const v1::WindowSize& from, job::WindowSize* to) {
  to->set_rows(from.rows());
  to->set_columns(from.columns());
  to->set_x_pixels(from.x_pixels());
  to->set_y_pixels(from.y_pixels());
}

std::vector<std::string> Supervisor::JobEnvironment(
    const v1::RunRequest& request) const {
  std::vector<std::string> environment;
  std::string library_path = shim_dir_;
  for (const std::string& entry : request.environment()) {
    constexpr std::string_view kPath = "LD_LIBRARY_PATH=";
    if (entry.starts_with(kPath)) {
      const std::string rest = entry.substr(kPath.size());
      if (!rest.empty()) library_path += ":" + rest;
    } else if (!entry.starts_with("POS_ATTACH=")) {
      environment.push_back(entry);
    }
  }
  environment.push_back("LD_LIBRARY_PATH=" + library_path);
  environment.push_back("POS_ATTACH=" + attach_path_);
  return environment;
}

Result<JobRecord> Supervisor::NewRecord(const Caller& caller,
                                        const v1::RunRequest& request) const {
  if (request.argv_size() == 0 || request.argv(0).empty()) {
    return Invalid("no program is named", "pos-cli run -- PROGRAM ARGS");
  }
  JobRecord record;
  record.name =
      request.name().empty() ? NameOf(request.argv(0)) : request.name();
  if (!IsSafeName(record.name)) {
    return Invalid("'" + record.name + "' cannot be a job's name",
                   "use letters, digits, '.', '_' and '-', at most 64");
  }
  POS_ASSIGN_OR_RETURN(record.devices, devices_->Choose(request.device()));
  record.uid = caller.uid;
  record.gid = caller.gid;
  record.argv.assign(request.argv().begin(), request.argv().end());
  record.cwd = request.directory();
  record.state = "starting";
  record.started_at = WallClockMs();
  std::array<std::byte, 8> lineage;
  RandomBytes(lineage);
  record.lineage = HexBytes(lineage);
  return record;
}

void Supervisor::FillProgram(const Caller& caller,
                             const v1::RunRequest& request,
                             job::StartProgram* start) const {
  for (const std::string& arg : request.argv()) start->add_argv(arg);
  for (const std::string& entry : JobEnvironment(request)) {
    start->add_environment(entry);
  }
  start->set_directory(request.directory());
  start->set_uid(caller.uid);
  start->set_gid(caller.gid);
  for (const gid_t group : caller.groups) start->add_groups(group);
  start->set_umask(request.umask());
  for (const v1::ResourceLimit& limit : request.limits()) {
    job::ResourceLimit* const l = start->add_limits();
    l->set_resource(limit.resource());
    l->set_soft(limit.soft());
    l->set_hard(limit.hard());
  }
}

Result<v1::RunReply> Supervisor::Run(const Caller& caller,
                                     const v1::RunRequest& request,
                                     StdioFds stdio) {
  POS_ASSIGN_OR_RETURN(JobRecord record, NewRecord(caller, request));
  record.detached =
      !stdio.in.valid() && !stdio.out.valid() && !stdio.err.valid();
  job::JobConfig config;
  FillProgram(caller, request, config.mutable_start());
  std::vector<int> fds;
  FillStdio(stdio, request, config.mutable_stdio(), &fds);

  // A name that the user chose is his; one that was made up may be counted on.
  POS_ASSIGN_OR_RETURN(
      const JobPtr job,
      NewJob(record, request.name().empty() ? NamePolicy::kNextUnused
                                            : NamePolicy::kExact));
  config.set_name(job->name());
  config.set_directory(job->directory());
  if (const Result<std::string> criu = Criu(); criu.ok()) {
    config.set_criu(*criu);
  }
  // A job that is not on record would be lost to the next posd.
  Status status = job->Journal();
  if (status.ok()) status = StartPosJob(job, config, fds);
  if (status.ok()) status = job->WaitStarted(Deadline::AfterMs(kStartMs));
  if (!status.ok()) {
    DropJob(job);
    return status;
  }
  const JobRecord started = job->record();
  v1::RunReply reply;
  reply.set_job(job->name());
  reply.set_pid(started.pid);
  reply.set_ns_pid(started.ns_pid);
  return reply;
}

}  // namespace pos
