#include "ckpt/pack/pack_writer.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "ckpt/pack/threads.h"

namespace pos::ckpt {
namespace {

constexpr std::size_t kMinBuffers = 4;
constexpr std::size_t kMaxOwn = 65536;         // about 6 MiB
constexpr std::size_t kMaxDiscarded = 65536;   // 1 MiB
constexpr std::uint64_t kMinStep = 16u << 20;  // of preallocation
constexpr std::uint64_t kMaxStep = std::uint64_t{1} << 30;
constexpr std::uint64_t kNeverAllocate = ~std::uint64_t{0};

std::uint64_t Padded(std::uint64_t bytes) {
  return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

}  // namespace

struct PackWriter::Worker {
  explicit Worker(Compression compression) : compressor(compression) {}

  std::vector<Buffer> flying;   // being written; the index is the cookie
  std::unique_ptr<IoQueue> io;  // after `flying`: gone before the buffers
  Compressor compressor;
  Buffer spare;        // what a chunk is compressed into
  bool stuck = false;  // transfers do not end
  std::thread thread;
};

Result<std::unique_ptr<PackWriter>> PackWriter::Create(
    UniqueFd pack, const PackWriterOptions& options) {
  if (!IsChunkBytes(options.chunk_bytes) || options.depth == 0) {
    return Invalid("a pack of chunks of " +
                   std::to_string(options.chunk_bytes) + " bytes at depth " +
                   std::to_string(options.depth));
  }
  if (options.known != nullptr &&
      (options.known->digest_seed() != options.digest_seed ||
       options.known->chunk_bytes() != options.chunk_bytes)) {
    return Invalid("the table of known chunks has another seed or chunk size");
  }
  std::unique_ptr<PackWriter> writer(new PackWriter(std::move(pack), options));
  POS_RETURN_IF_ERROR(writer->Start());
  return writer;
}

PackWriter::PackWriter(UniqueFd pack, const PackWriterOptions& options)
    : fd_(std::move(pack)),
      options_(options),
      key_(options.digest_seed),
      tail_(kBlockBytes) {}

Status PackWriter::Start() {
  struct stat st {};
  if (::fstat(fd_.get(), &st) != 0) return ErrnoStatus(errno, "stat pack");
  if (st.st_size != kBlockBytes) {
    return Invalid("a new pack holds its header of 4096 bytes, this one " +
                   std::to_string(st.st_size));
  }
  uses_direct_io_ = options_.direct && EnableDirectIo(fd_.get());
  struct statfs fs {};
  // On tmpfs preallocation would fill memory with zeros.
  if (::fstatfs(fd_.get(), &fs) != 0 || fs.f_type == TMPFS_MAGIC) {
    allocated_ = kNeverAllocate;
  }
  // Without io_uring, and for buffered files, depth comes from threads.
  const bool ring = options_.io == IoKind::kUring ||
                    (options_.io == IoKind::kAuto && uses_direct_io_);
  std::unique_ptr<IoQueue> first;
  POS_ASSIGN_OR_RETURN(
      first, MakeIoQueue(ring ? options_.io : IoKind::kSync, options_.depth));
  uses_uring_ = first->asynchronous();
  const std::size_t count =
      std::max(options_.pool_bytes / options_.chunk_bytes, kMinBuffers);
  std::size_t threads =
      options_.threads != 0 ? options_.threads : DefaultThreads();
  if (!uses_uring_) threads = std::max<std::size_t>(threads, options_.depth);
  threads = std::min(threads, count / 3);  // spares leave enough to work with
  threads = std::max<std::size_t>(threads, 1);
  POS_ASSIGN_OR_RETURN(pool_, BufferPool::Create(options_.chunk_bytes, count));
  const Buffer zeros = pool_->TryAcquire();
  zero_digest_ = DigestOf(key_, zeros.bytes());  // the mapping is fresh
  for (std::size_t i = 0; i < threads; ++i) {
    auto worker = std::make_unique<Worker>(options_.compress);
    worker->io = std::move(first);
    if (worker->io == nullptr) {
      POS_ASSIGN_OR_RETURN(
          worker->io, MakeIoQueue(uses_uring_ ? IoKind::kUring : IoKind::kSync,
                                  options_.depth));
    }
    worker->flying.resize(worker->io->depth());
    if (options_.compress != Compression::kNone) {
      worker->spare = pool_->TryAcquire();
    }
    Worker* const raw = worker.get();
    workers_.push_back(std::move(worker));
    POS_ASSIGN_OR_RETURN(raw->thread, StartThread([this, raw] { Run(raw); }));
  }
  return {};
}

PackWriter::~PackWriter() {
  if (fd_.valid()) Abort();
  StopThreads();
  workers_.clear();
}

void PackWriter::StopThreads() {
  queue_.Close();
  for (const auto& worker : workers_) {
    if (worker->thread.joinable()) worker->thread.join();
  }
}

Result<Buffer> PackWriter::Acquire() { return pool_->Acquire(kIoStallMs); }

void PackWriter::Submit(Buffer buffer, std::size_t bytes,
                        std::shared_ptr<ChunkSink> sink, std::uint64_t cookie) {
  if (bytes == 0 || bytes > options_.chunk_bytes) {
    Fail(Invalid("a chunk of " + std::to_string(bytes) + " bytes"));
    return;
  }
  {
    MutexLock lock(&mu_);
    if (!status_.ok()) return;
    ++unfinished_;
    ++totals_.chunks;
    totals_.bytes += bytes;
  }
  queue_.Push({std::move(buffer), bytes, std::move(sink), cookie});
}

Result<ChunkRef> PackWriter::Put(std::span<const std::byte> data) {
  struct OneSink final : ChunkSink {
    void OnChunk(std::uint64_t, const ChunkRef& found) override {
      ref = found;
      done = true;
    }
    ChunkRef ref;
    std::atomic<bool> done{false};
  };
  POS_ASSIGN_OR_RETURN(Buffer buffer, Acquire());
  if (data.empty() || data.size() > buffer.bytes().size()) {
    return Invalid("a chunk of " + std::to_string(data.size()) + " bytes");
  }
  std::copy(data.begin(), data.end(), buffer.bytes().begin());
  const auto sink = std::make_shared<OneSink>();
  Submit(std::move(buffer), data.size(), sink, 0);
  MutexLock lock(&mu_);
  while (!sink->done && status_.ok()) {
    changed_.WaitFor(&mu_, std::chrono::milliseconds(kIoStallMs));
  }
  if (!status_.ok()) return status_;
  return sink->ref;
}

void PackWriter::Run(Worker* worker) {
  for (;;) {
    Item item;
    Status status;
    switch (queue_.Take(&item, worker->io->in_flight() == 0)) {
      case WorkQueue<Item>::Taken::kItem:
        status = Process(worker, std::move(item));
        break;
      case WorkQueue<Item>::Taken::kNothing:
        status = Reap(worker);
        break;
      case WorkQueue<Item>::Taken::kClosed:
        if (worker->io->in_flight() == 0) return;
        status = Reap(worker);
        break;
    }
    while (status.ok() && (worker->io->in_flight() == worker->io->depth() ||
                           worker->io->Finished())) {
      status = Reap(worker);
    }
    if (status.ok()) continue;
    Fail(status);
    // What the kernel does not give back now is left to the queue's end.
    if (worker->stuck) return;
  }
}

Status PackWriter::Process(Worker* worker, Item item) {
  const std::span<const std::byte> data = item.buffer.bytes().first(item.bytes);
  ChunkRef ref;
  ref.bytes = static_cast<std::uint32_t>(item.bytes);
  bool found = AllZero(data);
  Digest digest = zero_digest_;
  if (!found || item.bytes != options_.chunk_bytes) {
    digest = DigestOf(key_, data);
  }
  ref.digest = digest;
  if (!found) {
    const std::optional<ChunkRef> known = Find(digest);
    found = known.has_value() && known->bytes == item.bytes;
    if (found) ref = *known;
  }
  if (!found) return Store(worker, std::move(item), digest);
  {
    MutexLock lock(&mu_);
    (ref.zero() ? totals_.zero_bytes : totals_.reused_bytes) += item.bytes;
  }
  item.buffer.Release();
  item.sink->OnChunk(item.cookie, ref);
  Done();
  return {};
}

Status PackWriter::Store(Worker* worker, Item item, const Digest& digest) {
  const std::span<std::byte> data = item.buffer.bytes().first(item.bytes);
  ChunkRef ref;
  ref.bytes = ref.stored = static_cast<std::uint32_t>(item.bytes);
  ref.digest = digest;
  if (worker->spare.valid()) {
    // What is in flight keeps the disk busy for as long as compressing takes.
    const bool busy = worker->io->asynchronous() &&
                      worker->io->in_flight() + 1 >= worker->io->depth();
    const Compressor::Packed packed =
        worker->compressor.Compress(data, worker->spare.bytes(), busy);
    if (packed.bytes != 0) {
      ref.codec = packed.codec;
      ref.stored = static_cast<std::uint32_t>(packed.bytes);
      ref.sum = Sum64(worker->spare.bytes().first(packed.bytes));
      std::swap(worker->spare, item.buffer);
    }
  }
  const std::size_t padded = Padded(ref.stored);
  const std::span<std::byte> out = item.buffer.bytes().first(padded);
  std::fill(out.begin() + ref.stored, out.end(), std::byte{0});
  ref.place = Reserve(padded);
  {
    MutexLock lock(&mu_);
    if (own_.size() < kMaxOwn) own_.try_emplace(digest, Own{ref, 1});
    ++totals_.written_chunks;
    totals_.written_bytes += padded;
  }
  item.sink->OnChunk(item.cookie, ref);
  const auto slot = std::find_if(worker->flying.begin(), worker->flying.end(),
                                 [](const Buffer& b) { return !b.valid(); });
  const auto number = static_cast<std::uint64_t>(slot - worker->flying.begin());
  *slot = std::move(item.buffer);
  return worker->io->Write(fd_.get(), out, ref.place, number);
}

Status PackWriter::Reap(Worker* worker) {
  const Result<IoDone> waited = worker->io->Wait();
  worker->stuck = !waited.ok();
  POS_RETURN_IF_ERROR(waited.status());
  const IoDone& done = *waited;
  worker->flying[done.cookie].Release();
  Done();
  return done.status;
}

void PackWriter::Done() {
  MutexLock lock(&mu_);
  --unfinished_;
  changed_.NotifyAll();
}

void PackWriter::Abort() { Fail(Aborted("the pack was given up")); }

void PackWriter::Fail(const Status& why) {
  {
    MutexLock lock(&mu_);
    if (status_.ok()) {
      status_ = why;
      // Under the lock, so that whoever has seen the error gets no buffer.
      if (pool_ != nullptr) pool_->Close(why);
    }
    changed_.NotifyAll();
  }
  queue_.Clear();
}

std::uint64_t PackWriter::Reserve(std::uint64_t bytes) {
  const std::uint64_t place = tail_.fetch_add(bytes);
  Preallocate(place + bytes);
  return place;
}

void PackWriter::Preallocate(std::uint64_t end) {
  const std::uint64_t have = allocated_.load();
  const std::uint64_t step = std::clamp(end, kMinStep, kMaxStep);
  if (have > end && have - end >= step / 2) return;
  if (allocating_.exchange(true)) return;  // another thread is at it
  const std::uint64_t from = std::max<std::uint64_t>(have, kBlockBytes);
  const bool ok = ::fallocate(fd_.get(), 0, static_cast<off_t>(from),
                              static_cast<off_t>(end + step - from)) == 0;
  // Writes say it when the disk is really full.
  allocated_ = ok ? end + step : kNeverAllocate;
  allocating_ = false;
}

std::optional<ChunkRef> PackWriter::Find(const Digest& digest) {
  if (options_.known != nullptr) {
    std::optional<ChunkRef> ref = options_.known->Find(digest);
    if (ref.has_value()) {
      ++ref->pack;
      return ref;
    }
  }
  MutexLock lock(&mu_);
  const auto own = own_.find(digest);
  if (own == own_.end()) return std::nullopt;
  ++own->second.uses;
  return own->second.ref;
}

void PackWriter::Discard(const ChunkRef& ref) {
  if (ref.zero() || ref.pack != 0) return;
  MutexLock lock(&mu_);
  const auto own = own_.find(ref.digest);
  if (own != own_.end() && own->second.ref.place == ref.place) {
    if (--own->second.uses > 0) return;
    own_.erase(own);
  }
  totals_.discarded_bytes += Padded(ref.stored);
  // What is not remembered is found by the store's gc.
  if (discarded_.size() < kMaxDiscarded) {
    discarded_.emplace_back(ref.place, Padded(ref.stored));
  }
}

Status PackWriter::Flush() {
  MutexLock lock(&mu_);
  while (unfinished_ > 0 && status_.ok()) {
    changed_.WaitFor(&mu_, std::chrono::milliseconds(kIoStallMs));
  }
  return status_;
}

void PackWriter::PunchDiscarded() {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  {
    MutexLock lock(&mu_);
    ranges.swap(discarded_);
  }
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 0; i < ranges.size();) {
    const std::uint64_t from = ranges[i].first;
    std::uint64_t to = from;
    for (; i < ranges.size() && ranges[i].first == to; ++i) {
      to += ranges[i].second;
    }
    // Only space is lost where a file system cannot do it.
    ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                static_cast<off_t>(from), static_cast<off_t>(to - from));
  }
}

Result<PackTotals> PackWriter::Finish() {
  POS_RETURN_IF_ERROR(Flush());
  StopThreads();
  PunchDiscarded();
  const std::uint64_t length = tail_.load();
  if (::ftruncate(fd_.get(), static_cast<off_t>(length)) != 0) {
    return ErrnoStatus(errno, "cut pack");
  }
  if (::fsync(fd_.get()) != 0) return ErrnoStatus(errno, "fsync pack");
  fd_.Reset();
  MutexLock lock(&mu_);
  totals_.file_bytes = length;
  status_ = Internal("the pack is finished");
  return totals_;
}

}  // namespace pos::ckpt
