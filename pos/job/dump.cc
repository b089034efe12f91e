#include "pos/job/dump.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <map>
#include <span>
#include <utility>

#include "ckpt/criu/images.h"
#include "pos/base/bytes.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/job/job_image.h"
#include "pos/job/open_files.h"
#include "pos/job/process_tree.h"

namespace pos::job {
namespace {

constexpr std::uint64_t kDefaultTimeoutMs = 600000;
constexpr std::uint64_t kDefaultHoldMs = 60000;
constexpr const char* kLogName = "dump.log";

std::uint64_t DirectoryBytes(const std::string& path) {
  std::uint64_t total = 0;
  const Result<std::vector<std::string>> names = ListDirectory(path);
  if (!names.ok()) return 0;
  for (const std::string& name : *names) {
    const Result<std::uint64_t> size = FileSize(JoinPath(path, name));
    if (size.ok()) total += *size;
  }
  return total;
}

std::string RandomSuffix() {
  std::array<std::byte, 8> bytes;
  RandomBytes(bytes);
  return HexBytes(bytes);
}

}  // namespace

DumpOperation::DumpOperation(EventLoop* loop, InitLink* init, JobStdio* stdio,
                             const LogFile* log, DumpSubject subject,
                             std::uint64_t id, Dump request, UniqueFd images,
                             Handlers handlers)
    : loop_(loop),
      init_(init),
      stdio_(stdio),
      log_(log),
      subject_(std::move(subject)),
      id_(id),
      request_(std::move(request)),
      images_(std::move(images)),
      handlers_(std::move(handlers)),
      hold_(loop, [this](std::uint64_t ms) { OnHoldExpired(ms); }) {}

Status DumpOperation::Start() {
  images_path_ = "/proc/self/fd/" + std::to_string(images_.get());
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory(images_path_));
  if (!names.empty()) {
    return Exists("the directory for the images is not empty: " + names[0]);
  }
  POS_ASSIGN_OR_RETURN(
      work_, OpenFile(subject_.work_directory, O_RDONLY | O_DIRECTORY));
  CriuDumpRequest request;
  request.places = {kImagesFdInInit, kWorkFdInInit, kLogName,
                    subject_.log_level};
  request.pid = subject_.ns_pid;
  request.external = stdio_->TerminalKeys();
  CriuRun::Plan plan;
  plan.what = "dump of job " + subject_.name;
  plan.request = EncodeCriuDump(request);
  plan.dump = true;
  plan.images_fd = images_.get();
  plan.work_fd = work_.get();
  plan.log_path = JoinPath(subject_.work_directory, kLogName);
  plan.output_path = JoinPath(subject_.work_directory, kCriuOutput);
  plan.timeout_ms =
      request_.timeout_ms() > 0 ? request_.timeout_ms() : kDefaultTimeoutMs;
  // What an earlier run left would be taken for this one's.
  POS_RETURN_IF_ERROR(RemoveFile(plan.log_path));
  POS_RETURN_IF_ERROR(
      RemoveFile(JoinPath(subject_.work_directory, "stats-dump")));
  criu_ = std::make_unique<CriuRun>(
      loop_, init_, std::move(plan),
      CriuRun::Handlers{
          [this](const std::string& script) { return OnNotify(script); },
          [this](const Status& status) { OnCriuDone(status); }});
  started_ns_ = MonotonicNs();
  criu_->Start();
  return {};
}

CriuRun::Answer DumpOperation::OnNotify(const std::string& script) {
  if (script != "post-dump") return CriuRun::Answer::kGoOn;
  frozen_ns_ = MonotonicNs();
  Frozen frozen;
  frozen.set_dump_id(id_);
  failure_ = WriteImage(&frozen);
  if (!failure_.ok()) return CriuRun::Answer::kGiveUp;
  state_ = Hello::FROZEN;
  hold_.Start(request_.hold_ms() > 0 ? request_.hold_ms() : kDefaultHoldMs);
  handlers_.frozen(frozen);
  return CriuRun::Answer::kHold;
}

