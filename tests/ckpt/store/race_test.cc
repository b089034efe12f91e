// Everything at once: checkpoints of several jobs and owners, restores,
// removals, gc, verification.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/ckpt/store/store_fixture.h"

namespace pos::ckpt {
namespace {

class RaceTest : public StoreTest {
 protected:
  // The first byte of an image's memory says which seed it was made of.
  static Bytes MemoryOf(unsigned seed) {
    Bytes memory = Noise(6 * kTestChunk, 7);
    memory[0] = static_cast<std::byte>(seed);
    const Bytes own = Noise(kTestChunk, seed);
    std::copy(own.begin(), own.end(), memory.begin() + 2 * kTestChunk);
    return memory;
  }
  // Restores some image and checks what comes out. Images may vanish before
  // they are opened, never afterwards.
  void RestoreSome(unsigned which) {
    const auto list = store_->List();
    if (list.empty()) return;
    const auto handle =
        store_->OpenImage(list[which % list.size()].image, "racer");
    if (!handle.ok()) {
      ASSERT_EQ(handle.status().code(), Code::kNoSuch);
      return;
    }
    const auto memory = Restore(**handle);
    ASSERT_TRUE(memory.ok()) << memory.status().ToString();
    ASSERT_TRUE(*memory == MemoryOf(std::to_integer<unsigned>(memory->at(0))));
  }
};

TEST_F(RaceTest, NothingIsLostOrHeldForEver) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([this, t] {
      for (unsigned i = 0; i < 8; ++i) {
        const auto image =
            Checkpoint(store_.get(), MemoryOf(t * 8 + i),
                       "job" + std::to_string(t % 2), t == 2 ? kBob : kAlice);
        ASSERT_TRUE(image.ok()) << image.status().ToString();
        const auto expired = store_->Expire(t == 2 ? kBob : kAlice,
                                            "job" + std::to_string(t % 2), 2);
        ASSERT_TRUE(expired.ok()) << expired.status().ToString();
      }
    });
  }
  std::thread collector([this, &stop] {
    while (!stop) {
      const auto report = store_->Gc();
      ASSERT_TRUE(report.ok()) << report.status().ToString();
      ASSERT_EQ(report->held_back, "");
    }
  });
  std::thread restorer([this, &stop] {
    for (unsigned i = 0; !stop; ++i) RestoreSome(i);
  });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  collector.join();
  restorer.join();
  for (const ImageSummary& summary : store_->List()) {
    ExpectIntact(summary.image);
    ASSERT_TRUE(store_->Remove(summary.image).ok());
  }
  ASSERT_TRUE(store_->Gc().ok());
  for (const char* name : {"tmp", "images", "packs", "trash"}) {
    EXPECT_EQ(CountFiles(Path(name)), 0u) << name;
  }
  EXPECT_THAT(store_->Pins(), ::testing::IsEmpty());
}

TEST_F(RaceTest, SessionsOfOneImageAreWrittenAtOnce) {
  auto draft = store_->BeginImage({kAlice, 0, "job", true});
  ASSERT_TRUE(draft.ok());
  std::vector<std::thread> runners;
  for (std::uint32_t i = 0; i < 4; ++i) {
    auto files = (*draft)->AddSession(i);
    ASSERT_TRUE(files.ok());
    runners.emplace_back([i, files = std::move(*files)]() mutable {
      ASSERT_TRUE(RunSession(std::move(files), MemoryOf(i)).ok());
    });
  }
  for (std::thread& runner : runners) runner.join();
  const auto sealed = (*draft)->Seal(JobManifest("job", {0, 1, 2, 3}));
  ASSERT_TRUE(sealed.ok()) << sealed.status().ToString();
  ExpectIntact(sealed->image);
}

}  // namespace
}  // namespace pos::ckpt
