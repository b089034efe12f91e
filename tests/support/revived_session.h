// A session on the simulated device that can be cut at any instant and made
// again from its image, as a restore does, without CRIU: the client is this
// test.
//
// Threads: one, the client's.
#ifndef POS_TESTS_SUPPORT_REVIVED_SESSION_H_
#define POS_TESTS_SUPPORT_REVIVED_SESSION_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ckpt/engine/session_load.h"
#include "ckpt/engine/session_save.h"
#include "ckpt/format/pack_header.h"
#include "pos/base/backoff.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"

namespace pos {

// How the image is made. One row for each protocol that there is.
enum class CutMode { kStop };
inline constexpr CutMode kCutModes[] = {CutMode::kStop};

// One session's share of an image, in memory.
class MemoryImage {
 public:
  MemoryImage()
      : pack_(::memfd_create("pos-test-pack", MFD_CLOEXEC)),
        index_(::memfd_create("pos-test-index", MFD_CLOEXEC)),
        store_(ckpt::NewStoreId()),
        pack_id_(ckpt::NewPackId()) {
    ckpt::PackHeader header;
    header.store = store_;
    header.pack = pack_id_;
    header.digest_seed = kSeed;
    const std::vector<std::byte> bytes = ckpt::EncodePackHeader(header);
    EXPECT_EQ(::pwrite(pack_.get(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
  }

  // The session is quiesced.
  Status Save(Session* session, CutMode mode) {
    switch (mode) {
      case CutMode::kStop:
        return SaveStopped(session);
    }
    return Invalid("no such mode");
  }
  Status Load(Session* session) const {
    ckpt::SessionLoadFiles files;
    files.index = Duplicate(index_);
    files.packs.emplace_back(pack_id_, Duplicate(pack_));
    return ckpt::LoadSession(session, std::move(files)).status();
  }

 private:
  static constexpr std::uint64_t kSeed = 4711;
  static UniqueFd Duplicate(const UniqueFd& fd) {
    return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  }
  Status SaveStopped(Session* session) {
    ckpt::SessionFiles files;
    files.store = store_;
    files.session = 1;
    files.digest_seed = kSeed;
    files.chunk_bytes = 2u << 20;
    files.pack_id = pack_id_;
    files.pack = Duplicate(pack_);
    files.index = Duplicate(index_);
    ckpt::SaveOptions options;
    options.pack.threads = 1;
    options.pack.direct = false;
    const std::atomic<bool> cancel{false};
    POS_ASSIGN_OR_RETURN(
        const auto save,
        ckpt::SessionSave::Create(session, std::move(files), options));
    POS_RETURN_IF_ERROR(save->CopyAtCut(&cancel));
    POS_RETURN_IF_ERROR(save->CopyHost(&cancel));
    return save->Finish();
  }

  const UniqueFd pack_;
  const UniqueFd index_;
  const ckpt::StoreId store_;
  const ckpt::PackId pack_id_;
};

class RevivedSession {
 public:
  explicit RevivedSession(int stage_threads, int place = 0)
      : stage_threads_(stage_threads),
        place_(place),
        session_(std::make_unique<SimSession>(stage_threads, place)),
        client_(session_->ring()) {}

  SessionClient& client() { return client_; }
  Session* operator->() { return &***session_; }
  SimSession& session() { return *session_; }

  // From now on what the client sends is pending; until Revive or LetGo.
  void Hold() {
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

  // Cuts here and goes on in another session.
  ::testing::AssertionResult Revive(CutMode mode = CutMode::kStop) {
    return ReviveAnd(mode, false);
  }
  // The new session holds again before it has carried out anything.
  ::testing::AssertionResult ReviveHeld(CutMode mode = CutMode::kStop) {
    return ReviveAnd(mode, true);
  }
  // A checkpoint that is given up when the image has been written: the session
  // goes on as if there had been none.
  ::testing::AssertionResult GiveUp(CutMode mode = CutMode::kStop) {
    MemoryImage image;
    ::testing::AssertionResult cut = Cut(mode, &image);
    GoOn();
    return cut;
  }
  // Of the last Revive: calls in the image; whether the session said that it
  // cannot be saved at that instant, and went on.
  [[nodiscard]] bool refused() const { return refused_; }
  [[nodiscard]] std::size_t pending() const { return pending_; }
  [[nodiscard]] int revivals() const { return revivals_; }

 private:
  ::testing::AssertionResult ReviveAnd(CutMode mode, bool held) {
    MemoryImage image;
    ::testing::AssertionResult cut = Cut(mode, &image);
    if (!cut || refused_) {
      GoOn();
      return cut;
    }
    client_.Leave();
    // The addresses are the session's: one at a time can have them.
    session_.reset();
    session_ = std::make_unique<SimSession>(stage_threads_, place_, nullptr);
    const Status status = image.Load(&***session_);
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
  ::testing::AssertionResult Cut(CutMode mode, MemoryImage* image) {
    refused_ = false;
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
    status = image->Save(&***session_, mode);
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
  bool held_ = false;
  bool refused_ = false;
  std::size_t pending_ = 0;
  int revivals_ = 0;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_REVIVED_SESSION_H_
