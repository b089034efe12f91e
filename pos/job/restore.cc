#include "pos/job/restore.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <utility>

#include "ckpt/criu/images.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/job/job_image.h"
#include "pos/job/namespaces.h"
#include "pos/job/process_tree.h"

namespace pos::job {
namespace {

constexpr std::uint64_t kDefaultTimeoutMs = 600000;
constexpr const char* kLogName = "restore.log";

Result<std::string> PathOf(int fd) {
  std::array<char, PATH_MAX> buffer;
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t n = ::readlink(link.c_str(), buffer.data(), buffer.size());
  if (n < 0) return ErrnoStatus(errno, "readlink " + link);
  return std::string(buffer.data(), static_cast<std::size_t>(n));
}

}  // namespace

RestoreOperation::RestoreOperation(EventLoop* loop, StartRestore request,
                                   std::vector<UniqueFd> fds,
                                   std::string work_directory, std::string name,
                                   int log_level)
    : loop_(loop),
      request_(std::move(request)),
      fds_(std::move(fds)),
      work_directory_(std::move(work_directory)),
      name_(std::move(name)),
      log_level_(log_level),
      hold_(loop, [this](std::uint64_t ms) { OnHoldExpired(ms); }) {}

Status RestoreOperation::Prepare() {
  if (request_.images_fd() == 0 || request_.images_fd() > fds_.size()) {
    return Proto("a restore needs the descriptor of an image directory");
  }
  POS_ASSIGN_OR_RETURN(images_path_,
                       PathOf(fds_[request_.images_fd() - 1].get()));
  POS_ASSIGN_OR_RETURN(image_, ReadJobImage(images_path_));
  POS_ASSIGN_OR_RETURN(const std::vector<CriuTask> tree,
                       ReadCriuTree(images_path_));
  POS_ASSIGN_OR_RETURN(const pid_t pid_max, PidMax());
  POS_ASSIGN_OR_RETURN(last_pid_, ChooseLastPid(CriuIds(tree), pid_max));
  POS_RETURN_IF_ERROR(FindReplacements());
  std::vector<std::string> replaced;
  for (const ReplacementFile& file : replacements_) {
    replaced.push_back(file.image_path);
  }
  POS_ASSIGN_OR_RETURN(plan_, PlanFiles(image_, images_path_, request_.files(),
                                        request_.copy_directory(), replaced));
  return {};
}

Status RestoreOperation::FindReplacements() {
  for (const ReplacedFile& file : request_.replace()) {
    if (file.fd() == 0 || file.fd() > fds_.size() || file.path().empty() ||
        file.path()[0] != '/') {
      return Proto("a replaced file needs an absolute path and a descriptor");
    }
    const int fd = fds_[file.fd() - 1].get();
    struct stat st {};
    if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
      return Invalid("what replaces " + file.path() + " is no regular file");
    }
    POS_ASSIGN_OR_RETURN(const std::string path, PathOf(fd));
    replacements_.push_back({file.path(), path, st.st_dev, st.st_ino});
  }
  return {};
}

// CRIU looks for its temporary links, which it removed after the dump.
Status RestoreOperation::RestoreLinks() {
  for (const LinkRemap& remap : image_.link_remap()) {
    if (::link(remap.kept().c_str(), remap.link().c_str()) != 0 &&
        errno != EEXIST) {
      return ErrnoStatus(errno, "bring back the removed file " + remap.kept());
    }
  }
  return {};
}

void RestoreOperation::RemoveLinks() {
  for (const LinkRemap& remap : image_.link_remap()) {
    RemoveFile(remap.link()).IgnoreError();
  }
}

void RestoreOperation::Run(InitLink* init, const std::vector<JobEnd>& ends,
                           Handlers handlers) {
  init_ = init;
  handlers_ = std::move(handlers);
  const Status status = StartCriu(ends);
  if (!status.ok()) handlers_.failed(status);
}

