// One call of a client on its way through the runner.
//
// Ownership: exactly one stage owns a context at a time. It is taken from the
//   ContextPool by the front end and given back once, by whoever finishes it;
//   between, it belongs to the queue it is in or to the device work that names
//   it as its token.
// Threads:   as the owner.
#ifndef POS_CALL_API_CONTEXT_H_
#define POS_CALL_API_CONTEXT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "pos/call/call_info.h"
#include "remoting/wire/ring_layout.h"

namespace pos {

struct Handle;

struct ApiContext {
  // Frames up to this size are kept inside; a launch with 50 parameters fits.
  static constexpr std::size_t kFixedBytes = 576;

  // Position in the session's call order, from 1, without gaps.
  std::uint64_t pc = 0;
  const CallInfo* info = nullptr;
  std::uint64_t request_id = 0;
  std::uint32_t slot = wire::kNoSlot;
  std::uint32_t lease = wire::kNoLease;
  std::uint64_t bulk_bytes = 0;
  std::uint16_t flags = 0;  // wire::FrameFlags
  bool answered = false;    // the reply was sent
  bool parsed = false;

  // Set by the parser for the worker.
  std::array<Handle*, 3> handles{};
  std::array<std::uint64_t, 4> scratch{};
  // Further handles that the call takes along (all that is in a context).
  std::vector<Handle*> family;

  // The answer.
  std::int32_t result = 0;
  std::uint32_t reply_bytes = 0;
  std::uint64_t reply_bulk_bytes = 0;
  alignas(16) std::array<std::byte, wire::kSlotDataBytes> reply{};

  // The frame as the client sent it: header, fixed arguments, payload.
  std::uint32_t frame_bytes = 0;
  std::uint32_t inline_bytes = 0;
  alignas(16) std::array<std::byte, kFixedBytes> fixed{};
  std::vector<std::byte> overflow;  // used instead of `fixed` when larger
  // Bulk input that no longer lies in staging (a call restored from an image).
  std::vector<std::byte> owned_bulk;

  std::uint32_t pool_index = 0;  // set once by the pool
  bool in_pool = true;

  // Room for a frame of `bytes`; whatever was there is lost.
  std::span<std::byte> FrameBuffer(std::uint32_t bytes) {
    frame_bytes = bytes;
    if (bytes <= kFixedBytes) return {fixed.data(), bytes};
    overflow.resize(bytes);  // keeps its capacity between uses
    return overflow;
  }
  [[nodiscard]] const std::byte* frame() const {
    return frame_bytes <= kFixedBytes ? fixed.data() : overflow.data();
  }
  // T: the argument structure of this call; its size was checked against the
  // table when the frame was taken.
  template <typename T>
  [[nodiscard]] const T& Args() const {
    return *reinterpret_cast<const T*>(frame() + sizeof(wire::FrameHeader));
  }
  template <typename T>
  [[nodiscard]] T& MutableArgs() {
    return const_cast<T&>(Args<T>());
  }
  [[nodiscard]] std::span<const std::byte> Inline() const {
    return {frame() + sizeof(wire::FrameHeader) + info->args_bytes,
            inline_bytes};
  }
  [[nodiscard]] std::string_view InlineText() const {
    const std::span<const std::byte> bytes = Inline();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  // T: the result structure of this call.
  template <typename T>
  T& Out() {
    static_assert(sizeof(T) <= wire::kSlotDataBytes);
    reply_bytes = sizeof(T);
    return *reinterpret_cast<T*>(reply.data());
  }
  [[nodiscard]] bool wants_reply() const { return slot != wire::kNoSlot; }

  // Back to the state of a fresh one; buffers keep their capacity.
  void Reset();
  // Gives back the memory of buffers that grew.
  void DropBuffers();
};

}  // namespace pos

#endif  // POS_CALL_API_CONTEXT_H_
