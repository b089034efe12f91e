// Reads a session's memory in the order of its index, checked, ahead of the
// caller: reads are in flight and chunks are unpacked by threads of the stream
// while the caller is busy with earlier ones.
//
// Threads:   one thread calls Next. Pieces may be handed to and destroyed by
//            others. The stream has threads of its own.
// Ownership: a piece owns its buffer, which goes back to the stream's pool with
//            it: all pieces before the stream. The pack set must outlive it.
// Memory:    pool_bytes and one record of the index.
// Blocking:  Next waits for the disk, or for a buffer when the caller holds
//            all of them; at most kIoStallMs.
// Errors:    of one chunk (kCorrupt, kNoSuch for its pack): Next returns it in
//            that chunk's turn and goes on with the next one when called
//            again. Of the index: the stream is over, done() says so.
//
// Test: tests/ckpt/pack/chunk_stream_test.cc
#ifndef CKPT_PACK_CHUNK_STREAM_H_
#define CKPT_PACK_CHUNK_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "ckpt/format/chunk_index.h"
#include "ckpt/format/digest.h"
#include "ckpt/pack/buffer_pool.h"
#include "ckpt/pack/codec.h"
#include "ckpt/pack/io_queue.h"
#include "ckpt/pack/pack_set.h"
#include "ckpt/pack/work_queue.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"

namespace pos::ckpt {

struct ChunkStreamOptions {
  unsigned depth = 4;    // reads in flight
  unsigned threads = 0;  // 0: by the number of processors, 1 to 4
  std::size_t pool_bytes = 24u << 20;
  IoKind io = IoKind::kAuto;
};

class ChunkStream {
 public:
  // The next thing in the index.
  struct Piece {
    enum class What { kRegion, kZeros, kData, kEnd };
    What what = What::kEnd;
    std::shared_ptr<const Region> region;  // null at the end
    std::uint64_t offset = 0;              // in the region
    std::uint64_t bytes = 0;
    std::uint32_t rank = 0;
    std::span<const std::byte> data;  // of kData; in `buffer`
    Buffer buffer;
  };

  static Result<std::unique_ptr<ChunkStream>> Open(
      std::unique_ptr<IndexReader> index, const PackSet* packs,
      const ChunkStreamOptions& options);
  ~ChunkStream();
  ChunkStream(const ChunkStream&) = delete;
  ChunkStream& operator=(const ChunkStream&) = delete;

  // kEnd once the whole index was read and checked.
  Result<Piece> Next() POS_EXCLUDES(mu_);
  // Nothing follows: kEnd or an error of the index was returned.
  [[nodiscard]] bool done() const { return over_ && window_.empty(); }

  [[nodiscard]] std::span<std::byte> buffer_region() const {
    return pool_->region();
  }

 private:
  // A piece on its way to the caller.
  struct Slot {
    Piece piece;
    ChunkRef ref;
    const PackFile* pack = nullptr;
    Status status;
    bool ready = false;  // guarded by mu_ until it is set
  };
  struct Worker;
  using Queue = WorkQueue<Slot*>;

  ChunkStream(std::unique_ptr<IndexReader> index, const PackSet* packs);
  Status Start(const ChunkStreamOptions& options);
  // Reads the index ahead, as far as there are buffers.
  Status Fill();
  // False when the entry must wait for a buffer.
  Result<bool> AddData();
  Slot* AddReady(Piece::What what);
  void Run(Worker* worker);
  Status StartRead(Worker* worker, Slot* slot);
  Status Reap(Worker* worker);
  void Finish(Worker* worker, Slot* slot, Status status) POS_EXCLUDES(mu_);

  static constexpr std::size_t kMaxWindow = 256;  // pieces ahead

  const std::unique_ptr<IndexReader> index_;
  const PackSet* const packs_;
  const DigestKey key_;
  std::unique_ptr<BufferPool> pool_;
  std::vector<std::unique_ptr<Worker>> workers_;
  Queue queue_;

  // Of the thread that calls Next.
  std::deque<std::unique_ptr<Slot>> window_;
  std::shared_ptr<const Region> region_;
  bool entry_waits_ = false;  // index_->entry() has no buffer yet
  bool over_ = false;         // the index is at its end

  Mutex mu_;
  CondVar ready_;
  Status broken_ POS_GUARDED_BY(mu_);  // transfers do not end
};

}  // namespace pos::ckpt

#endif  // CKPT_PACK_CHUNK_STREAM_H_
