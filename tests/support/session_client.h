// A client of a session, without the driver's API: sends the calls of
// calls.def through the ring and waits for their answers.
//
// Threads: one. Several clients may share one ring (each its own slots).
#ifndef POS_TESTS_SUPPORT_SESSION_CLIENT_H_
#define POS_TESTS_SUPPORT_SESSION_CLIENT_H_

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "pos/base/backoff.h"
#include "pos/base/clock.h"
#include "pos/cuda_impl/api/calls.h"
#include "remoting/transport/shm/ring_client.h"
#include "remoting/transport/shm/ring_server.h"

namespace pos {

// What a call carries besides its arguments.
struct CallExtra {
  std::span<const std::byte> inline_data{};
  std::uint32_t lease = wire::kNoLease;
  std::uint64_t bulk_bytes = 0;
  std::uint16_t flags = 0;
};

class SessionClient {
 public:
  static constexpr std::int32_t kNoAnswer = -12345;

  // Slots `first_slot` … `first_slot + slots - 1` are this client's.
  explicit SessionClient(RingServer* server, std::uint32_t first_slot = 0,
                         std::uint32_t slots = 64)
      : first_slot_(first_slot), slots_(slots) {
    ring_.Adopt(server->ring_memory(), server->staging_memory());
  }

  // Of a session in another process: the test maps `ring()`.
  struct Unmapped {};
  explicit SessionClient(Unmapped) : first_slot_(0), slots_(64) {}

  RingClient& ring() { return ring_; }
  StagingLeases& leases() { return leases_; }

  // What a test wants to happen in between; may Leave and Return. `calling`: a
  // call is about to be sent. `waiting`: an answer, or room in the staging
  // arena, is about to be waited for; told who answers.
  std::function<void()> calling;
  std::function<void(ReplyBy)> waiting;

  // As the client library does around a checkpoint: leaves all that is shared,
  // keeping answers that nobody has fetched and what is in staging; and finds
  // its place again in another session's memory.
  void Leave() {
    kept_.clear();
    for (std::uint32_t i = first_slot_; i < first_slot_ + slots_; ++i) {
      const wire::ReplySlot& s = ring_.slot(i);
      const std::uint32_t state = s.state.load(std::memory_order_acquire);
      if (state == wire::kSlotFree) continue;
      Kept kept;
      kept.slot = i;
      kept.done = state == wire::kSlotDone;
      kept.result = s.result;
      kept.bytes = s.bytes;
      kept.bulk_bytes = s.bulk_bytes;
      kept.data = s.data;
      kept_.push_back(kept);
    }
    leases_.Save(&ring_);
  }
  void Return(RingServer* server) {
    ring_.Adopt(server->ring_memory(), server->staging_memory());
    for (const Kept& kept : kept_) {
      wire::ReplySlot& s = ring_.slot(kept.slot);
      s.result = kept.result;
      s.bytes = kept.bytes;
      s.bulk_bytes = kept.bulk_bytes;
      s.data = kept.data;
      s.state.store(kept.done ? wire::kSlotDone : wire::kSlotPending,
                    std::memory_order_release);
    }
    EXPECT_TRUE(leases_.Restore(&ring_).ok());
  }

  using Extra = CallExtra;

  // Sends without a reply slot.
  template <typename Args>
  void Post(const Args& args, const Extra& extra = Extra()) {
    Write(args, extra, wire::kNoSlot);
  }
  // Sends and returns the slot in which the answer will be.
  template <typename Args>
  std::uint32_t Begin(const Args& args, const Extra& extra = Extra()) {
    std::uint32_t slot = first_slot_;
    while (ring_.slot(slot).state.load() != wire::kSlotFree) ++slot;
    EXPECT_LT(slot, first_slot_ + slots_)
        << "the test has more calls under way than slots";
    ring_.slot(slot).state.store(wire::kSlotPending);
    ops_[slot] = static_cast<std::uint16_t>(Args::kOp);
    Write(args, extra, slot);
    return slot;
  }
  [[nodiscard]] bool Answered(std::uint32_t slot) const {
    return ring_.slot(slot).state.load(std::memory_order_acquire) ==
           wire::kSlotDone;
  }
  // The result; kNoAnswer when none came within 20 s. Frees the slot.
  std::int32_t Await(std::uint32_t slot) {
    if (waiting) waiting(cuda::Calls()[ops_[slot]].reply);
    const Deadline deadline = Deadline::AfterMs(20000);
    Backoff backoff;
    while (!Answered(slot)) {
      if (deadline.Passed() || ring_.closed()) return kNoAnswer;
      backoff.Wait();
    }
    wire::ReplySlot& s = ring_.slot(slot);
    reply_.assign(s.data.begin(), s.data.begin() + s.bytes);
    reply_bulk_bytes_ = s.bulk_bytes;
    const std::int32_t result = s.result;
    s.state.store(wire::kSlotFree, std::memory_order_relaxed);
    return result;
  }
  template <typename Args>
  std::int32_t Call(const Args& args, const Extra& extra = Extra()) {
    return Await(Begin(args, extra));
  }
  // The results structure of the last answer.
  template <typename Out>
  Out Result() const {
    Out out{};
    EXPECT_EQ(reply_.size(), sizeof(Out));
    if (reply_.size() == sizeof(Out)) {
      std::memcpy(&out, reply_.data(), sizeof(Out));
    }
    return out;
  }
  [[nodiscard]] const std::vector<std::byte>& reply() const { return reply_; }
  [[nodiscard]] std::uint64_t reply_bulk_bytes() const {
    return reply_bulk_bytes_;
  }

