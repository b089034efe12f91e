// recopy: the image shows the last cut, however often memory was written while
// it was copied.
#include <future>

#include "tests/ckpt/engine/engine_fixture.h"

namespace pos::ckpt {
namespace {

class Recopy : public Engine {
 protected:
  static SaveOptions Options() {
    SaveOptions options;
    options.small_bytes = 1 << 20;
    options.max_rounds = 4;
    return options;
  }
  // The cut, and the image that comes of it.
  void CutAndExpect() {
    Quiesce();
    const Content cut = Memory();
    const Status status = save_->CopyAtCut(&cancel_);
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_TRUE(save_->CopyHost(&cancel_).ok());
    session().Resume();
    ExpectImage(std::move(save_), cut);
  }
  void Rounds() {
    const Status status = save_->CopyRounds(&cancel_);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }

  std::unique_ptr<SessionSave> save_;
};

TEST_F(Recopy, LeavesNothingToTheCutWhenNothingIsWritten) {
  Start();
  Block(4 << 20, 1);
  Block(5120, 2);
  save_ = Save(Options());
  Rounds();
  EXPECT_EQ(save_->counts().rounds, 1u);
  EXPECT_TRUE(save_->counts().converged);
  const std::uint64_t copied = save_->copied_bytes();
  EXPECT_EQ(copied, (4u << 20) + 5120);
  Quiesce();
  const Content cut = Memory();
  ASSERT_TRUE(save_->CopyAtCut(&cancel_).ok());
  EXPECT_EQ(save_->copied_bytes(), copied);
  ASSERT_TRUE(save_->CopyHost(&cancel_).ok());
  session().Resume();
  ExpectImage(std::move(save_), cut);
}

// At a cut it would be in the way; now it may pass.
TEST_F(Recopy, MemoryThatIsNotMappedNowDoesNotEndTheRounds) {
  Start();
  Block(1 << 20, 1);
  constexpr std::uint64_t kGranule = 2 << 20;
  ASSERT_EQ(client_->Call(cuda::AddressReserveArgs{.bytes = kGranule,
                                                   .alignment = 0,
                                                   .address = 0,
                                                   .device = 0,
                                                   .reserved = 0}),
            0);
  const auto at = client_->Result<cuda::AddressReserveOut>().address;
  ASSERT_EQ(client_->Call(cuda::PhysicalCreateArgs{
                .bytes = kGranule, .device = 0, .reserved = 0}),
            0);
  const auto physical = client_->Result<cuda::PhysicalCreateOut>().physical;
  const auto map = [&] {
    ASSERT_EQ(client_->Call(cuda::PhysicalMapArgs{
                  .address = at, .bytes = kGranule, .physical = physical}),
              0);
    ASSERT_EQ(client_->Call(cuda::SetAccessArgs{
                  .address = at, .bytes = kGranule, .device = 0, .allowed = 1}),
              0);
  };
  map();
  Fill(stream_, at, kGranule, 5);
  ASSERT_EQ(client_->Sync(stream_), 0);
  ASSERT_EQ(
      client_->Call(cuda::PhysicalUnmapArgs{.address = at, .bytes = kGranule}),
      0);
  save_ = Save(Options());
  Rounds();
  Quiesce();
  EXPECT_EQ(save_->CopyAtCut(&cancel_).code(), Code::kBusy);
  session().Resume();
  map();
  CutAndExpect();
}

TEST_F(Recopy, AnAbortEndsEveryStep) {
  Start();
  Block(4 << 20, 1);
  save_ = Save(Options());
  save_->Abort();
  EXPECT_EQ(save_->CopyRounds(&cancel_).code(), Code::kAborted);
}

TEST_F(Recopy, ShowsTheLastCut) {
  Start();
  const auto a = Block(4 << 20, 1);
  const auto gone = Block(2 << 20, 2);
  save_ = Save(Options());
  Rounds();
  // Announced and not, freed and new.
  Fill(stream_, a + (1 << 20), 300000, 3);
  EXPECT_EQ(client_->Call(cuda::MemFreeArgs{.address = gone}), 0);
  client_->Settle(context_);
  const auto fresh = client_->Alloc(context_, 1 << 20);
  Fill(stream_, fresh, 1 << 20, 4);
  const std::uint64_t to = a + (3 << 20);
  client_->CopyIn(stream_, fresh, std::as_bytes(std::span(&to, 1)));
  Launch(stream_, "indirect", fresh, 99);
  EXPECT_EQ(client_->Sync(stream_), 0);
  CutAndExpect();
}

// No copy ends before everything has been written again: so none of them is
// worth anything, in any round.
TEST_F(Recopy, EndsThoughEverythingIsWrittenAllTheTime) {
  constexpr std::uint64_t kBytes = 8 * kChunk;
  Start();
  const auto block = Block(kBytes, 1);
  SaveOptions options = Options();
  options.small_bytes = 0;
  save_ = Save(options);
  device_->HoldOwnEnds();
  std::future<Status> rounds = std::async(
      std::launch::async, [this] { return save_->CopyRounds(&cancel_); });
  const Deadline deadline = Deadline::AfterMs(20000);
  std::uint32_t value = 0;
  while (rounds.wait_for(std::chrono::milliseconds(0)) !=
         std::future_status::ready) {
    ASSERT_FALSE(cancel_ = deadline.Passed());
    const std::size_t under_way = device_->held();
    if (under_way == 0) {
      rounds.wait_for(std::chrono::milliseconds(1));
      continue;
    }
    Fill(stream_, block, kBytes, ++value);
    EXPECT_EQ(client_->Sync(stream_), 0);
    device_->EndHeld(under_way);
  }
  device_->StopHolding();
  const Status status = rounds.get();
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_FALSE(save_->counts().converged);
  // The second showed that another would do no better.
  EXPECT_EQ(save_->counts().rounds, 2u);
  EXPECT_EQ(save_->counts().left_bytes, kBytes);
  EXPECT_EQ(save_->copied_bytes(), 2 * kBytes);
  CutAndExpect();
}

TEST_F(Recopy, MemoryComesAndGoesWhileItIsCopied) {
  Start();
  Block(4 << 20, 1);
  std::vector<std::uint64_t> blocks;
  for (std::uint64_t i = 0; i < 8; ++i) blocks.push_back(Block(1 << 20, i));
  save_ = Save(Options());
  std::future<Status> rounds = std::async(
      std::launch::async, [this] { return save_->CopyRounds(&cancel_); });
  for (std::uint32_t i = 0; i < 24; ++i) {
    std::uint64_t& block = blocks[i % blocks.size()];
    EXPECT_EQ(client_->Call(cuda::MemFreeArgs{.address = block}), 0);
    client_->Settle(context_);
    block = client_->Alloc(context_, (1 << 20) - i * 512);
    Fill(stream_, block, 4096, i);
  }
  EXPECT_EQ(client_->Sync(stream_), 0);
  const Status status = rounds.get();
  ASSERT_TRUE(status.ok()) << status.ToString();
  CutAndExpect();
}

// What the device will take away at a moment of its own choice cannot be copied
// beside it: before the rounds began, nobody could have asked the call to wait.
TEST_F(Recopy, MemoryThatIsLeavingIsNotCopied) {
  constexpr std::string_view kVariable = R"(
.version 8.0
.target sm_90
.address_size 64
.visible .global .align 4 .b8 variable[1048576];
)";
  Start();
  const auto flag = Block(4096, 1);
  Block(4 << 20, 2);
  const auto freed = Block(2 << 20, 3);
  const auto module = Module(kVariable);
  Fill(stream_, flag, 8, 0);
  EXPECT_EQ(client_->Sync(stream_), 0);
  Launch(stream_, "await", flag, 1);
  const auto free = client_->Begin(cuda::MemFreeArgs{.address = freed});
  const auto unload = client_->Begin(cuda::ModuleUnloadArgs{.module = module});
  // The worker answers this one: it has handed those over.
  EXPECT_EQ(client_->Call(cuda::StreamQueryArgs{.stream = stream_}),
            CUDA_ERROR_NOT_READY);
  save_ = Save(Options());
  Rounds();
  EXPECT_EQ(save_->copied_bytes(), (4u << 20) + 4096);
  const auto other = client_->MakeStream(context_);
  Fill(other, flag, 4, 1);
  EXPECT_EQ(client_->Await(free), 0);
  EXPECT_EQ(client_->Await(unload), 0);
  CutAndExpect();
}

TEST_F(Recopy, CancelledItLeavesTheJobAlone) {
  Start();
  const auto a = Block(4 << 20, 1);
  save_ = Save(Options());
  cancel_ = true;
  EXPECT_EQ(save_->CopyRounds(&cancel_).code(), Code::kAborted);
  save_.reset();
  Fill(stream_, a, 4 << 20, 5);
  EXPECT_EQ(client_->Sync(stream_), 0);
}

}  // namespace
}  // namespace pos::ckpt
