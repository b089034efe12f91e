#include "pos/job/preflight.h"

#include <linux/magic.h>
#include <linux/major.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "ckpt/criu/rpc.h"
#include "pos/base/process.h"
#include "pos/job/descriptors.h"
#include "pos/job/process_tree.h"
#include "pos/job/sockets.h"

namespace pos::job {
namespace {

constexpr unsigned long kMqueueMagic = 0x19800202;

// Anonymous inodes that CRIU 4.1 dumps.
constexpr std::array<std::string_view, 6> kKnownAnonymous = {
    "[eventfd]", "[eventpoll]", "[signalfd]",
    "[timerfd]", "inotify",     "[pidfd]"};

bool StartsWith(const std::string& text, std::string_view prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

class Inspector {
 public:
  explicit Inspector(const PreflightScope& scope) : scope_(scope) {}

  Status Run() {
    POS_ASSIGN_OR_RETURN(processes_, ListJobProcesses(scope_.init));
    CollectOpen();
    CheckTree();
    for (const ProcessInfo& process : processes_) {
      if (process.state == 'Z') continue;
      CheckProcess(process);
      for (const Descriptor& descriptor : open_[process.pid]) {
        CheckDescriptor(process, descriptor);
      }
      CheckMappings(process);
    }
    return {};
  }

  std::vector<std::string> TakeFindings() { return std::move(findings_); }

 private:
  void Find(const ProcessInfo& process, const std::string& what) {
    findings_.push_back("process " + Describe(process) + " " + what);
  }
  void Find(const ProcessInfo& process, const Descriptor& descriptor,
            const std::string& what) {
    Find(process,
         "descriptor " + std::to_string(descriptor.number) + " " + what);
  }

  void CollectOpen() {
    for (const ProcessInfo& process : processes_) {
      Result<std::vector<Descriptor>> descriptors =
          ListDescriptors(process.pid);
      if (!descriptors.ok()) continue;  // ended meanwhile
      for (const Descriptor& descriptor : *descriptors) {
        if (S_ISSOCK(descriptor.st.st_mode)) {
          sockets_.insert(descriptor.st.st_ino);
        }
        if (descriptor.st.st_rdev == makedev(TTYAUX_MAJOR, 2)) {
          has_terminal_master_ = true;
        }
      }
      open_[process.pid] = std::move(*descriptors);
    }
  }

  // Everything has to hang below the program.
  void CheckTree() {
    std::set<pid_t> inside;
    for (const ProcessInfo& process : processes_) {
      if (process.pid == scope_.program) inside.insert(process.ns_pid);
      if (inside.count(process.parent_ns_pid) != 0) {
        inside.insert(process.ns_pid);
      } else if (process.parent_ns_pid == 1 && process.state != 'Z' &&
                 process.pid != scope_.program) {
        Find(process,
             "is a daemon (its parent has ended) and no part of the program's "
             "process tree; it has to end first");
      }
    }
  }

  void CheckProcess(const ProcessInfo& process) {
    const std::string tracer = StatusField(process.pid, "TracerPid");
    if (!tracer.empty() && tracer != "0") {
      Find(process, "is being traced by process " + tracer);
    }
    for (const char* name :
         {"pid", "mnt", "net", "ipc", "uts", "user", "cgroup"}) {
      CheckNamespace(process, name, scope_.init);
    }
    // A restored tree has a time namespace of its own.
    CheckNamespace(process, "time", scope_.program);
  }

  void CheckNamespace(const ProcessInfo& process, const char* name,
                      pid_t reference) {
    const Result<std::uint64_t> own = NamespaceInode(process.pid, name);
    const Result<std::uint64_t> expected = NamespaceInode(reference, name);
    if (own.ok() && expected.ok() && *own != *expected) {
      Find(process,
           "is in a namespace (" + std::string(name) + ") that it made itself");
    }
  }

  void CheckDescriptor(const ProcessInfo& process,
                       const Descriptor& descriptor) {
    const mode_t mode = descriptor.st.st_mode;
    if (S_ISSOCK(mode)) {
      const std::string why =
          SocketBlocker(process.pid, descriptor.number, descriptor.st.st_ino,
                        sockets_, scope_.own_socket, scope_.attach_socket);
      if (!why.empty()) Find(process, descriptor, why);
    } else if (StartsWith(descriptor.target, "anon_inode:")) {
      const std::string kind = descriptor.target.substr(11);
      if (std::find(kKnownAnonymous.begin(), kKnownAnonymous.end(), kind) ==
          kKnownAnonymous.end()) {
        Find(process, descriptor, "is " + kind);
      }
    } else if (S_ISCHR(mode)) {
      CheckDevice(process, descriptor);
    } else if (S_ISBLK(mode)) {
      Find(process, descriptor, "is the block device " + descriptor.target);
    } else if (S_ISREG(mode) || S_ISDIR(mode)) {
      CheckFile(process, descriptor);
    }
  }

  void CheckDevice(const ProcessInfo& process, const Descriptor& descriptor) {
    const dev_t device = descriptor.st.st_rdev;
    const unsigned number = major(device);
    if (number == MEM_MAJOR || number == TTY_MAJOR || number == TTYAUX_MAJOR) {
      return;
    }
    if (number >= UNIX98_PTY_SLAVE_MAJOR &&
        number < UNIX98_PTY_SLAVE_MAJOR + 8) {
      const bool ours =
          std::find(scope_.terminals.begin(), scope_.terminals.end(), device) !=
          scope_.terminals.end();
      if (!ours && !has_terminal_master_) {
        Find(process, descriptor,
             "is the terminal " + descriptor.target + " of another program");
      }
      return;
    }
    Find(process, descriptor, "is the device " + descriptor.target);
  }

  void CheckFile(const ProcessInfo& process, const Descriptor& descriptor) {
    if (StartsWith(descriptor.target, "/secretmem")) {
      Find(process, descriptor, "is secret memory (memfd_secret)");
      return;
    }
    if (StartsWith(descriptor.target, "/memfd:")) return;
    for (const std::string& own : scope_.own_files) {
      if (StartsWith(descriptor.target, own)) return;
    }
    const std::string link = "/proc/" + std::to_string(process.pid) + "/fd/" +
                             std::to_string(descriptor.number);
    struct statfs fs {};
    if (::statfs(link.c_str(), &fs) == 0 &&
        static_cast<unsigned long>(fs.f_type) == kMqueueMagic) {
      Find(process, descriptor,
           "is the POSIX message queue " + descriptor.target);
      return;
    }
    const auto allocated =
        static_cast<std::uint64_t>(descriptor.st.st_blocks) * 512;
    if (descriptor.st.st_nlink == 0) {
      if (allocated > kCriuGhostLimitBytes) {
        Find(process, descriptor,
             "is a removed file, " + descriptor.target + ", of " +
                 std::to_string(allocated) + " bytes; removed files of up to " +
                 std::to_string(kCriuGhostLimitBytes) + " bytes can be kept");
      }
      return;
    }
    CheckMount(process, descriptor);
  }

  void CheckMount(const ProcessInfo& process, const Descriptor& descriptor) {
    if (mounts_.empty()) {
      const Result<std::vector<int>> ids = ListMountIds(scope_.init);
      if (!ids.ok()) return;
      mounts_.insert(ids->begin(), ids->end());
    }
    if (descriptor.mount_id >= 0 && !descriptor.target.empty() &&
        descriptor.target[0] == '/' &&
        mounts_.count(descriptor.mount_id) == 0) {
      Find(process, descriptor,
           "(" + descriptor.target +
               ") was opened outside the job and handed to it");
    }
  }

  void CheckMappings(const ProcessInfo& process) {
    const Result<std::vector<Mapping>> mappings = ListMappings(process.pid);
    if (!mappings.ok()) return;
    std::set<std::string> said;
    for (const Mapping& mapping : *mappings) {
      const std::string why = MappingBlocker(mapping);
      if (!why.empty() && said.insert(why).second) Find(process, why);
    }
  }

  static std::string MappingBlocker(const Mapping& mapping) {
    const std::string& target = mapping.target;
    if (StartsWith(target, "anon_inode:"))
      return "has mapped " + target.substr(11);
    if (StartsWith(target, "/SYSV")) {
      return "has attached a System V shared memory segment";
    }
    if (StartsWith(target, "/secretmem")) {
      return "has mapped secret memory (memfd_secret)";
    }
    struct stat st {};
    if (StartsWith(target, "/dev/") && ::stat(target.c_str(), &st) == 0 &&
        S_ISCHR(st.st_mode) && major(st.st_rdev) != MEM_MAJOR) {
      return "has mapped the device " + target;
    }
    return "";
  }

  const PreflightScope& scope_;
  std::vector<ProcessInfo> processes_;
  std::map<pid_t, std::vector<Descriptor>> open_;
  std::set<std::uint64_t> sockets_;
  std::set<int> mounts_;
  bool has_terminal_master_ = false;
  std::vector<std::string> findings_;
};

}  // namespace

Result<std::vector<std::string>> FindBlockers(const PreflightScope& scope) {
  Inspector inspector(scope);
  POS_RETURN_IF_ERROR(inspector.Run());
  return inspector.TakeFindings();
}

Status BlockersToStatus(const std::vector<std::string>& blockers) {
  if (blockers.empty()) return {};
  constexpr std::size_t kShown = 8;
  std::string text = "the job cannot be checkpointed now: ";
  for (std::size_t i = 0; i < blockers.size() && i < kShown; ++i) {
    if (i > 0) text += "; ";
    text += blockers[i];
  }
  if (blockers.size() > kShown) {
    text += "; and " + std::to_string(blockers.size() - kShown) + " more";
  }
  return Incompatible(text,
                      "close these in the program, or checkpoint when "
                      "they are not in use");
}

}  // namespace pos::job
