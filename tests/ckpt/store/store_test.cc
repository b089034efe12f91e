// The store as posd uses it: images come and go, share chunks, are held.
#include "ckpt/store/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "tests/ckpt/store/store_fixture.h"

namespace pos::ckpt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(StoreTest, ASealedImageIsListedShownVerifiedAndRestored) {
  const Bytes memory = Noise(5 * kTestChunk + 77);
  const std::string image = MustCheckpoint(memory, "train", kAlice, "first");
  EXPECT_TRUE(IsImageId(image));
  for (int round = 0; round < 2; ++round) {
    const auto list = store_->List();
    ASSERT_THAT(list, SizeIs(1));
    EXPECT_EQ(list[0].image, image);
    EXPECT_EQ(list[0].job, "train");
    EXPECT_EQ(list[0].tag, "first");
    EXPECT_EQ(list[0].owner_uid, kAlice);
    EXPECT_EQ(list[0].mode, CheckpointMode::kCow);
    EXPECT_EQ(list[0].live_bytes, memory.size());
    EXPECT_GT(list[0].stored_bytes, memory.size());
    EXPECT_THAT(store_->List(kBob), IsEmpty());
    const auto manifest = store_->Show(image);
    ASSERT_TRUE(manifest.ok()) << manifest.status().ToString();
    EXPECT_EQ(manifest->job.argv, JobManifest("train", {0}).job.argv);
    EXPECT_EQ(manifest->totals.chunks, 7u);  // 6 and the blob
    ASSERT_THAT(manifest->files, SizeIs(2));
    EXPECT_EQ(manifest->files[1].path, "criu/pages-1.img");
    EXPECT_EQ(manifest->files[1].bytes, 5005u);
    ExpectMemory(image, memory);
    ExpectIntact(image);
    const auto report = store_->Verify(image);
    EXPECT_EQ(report->chunks, 7u);
    EXPECT_EQ(report->files, 3u);
    EXPECT_EQ(report->bytes, memory.size() + 100);
    Reopen();  // and the same from the disk alone
  }
}

TEST_F(StoreTest, NothingIsVisibleBeforeTheSeal) {
  DraftOptions options;
  options.owner_uid = kAlice;
  auto draft = store_->BeginImage(options);
  ASSERT_TRUE(draft.ok());
  auto files = (*draft)->AddSession(0);
  ASSERT_TRUE(files.ok());
  ASSERT_TRUE(RunSession(std::move(*files), Noise(100000)).ok());
  EXPECT_THAT(store_->List(), IsEmpty());
  EXPECT_EQ(store_->Show((*draft)->image()).status().code(), Code::kNoSuch);
  (*draft)->Abort();
  EXPECT_EQ((*draft)->AddSession(1).status().code(), Code::kInvalid);
  EXPECT_EQ((*draft)->Seal(JobManifest("j", {0})).status().code(),
            Code::kInvalid);
  for (const char* name : {"tmp", "images", "packs"}) {
    EXPECT_EQ(CountFiles(Path(name)), 0u) << name;
  }
}

TEST_F(StoreTest, ADraftThatIsDroppedLeavesNothing) {
  {
    auto draft = store_->BeginImage({});
    ASSERT_TRUE(draft.ok());
    auto files = (*draft)->AddSession(0);
    ASSERT_TRUE(files.ok());
  }
  EXPECT_EQ(CountFiles(Path("tmp")), 0u);
}

