#include "pos/cli/image_file.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <filesystem>
#include <utility>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/files.h"

namespace pos::cli {
namespace {

constexpr int kPipeBytes = 1 << 20;
constexpr std::size_t kBufferBytes = 256u << 10;

Status There(const std::string& name) {
  return Exists(name + " is there already", "remove it, or name another file");
}

bool IsRegular(int fd) {
  struct stat st {};
  return ::fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

bool IsFile(int fd, const char* name) {
  struct stat own {};
  struct stat named {};
  return ::fstat(fd, &own) == 0 && ::lstat(name, &named) == 0 &&
         own.st_dev == named.st_dev && own.st_ino == named.st_ino;
}

std::string PartName(const std::string& name) {
  std::array<std::byte, 8> random;
  RandomBytes(random);
  return name + ".part." + std::to_string(::getpid()) + "." + HexBytes(random);
}

}  // namespace

Result<std::unique_ptr<ImageFile>> ImageFile::Create(const std::string& name) {
  std::unique_ptr<ImageFile> file(new ImageFile(name));
  if (name == kStandardStream) {
    if (::isatty(STDOUT_FILENO) != 0) {
      return Invalid("an image is nothing for a terminal",
                     "name a file, or send standard output to one");
    }
    POS_ASSIGN_OR_RETURN(file->fd_, DuplicateFd(STDOUT_FILENO));
    return file;
  }
  struct stat st {};
  if (::stat(name.c_str(), &st) == 0) {
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) return There(name);
    POS_ASSIGN_OR_RETURN(file->fd_, OpenFile(name, O_WRONLY));
    return file;
  }
  std::string directory = std::filesystem::path(name).parent_path().string();
  if (directory.empty()) directory = ".";
  Result<UniqueFd> opened = OpenFile(directory, O_WRONLY | O_TMPFILE, 0600);
  file->kind_ = Kind::kUnnamed;
  if (!opened.ok() && opened.status().code() != Code::kDenied &&
      opened.status().code() != Code::kNoSuch) {
    // The file system knows no files without a name.
    file->kind_ = Kind::kAsItIs;  // nothing to remove yet
    file->part_name_ = PartName(name);
    opened = OpenFile(file->part_name_, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (opened.ok()) file->kind_ = Kind::kPart;
  }
  POS_RETURN_IF_ERROR(opened.status());
  file->fd_ = std::move(*opened);
  return file;
}

ImageFile::~ImageFile() {
  if (kind_ == Kind::kPart && !published_) {
    RemoveFile(part_name_).IgnoreError();
  }
}

// NFS, CephFS and most of FUSE answer EINVAL to the flag of renameat2(2); FAT
// and some of FUSE have no links.
int ImageFile::PublishPart() {
  const char* const part = part_name_.c_str();
  const char* const name = name_.c_str();
  if (::renameat2(AT_FDCWD, part, AT_FDCWD, name, RENAME_NOREPLACE) == 0) {
    return 0;
  }
  if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) return errno;
  // The answer to a link that was made can get lost on its way (open(2),
  // O_EXCL): the file itself knows.
  const int error = ::link(part, name) == 0 ? 0 : errno;
  if (error == 0 || (error == EEXIST && IsFile(fd_.get(), name))) {
    // The image is there: that it has a second name is no failure.
    ::unlink(part);
    return 0;
  }
  const bool links = error != EPERM && error != ENOSYS && error != EINVAL &&
                     error != EOPNOTSUPP;
  if (links) return error;
  struct stat st {};
  if (::lstat(name, &st) == 0) return EEXIST;
  if (errno != ENOENT) return errno;
  return ::rename(part, name) == 0 ? 0 : errno;
}

Status ImageFile::Publish() {
  if (kind_ == Kind::kAsItIs) {
    if (IsRegular(fd_.get()) && ::fsync(fd_.get()) != 0) {
      return ErrnoStatus(errno, name_);
    }
    return {};
  }
  if (::fsync(fd_.get()) != 0) return ErrnoStatus(errno, name_);
  int error = 0;
  if (kind_ == Kind::kUnnamed) {
    const std::string own = "/proc/self/fd/" + std::to_string(fd_.get());
    if (::linkat(AT_FDCWD, own.c_str(), AT_FDCWD, name_.c_str(),
                 AT_SYMLINK_FOLLOW) != 0) {
      error = errno;
    }
  } else {
    error = PublishPart();
  }
  if (error != 0) {
    return error == EEXIST ? There(name_) : ErrnoStatus(error, name_);
  }
  published_ = true;
  std::string directory = std::filesystem::path(name_).parent_path().string();
  return SyncDirectory(directory.empty() ? "." : directory);
}

Result<UniqueFd> OpenImageFile(const std::string& name) {
  if (name == kStandardStream) return DuplicateFd(STDIN_FILENO);
  POS_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(name, O_RDONLY));
  struct stat st {};
  if (::fstat(fd.get(), &st) == 0 && S_ISDIR(st.st_mode)) {
    return Invalid(name + " is a directory");
  }
  return fd;
}

