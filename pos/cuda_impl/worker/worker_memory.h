// The session's device and host memory as the worker has executed it: which
// blocks exist, which ranges back them. This, not the parser's view, is what an
// image holds.
//
// Blocks that share a backing (small allocations in one slab) keep it mapped
// together; the last one to go unmaps it.
//
// Threads: the worker's.
#ifndef POS_CUDA_IMPL_WORKER_WORKER_MEMORY_H_
#define POS_CUDA_IMPL_WORKER_WORKER_MEMORY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/status.h"
#include "pos/cuda_impl/handles/objects.h"
#include "pos/device/device.h"
#include "pos/graph/handle_graph.h"

namespace pos::cuda {

struct WorkerBlock {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  std::uint64_t backing_address = 0;
  std::uint64_t backing_bytes = 0;
  std::int32_t device = 0;
  HandleId context = 0;
  // A free of it is under way, and will take it back whatever happens to its
  // context.
  bool releasing = false;
  // A call that gives it back, a free or the unloading of its module, has been
  // handed over: it may go at any moment while the session runs.
  bool leaving = false;
  // The device could not back it.
  bool unbacked = false;
  // A variable that the device's driver has placed: nothing is mapped here.
  bool foreign = false;
  // Physical memory that the client mapped here; 0: none.
  HandleId physical = 0;
  std::shared_ptr<PhysicalMemory> memory{};
  bool accessible = true;  // physical memory only
  // Counts what was mapped; of a restored session anew, by address.
  std::uint64_t made = 0;
};

class WorkerMemory {
 public:
  explicit WorkerMemory(std::vector<Device*> devices)
      : devices_(std::move(devices)) {}

  // Keeps the block also when the device cannot back it, so that it is freed
  // like any other.
  Status Map(const WorkerBlock& block);
  void MarkReleasing(std::uint64_t address);
  void MarkLeaving(std::uint64_t address);
  // False when there is no such block.
  bool Unmap(std::uint64_t address);
  // For mapped physical memory.
  void SetAccessible(std::uint64_t address, bool accessible);
  [[nodiscard]] bool IsMapped(HandleId physical) const;
  [[nodiscard]] const WorkerBlock* Find(std::uint64_t address) const;
  // The block that `address` lies in, or nullptr.
  [[nodiscard]] const WorkerBlock* FindContaining(std::uint64_t address) const;
  // Changes whenever physical memory is mapped or unmapped.
  [[nodiscard]] std::uint64_t mapping_changes() const {
    return mapping_changes_;
  }
  // By address.
  [[nodiscard]] const std::map<std::uint64_t, WorkerBlock>& blocks() const {
    return blocks_;
  }
  [[nodiscard]] std::uint64_t block_bytes() const { return block_bytes_; }

  void Save(ByteWriter* out) const;
  // Maps everything anew. `find`: the memory of a physical handle, or nullptr.
  using FindPhysical = std::function<std::shared_ptr<PhysicalMemory>(HandleId)>;
  Status Load(ByteReader* in, const FindPhysical& find);

 private:
  struct Backing {
    std::uint64_t bytes = 0;
    std::uint32_t blocks = 0;
  };
  Status Back(const WorkerBlock& block);
  void Unback(const WorkerBlock& block);

  const std::vector<Device*> devices_;
  std::map<std::uint64_t, WorkerBlock> blocks_;
  std::map<std::uint64_t, Backing> backings_;
  std::uint64_t block_bytes_ = 0;
  std::uint64_t made_ = 0;
  std::uint64_t mapping_changes_ = 0;
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_WORKER_WORKER_MEMORY_H_
