#include "ckpt/engine/session_load.h"

#include <cstring>
#include <memory>

#include "ckpt/format/chunk_index.h"
#include "ckpt/pack/chunk_stream.h"

namespace pos::ckpt {
namespace {

// The allocation that a region of device memory is.
Result<const cuda::WorkerBlock*> BlockOf(const Session& session,
                                         const Region& region) {
  const cuda::WorkerBlock* const block = session.memory().Find(region.address);
  if (block == nullptr || block->bytes != region.bytes ||
      static_cast<std::uint32_t>(block->device) != region.device) {
    return Corrupt("device memory without an allocation");
  }
  return block;
}

Status CheckHostBlock(const Session& session, const Region& region) {
  const auto it = session.host_blocks().find(region.address);
  if (it == session.host_blocks().end() || it->second != region.bytes) {
    return Corrupt("host memory without an allocation");
  }
  return {};
}

Status StorePiece(Session* session, const ChunkStream::Piece& piece) {
  const std::uint64_t address = piece.region->address + piece.offset;
  switch (piece.region->kind) {
    case RegionKind::kDeviceMemory: {
      POS_ASSIGN_OR_RETURN(const cuda::WorkerBlock* const block,
                           BlockOf(*session, *piece.region));
      return session->device(block->device)->Write(address, piece.data);
    }
    case RegionKind::kHostMemory:
      POS_RETURN_IF_ERROR(CheckHostBlock(*session, *piece.region));
      std::memcpy(reinterpret_cast<void*>(address), piece.data.data(),
                  piece.data.size());
      return {};
    case RegionKind::kBlob:
      return {};
    case RegionKind::kDeviceArray:
      return Incompatible("the image holds device arrays");
  }
  return Incompatible("the image holds memory of an unknown kind");
}

}  // namespace

Result<std::uint64_t> LoadSession(Session* session, SessionLoadFiles files) {
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<SessionImage> image,
                       SessionImage::Open(std::move(files)));
  POS_ASSIGN_OR_RETURN(const std::vector<std::byte> state, image->ReadState());
  POS_RETURN_IF_ERROR(session->Load(state));
  POS_ASSIGN_OR_RETURN(std::unique_ptr<IndexReader> index, image->OpenIndex());
  POS_ASSIGN_OR_RETURN(std::unique_ptr<ChunkStream> stream,
                       ChunkStream::Open(std::move(index), &image->packs(),
                                         ChunkStreamOptions{}));
  std::uint64_t bytes = 0;
  for (;;) {
    POS_ASSIGN_OR_RETURN(ChunkStream::Piece piece, stream->Next());
    if (piece.what == ChunkStream::Piece::What::kEnd) return bytes;
    bytes += piece.bytes;
    // Fresh memory is zero; a region as such is nothing to store.
    if (piece.what != ChunkStream::Piece::What::kData) continue;
    POS_RETURN_IF_ERROR(StorePiece(session, piece));
  }
}

Result<std::unique_ptr<LazyLoad>> LoadSessionLazily(
    Session* session, SessionLoadFiles files, const LazyLoadOptions& options) {
  POS_ASSIGN_OR_RETURN(std::unique_ptr<SessionImage> image,
                       SessionImage::Open(std::move(files)));
  POS_ASSIGN_OR_RETURN(const std::vector<std::byte> state, image->ReadState());
  POS_RETURN_IF_ERROR(session->Load(state));
  std::vector<LazyLoad::Target> targets;
  const std::vector<Region>& regions = image->map().regions();
  for (std::size_t i = 0; i < regions.size(); ++i) {
    LazyLoad::Target target;
    target.region = i;
    switch (regions[i].kind) {
      case RegionKind::kDeviceMemory: {
        POS_ASSIGN_OR_RETURN(const cuda::WorkerBlock* const block,
                             BlockOf(*session, regions[i]));
        target.device = session->device(block->device);
        target.shared = block->physical;
        break;
      }
      case RegionKind::kHostMemory:
        // The program itself may look at it at any time.
        POS_RETURN_IF_ERROR(CheckHostBlock(*session, regions[i]));
        target.eager = true;
        break;
      case RegionKind::kBlob:
        continue;
      default:
        return Incompatible("the image holds memory of an unknown kind");
    }
    targets.push_back(target);
  }
  POS_ASSIGN_OR_RETURN(std::unique_ptr<LazyLoad> load,
                       LazyLoad::Create(std::move(image), targets, options));
  POS_RETURN_IF_ERROR(load->LoadEager());
  return load;
}

}  // namespace pos::ckpt
