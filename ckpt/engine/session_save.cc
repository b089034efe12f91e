#include "ckpt/engine/session_save.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "ckpt/engine/handle_blob.h"
#include "ckpt/pack/blob.h"

namespace pos::ckpt {

// Collects where the chunks of one region went; they arrive in any order.
class SessionSave::RegionSink : public ChunkSink {
 public:
  explicit RegionSink(std::size_t count) : chunks_(count) {}
  void OnChunk(std::uint64_t cookie, const ChunkRef& ref) override {
    // Each cookie is one element: no two threads write the same.
    chunks_[cookie] = ref;
  }
  [[nodiscard]] const std::vector<ChunkRef>& chunks() const { return chunks_; }

 private:
  std::vector<ChunkRef> chunks_;
};

SessionSave::~SessionSave() = default;

Result<std::unique_ptr<SessionSave>> SessionSave::Create(
    Session* session, SessionFiles files, const PackWriterOptions& options) {
  std::unique_ptr<SessionSave> save(new SessionSave(session));
  save->chunk_bytes_ = files.chunk_bytes;
  POS_ASSIGN_OR_RETURN(save->writer_,
                       SessionWriter::Create(std::move(files), options));
  return save;
}

template <typename Read>
Status SessionSave::CopyRegion(const Region& region, const Read& read,
                               const std::atomic<bool>* cancel) {
  const std::uint64_t count = (region.bytes + chunk_bytes_ - 1) / chunk_bytes_;
  auto sink = std::make_shared<RegionSink>(count);
  regions_.push_back({region, sink});
  for (std::uint64_t i = 0; i < count; ++i) {
    if (cancel->load(std::memory_order_relaxed)) {
      return Aborted("the checkpoint was cancelled");
    }
    const std::uint64_t offset = i * chunk_bytes_;
    const std::uint64_t bytes =
        std::min<std::uint64_t>(chunk_bytes_, region.bytes - offset);
    POS_ASSIGN_OR_RETURN(Buffer buffer, writer_->packs().Acquire());
    POS_RETURN_IF_ERROR(
        read(region.address + offset, buffer.bytes().first(bytes)));
    writer_->packs().Submit(std::move(buffer), bytes, sink, i);
    copied_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  }
  return {};
}

Status SessionSave::CopyDevice(const std::atomic<bool>* cancel) {
  POS_RETURN_IF_ERROR(session_->CheckSavable());
  for (const auto& [address, block] : session_->memory().blocks()) {
    Device* const device = session_->device(block.device);
    Region region;
    region.kind = RegionKind::kDeviceMemory;
    region.device = static_cast<std::uint32_t>(block.device);
    region.address = block.address;
    region.bytes = block.bytes;
    POS_RETURN_IF_ERROR(CopyRegion(
        region,
        [device](std::uint64_t from, std::span<std::byte> to) {
          return device->Read(from, to);
        },
        cancel));
  }
  ByteWriter state;
  session_->Save(&state);
  BlobWriter blob(&writer_->packs());
  POS_RETURN_IF_ERROR(blob.Append(state.bytes()));
  POS_ASSIGN_OR_RETURN(state_, blob.Finish());
  POS_ASSIGN_OR_RETURN(handles_, WriteHandleBlob(*session_, &writer_->packs()));
  return {};
}

Status SessionSave::CopyHost(const std::atomic<bool>* cancel) {
  for (const auto& [address, bytes] : session_->host_blocks()) {
    Region region;
    region.kind = RegionKind::kHostMemory;
    region.address = address;
    region.bytes = bytes;
    // The runner has it mapped where the client has it.
    POS_RETURN_IF_ERROR(CopyRegion(
        region,
        [](std::uint64_t from, std::span<std::byte> to) {
          std::memcpy(to.data(), reinterpret_cast<const void*>(from),
                      to.size());
          return Status();
        },
        cancel));
  }
  return writer_->packs().Flush();
}

Status SessionSave::WriteIndex() {
  for (const SavedRegion& saved : regions_) {
    POS_RETURN_IF_ERROR(writer_->BeginRegion(saved.region));
    for (const ChunkRef& ref : saved.chunks->chunks()) {
      POS_RETURN_IF_ERROR(writer_->AddChunk(ref));
    }
  }
  POS_RETURN_IF_ERROR(writer_->AddBlob(kHandlesBlob, handles_));
  return writer_->AddBlob("session", state_);
}

Status SessionSave::Finish() {
  POS_RETURN_IF_ERROR(writer_->packs().Flush());
  POS_RETURN_IF_ERROR(WriteIndex());
  return writer_->Finish().status();
}

}  // namespace pos::ckpt
