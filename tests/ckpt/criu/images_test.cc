// ckpt/criu: wire format and image files. What CRIU itself writes is read in
// tests/pos/job, from images made there.
#include "ckpt/criu/images.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "ckpt/criu/wire.h"
#include "pos/base/files.h"

namespace pos {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Number32(std::uint32_t value) {
  std::string raw(sizeof(value), '\0');
  std::memcpy(raw.data(), &value, sizeof(value));
  return raw;
}

std::string Image(std::uint32_t type_magic,
                  const std::vector<std::string>& entries) {
  std::string image = Number32(0x54564319) + Number32(type_magic);
  for (const std::string& entry : entries) {
    image += Number32(static_cast<std::uint32_t>(entry.size())) + entry;
  }
  return image;
}

std::string Task(int pid, int parent, int group, int session,
                 const std::vector<int>& threads) {
  WireWriter writer;
  writer.PutSigned(1, pid);
  writer.PutSigned(2, parent);
  writer.PutSigned(3, group);
  writer.PutSigned(4, session);
  for (const int thread : threads) writer.PutSigned(5, thread);
  return writer.message();
}

std::string Tree(const std::vector<std::string>& tasks) {
  return Image(0x50273030, tasks);
}

std::string RegularFile(std::uint32_t id, const std::string& path,
                        std::optional<std::uint64_t> size) {
  WireWriter owner;
  owner.PutNumber(1, 0);
  WireWriter file;
  file.PutNumber(1, id);
  file.PutNumber(2, 0101);
  file.PutNumber(3, 77);  // offset
  file.PutBytes(5, owner.message());
  file.PutBytes(6, path);
  if (size) file.PutNumber(8, *size);
  file.PutNumber(10, 0100644);
  WireWriter entry;
  entry.PutNumber(1, 1);
  entry.PutNumber(2, id);
  entry.PutBytes(3, file.message());
  return entry.message();
}

std::string PipeFile(std::uint32_t id) {
  WireWriter pipe;
  pipe.PutNumber(1, id);
  WireWriter entry;
  entry.PutNumber(1, 2);
  entry.PutNumber(2, id);
  entry.PutBytes(18, pipe.message());
  return entry.message();
}

std::string Files(const std::vector<std::string>& entries) {
  return Image(0x56303138, entries);
}

TEST(WireReader, ReadsBackWhatTheWriterPut) {
  WireWriter writer;
  writer.PutNumber(1, 0);
  writer.PutNumber(2, ~0ull);
  writer.PutSigned(3, -1);
  writer.PutBytes(40, "abc");
  WireReader reader(writer.message());
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.number(), 0u);
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.number(), ~0ull);
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(static_cast<std::int64_t>(reader.number()), -1);
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.field(), 40u);
  EXPECT_EQ(reader.bytes(), "abc");
  EXPECT_FALSE(reader.Next());
  EXPECT_TRUE(reader.ok());
}

TEST(WireReader, RefusesEveryTruncation) {
  WireWriter writer;
  writer.PutBytes(1, "abcdef");
  const std::string& whole = writer.message();
  for (std::size_t keep = 1; keep < whole.size(); ++keep) {
    SCOPED_TRACE(keep);
    WireReader reader(std::string_view(whole).substr(0, keep));
    EXPECT_FALSE(reader.Next());
    EXPECT_FALSE(reader.ok());
  }
}

TEST(WireReader, RefusesLengthsBeyondItsSpanAndOverlongNumbers) {
  const std::string huge = "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
  WireReader length(huge);
  EXPECT_FALSE(length.Next());
  EXPECT_FALSE(length.ok());
  const std::string overlong =
      "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
  WireReader number(overlong);
  EXPECT_FALSE(number.Next());
  EXPECT_FALSE(number.ok());
}

TEST(CriuTree, GivesEveryIdThatHasToBeFree) {
  const Result<std::vector<CriuTask>> tree =
      DecodeCriuTree(Tree({Task(1001, 0, 1001, 1001, {1001, 1005}),
                           Task(1003, 1001, 1002, 1001, {1003})}));
  ASSERT_TRUE(tree.ok());
  ASSERT_EQ(tree->size(), 2u);
  EXPECT_EQ((*tree)[1].parent, 1001);
  // 1002 leads a group and is gone: a restore makes a helper of that id.
  EXPECT_THAT(CriuIds(*tree), ElementsAre(1001, 1002, 1003, 1005));
}

TEST(CriuTree, RefusesEveryTruncationAndWrongMagic) {
  const std::string whole = Tree({Task(1001, 0, 1001, 1001, {1001})});
  for (std::size_t keep = 0; keep < whole.size(); ++keep) {
    SCOPED_TRACE(keep);
    EXPECT_EQ(
        DecodeCriuTree(std::string_view(whole).substr(0, keep)).status().code(),
        Code::kCorrupt);
  }
  EXPECT_FALSE(DecodeCriuTree(Files({})).ok());
}

