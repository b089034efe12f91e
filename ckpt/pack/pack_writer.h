// Writes chunks into one pack: digests them, leaves out what is zero or known
// already, compresses what pays, and writes the rest past the page cache while
// the next chunk is being worked on.
//
//   caller ── Acquire ─> buffer, fill it ── Submit ──> worker threads
//                                                        digest, find, pack
//   ChunkSink::OnChunk(cookie, where) <──────────────────┘   │ io_uring
//                                                          pack file
//
// It works on a descriptor and knows no paths, so it serves a process that may
// open nothing.
//
// Threads:   any may call Acquire, Submit, Put, Find and Discard, at once.
//            Flush and Finish are for one thread, after the last Submit. The
//            writer has threads of its own and joins them in Finish or when it
//            is destroyed.
// Ownership: the descriptor is the writer's, and so are submitted buffers. A
//            sink is kept as long as the writer may call it.
// Memory:    pool_bytes, 1.3 MiB per thread that compresses, and up to 6 MiB
//            to find chunks that repeat within the pack.
// Blocking:  Acquire waits for a free buffer: the disk's pace is the caller's.
//            Every wait ends after kIoStallMs without progress.
// Errors:    sticky. After the first one (kDiskFull, …) Acquire, Put, Flush
//            and Finish return it, and the sinks of chunks not yet called back
//            hear nothing.
//
// Test: tests/ckpt/pack/pack_writer_test.cc   Bench: eval/ckpt/write_bench
#ifndef CKPT_PACK_PACK_WRITER_H_
#define CKPT_PACK_PACK_WRITER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ckpt/format/chunk_index.h"
#include "ckpt/format/digest.h"
#include "ckpt/format/known.h"
#include "ckpt/pack/buffer_pool.h"
#include "ckpt/pack/codec.h"
#include "ckpt/pack/io_queue.h"
#include "ckpt/pack/work_queue.h"
#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"

namespace pos::ckpt {

class ChunkSink {
 public:
  virtual ~ChunkSink() = default;
  // The chunk's digest and place are known; its buffer is not the caller's
  // any more. On a thread of the writer, without locks. Must not block, nor
  // call the writer except for Discard.
  virtual void OnChunk(std::uint64_t cookie, const ChunkRef& ref) = 0;
};

struct PackWriterOptions {
  std::uint32_t chunk_bytes = 2u << 20;
  std::uint64_t digest_seed = 0;
  Compression compress = Compression::kAuto;
  unsigned depth = 4;    // writes in flight
  unsigned threads = 0;  // 0: by the number of processors, 1 to 4
  std::size_t pool_bytes = 24u << 20;
  IoKind io = IoKind::kAuto;
  bool direct = true;  // past the page cache where the file system can
  // Chunks that need not be written again; may be null. Its packs get the
  // numbers from 1 on in ChunkRefs, this pack has 0.
  std::shared_ptr<const KnownTable> known;
};

// What a writer did. Stored bytes include the filling of blocks.
struct PackTotals {
  std::uint64_t chunks = 0;          // submitted
  std::uint64_t bytes = 0;           // of them
  std::uint64_t zero_bytes = 0;      // of chunks that were all zeros
  std::uint64_t reused_bytes = 0;    // of chunks found in the store or pack
  std::uint64_t written_chunks = 0;  // the others
  std::uint64_t written_bytes = 0;   // to the pack for them
  std::uint64_t discarded_bytes = 0;
  std::uint64_t file_bytes = 0;  // length of the pack
};

class PackWriter {
 public:
  // `pack`: open for writing, holds exactly the pack's header.
  static Result<std::unique_ptr<PackWriter>> Create(
      UniqueFd pack, const PackWriterOptions& options);
  // Without Finish: gives up.
  ~PackWriter();
  PackWriter(const PackWriter&) = delete;
  PackWriter& operator=(const PackWriter&) = delete;

