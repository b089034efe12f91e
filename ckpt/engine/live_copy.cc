#include "ckpt/engine/live_copy.h"

#include <algorithm>
#include <chrono>

namespace pos::ckpt {
namespace {

constexpr std::chrono::milliseconds kPoll(20);
// Buffers that wait for a chunk.
constexpr std::size_t kSpareBuffers = 2;
// Names that are kept for the log.
constexpr std::size_t kMaxSeen = 32;

}  // namespace

Result<std::unique_ptr<LiveCopy>> LiveCopy::Open(
    Session* session, std::shared_ptr<ChunkTable> table, PackWriter* writer,
    Purpose purpose, std::uint64_t shadow_bytes) {
  std::unique_ptr<LiveCopy> copy(new LiveCopy(session, writer, purpose));
  std::vector<std::uint64_t> live(session->device_count());
  for (const Chunk& chunk : table->chunks()) {
    if (chunk.state != ChunkState::kLive) continue;
    live[static_cast<std::size_t>(chunk.device)] += chunk.bytes;
  }
  copy->Start(std::move(table));
  const std::uint64_t granule = Device::kMapGranularity;
  for (std::size_t i = 0; i < live.size(); ++i) {
    const std::uint64_t enough = (live[i] + granule - 1) / granule * granule;
    POS_ASSIGN_OR_RETURN(
        std::unique_ptr<CopyLane> lane,
        CopyLane::Open(
            session, static_cast<int>(i),
            purpose == Purpose::kPreserve ? std::min(shadow_bytes, enough) : 0,
            writer->buffer_region(),
            [raw = copy.get()](std::uint64_t token, DeviceError error) {
              raw->OnDone(token, error);
            }));
    if (lane->has_shadow()) copy->has_shadow_ |= 1u << i;
    copy->lanes_.push_back(std::move(lane));
  }
  return copy;
}

void LiveCopy::Start(std::shared_ptr<ChunkTable> table) {
  table_ = std::move(table);
  left_ = static_cast<std::size_t>(std::count_if(
      table_->chunks().begin(), table_->chunks().end(),
      [](const Chunk& c) { return c.state == ChunkState::kLive; }));
  unsafe_ = left_;
  cursor_ = 0;
  urgent_.clear();
  shadowed_.clear();
  all_dirty_ = false;
  MutexLock lock(&mu_);
  unfed_ = left_;
  all_copied_ = left_ == 0;
}

LiveCopy::~LiveCopy() {
  // Ends what is under way, before the buffers that it writes go.
  lanes_.clear();
}

void LiveCopy::OnDone(std::uint64_t token, DeviceError error) {
  {
    MutexLock lock(&mu_);
    finished_.push_back({token, error});
  }
  session_->Wake();
}

void LiveCopy::Fail(const Status& why) {
  // The image is lost, the job is not: nothing holds its calls back any more.
  failed_ = true;
  MutexLock lock(&mu_);
  if (status_.ok()) status_ = why;
  changed_.NotifyAll();
}

// --- Copying ---

bool LiveCopy::Step() {
  bool progress = TakeFinished();
  if (failed_) return progress;
  progress = SubmitCopies() || progress;
  return CloseShadows() || progress;
}

bool LiveCopy::TakeFinished() {
  {
    MutexLock lock(&mu_);
    if (finished_.empty()) return false;
    taken_.clear();
    taken_.swap(finished_);
  }
  for (const Finished& done : taken_) {
    const std::size_t index = done.token >> 2;
    Chunk& chunk = table_->chunks()[index];
    if (done.error != 0) {
      Fail(Internal("the device cannot copy memory: error " +
                    std::to_string(done.error)));
    }
    if ((done.token & 3) == kCopied) {
      OnCopied(index);
    } else if (chunk.state == ChunkState::kPreserving) {
      chunk.state = ChunkState::kShadow;
      shadowed_.push_back(index);
      --unsafe_;
    }
  }
  // A call that waits for one of them is asked again.
  session_->Wake();
  if (left_ != 0) return true;
  MutexLock lock(&mu_);
  all_copied_ = true;
  changed_.NotifyAll();
  return true;
}

void LiveCopy::OnCopied(std::size_t index) {
  Chunk& chunk = table_->chunks()[index];
  for (Flight& flight : flights_) {
    if (!flight.busy || flight.index != index) continue;
    flight.busy = false;
    --in_flight_;
    if (failed_) {
      flight.buffer.Release();
    } else {
      copied_bytes_.fetch_add(chunk.bytes, std::memory_order_relaxed);
      table_->Submit(index, std::move(flight.buffer));
    }
    break;
  }
  Finish(&chunk);
}

void LiveCopy::Finish(Chunk* chunk) {
  if (chunk->state == ChunkState::kCopyingShadow) {
    lanes_[static_cast<std::size_t>(chunk->device)]->FreeShadow(chunk->shadow);
  } else {
    --unsafe_;
  }
  chunk->state = ChunkState::kDone;
  --left_;
}

bool LiveCopy::NextChunk(std::size_t* index) {
  std::vector<Chunk>& chunks = table_->chunks();
  while (!urgent_.empty()) {
    *index = urgent_.front();
    urgent_.pop_front();
    chunks[*index].urgent = false;
    if (chunks[*index].state == ChunkState::kLive) return true;
  }
  if (!shadowed_.empty()) {
    *index = shadowed_.front();
    shadowed_.pop_front();
    return true;
  }
  while (cursor_ < chunks.size()) {
    *index = cursor_++;
    if (chunks[*index].state == ChunkState::kLive) return true;
  }
  return false;
}

bool LiveCopy::SubmitCopies() {
  bool progress = false;
  while (in_flight_ < kInFlight) {
    {
      MutexLock lock(&mu_);
      if (free_.empty()) break;
    }
    std::size_t index = 0;
    if (!NextChunk(&index)) break;
    Buffer buffer;
    {
      MutexLock lock(&mu_);
      buffer = std::move(free_.back());
      free_.pop_back();
      --unfed_;
      changed_.NotifyAll();
    }
    SubmitCopy(index, std::move(buffer));
    progress = true;
  }
  return progress;
}

void LiveCopy::SubmitCopy(std::size_t index, Buffer buffer) {
  Chunk& chunk = table_->chunks()[index];
  const auto flight = std::find_if(flights_.begin(), flights_.end(),
                                   [](const Flight& f) { return !f.busy; });
  void* const to = buffer.bytes().data();
  *flight = {std::move(buffer), index, true};
  ++in_flight_;
  DeviceAddress from = chunk.address;
  if (chunk.state == ChunkState::kShadow) {
    from = chunk.shadow;
    chunk.state = ChunkState::kCopyingShadow;
  } else {
    chunk.state = ChunkState::kCopying;
  }
  chunk.dirty = false;
  all_dirty_ = false;
  lanes_[static_cast<std::size_t>(chunk.device)]->CopyOut(
      from, to, chunk.bytes, (index << 2) | kCopied);
}

bool LiveCopy::CloseShadows() {
  const std::uint32_t wanted =
      reclaim_.load(std::memory_order_acquire) & has_shadow_.load();
  if (wanted == 0) return false;
  bool progress = false;
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    if ((wanted & 1u << i) == 0 || !lanes_[i]->CloseShadow()) continue;
    has_shadow_.fetch_and(~(1u << i));
    progress = true;
  }
  if (progress) session_->Wake();
  return progress;
}

