// The process's session: attach, calls, gate, detach, coming back.
//
// Threads: everything but the control thread's own part: any thread of the
//   program. One control thread a process serves the runner's requests; it
//   blocks all signals, holds no program state and survives checkpoints (it is
//   the one that waits for the verdict while the process is detached).
// Fork: a forked child has no session; its calls return "not initialized" for
//   ever, as CUDA's do, unless the parent had none either.
// Exit: nothing here is destroyed; calls from exit handlers work or fail, but
//   never fault.
#ifndef REMOTING_SHIM_CLIENT_H_
#define REMOTING_SHIM_CLIENT_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "remoting/shim/gate.h"
#include "remoting/transport/shm/ring_client.h"
#include "remoting/wire/attach.h"

namespace pos::shim {

// A reply, copied out of its slot.
struct Reply {
  std::int32_t result = 0;
  std::uint32_t bytes = 0;
  std::uint64_t bulk_bytes = 0;
  std::array<std::byte, wire::kSlotDataBytes> data;
};

// What a request carries besides its arguments.
struct Payload {
  std::span<const std::byte> inline_data{};
  std::uint32_t lease = wire::kNoLease;
  std::uint64_t bulk_bytes = 0;
  std::uint16_t flags = 0;  // wire::FrameFlags
  // Sent even when the session has a sticky error (destroying a context).
  bool despite_fault = false;
};

// What calls return when the session's runner is gone: CUDA_ERROR_DEVICE_
// UNAVAILABLE.
inline constexpr std::int32_t kLostError = 46;

class Client {
 public:
  static Client& Get();

  // Attaches if that has not happened. OK, or why there is no session.
  Status Attach() POS_EXCLUDES(attach_mu_);

  enum class State : std::uint32_t {
    kNone,      // not attached
    kAttached,  // also while detached for a checkpoint
    kLost,      // the runner is gone for good
    kForked,    // this is the child of a process that had a session
  };
  [[nodiscard]] State state() const {
    return state_.load(std::memory_order_acquire);
  }

  // The functions below return 0 or the error that the caller's API function
  // returns: the sticky error of the session, or kLostError.

  // Sends a call that has no reply.
  std::int32_t Send(std::uint16_t op, std::span<const std::byte> args,
                    const Payload& payload);
  // Sends a call and waits for its reply, whose result is returned, too.
  std::int32_t Call(std::uint16_t op, std::span<const std::byte> args,
                    const Payload& payload, Reply* reply);

  // Parts of Call, for several requests under way at once. Replies of requests
  // to one stream are waited for in the order of their sending.
  std::int32_t Begin(std::uint16_t op, std::span<const std::byte> args,
                     const Payload& payload, std::uint32_t* slot);
  std::int32_t Wait(std::uint32_t slot, Reply* reply);

  // A frame written in place, for calls that are worth it. After success the
  // thread is inside until EndFrame.
  std::int32_t BeginFrame(std::uint16_t op, std::uint32_t args_bytes,
                          std::uint32_t inline_bytes, bool despite_fault,
                          wire::FrameHeader** frame);
  void EndFrame(wire::FrameHeader* frame);

  // Staging. Acquire waits until there is room if `wait`; kNoLease when there
  // is none or the session is lost. Touch it only inside `WithStaging`, which
  // calls `body` with the lease's memory while no detach can happen.
  std::uint32_t AcquireLease(std::uint64_t bytes, bool wait = true);
  void ReleaseLease(std::uint32_t lease);
  template <typename Body>
  bool WithStaging(std::uint32_t lease, const Body& body) {
    ThreadState* const thread = CurrentThread();
    gate_.Reenter(thread);
    const bool there = ring_.mapped() && state() == State::kAttached;
    if (there) body(ring_.Staging(lease));
    gate_.Leave(thread);
    return there;
  }
  [[nodiscard]] std::uint64_t staging_bytes() const { return staging_bytes_; }

  // Constant after Attach.
  [[nodiscard]] std::uint64_t arena_base() const { return arena_base_; }
  [[nodiscard]] std::uint64_t arena_bytes() const { return arena_bytes_; }
  [[nodiscard]] std::uint64_t host_base() const { return host_base_; }
  [[nodiscard]] std::uint64_t host_bytes() const { return host_bytes_; }
  [[nodiscard]] std::uint32_t device_count() const { return device_count_; }

  // Maps a piece of the host window, which the runner has filled with memory.
  Status MapHost(std::uint64_t address, std::uint64_t bytes);
  void UnmapHost(std::uint64_t address, std::uint64_t bytes);
  // Sends the runner a file for HostRegister; its number, 0 when that fails.
  std::uint64_t SendFile(int file);

 private:
  static constexpr std::uint32_t kMaxSlots = 4096;

  Client() = default;
  Status AttachLocked(std::string path, wire::AttachKind kind,
                      const wire::Token& token) POS_REQUIRES(attach_mu_);
  Status Connect(const std::string& path, const wire::AttachRequest& request,
                 wire::AttachReply* reply);
  Status ReserveAddresses(const wire::AttachReply& reply);
  void InstallForkHandlers();
  void StartControlThread();

  // Control thread.
  void ControlLoop();
  void Serve();   // until the connection ends or a detach
  void OnBell();  // some replies or leases are there
  void OnGate(std::uint32_t epoch);
  bool OnDetach(std::uint32_t epoch);
  [[nodiscard]] bool VerdictCame();
  void WaitForVerdict();
  void Rejoin();
  void Lose(const char* why);
  bool SendRecord(wire::SessionRecordType type, std::uint32_t epoch,
                  std::uint64_t a, std::uint64_t b);
  void WakeFinished();
  // At a detach and after it, while no thread is inside.
  void SaveAnswers();
  void RestoreSlots();

  // Inside: a free slot, marked as used; kNoSlot when all are taken.
  std::uint32_t TakeSlot(ThreadState* thread);
  std::int32_t Park(ThreadState* thread, std::uint32_t slot);
  void TakeReply(ThreadState* thread, std::uint32_t slot, Reply* reply);
  [[nodiscard]] bool Usable() const { return state() == State::kAttached; }

  std::atomic<State> state_{State::kNone};
  Mutex attach_mu_;
  Gate gate_;
  RingClient ring_;
  StagingLeases leases_;
  std::array<std::atomic<bool>, kMaxSlots> slot_used_{};

  // Set by Attach, then the control thread's.
  UniqueFd socket_;
  UniqueFd bell_;
  UniqueFd host_file_;
  std::string attach_path_;
  wire::Verdict verdict_;         // written from outside, too
  std::uint32_t left_epoch_ = 0;  // of the latest detach
  std::uint32_t attach_count_ = 0;
  // Answers that had come before a detach and were not fetched yet.
  struct Answer {
    std::uint32_t slot;
    std::int32_t result;
    std::uint32_t bytes;
    std::uint32_t flags;
    std::uint64_t bulk_bytes;
    std::array<std::byte, wire::kSlotDataBytes> data;
  };
  std::vector<Answer> answers_;
  std::uint32_t slots_before_ = 0;

  std::uint64_t staging_bytes_ = 0;
  std::uint64_t arena_base_ = 0;
  std::uint64_t arena_bytes_ = 0;
  std::uint64_t host_base_ = 0;
  std::uint64_t host_bytes_ = 0;
  std::uint32_t device_count_ = 0;
  bool reserved_ = false;
  std::atomic<std::uint64_t> files_sent_{0};
};

}  // namespace pos::shim

#endif  // REMOTING_SHIM_CLIENT_H_
