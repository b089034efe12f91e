// Order of execution on the simulated device: which command may run when.
//
// A passive structure. The engine calls it under its mutex and then acts on
// what it leaves behind: `completions` to report, `ready` work for threads.
//
//   Submit ─> stream queue ─> (oldest, gate open, event recorded?) ─> ready
//                                    └─ trivial ones complete right here
//   Complete ─> next of the stream, the default stream, streams that wait for
//               the event
//
// Cost: a constant number of steps per command, however many streams, events
// and queued commands there are; Poison costs one step per stream.
// Allocation: none in steady state (pools).
// Threads: all calls under the engine's mutex.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_ENGINE_SCHEDULER_H_
#define POS_CUDA_IMPL_DEVICE_SIM_ENGINE_SCHEDULER_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "pos/cuda_impl/device_sim/engine/command.h"
#include "pos/cuda_impl/device_sim/engine/pool.h"

namespace pos::sim {

// CUDA's range of stream priorities on current devices: 0 (least) to -5.
inline constexpr std::int32_t kGreatestPriority = -5;
inline constexpr std::size_t kPriorities = 6;
inline constexpr std::size_t kMaxCopyEngines = 8;

class Scheduler {
 public:
  using ReadyQueue = List<Command, &Command::ready>;
  using ActiveList = List<Command, &Command::active>;

  // `engine_of` tells which copy engine serves a copy or fill.
  using EngineOf = std::size_t (*)(const void* self, const Command& command);
  Scheduler(EngineOf engine_of, const void* self)
      : engine_of_(engine_of), engine_of_self_(self) {}

  void OpenContext(ContextState* context);
  // The context has no live command left.
  void CloseContext(ContextState* context);
  StreamState* NewStream(ContextState* context, bool blocking,
                         std::int32_t priority);
  // Frees the stream when its work is done.
  void DetachStream(StreamState* stream);

  Command* NewCommand(CommandKind kind, std::uint64_t token);
  void FreeCommand(Command* command);
  Record* NewRecord();  // with one reference
  static void Reference(Record* record) { ++record->references; }
  void Release(Record* record);  // nullptr allowed

  // Takes the command over.
  void Submit(StreamState* stream, Command* command);
  // A NotifyIdle.
  void SubmitIdle(ContextState* context, Command* command);
  // Completes `command` with the record; at once when that is complete.
  void SubmitToRecord(ContextState* context, Record* record, Command* command);
  // A copy, fill or launch that a thread has carried out.
  void Complete(Command* command, DeviceError error);
  // Makes `error` the context's sticky error, unless it has one, and lets all
  // its queued work complete with it. The caller has stopped its grids.
  void Poison(ContextState* context, DeviceError error);

  // Looks at streams whose state changed, `limit` commands at most. True when
  // streams are left to look at.
  bool Pump(std::size_t limit);
  [[nodiscard]] bool NeedsPump() const { return !runnable_.empty(); }

  // Completed commands in order of completion; the engine takes them over,
  // reports, and gives them to FreeCommand.
  CommandQueue completions;
  // Launches by priority, most urgent first, and copies by engine.
  std::array<ReadyQueue, kPriorities> ready_launches;
  std::array<ReadyQueue, kMaxCopyEngines> ready_copies;
  // Grids that have run a first slice and are not over.
  ActiveList active;

  [[nodiscard]] static std::size_t PriorityIndex(std::int32_t priority);

 private:
  // True when the oldest command of `stream` may run or complete now; else the
  // stream is on the list of what it waits for.
  bool Admit(StreamState* stream, Command* command);
  // Hands one copy, fill or launch to the threads.
  void Dispatch(StreamState* stream, Command* command);
  // Takes the oldest command off its stream and everything that hangs on it.
  void Finish(Command* command, DeviceError error);
  void FinishLive(Command* command, DeviceError error);
  void FinishRecord(Record* record, DeviceError error);
  void LeaveEpoch(StreamState* stream, Command* command);
  void CloseEpoch(ContextState* context, Command* closer);
  void OpenGate(Epoch* epoch);
  void FreeEpochIfDone(Epoch* epoch);
  void MakeRunnable(StreamState* stream);
  void WaitIn(StreamState* stream, StreamWaiters* list);
  static void StopWaiting(StreamState* stream);

  const EngineOf engine_of_;
  const void* const engine_of_self_;
  List<StreamState, &StreamState::run> runnable_;
  Pool<Command> commands_;
  Pool<ParamBlock> params_;
  Pool<Epoch> epochs_;
  Pool<Record> records_;
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_ENGINE_SCHEDULER_H_