TEST_F(StoreTest, ManySessionsAndNoneAreImagesToo) {
  auto draft = store_->BeginImage({kAlice, 0, "job", true});
  ASSERT_TRUE(draft.ok());
  std::vector<std::uint32_t> numbers;
  for (std::uint32_t i = 0; i < 5; ++i) {
    auto files = (*draft)->AddSession(i * 7);
    ASSERT_TRUE(files.ok());
    ASSERT_TRUE(RunSession(std::move(*files), Noise(kTestChunk + i, i)).ok());
    numbers.push_back(i * 7);
  }
  EXPECT_EQ((*draft)->AddSession(7).status().code(), Code::kExists);
  const auto sealed = (*draft)->Seal(JobManifest("job", numbers));
  ASSERT_TRUE(sealed.ok()) << sealed.status().ToString();
  EXPECT_THAT(sealed->packs, SizeIs(5));
  auto handle = store_->OpenImage(sealed->image, "test");
  ASSERT_TRUE(handle.ok());
  for (std::uint32_t i = 0; i < 5; ++i) {
    EXPECT_TRUE(*Restore(**handle, i * 7) == Noise(kTestChunk + i, i));
  }
  EXPECT_EQ((*handle)->OpenSession(3).status().code(), Code::kNoSuch);

  auto empty = store_->BeginImage({});
  ASSERT_TRUE((*empty)->Seal(JobManifest("none", {})).ok());
  ExpectIntact((*empty)->image());
}

