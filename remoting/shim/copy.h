// Copies between whatever a program's pointers point to.
#ifndef REMOTING_SHIM_COPY_H_
#define REMOTING_SHIM_COPY_H_

#include <cstdint>

#include "remoting/shim/driver_state.h"

namespace pos::shim {

enum class Where {
  kDevice,    // device arena
  kPinned,    // host window: client, runner and device see it
  kPageable,  // anything else of this process
};

Where Classify(std::uint64_t address);

// Copies `bytes` on `stream`. `wait`: as the synchronous calls do, return when
// the host may use what was copied; asynchronous calls wait only where CUDA's
// do (to pageable memory). CUDA_ERROR_INVALID_VALUE for a range that is not
// allocated.
CUresult CopyBytes(std::uint64_t stream, std::uint64_t dst, std::uint64_t src,
                   std::uint64_t bytes, bool wait);

// For a copy that `wait`s, where a kernel of `context` may print: CUDA would
// wait for the stream before it copies from pageable memory, so what the kernel
// prints comes before what the program prints next.
CUresult WaitForText(const Context& context, std::uint64_t stream, bool wait);

struct FillShape {
  std::uint64_t dst = 0;
  std::uint32_t value = 0;
  std::uint32_t width = 1;  // bytes of an element
  std::uint64_t count = 0;  // elements a row
  std::uint64_t rows = 1;
  std::uint64_t pitch = 0;
};
CUresult FillBytes(std::uint64_t stream, const FillShape& shape);

}  // namespace pos::shim

#endif  // REMOTING_SHIM_COPY_H_
