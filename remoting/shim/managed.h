// Managed memory (cuMemAllocManaged): pinned host memory, which program and
// kernels see at one address, under another name. So it is coherent at all
// times, is saved and restored as pinned memory is, and never moves to the
// device; advice and prefetches are kept, to be told again, and change nothing.
//
// Threads: any.
#ifndef REMOTING_SHIM_MANAGED_H_
#define REMOTING_SHIM_MANAGED_H_

#include "remoting/shim/driver_state.h"

namespace pos::shim {

// Pinned or managed memory, according to `managed`; api_memory.cc.
CUresult AllocateHost(void** out, std::size_t bytes, unsigned flags,
                      bool managed);
// Of a range that has been taken out of the driver's ranges already.
CUresult ReleaseHost(const Range& range, const Payload& payload = {});

// Forgets what was advised for a range that is gone.
void ForgetAdvice(std::uint64_t address, std::uint64_t bytes);

}  // namespace pos::shim

#endif  // REMOTING_SHIM_MANAGED_H_
