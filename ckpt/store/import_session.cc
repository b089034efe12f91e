#include "ckpt/store/import_session.h"

#include <algorithm>
#include <utility>

#include "ckpt/pack/pack_set.h"

namespace pos::ckpt {
namespace {

// A rule of the index that its writer refuses to break was broken by whoever
// wrote the stream.
Status OfStream(const Status& status) {
  return status.code() == Code::kInvalid ? Corrupt(status.message()) : status;
}

}  // namespace

// Where the chunks of a batch went; they arrive in any order.
class SessionImport::Sink final : public ChunkSink {
 public:
  Sink() : chunks_(kBatch) {}
  void OnChunk(std::uint64_t cookie, const ChunkRef& ref) override {
    // Each cookie is one element: no two threads write the same.
    chunks_[cookie] = ref;
  }
  [[nodiscard]] const ChunkRef& At(std::size_t i) const { return chunks_[i]; }

 private:
  std::vector<ChunkRef> chunks_;
};

Result<std::unique_ptr<SessionImport>> SessionImport::Create(
    SessionFiles files, std::uint64_t source_seed,
    std::uint32_t source_chunk_bytes) {
  std::unique_ptr<SessionImport> session(
      new SessionImport(source_seed, source_chunk_bytes));
  session->chunk_bytes_ = files.chunk_bytes;
  session->sink_ = std::make_shared<Sink>();
  PackWriterOptions options;
  options.compress = Compression::kAuto;
  POS_ASSIGN_OR_RETURN(session->writer_,
                       SessionWriter::Create(std::move(files), options));
  return session;
}

Status SessionImport::OnRegion(const Region& region) {
  POS_RETURN_IF_ERROR(EndRegion());
  region_ = region;
  covered_ = 0;
  Step step;
  step.what = Step::What::kRegion;
  step.region = region;
  return AddStep(std::move(step));
}

Status SessionImport::OnChunk(const ExportChunk& chunk) {
  if (!region_ || chunk_) return Corrupt("a chunk where none may be");
  if (chunk.bytes == 0 || chunk.bytes > region_->bytes - covered_) {
    return Corrupt("a chunk outside its region");
  }
  rank_ = chunk.rank;
  if (chunk.stored == 0) return AddZeros(chunk.bytes);
  const bool packed = chunk.codec != 0;
  if (chunk.bytes > source_chunk_bytes_ || chunk.stored > chunk.bytes ||
      (!packed && chunk.stored != chunk.bytes) ||
      chunk.codec > static_cast<std::uint8_t>(Codec::kLz4)) {
    return Corrupt("a chunk of impossible size or codec");
  }
  chunk_ = chunk;
  stored_.clear();
  return {};
}

Status SessionImport::OnData(std::span<const std::byte> data) {
  if (!chunk_ || data.size() > chunk_->stored - stored_.size()) {
    return Corrupt("data that belongs to no chunk");
  }
  stored_.insert(stored_.end(), data.begin(), data.end());
  return stored_.size() == chunk_->stored ? Unpack() : Status();
}

Status SessionImport::Unpack() {
  ChunkRef ref;
  ref.place = kBlockBytes;  // anywhere: not zeros
  ref.stored = chunk_->stored;
  ref.bytes = static_cast<std::uint32_t>(chunk_->bytes);
  ref.codec = static_cast<Codec>(chunk_->codec);
  ref.digest = chunk_->digest;
  ref.sum = chunk_->sum;
  chunk_.reset();
  unpacked_.resize(source_chunk_bytes_);
  stored_.resize(StoredBlocksBytes(ref));  // with zeros
  POS_ASSIGN_OR_RETURN(
      const std::span<const std::byte> memory,
      UnpackChunk(ref, source_key_, stored_, unpacked_, &decompressor_));
  return AddMemory(memory);
}

Status SessionImport::AddMemory(std::span<const std::byte> memory) {
  while (!memory.empty()) {
    if (!buffer_.valid()) {
      POS_ASSIGN_OR_RETURN(buffer_, writer_->packs().Acquire());
    }
    const std::size_t n =
        std::min<std::size_t>(memory.size(), chunk_bytes_ - used_);
    std::copy_n(memory.begin(), n,
                buffer_.bytes().begin() + static_cast<std::ptrdiff_t>(used_));
    used_ += n;
    covered_ += n;
    memory = memory.subspan(n);
    if (used_ == chunk_bytes_) POS_RETURN_IF_ERROR(SubmitBuffer());
  }
  return {};
}

Status SessionImport::AddZeros(std::uint64_t bytes) {
  const std::vector<std::byte> zeros(64u << 10);
  const auto fill = [&](std::uint64_t count) {
    while (count > 0) {
      const std::size_t n = std::min<std::uint64_t>(count, zeros.size());
      POS_RETURN_IF_ERROR(AddMemory(std::span(zeros).first(n)));
      count -= n;
    }
    return Status();
  };
  if (used_ > 0) {
    const std::uint64_t first =
        std::min<std::uint64_t>(bytes, chunk_bytes_ - used_);
    POS_RETURN_IF_ERROR(fill(first));
    bytes -= first;
  }
  if (bytes == 0) return {};
  const bool last = covered_ + bytes == region_->bytes;
  const std::uint64_t whole = last ? bytes : bytes - bytes % chunk_bytes_;
  if (whole > 0) {
    Step step;
    step.what = Step::What::kZeros;
    step.value = whole;
    covered_ += whole;
    POS_RETURN_IF_ERROR(AddStep(std::move(step)));
  }
  return fill(bytes - whole);
}

Status SessionImport::SubmitBuffer() {
  Step step;
  step.value = submitted_;
  step.rank = rank_;
  writer_->packs().Submit(std::move(buffer_), std::exchange(used_, 0), sink_,
                          submitted_);
  ++submitted_;
  return AddStep(std::move(step));
}

Status SessionImport::AddStep(Step step) {
  steps_.push_back(std::move(step));
  return steps_.size() >= kBatch ? WriteBatch() : Status();
}

Status SessionImport::WriteBatch() {
  POS_RETURN_IF_ERROR(writer_->packs().Flush());
  for (const Step& step : steps_) {
    Status status;
    switch (step.what) {
      case Step::What::kRegion:
        status = writer_->BeginRegion(step.region);
        break;
      case Step::What::kZeros:
        status = writer_->AddZeros(step.value);
        break;
      case Step::What::kChunk:
        status = writer_->AddChunk(sink_->At(step.value), step.rank);
        break;
    }
    POS_RETURN_IF_ERROR(OfStream(status));
  }
  steps_.clear();
  submitted_ = 0;
  return {};
}

Status SessionImport::EndRegion() {
  if (chunk_) return Corrupt("a chunk without its data");
  if (!region_) return {};
  if (covered_ != region_->bytes) return Corrupt("a region without its end");
  if (used_ > 0) POS_RETURN_IF_ERROR(SubmitBuffer());
  region_.reset();
  return {};
}

Status SessionImport::Finish() {
  POS_RETURN_IF_ERROR(EndRegion());
  POS_RETURN_IF_ERROR(WriteBatch());
  const Result<PackTotals> totals = writer_->Finish();
  return OfStream(totals.status());
}

}  // namespace pos::ckpt
