#include "ckpt/engine/session_save.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "ckpt/engine/handle_blob.h"
#include "ckpt/engine/use_order.h"
#include "ckpt/pack/blob.h"
#include "pos/base/clock.h"
#include "pos/base/log.h"

namespace pos::ckpt {
namespace {

Status Cancelled() { return Aborted("the checkpoint was cancelled"); }

std::string Joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += text.empty() ? name : ", " + name;
  }
  return text;
}

}  // namespace

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

SessionSave::~SessionSave() { EndWatch(); }

std::unique_ptr<SessionWriter> SessionSave::GiveUp() {
  Abort();
  EndWatch();
  return std::move(writer_);
}

Result<std::unique_ptr<SessionSave>> SessionSave::Create(
    Session* session, SessionFiles files, const SaveOptions& options) {
  std::unique_ptr<SessionSave> save(new SessionSave(session, options));
  save->chunk_bytes_ = files.chunk_bytes;
  POS_ASSIGN_OR_RETURN(save->writer_,
                       SessionWriter::Create(std::move(files), options.pack));
  return save;
}

// --- At a cut ---

Status SessionSave::SaveState() {
  for (const Blob* old : {&state_, &handles_}) {
    for (const ChunkRef& ref : old->chunks) writer_->packs().Discard(ref);
  }
  ranks_ = RankAllocations(*session_);
  ByteWriter state;
  session_->Save(&state);
  BlobWriter blob(&writer_->packs());
  POS_RETURN_IF_ERROR(blob.Append(state.bytes()));
  POS_ASSIGN_OR_RETURN(state_, blob.Finish());
  POS_ASSIGN_OR_RETURN(handles_, WriteHandleBlob(*session_, &writer_->packs()));
  return {};
}

Status SessionSave::Digest(ChunkTable* table, const std::atomic<bool>* cancel) {
  const std::uint64_t began_ns = MonotonicNs();
  POS_RETURN_IF_ERROR(table->DigestAll(session_, cancel));
  counts_.digest_ns = MonotonicNs() - began_ns;
  return {};
}

Status SessionSave::CopyStill(ChunkTable* table, bool hidden_only,
                              const std::atomic<bool>* cancel) {
  std::vector<Chunk>& chunks = table->chunks();
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    Chunk& chunk = chunks[i];
    if (chunk.state != ChunkState::kLive) continue;
    if (hidden_only && !chunk.hidden) continue;
    if (cancel->load(std::memory_order_relaxed)) return Cancelled();
    POS_ASSIGN_OR_RETURN(Buffer buffer, writer_->packs().Acquire());
    POS_RETURN_IF_ERROR(
        session_->device(chunk.device)
            ->Read(chunk.address, buffer.bytes().first(chunk.bytes)));
    chunk.state = ChunkState::kDone;
    table->Submit(i, std::move(buffer));
    copied_bytes_.fetch_add(chunk.bytes, std::memory_order_relaxed);
  }
  return {};
}

Status SessionSave::CopyAtCut(const std::atomic<bool>* cancel) {
  POS_RETURN_IF_ERROR(session_->CheckSavable());
  const bool compare = table_ != nullptr;
  const auto table =
      ChunkTable::Make(session_, ChunkTable::Scope::kAll, chunk_bytes_,
                       &writer_->packs(), table_.get());
  if (compare) POS_RETURN_IF_ERROR(Digest(table.get(), cancel));
  for (Chunk& chunk : table->chunks()) {
    chunk.proven = compare;
    const bool same = chunk.copied && chunk.ref.digest == chunk.cut;
    if (compare && (same || table->Adopt(&chunk))) continue;
    chunk.state = ChunkState::kLive;
  }
  table_ = table;
  POS_RETURN_IF_ERROR(CopyStill(table.get(), /*hidden_only=*/false, cancel));
  return SaveState();
}

Status SessionSave::CopyHost(const std::atomic<bool>* cancel) {
  for (const HostRegion& region : host_) {
    for (const ChunkRef& ref : region.chunks->chunks()) {
      writer_->packs().Discard(ref);
    }
  }
  host_.clear();
  for (const auto& [address, bytes] : session_->host_blocks()) {
    POS_RETURN_IF_ERROR(CopyHostRegion(address, bytes, cancel));
  }
  return writer_->packs().Flush();
}

