// A session on the simulated device that can be cut at any instant and made
// again from its image, as a restore does, without CRIU: the client is this
// test.
//
// Threads: one, the client's.
#ifndef POS_TESTS_SUPPORT_REVIVED_SESSION_H_
#define POS_TESTS_SUPPORT_REVIVED_SESSION_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "pos/base/backoff.h"
#include "tests/support/memory_image.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"
#include "tests/support/vandal.h"

namespace pos {

// How the image is made. One row for each protocol that there is.
enum class CutMode : std::uint8_t { kStop, kCow, kRecopy };
inline constexpr CutMode kCutModes[] = {CutMode::kStop, CutMode::kCow,
                                        CutMode::kRecopy};

class RevivedSession {
 public:
  explicit RevivedSession(int stage_threads, int place = 0)
      : stage_threads_(stage_threads),
        place_(place),
        session_(std::make_unique<SimSession>(stage_threads, place)),
        client_(session_->ring()) {}

  ~RevivedSession() { EndBeside(); }
  RevivedSession(const RevivedSession&) = delete;
  RevivedSession& operator=(const RevivedSession&) = delete;

  SessionClient& client() { return client_; }
  Session* operator->() { return &***session_; }
  SimSession& session() { return *session_; }

  // From now on what the client sends is pending; until Revive or LetGo.
  void Hold() {
    EndBeside();
    (*session_)->SeekRest(Session::Rest::kNow);
    const Deadline deadline = Deadline::AfterMs(20000);
    Backoff backoff;
    while (!(*session_)->AtRest()) {
      if (deadline.Passed()) {
        ADD_FAILURE() << "the device does not come to rest: "
                      << (*session_)->on_device() << " calls are on it";
        return;
      }
      backoff.Wait();
    }
    held_ = true;
  }
  void LetGo() {
    (*session_)->EndRest();
    held_ = false;
  }
  [[nodiscard]] bool held() const { return held_; }

