#include "pos/daemon/settings.h"

#include <unistd.h>

#include <cstdlib>

#include "pos/base/files.h"

namespace pos {
namespace {

// tmpfs that every Linux has; the files are gone after a reboot like the
// processes that they belong to.
constexpr const char* kHostFileDirectory = "/dev/shm";

}  // namespace

std::string DefaultStateDirectory() {
  if (::geteuid() == 0) return "/var/lib/pos";
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state == '/') return JoinPath(state, "pos");
  const char* home = std::getenv("HOME");
  return JoinPath(home != nullptr ? home : "/", ".local/state/pos");
}

SupervisorTunables TunablesOf(const conf::Config& config) {
  SupervisorTunables t;
  t.compress = std::string(conf::Word(config.ckpt_compress()));
  t.write_depth = static_cast<std::uint32_t>(config.ckpt_write_depth());
  t.incremental = config.ckpt_incremental();
  t.shadow_bytes = config.ckpt_shadow_bytes();
  t.max_rounds = static_cast<std::uint32_t>(config.recopy_max_rounds());
  t.quiesce.first_drain_ms = config.quiesce_first_drain_ms();
  t.quiesce.drain_ms = config.quiesce_drain_ms();
  t.quiesce.retries = static_cast<std::uint32_t>(config.quiesce_retries());
  t.detach_ms = config.quiesce_detach_ms();
  t.quiesce.backoff_ms = config.quiesce_backoff_ms();
  t.criu_dump_ms = config.criu_dump_timeout_ms();
  t.criu_restore_ms = config.criu_restore_timeout_ms();
  t.hold_ms = config.criu_hold_ms();
  t.stop_grace_ms = config.stop_grace_ms();
  t.lazy_bytes_per_second = config.restore_lazy_bytes_per_second();
  return t;
}

SupervisorOptions OptionsOf(const conf::Config& config,
                            const std::string& program_dir) {
  SupervisorOptions o;
  o.state_dir =
      config.state_dir().empty() ? DefaultStateDirectory() : config.state_dir();
  o.runtime_dir = JoinPath(o.state_dir, "run");
  o.program_dir = program_dir;
  o.shim = JoinPath(program_dir, "../lib/pos/libcuda.so.1");
  o.host_file_dir = kHostFileDirectory;
  o.log_level = std::string(conf::Word(config.log_level()));
  o.criu = config.criu_path();
  o.warm_runners = config.runner_warm_pool();
  o.stage_threads = static_cast<std::uint32_t>(config.runner_stage_threads());
  o.arena_base = config.arena_base();
  o.arena_bytes = config.arena_bytes();
  o.host_base = config.host_window_base();
  o.host_bytes = config.host_window_bytes();
  o.ring_bytes = config.ring_bytes();
  o.staging_bytes = config.staging_bytes();
  o.chunk_bytes = static_cast<std::uint32_t>(config.ckpt_chunk_bytes());
  o.export_key_file = config.ckpt_export_key_file();
  o.tunables = TunablesOf(config);
  return o;
}

}  // namespace pos