Status SessionSave::CopyHostRegion(std::uint64_t address, std::uint64_t bytes,
                                   const std::atomic<bool>* cancel) {
  Region region;
  region.kind = RegionKind::kHostMemory;
  region.address = address;
  region.bytes = bytes;
  const std::uint64_t count = (bytes + chunk_bytes_ - 1) / chunk_bytes_;
  auto sink = std::make_shared<RegionSink>(count);
  host_.push_back({region, sink});
  for (std::uint64_t i = 0; i < count; ++i) {
    if (cancel->load(std::memory_order_relaxed)) return Cancelled();
    const std::uint64_t offset = i * chunk_bytes_;
    const std::uint64_t part =
        std::min<std::uint64_t>(chunk_bytes_, bytes - offset);
    POS_ASSIGN_OR_RETURN(Buffer buffer, writer_->packs().Acquire());
    // The runner has it mapped where the client has it.
    std::memcpy(buffer.bytes().data(),
                reinterpret_cast<const void*>(address + offset), part);
    writer_->packs().Submit(std::move(buffer), part, sink, i);
    copied_bytes_.fetch_add(part, std::memory_order_relaxed);
  }
  return {};
}

// --- Beside the running job ---

Status SessionSave::Watch(std::shared_ptr<ChunkTable> table,
                          LiveCopy::Purpose purpose) {
  table_ = std::move(table);
  if (live_ != nullptr) {
    live_->Start(table_);
    return {};
  }
  POS_ASSIGN_OR_RETURN(
      live_, LiveCopy::Open(session_, table_, &writer_->packs(), purpose,
                            options_.shadow_bytes));
  session_->SetReclaim(
      [live = live_.get()](int device) { return live->Reclaim(device); });
  session_->SetWatch(live_.get());
  return {};
}

void SessionSave::EndWatch() {
  if (live_ == nullptr) return;
  copied_bytes_.fetch_add(live_->copied_bytes(), std::memory_order_relaxed);
  session_->SetReclaim(nullptr);
  session_->WhileStill([this] {
    session_->SetWatch(nullptr);
    live_.reset();
  });
}

Status SessionSave::BeginCow(const std::atomic<bool>* cancel) {
  POS_RETURN_IF_ERROR(session_->CheckSavable());
  POS_RETURN_IF_ERROR(SaveState());
  auto table = ChunkTable::Make(session_, ChunkTable::Scope::kAll, chunk_bytes_,
                                &writer_->packs(), /*before=*/nullptr);
  POS_RETURN_IF_ERROR(Digest(table.get(), cancel));
  for (Chunk& chunk : table->chunks()) {
    chunk.proven = true;
    if (!table->Adopt(&chunk)) chunk.state = ChunkState::kLive;
  }
  POS_RETURN_IF_ERROR(CopyStill(table.get(), /*hidden_only=*/true, cancel));
  const Status status = Watch(table, LiveCopy::Purpose::kPreserve);
  counts_.beside = status.ok();
  if (status.ok()) return {};
  POS_LOG(kWarning, "memory cannot be copied beside the job: it waits",
          {{"why", status.ToString()}});
  return CopyStill(table.get(), /*hidden_only=*/false, cancel);
}

Status SessionSave::FinishCow(const std::atomic<bool>* cancel) {
  if (table_ == nullptr) return NotReady("no cow was begun");
  if (live_ == nullptr) return {};  // all was copied in the cut
  const Status status = live_->Run(cancel);
  const std::vector<std::string> calls = live_->SeenCalls();
  EndWatch();
  POS_RETURN_IF_ERROR(status);
  counts_.unforeseen_chunks = table_->unforeseen();
  if (counts_.unforeseen_chunks != 0) {
    POS_LOG(kWarning, "memory was written that no call had announced",
            {{"chunks", counts_.unforeseen_chunks}, {"calls", Joined(calls)}});
  }
  return {};
}

