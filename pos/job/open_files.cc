#include "pos/job/open_files.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <map>
#include <utility>

#include "ckpt/criu/images.h"
#include "pos/base/files.h"
#include "pos/job/act_as.h"
#include "pos/job/descriptors.h"
#include "pos/job/file_copy.h"

namespace pos::job {
namespace {

bool IsBelow(const std::string& path, const std::string& prefix) {
  return !prefix.empty() && path.compare(0, prefix.size(), prefix) == 0 &&
         (path.size() == prefix.size() || prefix.back() == '/' ||
          path[prefix.size()] == '/');
}

// Kernel interfaces that look like regular files.
bool IsPseudo(const std::string& path) {
  struct statfs fs {};
  if (::statfs(path.c_str(), &fs) != 0) return false;
  switch (static_cast<unsigned long>(fs.f_type)) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
      return true;
    default:
      return false;
  }
}

std::uint64_t ModifiedNs(const struct stat& st) {
  return static_cast<std::uint64_t>(st.st_mtim.tv_sec) * 1000000000u +
         static_cast<std::uint64_t>(st.st_mtim.tv_nsec);
}

class Recorder {
 public:
  explicit Recorder(const std::vector<std::string>& exclude)
      : exclude_(exclude) {}

  void Add(const std::string& path, const struct stat& st, bool append) {
    if (path.empty() || path[0] != '/' || !S_ISREG(st.st_mode) ||
        st.st_nlink == 0 || IsDeletedTarget(path)) {
      return;
    }
    for (const std::string& prefix : exclude_) {
      if (IsBelow(path, prefix)) return;
    }
    if (IsPseudo(path)) return;
    const auto [it, fresh] = files_.try_emplace(path);
    RecordedFile& file = it->second;
    if (fresh) {
      file.set_path(path);
      file.set_size_bytes(static_cast<std::uint64_t>(st.st_size));
      file.set_mtime_ns(ModifiedNs(st));
      file.set_device(st.st_dev);
      file.set_inode(st.st_ino);
      file.set_append_only(true);
    }
    if (!append) file.set_append_only(false);
  }
  // After each process: it counts once per file.
  void EndProcess() {
    for (auto& [path, file] : files_) {
      if (touched_.count(path) != 0) file.set_processes(file.processes() + 1);
    }
    touched_.clear();
  }
  void Touch(const std::string& path) { touched_[path] = true; }

  void Store(JobImage* image) {
    for (auto& [path, file] : files_) *image->add_open_file() = file;
  }

 private:
  const std::vector<std::string>& exclude_;
  std::map<std::string, RecordedFile> files_;
  std::map<std::string, bool> touched_;
};

Status RecordProcess(pid_t pid, Recorder* recorder) {
  POS_ASSIGN_OR_RETURN(const std::vector<Descriptor> descriptors,
                       ListDescriptors(pid));
  for (const Descriptor& descriptor : descriptors) {
    const int access = descriptor.flags & O_ACCMODE;
    if (access == O_RDONLY || (descriptor.flags & O_PATH) != 0) continue;
    recorder->Add(descriptor.target, descriptor.st,
                  access == O_WRONLY && (descriptor.flags & O_APPEND) != 0);
    recorder->Touch(descriptor.target);
  }
  POS_ASSIGN_OR_RETURN(const std::vector<Mapping> mappings, ListMappings(pid));
  for (const Mapping& mapping : mappings) {
    if (!mapping.shared || !mapping.writable || mapping.inode == 0) continue;
    struct stat st {};
    if (::stat(mapping.target.c_str(), &st) != 0 ||
        st.st_ino != mapping.inode) {
      continue;  // removed, or not a file with a name
    }
    recorder->Add(mapping.target, st, false);
    recorder->Touch(mapping.target);
  }
  recorder->EndProcess();
  return {};
}

}  // namespace

Status RecordOpenFiles(const std::vector<pid_t>& pids,
                       const std::vector<std::string>& exclude,
                       JobImage* image) {
  Recorder recorder(exclude);
  for (const pid_t pid : pids) {
    const Status status = RecordProcess(pid, &recorder);
    // A zombie has nothing open.
    if (!status.ok() && status.code() != Code::kNoSuch) return status;
  }
  recorder.Store(image);
  return {};
}

namespace {

// Compares one file of the image with what is there now.
class Planner {
 public:
  Planner(const JobImage& image, StartRestore::FilePolicy policy,
          const std::string& copy_directory)
      : policy_(policy), copy_directory_(copy_directory) {
    for (const RecordedFile& file : image.open_file())
      written_[file.path()] = file;
  }

  // A file that the job had open for writing.
  Status PlanWritten(const RecordedFile& file) {
    struct stat st {};
    POS_RETURN_IF_ERROR(Look(file.path(), &st));
    const auto size = static_cast<std::uint64_t>(st.st_size);
    if (size < file.size_bytes()) {
      return Invalid(file.path() + " shrank since the checkpoint: it had " +
                         std::to_string(file.size_bytes()) + " bytes, it has " +
                         std::to_string(size),
                     "bring the file back, or restore an image that is newer");
    }
    if (size == file.size_bytes() && ModifiedNs(st) != file.mtime_ns()) {
      plan_.notes.push_back(file.path() +
                            " was written since the checkpoint; it is used as "
                            "it is now");
    }
    if (policy_ == StartRestore::COPY) return PlanCopy(file);
    if (size == file.size_bytes()) return {};
    if (policy_ == StartRestore::KEEP) {
      if (!file.append_only()) plan_.adjust.push_back({file.path(), size});
      return {};
    }
    if (IsWrittenByOthers(file.path())) {
      return Busy(file.path() +
                      " grew since the checkpoint and is being "
                      "written by another process",
                  "stop that process, or restore with --files copy DIR or "
                  "--files keep");
    }
    plan_.cut.push_back({file.path(), file.size_bytes()});
    return {};
  }

