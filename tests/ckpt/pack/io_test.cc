// Where writing meets the machine: no io_uring, a full disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include "pos/base/backoff.h"
#include "pos/base/clock.h"
#include "tests/ckpt/pack/session_fixture.h"

namespace pos::ckpt {
namespace {

constexpr std::uint32_t kChunk = 64u << 10;

// Runs `body` in a child, so that filters and mounts end with it. 0 is good.
template <typename F>
int InChild(F body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body());
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

// io_uring_setup fails with EPERM from here on.
bool ForbidUring() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {4, code};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(Seccomp, WithoutUringEverythingStillWorks) {
  const TestDir dir("seccomp");
  const int rc = InChild([&dir] {
    if (!ForbidUring()) return 2;
    if (MakeIoQueue(IoKind::kUring, 4).ok()) return 3;
    TestSession session(dir.path(), kChunk);
    PackWriterOptions options;
    options.pool_bytes = 12 * kChunk;
    auto writer = session.Writer(options);
    if (writer == nullptr || writer->packs().uses_uring()) return 4;
    const Bytes data = Noise(40 * kChunk + 5);
    if (!WriteRegion(writer.get(), 0, data, kChunk).ok()) return 5;
    if (!writer->Finish().ok()) return 6;
    PackSet packs;
    if (!session.AddTo(&packs).ok()) return 7;
    auto got = ReadAll(std::move(*session.Index()), packs);
    return got.ok() && got->at("0") == data ? 0 : 8;
  });
  EXPECT_EQ(rc, 0);
}

// In a child: mounts a tmpfs of `bytes` and writes a session of 2 MiB there.
// Returns 0 when that worked, 1 for a clean kDiskFull, else something else.
int WriteWithSpace(const std::string& dir, std::size_t bytes,
                   const PackWriterOptions& options) {
  if (::unshare(CLONE_NEWNS) != 0) return 100;
  ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  const std::string size = "size=" + std::to_string(bytes);
  if (::mount("tmpfs", dir.c_str(), "tmpfs", 0, size.c_str()) != 0) return 100;
  TestSession session(dir, kChunk);
  SessionFiles files = session.MakeFiles();
  auto writer = SessionWriter::Create(std::move(files), options);
  if (!writer.ok()) return 101;
  Status status = WriteRegion(writer->get(), 0, Noise(32 * kChunk), kChunk);
  if (status.ok()) status = (*writer)->Finish().status();
  if (status.ok()) return 0;
  if (status.code() != Code::kDiskFull) return 102;
  // The error stays.
  const Code later = (*writer)->packs().Acquire().status().code();
  return later == Code::kDiskFull ? 1 : 103;
}

TEST(FullDisk, IsACleanErrorWhereverItHappens) {
  const TestDir dir("full");
  PackWriterOptions options;
  options.pool_bytes = 12 * kChunk;
  int full = 0;
  int fine = 0;
  for (const IoKind io : {IoKind::kAuto, IoKind::kSync}) {
    options.io = io;
    for (std::size_t pages = 4; pages <= 540; pages += 67) {
      const int rc = InChild(
          [&] { return WriteWithSpace(dir.path(), pages * 4096, options); });
      if (rc == 100) GTEST_SKIP() << "no right to mount a file system";
      EXPECT_LE(rc, 1) << pages;
      full += rc == 1 ? 1 : 0;
      fine += rc == 0 ? 1 : 0;
    }
  }
  EXPECT_GT(full, 10);
  EXPECT_EQ(fine, 2);  // the last size of each
}

TEST(BufferPool, WaitsAreBoundedAndCloseEndsThem) {
  auto pool = BufferPool::Create(kBlockBytes, 1);
  ASSERT_TRUE(pool.ok());
  Result<Buffer> only = (*pool)->Acquire(0);
  ASSERT_TRUE(only.ok());
  EXPECT_EQ((*pool)->Acquire(5).status().code(), Code::kTimeout);
  EXPECT_FALSE((*pool)->TryAcquire().valid());
  std::thread waiter([&pool] {
    EXPECT_EQ((*pool)->Acquire(60000).status().code(), Code::kAborted);
  });
  (*pool)->Close(Aborted("enough"));
  waiter.join();
}

// As on a disk that stands still: no buffer comes back.
TEST(PackWriter, AnAbortEndsTheWaitForABuffer) {
  const TestDir dir("abort");
  TestSession session(dir.path(), kChunk);
  PackWriterOptions options;
  options.pool_bytes = 12 * kChunk;
  const auto writer = session.Writer(options);
  ASSERT_NE(writer, nullptr);
  std::vector<Buffer> held;
  std::atomic<std::size_t> count{0};
  std::thread waiter([&] {
    for (;;) {
      Result<Buffer> buffer = writer->packs().Acquire();
      if (!buffer.ok()) {
        EXPECT_EQ(buffer.status().code(), Code::kAborted);
        return;
      }
      held.push_back(std::move(*buffer));
      count.fetch_add(1);
    }
  });
  const Deadline deadline = Deadline::AfterMs(20000);
  for (Backoff backoff; count.load() < 6 && !deadline.Passed();) {
    backoff.Wait();
  }
  const std::uint64_t began_ns = MonotonicNs();
  writer->packs().Abort();
  waiter.join();
  EXPECT_LT(MonotonicNs() - began_ns, 5'000'000'000u);
  EXPECT_GT(held.size(), 5u);
  EXPECT_EQ(writer->packs().Flush().code(), Code::kAborted);
}

}  // namespace
}  // namespace pos::ckpt
