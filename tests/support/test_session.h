// A session with devices, ledger and host window, in the test's own process.
#ifndef POS_TESTS_SUPPORT_TEST_SESSION_H_
#define POS_TESTS_SUPPORT_TEST_SESSION_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/runner/session.h"
#include "pos/runner/tmpfs_window.h"

namespace pos {

// Grants up to a limit, or says "pending" until told otherwise.
class TestLedger : public MemoryLedger {
 public:
  explicit TestLedger(std::uint64_t limit_bytes) : limit_(limit_bytes) {}
  Answer Take(int, std::uint64_t bytes) override {
    const MutexLock lock(&mu_);
    ++asked_;
    if (pending_) return Answer::kPending;
    if (used_ + bytes > limit_) {
      return reclaim_ && reclaim_(0) ? Answer::kPending : Answer::kDenied;
    }
    used_ += bytes;
    return Answer::kGranted;
  }
  void GiveBack(int, std::uint64_t bytes) override {
    const MutexLock lock(&mu_);
    EXPECT_GE(used_, bytes) << "more came back than was taken";
    used_ -= bytes;
  }
  [[nodiscard]] std::uint64_t FreeBytes(int) const override {
    const MutexLock lock(&mu_);
    return limit_ - used_;
  }
  void SetReclaim(std::function<bool(int)> reclaim) override {
    const MutexLock lock(&mu_);
    reclaim_ = std::move(reclaim);
  }
  [[nodiscard]] std::uint64_t used() const {
    const MutexLock lock(&mu_);
    return used_;
  }
  [[nodiscard]] std::uint64_t asked() const {
    const MutexLock lock(&mu_);
    return asked_;
  }
  // What a session that was loaded has taken: loading itself takes nothing.
  void SetUsed(std::uint64_t bytes) {
    const MutexLock lock(&mu_);
    used_ = bytes;
  }
  void SetPending(bool on) {
    const MutexLock lock(&mu_);
    pending_ = on;
  }
  void SetLimit(std::uint64_t bytes) {
    const MutexLock lock(&mu_);
    limit_ = bytes;
  }

 private:
  mutable Mutex mu_;
  std::uint64_t limit_ POS_GUARDED_BY(mu_);
  std::uint64_t used_ POS_GUARDED_BY(mu_) = 0;
  std::uint64_t asked_ POS_GUARDED_BY(mu_) = 0;
  bool pending_ POS_GUARDED_BY(mu_) = false;
  std::function<bool(int)> reclaim_ POS_GUARDED_BY(mu_);
};

// Addresses that a fixed mapping may take under ThreadSanitizer, too. `place`:
// which of 64 disjoint parts of them.
inline SessionOptions TestOptions(int stage_threads, int place = 0) {
  SessionOptions options;
  options.layout.arena_base =
      0x7e8000000000 + (static_cast<std::uint64_t>(place) << 32);
  options.layout.arena_bytes = 2ull << 30;
  options.layout.host_base = options.layout.arena_base + (3ull << 30);
  options.layout.host_bytes = 64ull << 20;
  options.stage_threads = stage_threads;
  options.ring.staging_bytes = 4 << 20;
  return options;
}

class TestSession {
 public:
  TestSession(const SessionOptions& options, std::vector<Device*> devices,
              std::uint64_t memory_bytes = 1ull << 30)
      : options_(options), ledger_(memory_bytes) {
    UniqueFd file(::memfd_create("pos-test-host", MFD_CLOEXEC));
    EXPECT_EQ(
        ::ftruncate(file.get(), static_cast<off_t>(options.layout.host_bytes)),
        0);
    host_fd_.Reset(::fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
    auto window = TmpfsWindow::Create(std::move(file), options.layout.host_base,
                                      options.layout.host_bytes);
    EXPECT_TRUE(window.ok()) << window.status().ToString();
    window_ = std::move(*window);
    auto session = Session::Create(options, std::move(devices), &ledger_,
                                   window_.get(), [this](const Status& status) {
                                     malformed_.fetch_add(1);
                                     const MutexLock lock(&mu_);
                                     reason_ = status;
                                   });
    EXPECT_TRUE(session.ok()) << session.status().ToString();
    session_ = std::move(*session);
  }

  Session* operator->() { return session_.get(); }
  Session& operator*() { return *session_; }
  RingServer* ring() { return session_->ring(); }
  TestLedger& ledger() { return ledger_; }
  [[nodiscard]] TmpfsWindow& window() { return *window_; }
  [[nodiscard]] int host_fd() const { return host_fd_.get(); }
  [[nodiscard]] const cuda::ArenaLayout& layout() const {
    return options_.layout;
  }
  void Destroy() { session_.reset(); }
  [[nodiscard]] int malformed() const { return malformed_.load(); }

 private:
  const SessionOptions options_;
  TestLedger ledger_;
  std::atomic<int> malformed_{0};
  Mutex mu_;
  Status reason_ POS_GUARDED_BY(mu_);
  UniqueFd host_fd_;
  std::unique_ptr<TmpfsWindow> window_;
  std::unique_ptr<Session> session_;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_TEST_SESSION_H_
