// A disk that fills up at any moment of a checkpoint: a clean kDiskFull, and
// nothing of the image is left.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "tests/ckpt/store/store_fixture.h"

namespace pos::ckpt {
namespace {

constexpr int kNoMount = 100;

// In a child with a tmpfs of `bytes` of its own. 0: it fitted; 1: a clean
// failure; else what was wrong.
int CheckpointWithSpace(const std::string& dir, std::uint64_t bytes) {
  if (::unshare(CLONE_NEWNS) != 0) return kNoMount;
  ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  const std::string size = "size=" + std::to_string(bytes);
  if (::mount("tmpfs", dir.c_str(), "tmpfs", 0, size.c_str()) != 0) {
    return kNoMount;
  }
  auto store = Store::Open(dir, TestOptions());
  if (!store.ok()) return store.status().code() == Code::kDiskFull ? 1 : 101;
  const Bytes first = Noise(2 * kTestChunk);
  auto base = Checkpoint(store->get(), first);
  if (!base.ok()) {
    if (base.status().code() != Code::kDiskFull) return 102;
    if (!(*store)->List().empty()) return 103;
    return CountFiles(dir + "/tmp") + CountFiles(dir + "/images") +
                       CountFiles(dir + "/packs") ==
                   0
               ? 1
               : 104;
  }
  const std::size_t before = CountFiles(dir);
  const auto second = Checkpoint(store->get(), Noise(6 * kTestChunk, 2));
  const auto report = (*store)->Verify(*base);
  if (!report.ok() || report->problems != 0) return 105;
  if (second.ok()) return 0;
  if (second.status().code() != Code::kDiskFull) return 106;
  if ((*store)->List().size() != 1) return 107;
  if (CountFiles(dir) != before) return 108;
  store->reset();
  store = Store::Open(dir, TestOptions());
  return store.ok() && (*store)->recovery().drafts == 0 ? 1 : 109;
}

TEST(FullDisk, AtAnyMomentLeavesTheStoreAsItWas) {
  const TestDir dir("fulldisk");
  int full = 0;
  int fitted = 0;
  for (std::uint64_t pages = 1; pages < 190; ++pages) {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(CheckpointWithSpace(dir.path(), pages * 4096));
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFEXITED(status)) << pages;
    if (WEXITSTATUS(status) == kNoMount) {
      GTEST_SKIP() << "no right to mount a file system";
    }
    ASSERT_LE(WEXITSTATUS(status), 1) << pages << " pages";
    (WEXITSTATUS(status) == 0 ? fitted : full) += 1;
  }
  EXPECT_GT(full, 100);
  EXPECT_GT(fitted, 10);
}

}  // namespace
}  // namespace pos::ckpt
