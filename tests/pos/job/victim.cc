// The program that the tests' jobs run: `victim WHAT ARGS…`. Writes lines to
// standard output, each with one write, so that nothing is lost in a buffer.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

using Args = std::vector<std::string>;

__attribute__((format(printf, 1, 2))) void Say(const char* format, ...) {
  std::array<char, 4096> line;
  va_list args;
  va_start(args, format);
  const int n = std::vsnprintf(line.data(), line.size(), format, args);
  va_end(args);
  [[maybe_unused]] const ssize_t ignored =
      ::write(1, line.data(), static_cast<std::size_t>(n));
}

void Nap(long ms) {
  timespec left{ms / 1000, (ms % 1000) * 1000000};
  while (::nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

double Monotonic() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) +
         static_cast<double>(now.tv_nsec) / 1e9;
}

volatile std::sig_atomic_t g_signal = 0;
void Remember(int number) { g_signal = number; }

int Exit(const Args& args) { return std::atoi(args.at(0).c_str()); }

int Die(const Args& args) {
  ::raise(std::atoi(args.at(0).c_str()));
  return 99;
}

int Print(const Args& args) {
  for (const std::string& arg : args) Say("%s\n", arg.c_str());
  return 0;
}

// Standard input to standard output until its end.
int Cat(const Args&) {
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t n = ::read(0, buffer.data(), buffer.size());
    if (n <= 0) break;
    if (::write(1, buffer.data(), static_cast<std::size_t>(n)) != n) return 1;
  }
  Say("end of input\n");
  return 0;
}

// Says what it is, one "key value" per line.
int Whoami(const Args&) {
  std::array<char, 4096> text{};
  Say("pid %d ppid %d sid %d pgid %d\n", ::getpid(), ::getppid(), ::getsid(0),
      ::getpgid(0));
  Say("uid %d %d gid %d %d\n", ::getuid(), ::geteuid(), ::getgid(),
      ::getegid());
  std::array<gid_t, 64> groups{};
  const int count = ::getgroups(static_cast<int>(groups.size()), groups.data());
  std::string list;
  for (int i = 0; i < count; ++i) {
    list += " " + std::to_string(groups[static_cast<std::size_t>(i)]);
  }
  Say("groups%s\n", list.c_str());
  Say("cwd %s\n", ::getcwd(text.data(), text.size()));
  const mode_t mask = ::umask(0);
  Say("umask %03o\n", mask);
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  Say("nofile %lu %lu\n", limit.rlim_cur, limit.rlim_max);
  const char* value = std::getenv("POS_TEST_VALUE");
  Say("env %s\n", value != nullptr ? value : "(none)");
  sigset_t blocked;
  ::sigprocmask(SIG_BLOCK, nullptr, &blocked);
  int odd = 0;
  for (int number = 1; number < 32; ++number) {
    struct sigaction action {};
    if (::sigaction(number, nullptr, &action) == 0 &&
        (action.sa_handler != SIG_DFL ||
         ::sigismember(&blocked, number) == 1)) {
      ++odd;
    }
  }
  Say("odd signals %d\n", odd);
  std::string open;
  for (int fd = 0; fd < 1024; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) open += " " + std::to_string(fd);
  }
  Say("open%s\n", open.c_str());
  winsize size{};
  ::ioctl(1, TIOCGWINSZ, &size);
  Say("tty %d %d %d window %d %d\n", ::isatty(0), ::isatty(1), ::isatty(2),
      size.ws_row, size.ws_col);
  const int tty = ::open("/dev/tty", O_RDWR);
  Say("controlling %d\n", tty >= 0 ? 1 : 0);
  return 0;
}

// Counts, once per PERIOD ms, until END is reached (0: for ever). Each line:
// number, pid, parent, monotonic clock, last signal.
int Count(const Args& args) {
  const long period = std::atol(args.at(0).c_str());
  const long end = args.size() > 1 ? std::atol(args[1].c_str()) : 0;
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGWINCH, SIGHUP}) {
    std::signal(number, Remember);
  }
  for (long i = 0; end == 0 || i < end; ++i) {
    Say("count %ld pid %d parent %d clock %.3f signal %d\n", i, ::getpid(),
        ::getppid(), Monotonic(), static_cast<int>(g_signal));
    Nap(period);
  }
  return 42;
}

