#include "conf/rules.h"

#include <algorithm>

namespace pos::conf {
namespace {

using Wrong =
    std::function<void(std::string_view option, const std::string& why)>;

// User space of x86-64 with four levels of page tables.
constexpr std::uint64_t kAddressEnd = 0x7ffffffff000;
// sun_path, with its final NUL.
constexpr std::size_t kMaxSocketPath = 108;

void CheckDevices(const Values& v, const Wrong& wrong) {
  const auto& kinds = v.devices;
  if (kinds.size() > 1 &&
      std::find(kinds.begin(), kinds.end(), DeviceKind::kAuto) != kinds.end()) {
    wrong("devices", "auto stands alone");
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
}

}  // namespace

void CheckRules(const Values& v, const Wrong& wrong) {
  CheckDevices(v, wrong);
  CheckAddresses(v, wrong);
  CheckPaths(v, wrong);
}

}  // namespace pos::conf
