#include "pos/worker/worker.h"

namespace pos {

void CompletionQueue::OnComplete(std::uint64_t token, DeviceError error) {
  {
    MutexLock lock(&mu_);
    items_.push_back({token, error});
    count_.store(static_cast<std::uint32_t>(items_.size()),
                 std::memory_order_release);
  }
  if (wake_) wake_();
}

bool CompletionQueue::Take(std::vector<Item>* out) {
  out->clear();
  if (empty()) return false;
  MutexLock lock(&mu_);
  out->swap(items_);
  count_.store(0, std::memory_order_relaxed);
  return true;
}

void Worker::Finish(ApiContext* context) {
  if (context->wants_reply() && !context->answered) port_->Reply(context);
  port_->ReleaseBulkIn(context);
  pool_->Give(ContextPool::Lane::kWorker, context);
}

bool Worker::TakeCompletions() {
  if (!completions_->Take(&taken_)) return false;
  for (const CompletionQueue::Item& item : taken_) {
    ApiContext* const context =
        pool_->At(static_cast<std::uint32_t>(item.token - 1));
    if (api_->Complete(context, item.error) == ApiExecutor::Outcome::kDone) {
      in_flight_.fetch_sub(1, std::memory_order_relaxed);
      Finish(context);
    }
  }
  return true;
}

bool Worker::Blocked() {
  // Cleared before the call is executed, not when it is found blocked: what
  // asked for another try meanwhile is not missed.
  if (retry_.load(std::memory_order_relaxed) &&
      retry_.exchange(false, std::memory_order_acq_rel)) {
    blocked_ = false;
  }
  return blocked_;
}

bool Worker::ExecuteSome() {
  const bool hold = hold_.load(std::memory_order_acquire);
  bool progress = false;
  for (int i = 0; i < kBatch; ++i) {
    if (!hold && Blocked()) break;
    ApiContext* context = nullptr;
    if (!hold && !pending_.empty()) {
      context = pending_.front();
      pending_.pop_front();
    } else if (!in_->TryPop(&context)) {
      break;
    }
    if (hold) {
      progress = true;
      pending_.push_back(context);
      continue;
    }
    // Counted before: the completion may come while Execute still runs.
    in_flight_.fetch_add(1, std::memory_order_relaxed);
    const ApiExecutor::Outcome outcome = api_->Execute(context);
    if (outcome == ApiExecutor::Outcome::kInFlight) {
      progress = true;
      continue;
    }
    in_flight_.fetch_sub(1, std::memory_order_relaxed);
    if (outcome == ApiExecutor::Outcome::kBlocked) {
      blocked_ = true;
      pending_.push_front(context);
      continue;
    }
    progress = true;
    Finish(context);
  }
  return progress;
}

bool Worker::Step() {
  const bool completed = TakeCompletions();
  return ExecuteSome() || completed;
}

bool Worker::Idle() {
  if (!completions_->empty()) return false;
  const bool hold = hold_.load(std::memory_order_acquire);
  if (!hold && blocked_) return !retry_.load(std::memory_order_acquire);
  return in_->Empty() && (hold || pending_.empty());
}

bool Worker::Quiet() {
  return in_->Empty() && completions_->empty() && in_flight() == 0;
}

}  // namespace pos
