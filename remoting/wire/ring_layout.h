// Layout of the memory that a client shares with its runner: the call ring,
// the reply slots and the lease words (one memfd), and the staging arena (a
// second memfd). remoting/PROTOCOL.md tells the rules in prose; this file is
// the layout itself. Both sides are built from it, and a change of layout
// changes kRingVersion.
//
// Trust: the runner wrote the header before the client saw it and keeps its own
//   copy of every size; it never reads a size, an offset or an index back from
//   here. What it reads (frames, slot states, lease words) it copies first and
//   then checks. Both memfds are sealed against shrinking, so no access of the
//   runner can fault.
#ifndef REMOTING_WIRE_RING_LAYOUT_H_
#define REMOTING_WIRE_RING_LAYOUT_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace pos::wire {

inline constexpr std::uint32_t kRingMagic = 0x31534f50;  // "POS1"
inline constexpr std::uint32_t kRingVersion = 1;

// Frames start at multiples of this many bytes.
inline constexpr std::uint32_t kFrameAlign = 16;
// The largest frame: a launch with CUDA's limit of 32,764 parameter bytes, or
// kMaxInlineBytes of payload, and room for the fixed part.
inline constexpr std::uint32_t kMaxFrameBytes = 40 * 1024;
// Payloads up to this size travel in the frame, larger ones through staging.
inline constexpr std::uint32_t kMaxInlineBytes = 8 * 1024;

inline constexpr std::uint32_t kNoSlot = 0xffffffff;
inline constexpr std::uint32_t kNoLease = 0xffffffff;

// Unit of the staging arena.
inline constexpr std::uint32_t kLeaseBytes = 64 * 1024;

// Head of every frame; the fixed arguments of the call follow, then
// `inline_bytes` of payload.
struct FrameHeader {
  // 0 until the frame is complete, then its size in bytes, header and padding
  // included. Written last, with release.
  std::atomic<std::uint32_t> commit;
  std::uint16_t op;
  std::uint16_t flags;
  std::uint32_t args_bytes;
  std::uint32_t inline_bytes;
  std::uint32_t slot;   // where the reply goes, or kNoSlot
  std::uint32_t lease;  // first unit of a staging lease, or kNoLease
  // Chosen by the client, ascending within a session, never reused.
  std::uint64_t request_id;
  std::uint64_t bulk_bytes;  // bytes used or wanted in the lease
  std::uint64_t reserved;
};
static_assert(sizeof(FrameHeader) == 48);
static_assert(sizeof(FrameHeader) % kFrameAlign == 0);

enum FrameFlags : std::uint16_t {
  // The lease holds input; the runner frees it when it was consumed.
  kFrameBulkIn = 1,
  // The lease is where bulk output goes; the client frees it.
  kFrameBulkOut = 2,
};

// States of a reply slot. The client moves kFree → kPending → (kParked) and
// back to kFree; the runner moves kPending or kParked → kDone.
enum SlotState : std::uint32_t {
  kSlotFree = 0,
  kSlotPending = 1,  // the caller looks at the slot
  kSlotParked = 2,   // the caller sleeps: ring the client's bell
  kSlotDone = 3,
};

inline constexpr std::uint32_t kSlotDataBytes = 232;
struct alignas(64) ReplySlot {
  std::atomic<std::uint32_t> state;
  std::int32_t result;  // error code of the API
  std::uint32_t bytes;  // of `data`
  std::uint32_t flags;
  std::uint64_t bulk_bytes;  // written to the lease of the request
  std::array<std::byte, kSlotDataBytes> data;
};
static_assert(sizeof(ReplySlot) == 256);

struct RingHeader {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint64_t ring_offset;  // page-aligned; mapped twice in a row
  std::uint64_t ring_bytes;   // power of two
  std::uint64_t slots_offset;
  std::uint64_t leases_offset;
  std::uint32_t slot_count;
  std::uint32_t lease_count;

  // Client: bytes reserved since the beginning; the order of calls.
  alignas(64) std::atomic<std::uint64_t> tail;
  // Runner: bytes consumed since the beginning.
  alignas(64) std::atomic<std::uint64_t> head;
  // 1 while the runner sleeps (pos/queue/parker.h); the client wakes it.
  alignas(64) std::atomic<std::uint32_t> doorbell;
  // Runner: the sticky error of the session, 0 while there is none. The client
  // returns it at every later call.
  alignas(64) std::atomic<std::int32_t> sticky_error;
  // Runner: 1 when it serves no more.
  std::atomic<std::uint32_t> closed;
  // Runner: 1 while it holds text that kernels printed (the call
  // DeviceOutput). Set before the answer of a call for which the program waits
  // until those kernels have ended.
  std::atomic<std::uint32_t> output;
  // Client: 1 when a thread waits for staging. The runner puts it back to 0 and
  // rings the client's bell when it frees a lease.
  alignas(64) std::atomic<std::uint32_t> lease_waiters;
};

static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace pos::wire

#endif  // REMOTING_WIRE_RING_LAYOUT_H_
