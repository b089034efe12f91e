// What a simulated device is made of.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_OPTIONS_H_
#define POS_CUDA_IMPL_DEVICE_SIM_OPTIONS_H_

#include <cstdint>
#include <string>

namespace pos::sim {

struct SimOptions {
  int ordinal = 0;  // PCI ids and uuid derive from it
  std::string name = "POS Simulated Device";
  std::uint64_t memory_bytes = 8ull << 30;
  // Threads that run kernels; 0: one per hardware thread.
  unsigned compute_threads = 0;
  // Threads that copy and fill: host to device and device to device on the
  // first, device to host on the second, device to device on the third, where
  // there are as many. 1 to 8.
  unsigned copy_engines = 2;
  // Per direction; 0: as fast as the host copies.
  std::uint64_t copy_bytes_per_second = 0;
  // Compute capability as major * 10 + minor: what PTX is chosen for.
  std::uint32_t compute_capability = 90;
  // The addresses that Map may back. Somebody else has reserved them in this
  // process (mmap, PROT_NONE) and keeps the reservation for the device's life.
  std::uint64_t arena_base = 0x200000000000;
  std::uint64_t arena_bytes = 4ull << 40;
};

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_OPTIONS_H_
