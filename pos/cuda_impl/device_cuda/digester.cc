#include "pos/cuda_impl/device_cuda/digester.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "pos/base/log.h"
#include "pos/cuda_impl/device_cuda/core.h"

namespace pos::cuda_device {
namespace {

constexpr std::uint64_t kBlock = ckpt::kBlockBytes;
constexpr std::uint64_t kPieceBytes = DigestPiece::kBlocks * kBlock;

}  // namespace

Digester::~Digester() {
  const MutexLock lock(&mu_);
  if (MakeCurrent(driver_, context_, key_) != CUDA_SUCCESS) return;
  for (Batch& batch : batches_) {
    if (batch.done != nullptr) driver_.EventDestroy(batch.done);
  }
  if (stream_ != nullptr) driver_.StreamDestroy(stream_);
  if (module_ != nullptr) driver_.ModuleUnload(module_);
}

Status Digester::Prepare() {
  POS_RETURN_IF_ERROR(
      driver_.Check(MakeCurrent(driver_, context_, key_), "cuCtxSetCurrent"));
  if (ready_) return {};
  // What an earlier attempt has made stays.
  if (module_ == nullptr) {
    POS_RETURN_IF_ERROR(
        driver_.Check(driver_.ModuleLoadDataEx(&module_, DigestModule().c_str(),
                                               0, nullptr, nullptr),
                      "load the kernel that digests"));
  }
  POS_RETURN_IF_ERROR(
      driver_.Check(driver_.ModuleGetFunction(&kernel_, module_, kDigestKernel),
                    "kernel that digests"));
  std::size_t bytes = 0;
  POS_RETURN_IF_ERROR(driver_.Check(
      driver_.ModuleGetGlobal(&keys_, &bytes, module_, kDigestKeys),
      "keys of digests"));
  if (stream_ == nullptr) {
    POS_RETURN_IF_ERROR(
        driver_.Check(driver_.StreamCreate(&stream_, CU_STREAM_NON_BLOCKING, 0),
                      "stream for digests"));
  }
  for (Batch& batch : batches_) {
    CUresult result = CUDA_SUCCESS;
    if (batch.done == nullptr) {
      result = driver_.EventCreate(
          &batch.done, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC);
    }
    POS_RETURN_IF_ERROR(driver_.Check(result, "event for digests"));
    batch.pieces = pool_->Take(kBatchPieces * sizeof(DigestPiece), &result);
    if (batch.pieces.data() == nullptr) {
      return driver_.Check(result, "pinned memory for digests");
    }
    batch.digests = pool_->Take(
        kBatchPieces * DigestPiece::kBlocks * sizeof(ckpt::Digest), &result);
    if (batch.digests.data() == nullptr) {
      return driver_.Check(result, "pinned memory for digests");
    }
  }
  ready_ = true;
  return {};
}

Status Digester::UseSeed(std::uint64_t seed) {
  if (seed_.has_value() && seed_->seed() == seed) return {};
  tree_.reset();
  seed_.reset();
  const ckpt::DigestKey key(seed);
  const DigestKeys keys = MakeDigestKeys(key.leaf_secret());
  POS_RETURN_IF_ERROR(driver_.Check(
      driver_.MemcpyHtoD(keys_, keys.data(), sizeof(keys)), "keys of digests"));
  // A copy of little memory may return before it is there.
  POS_RETURN_IF_ERROR(
      driver_.Check(driver_.StreamSynchronize(nullptr), "keys of digests"));
  seed_.emplace(key);
  tree_ = std::make_unique<ckpt::DigestStream>(*seed_);
  return {};
}

Status Digester::Digest(std::span<const MemoryRange> ranges, std::uint64_t seed,
                        std::span<ckpt::Digest> digests) {
  const MutexLock lock(&mu_);
  POS_RETURN_IF_ERROR(Prepare());
  POS_RETURN_IF_ERROR(UseSeed(seed));
  Cursor at;
  while (at.range < ranges.size()) {
    const Status status = DigestGroup(ranges, &at, digests);
    if (!status.ok()) {
      tree_ = std::make_unique<ckpt::DigestStream>(*seed_);
      return status;
    }
  }
  return {};
}

// Nothing is under way when it returns, whatever it returns.
Status Digester::DigestGroup(std::span<const MemoryRange> ranges, Cursor* at,
                             std::span<ckpt::Digest> digests) {
  const MutexLock lock(&memory_->mappings_mu);
  Status status;
  for (int i = 0; i < kGroupBatches && status.ok(); ++i) {
    if (at->range == ranges.size()) break;
    Batch& batch = batches_[static_cast<std::size_t>(i % 2)];
    status = Fill(&batch, ranges, at, digests);
    if (status.ok()) status = Launch(&batch);
    Batch& before = batches_[static_cast<std::size_t>((i + 1) % 2)];
    const Status awaited = Await(&before, digests);
    if (status.ok()) status = awaited;
  }
  // At most one, but after an error of the driver.
  for (Batch& batch : batches_) {
    const Status awaited = Await(&batch, digests);
    if (status.ok()) status = awaited;
  }
  return status;
}

Status Digester::Fill(Batch* batch, std::span<const MemoryRange> ranges,
                      Cursor* at, std::span<ckpt::Digest> digests) {
  batch->parts.clear();
  batch->piece_count = 0;
  batch->block_count = 0;
  while (at->range < ranges.size() && batch->piece_count < kBatchPieces) {
    const MemoryRange& range = ranges[at->range];
    switch (memory_->FindMapped(range.address, range.bytes)) {
      case CudaMemory::Mapped::kNo:
        return Invalid("digest of " + Hex(range.address) + " + " +
                       std::to_string(range.bytes) +
                       " bytes, which are not all mapped");
      case CudaMemory::Mapped::kVariable:
        POS_RETURN_IF_ERROR(DigestVariable(range, &digests[at->range]));
        ++at->range;
        break;
      case CudaMemory::Mapped::kYes:
        AddPieces(batch, range, at);
        break;
    }
  }
  return {};
}

// As much of `range` as there is room for.
void Digester::AddPieces(Batch* batch, const MemoryRange& range, Cursor* at) {
  auto* const pieces = static_cast<DigestPiece*>(batch->pieces.data());
  const auto digests = reinterpret_cast<std::uint64_t>(batch->digests.data());
  Part part;
  part.range = at->range;
  part.first_block = batch->block_count;
  while (at->offset < range.bytes && batch->piece_count < kBatchPieces) {
    const std::uint64_t bytes = std::min(kPieceBytes, range.bytes - at->offset);
    pieces[batch->piece_count++] = {
        .source = range.address + at->offset,
        .digests = digests + batch->block_count * sizeof(ckpt::Digest),
        .bytes = bytes};
    batch->block_count += (bytes + kBlock - 1) / kBlock;
    at->offset += bytes;
    part.bytes += bytes;
  }
  part.last = at->offset == range.bytes;
  batch->parts.push_back(part);
  if (part.last) *at = {.range = at->range + 1, .offset = 0};
}

Status Digester::Launch(Batch* batch) {
  batch->under_way = true;
  if (batch->piece_count == 0) return {};
  auto pieces = reinterpret_cast<CUdeviceptr>(batch->pieces.data());
  void* arguments[] = {&pieces};
  POS_RETURN_IF_ERROR(driver_.Check(
      driver_.LaunchKernel(kernel_, static_cast<unsigned>(batch->piece_count),
                           1, 1, kDigestThreads, 1, 1, 0, stream_, arguments,
                           nullptr),
      "launch the kernel that digests"));
  return driver_.Check(driver_.EventRecord(batch->done, stream_),
                       "event for digests");
}

Status Digester::Await(Batch* batch, std::span<ckpt::Digest> digests) {
  if (!batch->under_way) return {};
  batch->under_way = false;
  if (batch->piece_count != 0) {
    POS_RETURN_IF_ERROR(
        driver_.Check(driver_.EventSynchronize(batch->done), "digest memory"));
  }
  const std::span<const std::byte> made(
      static_cast<const std::byte*>(batch->digests.data()),
      batch->block_count * sizeof(ckpt::Digest));
  for (const Part& part : batch->parts) {
    const std::uint64_t blocks = (part.bytes + kBlock - 1) / kBlock;
    tree_->UpdateWithBlocks(
        made.subspan(part.first_block * sizeof(ckpt::Digest),
                     blocks * sizeof(ckpt::Digest)),
        part.bytes);
    if (part.last) digests[part.range] = tree_->Finish();
  }
  return {};
}

// Not with `tree_`, which may be in the middle of a range.
Status Digester::DigestVariable(const MemoryRange& range,
                                ckpt::Digest* digest) {
  constexpr std::uint64_t kStep = 4 << 20;
  ckpt::DigestStream stream(*seed_);
  std::vector<std::byte> buffer(std::min(range.bytes, kStep));
  for (std::uint64_t at = 0; at < range.bytes;) {
    const std::uint64_t bytes = std::min(kStep, range.bytes - at);
    POS_RETURN_IF_ERROR(driver_.Check(
        driver_.MemcpyDtoH(buffer.data(), range.address + at, bytes),
        "read a variable"));
    stream.Update(std::span(buffer).first(bytes));
    at += bytes;
  }
  *digest = stream.Finish();
  return {};
}

}  // namespace pos::cuda_device
