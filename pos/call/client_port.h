// How the stages talk back to the client, whatever transport it came by.
//
// Threads: Reply and ReleaseBulkIn: the owner of the context. SetSticky: the
//          worker. SetOutput: any, one at a time. All may run at once for
//          different contexts.
// Blocking: nothing blocks.
#ifndef POS_CALL_CLIENT_PORT_H_
#define POS_CALL_CLIENT_PORT_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "pos/call/api_context.h"

namespace pos {

class ClientPort {
 public:
  virtual ~ClientPort() = default;

  // Sends result, reply and reply_bulk_bytes of a context whose client waits
  // for them. Once per context.
  virtual void Reply(ApiContext* context) = 0;
  // The bulk input of `context`; inline bytes count, too. Stays valid until
  // ReleaseBulkIn. The client can still write to it: copy before parsing.
  [[nodiscard]] virtual std::span<const std::byte> BulkIn(
      const ApiContext& context) = 0;
  // Where bulk output goes: `context.bulk_bytes` of staging; empty when the
  // client gave no lease.
  [[nodiscard]] virtual std::span<std::byte> BulkOut(
      const ApiContext& context) = 0;
  // The bulk input was consumed. No effect when there was none.
  virtual void ReleaseBulkIn(ApiContext* context) = 0;
  // From now on every call of the client fails with `error` (0: no longer).
  virtual void SetSticky(std::int32_t error) = 0;
  // Whether text of kernels waits to be fetched.
  virtual void SetOutput(bool waiting) = 0;
};

}  // namespace pos

#endif  // POS_CALL_CLIENT_PORT_H_