bool LiveCopy::Reclaim(int device) {
  const std::uint32_t bit = 1u << device;
  if ((has_shadow_.load() & bit) == 0) return false;
  reclaim_.fetch_or(bit, std::memory_order_release);
  session_->Wake();
  return true;
}

Status LiveCopy::Run(const std::atomic<bool>* cancel) {
  for (;;) {
    if (cancel->load(std::memory_order_relaxed)) {
      return Aborted("the checkpoint was cancelled");
    }
    bool feed = false;
    {
      MutexLock lock(&mu_);
      POS_RETURN_IF_ERROR(status_);
      if (all_copied_) break;
      feed = unfed_ > free_.size() && free_.size() < kSpareBuffers;
      if (!feed) changed_.WaitFor(&mu_, kPoll);
    }
    if (!feed) continue;
    POS_ASSIGN_OR_RETURN(Buffer buffer, writer_->Acquire());
    {
      MutexLock lock(&mu_);
      free_.push_back(std::move(buffer));
    }
    session_->Wake();
  }
  {
    MutexLock lock(&mu_);
    free_.clear();
  }
  return writer_->Flush();
}

// --- The job's calls ---

template <typename Function>
void LiveCopy::ForEachWritten(const CallAccess& access,
                              const Function& function) {
  if (access.set->basis == AccessBasis::kUnknown) {
    for (std::size_t i = 0; i < table_->chunks().size(); ++i) function(i);
    return;
  }
  for (const MemoryRange& range : access.set->writes) {
    const auto [first, last] = table_->Find(range.address, range.bytes);
    for (std::size_t i = first; i < last; ++i) function(i);
  }
}

