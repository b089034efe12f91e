#include "pos/daemon/find_devices.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <sstream>
#include <utility>

#include "pos/base/clock.h"
#include "pos/base/fd.h"
#include "pos/base/files.h"

namespace pos {
namespace {

// The model's multiprocessor count: an H200's.
constexpr std::uint32_t kSimMultiprocessors = 132;
constexpr std::uint64_t kProbeMs = 60'000;

// "9.0" → 90. The configuration has checked the form.
std::uint32_t CapabilityOf(const std::string& text) {
  const std::size_t dot = text.find('.');
  return static_cast<std::uint32_t>(std::atoi(text.c_str()) * 10 +
                                    std::atoi(text.c_str() + dot + 1));
}

template <typename T>
T Number(const std::string& text) {
  T value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// Everything that the program writes to its standard output.
Result<std::string> OutputOf(std::vector<std::string> arguments) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  const UniqueFd out(ends[0]);
  UniqueFd in(ends[1]);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in.get(), STDOUT_FILENO);
  pid_t pid = -1;
  const int error =
      ::posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(error, arguments[0]);
  in.Reset();
  std::string text;
  const Deadline until = Deadline::AfterMs(kProbeMs);
  bool ended = false;
  while (!ended && !until.Passed() && text.size() < (64u << 10)) {
    pollfd p{out.get(), POLLIN, 0};
    if (::poll(&p, 1, until.LeftMs()) <= 0) continue;
    std::array<char, 4096> piece;
    const ssize_t n = ::read(out.get(), piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    ended = n <= 0;
    if (n > 0) text.append(piece.data(), static_cast<std::size_t>(n));
  }
  if (!ended) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!ended) return Timeout("the CUDA driver does not answer");
  if (WIFSIGNALED(status)) {
    return Status(Code::kDeviceGone,
                  "the CUDA driver ended its process by signal " +
                      std::to_string(WTERMSIG(status)));
  }
  return text;
}

Result<std::vector<NodeDevice>> ProbeCuda(const conf::Config& config,
                                          const std::string& program_dir) {
  POS_ASSIGN_OR_RETURN(
      const std::string text,
      OutputOf({JoinPath(program_dir, "pos-runner"), "--probe-cuda",
                config.cuda_driver_library()}));
  std::vector<NodeDevice> devices;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::array<std::string, 4> field;
    for (std::string& f : field) std::getline(fields, f, '\t');
    if (line[0] == '!') return NoSuch(field[0].substr(1), field[1]);
    NodeDevice device;
    device.kind = "cuda";
    device.name = field[0];
    const auto memory = Number<std::uint64_t>(field[1]);
    device.memory_bytes =
        memory - std::min(memory, config.cuda_reserve_bytes());
    device.compute_capability = Number<std::uint32_t>(field[2]);
    device.multiprocessors = Number<std::uint32_t>(field[3]);
    device.driver_library = config.cuda_driver_library();
    device.driver_ordinal = static_cast<int>(devices.size());
    devices.push_back(std::move(device));
  }
  if (devices.empty()) return NoSuch("the CUDA driver has no device");
  return devices;
}

void AddSim(const conf::Config& config, std::vector<NodeDevice>* devices) {
  for (std::uint64_t i = 0; i < config.sim_count(); ++i) {
    NodeDevice device;
    device.kind = "sim";
    device.name = "POS Simulated Device";
    device.memory_bytes = config.sim_memory_bytes();
    device.copy_bytes_per_second = config.sim_copy_bandwidth();
    device.compute_threads =
        static_cast<std::uint32_t>(config.sim_compute_threads());
    device.compute_capability = CapabilityOf(config.sim_compute_capability());
    device.multiprocessors = kSimMultiprocessors;
    devices->push_back(std::move(device));
  }
}

}  // namespace

Result<FoundDevices> FindDevices(const conf::Config& config,
                                 const std::string& program_dir) {
  const auto wants = [&config](conf::DeviceKind kind) {
    const auto& kinds = config.devices();
    return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
  };
  const bool any = wants(conf::DeviceKind::kAuto);
  FoundDevices found;
  if (any || wants(conf::DeviceKind::kCuda)) {
    Result<std::vector<NodeDevice>> cuda = ProbeCuda(config, program_dir);
    if (cuda.ok()) {
      found.devices = *std::move(cuda);
      found.why =
          any ? "the host has a CUDA driver with devices" : "as configured";
    } else if (!any) {
      return cuda.status().WithContext("devices: cuda");
    } else {
      found.why = "simulated: " + cuda.status().message();
      if (!cuda.status().hint().empty()) {
        found.why += " (" + cuda.status().hint() + ")";
      }
    }
  }
  if (wants(conf::DeviceKind::kSim) || found.devices.empty()) {
    AddSim(config, &found.devices);
    if (found.why.empty()) found.why = "as configured";
  }
  for (std::size_t i = 0; i < found.devices.size(); ++i) {
    found.devices[i].ordinal = static_cast<int>(i);
  }
  return found;
}

}  // namespace pos
