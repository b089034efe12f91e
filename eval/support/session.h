// A session on a device, and a client of it in the same process; on the null
// device: what a call costs when nothing has to be done.
//
// The client waits as the client library does: it looks, giving the processor
// away about once a microsecond, and never sleeps longer.
#ifndef POS_EVAL_SUPPORT_SESSION_H_
#define POS_EVAL_SUPPORT_SESSION_H_

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "pos/base/backoff.h"
#include "pos/cuda_impl/api/calls.h"
#include "pos/device/null_device.h"
#include "pos/runner/session.h"
#include "remoting/transport/shm/ring_client.h"

namespace pos::eval {

inline void Check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

class GrantAll : public MemoryLedger {
 public:
  Answer Take(int, std::uint64_t) override { return Answer::kGranted; }
  void GiveBack(int, std::uint64_t) override {}
  [[nodiscard]] std::uint64_t FreeBytes(int) const override { return 0; }
};

class NoWindow : public cuda::HostWindow {
 public:
  Status Map(std::uint64_t, std::uint64_t) override { return {}; }
  void Unmap(std::uint64_t, std::uint64_t) override {}
};

class NullSession {
 public:
  explicit NullSession(int stage_threads)
      : NullSession(stage_threads, NewNullDevice(std::uint64_t{1} << 30)) {}
  // On another device, whose memory lies in Layout's first part.
  NullSession(int stage_threads, std::unique_ptr<Device> device)
      : device_(std::move(device)) {
    SessionOptions options;
    options.layout = Layout();
    options.stage_threads = stage_threads;
    options.ring.staging_bytes = 4 << 20;
    auto made = Session::Create(
        options, {device_.get()}, &ledger_, &window_,
        [](const Status&) { Check(false, "well-formed frames"); });
    Check(made.ok(), "create a session");
    session_ = std::move(*made);
    session_->Start();
  }
  Session* operator->() { return session_.get(); }
  RingServer* ring() { return session_->ring(); }

  static cuda::ArenaLayout Layout() {
    return {.arena_base = 0x200000000000,
            .arena_bytes = std::uint64_t{4} << 40,
            .host_base = 0x240000000000,
            .host_bytes = std::uint64_t{1} << 30};
  }

 private:
  GrantAll ledger_;
  NoWindow window_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Session> session_;
};

class NullClient {
 public:
  // One caller a slot.
  NullClient(NullSession* session, std::uint32_t slot) : slot_(slot) {
    ring_.Adopt(session->ring()->ring_memory(),
                session->ring()->staging_memory());
  }

  template <typename Args>
  void Post(const Args& args) {
    Write(args, wire::kNoSlot, {}, false);
  }
  // With a payload; `lease`: the first one is where bulk output goes.
  template <typename Args>
  std::int32_t Call(const Args& args, std::span<const std::byte> inline_data,
                    bool lease = false) {
    wire::ReplySlot& slot = ring_.slot(slot_);
    slot.state.store(wire::kSlotPending, std::memory_order_relaxed);
    Write(args, slot_, inline_data, lease);
    AwaitSlot();
    return slot.result;
  }
  template <typename Out>
  [[nodiscard]] Out Result() const {
    Out out;
    std::memcpy(&out, ring_.slot(slot_).data.data(), sizeof(Out));
    return out;
  }
  // The result, and what came with it in `*out`.
  template <typename Args, typename Out>
  std::int32_t Call(const Args& args, Out* out) {
    const std::int32_t result = Call(args);
    std::memcpy(out, ring_.slot(slot_).data.data(), sizeof(Out));
    return result;
  }
  template <typename Args>
  std::int32_t Call(const Args& args) {
    return Call(args, std::span<const std::byte>());
  }

  // Ids of a context and its default stream.
  cuda::CtxCreateOut MakeContext() {
    cuda::CtxCreateOut out;
    Check(Call(cuda::CtxCreateArgs{.device = 0, .flags = 0}, &out) == 0,
          "create a context");
    return out;
  }
  std::uint64_t MakeEvent(std::uint64_t context) {
    cuda::EventCreateOut out;
    Check(Call(
              cuda::EventCreateArgs{
                  .context = context, .flags = 0, .reserved = 0},
              &out) == 0,
          "create an event");
    return out.event;
  }

 private:
  void AwaitSlot() {
    const wire::ReplySlot& slot = ring_.slot(slot_);
    while (slot.state.load(std::memory_order_acquire) != wire::kSlotDone) {
      Spinner spinner;
      while (slot.state.load(std::memory_order_acquire) != wire::kSlotDone &&
             spinner.Spin()) {
      }
    }
  }
  template <typename Args>
  void Write(const Args& args, std::uint32_t slot,
             std::span<const std::byte> inline_data, bool lease) {
    wire::FrameHeader* const frame = ring_.Begin(
        static_cast<std::uint16_t>(Args::kOp), cuda::kWireBytes<Args>,
        static_cast<std::uint32_t>(inline_data.size()));
    Check(frame != nullptr, "write a frame");
    std::byte* const at = RingClient::Args(frame);
    std::memcpy(at, &args, cuda::kWireBytes<Args>);
    if (!inline_data.empty()) {
      std::memcpy(at + cuda::kWireBytes<Args>, inline_data.data(),
                  inline_data.size());
    }
    frame->slot = slot;
    if (lease) {
      frame->lease = 0;
      frame->bulk_bytes = wire::kLeaseBytes;
      frame->flags = wire::kFrameBulkOut;
    }
    ring_.Commit(frame);
  }

  RingClient ring_;
  const std::uint32_t slot_;
};

}  // namespace pos::eval

#endif  // POS_EVAL_SUPPORT_SESSION_H_