std::uint64_t RegularFileBytes(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return 0;
  return static_cast<std::uint64_t>(st.st_size);
}

Result<Pipe> MakePipe() {
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  Pipe pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
  ::fcntl(pipe.write.get(), F_SETPIPE_SZ, kPipeBytes);  // else it is smaller
  return pipe;
}

struct Pump::State {
  UniqueFd pipe;
  int file = -1;
  bool to_pipe = false;
  UniqueFd stop;  // readable: the copy is not wanted any more
  std::uint64_t bytes = 0;
  Status status;

  // Until `fd` has one of `events`. False: stopped, or with `watch_pipe`, the
  // pipe's reader is gone.
  [[nodiscard]] bool Await(int fd, short events, bool watch_pipe) const {
    std::array<pollfd, 3> polled = {pollfd{fd, events, 0},
                                    pollfd{stop.get(), POLLIN, 0},
                                    pollfd{watch_pipe ? pipe.get() : -1, 0, 0}};
    for (;;) {
      const int n = ::poll(polled.data(), polled.size(), -1);
      if (n < 0 && errno != EINTR) return false;
      if (n <= 0) continue;
      if ((polled[1].revents | polled[2].revents) != 0) return false;
      return true;
    }
  }

  // Everything of `data`. False: stopped, or `result` has the error.
  bool Write(int fd, std::span<const std::byte> data, Status* result) {
    // A write of up to PIPE_BUF to a pipe that is writable does not block.
    const bool regular = IsRegular(fd);
    while (!data.empty()) {
      if (!regular && !Await(fd, POLLOUT, false)) return false;
      const std::size_t most =
          regular ? data.size() : std::min<std::size_t>(data.size(), PIPE_BUF);
      const ssize_t n = ::write(fd, data.data(), most);
      if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (n < 0) {
        *result = ErrnoStatus(errno, "write");
        return false;
      }
      data = data.subspan(static_cast<std::size_t>(n));
    }
    return true;
  }

  void Run() {
    // A reader that is gone is an error of write(2).
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::vector<std::byte> buffer(kBufferBytes);
    const int from = to_pipe ? file : pipe.get();
    const bool waits = !IsRegular(from);
    for (;;) {
      if (waits && !Await(from, POLLIN, to_pipe)) break;
      const Result<std::size_t> n = ReadSome(from, buffer, "read");
      if (!n.ok()) {
        status = n.status();
        break;
      }
      if (*n == 0) break;
      Status written;
      const bool whole = Write(to_pipe ? pipe.get() : file,
                               std::span(buffer).first(*n), &written);
      // That nobody reads the pipe is for posd to explain.
      if (!to_pipe) status = written;
      if (!whole) break;
      bytes += *n;
    }
    pipe.Reset();  // the other side sees the end
  }
};

Pump::Pump(std::unique_ptr<State> state) : state_(std::move(state)) {
  state_->stop = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  thread_ = std::thread([s = state_.get()] { s->Run(); });
}

Pump Pump::FromPipe(UniqueFd pipe, int file) {
  auto state = std::make_unique<State>();
  state->pipe = std::move(pipe);
  state->file = file;
  return Pump(std::move(state));
}

Pump Pump::ToPipe(int file, UniqueFd pipe) {
  auto state = std::make_unique<State>();
  state->pipe = std::move(pipe);
  state->file = file;
  state->to_pipe = true;
  return Pump(std::move(state));
}

Pump::~Pump() {
  if (thread_.joinable()) Finish(true).status().IgnoreError();
}

Result<std::uint64_t> Pump::Finish(bool stop) {
  if (stop) ::eventfd_write(state_->stop.get(), 1);
  thread_.join();
  POS_RETURN_IF_ERROR(state_->status);
  return state_->bytes;
}

}  // namespace pos::cli
