// In which order a lazy restore should load a session's memory.
//
// Nothing is recorded of calls that run undisturbed, so what was allocated last
// counts as used last.
//
// Threads: the session is paused.
#ifndef CKPT_ENGINE_USE_ORDER_H_
#define CKPT_ENGINE_USE_ORDER_H_

#include <cstdint>
#include <map>

#include "pos/runner/session.h"

namespace pos::ckpt {

// Ranks as in a chunk index (1: the latest), by the allocations' addresses.
std::map<std::uint64_t, std::uint32_t> RankAllocations(const Session& session);

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_USE_ORDER_H_