  // Any other file that CRIU opens: it insists on the size.
  Status PlanOther(const CriuFile& file) {
    if (file.removed || !file.size_bytes || written_.count(file.path) != 0) {
      return {};
    }
    struct stat st {};
    POS_RETURN_IF_ERROR(Look(file.path, &st));
    const auto size = static_cast<std::uint64_t>(st.st_size);
    if (size == *file.size_bytes) return {};
    if (file.has_build_id || policy_ != StartRestore::KEEP) {
      return Invalid(file.path + " changed since the checkpoint: it had " +
                         std::to_string(*file.size_bytes) + " bytes, it has " +
                         std::to_string(size),
                     file.has_build_id
                         ? "bring back the version that the job was using"
                         : "bring the file back, or restore with --files keep");
    }
    plan_.adjust.push_back({file.path, size});
    return {};
  }

  FilePlan TakePlan() { return std::move(plan_); }

 private:
  static Status Look(const std::string& path, struct stat* st) {
    if (::stat(path.c_str(), st) != 0) {
      return ErrnoStatus(errno, "the job's file " + path);
    }
    if (!S_ISREG(st->st_mode)) {
      return Invalid(path +
                     " was a regular file at the checkpoint and is "
                     "something else now");
    }
    return {};
  }

  Status PlanCopy(const RecordedFile& file) {
    const std::string to = copy_directory_ + file.path();
    if (PathExists(to)) {
      return Exists(to + " is there already",
                    "name an empty directory for --files copy");
    }
    plan_.copy.push_back({file.path(), to, file.size_bytes()});
    return {};
  }

  const StartRestore::FilePolicy policy_;
  const std::string copy_directory_;
  std::map<std::string, RecordedFile> written_;
  FilePlan plan_;
};

}  // namespace

Result<FilePlan> PlanFiles(const JobImage& image, const std::string& directory,
                           StartRestore::FilePolicy policy,
                           const std::string& copy_directory,
                           const std::vector<std::string>& replaced) {
  if (policy == StartRestore::COPY &&
      (copy_directory.empty() || copy_directory[0] != '/')) {
    return Invalid("--files copy needs an absolute directory");
  }
  POS_ASSIGN_OR_RETURN(const std::vector<CriuFile> files,
                       ReadCriuFiles(directory));
  const auto is_replaced = [&replaced](const std::string& path) {
    return std::find(replaced.begin(), replaced.end(), path) != replaced.end();
  };
  const ActAs user(image);
  POS_RETURN_IF_ERROR(user.status());
  Planner planner(image, policy, copy_directory);
  for (const RecordedFile& file : image.open_file()) {
    if (is_replaced(file.path())) continue;
    POS_RETURN_IF_ERROR(planner.PlanWritten(file));
  }
  for (const CriuFile& file : files) {
    if (is_replaced(file.path)) continue;
    POS_RETURN_IF_ERROR(planner.PlanOther(file));
  }
  return planner.TakePlan();
}

Status ApplyFilePlan(const FilePlan& plan, const JobImage& image) {
  const ActAs user(image);
  POS_RETURN_IF_ERROR(user.status());
  for (const FilePlan::Copy& copy : plan.copy) {
    POS_RETURN_IF_ERROR(CopyFile(copy.path, copy.to, copy.size_bytes));
  }
  for (const FilePlan::Cut& cut : plan.cut) {
    POS_RETURN_IF_ERROR(CutFile(cut.path, cut.size_bytes));
  }
  return {};
}

Result<std::string> AdjustedImages(const FilePlan& plan,
                                   const std::string& directory,
                                   const std::string& work) {
  if (plan.adjust.empty() && plan.copy.empty()) return directory;
  std::size_t changed = 0;
  POS_ASSIGN_OR_RETURN(
      const std::string files,
      AdjustCriuFiles(
          directory,
          [&plan](CriuFile* file) {
            for (const FilePlan::Adjust& adjust : plan.adjust) {
              if (adjust.path == file->path) {
                file->size_bytes = adjust.size_bytes;
              }
            }
            for (const FilePlan::Copy& copy : plan.copy) {
              if (copy.path != file->path) continue;
              file->path = copy.to;
              file->size_bytes = copy.size_bytes;
            }
          },
          &changed));
  if (changed == 0) return directory;
  POS_RETURN_IF_ERROR(RemoveTree(work));
  POS_RETURN_IF_ERROR(MakeDirectories(work));
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory(directory));
  for (const std::string& name : names) {
    if (name == "files.img") continue;
    if (::symlink(JoinPath(directory, name).c_str(),
                  JoinPath(work, name).c_str()) != 0) {
      return ErrnoStatus(errno, "link " + JoinPath(work, name));
    }
  }
  POS_RETURN_IF_ERROR(ReplaceFile(JoinPath(work, "files.img"), files));
  return work;
}

}  // namespace pos::job
