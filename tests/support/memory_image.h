// One session's share of an image, in memory: made by the engine, by each of
// its protocols, and loaded again.
//
// Threads: one, but for the steps that run beside the session's client.
#ifndef POS_TESTS_SUPPORT_MEMORY_IMAGE_H_
#define POS_TESTS_SUPPORT_MEMORY_IMAGE_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "ckpt/engine/session_load.h"
#include "ckpt/engine/session_save.h"
#include "ckpt/format/pack_header.h"

namespace pos {

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
  // Before the session that it is of.
  ~MemoryImage() {
    cancel_ = true;
    EndBeside().IgnoreError();
  }
  MemoryImage(const MemoryImage&) = delete;
  MemoryImage& operator=(const MemoryImage&) = delete;

  // --- The session is quiesced. ---

  Status SaveStopped(Session* session) {
    POS_RETURN_IF_ERROR(Open(session));
    POS_RETURN_IF_ERROR(save_->CopyAtCut(&cancel_));
    POS_RETURN_IF_ERROR(save_->CopyHost(&cancel_));
    return Finish();
  }
  // Then the session runs on and FinishCow is begun; then EndBeside, Finish.
  Status BeginCow(Session* session, std::uint64_t shadow_bytes) {
    POS_RETURN_IF_ERROR(Open(session, shadow_bytes));
    POS_RETURN_IF_ERROR(save_->BeginCow(&cancel_));
    return save_->CopyHost(&cancel_);
  }
  // After rounds.
  Status SaveWhatIsLeft() {
    POS_RETURN_IF_ERROR(save_->CopyAtCut(&cancel_));
    POS_RETURN_IF_ERROR(save_->CopyHost(&cancel_));
    return Finish();
  }

  // --- The session runs. ---

  Status BeginRounds(Session* session) {
    POS_RETURN_IF_ERROR(Open(session));
    copying_ = std::thread([this] { status_ = save_->CopyRounds(&cancel_); });
    return {};
  }
  void FinishCow() {
    copying_ = std::thread([this] { status_ = save_->FinishCow(&cancel_); });
  }
  // What was begun last has been done.
  Status EndBeside() {
    if (copying_.joinable()) copying_.join();
    return status_;
  }

  Status Finish() {
    if (save_->counts().unforeseen_chunks != 0) {
      return Internal(std::to_string(save_->counts().unforeseen_chunks) +
                      " chunks were written that no call had announced");
    }
    const Status status = save_->Finish();
    save_.reset();
    return status;
  }

  [[nodiscard]] ckpt::SessionLoadFiles Files() const {
    ckpt::SessionLoadFiles files;
    files.index = Duplicate(index_);
    files.packs.emplace_back(pack_id_, Duplicate(pack_));
    return files;
  }

 private:
  static constexpr std::uint64_t kSeed = 4711;
  static UniqueFd Duplicate(const UniqueFd& fd) {
    return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  }
  Status Open(Session* session, std::uint64_t shadow_bytes = 0) {
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
    options.shadow_bytes = shadow_bytes;
    options.small_bytes = 4 << 10;
    POS_ASSIGN_OR_RETURN(
        save_, ckpt::SessionSave::Create(session, std::move(files), options));
    return {};
  }

  const UniqueFd pack_;
  const UniqueFd index_;
  const ckpt::StoreId store_;
  const ckpt::PackId pack_id_;
  std::atomic<bool> cancel_{false};
  std::thread copying_;
  Status status_;  // of what ran beside
  std::unique_ptr<ckpt::SessionSave> save_;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_MEMORY_IMAGE_H_
