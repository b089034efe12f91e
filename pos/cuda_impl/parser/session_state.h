// What a session is, as far as the parser decides it: handles, addresses,
// memory books. The worker's share is in pos/cuda_impl/worker.
//
// Threads: the parser's, but for `devices`, `layout` and `ledger`, which are
//   constant or thread-safe, and for handles that were passed on to the worker
//   (pos/graph/handle_graph.h says which fields are whose).
#ifndef POS_CUDA_IMPL_PARSER_SESSION_STATE_H_
#define POS_CUDA_IMPL_PARSER_SESSION_STATE_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/status.h"
#include "pos/cuda_impl/handles/objects.h"
#include "pos/device/device.h"
#include "pos/graph/address_space.h"
#include "pos/graph/allocation_map.h"
#include "pos/graph/handle_graph.h"
#include "pos/graph/ledger.h"

namespace pos::cuda {

// How a session's address ranges are divided. Agreed when the client attaches
// and kept for the session's life, images included.
struct ArenaLayout {
  // A session's arena is cut into this many equal parts, one a device.
  static constexpr std::uint64_t kDevices = 8;

  std::uint64_t arena_base = 0;
  std::uint64_t arena_bytes = 0;
  std::uint64_t host_base = 0;
  std::uint64_t host_bytes = 0;

  [[nodiscard]] std::uint64_t PartBytes() const {
    return arena_bytes / kDevices;
  }
  [[nodiscard]] std::uint64_t PartBase(int device) const {
    return arena_base + static_cast<std::uint64_t>(device) * PartBytes();
  }
  // The last sixteenth of a part is for variables of modules, which the worker
  // places when it loads them.
  [[nodiscard]] std::uint64_t VariableBytes() const { return PartBytes() / 16; }
  [[nodiscard]] std::uint64_t BlockBytes() const {
    return PartBytes() - VariableBytes();
  }
  [[nodiscard]] std::uint64_t VariableBase(int device) const {
    return PartBase(device) + BlockBytes();
  }
  // kInvalid names what does not fit; both ranges are multiples of 2 MiB and
  // do not overlap.
  [[nodiscard]] Status Check() const;
};

// parser_word of a context: its device. Of a stream: whether it is its
// context's default stream, which is created and destroyed with the context.
inline constexpr std::uint64_t kDefaultStream = 1;

// Notices that the worker posts (pos/parser/parser.h).
enum NoticeKinds : std::uint32_t {
  kNoticeHandleGone = 1,    // handle: no device object is left
  kNoticeRangeFree = 2,     // a: address of a device block
  kNoticeHostFree = 3,      // a: address in the host window
  kNoticeVariable = 4,      // a: address, b: bytes, c: module's device; handle:
                            // the context
  kNoticeVariableGone = 5,  // a: address
  kNoticeHandleMade = 6,    // handle: there is a device object
  kNoticeMappingGone = 12,  // a: address of what PhysicalMap had mapped
};

// Code images take memory of the runner's host, which nobody grants: a client
// gets so much of it. CUDA's libraries together have less than half.
class CodeMemory {
 public:
  CodeMemory() = default;
  explicit CodeMemory(std::uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  CodeMemory(const CodeMemory&) = delete;
  CodeMemory& operator=(const CodeMemory&) = delete;

  // nullptr when that would be more than the limit. Counted until it is gone,
  // on whatever thread that happens; this has to outlive it.
  std::shared_ptr<Blob> NewBlob(std::uint64_t bytes);

 private:
  const std::uint64_t limit_bytes_ = std::uint64_t{4} << 30;
  std::atomic<std::uint64_t> bytes_{0};
};

struct SessionState {
  SessionState(std::vector<Device*> devices_in, const ArenaLayout& layout_in,
               MemoryLedger* ledger_in);

  const std::vector<Device*> devices;
  const ArenaLayout layout;
  MemoryLedger* const ledger;

  CodeMemory code;  // before what holds blobs
  HandleGraph graph;
  std::vector<BlockAllocator> blocks;  // one a device
  AddressSpace host;                   // the host window
  AllocationMap allocations;
  // Ranges of device addresses that the client maps memory to itself.
  struct Reservation {
    std::uint64_t bytes = 0;
    std::int32_t device = 0;
  };
  std::map<std::uint64_t, Reservation> reservations;  // by address
  // Freed by the client, still in use by the device.
  std::uint64_t releasing = 0;

  // While paused. Blobs are saved here, too.
  void Save(ByteWriter* out) const;
  Status Load(ByteReader* in);
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_PARSER_SESSION_STATE_H_
