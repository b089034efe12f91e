#include "ckpt/pack/session_writer.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "pos/base/clock.h"

namespace pos::ckpt {

Result<std::unique_ptr<SessionWriter>> SessionWriter::Create(
    SessionFiles files, PackWriterOptions options) {
  std::unique_ptr<SessionWriter> writer(new SessionWriter);
  options.digest_seed = files.digest_seed;
  options.chunk_bytes = files.chunk_bytes;
  options.known = nullptr;
  writer->pack_ids_.push_back(files.pack_id);
  if (files.known.valid()) {
    POS_ASSIGN_OR_RETURN(
        std::shared_ptr<const KnownTable> known,
        KnownTable::Open(files.known.get(), "table of known chunks"));
    writer->pack_ids_.insert(writer->pack_ids_.end(), known->packs().begin(),
                             known->packs().end());
    options.known = std::move(known);
  }
  writer->index_numbers_.assign(writer->pack_ids_.size(), -1);
  POS_ASSIGN_OR_RETURN(writer->packs_,
                       PackWriter::Create(std::move(files.pack), options));
  writer->index_fd_ = std::move(files.index);
  IndexHead head;
  head.session = files.session;
  head.digest_seed = files.digest_seed;
  head.chunk_bytes = files.chunk_bytes;
  writer->index_ = std::make_unique<IndexWriter>(
      writer->index_fd_.get(),
      "index of session " + std::to_string(files.session), files.store,
      WallClockMs(), head);
  return writer;
}

Status SessionWriter::BeginRegion(const Region& region) {
  return index_->BeginRegion(region);
}

Status SessionWriter::AddChunk(const ChunkRef& ref, std::uint32_t rank) {
  if (ref.zero()) return index_->AddZeros(ref.bytes);
  if (ref.pack >= pack_ids_.size()) {
    return Invalid("a chunk lies in pack number " + std::to_string(ref.pack) +
                   " of " + std::to_string(pack_ids_.size()));
  }
  std::int64_t& number = index_numbers_[ref.pack];
  if (number < 0) {
    POS_RETURN_IF_ERROR(index_->AddPack(pack_ids_[ref.pack]));
    number = next_number_++;
  }
  ChunkRef in_index = ref;
  in_index.pack = static_cast<std::uint32_t>(number);
  return index_->AddChunk(in_index, rank);
}

Status SessionWriter::AddZeros(std::uint64_t bytes) {
  return index_->AddZeros(bytes);
}

Status SessionWriter::AddBlob(const std::string& name, const Blob& blob) {
  Region region;
  region.kind = RegionKind::kBlob;
  region.name = name;
  region.bytes = blob.bytes;
  POS_RETURN_IF_ERROR(BeginRegion(region));
  for (const ChunkRef& ref : blob.chunks) POS_RETURN_IF_ERROR(AddChunk(ref));
  return {};
}

Result<PackTotals> SessionWriter::Finish() {
  POS_ASSIGN_OR_RETURN(const PackTotals totals, packs_->Finish());
  POS_RETURN_IF_ERROR(index_->Finish());
  if (::fsync(index_fd_.get()) != 0) {
    return ErrnoStatus(errno, "fsync chunk index");
  }
  index_fd_.Reset();
  return totals;
}

}  // namespace pos::ckpt