TEST_F(StoreTest, AnImageOfZerosHasNoPack) {
  auto draft = store_->BeginImage({kAlice, 0, "job", true});
  auto files = (*draft)->AddSession(0);
  auto writer = SessionWriter::Create(std::move(*files), RunnerOptions());
  Region region;
  region.bytes = std::uint64_t{1} << 40;
  ASSERT_TRUE((*writer)->BeginRegion(region).ok());
  ASSERT_TRUE((*writer)->AddZeros(region.bytes).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  const auto sealed = (*draft)->Seal(JobManifest("job", {0}));
  ASSERT_TRUE(sealed.ok()) << sealed.status().ToString();
  EXPECT_EQ(sealed->totals.live_bytes, std::uint64_t{1} << 40);
  EXPECT_EQ(sealed->totals.zero_bytes, std::uint64_t{1} << 40);
  EXPECT_LT(sealed->totals.written_bytes, 1000u);
  EXPECT_EQ(CountFiles(Path("packs")), 0u);
  ExpectIntact(sealed->image);
}

TEST_F(StoreTest, TheManifestMustNameTheDraftsSessions) {
  for (const std::vector<std::uint32_t>& wrong :
       {std::vector<std::uint32_t>{}, {1}, {0, 1}, {0, 0}}) {
    auto draft = store_->BeginImage({});
    auto files = (*draft)->AddSession(0);
    ASSERT_TRUE(RunSession(std::move(*files), Noise(10)).ok());
    EXPECT_EQ((*draft)->Seal(JobManifest("j", wrong)).status().code(),
              Code::kInvalid);
  }
  EXPECT_THAT(store_->List(), IsEmpty());
  EXPECT_EQ(CountFiles(Path("tmp")), 0u);
}

TEST_F(StoreTest, OnlyOneProcessUsesAStore) {
  const auto second = Store::Open(dir_ / "images", TestOptions());
  EXPECT_EQ(second.status().code(), Code::kBusy);
  EXPECT_THAT(second.status().message(), HasSubstr(std::to_string(::getpid())));
}

TEST_F(StoreTest, AStoreWithoutItsIdentityIsNotGuessedAt) {
  MustCheckpoint(Noise(10));
  store_.reset();
  ASSERT_TRUE(RemoveFile(dir_ / "images/store").ok());
  EXPECT_EQ(Store::Open(dir_ / "images", TestOptions()).status().code(),
            Code::kCorrupt);
}

// --- Chunks of earlier images ---

TEST_F(StoreTest, ASecondCheckpointStoresOnlyWhatChanged) {
  Bytes memory = Noise(100 * kTestChunk);
  const std::string first = MustCheckpoint(memory);
  memory[42 * kTestChunk + 5] ^= std::byte{1};
  const std::string second = MustCheckpoint(memory);
  const auto manifest = store_->Show(second);
  ASSERT_TRUE(manifest.ok());
  EXPECT_EQ(manifest->totals.reused_bytes, 99 * kTestChunk + 100);
  EXPECT_EQ(manifest->sessions[0].own_stored_bytes, kTestChunk);
  EXPECT_LE(store_->Find(second)->stored_bytes,
            store_->Find(first)->stored_bytes / 10);
  ExpectMemory(second, memory);
  ExpectIntact(second);
}

TEST_F(StoreTest, AnIdenticalCheckpointHasNoPackOfItsOwn) {
  const Bytes memory = Noise(10 * kTestChunk);
  MustCheckpoint(memory);
  const std::string second = MustCheckpoint(memory);
  const auto manifest = store_->Show(second);
  ASSERT_THAT(manifest->packs, SizeIs(1));
  EXPECT_FALSE(manifest->packs[0].own);
  EXPECT_EQ(CountFiles(Path("packs")), 1u);
  ExpectMemory(second, memory);
}

TEST_F(StoreTest, OwnersDoNotShareChunks) {
  const Bytes memory = Noise(10 * kTestChunk);
  MustCheckpoint(memory, "train", kAlice);
  const std::string bobs = MustCheckpoint(memory, "train", kBob);
  EXPECT_EQ(store_->Show(bobs)->totals.reused_bytes, 0u);
  const std::string alices = MustCheckpoint(memory, "other", kAlice);
  EXPECT_GT(store_->Show(alices)->totals.reused_bytes, 0u);
}

TEST_F(StoreTest, ACheckpointMayBeAskedToStandAlone) {
  const Bytes memory = Noise(10 * kTestChunk);
  MustCheckpoint(memory);
  auto draft = store_->BeginImage({kAlice, 0, "train", false});
  auto files = (*draft)->AddSession(0);
  EXPECT_FALSE(files->known.valid());
  ASSERT_TRUE(RunSession(std::move(*files), memory).ok());
  EXPECT_EQ((*draft)->Seal(JobManifest("train", {0}))->totals.reused_bytes, 0u);
}

TEST_F(StoreTest, FewPacksAreOfferedAndTheRestIsWrittenAnew) {
  StoreOptions options = TestOptions();
  options.known_packs = 3;
  Reopen(options);
  Bytes memory = Noise(40 * kTestChunk);
  std::string image;
  for (std::size_t round = 0; round < 12; ++round) {
    memory[round * kTestChunk] ^= std::byte{1};
    image = MustCheckpoint(memory);
    EXPECT_LE(store_->Show(image)->packs.size(), 4u);
    ExpectMemory(image, memory);
  }
  // Most still comes from the first.
  EXPECT_GT(store_->Show(image)->totals.reused_bytes, 25 * kTestChunk);
}

TEST_F(StoreTest, TheTableOfKnownChunksIsBounded) {
  StoreOptions options = TestOptions();
  options.known_chunks = 7;
  Reopen(options);
  const Bytes memory = Noise(20 * kTestChunk);
  MustCheckpoint(memory);
  const std::string second = MustCheckpoint(memory);
  EXPECT_EQ(store_->Show(second)->totals.reused_bytes, 7 * kTestChunk);
  ExpectMemory(second, memory);
}

// --- Removal, gc, holds ---

TEST_F(StoreTest, GcGivesBackWhatNoImageUses) {
  const Bytes memory = Noise(20 * kTestChunk);
  const std::string image = MustCheckpoint(memory);
  EXPECT_EQ(store_->Gc()->removed_packs, 0u);
  ASSERT_TRUE(store_->Remove(image).ok());
  EXPECT_THAT(store_->List(), IsEmpty());
  EXPECT_EQ(store_->Remove(image).code(), Code::kNoSuch);
  const auto report = store_->Gc();
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->removed_packs, 1u);
  EXPECT_EQ(report->removed_images, 1u);
  EXPECT_GE(report->freed_bytes, memory.size());
  for (const char* name : {"tmp", "images", "packs", "trash"}) {
    EXPECT_EQ(CountFiles(Path(name)), 0u) << name;
  }
}

