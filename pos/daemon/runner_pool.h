// The node's runners: starting them, keeping some warm, talking to them.
//
// A runner is warm when its devices are open and it has no session. Taking one
// starts its replacement. Runners outlive posd; a new posd finds them by their
// sockets (Adopt).
//
// Threads: any but the event loop's for what blocks (Take, Call).
#ifndef POS_DAEMON_RUNNER_POOL_H_
#define POS_DAEMON_RUNNER_POOL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/daemon/device_table.h"
#include "pos/daemon/rpc_peer.h"
#include "pos/runner/runner.pb.h"

namespace pos {

struct RunnerTraits {
  static void SetId(runner::ToRunner* message, std::uint64_t id) {
    message->set_id(id);
  }
  static std::uint64_t ReplyId(const runner::FromRunner& message) {
    return message.id();
  }
};
using RunnerPeer = RpcPeer<runner::ToRunner, runner::FromRunner, RunnerTraits>;

// One runner process.
class Runner {
 public:
  Runner(std::string name, std::vector<int> devices)
      : name_(std::move(name)), devices_(std::move(devices)) {}

  [[nodiscard]] const std::string& name() const { return name_; }
  // Node ordinals, in the order in which its session sees them.
  [[nodiscard]] const std::vector<int>& devices() const { return devices_; }
  // Of a runner that was found, before it is used.
  void set_devices(std::vector<int> devices) { devices_ = std::move(devices); }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // Ends it whatever it does; what it was asked is answered with kClosed soon.
  void Kill();

  // A request and its answer; an error that the runner reports becomes the
  // status.
  Result<RunnerPeer::Message> Call(const runner::ToRunner& request,
                                   std::span<const int> fds,
                                   std::uint64_t timeout_ms);

 private:
  friend class RunnerPool;
  const std::string name_;
  std::vector<int> devices_;
  pid_t pid_ = 0;
  std::shared_ptr<RunnerPeer> peer_;
};

struct RunnerPoolOptions {
  std::string program;    // pos-runner
  std::string directory;  // for sockets
  std::string log_level;
  std::size_t warm = 1;
  std::uint64_t arena_base = 0;
  std::uint64_t arena_bytes = 0;
  std::uint64_t host_base = 0;
  std::uint64_t host_bytes = 0;
  std::uint64_t ring_bytes = 0;
  std::uint64_t staging_bytes = 0;
  std::uint32_t stage_threads = 0;
};

class RunnerPool {
 public:
  // Events of runners that have a session; on the event loop.
  using EventFunction =
      std::function<void(const std::shared_ptr<Runner>&, const runner::Event&)>;
  // The runner's process is gone; on the event loop.
  using GoneFunction = std::function<void(const std::shared_ptr<Runner>&)>;

  RunnerPool(EventLoop* loop, DeviceTable* devices, RunnerPoolOptions options)
      : loop_(loop), devices_(devices), options_(std::move(options)) {}
  ~RunnerPool();
  RunnerPool(const RunnerPool&) = delete;
  RunnerPool& operator=(const RunnerPool&) = delete;

  void SetHandlers(EventFunction on_event, GoneFunction on_gone) {
    on_event_ = std::move(on_event);
    on_gone_ = std::move(on_gone);
  }

  // Fills up the warm runners for the node's first device, in the background.
  void KeepWarm();
  // A configured runner for these devices: a warm one, or a new one.
  Result<std::shared_ptr<Runner>> Take(const std::vector<int>& devices)
      POS_EXCLUDES(mu_);
  // Ends a runner; no effect on one that is gone.
  void End(const std::shared_ptr<Runner>& runner);
  // Ends all warm runners and starts no more. Waits, for 3 s, for all that
  // were told to end, and kills those that did not.
  void Close() POS_EXCLUDES(mu_);

  // Runners that another posd left behind, with what they say of themselves.
  struct Found {
    std::shared_ptr<Runner> runner;
    runner::State state;
  };
  std::vector<Found> FindLeftBehind();

 private:
  Result<std::shared_ptr<Runner>> StartRunner(const std::vector<int>& devices);
  Status Configure(Runner* runner);
  // A warm runner for these devices, all of which work; or nullptr.
  std::shared_ptr<Runner> TakeWarm(const std::vector<int>& devices)
      POS_EXCLUDES(mu_);
  // Notes that runners do not start on these devices, if that is the devices'
  // fault; tries again in the background until they do.
  void NoteFailure(const std::vector<int>& devices, const Status& status)
      POS_EXCLUDES(mu_);
  void TryFailedDevices() POS_EXCLUDES(mu_);
  void Connect(const std::shared_ptr<Runner>& runner, UniqueFd socket);
  void OnMessage(const std::shared_ptr<Runner>& runner,
                 const runner::FromRunner& message);
  void OnMemoryWanted(const std::shared_ptr<Runner>& runner,
                      const runner::MemoryWanted& wanted);
  [[nodiscard]] std::string SocketPath(const std::string& name) const;

  EventLoop* const loop_;
  DeviceTable* const devices_;
  const RunnerPoolOptions options_;
  EventFunction on_event_;
  GoneFunction on_gone_;
  Mutex mu_;
  bool closed_ POS_GUARDED_BY(mu_) = false;
  bool filling_ POS_GUARDED_BY(mu_) = false;
  std::vector<std::shared_ptr<Runner>> warm_ POS_GUARDED_BY(mu_);
  std::vector<std::thread> fillers_ POS_GUARDED_BY(mu_);
  bool trying_ POS_GUARDED_BY(mu_) = false;
  std::thread trier_ POS_GUARDED_BY(mu_);  // TryFailedDevices
  // Told to end, not gone yet.
  std::vector<std::shared_ptr<Runner>> ending_ POS_GUARDED_BY(mu_);
  CondVar changed_;
};

}  // namespace pos

#endif  // POS_DAEMON_RUNNER_POOL_H_