Status RestoreOperation::StartCriu(const std::vector<JobEnd>& ends) {
  POS_RETURN_IF_ERROR(ApplyFilePlan(plan_, image_));
  POS_ASSIGN_OR_RETURN(
      const std::string directory,
      AdjustedImages(plan_, images_path_, JoinPath(work_directory_, "images")));
  POS_RETURN_IF_ERROR(RestoreLinks());
  POS_ASSIGN_OR_RETURN(images_, OpenFile(directory, O_RDONLY | O_DIRECTORY));
  POS_ASSIGN_OR_RETURN(work_,
                       OpenFile(work_directory_, O_RDONLY | O_DIRECTORY));
  CriuRestoreRequest request;
  request.places = {kImagesFdInInit, kWorkFdInInit, kLogName, log_level_};
  CriuRun::Plan plan;
  int number = kFirstInheritFdInCriu;
  for (const JobEnd& end : ends) {
    request.inherit.emplace_back(end.image_key, number);
    plan.command.add_endpoint_number(number++);
  }
  for (const ReplacementFile& file : replacements_) {
    // CRIU names files by their path without the leading slash.
    request.inherit.emplace_back(file.image_path.substr(1), number);
    plan.command.add_replacement_number(number++);
  }
  plan.what = "restore of job " + name_;
  plan.request = EncodeCriuRestore(request);
  plan.command.set_restored_root(image_.root_ns_pid());
  plan.images_fd = images_.get();
  plan.work_fd = work_.get();
  plan.log_path = JoinPath(work_directory_, kLogName);
  plan.output_path = JoinPath(work_directory_, kCriuOutput);
  plan.timeout_ms =
      request_.timeout_ms() > 0 ? request_.timeout_ms() : kDefaultTimeoutMs;
  POS_RETURN_IF_ERROR(RemoveFile(plan.log_path));
  criu_ = std::make_unique<CriuRun>(
      loop_, init_, std::move(plan),
      CriuRun::Handlers{
          [this](const std::string& script) { return OnNotify(script); },
          [this](const Status& status) { OnCriuDone(status); }});
  started_ns_ = MonotonicNs();
  criu_->Start();
  return {};
}

CriuRun::Answer RestoreOperation::OnNotify(const std::string& script) {
  if (script != "post-restore") return CriuRun::Answer::kGoOn;
  const Result<ProcessInfo> root =
      FindJobProcess(init_->pid(), image_.root_ns_pid());
  if (!root.ok()) {
    failure_ = root.status();
    return CriuRun::Answer::kGiveUp;
  }
  pid_ = root->pid;
  if (request_.hold_ms() == 0) return CriuRun::Answer::kGoOn;
  state_ = Hello::HELD;
  held_since_ns_ = MonotonicNs();
  hold_.Start(request_.hold_ms());
  handlers_.held(pid_, image_.root_ns_pid());
  return CriuRun::Answer::kHold;
}

void RestoreOperation::OnHoldExpired(std::uint64_t ms) {
  failure_ = Timeout("restore of job " + name_ + ": nobody decided within " +
                     std::to_string(ms) + " ms");
  Decide(Verdict::ABORT).IgnoreError();
}

Status RestoreOperation::ChangeHold(const Hold& hold) {
  if (state_ != Hello::HELD) return NotReady("the job is not held");
  hold_.Change(hold);
  return {};
}

Status RestoreOperation::Decide(Verdict::Kind kind) {
  if (state_ != Hello::HELD) return NotReady("the job is not held");
  if (kind == Verdict::KILL) return Invalid("KILL is a verdict of dumps");
  hold_.End();
  held_ns_ = MonotonicNs() - held_since_ns_;
  state_ = Hello::RESUMING;
  if (kind == Verdict::ABORT && failure_.ok()) {
    failure_ = Aborted("restore of job " + name_ + " was aborted");
  }
  criu_->Decide(kind == Verdict::RESUME);
  return {};
}

void RestoreOperation::OnCriuDone(const Status& status) {
  RemoveLinks();
  RemoveTree(JoinPath(work_directory_, "images")).IgnoreError();
  const Status result = failure_.ok() ? status : failure_;
  if (result.ok()) {
    handlers_.done(pid_, (MonotonicNs() - started_ns_ - held_ns_) / 1000);
  } else {
    handlers_.failed(result);  // may destroy this
  }
}

}  // namespace pos::job
