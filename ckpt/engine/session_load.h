// Makes a session of what an image holds.
//
// Threads:  one.
// Memory:   the chunk stream's and the state itself.
// Errors:   kCorrupt, kIncompatible, kOutOfMemory; the session is then of no
//           use.
#ifndef CKPT_ENGINE_SESSION_LOAD_H_
#define CKPT_ENGINE_SESSION_LOAD_H_

#include <cstdint>
#include <memory>

#include "ckpt/engine/lazy_load.h"
#include "ckpt/engine/session_image.h"
#include "pos/base/status.h"
#include "pos/runner/session.h"

namespace pos::ckpt {

// `session`: fresh, not started. On OK all state and memory are there. Returns
// the bytes of memory that were loaded.
Result<std::uint64_t> LoadSession(Session* session, SessionLoadFiles files);

// Likewise, but on OK only the state and host memory are there. Device memory
// comes with what is returned, which the caller makes the session's watch, and
// begins, before it starts the session.
Result<std::unique_ptr<LazyLoad>> LoadSessionLazily(
    Session* session, SessionLoadFiles files, const LazyLoadOptions& options);

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_SESSION_LOAD_H_
