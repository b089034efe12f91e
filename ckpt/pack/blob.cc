#include "ckpt/pack/blob.h"

#include <algorithm>

#include "pos/base/mutex.h"

namespace pos::ckpt {

// Collects where the chunks are, by number.
class BlobWriter::Sink final : public ChunkSink {
 public:
  void OnChunk(std::uint64_t cookie, const ChunkRef& ref) override {
    MutexLock lock(&mu_);
    if (refs_.size() <= cookie) refs_.resize(cookie + 1);
    refs_[cookie] = ref;
  }
  std::vector<ChunkRef> Take() {
    MutexLock lock(&mu_);
    return std::move(refs_);
  }

 private:
  Mutex mu_;
  std::vector<ChunkRef> refs_ POS_GUARDED_BY(mu_);
};

BlobWriter::BlobWriter(PackWriter* packs)
    : packs_(packs), sink_(std::make_shared<Sink>()) {}

BlobWriter::~BlobWriter() = default;

void BlobWriter::SubmitBuffer() {
  packs_->Submit(std::move(buffer_), used_, sink_, submitted_);
  ++submitted_;
  used_ = 0;
}

Status BlobWriter::Append(std::span<const std::byte> data) {
  bytes_ += data.size();
  while (!data.empty()) {
    if (!buffer_.valid()) {
      POS_ASSIGN_OR_RETURN(buffer_, packs_->Acquire());
    }
    const std::size_t take =
        std::min(data.size(), buffer_.bytes().size() - used_);
    std::copy_n(data.begin(), take,
                buffer_.bytes().begin() + static_cast<std::ptrdiff_t>(used_));
    used_ += take;
    data = data.subspan(take);
    if (used_ == buffer_.bytes().size()) SubmitBuffer();
  }
  return {};
}

Result<Blob> BlobWriter::Finish() {
  if (used_ > 0) SubmitBuffer();
  POS_RETURN_IF_ERROR(packs_->Flush());
  Blob blob;
  blob.bytes = bytes_;
  blob.chunks = sink_->Take();
  return blob;
}

}  // namespace pos::ckpt
