// The engine's records: commands, streams, event records, contexts. Plain data;
// scheduler.h says what happens to them. Everything here is protected by the
// engine's mutex unless a line says otherwise.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_ENGINE_COMMAND_H_
#define POS_CUDA_IMPL_DEVICE_SIM_ENGINE_COMMAND_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "pos/cuda_impl/device_sim/engine/grid.h"
#include "pos/cuda_impl/device_sim/engine/list.h"
#include "pos/device/device.h"

namespace pos::sim {

struct ContextState;
struct Epoch;
struct Record;
struct StreamState;

enum class CommandKind : std::uint8_t {
  kNotify,  // nothing to do but report; also NotifyIdle and event tokens
  kCopy,
  kFill,
  kLaunch,
  kRecord,
  kWait,
};

// A launch's parameters. Pooled apart from commands, so that buffers go from
// launch to launch and stop growing.
struct ParamBlock {
  std::vector<std::byte> bytes;
};

// Pooled. From submission until completion it is on its stream's queue and on
// the context's list of live commands; then on a list of completions to report;
// then free.
struct Command {
  Link<Command> queue;   // stream, record's tokens, completions, free
  Link<Command> live;    // context, in order of submission
  Link<Command> ready;   // scheduler: waits for a thread
  Link<Command> active;  // scheduler: running grids
  CommandKind kind = CommandKind::kNotify;
  DeviceError error = 0;  // set when it completes
  std::uint64_t token = 0;
  ContextState* context = nullptr;
  StreamState* stream = nullptr;  // null: a NotifyIdle or an event's token
  // Legacy default stream: the epoch that this command closes. Blocking
  // streams: the epoch that it belongs to. Else null.
  Epoch* epoch = nullptr;
  Record* record = nullptr;  // kRecord, kWait; holds a reference

  // kCopy, kFill. Not changed between submission and completion.
  DeviceAddress dst = 0;
  DeviceAddress src = 0;
  std::uint64_t bytes = 0;  // copy: bytes; fill: elements per row
  std::uint64_t rows = 0;
  std::uint64_t pitch = 0;
  std::uint32_t value = 0;
  std::uint32_t width = 0;

  // kLaunch.
  std::shared_ptr<GridSource> source;
  LaunchConfig config;
  ParamBlock* params = nullptr;    // pooled
  std::unique_ptr<Grid> grid;      // set by the thread that starts it
  std::uint64_t slice_budget = 0;  // instructions for about one slice of time
  std::uint32_t runners = 0;       // threads inside Grid::Run
  bool grid_finished = false;
  bool no_work_left = false;  // nothing for further threads, for now
};

struct StreamState {
  Link<StreamState> all;   // context
  Link<StreamState> run;   // scheduler: to be looked at
  Link<StreamState> wait;  // `waiting_in`
  List<StreamState, &StreamState::wait>* waiting_in = nullptr;
  ContextState* context = nullptr;
  List<Command, &Command::queue> queue;
  bool blocking = true;     // ordered against the default stream
  bool is_default = false;  // the legacy default stream
  bool dispatched = false;  // the oldest command is with a thread
  bool detached = false;    // its owner is gone; freed when empty
  std::int32_t priority = 0;
};
using CommandQueue = List<Command, &Command::queue>;
using StreamWaiters = List<StreamState, &StreamState::wait>;

// The commands of blocking streams between two commands of the legacy default
// stream. Default-stream command k closes epoch k and waits until the epoch is
// empty; the commands of epoch k + 1 wait at the gate that it opens. So a
// command costs the same however many streams there are. A Notify on the
// default stream waits likewise but opens its successor's gate at once (unless
// an older one is shut): to wait for a stream orders nothing.
struct Epoch {
  std::uint64_t pending = 0;  // incomplete commands of blocking streams
  bool gate_open = false;
  Command* closer = nullptr;  // null: open to new commands
  bool closer_done = false;
  Epoch* next = nullptr;  // set when closed
  StreamWaiters waiters;  // streams whose oldest command waits for the gate
};

// One recording of an event. Shared by the event (its latest), the command that
// records it and the commands that wait for it.
struct Record {
  std::uint32_t references = 0;
  bool complete = false;
  DeviceError error = 0;
  std::uint64_t timestamp_ns = 0;
  StreamWaiters waiters;
  List<Command, &Command::queue> tokens;  // Event::Notify
};

struct ContextState {
  CompletionSink* sink = nullptr;
  List<StreamState, &StreamState::all> streams;
  StreamState* default_stream = nullptr;
  List<Command, &Command::live> live;
  Epoch* open_epoch = nullptr;
  std::uint64_t blocking_pending = 0;  // commands of blocking streams
  // Completed commands whose report is still being made.
  std::uint64_t unreported = 0;
  // Read without the lock by running copies and by sticky_error().
  std::atomic<DeviceError> sticky{0};
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_ENGINE_COMMAND_H_
