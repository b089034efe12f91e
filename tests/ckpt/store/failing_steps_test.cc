// Steps of the disk that fail in the middle of what changes the store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/ckpt/store/store_fixture.h"

namespace pos::ckpt {
namespace {

using ::testing::SizeIs;

using StepsTest = StoreTest;

// Until its end nothing below `path` is found.
class Away {
 public:
  explicit Away(std::string path) : path_(std::move(path)) {
    std::filesystem::rename(path_, path_ + ".away");
  }
  ~Away() { std::filesystem::rename(path_ + ".away", path_); }

 private:
  const std::string path_;
};

TEST_F(StepsTest, AnImageThatCannotBeTakenBackKeepsItsPacks) {
  std::unique_ptr<Away> away;
  StoreOptions options = TestOptions();
  options.on_step = [&](std::string_view step) {
    if (step == "seal: image in place") {
      away = std::make_unique<Away>(Path("images"));
    }
  };
  Reopen(options);
  const Bytes memory = Noise(5 * kTestChunk);
  EXPECT_FALSE(Checkpoint(store_.get(), memory).ok());
  away.reset();
  ASSERT_TRUE(store_->Gc().ok());
  for (int round = 0; round < 2; ++round) {
    ASSERT_THAT(store_->List(), SizeIs(1));
    const std::string image = store_->List()[0].image;
    ExpectMemory(image, memory);
    ExpectIntact(image);
    Reopen();
  }
}

TEST_F(StepsTest, ARemovalThatIsNotOnTheDiskIsFinishedByGc) {
  std::unique_ptr<Away> away;
  StoreOptions options = TestOptions();
  options.on_step = [&](std::string_view step) {
    if (step == "remove: renamed") {
      away = std::make_unique<Away>(Path("images"));
    }
  };
  Reopen(options);
  const std::string image = MustCheckpoint(Noise(5 * kTestChunk));
  EXPECT_FALSE(store_->Remove(image).ok());
  EXPECT_EQ(store_->Remove(image).code(), Code::kNoSuch);
  // Its chunks stay while it may come back.
  EXPECT_FALSE(store_->Gc().ok());
  EXPECT_EQ(CountFiles(Path("packs")), 1u);
  away.reset();
  const auto report = store_->Gc();
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->removed_images, 1u);
  EXPECT_EQ(report->removed_packs, 1u);
}

TEST_F(StepsTest, APinThatCannotBeDroppedHolds) {
  const std::string image = MustCheckpoint(Noise(5 * kTestChunk));
  const auto pin = store_->Keep(image, "job train-2", "lazy restore");
  ASSERT_TRUE(pin.ok());
  {
    const Away away(Path("pins"));
    EXPECT_FALSE(store_->Drop(*pin).ok());
  }
  EXPECT_EQ(store_->Remove(image).code(), Code::kBusy);
  EXPECT_TRUE(store_->Drop(*pin).ok());
  EXPECT_TRUE(store_->Remove(image).ok());
}

}  // namespace
}  // namespace pos::ckpt
