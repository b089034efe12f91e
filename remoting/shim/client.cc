// Calls: slots, waiting, staging. The control thread is in client_control.cc.
#include "remoting/shim/client.h"

#include <algorithm>
#include <cstring>

#include "pos/base/backoff.h"

namespace pos::shim {

Client& Client::Get() {
  // Leaked: exit handlers call in after static destructors have run.
  static Client* const client = new Client;
  return *client;
}

std::int32_t Client::BeginFrame(std::uint16_t op, std::uint32_t args_bytes,
                                std::uint32_t inline_bytes, bool despite_fault,
                                wire::FrameHeader** frame) {
  ThreadState* const thread = CurrentThread();
  gate_.Enter(thread);
  std::int32_t error = Usable() ? 0 : kLostError;
  if (error == 0 && ring_.output_waits()) thread->output_seen = true;
  if (error == 0 && !despite_fault) error = ring_.sticky_error();
  if (error == 0) {
    *frame = ring_.Begin(op, args_bytes, inline_bytes);
    if (*frame == nullptr) error = kLostError;
  }
  if (error != 0) gate_.Leave(thread);
  return error;
}

void Client::EndFrame(wire::FrameHeader* frame) {
  ring_.Commit(frame);
  gate_.Leave(CurrentThread());
}

namespace {

void FillFrame(wire::FrameHeader* frame, std::span<const std::byte> args,
               const Payload& payload) {
  std::byte* const at = RingClient::Args(frame);
  std::memcpy(at, args.data(), args.size());
  if (!payload.inline_data.empty()) {
    std::memcpy(at + args.size(), payload.inline_data.data(),
                payload.inline_data.size());
  }
  frame->lease = payload.lease;
  frame->bulk_bytes = payload.bulk_bytes;
  frame->flags = payload.flags;
}

}  // namespace

std::int32_t Client::Send(std::uint16_t op, std::span<const std::byte> args,
                          const Payload& payload) {
  wire::FrameHeader* frame = nullptr;
  const std::int32_t error =
      BeginFrame(op, static_cast<std::uint32_t>(args.size()),
                 static_cast<std::uint32_t>(payload.inline_data.size()),
                 payload.despite_fault, &frame);
  if (error != 0) return error;
  FillFrame(frame, args, payload);
  EndFrame(frame);
  return 0;
}

std::uint32_t Client::TakeSlot(ThreadState* thread) {
  const std::uint32_t count = std::min(ring_.slot_count(), kMaxSlots);
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t slot = (thread->slot_hint + i) % count;
    if (slot_used_[slot].load(std::memory_order_relaxed)) continue;
    if (slot_used_[slot].exchange(true, std::memory_order_acq_rel)) continue;
    thread->slot_hint = slot;
    return slot;
  }
  return wire::kNoSlot;
}

std::int32_t Client::Begin(std::uint16_t op, std::span<const std::byte> args,
                           const Payload& payload, std::uint32_t* slot) {
  ThreadState* const thread = CurrentThread();
  Backoff backoff;
  for (;;) {
    gate_.Enter(thread);
    if (!Usable()) break;
    *slot = TakeSlot(thread);
    gate_.Leave(thread);
    if (*slot != wire::kNoSlot) break;
    backoff.Wait();  // more threads wait than there are slots
  }
  if (!Usable()) {
    gate_.Leave(thread);
    return kLostError;
  }
  wire::FrameHeader* frame = nullptr;
  const std::int32_t error =
      BeginFrame(op, static_cast<std::uint32_t>(args.size()),
                 static_cast<std::uint32_t>(payload.inline_data.size()),
                 payload.despite_fault, &frame);
  if (error != 0) {
    slot_used_[*slot].store(false, std::memory_order_release);
    return error;
  }
  ring_.slot(*slot).state.store(wire::kSlotPending, std::memory_order_relaxed);
  FillFrame(frame, args, payload);
  frame->slot = *slot;
  EndFrame(frame);
  return 0;
}

