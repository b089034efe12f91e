// cow: the image shows the cut, whatever the job does while it is copied.
#include <future>

#include "tests/ckpt/engine/engine_fixture.h"

namespace pos::ckpt {
namespace {

class Cow : public Engine {
 protected:
  // The cut: what memory holds is in `cut_`, and the session runs again.
  void Begin(const SaveOptions& options = {}) {
    save_ = Save(options);
    Quiesce();
    cut_ = Memory();
    Status status = save_->BeginCow(&cancel_);
    ASSERT_TRUE(status.ok()) << status.ToString();
    status = save_->CopyHost(&cancel_);
    ASSERT_TRUE(status.ok()) << status.ToString();
    session().Resume();
  }
  // Copies beside the client.
  void CopyBeside() {
    copying_ = std::async(std::launch::async,
                          [this] { return save_->FinishCow(&cancel_); });
  }
  void AwaitCopied() {
    const Status status = copying_.get();
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  void Copy() {
    CopyBeside();
    AwaitCopied();
  }
  void ExpectTheCut() {
    EXPECT_EQ(save_->counts().unforeseen_chunks, 0u);
    ExpectImage(std::move(save_), cut_);
  }

  std::unique_ptr<SessionSave> save_;
  Content cut_;
  std::future<Status> copying_;
};

TEST_F(Cow, HoldsTheCutThoughAllIsOverwritten) {
  Start();
  const auto a = Block(3 << 20, 1);
  const auto b = Block(100000, 2);
  const auto small = Block(300, 3);
  Begin();
  Fill(stream_, a, 3 << 20, 7);
  Fill(stream_, b, 100000, 8);
  Fill(stream_, small, 300, 9);
  CopyBeside();
  EXPECT_EQ(client_->Sync(stream_), 0);
  Fill(stream_, a, 3 << 20, 10);
  EXPECT_EQ(client_->CopyOut(stream_, small, 4),
            Bytes({std::byte{9}, std::byte{0}, std::byte{0}, std::byte{0}}));
  AwaitCopied();
  ExpectTheCut();
}

TEST_F(Cow, NothingHappensAndNothingIsPreserved) {
  Start();
  Block(1 << 20, 1);
  client_->Alloc(context_, 1 << 20);  // zeros: not copied
  Begin();
  Copy();
  // The module has no variables.
  EXPECT_EQ(save_->copied_bytes(), 1u << 20);
  ExpectTheCut();
}

TEST_F(Cow, AWriteThroughAPointerInMemoryIsCaught) {
  Start();
  const auto pointer = Block(512, 1);
  const auto target = Block(1 << 20, 2);
  const std::uint64_t to = target + 777 * 4;
  client_->CopyIn(stream_, pointer, std::as_bytes(std::span(&to, 1)));
  ASSERT_EQ(client_->Sync(stream_), 0);
  Begin();
  // Before anything is copied: FinishCow brings the buffers.
  Launch(stream_, "indirect", pointer, 12345);
  ASSERT_EQ(client_->Sync(stream_), 0);
  Copy();
  EXPECT_EQ(save_->counts().unforeseen_chunks, 1u);
  // Another cut makes it good.
  Status status = save_->CopyRounds(&cancel_);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(save_->counts().converged);
  Launch(stream_, "indirect", pointer, 54321);
  ASSERT_EQ(client_->Sync(stream_), 0);
  Quiesce();
  cut_ = Memory();
  status = save_->CopyAtCut(&cancel_);
  ASSERT_TRUE(status.ok()) << status.ToString();
  ASSERT_TRUE(save_->CopyHost(&cancel_).ok());
  session().Resume();
  ExpectImage(std::move(save_), cut_);
}

TEST_F(Cow, AnImageWithAnUnforeseenWriteIsNotFinished) {
  Start();
  const auto pointer = Block(512, 1);
  const std::uint64_t to = Block(1 << 20, 2);
  client_->CopyIn(stream_, pointer, std::as_bytes(std::span(&to, 1)));
  ASSERT_EQ(client_->Sync(stream_), 0);
  Begin();
  Launch(stream_, "indirect", pointer, 12345);
  ASSERT_EQ(client_->Sync(stream_), 0);
  Copy();
  EXPECT_FALSE(save_->Finish().ok());
}

// One bit that changes on the way to the shadow, or to the host.
class CowTampered : public Cow, public ::testing::WithParamInterface<bool> {};

TEST_P(CowTampered, ABrokenCopyIsCaught) {
  const bool to_device = GetParam();
  Start();
  const auto block = Block(1 << 20, 1);
  int broken = 0;
  device_->AfterOwnCopies(
      [&](DeviceStream* stream, const WrappedDevice::CopyOrder& copy) {
        const std::uint64_t base = options_.layout.arena_base;
        const bool device = copy.dst - base < options_.layout.arena_bytes;
        if (device != to_device || broken++ != 2) return;
        stream->Fill(copy.dst + copy.bytes / 2, 0x5a, 1, 1, 1, 0, 0);
      });
  Begin();
  Fill(stream_, block, 1 << 20, 7);
  EXPECT_EQ(client_->Sync(stream_), 0);
  Copy();
  EXPECT_GT(broken, 2);
  EXPECT_EQ(save_->counts().unforeseen_chunks, 1u);
}

INSTANTIATE_TEST_SUITE_P(Way, CowTampered, ::testing::Bool(),
                         [](const auto& one) {
                           return one.param ? "ToTheShadow" : "ToTheHost";
                         });

// Little room, or none: calls wait, and nothing else goes wrong.
class CowRoom : public Cow, public ::testing::WithParamInterface<int> {};

TEST_P(CowRoom, CallsWaitWhereThereIsNoRoom) {
  Start();
  const auto a = Block(8 << 20, 1);
  const auto b = Block(8 << 20, 2);
  SaveOptions options;
  options.shadow_bytes = static_cast<std::uint64_t>(GetParam()) << 20;
  Begin(options);
  for (std::uint64_t at = 0; at < 8 << 20; at += 1 << 20) {
    Fill(stream_, b + at, 1 << 20, 5);
    client_->Post(cuda::CopyArgs{
        .stream = stream_, .dst = a + at, .src = b + at, .bytes = 1 << 20});
  }
  CopyBeside();
  EXPECT_EQ(client_->Sync(stream_), 0);
  EXPECT_EQ(client_->CopyOut(stream_, a + 5, 1), Bytes(1, std::byte{0}));
  AwaitCopied();
  ExpectTheCut();
}

INSTANTIATE_TEST_SUITE_P(MiB, CowRoom, ::testing::Values(0, 2, 4),
                         ::testing::PrintToStringParamName());

TEST_F(Cow, TwoStreamsWriteTwoPartsOfOneChunk) {
  Start();
  const auto block = Block(kChunk, 1);
  const auto other = client_->MakeStream(context_);
  Begin();
  for (std::uint32_t i = 0; i < 50; ++i) {
    Fill(stream_, block, 1024, i);
    Fill(other, block + 1024, 1024, i);
  }
  CopyBeside();
  EXPECT_EQ(client_->Sync(stream_), 0);
  EXPECT_EQ(client_->Sync(other), 0);
  AwaitCopied();
  ExpectTheCut();
}

TEST_F(Cow, AKernelThatWaitsForAnotherStreamGetsWhatItWaitsFor) {
  Start();
  const auto flag = Block(512, 1);
  const auto big = Block(8 << 20, 2);
  const auto other = client_->MakeStream(context_);
  SaveOptions options;
  options.shadow_bytes = 2 << 20;
  Begin(options);
  Launch(stream_, "await", flag, 77);
  // More than there is room for, and then what the kernel waits for.
  Fill(other, big, 8 << 20, 3);
  Launch(other, "store", flag, 77);
  CopyBeside();
  EXPECT_EQ(client_->Sync(other), 0);
  EXPECT_EQ(client_->Sync(stream_), 0);
  AwaitCopied();
  ExpectTheCut();
}

TEST_F(Cow, MemoryIsFreedAndMadeAnewAtTheSameAddress) {
  Start();
  const auto a = Block(4 << 20, 1);
  const auto b = Block(2 << 20, 2);
  SaveOptions options;
  options.shadow_bytes = 2 << 20;
  Begin(options);
  CopyBeside();
  EXPECT_EQ(client_->Call(cuda::MemFreeArgs{.address = a}), 0);
  client_->Settle(context_);
  const auto again = client_->Alloc(context_, 4 << 20);
  EXPECT_EQ(again, a) << "the allocator gives the lowest that fits";
  Fill(stream_, again, 4 << 20, 1);
  EXPECT_EQ(client_->Call(cuda::MemFreeArgs{.address = b}), 0);
  EXPECT_EQ(client_->Sync(stream_), 0);
  AwaitCopied();
  ExpectTheCut();
}

TEST_F(Cow, ThingsComeAndGoMeanwhile) {
  Start();
  const auto block = Block(4 << 20, 1);
  Begin();
  CopyBeside();
  for (std::uint32_t i = 0; i < 30; ++i) {
    const auto stream = client_->MakeStream(context_);
    const auto fresh = client_->Alloc(context_, 300000);
    Fill(stream, fresh, 300000, i);
    client_->Post(cuda::CopyArgs{.stream = stream,
                                 .dst = block + i * 100000,
                                 .src = fresh,
                                 .bytes = 100000});
    EXPECT_EQ(client_->Sync(stream), 0);
    EXPECT_EQ(client_->Call(cuda::StreamDestroyArgs{.stream = stream}), 0);
    EXPECT_EQ(client_->Call(cuda::MemFreeArgs{.address = fresh}), 0);
  }
  const auto second = client_->MakeContext();
  const auto theirs = client_->Alloc(second, 1 << 20);
  Fill(second.stream, theirs, 1 << 20, 4);
  Fill(second.stream, block, 4 << 20, 4);
  EXPECT_EQ(client_->Sync(second.stream), 0);
  EXPECT_EQ(client_->Call(cuda::CtxDestroyArgs{.context = context_.id}), 0);
  AwaitCopied();
  ExpectTheCut();
}

TEST_F(Cow, TheJobGetsTheMemoryThatIsPreservedIn) {
  Open(16 << 20);
  Start();
  const auto a = Block(6 << 20, 1);
  SaveOptions options;
  options.shadow_bytes = 6 << 20;
  Begin(options);
  // Most of what is left is the shadow's now, and in use.
  Fill(stream_, a, 6 << 20, 1);
  const auto slot = client_->Begin(
      cuda::MemAllocArgs{.context = context_.id, .bytes = 6 << 20});
  CopyBeside();
  EXPECT_EQ(client_->Await(slot), 0) << "out of memory";
  const auto b = client_->Result<cuda::MemAllocOut>().address;
  Fill(stream_, b, 6 << 20, 2);
  EXPECT_EQ(client_->Sync(stream_), 0);
  AwaitCopied();
  EXPECT_EQ(client_->Call(
                cuda::MemAllocArgs{.context = context_.id, .bytes = 6 << 20}),
            CUDA_ERROR_OUT_OF_MEMORY);
  ExpectTheCut();
}

// The job stands still until the copying can begin.
TEST_F(Cow, ALedgerThatDoesNotAnswerCostsTheJobOneWait) {
  Start();
  const auto a = Block(8 << 20, 1);
  session_->ledger().SetPending(true);
  const std::uint64_t began_ns = MonotonicNs();
  Begin();
  EXPECT_LT(MonotonicNs() - began_ns, 3'900'000'000u) << "asked once, for 2 s";
  session_->ledger().SetPending(false);
  EXPECT_TRUE(save_->counts().beside) << "without room to preserve in";
  Fill(stream_, a, 8 << 20, 1);
  Copy();
  ExpectTheCut();
}

TEST_F(Cow, GivenUpItLeavesTheJobAlone) {
  Start();
  const auto a = Block(8 << 20, 1);
  const std::uint64_t used = session_->ledger().used();
  SaveOptions options;
  options.shadow_bytes = 2 << 20;
  Begin(options);
  const std::uint64_t calls = session().calls();
  // Waits for room that nobody makes.
  Fill(stream_, a, 8 << 20, 6);
  const auto slot =
      client_->Begin(cuda::StreamSynchronizeArgs{.stream = stream_});
  const Deadline deadline = Deadline::AfterMs(20000);
  Backoff backoff;
  while (session().calls() < calls + 2 && !deadline.Passed()) backoff.Wait();
  EXPECT_FALSE(client_->Answered(slot));
  cancel_ = true;
  CopyBeside();
  EXPECT_EQ(copying_.get().code(), Code::kAborted);
  save_.reset();
  EXPECT_EQ(client_->Await(slot), 0);
  EXPECT_EQ(client_->CopyOut(stream_, a + (8 << 20) - 4, 1),
            Bytes(1, std::byte{6}));
  EXPECT_EQ(session_->ledger().used(), used);
}

TEST_F(Cow, DroppedBeforeTheSessionRunsAgain) {
  Start();
  const auto a = Block(2 << 20, 1);
  const std::uint64_t used = session_->ledger().used();
  save_ = Save();
  Quiesce();
  ASSERT_TRUE(save_->BeginCow(&cancel_).ok());
  save_.reset();
  session().Resume();
  Fill(stream_, a, 2 << 20, 6);
  EXPECT_EQ(client_->Sync(stream_), 0);
  EXPECT_EQ(session_->ledger().used(), used);
}

}  // namespace
}  // namespace pos::ckpt
