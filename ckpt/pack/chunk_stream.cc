#include "ckpt/pack/chunk_stream.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "ckpt/pack/threads.h"
#include "pos/base/clock.h"

namespace pos::ckpt {
namespace {

constexpr std::size_t kMinBuffers = 4;

}  // namespace

struct ChunkStream::Worker {
  std::unique_ptr<IoQueue> io;
  std::vector<Slot*> flying;  // being read; the index is the cookie
  Decompressor decompressor;
  Buffer spare;  // what a chunk is unpacked into
  std::thread thread;
};

Result<std::unique_ptr<ChunkStream>> ChunkStream::Open(
    std::unique_ptr<IndexReader> index, const PackSet* packs,
    const ChunkStreamOptions& options) {
  std::unique_ptr<ChunkStream> stream(new ChunkStream(std::move(index), packs));
  POS_RETURN_IF_ERROR(stream->Start(options));
  return stream;
}

ChunkStream::ChunkStream(std::unique_ptr<IndexReader> index,
                         const PackSet* packs)
    : index_(std::move(index)),
      packs_(packs),
      key_(index_->head().digest_seed) {}

Status ChunkStream::Start(const ChunkStreamOptions& options) {
  if (options.depth == 0) return Invalid("a stream of depth 0");
  std::unique_ptr<IoQueue> first;
  POS_ASSIGN_OR_RETURN(first, MakeIoQueue(options.io, options.depth));
  const bool ring = first->asynchronous();
  const std::size_t count =
      std::max(options.pool_bytes / index_->head().chunk_bytes, kMinBuffers);
  std::size_t threads =
      options.threads != 0 ? options.threads : DefaultThreads();
  // Without io_uring, depth comes from threads.
  if (!ring) threads = std::max<std::size_t>(threads, options.depth);
  threads = std::clamp<std::size_t>(threads, 1, count / 3);
  POS_ASSIGN_OR_RETURN(pool_,
                       BufferPool::Create(index_->head().chunk_bytes, count));
  for (std::size_t i = 0; i < threads; ++i) {
    auto worker = std::make_unique<Worker>();
    worker->io = std::move(first);
    if (worker->io == nullptr) {
      POS_ASSIGN_OR_RETURN(
          worker->io,
          MakeIoQueue(ring ? IoKind::kUring : IoKind::kSync, options.depth));
    }
    worker->flying.resize(worker->io->depth());
    worker->spare = pool_->TryAcquire();
    Worker* const raw = worker.get();
    workers_.push_back(std::move(worker));
    POS_ASSIGN_OR_RETURN(raw->thread, StartThread([this, raw] { Run(raw); }));
  }
  return {};
}

ChunkStream::~ChunkStream() {
  queue_.Clear();
  queue_.Close();
  for (const auto& worker : workers_) {
    if (worker->thread.joinable()) worker->thread.join();
  }
  // Queues wait for their transfers before the buffers go.
  for (const auto& worker : workers_) worker->io.reset();
}

ChunkStream::Slot* ChunkStream::AddReady(Piece::What what) {
  auto slot = std::make_unique<Slot>();
  slot->piece.what = what;
  slot->piece.region = region_;
  slot->ready = true;
  window_.push_back(std::move(slot));
  return window_.back().get();
}

Result<bool> ChunkStream::AddData() {
  const ChunkEntry& entry = index_->entry();
  Buffer buffer;
  if (window_.empty()) {
    POS_ASSIGN_OR_RETURN(buffer, pool_->Acquire(kIoStallMs));
  } else {
    buffer = pool_->TryAcquire();
    if (!buffer.valid()) return false;
  }
  Slot* const slot = AddReady(Piece::What::kData);
  slot->ref = entry.ref;
  Piece& piece = slot->piece;
  piece.offset = entry.offset;
  piece.bytes = entry.bytes;
  piece.rank = entry.rank;
  const Result<const PackFile*> pack = packs_->Find(
      index_->packs()[entry.ref.pack], entry.ref, index_->head().digest_seed);
  slot->status = pack.status();
  if (!pack.ok()) return true;
  slot->pack = *pack;
  slot->ready = false;
  piece.buffer = std::move(buffer);
  queue_.Push(slot);
  return true;
}

Status ChunkStream::Fill() {
  while (!over_ && window_.size() < kMaxWindow) {
    if (!entry_waits_) {
      const Result<IndexReader::What> what = index_->Next();
      if (!what.ok()) {
        over_ = true;
        AddReady(Piece::What::kEnd)->status = what.status();
        return {};
      }
      if (*what == IndexReader::What::kEnd) {
        over_ = true;
        region_ = nullptr;
        AddReady(Piece::What::kEnd);
        return {};
      }
      if (*what == IndexReader::What::kRegion) {
        region_ = std::make_shared<const Region>(index_->region());
        AddReady(Piece::What::kRegion)->piece.bytes = region_->bytes;
        continue;
      }
      if (index_->entry().zero()) {
        Piece& piece = AddReady(Piece::What::kZeros)->piece;
        piece.offset = index_->entry().offset;
        piece.bytes = index_->entry().bytes;
        continue;
      }
    }
    POS_ASSIGN_OR_RETURN(const bool added, AddData());
    entry_waits_ = !added;
    if (entry_waits_) return {};
  }
  return {};
}

Result<ChunkStream::Piece> ChunkStream::Next() {
  if (done()) return Piece();
  POS_RETURN_IF_ERROR(Fill());
  Slot* const slot = window_.front().get();
  const Deadline deadline = Deadline::AfterMs(kIoStallMs);
  {
    MutexLock lock(&mu_);
    while (!slot->ready) {
      // The slot stays: a thread may still write to it.
      if (!broken_.ok()) return broken_;
      if (deadline.Passed()) return Timeout("reading a chunk takes too long");
      ready_.WaitFor(&mu_, std::chrono::nanoseconds(deadline.LeftNs()));
    }
  }
  const std::unique_ptr<Slot> taken = std::move(window_.front());
  window_.pop_front();
  if (!taken->status.ok()) {
    if (taken->piece.what == Piece::What::kEnd) return taken->status;
    return taken->status.WithContext(
        std::string(RegionKindName(taken->piece.region->kind)) + " " +
        taken->piece.region->name + " at byte " +
        std::to_string(taken->piece.offset));
  }
  return std::move(taken->piece);
}

void ChunkStream::Run(Worker* worker) {
  for (;;) {
    Slot* slot = nullptr;
    Status status;
    switch (queue_.Take(&slot, worker->io->in_flight() == 0)) {
      case Queue::Taken::kItem:
        status = StartRead(worker, slot);
        break;
      case Queue::Taken::kNothing:
        status = Reap(worker);
        break;
      case Queue::Taken::kClosed:
        if (worker->io->in_flight() == 0) return;
        status = Reap(worker);
        break;
    }
    while (status.ok() && (worker->io->in_flight() == worker->io->depth() ||
                           worker->io->Finished())) {
      status = Reap(worker);
    }
    if (!status.ok()) {
      MutexLock lock(&mu_);
      broken_ = status;
      ready_.NotifyAll();
      return;
    }
  }
}

Status ChunkStream::StartRead(Worker* worker, Slot* slot) {
  const auto free =
      std::find(worker->flying.begin(), worker->flying.end(), nullptr);
  *free = slot;
  return worker->io->Read(
      slot->pack->fd.get(),
      slot->piece.buffer.bytes().first(StoredBlocksBytes(slot->ref)),
      slot->ref.place,
      static_cast<std::uint64_t>(free - worker->flying.begin()));
}

Status ChunkStream::Reap(Worker* worker) {
  POS_ASSIGN_OR_RETURN(IoDone done, worker->io->Wait());
  Slot* const slot = std::exchange(worker->flying[done.cookie], nullptr);
  Finish(worker, slot, std::move(done.status));
  return {};
}

void ChunkStream::Finish(Worker* worker, Slot* slot, Status status) {
  Piece& piece = slot->piece;
  if (status.ok()) {
    const Result<std::span<const std::byte>> data =
        UnpackChunk(slot->ref, key_,
                    piece.buffer.bytes().first(StoredBlocksBytes(slot->ref)),
                    worker->spare.bytes(), &worker->decompressor);
    status = data.status();
    if (data.ok()) {
      piece.data = *data;
      if (slot->ref.codec != Codec::kNone) {
        std::swap(piece.buffer, worker->spare);
      }
    }
  }
  if (!status.ok()) piece.buffer.Release();
  MutexLock lock(&mu_);
  slot->status = std::move(status);
  slot->ready = true;
  ready_.NotifyAll();
}

}  // namespace pos::ckpt
