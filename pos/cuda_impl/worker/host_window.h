// Host memory that client, runner and device share: a file on tmpfs, mapped at
// the same addresses in both processes.
//
// Threads: the worker's.
#ifndef POS_CUDA_IMPL_WORKER_HOST_WINDOW_H_
#define POS_CUDA_IMPL_WORKER_HOST_WINDOW_H_

#include <cstdint>

#include "pos/base/status.h"

namespace pos::cuda {

class HostWindow {
 public:
  virtual ~HostWindow() = default;
  // Gives [address, address + bytes) memory and maps it in this process;
  // kOutOfMemory when there is none.
  virtual Status Map(std::uint64_t address, std::uint64_t bytes) = 0;
  // Maps a file that the client has sent, number `file`, where the client has
  // it; kTimeout when it does not come, kExists when something else is there.
  virtual Status MapFile(std::uint64_t /*address*/, std::uint64_t /*bytes*/,
                         std::uint64_t /*file*/, std::uint64_t /*offset*/) {
    return Incompatible("files of clients are not mapped here");
  }
  virtual void UnmapFile(std::uint64_t /*address*/, std::uint64_t /*bytes*/) {}
  // Gives the memory back. The client has unmapped it.
  virtual void Unmap(std::uint64_t address, std::uint64_t bytes) = 0;
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_WORKER_HOST_WINDOW_H_
