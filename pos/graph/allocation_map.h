// The session's memory: which ranges the client may use, for what, and whose
// they are. Looked up for every copy and every pointer argument.
//
// Threads: the parser's. Save and Load: while the stages are paused.
#ifndef POS_GRAPH_ALLOCATION_MAP_H_
#define POS_GRAPH_ALLOCATION_MAP_H_

#include <cstdint>
#include <map>

#include "pos/base/bytes.h"
#include "pos/base/status.h"
#include "pos/graph/handle_graph.h"

namespace pos {

enum class MemoryKind : std::uint8_t {
  kDevice = 1,      // device arena
  kVariable = 2,    // a module's variable, in the device arena
  kHost = 3,        // host window, shared with the client
  kRegistered = 5,  // the client's own shared memory, mapped here, too
  kMapped = 4,  // device arena: physical memory that the client mapped there
};

struct Allocation {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;        // as asked for
  std::uint64_t block_bytes = 0;  // as handed out
  MemoryKind kind = MemoryKind::kDevice;
  std::int32_t device = 0;
  HandleId context = 0;  // whose destruction frees it
  // The client freed it; its range waits until no work can use it any more.
  bool releasing = false;
};

class AllocationMap {
 public:
  void Add(const Allocation& allocation) {
    map_[allocation.address] = allocation;
  }
  void Remove(std::uint64_t address) { map_.erase(address); }
  // The allocation that starts at `address`, releasing ones included.
  [[nodiscard]] Allocation* At(std::uint64_t address);
  // The usable allocation that holds all of [address, address + bytes), or
  // nullptr. A zero-length range needs a valid start.
  [[nodiscard]] const Allocation* Find(std::uint64_t address,
                                       std::uint64_t bytes) const;
  [[nodiscard]] const std::map<std::uint64_t, Allocation>& all() const {
    return map_;
  }

  void Save(ByteWriter* out) const;
  Status Load(ByteReader* in);

 private:
  std::map<std::uint64_t, Allocation> map_;  // by address
};

}  // namespace pos

#endif  // POS_GRAPH_ALLOCATION_MAP_H_