TEST_F(StoreTest, RemovingAnImageLeavesThoseThatBuildOnIt) {
  Bytes memory = Noise(60 * kTestChunk);
  const std::string first = MustCheckpoint(memory);
  std::fill(memory.begin(), memory.begin() + 50 * kTestChunk, std::byte{7});
  const std::string second = MustCheckpoint(memory);
  ASSERT_TRUE(store_->Remove(first).ok());
  const auto report = store_->Gc();
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->removed_packs, 0u);
  EXPECT_GE(report->freed_bytes, 49 * kTestChunk);  // holes
  ExpectMemory(second, memory);
  ExpectIntact(second);
  EXPECT_EQ(store_->Gc()->freed_bytes, 0u);  // nothing more to find
  // Chunks that were punched out are not offered again.
  const std::string third = MustCheckpoint(Noise(60 * kTestChunk));
  ExpectMemory(third, Noise(60 * kTestChunk));
}

// posd is told to end in the middle of a big gc.
TEST_F(StoreTest, GcEndsSoonWhenItIsCancelledAndTheNextOneFindsTheRest) {
  int after = 0;  // steps until it is cancelled
  int steps = 0;
  std::atomic<bool> cancel{false};
  StoreOptions options = TestOptions();
  options.on_step = [&](std::string_view step) {
    if (!step.starts_with("gc")) return;
    if (++steps >= after) cancel.store(true);
  };
  Reopen(options);
  bool whole = false;
  for (after = 0; !whole; ++after) {
    ASSERT_LT(after, 100);
    // A pack that nobody needs, one in which half is dead, one that is alive.
    const auto seed = static_cast<std::uint64_t>(after);
    const Bytes memory = Noise(8 * kTestChunk, seed + 1);
    const auto first = Checkpoint(store_.get(), memory);
    ASSERT_TRUE(first.ok()) << first.status().ToString();
    Bytes half = memory;
    const Bytes other = Noise(4 * kTestChunk, seed + 1000);
    std::copy(other.begin(), other.end(), half.begin());
    const auto second = Checkpoint(store_.get(), half);
    ASSERT_TRUE(second.ok()) << second.status().ToString();
    const auto unused =
        Checkpoint(store_.get(), Noise(8 * kTestChunk, seed + 2000));
    ASSERT_TRUE(unused.ok()) << unused.status().ToString();
    ASSERT_TRUE(store_->Remove(*first).ok());
    ASSERT_TRUE(store_->Remove(*unused).ok());
    cancel.store(after == 0);
    steps = 0;
    const auto report = store_->Gc({.cancel = &cancel});
    whole = report.ok();
    EXPECT_EQ(report.status().code(), whole ? Code::kOk : Code::kAborted);
    EXPECT_EQ(steps, whole ? steps : after) << "steps after it was cancelled";
    const auto rest = store_->Gc();
    ASSERT_TRUE(rest.ok()) << rest.status().ToString();
    EXPECT_LE(rest->removed_packs, 1u);
    const auto nothing = store_->Gc();
    ASSERT_TRUE(nothing.ok());
    EXPECT_EQ(nothing->removed_packs, 0u);
    EXPECT_EQ(nothing->freed_bytes, 0u);
    const auto restored = Restore(store_.get(), *second);
    ASSERT_TRUE(restored.ok()) << restored.status().ToString();
    EXPECT_EQ(*restored, half);
    ASSERT_TRUE(store_->Remove(*second).ok());
    ASSERT_TRUE(store_->Gc().ok());
  }
  EXPECT_GE(after, 5) << "too few steps to be cancelled at";
}

TEST_F(StoreTest, ManySmallPassesOfGcFindTheSame) {
  StoreOptions options = TestOptions();
  options.gc_memory_bytes = 1;  // one pack at a time
  Reopen(options);
  std::vector<std::string> images;
  Bytes memory = Noise(30 * kTestChunk);
  for (std::size_t i = 0; i < 5; ++i) {
    for (std::size_t k = 0; k < 5; ++k) {
      memory[(i * 5 + k) * kTestChunk] ^= std::byte{1};
    }
    images.push_back(MustCheckpoint(memory));
  }
  for (std::size_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(store_->Remove(images[i]).ok());
  }
  EXPECT_GT(store_->Gc()->freed_bytes, 0u);
  ExpectMemory(images[4], memory);
  ExpectIntact(images[4]);
}