TEST(CriuFiles, AdjustChangesWhatIsAskedAndKeepsTheRestByteForByte) {
  const std::string pipe = PipeFile(2);
  const std::string other = RegularFile(3, "/lib/libc.so.6", 1926232);
  const std::string appended = RegularFile(4, "/work/log", std::nullopt);
  const std::string before =
      Files({RegularFile(1, "/work/out", 100), pipe, other, appended});
  std::size_t changed = 0;
  const Result<std::string> after = AdjustCriuFilesContent(
      before,
      [](CriuFile* file) {
        if (file->path == "/work/out") {
          file->path = "/copy/work/out";
          file->size_bytes = 123456;
        }
      },
      &changed);
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(changed, 1u);
  EXPECT_EQ(*after, Files({RegularFile(1, "/copy/work/out", 123456), pipe,
                           other, appended}));
  const Result<std::string> same = AdjustCriuFilesContent(
      before, [](CriuFile*) {}, &changed);
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(changed, 0u);
  EXPECT_EQ(*same, before);
}

TEST(CriuFiles, AnEntryWithoutSizeGetsNone) {
  std::size_t changed = 0;
  const Result<std::string> after = AdjustCriuFilesContent(
      Files({RegularFile(4, "/work/log", std::nullopt)}),
      [](CriuFile* file) { file->path = "/x"; }, &changed);
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(*after, Files({RegularFile(4, "/x", std::nullopt)}));
}

class ImageDirectory : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ =
        ::testing::TempDir() + "criu_images." + std::to_string(::getpid());
    ASSERT_TRUE(MakeDirectories(directory_).ok());
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(directory_).ok()); }

  void Write(const std::string& name, const std::string& content) {
    ASSERT_TRUE(ReplaceFile(JoinPath(directory_, name), content).ok());
  }

  std::string directory_;
};

TEST_F(ImageDirectory, LinkRemapsAreTheLinkedKindOnly) {
  WireWriter linked;
  linked.PutNumber(1, 23);
  linked.PutNumber(2, 24);
  linked.PutNumber(3, 0);
  WireWriter ghost;
  ghost.PutNumber(1, 25);
  ghost.PutNumber(2, 1);
  ghost.PutNumber(3, 1);
  Write("remap-fpath.img",
        Image(0x59133954, {linked.message(), ghost.message()}));
  Write("files.img", Files({RegularFile(23, "/work/gone", 100),
                            RegularFile(24, "/work/link_remap.7", 100),
                            RegularFile(1, "/work/other", 100)}));
  const Result<std::vector<std::string>> paths = ReadCriuLinkRemaps(directory_);
  ASSERT_TRUE(paths.ok());
  EXPECT_THAT(*paths, ElementsAre("/work/link_remap.7"));
}

TEST_F(ImageDirectory, ImageWithoutRemapsHasNone) {
  const Result<std::vector<std::string>> paths = ReadCriuLinkRemaps(directory_);
  ASSERT_TRUE(paths.ok());
  EXPECT_TRUE(paths->empty());
}

TEST_F(ImageDirectory, MissingTreeIsNamed) {
  const Result<std::vector<CriuTask>> tree = ReadCriuTree(directory_);
  EXPECT_EQ(tree.status().code(), Code::kNoSuch);
  EXPECT_THAT(tree.status().message(), HasSubstr("pstree.img"));
}

// Bytes that CRIU 4.1.1 wrote.
TEST_F(ImageDirectory, ReadsStatistics) {
  const unsigned char raw[] = {
      0x40, 0x59, 0x10, 0x55, 0x06, 0x33, 0x09, 0x57, 0x21, 0x00, 0x00, 0x00,
      0x0a, 0x1f, 0x08, 0x55, 0x10, 0x95, 0xce, 0x3d, 0x18, 0xac, 0x02, 0x20,
      0x57, 0x28, 0x27, 0x30, 0x00, 0x38, 0x1a, 0x40, 0x00, 0x48, 0x00, 0x50,
      0x06, 0x58, 0x06, 0x60, 0x00, 0x68, 0x00, 0x70, 0x00};
  Write("stats-dump",
        std::string(reinterpret_cast<const char*>(raw), sizeof(raw)));
  const CriuDumpStats stats = ReadCriuDumpStats(directory_);
  EXPECT_EQ(stats.freezing_us, 0x55u);
  EXPECT_EQ(stats.frozen_us, 1009429u);
  EXPECT_EQ(stats.pages_written, 0x1au);
}

}  // namespace
}  // namespace pos