  // A buffer of chunk_bytes.
  Result<Buffer> Acquire();
  // The first `bytes` (1 to chunk_bytes) of `buffer` are a chunk. Errors come
  // with the next Acquire or Flush.
  void Submit(Buffer buffer, std::size_t bytes, std::shared_ptr<ChunkSink> sink,
              std::uint64_t cookie);
  // Copies and submits one chunk, and waits until it has its place.
  Result<ChunkRef> Put(std::span<const std::byte> data);

  // Where a chunk with this digest is already: in the store or in this pack.
  // Counts as a use of it.
  std::optional<ChunkRef> Find(const Digest& digest) POS_EXCLUDES(mu_);
  // The caller does not use `ref` any more (the memory was copied again). Its
  // space is given back by Finish unless another chunk uses it.
  void Discard(const ChunkRef& ref) POS_EXCLUDES(mu_);

  // Gives the pack up, from any thread; after Finish this does nothing. Whoever
  // waits here, and who asks later, gets kAborted.
  void Abort() POS_EXCLUDES(mu_);
  // Everything submitted is called back and written.
  Status Flush() POS_EXCLUDES(mu_);
  // Flush, cut to length, fsync, close. Nothing may be called afterwards.
  Result<PackTotals> Finish() POS_EXCLUDES(mu_);

  // Memory of the buffers, for registering with a device.
  [[nodiscard]] std::span<std::byte> buffer_region() const {
    return pool_->region();
  }
  [[nodiscard]] const DigestKey& digest_key() const { return key_; }
  [[nodiscard]] bool uses_uring() const { return uses_uring_; }
  [[nodiscard]] bool uses_direct_io() const { return uses_direct_io_; }

 private:
  struct Item {
    Buffer buffer;
    std::size_t bytes = 0;
    std::shared_ptr<ChunkSink> sink;
    std::uint64_t cookie = 0;
  };
  struct Worker;
  // A chunk of this pack that may repeat.
  struct Own {
    ChunkRef ref;
    std::uint64_t uses = 0;
  };
  struct DigestHash {
    std::size_t operator()(const Digest& d) const { return d.Prefix(); }
  };
  using OwnMap = std::unordered_map<Digest, Own, DigestHash>;

  PackWriter(UniqueFd pack, const PackWriterOptions& options);
  Status Start();
  void Run(Worker* worker);
  Status Process(Worker* worker, Item item);
  Status Store(Worker* worker, Item item, const Digest& digest);
  Status Reap(Worker* worker);
  // Marks one item as done for good.
  void Done() POS_EXCLUDES(mu_);
  void Fail(const Status& why) POS_EXCLUDES(mu_);
  void StopThreads();
  // Space for a chunk at the pack's end.
  std::uint64_t Reserve(std::uint64_t bytes);
  void Preallocate(std::uint64_t end);
  void PunchDiscarded() POS_EXCLUDES(mu_);

  // Constant after Start.
  UniqueFd fd_;
  const PackWriterOptions options_;
  const DigestKey key_;
  Digest zero_digest_;  // of a whole chunk of zeros
  bool uses_uring_ = false;
  bool uses_direct_io_ = false;
  std::unique_ptr<BufferPool> pool_;
  std::vector<std::unique_ptr<Worker>> workers_;

  // Own synchronization.
  std::atomic<std::uint64_t> tail_;  // end of what is reserved
  std::atomic<std::uint64_t> allocated_{0};
  std::atomic<bool> allocating_{false};
  WorkQueue<Item> queue_;

  mutable Mutex mu_;  // before the pool's
  CondVar changed_;
  std::uint64_t unfinished_ POS_GUARDED_BY(mu_) = 0;  // submitted, not done
  Status status_ POS_GUARDED_BY(mu_);
  OwnMap own_ POS_GUARDED_BY(mu_);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> discarded_
      POS_GUARDED_BY(mu_);  // place, bytes
  PackTotals totals_ POS_GUARDED_BY(mu_);
};

}  // namespace pos::ckpt

#endif  // CKPT_PACK_PACK_WRITER_H_