TEST_F(StoreTest, AnImageInUseIsNotRemoved) {
  const Bytes memory = Noise(5 * kTestChunk);
  const std::string image = MustCheckpoint(memory);
  {
    auto handle = store_->OpenImage(image, "restore of job train-2");
    ASSERT_TRUE(handle.ok());
    const Status status = store_->Remove(image);
    EXPECT_EQ(status.code(), Code::kBusy);
    EXPECT_THAT(status.message(), HasSubstr("restore of job train-2"));
    EXPECT_THAT(store_->Pins(), SizeIs(1));
    EXPECT_TRUE(*Restore(**handle) == memory);
  }
  EXPECT_TRUE(store_->Remove(image).ok());
}

TEST_F(StoreTest, AKeptPinHoldsAcrossRestarts) {
  const std::string image = MustCheckpoint(Noise(5 * kTestChunk));
  const auto pin = store_->Keep(image, "job train-2", "lazy restore");
  ASSERT_TRUE(pin.ok());
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(store_->Remove(image).code(), Code::kBusy);
    EXPECT_EQ(store_->Gc()->removed_packs, 0u);
    const auto pins = store_->Pins();
    ASSERT_THAT(pins, SizeIs(1));
    EXPECT_EQ(pins[0].pin, *pin);
    EXPECT_EQ(pins[0].holder, "job train-2");
    EXPECT_EQ(pins[0].reason, "lazy restore");
    Reopen();
  }
  EXPECT_EQ(store_->Drop("p00").code(), Code::kNoSuch);
  ASSERT_TRUE(store_->Drop(*pin).ok());
  EXPECT_TRUE(store_->Remove(image).ok());
  EXPECT_EQ(store_->Keep(image, "x", "y").status().code(), Code::kNoSuch);
  EXPECT_THAT(*ListDirectory(Path("pins")), IsEmpty());
}

TEST_F(StoreTest, ChunksOfferedToARunningCheckpointSurviveRemovalAndGc) {
  const Bytes memory = Noise(20 * kTestChunk);
  const std::string first = MustCheckpoint(memory);
  auto draft = store_->BeginImage({kAlice, 0, "train", true});
  ASSERT_TRUE(draft.ok());
  auto files = (*draft)->AddSession(0);
  ASSERT_TRUE(files.ok());
  // The image goes while the runner relies on its chunks.
  ASSERT_TRUE(store_->Remove(first).ok());
  auto report = store_->Gc();
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->removed_packs, 0u);
  EXPECT_EQ(report->removed_images, 0u);
  ASSERT_TRUE(RunSession(std::move(*files), memory).ok());
  const auto sealed = (*draft)->Seal(JobManifest("train", {0}));
  ASSERT_TRUE(sealed.ok()) << sealed.status().ToString();
  EXPECT_GT(sealed->totals.reused_bytes, 19 * kTestChunk);
  draft->reset();
  report = store_->Gc();
  EXPECT_EQ(report->removed_images, 1u);
  EXPECT_EQ(report->removed_packs, 0u);
  ExpectMemory(sealed->image, memory);
  ExpectIntact(sealed->image);
}

TEST_F(StoreTest, GcLeavesTheFilesOfDraftsAlone) {
  auto draft = store_->BeginImage({kAlice, 0, "train", true});
  auto files = (*draft)->AddSession(0);
  ASSERT_TRUE(RunSession(std::move(*files), Noise(kTestChunk)).ok());
  ASSERT_TRUE(store_->Gc().ok());
  ASSERT_TRUE((*draft)->Seal(JobManifest("train", {0})).ok());
  ExpectIntact((*draft)->image());
}

