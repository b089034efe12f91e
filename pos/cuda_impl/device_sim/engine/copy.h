// Copies and fills of the simulated device, carried out by its threads.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_ENGINE_COPY_H_
#define POS_CUDA_IMPL_DEVICE_SIM_ENGINE_COPY_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "pos/cuda_impl/device_sim/engine/command.h"
#include "pos/cuda_impl/device_sim/engine/memory.h"

namespace pos::sim {

enum class Direction : std::uint8_t {
  kHostToDevice,
  kDeviceToHost,
  kDeviceToDevice,
  kHostToHost,
};

[[nodiscard]] Direction DirectionOf(const SimMemory& memory,
                                    const Command& command);

// Time on the links between host and device: copies of one direction share its
// bandwidth, directions do not disturb each other. Any thread.
class LinkPacer {
 public:
  // 0: no limit.
  explicit LinkPacer(std::uint64_t bytes_per_second)
      : bytes_per_second_(bytes_per_second) {}
  [[nodiscard]] bool limited() const { return bytes_per_second_ != 0; }
  // Books `bytes` and returns when they are through (MonotonicNs).
  std::uint64_t Book(Direction direction, std::uint64_t bytes);

 private:
  const std::uint64_t bytes_per_second_;
  std::array<std::atomic<std::uint64_t>, 4> free_at_ns_{};
};

// Carries out a copy or a fill on the calling thread. 0; the context's sticky
// error when that was set meanwhile (then a part may be done); or the fault,
// with the first bad address in *fault (then nothing is done). Waits for as
// long as the links take, a millisecond at a time.
//
// The error is CUDA_ERROR_ILLEGAL_ADDRESS: on a GPU the copy engine takes an
// MMU fault, which reaches the program asynchronously and poisons the context
// like a kernel's.
DeviceError RunCopy(SimMemory* memory, SimMemory::ReaderSlot* reader,
                    LinkPacer* pacer, const Command& command,
                    std::optional<std::uint64_t>* fault);

// The bytes move in words where alignment allows, so that a kernel polling a
// flag never sees half of it.
void MoveBytes(std::uint64_t dst, std::uint64_t src, std::uint64_t bytes);
// `count` elements of `width` 1, 2 or 4 bytes.
void FillElements(std::uint64_t dst, std::uint32_t value, std::uint32_t width,
                  std::uint64_t count);

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_ENGINE_COPY_H_
