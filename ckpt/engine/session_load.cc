#include "ckpt/engine/session_load.h"

#include <cstring>
#include <memory>

#include "ckpt/format/chunk_index.h"
#include "ckpt/pack/chunk_map.h"
#include "ckpt/pack/chunk_stream.h"
#include "ckpt/pack/pack_set.h"

namespace pos::ckpt {
namespace {

// The session's state, which lies behind its memory in the index but is needed
// first: it says where memory has to be.
Result<std::vector<std::byte>> ReadState(ByteSource* source,
                                         const PackSet* packs) {
  POS_ASSIGN_OR_RETURN(std::unique_ptr<IndexReader> index,
                       IndexReader::Open(source, "chunk index"));
  POS_ASSIGN_OR_RETURN(std::unique_ptr<ChunkMap> map,
                       ChunkMap::Open(std::move(index), packs));
  for (std::size_t i = 0; i < map->regions().size(); ++i) {
    const Region& region = map->regions()[i];
    if (region.kind != RegionKind::kBlob || region.name != "session") continue;
    std::vector<std::byte> state(region.bytes);
    ChunkMap::Reader reader(map.get());
    for (std::uint64_t offset = 0; offset < region.bytes;) {
      POS_ASSIGN_OR_RETURN(const ChunkEntry entry, map->Find(i, offset));
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

Status StorePiece(Session* session, const ChunkStream::Piece& piece) {
  const std::uint64_t address = piece.region->address + piece.offset;
  switch (piece.region->kind) {
    case RegionKind::kDeviceMemory: {
      const cuda::WorkerBlock* const block =
          session->memory().Find(piece.region->address);
      if (block == nullptr || block->bytes != piece.region->bytes ||
          static_cast<std::uint32_t>(block->device) != piece.region->device) {
        return Corrupt("device memory without an allocation");
      }
      return session->device(block->device)->Write(address, piece.data);
    }
    case RegionKind::kHostMemory: {
      const auto it = session->host_blocks().find(piece.region->address);
      if (it == session->host_blocks().end() ||
          it->second != piece.region->bytes) {
        return Corrupt("host memory without an allocation");
      }
      std::memcpy(reinterpret_cast<void*>(address), piece.data.data(),
                  piece.data.size());
      return {};
    }
    case RegionKind::kBlob:
      return {};
    case RegionKind::kDeviceArray:
      return Incompatible("the image holds device arrays");
  }
  return Incompatible("the image holds memory of an unknown kind");
}

}  // namespace

Result<std::uint64_t> LoadSession(Session* session, SessionLoadFiles files) {
  PackSet packs;
  for (auto& [id, fd] : files.packs) {
    POS_RETURN_IF_ERROR(packs.Add(id, std::move(fd)));
  }
  POS_ASSIGN_OR_RETURN(std::unique_ptr<FdSource> source,
                       FdSource::Open(files.index.get(), "chunk index"));
  POS_ASSIGN_OR_RETURN(const std::vector<std::byte> state,
                       ReadState(source.get(), &packs));
  POS_RETURN_IF_ERROR(session->Load(state));

  POS_ASSIGN_OR_RETURN(std::unique_ptr<IndexReader> index,
                       IndexReader::Open(source.get(), "chunk index"));
  POS_ASSIGN_OR_RETURN(
      std::unique_ptr<ChunkStream> stream,
      ChunkStream::Open(std::move(index), &packs, ChunkStreamOptions{}));
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

}  // namespace pos::ckpt
