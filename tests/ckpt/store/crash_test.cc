// A crash at any point: every image that was there is still whole, an image
// that was being made is there whole or not at all, and gc gives back the
// rest. The process dies between any two steps in turn, and by SIGKILL at
// random moments.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <random>
#include <set>

#include "pos/base/clock.h"
#include "tests/ckpt/store/store_fixture.h"

namespace pos::ckpt {
namespace {

// The memory of checkpoint number `number`: mostly that of the one before.
Bytes MemoryOf(std::uint64_t number) {
  Bytes memory = Noise(12 * kTestChunk);
  for (std::uint64_t i = 0; i <= number; ++i) {
    const Bytes change = Noise(kTestChunk, 1000 + i);
    std::copy(change.begin(), change.end(),
              memory.begin() +
                  static_cast<std::ptrdiff_t>((i * 5 % 12) * kTestChunk));
  }
  return memory;
}

std::string JobOf(std::uint64_t number) {
  return "job-" + std::to_string(number);
}

// Checkpoints, removals and gc for as long as it lives. Each image says in its
// job's name which memory it must have.
void Work(Store* store, std::uint64_t first, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t number = first + static_cast<std::uint64_t>(round);
    if (!Checkpoint(store, MemoryOf(number), JobOf(number)).ok()) ::_exit(11);
    const auto list = store->List();
    if (list.size() > 3 && !store->Remove(list[0].image).ok()) ::_exit(12);
    if (round % 2 == 1 && !store->Gc().ok()) ::_exit(13);
    const auto pin = store->Keep(list.back().image, "test", "");
    if (!pin.ok() || !store->Drop(*pin).ok()) ::_exit(14);
  }
}

// What must hold after any crash. Leaves two images.
void CheckStore(const std::string& path) {
  auto store = Store::Open(path, TestOptions());
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  EXPECT_EQ((*store)->recovery().damaged, 0u);
  for (const PinInfo& pin : (*store)->Pins()) {
    ASSERT_TRUE((*store)->Drop(pin.pin).ok());
  }
  for (int pass = 0; pass < 2; ++pass) {
    for (const ImageSummary& summary : (*store)->List()) {
      const auto memory = Restore(store->get(), summary.image);
      ASSERT_TRUE(memory.ok()) << memory.status().ToString();
      EXPECT_TRUE(*memory == MemoryOf(std::stoull(summary.job.substr(4))));
      const auto report = (*store)->Verify(summary.image);
      ASSERT_TRUE(report.ok());
      EXPECT_EQ(report->problems, 0u) << report->first_problems[0];
    }
    const auto gc = (*store)->Gc();
    ASSERT_TRUE(gc.ok()) << gc.status().ToString();
  }
  // Nothing is left but what images name.
  std::set<std::string> packs;
  for (const ImageSummary& summary : (*store)->List()) {
    const auto manifest = (*store)->Show(summary.image);
    ASSERT_TRUE(manifest.ok());
    for (const PackRecord& pack : manifest->packs) {
      packs.insert(PackName(pack.pack) + ".pack");
    }
  }
  const auto there = ListDirectory(path + "/packs");
  EXPECT_THAT(*there, ::testing::ElementsAreArray(packs));
  for (const char* name : {"tmp", "trash", "pins"}) {
    EXPECT_EQ(CountFiles(path + "/" + name), 0u) << name;
  }
  // And it still works.
  ASSERT_TRUE(Checkpoint(store->get(), MemoryOf(999), JobOf(999)).ok());
  const auto list = (*store)->List();
  for (std::size_t i = 0; i + 2 < list.size(); ++i) {
    ASSERT_TRUE((*store)->Remove(list[i].image).ok());
  }
}

// Runs Work in a child that exits at step number `step`; false when it did not
// get that far.
bool DieAtStep(const std::string& path, int step) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    int left = step;
    StoreOptions options = TestOptions();
    options.on_step = [&left](std::string_view) {
      if (left-- == 0) ::_exit(77);
    };
    auto store = Store::Open(path, options);
    if (!store.ok()) ::_exit(10);
    Work(store->get(), static_cast<std::uint64_t>(step), 5);
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_TRUE(WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 0)
      << WEXITSTATUS(status);
  return WEXITSTATUS(status) == 77;
}

TEST(Crash, BetweenAnyTwoStepsLosesNothing) {
  int step = 0;
  for (;; ++step) {
    const TestDir dir("crash");
    SCOPED_TRACE(step);
    if (!DieAtStep(dir / "s", step)) break;
    CheckStore(dir / "s");
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(step, 30);  // so many steps were tried
}

TEST(Crash, AfterCrashUponCrashTheStoreIsWhole) {
  const TestDir dir("crashes");
  for (int step = 0; step < 40; step += 3) {
    SCOPED_TRACE(step);
    DieAtStep(dir / "s", step);
    CheckStore(dir / "s");
    if (HasFatalFailure()) return;
  }
}

TEST(Crash, BySigkillAtRandomMomentsLosesNothing) {
  const TestDir dir("sigkill");
  std::mt19937 random(42);
  for (int round = 0; round < 25; ++round) {
    SCOPED_TRACE(round);
    const pid_t pid = ::fork();
    if (pid == 0) {
      auto store = Store::Open(dir / "s", TestOptions());
      if (!store.ok()) ::_exit(10);
      Work(store->get(), static_cast<std::uint64_t>(round), 1000);
      ::_exit(0);
    }
    SleepNs(1000000ull * (1 + random() % 60));
    ::kill(pid, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
    CheckStore(dir / "s");
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace pos::ckpt