  // Rounds of a recopy begin, beside what the client does until the cut.
  void BeginRounds() {
    EndBeside();
    rounds_ = std::make_unique<MemoryImage>();
    const Status status = rounds_->BeginRounds(&***session_);
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  // From now on sessions are loaded while they run, at this speed.
  void LoadLazily(std::optional<std::uint64_t> bytes_per_second) {
    lazily_ = bytes_per_second;
  }
  // Room to preserve in, of each cow, and what the first session does to the
  // memory of the program while the other one's image is made.
  void Rage(std::uint64_t seed) { rage_ = seed; }

  // Cuts here and goes on in another session.
  ::testing::AssertionResult Revive(CutMode mode = CutMode::kStop) {
    return ReviveAnd(mode, false);
  }
  // The new session holds again before it has carried out anything.
  ::testing::AssertionResult ReviveHeld(CutMode mode = CutMode::kStop) {
    return ReviveAnd(mode, true);
  }
  // A checkpoint that is given up in the end: the session goes on as if there
  // had been none.
  ::testing::AssertionResult GiveUp(CutMode mode = CutMode::kStop) {
    auto image = std::make_unique<MemoryImage>();
    ::testing::AssertionResult cut = Cut(mode, &image);
    GoOn();
    if (cut && !refused_ && mode == CutMode::kCow) {
      image->FinishCow();
      cow_ = std::move(image);
    }
    return cut;
  }
  // What goes on beside the client is waited for: nothing else can begin
  // before.
  void EndBeside() {
    if (rounds_ != nullptr) {
      const Status status = rounds_->EndBeside();
      EXPECT_TRUE(status.ok()) << "rounds: " << status.ToString();
    }
    if (cow_ != nullptr) {
      Status status = cow_->EndBeside();
      EXPECT_TRUE(status.ok()) << "cow: " << status.ToString();
      if (status.ok()) status = cow_->Finish();
      EXPECT_TRUE(status.ok()) << "cow: " << status.ToString();
      cow_.reset();
    }
    if (lazy_ == nullptr) return;
    const Deadline deadline = Deadline::AfterMs(20000);
    for (Backoff backoff; !lazy_->progress().ended; backoff.Wait()) {
      if (!deadline.Passed()) continue;
      ADD_FAILURE() << "memory is not loaded";
      break;
    }
    EXPECT_TRUE(lazy_->progress().status.ok())
        << lazy_->progress().status.ToString();
    (*session_)->ReplaceWatch(nullptr);
    lazy_.reset();
  }
  // Of the last Revive: calls in the image; whether the session said that it
  // cannot be saved at that instant, and went on.
  [[nodiscard]] bool refused() const { return refused_; }
  [[nodiscard]] std::size_t pending() const { return pending_; }
  [[nodiscard]] int revivals() const { return revivals_; }

 private:
  ::testing::AssertionResult ReviveAnd(CutMode mode, bool held) {
    auto image = std::make_unique<MemoryImage>();
    ::testing::AssertionResult cut = Cut(mode, &image);
    if (!cut || refused_) {
      GoOn();
      return cut;
    }
    client_.Leave();
    if (mode == CutMode::kCow) {
      // The job goes on without this client, and does its worst.
      GoOn();
      image->FinishCow();
      Vandal(session_.get(), rage_).Rage(20);
      Status status = image->EndBeside();
      if (status.ok()) status = image->Finish();
      if (!status.ok()) {
        client_.Return(session_->ring());
        session_->ring()->SetClosed();
        return Failed("cow", status);
      }
    }
    // The addresses are the session's: one at a time can have them.
    session_.reset();
    session_ = std::make_unique<SimSession>(stage_threads_, place_, nullptr);
    const Status status = Load(*image);
    client_.Return(session_->ring());
    if (!status.ok()) {
      session_->ring()->SetClosed();  // nobody waits for it
      return Failed("load", status);
    }
    session_->ledger().SetUsed((*session_)->TakenBytes(0));
    held_ = held;
    if (held) (*session_)->SeekRest(Session::Rest::kNow);
    (*session_)->Start();
    ++revivals_;
    return ::testing::AssertionSuccess();
  }
  Status Load(const MemoryImage& image) {
    if (!lazily_) {
      return ckpt::LoadSession(&***session_, image.Files()).status();
    }
    ckpt::LazyLoadOptions options;
    options.bytes_per_second = *lazily_;
    options.threads = 2;
    POS_ASSIGN_OR_RETURN(
        lazy_, ckpt::LoadSessionLazily(&***session_, image.Files(), options));
    (*session_)->SetWatch(lazy_.get());
    lazy_->Begin({.wake = [session = &***session_] { session->Wake(); },
                  .ended = [] {}});
    return {};
  }
  Status Save(CutMode mode, std::unique_ptr<MemoryImage>* image) {
    switch (mode) {
      case CutMode::kStop:
        return (*image)->SaveStopped(&***session_);
      case CutMode::kCow:
        // None, less than is needed, enough.
        return (*image)->BeginCow(&***session_, (rage_ % 4) * (2 << 20));
      case CutMode::kRecopy:
        if (rounds_ == nullptr) return (*image)->SaveStopped(&***session_);
        *image = std::move(rounds_);
        return (*image)->SaveWhatIsLeft();
    }
    return Invalid("no such mode");
  }
  ::testing::AssertionResult Cut(CutMode mode,
                                 std::unique_ptr<MemoryImage>* image) {
    refused_ = false;
    EndBeside();
    if (mode != CutMode::kRecopy) rounds_.reset();
    (*session_)->MakeRoom();
    Status status = (*session_)->Quiesce(Deadline::AfterMs(20000));
    if (!status.ok()) return Failed("quiesce", status);
    pending_ = (*session_)->pending_calls();
    if ((*session_)->TakenBytes(0) != session_->ledger().used()) {
      return ::testing::AssertionFailure()
             << "the session holds " << (*session_)->TakenBytes(0)
             << " bytes and has taken " << session_->ledger().used();
    }
    refused_ = (*session_)->CheckSavable().code() == Code::kBusy;
    if (refused_) return ::testing::AssertionSuccess();
    status = Save(mode, image);
    if (!status.ok()) return Failed("save", status);
    return ::testing::AssertionSuccess();
  }
  void GoOn() {
    (*session_)->Resume();
    held_ = false;
  }
  static ::testing::AssertionResult Failed(const char* what,
                                           const Status& status) {
    return ::testing::AssertionFailure() << what << ": " << status.ToString();
  }

  const int stage_threads_;
  const int place_;
  std::unique_ptr<SimSession> session_;
  SessionClient client_;
  std::unique_ptr<MemoryImage> rounds_;  // of a recopy
  std::unique_ptr<MemoryImage> cow_;     // that was given up
  std::unique_ptr<ckpt::LazyLoad> lazy_;
  std::optional<std::uint64_t> lazily_;
  std::uint64_t rage_ = 3;
  bool held_ = false;
  bool refused_ = false;
  std::size_t pending_ = 0;
  int revivals_ = 0;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_REVIVED_SESSION_H_