MemoryWatch::Verdict LiveCopy::BeforeCall(const CallAccess& access) {
  if (failed_ || access.makes) return Verdict::kGo;
  Needs needs;
  if (purpose_ == Purpose::kTrack) {
    if (access.set->basis == AccessBasis::kUnknown && all_dirty_) {
      return Verdict::kGo;
    }
    ForEachWritten(access,
                   [&](std::size_t i) { VisitTracked(i, access, &needs); });
    if (access.set->basis == AccessBasis::kUnknown) all_dirty_ = true;
  } else if (unsafe_ != 0) {
    ForEachWritten(access, [&](std::size_t i) { Visit(i, access, &needs); });
  }
  if (needs.wait) return Verdict::kWait;
  CopyLane* const lane = lanes_[static_cast<std::size_t>(access.device)].get();
  if (needs.copies) lane->MakeWaitForCopies(access.stream);
  if (needs.preserving) lane->MakeWaitForPreserving(access.stream);
  Note(access);
  return Verdict::kGo;
}

void LiveCopy::Visit(std::size_t index, const CallAccess& access,
                     Needs* needs) {
  Chunk& chunk = table_->chunks()[index];
  CopyLane* const lane = lanes_[static_cast<std::size_t>(chunk.device)].get();
  if (chunk.state == ChunkState::kLive) {
    const std::optional<DeviceAddress> place =
        lane->Preserve(chunk.address, chunk.bytes, (index << 2) | kPreserved);
    if (place) {
      chunk.shadow = *place;
      chunk.state = ChunkState::kPreserving;
    } else if (!chunk.urgent) {
      chunk.urgent = true;
      urgent_.push_back(index);
    }
  }
  // A stream can wait for work of its own device, and only work in a stream
  // can wait there.
  const bool here = access.stream == nullptr || access.releases ||
                    chunk.device != access.device;
  switch (chunk.state) {
    case ChunkState::kLive:
      needs->wait = true;
      break;
    case ChunkState::kPreserving:
      (here ? needs->wait : needs->preserving) = true;
      break;
    case ChunkState::kCopying:
      (here ? needs->wait : needs->copies) = true;
      break;
    case ChunkState::kShadow:
    case ChunkState::kCopyingShadow:
    case ChunkState::kDone:
      break;
  }
}

void LiveCopy::VisitTracked(std::size_t index, const CallAccess& access,
                            Needs* needs) {
  Chunk& chunk = table_->chunks()[index];
  chunk.dirty = true;
  if (!access.releases) return;
  // What goes away is not copied, but what is just being copied has to stay
  // until it is.
  if (chunk.state == ChunkState::kCopying) needs->wait = true;
  if (chunk.state == ChunkState::kLive) Skip(index);
}

void LiveCopy::Skip(std::size_t index) {
  Finish(&table_->chunks()[index]);
  MutexLock lock(&mu_);
  --unfed_;
  if (left_ == 0) all_copied_ = true;
  changed_.NotifyAll();
}

void LiveCopy::Note(const CallAccess& access) {
  if (access.what == last_noted_) return;
  last_noted_ = access.what;
  MutexLock lock(&mu_);
  if (seen_.size() < kMaxSeen) seen_.insert(last_noted_);
}

std::vector<std::string> LiveCopy::SeenCalls() {
  MutexLock lock(&mu_);
  return {seen_.begin(), seen_.end()};
}

}  // namespace pos::ckpt
