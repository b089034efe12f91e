#include "pos/job/stdio.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "pos/base/files.h"

namespace pos::job {
namespace {

constexpr gid_t kTtyGroup = 5;  // Debian's fixed id of group tty

bool IsTerminal(const UniqueFd& fd) {
  return fd.valid() && ::isatty(fd.get()) == 1;
}

bool IsNull(const UniqueFd& fd) {
  struct stat st {};
  return ::fstat(fd.get(), &st) == 0 && S_ISCHR(st.st_mode) &&
         st.st_rdev == makedev(1, 3);
}

bool SameFile(const UniqueFd& a, const UniqueFd& b) {
  struct stat sa {};
  struct stat sb {};
  return ::fstat(a.get(), &sa) == 0 && ::fstat(b.get(), &sb) == 0 &&
         sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

winsize ToWinsize(const WindowSize& window) {
  winsize size{};
  size.ws_row = static_cast<unsigned short>(window.rows());
  size.ws_col = static_cast<unsigned short>(window.columns());
  size.ws_xpixel = static_cast<unsigned short>(window.x_pixels());
  size.ws_ypixel = static_cast<unsigned short>(window.y_pixels());
  return size;
}

}  // namespace

JobStdio::JobStdio(EventLoop* loop, LogFile* log, const Stdio& options,
                   GoneHandler gone)
    : loop_(loop), log_(log), options_(options), gone_(std::move(gone)) {}

Status JobStdio::AddPipe(bool to_job, std::uint32_t streams, uid_t uid,
                         gid_t gid) {
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  UniqueFd read_end(fds[0]);
  UniqueFd write_end(fds[1]);
  Endpoint endpoint;
  endpoint.kind =
      to_job ? StdioEndpoint::PIPE_TO_JOB : StdioEndpoint::PIPE_FROM_JOB;
  endpoint.streams = streams;
  endpoint.ours = std::move(to_job ? write_end : read_end);
  endpoint.job_side = std::move(to_job ? read_end : write_end);
  struct stat st {};
  if (::fstat(endpoint.ours.get(), &st) != 0) return ErrnoStatus(errno, "pipe");
  endpoint.key = "pipe:[" + std::to_string(st.st_ino) + "]";
  // Fails only without privilege, and then the user is our own.
  if (::fchown(endpoint.job_side.get(), uid, gid) != 0 && errno != EPERM) {
    return ErrnoStatus(errno, "change the owner of a pipe");
  }
  POS_RETURN_IF_ERROR(SetNonBlocking(endpoint.ours.get(), true));
  endpoints_.push_back(std::move(endpoint));
  return {};
}

Status JobStdio::AddTerminal(std::uint32_t streams, uid_t uid, gid_t gid) {
  static_cast<void>(gid);
  Endpoint endpoint;
  endpoint.kind = StdioEndpoint::TERMINAL;
  endpoint.streams = streams;
  endpoint.ours.Reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  std::array<char, 64> name{};
  if (!endpoint.ours.valid() || ::unlockpt(endpoint.ours.get()) != 0 ||
      ::ptsname_r(endpoint.ours.get(), name.data(), name.size()) != 0) {
    return ErrnoStatus(errno, "make a pseudo-terminal");
  }
  endpoint.slave_path = name.data();
  struct stat st {};
  if (::stat(name.data(), &st) != 0) return ErrnoStatus(errno, name.data());
  std::array<char, 64> key{};
  std::snprintf(key.data(), key.size(), "tty[%x:%x]",
                static_cast<unsigned>(st.st_rdev),
                static_cast<unsigned>(st.st_dev));
  endpoint.key = key.data();
  endpoint.slave_device = st.st_rdev;
  if (::chown(name.data(), uid, kTtyGroup) != 0 && errno != EPERM) {
    return ErrnoStatus(errno, "change the owner of a terminal");
  }
  ::chmod(name.data(), 0620);
  POS_RETURN_IF_ERROR(SetNonBlocking(endpoint.ours.get(), true));
  endpoints_.push_back(std::move(endpoint));
  return {};
}

// Settings and size of the caller's terminal. A terminal that the caller has
// already switched to raw mode says nothing about what programs expect.
void JobStdio::SetTerminal(int master, const CallerFds& caller) {
  for (const UniqueFd& fd : caller) {
    if (!IsTerminal(fd)) continue;
    termios settings{};
    if (::tcgetattr(fd.get(), &settings) == 0 &&
        (settings.c_lflag & ICANON) != 0) {
      ::tcsetattr(master, TCSANOW, &settings);
    }
    winsize size{};
    if (!options_.has_window() && ::ioctl(fd.get(), TIOCGWINSZ, &size) == 0) {
      ::ioctl(master, TIOCSWINSZ, &size);
    }
    break;
  }
  if (options_.has_window()) {
    const winsize size = ToWinsize(options_.window());
    ::ioctl(master, TIOCSWINSZ, &size);
  }
}

Status JobStdio::CreateNew(CallerFds caller, uid_t uid, gid_t gid) {
  std::uint32_t terminal = 0;
  for (std::uint32_t stream = 0; stream < 3; ++stream) {
    if (IsTerminal(caller[stream])) terminal |= 1u << stream;
  }
  if (terminal != 0) {
    POS_RETURN_IF_ERROR(AddTerminal(terminal, uid, gid));
    SetTerminal(endpoints_.back().ours.get(), caller);
  }
  if ((terminal & kStdinBit) == 0 && caller[0].valid() && !IsNull(caller[0])) {
    POS_RETURN_IF_ERROR(AddPipe(true, kStdinBit, uid, gid));
  }
  const bool out = (terminal & kStdoutBit) == 0;
  const bool err = (terminal & kStderrBit) == 0;
  // One pipe keeps the order of what goes to one place.
  const bool together = out && err && caller[1].valid() == caller[2].valid() &&
                        (!caller[1].valid() || SameFile(caller[1], caller[2]));
  if (out) {
    POS_RETURN_IF_ERROR(AddPipe(
        false, together ? kStdoutBit | kStderrBit : kStdoutBit, uid, gid));
  }
  if (err && !together) {
    POS_RETURN_IF_ERROR(AddPipe(false, kStderrBit, uid, gid));
  }
  ConnectPumps(std::move(caller), "");
  return {};
}

Status JobStdio::CreateFromImage(const JobImage& image, CallerFds caller) {
  for (const StdioEndpoint& from : image.endpoint()) {
    if (from.kind() == StdioEndpoint::TERMINAL) {
      POS_RETURN_IF_ERROR(
          AddTerminal(from.streams(), image.uid(), image.gid()));
      const int master = endpoints_.back().ours.get();
      termios settings{};
      if (from.termios().size() == sizeof(settings)) {
        std::memcpy(&settings, from.termios().data(), sizeof(settings));
        ::tcsetattr(master, TCSANOW, &settings);
      }
      const winsize size =
          ToWinsize(options_.has_window() ? options_.window() : from.window());
      ::ioctl(master, TIOCSWINSZ, &size);
    } else {
      POS_RETURN_IF_ERROR(AddPipe(from.kind() == StdioEndpoint::PIPE_TO_JOB,
                                  from.streams(), image.uid(), image.gid()));
    }
    endpoints_.back().image_key = from.key();
    endpoints_.back().closed = from.closed();
  }
  ConnectPumps(std::move(caller), image.stdin_pending());
  return {};
}

void JobStdio::ConnectPumps(CallerFds caller,
                            const std::string& stdin_pending) {
  // Outputs first: a terminal's output may need the descriptor of an input.
  for (Endpoint& endpoint : endpoints_) {
    if (endpoint.kind != StdioEndpoint::PIPE_TO_JOB) {
      ConnectOutput(&endpoint, &caller);
    }
  }
  for (Endpoint& endpoint : endpoints_) {
    if ((endpoint.streams & kStdinBit) != 0) {
      ConnectInput(&endpoint, &caller, stdin_pending);
    }
  }
}

void JobStdio::ConnectOutput(Endpoint* endpoint, CallerFds* caller) {
  const bool terminal = endpoint->kind == StdioEndpoint::TERMINAL;
  int stream = -1;
  for (const int candidate : {1, 2, 0}) {
    const bool serves =
        (endpoint->streams & (1u << static_cast<unsigned>(candidate))) != 0;
    const UniqueFd& fd = (*caller)[static_cast<std::size_t>(candidate)];
    // What a terminal echoes goes to the terminal that typed it.
    if (serves && fd.valid() && (candidate != 0 || IsTerminal(fd))) {
      stream = candidate;
      break;
    }
  }
  CallerFd sink;
  if (stream >= 0) {
    Result<UniqueFd> copy =
        DuplicateFd((*caller)[static_cast<std::size_t>(stream)].get());
    if (copy.ok()) {
      sink = CallerFd::Open(std::move(*copy), CallerFd::Direction::kWrite);
    }
  }
  OutputPump::Options options;
  options.log_attached = options_.log_attached();
  options.break_pipe = options_.caller_gone() == Stdio::BREAK_PIPE;
  options.terminal = terminal;
  UniqueFd source = std::move(endpoint->ours);
  if (terminal) {  // the input writes to the same master
    Result<UniqueFd> copy = DuplicateFd(source.get());
    if (copy.ok()) endpoint->ours = std::move(*copy);
  }
  if (endpoint->closed) source.Reset();
  endpoint->output = std::make_unique<OutputPump>(
      loop_, std::move(source), std::move(sink), log_, options,
      [this, stream](const std::string& why) {
        if (gone_) gone_(stream, why);
      });
}

void JobStdio::ConnectInput(Endpoint* endpoint, CallerFds* caller,
                            const std::string& first) {
  const bool terminal = endpoint->kind == StdioEndpoint::TERMINAL;
  CallerFd source;
  if ((*caller)[0].valid() && !endpoint->closed) {
    source =
        CallerFd::Open(std::move((*caller)[0]), CallerFd::Direction::kRead);
  }
  UniqueFd sink;
  UniqueFd probe;
  Result<UniqueFd> copy =
      DuplicateFd(terminal ? endpoint->ours.get() : endpoint->job_side.get());
  if (terminal) {
    if (copy.ok()) sink = std::move(*copy);
  } else {
    sink = std::move(endpoint->ours);
    if (copy.ok()) probe = std::move(*copy);
  }
  endpoint->input = std::make_unique<InputPump>(
      loop_, std::move(sink), std::move(probe), terminal, std::move(source),
      options_.stdin_paused(), terminal ? "" : first);
}

std::vector<JobEnd> JobStdio::JobSide() const {
  std::vector<JobEnd> ends;
  for (const Endpoint& endpoint : endpoints_) {
    ends.push_back({endpoint.kind, endpoint.streams, endpoint.job_side.get(),
                    endpoint.slave_path, endpoint.image_key});
  }
  return ends;
}

void JobStdio::CloseJobSide() {
  for (Endpoint& endpoint : endpoints_) endpoint.job_side.Reset();
}

void JobStdio::Start() {
  for (Endpoint& endpoint : endpoints_) {
    if (endpoint.output) endpoint.output->Start();
    if (endpoint.input) endpoint.input->Start();
  }
}

void JobStdio::SetWindow(const WindowSize& window) {
  const winsize size = ToWinsize(window);
  for (const Endpoint& endpoint : endpoints_) {
    if (endpoint.kind == StdioEndpoint::TERMINAL) {
      ::ioctl(endpoint.ours.get(), TIOCSWINSZ, &size);
    }
  }
}

void JobStdio::SetReading(bool reading) {
  for (Endpoint& endpoint : endpoints_) {
    if (endpoint.input) endpoint.input->SetReading(reading);
  }
}

void JobStdio::DetachCaller() {
  for (Endpoint& endpoint : endpoints_) {
    if (endpoint.output) endpoint.output->DetachCaller();
    if (endpoint.input) endpoint.input->DetachCaller();
  }
}

void JobStdio::Drain() {
  for (Endpoint& endpoint : endpoints_) {
    if (endpoint.output) endpoint.output->Drain();
  }
}

void JobStdio::Finish() {
  for (Endpoint& endpoint : endpoints_) {
    if (endpoint.output) endpoint.output->Finish();
  }
}

void JobStdio::Describe(JobImage* image) const {
  for (const Endpoint& endpoint : endpoints_) {
    StdioEndpoint* to = image->add_endpoint();
    to->set_kind(endpoint.kind);
    to->set_key(endpoint.key);
    to->set_streams(endpoint.streams);
    if (endpoint.kind == StdioEndpoint::PIPE_TO_JOB) {
      to->set_closed(endpoint.input->ended());
      image->set_stdin_pending(endpoint.input->Pending());
    } else if (endpoint.kind == StdioEndpoint::PIPE_FROM_JOB) {
      to->set_closed(endpoint.output->broken() || endpoint.closed);
    } else {
      termios settings{};
      if (::tcgetattr(endpoint.ours.get(), &settings) == 0) {
        to->set_termios(&settings, sizeof(settings));
      }
      winsize size{};
      if (::ioctl(endpoint.ours.get(), TIOCGWINSZ, &size) == 0) {
        to->mutable_window()->set_rows(size.ws_row);
        to->mutable_window()->set_columns(size.ws_col);
        to->mutable_window()->set_x_pixels(size.ws_xpixel);
        to->mutable_window()->set_y_pixels(size.ws_ypixel);
      }
    }
  }
}

std::vector<std::string> JobStdio::TerminalKeys() const {
  std::vector<std::string> keys;
  for (const Endpoint& endpoint : endpoints_) {
    if (endpoint.kind == StdioEndpoint::TERMINAL) keys.push_back(endpoint.key);
  }
  return keys;
}

std::vector<dev_t> JobStdio::TerminalDevices() const {
  std::vector<dev_t> devices;
  for (const Endpoint& endpoint : endpoints_) {
    if (endpoint.kind == StdioEndpoint::TERMINAL) {
      devices.push_back(endpoint.slave_device);
    }
  }
  return devices;
}

bool JobStdio::has_terminal() const { return !TerminalKeys().empty(); }

bool JobStdio::attached() const {
  for (const Endpoint& endpoint : endpoints_) {
    if (endpoint.output && endpoint.output->attached()) return true;
  }
  return false;
}

bool JobStdio::finished() const {
  for (const Endpoint& endpoint : endpoints_) {
    if (endpoint.output &&
        (!endpoint.output->ended() || !endpoint.output->delivered())) {
      return false;
    }
  }
  return true;
}

std::uint64_t JobStdio::taken_bytes() const {
  std::uint64_t taken = 0;
  for (const Endpoint& endpoint : endpoints_) {
    if (endpoint.output) taken += endpoint.output->taken_bytes();
  }
  return taken;
}

}  // namespace pos::job