void Client::TakeReply(ThreadState* thread, std::uint32_t slot, Reply* reply) {
  wire::ReplySlot& s = ring_.slot(slot);
  reply->result = s.result;
  reply->bytes = std::min(s.bytes, wire::kSlotDataBytes);
  reply->bulk_bytes = s.bulk_bytes;
  std::memcpy(reply->data.data(), s.data.data(), reply->bytes);
  // Stored before the answer.
  if (ring_.output_waits()) thread->output_seen = true;
  s.state.store(wire::kSlotFree, std::memory_order_relaxed);
  slot_used_[slot].store(false, std::memory_order_release);
}

std::int32_t Client::Wait(std::uint32_t slot, Reply* reply) {
  ThreadState* const thread = CurrentThread();
  gate_.Reenter(thread);
  Spinner spinner;
  std::int32_t error = 0;
  for (;;) {
    if (!Usable()) {
      error = kLostError;
      break;
    }
    if (ring_.slot(slot).state.load(std::memory_order_acquire) ==
        wire::kSlotDone) {
      TakeReply(thread, slot, reply);
      break;
    }
    if (!spinner.Spin()) {
      error = Park(thread, slot);
      if (error == 0) TakeReply(thread, slot, reply);
      break;
    }
  }
  gate_.Leave(thread);
  return error != 0 ? error : reply->result;
}

// Inside on entry and on return. 0: the slot is done.
std::int32_t Client::Park(ThreadState* thread, std::uint32_t slot) {
  Waiter& waiter = thread->waiter;
  waiter.slot.store(slot, std::memory_order_seq_cst);
  std::int32_t error = 0;
  for (;;) {
    waiter.word.store(0, std::memory_order_seq_cst);
    if (!Usable()) {
      error = kLostError;
      break;
    }
    std::uint32_t state = wire::kSlotPending;
    ring_.slot(slot).state.compare_exchange_strong(state, wire::kSlotParked,
                                                   std::memory_order_acq_rel);
    if (state == wire::kSlotDone) break;
    gate_.Leave(thread);
    FutexWait(&waiter.word, 0, FutexScope::kPrivate);
    gate_.Reenter(thread);
  }
  waiter.slot.store(wire::kNoSlot, std::memory_order_seq_cst);
  return error;
}

std::int32_t Client::Call(std::uint16_t op, std::span<const std::byte> args,
                          const Payload& payload, Reply* reply) {
  std::uint32_t slot = wire::kNoSlot;
  const std::int32_t error = Begin(op, args, payload, &slot);
  return error != 0 ? error : Wait(slot, reply);
}

std::uint32_t Client::AcquireLease(std::uint64_t bytes, bool wait) {
  ThreadState* const thread = CurrentThread();
  std::uint32_t lease = wire::kNoLease;
  gate_.Enter(thread);
  if (Usable()) lease = leases_.Acquire(&ring_, bytes);
  if (lease == wire::kNoLease && wait && Usable()) {
    thread->waiter.for_lease.store(true, std::memory_order_seq_cst);
    for (;;) {
      thread->waiter.word.store(0, std::memory_order_seq_cst);
      // Announced first, then looked again: the runner takes the announcement
      // back and rings after it has freed a lease.
      ring_.lease_waiters()->exchange(1, std::memory_order_acq_rel);
      lease = leases_.Acquire(&ring_, bytes);
      if (lease != wire::kNoLease) break;
      gate_.Leave(thread);
      // Bounded: room may also come from another thread of this process.
      FutexWait(&thread->waiter.word, 0, FutexScope::kPrivate, 2'000'000);
      gate_.Enter(thread);
      if (!Usable()) break;
    }
    thread->waiter.for_lease.store(false, std::memory_order_seq_cst);
  }
  gate_.Leave(thread);
  return lease;
}

void Client::ReleaseLease(std::uint32_t lease) {
  ThreadState* const thread = CurrentThread();
  gate_.Reenter(thread);
  if (Usable()) leases_.Release(&ring_, lease);
  gate_.Leave(thread);
}

}  // namespace pos::shim