Status SessionSave::CopyRounds(const std::atomic<bool>* cancel) {
  counts_.rounds = 0;
  last_round_bytes_ = ~std::uint64_t{0};
  Status status;
  for (;;) {
    session_->WhileStill([&] { status = BeginRound(); });
    if (!status.ok() || live_ == nullptr) break;
    status = SkipUnchanged(cancel);
    if (!status.ok() || LastRound()) break;
    last_round_bytes_ = counts_.left_bytes;
    ++counts_.rounds;
    status = live_->Run(cancel);
    if (!status.ok()) break;
  }
  EndWatch();
  return status;
}

// What has no copy, or may have been written since.
Status SessionSave::BeginRound() {
  // What is in the way only now may have passed by the cut, which looks again.
  const Status savable = session_->CheckSavable();
  if (!savable.ok() && savable.code() != Code::kBusy) return savable;
  const auto table =
      ChunkTable::Make(session_, ChunkTable::Scope::kStaying, chunk_bytes_,
                       &writer_->packs(), table_.get());
  counts_.left_bytes = 0;
  for (Chunk& chunk : table->chunks()) {
    // Who knows what was written before this session was watched.
    const bool known = live_ != nullptr && chunk.copied && !chunk.dirty;
    chunk.dirty = false;
    if (known) continue;
    counts_.left_bytes += chunk.bytes;
    if (!chunk.hidden) chunk.state = ChunkState::kLive;
  }
  const Status status = Watch(table, LiveCopy::Purpose::kTrack);
  counts_.beside = status.ok();
  if (!status.ok()) {
    POS_LOG(kWarning, "memory cannot be copied beside the job",
            {{"why", status.ToString()}});
    for (Chunk& chunk : table->chunks()) chunk.state = ChunkState::kDone;
  }
  return {};
}

// Calls say that they may write more than they do.
Status SessionSave::SkipUnchanged(const std::atomic<bool>* cancel) {
  std::vector<Chunk>& chunks = table_->chunks();
  std::vector<std::size_t> doubtful;
  session_->WhileStill([&] {
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      if (chunks[i].state == ChunkState::kLive && chunks[i].copied) {
        doubtful.push_back(i);
      }
    }
  });
  if (doubtful.empty()) return {};
  const Status status = table_->DigestSome(session_, doubtful, cancel);
  // Some of it may be gone meanwhile: then all of it is copied.
  if (!status.ok()) {
    return status.code() == Code::kInvalid ? Status() : status;
  }
  session_->WhileStill([&] {
    for (const std::size_t i : doubtful) {
      const Chunk& chunk = chunks[i];
      if (chunk.state != ChunkState::kLive || chunk.ref.digest != chunk.cut) {
        continue;
      }
      // Where a call has said meanwhile that it may write it, it is dirty again
      // and looked at in the next round.
      counts_.left_bytes -= chunk.bytes;
      live_->Skip(i);
    }
  });
  return {};
}

bool SessionSave::LastRound() {
  counts_.converged = counts_.left_bytes <= options_.small_bytes;
  if (counts_.rounds == 0) return false;
  const bool shrinks =
      counts_.rounds < 2 || counts_.left_bytes < last_round_bytes_ / 4 * 3;
  return counts_.converged || !shrinks || counts_.rounds >= options_.max_rounds;
}

// --- The end ---

Status SessionSave::WriteIndex() {
  POS_RETURN_IF_ERROR(table_->Write(writer_.get(), ranks_));
  for (const HostRegion& saved : host_) {
    POS_RETURN_IF_ERROR(writer_->BeginRegion(saved.region));
    for (const ChunkRef& ref : saved.chunks->chunks()) {
      POS_RETURN_IF_ERROR(writer_->AddChunk(ref));
    }
  }
  POS_RETURN_IF_ERROR(writer_->AddBlob(kHandlesBlob, handles_));
  return writer_->AddBlob("session", state_);
}

Status SessionSave::Finish() {
  if (table_ == nullptr) return NotReady("nothing was copied");
  POS_RETURN_IF_ERROR(writer_->packs().Flush());
  POS_RETURN_IF_ERROR(WriteIndex());
  return writer_->Finish().status();
}

}  // namespace pos::ckpt
