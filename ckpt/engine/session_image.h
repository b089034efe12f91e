// A session of an image, opened by who restores it.
//
// Threads:   one, but for what ChunkMap and PackSet allow.
// Ownership: has the descriptors, for as long as it lives.
// Errors:    kCorrupt, kIncompatible: of the index, of a pack's header.
#ifndef CKPT_ENGINE_SESSION_IMAGE_H_
#define CKPT_ENGINE_SESSION_IMAGE_H_

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "ckpt/format/chunk_index.h"
#include "ckpt/format/id.h"
#include "ckpt/pack/chunk_map.h"
#include "ckpt/pack/pack_set.h"
#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos::ckpt {

struct SessionLoadFiles {
  UniqueFd index;
  std::vector<std::pair<PackId, UniqueFd>> packs;
};

class SessionImage {
 public:
  // Checks the whole index and the header of every pack, not the chunks.
  static Result<std::unique_ptr<SessionImage>> Open(SessionLoadFiles files);

  // The index from its start. Any number, one after the other or at once.
  Result<std::unique_ptr<IndexReader>> OpenIndex();
  [[nodiscard]] ChunkMap& map() { return *map_; }
  [[nodiscard]] const PackSet& packs() const { return packs_; }

  // The session's state, which lies behind its memory in the index but is
  // needed first: it says where memory has to be.
  Result<std::vector<std::byte>> ReadState();

 private:
  SessionImage() = default;

  UniqueFd index_;
  PackSet packs_;
  std::unique_ptr<FdSource> source_;
  std::unique_ptr<ChunkMap> map_;
};

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_SESSION_IMAGE_H_