Status DumpOperation::WriteImage(Frozen* frozen) {
  stdio_->Drain();
  JobImage image;
  image.set_name(subject_.name);
  image.set_root_ns_pid(subject_.ns_pid);
  image.set_uid(subject_.uid);
  image.set_gid(subject_.gid);
  for (const gid_t group : subject_.groups) image.add_groups(group);
  image.set_log_bytes(log_->length_bytes());
  stdio_->Describe(&image);
  POS_ASSIGN_OR_RETURN(const std::vector<CriuTask> tree,
                       ReadCriuTree(images_path_));
  POS_ASSIGN_OR_RETURN(const std::vector<ProcessInfo> processes,
                       ListJobProcesses(init_->pid()));
  std::map<pid_t, pid_t> outside;
  for (const ProcessInfo& process : processes) {
    outside[process.ns_pid] = process.pid;
  }
  std::vector<pid_t> pids;
  for (const CriuTask& task : tree) {
    image.add_ns_pid(task.pid);
    if (outside.count(task.pid) != 0) pids.push_back(outside[task.pid]);
  }
  POS_RETURN_IF_ERROR(RecordOpenFiles(
      pids, {request_.exclude().begin(), request_.exclude().end()}, &image));
  POS_RETURN_IF_ERROR(KeepLinks(&image));
  frozen->set_log_bytes(image.log_bytes());
  frozen->set_open_files(static_cast<std::uint32_t>(image.open_file_size()));
  frozen->set_processes(static_cast<std::uint32_t>(image.ns_pid_size()));
  return WriteJobImage(images_path_, image);
}

Status DumpOperation::KeepLinks(JobImage* image) {
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> links,
                       ReadCriuLinkRemaps(images_path_));
  for (const std::string& link : links) {
    const std::filesystem::path path(link);
    const std::string kept = JoinPath(std::string(path.parent_path()),
                                      ".pos-keep." + RandomSuffix());
    if (::link(link.c_str(), kept.c_str()) != 0) {
      return ErrnoStatus(errno, "keep a removed file as " + kept);
    }
    kept_links_.push_back(kept);
    LinkRemap* remap = image->add_link_remap();
    remap->set_link(link);
    remap->set_kept(kept);
  }
  return {};
}

void DumpOperation::DropLinks() {
  for (const std::string& kept : kept_links_) RemoveFile(kept).IgnoreError();
  kept_links_.clear();
}

void DumpOperation::OnHoldExpired(std::uint64_t ms) {
  failure_ =
      Timeout("dump of job " + subject_.name + ": nobody decided within " +
              std::to_string(ms) + " ms; the job runs on");
  POS_LOG(kWarning, failure_.message());
  Decide(Verdict::ABORT).IgnoreError();
}

Status DumpOperation::ChangeHold(const Hold& hold) {
  if (state_ != Hello::FROZEN) return NotReady("the job is not frozen");
  hold_.Change(hold);
  return {};
}

Status DumpOperation::Decide(Verdict::Kind kind) {
  if (state_ != Hello::FROZEN) return NotReady("the job is not frozen");
  hold_.End();
  decided_ns_ = MonotonicNs();
  state_ = Hello::RESUMING;
  verdict_ = kind;
  if (kind == Verdict::KILL) {
    // Init's end kills every task where it stands; CRIU, too.
    init_->Kill();
  } else {
    criu_->Decide(kind == Verdict::RESUME);
  }
  return {};
}

void DumpOperation::OnCriuDone(const Status& status) {
  Status result = status;
  Dumped dumped;
  const bool killed = state_ == Hello::RESUMING && verdict_ == Verdict::KILL &&
                      status.code() == Code::kClosed;
  if (killed) {
    result = {};
    dumped.set_killed(true);
  } else if (!failure_.ok()) {
    result = failure_;
  } else if (state_ == Hello::RESUMING && verdict_ == Verdict::ABORT) {
    result = Aborted("dump of job " + subject_.name + " was aborted");
  }
  if (!result.ok()) DropLinks();
  const std::uint64_t now = MonotonicNs();
  const CriuDumpStats stats = ReadCriuDumpStats(subject_.work_directory);
  dumped.set_image_bytes(DirectoryBytes(images_path_));
  dumped.set_freeze_us(stats.freezing_us);
  dumped.set_dump_us((frozen_ns_ - started_ns_) / 1000);
  dumped.set_held_us((decided_ns_ - frozen_ns_) / 1000);
  dumped.set_total_us((now - started_ns_) / 1000);
  handlers_.done(result, dumped);  // may destroy this
}

}  // namespace pos::job
