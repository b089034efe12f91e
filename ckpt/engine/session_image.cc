#include "ckpt/engine/session_image.h"

#include <cstring>
#include <span>

namespace pos::ckpt {

Result<std::unique_ptr<SessionImage>> SessionImage::Open(
    SessionLoadFiles files) {
  std::unique_ptr<SessionImage> image(new SessionImage());
  for (auto& [id, fd] : files.packs) {
    POS_RETURN_IF_ERROR(image->packs_.Add(id, std::move(fd)));
  }
  image->index_ = std::move(files.index);
  POS_ASSIGN_OR_RETURN(image->source_,
                       FdSource::Open(image->index_.get(), "chunk index"));
  POS_ASSIGN_OR_RETURN(std::unique_ptr<IndexReader> index, image->OpenIndex());
  POS_ASSIGN_OR_RETURN(image->map_,
                       ChunkMap::Open(std::move(index), &image->packs_));
  return image;
}

Result<std::unique_ptr<IndexReader>> SessionImage::OpenIndex() {
  return IndexReader::Open(source_.get(), "chunk index");
}

Result<std::vector<std::byte>> SessionImage::ReadState() {
  for (std::size_t i = 0; i < map_->regions().size(); ++i) {
    const Region& region = map_->regions()[i];
    if (region.kind != RegionKind::kBlob || region.name != "session") continue;
    std::vector<std::byte> state(region.bytes);
    ChunkMap::Reader reader(map_.get());
    for (std::uint64_t offset = 0; offset < region.bytes;) {
      POS_ASSIGN_OR_RETURN(const ChunkEntry entry, map_->Find(i, offset));
      if (!entry.zero()) {
        POS_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes,
                             reader.Read(entry));
        std::memcpy(state.data() + entry.offset, bytes.data(), bytes.size());
      }
      offset = entry.offset + entry.bytes;
    }
    return state;
  }
  return Corrupt("the image holds no session state");
}

}  // namespace pos::ckpt
