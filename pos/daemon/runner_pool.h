// The node's runners: starting them, keeping some warm, talking to them.
//
// A runner is warm when its devices are open and it has no session. Taking one
// starts its replacement; so does its end, and where that fails it is tried
// again, at growing intervals. Runners outlive posd; a new posd finds them by
// their sockets (Adopt).
//
// Threads: any but the event loop's for what blocks (Take, Call). The loop has
//   to be stopped before the pool is destroyed.
#ifndef POS_DAEMON_RUNNER_POOL_H_
#define POS_DAEMON_RUNNER_POOL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "pos/base/fd.h"
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
  // Ends it whatever it does; what it was asked is answered with kClosed soon.
  // No effect on one that has ended.
  void Kill() const;
  // Whether its process, or the connection to it, has ended.
  [[nodiscard]] bool gone() const { return peer_->closed(); }

  // A request and its answer; an error that the runner reports becomes the
  // status.
  Result<RunnerPeer::Message> Call(const runner::ToRunner& request,
                                   std::span<const int> fds,
                                   std::uint64_t timeout_ms);

 private:
  friend class RunnerPool;

  const std::string name_;
  const std::vector<int> devices_;
  UniqueFd process_;  // pidfd
  std::shared_ptr<RunnerPeer> peer_;
  // The device that it has begun to open last; -1: none.
  std::atomic<int> opening_{-1};
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
  std::uint64_t configure_ms = 60'000;  // a context on a GPU takes time
  // Between two tries of a device that failed.
  std::uint64_t try_again_ms = 5'000;
};

class RunnerPool {
 public:
  // Events of runners that have a session; on the event loop.
  using EventFunction =
      std::function<void(const std::shared_ptr<Runner>&, const runner::Event&)>;
  // The runner's process is gone; on the event loop.
  using GoneFunction = std::function<void(const std::shared_ptr<Runner>&)>;
  // A runner that was left behind has said how it is; on the event loop.
  using LateFunction =
      std::function<void(const std::shared_ptr<Runner>&, const runner::State&)>;

  RunnerPool(EventLoop* loop, DeviceTable* devices, RunnerPoolOptions options)
      : loop_(loop), devices_(devices), options_(std::move(options)) {}
  ~RunnerPool();
  RunnerPool(const RunnerPool&) = delete;
  RunnerPool& operator=(const RunnerPool&) = delete;

  void SetHandlers(EventFunction on_event, GoneFunction on_gone) {
    on_event_ = std::move(on_event);
    on_gone_ = std::move(on_gone);
  }

  // Fills up the warm runners for the node's first device that works, in the
  // background.
  void KeepWarm() POS_EXCLUDES(mu_);
  // A configured runner for these devices: a warm one, or a new one.
  Result<std::shared_ptr<Runner>> Take(const std::vector<int>& devices)
      POS_EXCLUDES(mu_);
  // Ends a runner; no effect on one that is gone.
  void End(const std::shared_ptr<Runner>& runner);
  // Ends all warm runners and starts no more. Waits, for 3 s, for all that
  // were told to end, and kills those that did not.
  void Close() POS_EXCLUDES(mu_);

  // Runners that another posd left behind, with what they say of themselves. A
  // runner answers when it is done with what it was told before: that takes it
  // many seconds where it has to end a checkpoint, and one that hangs in its
  // driver never answers. Who has not answered a second after all were asked is
  // returned without a state; its answer goes to DeliverLate's function.
  struct Found {
    std::shared_ptr<Runner> runner;
    std::optional<runner::State> state;
  };
  // `devices_of`: what is known of runners, by name.
  std::vector<Found> FindLeftBehind(
      const std::map<std::string, std::vector<int>>& devices_of)
      POS_EXCLUDES(mu_);
  // Once, after FindLeftBehind. Those that have answered in between come first,
  // on the caller's thread.
  void DeliverLate(LateFunction on_late) POS_EXCLUDES(mu_);

 private:
  Result<std::shared_ptr<Runner>> StartRunner(const std::vector<int>& devices)
      POS_EXCLUDES(mu_);
  // `failed`: the devices that the runner says do not work.
  Status Configure(Runner* runner, std::vector<int>* failed);
  // For a runner that is of no use: one that hangs in its driver ends no other
  // way. It is remembered until it has ended.
  void Kill(const std::shared_ptr<Runner>& runner) POS_EXCLUDES(mu_);
  void OnGone(const std::shared_ptr<Runner>& runner) POS_EXCLUDES(mu_);
  // A warm runner for these devices, all of which work; or nullptr.
  std::shared_ptr<Runner> TakeWarm(const std::vector<int>& devices)
      POS_EXCLUDES(mu_);
  // Notes that a runner could not open its devices: those that it has named, or
  // was at when it fell silent, and no others. Tries again in the background
  // until they work.
  void NoteFailure(const Runner& runner, std::vector<int> failed,
                   const Status& status) POS_EXCLUDES(mu_);
  void TryFailedDevices() POS_EXCLUDES(mu_);
  // Whether a runner for the device was killed and has not ended yet.
  bool IsBeingKilled(int device) POS_EXCLUDES(mu_);
  void FillWarm() POS_EXCLUDES(mu_);
  // Fills up again after a while, longer for each time that it has not helped.
  void FillWarmLater() POS_REQUIRES(mu_);
  void OnAdopted(const std::shared_ptr<Runner>& runner,
                 Result<RunnerPeer::Message> reply) POS_EXCLUDES(mu_);
  void WarnOfSilent() POS_EXCLUDES(mu_);
  void Connect(const std::shared_ptr<Runner>& runner, UniqueFd socket);
  void OnMessage(const std::shared_ptr<Runner>& runner,
                 const runner::FromRunner& message);
  void OnMemoryWanted(const std::shared_ptr<Runner>& runner,
                      const runner::MemoryWanted& wanted);
  [[nodiscard]] std::string SocketPath(const std::string& name) const;

  // Between an attempt to fill up and the next, at first and at most.
  static constexpr std::uint64_t kRefillMs = 1'000;
  static constexpr std::uint64_t kRefillMostMs = 300'000;

  EventLoop* const loop_;
  DeviceTable* const devices_;
  const RunnerPoolOptions options_;
  EventFunction on_event_;
  GoneFunction on_gone_;
  Mutex mu_;
  bool closed_ POS_GUARDED_BY(mu_) = false;
  bool filling_ POS_GUARDED_BY(mu_) = false;
  std::vector<std::shared_ptr<Runner>> warm_ POS_GUARDED_BY(mu_);
  std::thread filler_ POS_GUARDED_BY(mu_);       // FillWarm
  bool refill_due_ POS_GUARDED_BY(mu_) = false;  // FillWarmLater's
  // Grows until a warm runner has been of use.
  std::uint64_t refill_ms_ POS_GUARDED_BY(mu_) = kRefillMs;
  bool trying_ POS_GUARDED_BY(mu_) = false;
  std::thread trier_ POS_GUARDED_BY(mu_);  // TryFailedDevices
  // Told to end, not gone yet.
  std::vector<std::shared_ptr<Runner>> ending_ POS_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<Runner>> killed_ POS_GUARDED_BY(mu_);
  // Left behind, and asked how they are. With a state: not delivered yet.
  std::vector<Found> asked_ POS_GUARDED_BY(mu_);
  LateFunction on_late_ POS_GUARDED_BY(mu_);
  CondVar changed_;
};

}  // namespace pos

#endif  // POS_DAEMON_RUNNER_POOL_H_
