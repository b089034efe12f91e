// The blob that says which handles a session has (ckpt/FORMAT.md, "Blobs").
//
// Threads: of the save; the session is paused.
// Memory:  the largest handles only.
#ifndef CKPT_ENGINE_HANDLE_BLOB_H_
#define CKPT_ENGINE_HANDLE_BLOB_H_

#include "ckpt/format/handle_summary.h"
#include "ckpt/pack/blob.h"
#include "pos/base/status.h"
#include "pos/runner/session.h"

namespace pos::ckpt {

[[nodiscard]] HandleSummary SummarizeHandles(const Session& session);
Result<Blob> WriteHandleBlob(const Session& session, PackWriter* packs);

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_HANDLE_BLOB_H_