// Gc at every step of what changes the store.
TEST_F(StoreTest, GcMayRunBetweenAnyTwoStepsOfSealAndRemove) {
  StoreOptions options = TestOptions();
  bool collecting = false;
  int runs = 0;
  options.on_step = [&](std::string_view step) {
    if (collecting || store_ == nullptr || step.starts_with("gc")) return;
    collecting = true;
    EXPECT_TRUE(store_->Gc().ok()) << step;
    ++runs;
    // An image whose removal is not on the disk may come back with a crash.
    for (const auto& entry :
         std::filesystem::directory_iterator(Path("images"))) {
      const auto manifest = OpenFile(entry.path() / "manifest", O_RDONLY);
      ASSERT_TRUE(manifest.ok());
      auto source = FdSource::Open(manifest->get(), "manifest");
      const auto content = ReadManifest(source->get(), "manifest");
      ASSERT_TRUE(content.ok());
      for (const PackRecord& pack : content->packs) {
        EXPECT_TRUE(PathExists(Path("packs/" + PackName(pack.pack) + ".pack")))
            << step;
      }
    }
    collecting = false;
  };
  Reopen(options);
  const std::string first = MustCheckpoint(Noise(9 * kTestChunk, 1));
  const std::string second = MustCheckpoint(Noise(9 * kTestChunk + 1, 2));
  ExpectIntact(first);
  ExpectIntact(second);
  ASSERT_TRUE(store_->Remove(first).ok());
  ExpectIntact(second);
  EXPECT_GT(runs, 12);
}

TEST_F(StoreTest, ExpireKeepsTheNewestTheTaggedAndTheUsed) {
  std::vector<std::string> images;
  for (std::size_t i = 0; i < 6; ++i) {
    images.push_back(
        MustCheckpoint(Noise(10, i), "train", kAlice, i == 1 ? "keep" : ""));
  }
  const std::string other = MustCheckpoint(Noise(10), "other");
  const auto lease = store_->Lease(images[2], "restore");
  const auto removed = store_->Expire(kAlice, "train", 2);
  ASSERT_TRUE(removed.ok());
  EXPECT_THAT(*removed, ElementsAre(images[0], images[3]));
  EXPECT_THAT(store_->List(), SizeIs(5));
  EXPECT_THAT(*store_->Expire(kBob, "train", 0), IsEmpty());
}

// --- Damage ---

void FlipByte(const std::string& path, std::uint64_t at) {
  const UniqueFd fd = *OpenFile(path, O_RDWR);
  std::byte byte{};
  ASSERT_TRUE(PreadFull(fd.get(), {&byte, 1}, at, path).ok());
  byte ^= std::byte{0x20};
  ASSERT_TRUE(PwriteFull(fd.get(), {&byte, 1}, at, path).ok());
}

TEST_F(StoreTest, VerifyFindsAChangedByteInEveryFile) {
  const std::string image = MustCheckpoint(Noise(3 * kTestChunk));
  ExpectIntact(image);
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(store_->path())) {
    const std::string path = entry.path();
    if (!entry.is_regular_file() || entry.file_size() == 0) continue;
    if (path.ends_with("/lock") || path.ends_with("/store")) continue;
    if (path.ends_with("/export_key")) continue;  // of no image
    for (const std::uint64_t at :
         {std::uint64_t{0}, entry.file_size() / 2, entry.file_size() - 1}) {
      FlipByte(path, at);
      const auto report = store_->Verify(image);
      ASSERT_TRUE(report.ok()) << report.status().ToString();
      EXPECT_GT(report->problems, 0u) << path << " byte " << at;
      FlipByte(path, at);
    }
  }
  ExpectIntact(image);
}

// The store is of more use than what was exported from it.
TEST_F(StoreTest, AnExportKeyThatIsDamagedIsReplaced) {
  const KeyId before = IdOf(store_->export_key());
  Reopen();
  EXPECT_EQ(IdOf(store_->export_key()), before);
  ASSERT_EQ(::truncate(Path("export_key").c_str(), 31), 0);
  Reopen();
  const KeyId after = IdOf(store_->export_key());
  EXPECT_NE(after, before);
  Reopen();
  EXPECT_EQ(IdOf(store_->export_key()), after);
}

