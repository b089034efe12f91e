// Runners that lie: whatever they leave behind their descriptors, the store
// refuses it or it does harm to their own user's images only.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "ckpt/format/record.h"
#include "tests/ckpt/store/store_fixture.h"

namespace pos::ckpt {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class HostileTest : public StoreTest {
 protected:
  // A draft whose session was written honestly, descriptors still open.
  void Begin(uid_t owner = kAlice) {
    auto draft = store_->BeginImage({owner, 0, "train", true});
    ASSERT_TRUE(draft.ok());
    draft_ = std::move(*draft);
    auto files = draft_->AddSession(0);
    ASSERT_TRUE(files.ok());
    files_ = std::move(*files);
  }
  Status Seal() {
    files_ = SessionFiles();
    return draft_->Seal(JobManifest("train", {0})).status();
  }
  // Writes an index with one region of one chunk.
  void WriteIndex(const IndexHead& head, const PackId& pack,
                  const ChunkRef& ref) {
    ASSERT_EQ(::ftruncate(files_.index.get(), 0), 0);
    IndexWriter writer(files_.index.get(), "index", files_.store, 0, head);
    ASSERT_TRUE(writer.AddPack(pack).ok());
    Region region;
    region.bytes = ref.bytes;
    ASSERT_TRUE(writer.BeginRegion(region).ok());
    ASSERT_TRUE(writer.AddChunk(ref).ok());
    ASSERT_TRUE(writer.Finish().ok());
  }
  [[nodiscard]] IndexHead Head() const {
    return {0, files_.digest_seed, kTestChunk};
  }
  // A chunk that really is at the start of the pack.
  ChunkRef WriteChunk() {
    const Bytes data = Noise(kTestChunk);
    EXPECT_TRUE(PwriteFull(files_.pack.get(), data, kBlockBytes, "pack").ok());
    ChunkRef ref;
    ref.place = kBlockBytes;
    ref.bytes = ref.stored = kTestChunk;
    ref.digest = DigestOf(DigestKey(files_.digest_seed), data);
    return ref;
  }
  void ExpectNothingLeft(const Status& status, const std::string& why) {
    EXPECT_EQ(status.code(), Code::kCorrupt) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr(why));
    EXPECT_EQ(CountFiles(Path("tmp")), 0u);
    draft_.reset();
  }

  std::unique_ptr<Draft> draft_;
  SessionFiles files_;
};

TEST_F(HostileTest, AnHonestHandMadeIndexIsTaken) {
  Begin();
  const ChunkRef ref = WriteChunk();
  WriteIndex(Head(), files_.pack_id, ref);
  const Status status = Seal();
  ASSERT_TRUE(status.ok()) << status.ToString();
  ExpectIntact(draft_->image());
}

TEST_F(HostileTest, NoIndexOrRubbishIsRefused) {
  Begin();
  ExpectNothingLeft(Seal(), "a header has 64 bytes");
  Begin();
  ASSERT_TRUE(PwriteFull(files_.index.get(), Noise(5000), 0, "index").ok());
  ExpectNothingLeft(Seal(), "magic");
}

TEST_F(HostileTest, TheIndexOfAnotherSessionOrStoreIsRefused) {
  for (const IndexHead& head :
       {IndexHead{1, 0, kTestChunk}, IndexHead{0, 1, kTestChunk},
        IndexHead{0, 0, 2 * kTestChunk}}) {
    Begin();
    IndexHead wrong = head;
    wrong.digest_seed += files_.digest_seed;
    WriteIndex(wrong, files_.pack_id, WriteChunk());
    ExpectNothingLeft(Seal(), "not of this session");
  }
}

TEST_F(HostileTest, AChunkOutsideItsPackIsRefused) {
  Begin();
  ChunkRef ref = WriteChunk();
  for (const std::uint64_t place :
       {std::uint64_t{2 * kBlockBytes}, std::uint64_t{1} << 40,
        ~std::uint64_t{0} - 2 * kMaxChunkBytes - 4095}) {
    ref.place = place / kBlockBytes * kBlockBytes;
    WriteIndex(Head(), files_.pack_id, ref);
    ExpectNothingLeft(Seal(), "outside its pack");
    Begin();
    ref = WriteChunk();
  }
}

TEST_F(HostileTest, PacksThatWereNotOfferedAreRefused) {
  // Bob's pack, whose id Alice has learnt.
  const std::string bobs = MustCheckpoint(Noise(kTestChunk), "j", kBob);
  const PackId stolen = store_->Show(bobs)->packs[0].pack;
  Begin(kAlice);
  ChunkRef ref = WriteChunk();
  WriteIndex(Head(), stolen, ref);
  ExpectNothingLeft(Seal(), "was not offered");
  // An id that does not exist.
  Begin(kAlice);
  ref = WriteChunk();
  WriteIndex(Head(), NewPackId(), ref);
  ExpectNothingLeft(Seal(), "was not offered");
}

