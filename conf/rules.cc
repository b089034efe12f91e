#include "conf/rules.h"

#include <algorithm>
#include <optional>

namespace pos::conf {
namespace {

using Wrong =
    std::function<void(std::string_view option, const std::string& why)>;

// User space of x86-64 with four levels of page tables.
constexpr std::uint64_t kAddressEnd = 0x7ffffffff000;
// sun_path, with its final NUL.
constexpr std::size_t kMaxSocketPath = 108;

void CheckDevices(const Values& v, const std::set<std::string_view>& given,
                  const Wrong& wrong) {
  const auto has = [&v](DeviceKind kind) {
    return std::find(v.devices.begin(), v.devices.end(), kind) !=
           v.devices.end();
  };
  if (has(DeviceKind::kAuto) && v.devices.size() > 1) {
    wrong("devices", "auto stands alone");
  }
  for (const std::string_view option : given) {
    if (option.starts_with("sim.") && !has(DeviceKind::kSim) &&
        !has(DeviceKind::kAuto)) {
      wrong(option, "is set, but devices has no sim");
    }
    if (option.starts_with("cuda.") && !has(DeviceKind::kCuda) &&
        !has(DeviceKind::kAuto)) {
      wrong(option, "is set, but devices has no cuda");
    }
  }
  const std::string& cc = v.sim_compute_capability;
  const std::size_t dot = cc.find('.');
  const auto number = [](std::string_view text) {
    return !text.empty() && text.size() <= 2 &&
           text.find_first_not_of("0123456789") == std::string_view::npos;
  };
  if (dot == std::string::npos ||
      !number(std::string_view(cc).substr(0, dot)) ||
      !number(std::string_view(cc).substr(dot + 1))) {
    wrong("sim.compute_capability",
          "must be major.minor such as \"9.0\", not '" + cc + "'");
  }
}

void CheckAddresses(const Values& v, const Wrong& wrong) {
  if (v.arena_bytes > kAddressEnd - v.arena_base) {
    wrong("arena.bytes", "the arena ends above the last address of programs, " +
                             FormatAddress(kAddressEnd));
  }
  if (v.host_window_bytes > kAddressEnd - v.host_window_base) {
    wrong("host_window.bytes",
          "the window ends above the last address of programs, " +
              FormatAddress(kAddressEnd));
  }
  if (v.arena_base < v.host_window_base + v.host_window_bytes &&
      v.host_window_base < v.arena_base + v.arena_bytes) {
    wrong("host_window.base", "the window overlaps the arena, " +
                                  FormatAddress(v.arena_base) + " to " +
                                  FormatAddress(v.arena_base + v.arena_bytes));
  }
}

void CheckPaths(const Values& v, const Wrong& wrong) {
  if (!v.state_dir.empty() && v.state_dir[0] != '/') {
    wrong("state_dir", "must be an absolute path, not '" + v.state_dir + "'");
  }
  if (!v.socket.empty() && v.socket[0] != '/') {
    wrong("socket", "must be an absolute path, not '" + v.socket + "'");
  }
  if (v.socket.size() >= kMaxSocketPath) {
    wrong("socket", "has " + std::to_string(v.socket.size()) +
                        " characters; a socket's path has at most 107");
  }
  if (v.criu_path.empty()) wrong("criu.path", "must not be empty");
}

void CheckRemote(const Values& v, const Wrong& wrong) {
  if (v.remote_listen.empty()) return;
  const std::size_t colon = v.remote_listen.rfind(':');
  const std::optional<std::uint64_t> port =
      colon == std::string::npos
          ? std::nullopt
          : ParseNumber(std::string_view(v.remote_listen).substr(colon + 1));
  if (colon == 0 || !port.has_value() || *port == 0 || *port > 65535) {
    wrong("remote.listen",
          "must be ADDRESS:PORT, not '" + v.remote_listen + "'");
  }
  if (v.remote_certificate.empty() || v.remote_key.empty() ||
      v.remote_ca.empty()) {
    wrong("remote.listen",
          "needs remote.certificate, remote.key and remote.ca: nothing listens "
          "on a network without them");
  }
}

}  // namespace

void CheckRules(const Values& v, const std::set<std::string_view>& given,
                const Wrong& wrong) {
  CheckDevices(v, given, wrong);
  CheckAddresses(v, wrong);
  CheckPaths(v, wrong);
  CheckRemote(v, wrong);
  if (v.ckpt_buffer_bytes < 4 * v.ckpt_chunk_bytes) {
    wrong("ckpt.buffer_bytes",
          "must be at least four times ckpt.chunk_bytes, " +
              FormatBytes(4 * v.ckpt_chunk_bytes));
  }
}

}  // namespace pos::conf
