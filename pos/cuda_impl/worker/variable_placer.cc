#include "pos/cuda_impl/worker/variable_placer.h"

#include <algorithm>
#include <string>

#include "pos/base/clock.h"

namespace pos::cuda {

Result<DeviceAddress> VariablePlacer::Place(std::string_view name,
                                            std::uint64_t bytes,
                                            std::uint64_t) {
  const bool is_heap = name == ".heap";
  if (recorded_ != nullptr && !is_heap) {
    // Memory and allocator were restored before.
    if (placed_.size() >= recorded_->size()) {
      return Incompatible("module has more variables than recorded");
    }
    placed_.push_back((*recorded_)[placed_.size()]);
    return placed_.back();
  }
  if (recorded_ != nullptr) {
    return Incompatible("module wants a heap, and none is recorded");
  }
  const std::uint64_t wanted = std::max<std::uint64_t>(bytes, 1);
  const std::uint64_t backing = space_->NewBackingBytes(wanted);
  if (backing != 0 && !TakeMemory(backing)) {
    return OutOfMemory("no memory for variable " + std::string(name));
  }
  const auto block = space_->Allocate(wanted);
  if (!block) {
    if (backing != 0) ledger_->GiveBack(device_, backing);
    return OutOfMemory("no room for variable " + std::string(name));
  }
  if (is_heap) {
    heap_ = block->address;
    heap_bytes_ = bytes;
  } else {
    placed_.push_back(block->address);
  }
  const Status status = memory_->Map({.address = block->address,
                                      .bytes = block->bytes,
                                      .backing_address = block->backing.address,
                                      .backing_bytes = block->backing.bytes,
                                      .device = device_,
                                      .context = context_});
  if (!status.ok()) return status;
  return block->address;
}

bool VariablePlacer::TakeMemory(std::uint64_t bytes) {
  for (;;) {
    const MemoryLedger::Answer answer = ledger_->Take(device_, bytes);
    if (answer != MemoryLedger::Answer::kPending) {
      return answer == MemoryLedger::Answer::kGranted;
    }
    SleepNs(100'000);
  }
}

}  // namespace pos::cuda
