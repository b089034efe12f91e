// Memory pools. The runner has one allocator; pools are books that the client
// keeps: handles, thresholds, statistics.
#ifndef REMOTING_SHIM_POOLS_H_
#define REMOTING_SHIM_POOLS_H_

#include <cstdint>

#include "remoting/shim/driver.h"

namespace pos::shim {

// The current device's default pool; 0 without a current context.
std::uint64_t DefaultPool();
[[nodiscard]] bool KnownPool(CUmemoryPool pool);
// Books an allocation (or, negative, a free) of a pool.
void BookPool(std::uint64_t pool, std::int64_t bytes);

}  // namespace pos::shim

#endif  // REMOTING_SHIM_POOLS_H_
