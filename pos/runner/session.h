// One session: a client's ring, the pipeline that serves it, its device state.
// The heart of pos-runner, without its sockets.
//
// Threads: created, started, quiesced and destroyed by one controlling thread;
//   the pipeline runs on threads of its own. CancelAll, Wake, AtRest, stats:
//   any thread.
// Blocking: Quiesce up to its deadline; Stop until the stages have ended their
//   step.
#ifndef POS_RUNNER_SESSION_H_
#define POS_RUNNER_SESSION_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "pos/call/context_pool.h"
#include "pos/cuda_impl/parser/cuda_parser.h"
#include "pos/cuda_impl/parser/session_state.h"
#include "pos/cuda_impl/worker/cuda_executor.h"
#include "pos/parser/parser.h"
#include "pos/runner/stage_thread.h"
#include "pos/worker/memory_watch.h"
#include "pos/worker/watch_stage.h"
#include "pos/worker/worker.h"
#include "remoting/frontend/front_end.h"
#include "remoting/frontend/shm_port.h"
#include "remoting/transport/shm/ring_server.h"

namespace pos {

struct SessionOptions {
  cuda::ArenaLayout layout;
  RingGeometry ring;
  // Threads that the three stages are spread over, 1 to 3; 0 chooses by the
  // number of processors.
  int stage_threads = 0;
};

class Session {
 public:
  // `devices`, `ledger` and `host` outlive the session. `on_malformed`: the
  // client broke the protocol; called once, on a pipeline thread.
  static Result<std::unique_ptr<Session>> Create(
      const SessionOptions& options, std::vector<Device*> devices,
      MemoryLedger* ledger, cuda::HostWindow* host,
      std::function<void(const Status&)> on_malformed);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void Start();
  // Ends the pipeline; the client's later calls fail. Idempotent.
  void Stop();

  [[nodiscard]] RingServer* ring() { return ring_.get(); }

  // The first half of a cut, while the client still runs: the device comes to
  // rest and stays so; what the client sends meanwhile waits. kNow: nothing
  // more is handed to the device, from the call on. kWhenIdle: calls go on as
  // ever until nothing is on the device for a moment; then nothing is handed to
  // it any more. May be called again with the other one.
  enum class Rest { kNow, kWhenIdle };
  void SeekRest(Rest how);
  [[nodiscard]] bool AtRest() const { return started_ && worker_->still(); }
  // Before the client is told to close its gate: a call that it has begun, and
  // for which there is no room, can be finished.
  void MakeRoom();
  // Everything runs on.
  void EndRest();

  // The cut. The client must be gated: it sends nothing more. Takes everything
  // out of the ring, hands nothing more to the device, waits until the device
  // is idle. On OK the pipeline is paused and holds nothing but the pending
  // calls. Otherwise (kTimeout: the message names what was not done) it runs on
  // as before.
  Status Quiesce(const Deadline& deadline);
  // After a Quiesce that succeeded: everything runs on, pending calls first.
  void Resume();

  // While paused. The state of a session but for memory content; see
  // ckpt/engine for that. Pending calls are included, with their payload.
  void Save(ByteWriter* out);
  // Why it cannot be saved now, if so: what an image cannot hold.
  [[nodiscard]] Status CheckSavable() const {
    return executor_->CheckSavable();
  }
  // Into a session that was created with the image's layout and not started.
  // Answers of pending calls go to the slots that they had.
  Status Load(std::span<const std::byte> state);

  // While paused: every handle, what it is made from, and how many bytes making
  // it again takes.
  struct HandleUse {
    const char* kind;  // "context", "module", …
    HandleId handle;
    HandleId parent;  // 0: none
    std::uint64_t bytes;
  };
  void DescribeHandles(
      const std::function<void(const HandleUse&)>& visit) const;

  // Any thread: stops what runs on the device; queued work fails.
  void CancelAll();

  // While paused.
  [[nodiscard]] const cuda::WorkerMemory& memory() const {
    return executor_->memory();
  }
  [[nodiscard]] const std::map<std::uint64_t, std::uint64_t>& host_blocks()
      const {
    return executor_->host_blocks();
  }
  [[nodiscard]] Device* device(int i) {
    return state_->devices[static_cast<std::size_t>(i)];
  }

