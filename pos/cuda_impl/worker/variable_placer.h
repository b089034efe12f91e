// Places what modules bring along: at fresh addresses, or, when a recipe is
// replayed, at those recorded, in the same order.
//
// Threads: the worker's. Place waits for the ledger, which answers within its
//   bound.
#ifndef POS_CUDA_IMPL_WORKER_VARIABLE_PLACER_H_
#define POS_CUDA_IMPL_WORKER_VARIABLE_PLACER_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/parser/session_state.h"
#include "pos/cuda_impl/worker/worker_memory.h"
#include "pos/device/device.h"

namespace pos::cuda {

class VariablePlacer : public ModulePlacer {
 public:
  VariablePlacer(BlockAllocator* space, WorkerMemory* memory,
                 MemoryLedger* ledger, int device, HandleId context,
                 const std::vector<std::uint64_t>* recorded)
      : space_(space),
        memory_(memory),
        ledger_(ledger),
        device_(device),
        context_(context),
        recorded_(recorded) {}

  Result<DeviceAddress> Place(std::string_view name, std::uint64_t bytes,
                              std::uint64_t alignment) override;

  // What was placed of the module's own, also what then failed: the caller
  // gives it back.
  std::vector<std::uint64_t>& placed() { return placed_; }
  // Where the context's heap was placed, likewise; 0: it was not.
  [[nodiscard]] std::uint64_t heap() const { return heap_; }
  [[nodiscard]] std::uint64_t heap_bytes() const { return heap_bytes_; }

 private:
  bool TakeMemory(std::uint64_t bytes);

  BlockAllocator* const space_;
  WorkerMemory* const memory_;
  MemoryLedger* const ledger_;
  const int device_;
  const HandleId context_;
  const std::vector<std::uint64_t>* const recorded_;
  std::vector<std::uint64_t> placed_;
  std::uint64_t heap_ = 0;
  std::uint64_t heap_bytes_ = 0;
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_WORKER_VARIABLE_PLACER_H_
