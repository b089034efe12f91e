#include "pos/job/hold_timer.h"

#include <algorithm>
#include <utility>

#include "pos/base/clock.h"

namespace pos::job {
namespace {

constexpr std::uint64_t kMsNs = 1000000;
// Longer than any job; what is asked beyond it would not fit the clock.
constexpr std::uint64_t kLongestMs = 10ull * 365 * 24 * 3600 * 1000;

}  // namespace

HoldTimer::HoldTimer(EventLoop* loop,
                     std::function<void(std::uint64_t ms)> expired)
    : loop_(loop), expired_(std::move(expired)) {}

HoldTimer::~HoldTimer() { End(); }

void HoldTimer::Start(std::uint64_t ms) {
  End();
  const std::uint64_t delay_ns = std::min(ms, kLongestMs) * kMsNs;
  until_ns_ = MonotonicNs() + delay_ns;
  timer_ = loop_->After(delay_ns, [this, ms] {
    timer_ = 0;
    // A copy: this may end with what it calls.
    const std::function<void(std::uint64_t)> expired = expired_;
    expired(ms);
  });
}

void HoldTimer::Change(const Hold& hold) {
  if (!hold.until_told()) {
    Start(hold.hold_ms());
    return;
  }
  End();
  until_told_ = true;
}

void HoldTimer::End() {
  loop_->Cancel(&timer_);
  until_told_ = false;
}

std::uint64_t HoldTimer::left_ms() const {
  const std::uint64_t now = MonotonicNs();
  if (timer_ == 0 || now >= until_ns_) return 0;
  return (until_ns_ - now) / kMsNs;
}

}  // namespace pos::job