  // Calls that are on the device, and calls that came back from it. Any thread.
  [[nodiscard]] std::uint64_t on_device() const { return worker_->in_flight(); }
  [[nodiscard]] std::uint64_t completed() const { return worker_->completed(); }
  // Calls taken from the client so far. Any thread.
  [[nodiscard]] std::uint64_t calls() const {
    return front_end_->next_pc() - 1;
  }
  // While paused: calls that wait for the cut to end.
  [[nodiscard]] std::size_t pending_calls() const {
    return worker_->pending().size() + parser_->waiting().size();
  }
  // While paused: what the session has taken from the ledger and not given
  // back, counted from what it holds.
  [[nodiscard]] std::uint64_t TakenBytes(int device) const;
  // Makes the pipeline look again at what it could not do; a call for which
  // the watch said kWait is asked about again. Any thread.
  void Wake();
  // While paused, or before Start. `watch` is asked before every call that may
  // touch device memory, from now on; nullptr: nobody is. It has to outlive
  // that. What waited for the one before goes to the new one.
  void SetWatch(MemoryWatch* watch);
  // Runs `work` while the pipeline stands still; the device goes on. Also while
  // paused. Any thread but the pipeline's own, also while the controlling one
  // quiesces or resumes, which waits for `work`, but not while that stops the
  // session. `work` calls none of these.
  void WhileStill(const std::function<void()>& work);

  // Memory for work of POS's own beside the client's: an address range, which
  // has to be mapped, and the grant for as much memory. While paused; waits for
  // the ledger's answer, 2 s. kOutOfMemory, kTimeout.
  Result<DeviceAddress> TakeScratch(int device, std::uint64_t bytes);
  // The grant. Any thread.
  void GiveBackScratchMemory(int device, std::uint64_t bytes);
  // The range, where nothing is mapped any more. While paused.
  void GiveBackScratchRange(int device, DeviceAddress address);
  // As MemoryLedger::SetReclaim.
  void SetReclaim(std::function<bool(int device)> reclaim) {
    state_->ledger->SetReclaim(std::move(reclaim));
  }
  [[nodiscard]] std::size_t device_count() const {
    return state_->devices.size();
  }
  // As SetWatch, whatever the session does: it is paused for that moment.
  void ReplaceWatch(MemoryWatch* watch);
  // Contexts that belong to no call, for leak tests; while paused.
  [[nodiscard]] std::uint32_t OutstandingContexts() {
    return pool_.Outstanding();
  }

 private:
  Session(const SessionOptions& options, std::vector<Device*> devices,
          MemoryLedger* ledger, cuda::HostWindow* host);
  Status Init(std::function<void(const Status&)> on_malformed);
  void MakeThreads();
  void PauseAll();
  void ResumeAll();
  void WakeAll();
  [[nodiscard]] bool Quiet();
  [[nodiscard]] std::string WhatIsLeft();
  void SaveCall(const ApiContext& context, ByteWriter* out);
  Status LoadCall(ByteReader* in);

  const SessionOptions options_;
  std::unique_ptr<RingServer> ring_;
  std::unique_ptr<ShmPort> port_;
  ContextPool pool_;
  ContextQueue to_parser_;
  ContextQueue to_worker_;
  NoticeBoard notices_;
  CompletionQueue completions_;
  std::unique_ptr<cuda::SessionState> state_;
  cuda::HostWindow* const host_;
  std::unique_ptr<cuda::CudaParser> api_parser_;
  std::unique_ptr<cuda::CudaExecutor> executor_;
  std::unique_ptr<FrontEnd> front_end_;
  std::unique_ptr<Parser> parser_;
  std::unique_ptr<Worker> worker_;
  WatchStage watch_stage_;
  std::vector<std::unique_ptr<Parker>> parkers_;
  std::vector<std::unique_ptr<StageThread>> threads_;
  StageThread* worker_thread_ = nullptr;
  bool started_ = false;
  // Held by whoever has the pipeline stand still for a moment, and to change
  // whether it stands still for longer.
  Mutex still_mu_;
  bool paused_ POS_GUARDED_BY(still_mu_) = false;
};

}  // namespace pos

#endif  // POS_RUNNER_SESSION_H_
