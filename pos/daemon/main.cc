// posd: the service of one node. Stays in the foreground.
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "conf/config.h"
#include "conf/generate.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/base/version.h"
#include "pos/daemon/find_devices.h"
#include "pos/daemon/service.h"
#include "pos/daemon/settings.h"
#include "pos/daemon/socket_file.h"
#include "pos/daemon/supervisor.h"

namespace pos {
namespace {

constexpr const char* kSystemConfig = "/etc/pos/posd.yaml";
// sun_path without its NUL, less what is appended to the state directory.
constexpr std::size_t kMaxStateDirectory = 107 - 40;

struct Flags {
  std::string state_dir;
  std::string socket;
  std::string config;
  bool keep_jobs = false;
  std::vector<std::string> set;
};

Result<conf::Config> LoadConfig(const Flags& flags) {
  std::vector<conf::Override> overrides;
  for (const std::string& assignment : flags.set) {
    const std::size_t equals = assignment.find('=');
    if (equals == std::string::npos) {
      return Invalid("--set takes NAME=VALUE, not '" + assignment + "'");
    }
    overrides.emplace_back(assignment.substr(0, equals),
                           assignment.substr(equals + 1));
  }
  const auto absolute = [](const std::string& path) {
    return std::filesystem::absolute(path).lexically_normal().string();
  };
  if (!flags.state_dir.empty()) {
    overrides.emplace_back("state_dir", absolute(flags.state_dir));
  }
  if (!flags.socket.empty()) {
    overrides.emplace_back("socket", absolute(flags.socket));
  }
  if (!flags.config.empty()) return conf::Config::Load(flags.config, overrides);
  if (PathExists(kSystemConfig)) {
    return conf::Config::Load(kSystemConfig, overrides);
  }
  return conf::Config::Parse("", "defaults", overrides);
}

// One line to systemd, where it is the parent: sd_notify(3).
void NotifySystemd(const char* state) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::strlen(path);
  if (length >= sizeof(address.sun_path)) return;
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return;
  const auto size =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  (void)::sendto(fd.get(), state, std::strlen(state), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), size);
}

// A session takes about a dozen descriptors.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

int Fail(const Status& status) {
  std::fprintf(stderr, "posd: %s\n", status.message().c_str());
  if (!status.hint().empty()) {
    std::fprintf(stderr, "posd: hint: %s\n", status.hint().c_str());
  }
  return 1;
}

// SIGHUP: all of the new configuration, or none of it.
void Reload(const Flags& flags, conf::Config* config, Supervisor* supervisor) {
  NotifySystemd("RELOADING=1");
  Result<conf::Config> next = LoadConfig(flags);
  Status status = next.status();
  if (status.ok()) status = config->CheckReload(*next);
  if (!status.ok()) {
    POS_LOG(kError, "the configuration stays as it was",
            {{"why", status.message()}});
  } else {
    std::string changed;
    for (const std::string& name : config->Changed(*next)) {
      changed += (changed.empty() ? "" : ", ") + name;
    }
    *config = *std::move(next);
    supervisor->SetTunables(TunablesOf(*config));
    POS_LOG(kInfo, "configuration read again", {{"changed", changed}});
  }
  NotifySystemd("READY=1");
}

// Ends with SIGTERM or SIGINT.
void ServeUntilSignal(const Flags& flags, conf::Config* config,
                      Supervisor* supervisor, const sigset_t& signals) {
  for (;;) {
    int signal = 0;
    if (::sigwait(&signals, &signal) != 0) continue;
    if (signal != SIGHUP) return;
    Reload(flags, config, supervisor);
  }
}

int Main(const Flags& flags) {
  Result<conf::Config> config = LoadConfig(flags);
  if (!config.ok()) return Fail(config.status());
  LogLevel level = LogLevel::kInfo;
  if (!ParseLogLevel(conf::Word(config->log_level()), &level)) {
    return Fail(Internal("log.level has no such word"));
  }
  SetLogLevel(level);
  std::error_code error;
  const std::filesystem::path program =
      std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return Fail(Internal("/proc/self/exe: " + error.message()));
  SupervisorOptions options =
      OptionsOf(*config, program.parent_path().string());
  Result<FoundDevices> found =
      FindDevices(*config, program.parent_path().string());
  if (!found.ok()) return Fail(found.status());
  options.devices = std::move(found->devices);
  options.devices_why = std::move(found->why);
  if (options.state_dir.size() > kMaxStateDirectory) {
    return Fail(Invalid(
        "the state directory's path is too long for sockets "
        "below it: " +
            options.state_dir,
        "at most " + std::to_string(kMaxStateDirectory) + " characters"));
  }
  ControlService::Options service_options;
  service_options.socket_path =
      config->socket().empty() ? DefaultSocketPath() : config->socket();
  const Status made = MakeDirectories(
      std::filesystem::path(service_options.socket_path).parent_path().string(),
      0755);
  if (!made.ok()) return Fail(made);

  Supervisor supervisor(options);
  const Status started = supervisor.Start();
  if (!started.ok()) return Fail(started);
  Result<std::unique_ptr<ControlService>> service =
      ControlService::Start(&supervisor, service_options);
  if (!service.ok()) {
    supervisor.Shutdown(/*keep_jobs=*/true);
    return Fail(service.status());
  }
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    ::sigaddset(&signals, signal);
  }
  std::printf("posd ready\n");
  std::fflush(stdout);
  NotifySystemd("READY=1");
  ServeUntilSignal(flags, &*config, &supervisor, signals);
  NotifySystemd("STOPPING=1");
  POS_LOG(kInfo, "posd ends", {{"keep_jobs", flags.keep_jobs ? "yes" : "no"}});
  supervisor.BeginEnd();
  // Before the service: who waits for a job is told how it ended.
  if (!flags.keep_jobs) supervisor.EndJobs();
  const Status stopped = (*service)->Stop();
  supervisor.Shutdown(flags.keep_jobs);
  if (!stopped.ok()) {
    POS_LOG(kError, "a call did not end", {{"why", stopped.message()}});
    ::_exit(2);
  }
  return 0;
}

}  // namespace
}  // namespace pos

int main(int argc, char** argv) {
  pos::SetLogName("posd");
  // Before any thread, so that all of them leave these to ServeUntilSignal.
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    ::sigaddset(&signals, signal);
  }
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  pos::RaiseDescriptorLimit();

  pos::Flags flags;
  CLI::App app(
      "posd: runs CUDA programs with their GPU state in the service, so that "
      "they can be checkpointed, restored and moved.\n"
      "Stays in the foreground, prints \"posd ready\" when it serves, ends on "
      "SIGTERM, reads its configuration again on SIGHUP.");
  app.add_option("--config", flags.config,
                 "configuration (YAML); /etc/pos/posd.yaml where it exists");
  app.add_option("--state-dir", flags.state_dir,
                 "directory for jobs and images (option state_dir)");
  app.add_option("--socket", flags.socket,
                 "Unix socket for pos-cli (option socket)");
  app.add_flag("--keep-jobs", flags.keep_jobs,
               "at the end, let jobs go on; the next posd takes them over");
  app.add_option("--set", flags.set, "an option of the configuration")
      ->type_name("NAME=VALUE");
  app.set_version_flag("--version", std::string("posd ") + pos::kVersion);
  app.footer("Options of the configuration:\n" + pos::conf::OptionsHelp() +
             "\nExample:\n  posd --state-dir /var/lib/pos --set sim.count=2");
  CLI11_PARSE(app, argc, argv);
  return pos::Main(flags);
}