  // --- Whole operations; results in EXPECTs. ---

  struct Context {
    std::uint64_t id = 0;
    std::uint64_t stream = 0;
  };
  Context MakeContext(std::int32_t device = 0) {
    EXPECT_EQ(Call(cuda::CtxCreateArgs{.device = device, .flags = 0}), 0);
    const auto out = Result<cuda::CtxCreateOut>();
    return {out.context, out.stream};
  }
  std::uint64_t Alloc(const Context& context, std::uint64_t bytes) {
    EXPECT_EQ(Call(cuda::MemAllocArgs{.context = context.id, .bytes = bytes}),
              0);
    return Result<cuda::MemAllocOut>().address;
  }
  std::uint64_t MakeStream(const Context& context, std::uint32_t flags = 1) {
    EXPECT_EQ(Call(cuda::StreamCreateArgs{
                  .context = context.id, .flags = flags, .priority = 0}),
              0);
    return Result<cuda::StreamCreateOut>().stream;
  }
  std::uint64_t MakeEvent(const Context& context) {
    EXPECT_EQ(Call(cuda::EventCreateArgs{
                  .context = context.id, .flags = 0, .reserved = 0}),
              0);
    return Result<cuda::EventCreateOut>().event;
  }
  // Host to device, inline or through staging.
  void CopyIn(std::uint64_t stream, std::uint64_t dst,
              std::span<const std::byte> bytes) {
    const cuda::CopyToDeviceArgs args{
        .stream = stream, .dst = dst, .bytes = bytes.size()};
    if (bytes.size() <= wire::kMaxInlineBytes) {
      Post(args, {.inline_data = bytes});
      return;
    }
    const std::uint32_t lease = AwaitLease(bytes.size());
    std::memcpy(ring_.Staging(lease), bytes.data(), bytes.size());
    Post(args, {.inline_data = {},
                .lease = lease,
                .bulk_bytes = bytes.size(),
                .flags = wire::kFrameBulkIn});
  }
  std::vector<std::byte> CopyOut(std::uint64_t stream, std::uint64_t src,
                                 std::uint64_t bytes) {
    const cuda::CopyFromDeviceArgs args{
        .stream = stream, .src = src, .bytes = bytes};
    if (bytes <= wire::kSlotDataBytes) {
      EXPECT_EQ(Call(args), 0);
      EXPECT_EQ(reply_.size(), bytes);
      return reply_;
    }
    const std::uint32_t lease = AwaitLease(bytes);
    EXPECT_EQ(Call(args, {.inline_data = {},
                          .lease = lease,
                          .bulk_bytes = bytes,
                          .flags = wire::kFrameBulkOut}),
              0);
    EXPECT_EQ(reply_bulk_bytes_, bytes);
    const std::byte* const at = ring_.Staging(lease);
    std::vector<std::byte> out(at, at + bytes);
    leases_.Release(&ring_, lease);
    return out;
  }
  // The parser has taken note of everything that the worker did before the last
  // answer.
  void Settle(const Context& context) {
    EXPECT_EQ(Call(cuda::MemGetInfoArgs{.context = context.id}), 0);
  }
  std::int32_t Sync(std::uint64_t stream) {
    return Call(cuda::StreamSynchronizeArgs{.stream = stream});
  }
  std::uint32_t AwaitLease(std::uint64_t bytes) {
    if (waiting) {
      const std::uint32_t lease = leases_.Acquire(&ring_, bytes);
      if (lease != wire::kNoLease) return lease;
      waiting(ReplyBy::kWorker);
    }
    const Deadline deadline = Deadline::AfterMs(20000);
    Backoff backoff;
    for (;;) {
      const std::uint32_t lease = leases_.Acquire(&ring_, bytes);
      if (lease != wire::kNoLease) return lease;
      if (deadline.Passed()) {
        ADD_FAILURE() << "no staging came free";
        return 0;
      }
      backoff.Wait();
    }
  }

 private:
  template <typename Args>
  void Write(const Args& args, const Extra& extra, std::uint32_t slot) {
    if (calling) calling();
    wire::FrameHeader* const frame = ring_.Begin(
        static_cast<std::uint16_t>(Args::kOp), cuda::kWireBytes<Args>,
        static_cast<std::uint32_t>(extra.inline_data.size()));
    if (frame == nullptr) {
      ADD_FAILURE() << "the ring is closed";
      return;
    }
    std::byte* const at = RingClient::Args(frame);
    std::memcpy(at, &args, cuda::kWireBytes<Args>);
    if (!extra.inline_data.empty()) {
      std::memcpy(at + cuda::kWireBytes<Args>, extra.inline_data.data(),
                  extra.inline_data.size());
    }
    frame->slot = slot;
    frame->lease = extra.lease;
    frame->bulk_bytes = extra.bulk_bytes;
    frame->flags = extra.flags;
    ring_.Commit(frame);
  }

  struct Kept {
    std::uint32_t slot = 0;
    bool done = false;
    std::int32_t result = 0;
    std::uint32_t bytes = 0;
    std::uint64_t bulk_bytes = 0;
    decltype(wire::ReplySlot::data) data{};
  };

  const std::uint32_t first_slot_;
  const std::uint32_t slots_;
  std::map<std::uint32_t, std::uint16_t> ops_;  // by slot
  std::vector<Kept> kept_;                      // while away
  RingClient ring_;
  StagingLeases leases_;
  std::vector<std::byte> reply_;
  std::uint64_t reply_bulk_bytes_ = 0;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_SESSION_CLIENT_H_
