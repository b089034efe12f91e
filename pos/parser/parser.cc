#include "pos/parser/parser.h"

#include <utility>

namespace pos {

void NoticeBoard::Post(const Notice& notice) {
  {
    MutexLock lock(&mu_);
    notices_.push_back(notice);
    count_.store(static_cast<std::uint32_t>(notices_.size()),
                 std::memory_order_release);
  }
  if (wake_) wake_();
}

bool NoticeBoard::Take(std::vector<Notice>* out) {
  out->clear();
  if (empty()) return false;
  MutexLock lock(&mu_);
  out->swap(notices_);
  count_.store(0, std::memory_order_relaxed);
  return true;
}

void Parser::TakeNotices() {
  if (!notices_->Take(&taken_)) return;
  for (const Notice& notice : taken_) api_->OnNotice(notice);
}

bool Parser::FlushReady() {
  if (ready_ == nullptr) return true;
  if (!out_->TryPush(ready_)) return false;
  ready_ = nullptr;
  if (wake_downstream_) wake_downstream_();
  return true;
}

bool Parser::ParseOne(ApiContext* context) {
  // After the context was taken: what the worker posted before it replied to
  // an earlier call of this client must be known now.
  TakeNotices();
  switch (api_->Parse(context)) {
    case ApiParser::Outcome::kStall:
      return false;
    case ApiParser::Outcome::kAnswered:
      if (context->wants_reply() && !context->answered) port_->Reply(context);
      port_->ReleaseBulkIn(context);
      pool_->Give(ContextPool::Lane::kParser, context);
      return true;
    case ApiParser::Outcome::kForward:
      context->parsed = true;
      ready_ = context;
      FlushReady();
      return true;
  }
  return true;
}

bool Parser::RetryWaiting() {
  bool progress = false;
  for (std::size_t left = waiting_.size(); left != 0; --left) {
    if (!FlushReady()) break;
    ApiContext* const context = waiting_.front();
    waiting_.pop_front();
    if (ParseOne(context)) {
      progress = true;
    } else {
      waiting_.push_back(context);
    }
  }
  return progress;
}

bool Parser::Step() {
  bool progress = RetryWaiting();
  for (int i = 0; i < kBatch; ++i) {
    ApiContext* context = nullptr;
    if (!FlushReady() || !in_->TryPop(&context)) break;
    if (!ParseOne(context)) waiting_.push_back(context);
    progress = true;
  }
  if (!notices_->empty()) {
    TakeNotices();
    progress = true;
  }
  return progress;
}

bool Parser::Idle() { return Quiet() && waiting_.empty(); }

bool Parser::Quiet() {
  return ready_ == nullptr && in_->Empty() && notices_->empty();
}

}  // namespace pos