TEST_F(StoreTest, VerifyFindsFilesMissingCutOrAdded) {
  const std::string image = MustCheckpoint(Noise(3 * kTestChunk));
  const std::string dir = Path("images/" + image);
  ASSERT_TRUE(ReplaceFile(dir + "/criu/extra", "x").ok());
  EXPECT_THAT(store_->Verify(image)->first_problems,
              ElementsAre(HasSubstr("criu/extra is not in the manifest")));
  ASSERT_TRUE(RemoveFile(dir + "/criu/extra").ok());
  ASSERT_EQ(::truncate((dir + "/criu/pages-1.img").c_str(), 10), 0);
  EXPECT_THAT(store_->Verify(image)->first_problems,
              ElementsAre(HasSubstr("10 bytes, not 5005")));
  ASSERT_TRUE(RemoveFile(dir + "/criu/pages-1.img").ok());
  EXPECT_EQ(store_->Verify(image)->problems, 1u);
}

TEST_F(StoreTest, ADamagedImageIsListedKeepsEveryPackAndCanBeRemoved) {
  const std::string bad = MustCheckpoint(Noise(3 * kTestChunk + 1, 1));
  const std::string good = MustCheckpoint(Noise(3 * kTestChunk + 2, 2));
  const std::string gone = MustCheckpoint(Noise(3 * kTestChunk + 3, 3));
  FlipByte(Path("images/" + bad + "/manifest"), 100);
  Reopen();
  EXPECT_EQ(store_->recovery().damaged, 1u);
  ASSERT_THAT(store_->List(), SizeIs(3));
  EXPECT_EQ(store_->List()[0].damage.code(), Code::kCorrupt);
  EXPECT_EQ(store_->Show(bad).status().code(), Code::kCorrupt);
  EXPECT_EQ(store_->Verify(bad)->problems, 1u);
  // What it needs is not known, so nothing may go.
  ASSERT_TRUE(store_->Remove(gone).ok());
  auto report = store_->Gc();
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->removed_packs, 0u);
  EXPECT_THAT(report->held_back, HasSubstr(bad));
  ExpectIntact(good);
  ASSERT_TRUE(store_->Remove(bad).ok());
  report = store_->Gc();
  EXPECT_EQ(report->removed_packs, 2u);
  ExpectIntact(good);
}

TEST_F(StoreTest, VerifyCanBeCancelled) {
  const std::string image = MustCheckpoint(Noise(3 * kTestChunk));
  std::atomic<bool> cancel{true};
  VerifyOptions options;
  options.cancel = &cancel;
  EXPECT_EQ(store_->Verify(image, options).status().code(), Code::kAborted);
}

// --- Diff ---

TEST_F(StoreTest, DiffCountsBytesByPlace) {
  Bytes memory = Noise(10 * kTestChunk);
  const std::string a = MustCheckpoint(memory);
  memory[3 * kTestChunk] ^= std::byte{1};
  std::fill(memory.begin() + 5 * kTestChunk, memory.begin() + 7 * kTestChunk,
            std::byte{0});
  memory.resize(12 * kTestChunk);
  const std::string b = MustCheckpoint(memory, "other");
  const auto diff = store_->Diff(a, b);
  ASSERT_TRUE(diff.ok()) << diff.status().ToString();
  EXPECT_EQ(diff->same_bytes, 7 * kTestChunk);
  EXPECT_EQ(diff->changed_bytes, 3 * kTestChunk + 100);  // and the blob
  EXPECT_EQ(diff->only_a_bytes, 0u);
  EXPECT_EQ(diff->only_b_bytes, 2 * kTestChunk);
  EXPECT_THAT(diff->differences, ElementsAre("job: train -> other"));
  const auto back = store_->Diff(b, a);
  EXPECT_EQ(back->only_a_bytes, 2 * kTestChunk);
  EXPECT_EQ(store_->Diff(a, a)->changed_bytes, 0u);
  EXPECT_EQ(store_->Diff(a, "i0000000000").status().code(), Code::kNoSuch);
}

}  // namespace
}  // namespace pos::ckpt
