// What the core needs to know about one kind of call. The rows come from a
// table of the API that is served (pos/cuda_impl/api/calls.def for CUDA); the
// core knows no call by name.
#ifndef POS_CALL_CALL_INFO_H_
#define POS_CALL_CALL_INFO_H_

#include <cstdint>
#include <span>

namespace pos {

// Who answers a call, if anybody.
enum class ReplyBy : std::uint8_t {
  kNobody,   // never has a reply slot; faults are reported later
  kParser,   // values that only the parser decides (addresses, handle ids)
  kWorker,   // when it was executed or, where the call asks so, completed
  kOptional  // by the worker if the caller gave a slot
};

// What may come along besides the fixed arguments.
enum class Payload : std::uint8_t {
  kNone,
  kInline,   // bytes in the frame
  kBulkIn,   // bytes in the frame, or in a staging lease when they are many
  kBulkOut,  // a staging lease to write to, or bytes in the reply slot
  kInlineBulkOut,  // bytes in the frame and a lease to write to
};

struct CallInfo {
  std::uint16_t op = 0;  // wire id; the row's index in the table
  const char* name = nullptr;
  std::uint32_t args_bytes = 0;  // exact size of the fixed arguments
  std::uint32_t out_bytes = 0;   // exact size of the fixed results
  ReplyBy reply = ReplyBy::kNobody;
  Payload payload = Payload::kNone;
};

// Indexed by op; rows without a name are not calls.
using CallTable = std::span<const CallInfo>;

}  // namespace pos

#endif  // POS_CALL_CALL_INFO_H_
