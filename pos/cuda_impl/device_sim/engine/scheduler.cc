#include "pos/cuda_impl/device_sim/engine/scheduler.h"

#include <algorithm>

#include "pos/base/clock.h"

namespace pos::sim {
namespace {

DeviceError StickyOf(const ContextState* context) {
  return context->sticky.load(std::memory_order_relaxed);
}

bool IsTrivial(CommandKind kind) {
  return kind == CommandKind::kNotify || kind == CommandKind::kRecord ||
         kind == CommandKind::kWait;
}

}  // namespace

std::size_t Scheduler::PriorityIndex(std::int32_t priority) {
  return static_cast<std::size_t>(std::clamp(priority, kGreatestPriority, 0) -
                                  kGreatestPriority);
}

void Scheduler::OpenContext(ContextState* context) {
  context->open_epoch = epochs_.Take();
  *context->open_epoch = Epoch{};
  context->open_epoch->gate_open = true;
  context->default_stream = NewStream(context, /*blocking=*/false, 0);
  context->default_stream->is_default = true;
}

void Scheduler::CloseContext(ContextState* context) {
  // Streams whose owner outlived the context end here as well.
  while (StreamState* stream = context->streams.PopFront()) {
    if (List<StreamState, &StreamState::run>::Linked(stream)) {
      runnable_.Remove(stream);
    }
    StopWaiting(stream);
    delete stream;
  }
  epochs_.Give(context->open_epoch);
  context->open_epoch = nullptr;
}

StreamState* Scheduler::NewStream(ContextState* context, bool blocking,
                                  std::int32_t priority) {
  auto* stream = new StreamState;
  stream->context = context;
  stream->blocking = blocking;
  stream->priority = priority;
  context->streams.PushBack(stream);
  return stream;
}

void Scheduler::DetachStream(StreamState* stream) {
  stream->detached = true;
  MakeRunnable(stream);
}

Command* Scheduler::NewCommand(CommandKind kind, std::uint64_t token) {
  Command* command = commands_.Take();
  command->kind = kind;
  command->token = token;
  command->error = 0;
  command->stream = nullptr;
  command->epoch = nullptr;
  command->record = nullptr;
  if (kind == CommandKind::kLaunch) command->params = params_.Take();
  return command;
}

void Scheduler::FreeCommand(Command* command) {
  command->source.reset();
  command->grid.reset();
  if (command->params != nullptr) params_.Give(command->params);
  command->params = nullptr;
  commands_.Give(command);
}

Record* Scheduler::NewRecord() {
  Record* record = records_.Take();
  *record = Record{};
  record->references = 1;
  return record;
}

void Scheduler::Release(Record* record) {
  if (record != nullptr && --record->references == 0) records_.Give(record);
}

void Scheduler::Submit(StreamState* stream, Command* command) {
  ContextState* context = stream->context;
  command->context = context;
  command->stream = stream;
  context->live.PushBack(command);
  if (stream->is_default) {
    CloseEpoch(context, command);
  } else if (stream->blocking) {
    command->epoch = context->open_epoch;
    ++command->epoch->pending;
    ++context->blocking_pending;
  }
  stream->queue.PushBack(command);
  if (stream->queue.front() == command) MakeRunnable(stream);
}

void Scheduler::SubmitIdle(ContextState* context, Command* command) {
  command->context = context;
  context->live.PushBack(command);
  if (context->live.front() == command) FinishLive(command, StickyOf(context));
}

void Scheduler::SubmitToRecord(ContextState* context, Record* record,
                               Command* command) {
  command->context = context;
  if (record != nullptr && !record->complete) {
    record->tokens.PushBack(command);
    return;
  }
  command->error = StickyOf(context);
  ++context->unreported;
  completions.PushBack(command);
}

void Scheduler::Complete(Command* command, DeviceError error) {
  StreamState* stream = command->stream;
  stream->dispatched = false;
  Finish(command, error);
  MakeRunnable(stream);
}

void Scheduler::Poison(ContextState* context, DeviceError error) {
  DeviceError none = 0;
  context->sticky.compare_exchange_strong(none, error,
                                          std::memory_order_acq_rel);
  for (StreamState* stream = context->streams.front(); stream != nullptr;
       stream = List<StreamState, &StreamState::all>::Next(stream)) {
    MakeRunnable(stream);
  }
}

bool Scheduler::Pump(std::size_t limit) {
  while (StreamState* stream = runnable_.front()) {
    StopWaiting(stream);
    Command* command = stream->queue.front();
    if (command == nullptr || stream->dispatched) {
      runnable_.Remove(stream);
      if (command == nullptr && stream->detached) {
        stream->context->streams.Remove(stream);
        delete stream;
      }
      continue;
    }
    if (limit == 0) return true;
    --limit;
    const DeviceError sticky = StickyOf(stream->context);
    if (sticky != 0) {
      Finish(command, sticky);
    } else if (!Admit(stream, command)) {
      runnable_.Remove(stream);
    } else if (IsTrivial(command->kind)) {
      Finish(command, 0);
    } else {
      runnable_.Remove(stream);
      Dispatch(stream, command);
    }
  }
  return false;
}

bool Scheduler::Admit(StreamState* stream, Command* command) {
  Epoch* epoch = command->epoch;
  if (stream->is_default) {
    // LeaveEpoch comes back when the epoch is empty.
    if (epoch->pending != 0) return false;
  } else if (epoch != nullptr && !epoch->gate_open) {
    WaitIn(stream, &epoch->waiters);
    return false;
  }
  if (command->kind == CommandKind::kWait && command->record != nullptr &&
      !command->record->complete) {
    WaitIn(stream, &command->record->waiters);
    return false;
  }
  return true;
}

void Scheduler::Dispatch(StreamState* stream, Command* command) {
  stream->dispatched = true;
  if (command->kind == CommandKind::kLaunch) {
    ready_launches[PriorityIndex(stream->priority)].PushBack(command);
  } else {
    ready_copies[engine_of_(engine_of_self_, *command)].PushBack(command);
  }
}

void Scheduler::Finish(Command* command, DeviceError error) {
  StreamState* stream = command->stream;
  stream->queue.Remove(command);
  LeaveEpoch(stream, command);
  if (command->kind == CommandKind::kRecord) {
    FinishRecord(command->record, error);
  }
  Release(command->record);
  command->record = nullptr;
  FinishLive(command, error);
}

void Scheduler::FinishLive(Command* command, DeviceError error) {
  ContextState* context = command->context;
  const bool was_oldest = context->live.front() == command;
  context->live.Remove(command);
  command->error = error;
  ++context->unreported;
  completions.PushBack(command);
  if (!was_oldest) return;
  // Idle markers that have become the oldest: all before them is done.
  while (Command* marker = context->live.front()) {
    if (marker->stream != nullptr) return;
    context->live.Remove(marker);
    marker->error = StickyOf(context);
    ++context->unreported;
    completions.PushBack(marker);
  }
}

void Scheduler::FinishRecord(Record* record, DeviceError error) {
  record->complete = true;
  record->error = error;
  record->timestamp_ns = MonotonicNs();
  while (StreamState* waiter = record->waiters.front()) {
    StopWaiting(waiter);
    MakeRunnable(waiter);
  }
  while (Command* token = record->tokens.PopFront()) {
    token->error = error;
    ++token->context->unreported;
    completions.PushBack(token);
  }
}

void Scheduler::CloseEpoch(ContextState* context, Command* closer) {
  Epoch* epoch = context->open_epoch;
  epoch->closer = closer;
  closer->epoch = epoch;
  Epoch* next = epochs_.Take();
  *next = Epoch{};
  next->gate_open = closer->kind == CommandKind::kNotify && epoch->gate_open;
  epoch->next = next;
  context->open_epoch = next;
}

void Scheduler::LeaveEpoch(StreamState* stream, Command* command) {
  Epoch* epoch = command->epoch;
  if (epoch == nullptr) return;
  if (stream->is_default) {
    OpenGate(epoch->next);
    epoch->closer = nullptr;
    epoch->closer_done = true;
  } else {
    --stream->context->blocking_pending;
    --epoch->pending;
    if (epoch->pending == 0 && epoch->closer != nullptr) {
      MakeRunnable(stream->context->default_stream);
    }
  }
  FreeEpochIfDone(epoch);
}

void Scheduler::OpenGate(Epoch* epoch) {
  while (epoch != nullptr && !epoch->gate_open) {
    epoch->gate_open = true;
    while (StreamState* waiter = epoch->waiters.front()) {
      StopWaiting(waiter);
      MakeRunnable(waiter);
    }
    // A Notify that closed the epoch holds nothing back.
    if (epoch->closer == nullptr ||
        epoch->closer->kind != CommandKind::kNotify) {
      return;
    }
    epoch = epoch->next;
  }
}

void Scheduler::FreeEpochIfDone(Epoch* epoch) {
  if (epoch->closer_done && epoch->pending == 0) epochs_.Give(epoch);
}

void Scheduler::MakeRunnable(StreamState* stream) {
  if (!List<StreamState, &StreamState::run>::Linked(stream)) {
    runnable_.PushBack(stream);
  }
}

void Scheduler::WaitIn(StreamState* stream, StreamWaiters* list) {
  list->PushBack(stream);
  stream->waiting_in = list;
}

void Scheduler::StopWaiting(StreamState* stream) {
  if (stream->waiting_in == nullptr) return;
  stream->waiting_in->Remove(stream);
  stream->waiting_in = nullptr;
}

}  // namespace pos::sim