// A child that outlives its parent, then waits to be told to end.
int Orphan(const Args&) {
  const pid_t middle = ::fork();
  if (middle == 0) {
    if (::fork() == 0) {
      const pid_t before = ::getppid();
      while (::getppid() == before) Nap(5);
      Say("orphan %d of %d\n", ::getpid(), ::getppid());
      for (;;) Nap(1000);
    }
    Nap(20);
    ::_exit(0);
  }
  ::waitpid(middle, nullptr, 0);
  Say("middle is gone\n");
  for (;;) Nap(1000);
}

// Leaves a process behind.
int Abandon(const Args&) {
  if (::fork() == 0) {
    ::setsid();
    for (;;) Nap(1000);
  }
  return 7;
}

// A tree: a child and a grandchild with a shared page, pipes between them, and
// three threads in the root. Prints the sum of what everybody counted.
int Tree(const Args&) {
  void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* counters = static_cast<std::atomic<long>*>(page);
  const auto work = [counters](int at) {
    for (;;) {
      ++counters[at];
      Nap(2);
    }
  };
  if (::fork() == 0) {
    if (::fork() == 0) work(1);
    work(0);
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back(work, 2 + i);
  for (long i = 0;; ++i) {
    Say("tree %ld: %ld %ld %ld %ld %ld\n", i, counters[0].load(),
        counters[1].load(), counters[2].load(), counters[3].load(),
        counters[4].load());
    Nap(20);
  }
}

// Has a removed file open and mapped, a removed file with another name, a lock
// on a file, and a file that it keeps appending to by its offset.
int Files(const Args& args) {
  const std::string& dir = args.at(0);
  const auto make = [&dir](const char* name, int flags) {
    return ::open((dir + "/" + name).c_str(), flags, 0644);
  };
  const int ghost = make("ghost", O_RDWR | O_CREAT);
  [[maybe_unused]] ssize_t ignored = ::write(ghost, "ghostly content", 15);
  ::ftruncate(ghost, 4096);
  auto* mapped = static_cast<char*>(
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ghost, 0));
  ::unlink((dir + "/ghost").c_str());
  const int linked = make("linked", O_RDWR | O_CREAT);
  ignored = ::write(linked, "linked", 6);
  ::link((dir + "/linked").c_str(), (dir + "/other").c_str());
  ::unlink((dir + "/linked").c_str());
  const int lock = make("lock", O_RDWR | O_CREAT);
  ::flock(lock, LOCK_EX);
  const int out = make("out", O_WRONLY | O_CREAT);
  const int append = make("append", O_WRONLY | O_CREAT | O_APPEND);
  for (long i = 0;; ++i) {
    std::array<char, 32> line;
    const int n = std::snprintf(line.data(), line.size(), "line %04ld\n", i);
    ignored = ::write(out, line.data(), static_cast<std::size_t>(n));
    ignored = ::write(append, line.data(), static_cast<std::size_t>(n));
    std::array<char, 7> content{};
    ignored = ::pread(linked, content.data(), 6, 0);
    Say("files %ld ghost %.15s linked %s\n", i, mapped, content.data());
    Nap(20);
  }
}

// Waits for a word in its memory; prints where it is.
int Word(const Args&) {
  static std::atomic<unsigned> word{0x11111111};
  Say("word at %p\n", static_cast<void*>(&word));
  unsigned seen = 0x11111111;
  while ((seen = word.load()) == 0x11111111) Nap(2);
  Say("word is %08x\n", seen);
  return 0;
}

// Writes BYTES bytes as fast as it can, then says so on standard error.
int Flood(const Args& args) {
  long left = std::atol(args.at(0).c_str());
  std::vector<char> block(65536, 'x');
  while (left > 0) {
    const auto want = static_cast<std::size_t>(std::min(left, 65536L));
    const ssize_t n = ::write(1, block.data(), want);
    if (n < 0) return errno == EPIPE ? 32 : 1;
    left -= n;
  }
  const char done[] = "flooded\n";
  [[maybe_unused]] const ssize_t n = ::write(2, done, sizeof(done) - 1);
  return 0;
}

// Uses MEGABYTES of memory and counts.
int Memory(const Args& args) {
  const std::size_t bytes =
      static_cast<std::size_t>(std::atol(args.at(0).c_str())) << 20;
  std::vector<char> memory(bytes, 'm');
  for (std::size_t i = 0; i < bytes; i += 4096) {
    memory[i] = static_cast<char>(std::rand());
  }
  return Count({"20"});
}