TEST_F(HostileTest, AnOfferedChunkMustBeNamedAsItWasOffered) {
  const std::string mine = MustCheckpoint(Noise(2 * kTestChunk), "j", kAlice);
  const PackId pack = store_->Show(mine)->packs[0].pack;
  std::vector<ChunkRef> known;
  ASSERT_TRUE(VisitChunks(Path("images/" + mine + "/session-0.idx"),
                          [&known](const PackId&, const ChunkRef& ref) {
                            known.push_back(ref);
                            return Status();
                          })
                  .ok());
  Begin(kAlice);
  WriteIndex(Head(), pack, known[0]);
  EXPECT_TRUE(Seal().ok());
  for (int change = 0; change < 3; ++change) {
    Begin(kAlice);
    ChunkRef ref = known[0];
    if (change == 0) ref.place = known[1].place;
    if (change == 1) ref.digest.bytes[5] ^= std::byte{1};
    if (change == 2) {
      ref.codec = Codec::kZstd;
      ref.stored = 100;
    }
    WriteIndex(Head(), pack, ref);
    ExpectNothingLeft(Seal(), "was not offered");
  }
}

TEST_F(HostileTest, AChangedPackHeaderIsRefused) {
  for (const std::uint64_t at : {0u, 12u, 60u, 75u, 4090u}) {
    Begin();
    WriteIndex(Head(), files_.pack_id, WriteChunk());
    const Bytes noise = Noise(1, at + 2);
    ASSERT_TRUE(PwriteFull(files_.pack.get(), noise, at, "pack").ok());
    EXPECT_FALSE(Seal().ok()) << at;
    draft_.reset();
  }
  // Another header that is right in itself: of another owner.
  Begin(kAlice);
  WriteIndex(Head(), files_.pack_id, WriteChunk());
  PackHeader header;
  header.store = files_.store;
  header.pack = files_.pack_id;
  header.owner_uid = kBob;
  header.digest_seed = files_.digest_seed;
  ASSERT_TRUE(
      PwriteFull(files_.pack.get(), EncodePackHeader(header), 0, "pack").ok());
  ExpectNothingLeft(Seal(), "not the one it was given");
  Begin(kAlice);
  WriteIndex(Head(), files_.pack_id, WriteChunk());
  ASSERT_EQ(::ftruncate(files_.pack.get(), 100), 0);
  ExpectNothingLeft(Seal(), "pack");
}

TEST_F(HostileTest, ARunnerThatKeepsADescriptorCannotSeal) {
  for (const bool keep_pack : {true, false}) {
    Begin();
    WriteIndex(Head(), files_.pack_id, WriteChunk());
    const UniqueFd kept =
        *DuplicateFd(keep_pack ? files_.pack.get() : files_.index.get());
    const Status status = Seal();
    EXPECT_EQ(status.code(), Code::kBusy) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr("open for writing"));
    draft_.reset();
  }
  EXPECT_THAT(store_->List(), IsEmpty());
}

TEST_F(HostileTest, ALieAboutContentIsFoundByVerifyAndRestore) {
  Begin();
  ChunkRef ref = WriteChunk();
  ref.digest.bytes[0] ^= std::byte{1};
  WriteIndex(Head(), files_.pack_id, ref);
  ASSERT_TRUE(Seal().ok());
  const std::string image = draft_->image();
  EXPECT_EQ(store_->Verify(image)->problems, 1u);
  EXPECT_EQ(Restore(store_.get(), image).status().code(), Code::kCorrupt);
}

TEST_F(HostileTest, OnlyPlainFilesBecomePartOfAnImage) {
  Begin();
  WriteIndex(Head(), files_.pack_id, WriteChunk());
  ASSERT_EQ(
      ::symlink("/etc/passwd", (draft_->directory() + "/criu-link").c_str()),
      0);
  files_ = SessionFiles();
  const auto sealed = draft_->Seal(JobManifest("train", {0}));
  EXPECT_EQ(sealed.status().code(), Code::kInvalid);
  EXPECT_THAT(sealed.status().message(), HasSubstr("criu-link"));
  EXPECT_EQ(draft_->MakeDirectory("../up").status().code(), Code::kInvalid);
}

TEST_F(HostileTest, AMillionRegionsAreReadWithoutKeepingThem) {
  Begin();
  IndexWriter writer(files_.index.get(), "index", files_.store, 0, Head());
  Region region;
  region.bytes = 1;
  for (std::uint64_t i = 0; i < 100000; ++i) {
    region.address = 2 * i;
    ASSERT_TRUE(writer.BeginRegion(region).ok());
    ASSERT_TRUE(writer.AddZeros(1).ok());
  }
  ASSERT_TRUE(writer.Finish().ok());
  ASSERT_TRUE(Seal().ok());
  EXPECT_EQ(store_->Show(draft_->image())->totals.live_bytes, 100000u);
}

}  // namespace
}  // namespace pos::ckpt
