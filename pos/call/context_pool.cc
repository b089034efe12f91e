#include "pos/call/context_pool.h"

#include <cstdlib>

#include "pos/base/log.h"

namespace pos {

void ApiContext::Reset() {
  pc = 0;
  info = nullptr;
  request_id = 0;
  slot = wire::kNoSlot;
  lease = wire::kNoLease;
  bulk_bytes = 0;
  flags = 0;
  answered = false;
  parsed = false;
  handles = {};
  scratch = {};
  family.clear();
  result = 0;
  reply_bytes = 0;
  reply_bulk_bytes = 0;
  frame_bytes = 0;
  inline_bytes = 0;
  // `= {}` would keep the memory.
  if (!owned_bulk.empty()) owned_bulk = std::vector<std::byte>();
}

void ApiContext::DropBuffers() {
  overflow = std::vector<std::byte>();
  family = std::vector<Handle*>();
}

ApiContext* ContextPool::Take() {
  if (free_.empty() || out_ >= limit_) Recycle();
  if (out_ >= limit_ && !unbounded_.load(std::memory_order_relaxed)) {
    return nullptr;
  }
  if (free_.empty() && !Grow()) return nullptr;
  ApiContext* const context = free_.back();
  free_.pop_back();
  context->in_pool = false;
  ++out_;
  return context;
}

void ContextPool::Recycle() {
  for (ReturnLane& lane : lanes_) {
    if (lane.count.load(std::memory_order_acquire) == 0) continue;
    MutexLock lock(&lane.mu);
    lane.count.store(0, std::memory_order_relaxed);
    out_ -= static_cast<std::uint32_t>(lane.batch.size());
    free_.insert(free_.end(), lane.batch.begin(), lane.batch.end());
    lane.batch.clear();
  }
}

bool ContextPool::Grow() {
  if (owned_.size() == kMaxBlocks) return false;
  owned_.push_back(std::make_unique<ApiContext[]>(kBlock));
  ApiContext* const block = owned_.back().get();
  for (std::uint32_t i = 0; i < kBlock; ++i) {
    block[i].pool_index = made_ + i;
    free_.push_back(&block[i]);
  }
  blocks_[owned_.size() - 1].store(block, std::memory_order_release);
  made_ += kBlock;
  return true;
}

void ContextPool::Give(Lane lane_id, ApiContext* context) {
  if (context->in_pool) {
    Log(LogLevel::kError, "an API context was freed twice",
        {{"pc", context->pc}});
    std::abort();
  }
  context->Reset();
  if (context->pool_index >= kKeepBuffers) context->DropBuffers();
  context->in_pool = true;
  ReturnLane& lane = lanes_[static_cast<std::size_t>(lane_id)];
  MutexLock lock(&lane.mu);
  lane.batch.push_back(context);
  lane.count.store(static_cast<std::uint32_t>(lane.batch.size()),
                   std::memory_order_release);
}

ApiContext* ContextPool::At(std::uint32_t pool_index) {
  return blocks_[pool_index / kBlock].load(std::memory_order_acquire) +
         pool_index % kBlock;
}

std::uint32_t ContextPool::Outstanding() {
  Recycle();
  return out_;
}

}  // namespace pos