// Maps PATH shared and says its first bytes again and again.
int Mapped(const Args& args) {
  const int fd = ::open(args.at(0).c_str(), O_RDWR);
  const auto* page = static_cast<const char*>(
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ::close(fd);
  for (long i = 0;; ++i) {
    Say("mapped %ld %.16s\n", i, page);
    Nap(20);
  }
}

// Things that CRIU cannot carry, one of them per run; then counts.

int Connected(const Args&) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  ::bind(listener, generic, size);
  ::listen(listener, 1);
  ::getsockname(listener, generic, &size);
  const int client = ::socket(AF_INET, SOCK_STREAM, 0);
  if (::connect(client, generic, size) != 0) return 1;
  ::accept(listener, nullptr, nullptr);
  return Count({"5"});
}

// A socket of the given kind, connected to a server at PATH.
int UnixPeer(const Args& args) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof(address.sun_path), "%s",
                args.at(0).c_str());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) !=
      0) {
    return 1;
  }
  return Count({"5"});
}

int IoUring(const Args&) {
  std::array<char, 512> params{};
  if (::syscall(SYS_io_uring_setup, 4, params.data()) < 0) return 77;
  return Count({"5"});
}

int UserFault(const Args&) {
  if (::syscall(SYS_userfaultfd, O_CLOEXEC) < 0) return 77;
  return Count({"5"});
}

int Device(const Args& args) {
  if (::open(args.at(0).c_str(), O_RDWR) < 0) return 77;
  return Count({"5"});
}

int SharedSegment(const Args&) {
  const int id = ::shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
  if (::shmat(id, nullptr, 0) == nullptr) return 77;
  ::shmctl(id, IPC_RMID, nullptr);
  return Count({"5"});
}

int Namespace(const Args&) {
  if (::unshare(CLONE_NEWUTS) != 0) return 77;
  return Count({"5"});
}

// The parent traces its child.
int Traced(const Args&) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (;;) Nap(1000);
  }
  if (::ptrace(PTRACE_SEIZE, child, nullptr, nullptr) != 0) return 77;
  return Count({"5"});
}

// Takes one descriptor from a connection to PATH, and keeps it.
int Receive(const Args& args) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof(address.sun_path), "%s",
                args.at(0).c_str());
  const int listener = ::socket(AF_UNIX, SOCK_SEQPACKET, 0);
  ::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  ::listen(listener, 1);
  Say("listening\n");
  const int connection = ::accept(listener, nullptr, nullptr);
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) std::array<char, 64> control{};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  if (::recvmsg(connection, &header, 0) != 1) return 1;
  ::close(connection);
  ::close(listener);
  Say("received\n");
  for (;;) Nap(1000);
}

// What CRIU can carry: none of it is to be named.
int Harmless(const Args& args) {
  ::eventfd(0, 0);
  ::epoll_create1(0);
  ::timerfd_create(CLOCK_MONOTONIC, 0);
  sigset_t signals;
  ::sigemptyset(&signals);
  ::signalfd(-1, &signals, 0);
  ::inotify_init();
  ::memfd_create("memory", 0);
  std::array<int, 2> pair{};
  ::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data());
  ::pipe(pair.data());
  ::socket(AF_INET, SOCK_DGRAM, 0);
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  ::listen(listener, 1);
  ::open("/dev/null", O_RDWR);
  ::open("/dev/urandom", O_RDONLY);
  ::open(args.at(0).c_str(), O_RDONLY | O_DIRECTORY);
  ::syscall(SYS_pidfd_open, ::getpid(), 0);
  return Count({"5"});
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, int (*)(const Args&)> kinds = {
      {"exit", Exit},     {"die", Die},           {"print", Print},
      {"cat", Cat},       {"whoami", Whoami},     {"count", Count},
      {"orphan", Orphan}, {"abandon", Abandon},   {"tree", Tree},
      {"files", Files},   {"word", Word},         {"flood", Flood},
      {"memory", Memory}, {"mapped", Mapped},     {"connected", Connected},
      {"unix", UnixPeer}, {"io_uring", IoUring},  {"userfault", UserFault},
      {"device", Device}, {"shm", SharedSegment}, {"namespace", Namespace},
      {"traced", Traced}, {"harmless", Harmless}, {"receive", Receive}};
  if (argc < 2 || kinds.count(argv[1]) == 0) return 98;
  return kinds.at(argv[1])(Args(argv + 2, argv + argc));
}
