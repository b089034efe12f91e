// Makes a session of what an image holds.
//
// Threads:  one.
// Memory:   the chunk stream's and the state itself.
// Errors:   kCorrupt, kIncompatible, kOutOfMemory; the session is then of no
//           use.
#ifndef CKPT_ENGINE_SESSION_LOAD_H_
#define CKPT_ENGINE_SESSION_LOAD_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "ckpt/format/id.h"
#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/runner/session.h"

namespace pos::ckpt {

struct SessionLoadFiles {
  UniqueFd index;
  std::vector<std::pair<PackId, UniqueFd>> packs;
};

// `session`: fresh, not started. On OK all state and memory are there. Returns
// the bytes of memory that were loaded.
Result<std::uint64_t> LoadSession(Session* session, SessionLoadFiles files);

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_SESSION_LOAD_H_
