#include "pos/cli/image_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string>

#include "pos/base/files.h"
#include "pos/cli/trace_file.h"

namespace pos::cli {
namespace {

class ImageFileTest : public ::testing::Test {
 protected:
  ImageFileTest() {
    path_ = ::testing::TempDir() + "image-file" + std::to_string(::getpid());
    EXPECT_TRUE(RemoveTree(path_).ok());
    EXPECT_TRUE(MakeDirectories(path_).ok());
  }
  ~ImageFileTest() override { EXPECT_TRUE(RemoveTree(path_).ok()); }
  [[nodiscard]] std::string Path(const std::string& name) const {
    return path_ + "/" + name;
  }
  [[nodiscard]] std::size_t Files() const {
    return ListDirectory(path_)->size();
  }
  std::string path_;
};

Status Write(int fd, const std::string& text) {
  return WriteFull(fd, std::as_bytes(std::span(text)), "test");
}

TEST_F(ImageFileTest, AppearsWhenItIsComplete) {
  auto file = ImageFile::Create(Path("a"));
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  ASSERT_TRUE(Write((*file)->fd(), "text").ok());
  EXPECT_FALSE(PathExists(Path("a")));
  ASSERT_TRUE((*file)->Publish().ok());
  EXPECT_EQ(*ReadWholeFile(Path("a")), "text");
  struct stat st {};
  ASSERT_EQ(::stat(Path("a").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777u, 0600u);
}

TEST_F(ImageFileTest, LeavesNothingWhenItIsGivenUp) {
  auto file = ImageFile::Create(Path("a"));
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(Write((*file)->fd(), "text").ok());
  file->reset();
  EXPECT_EQ(Files(), 0u);
}

TEST_F(ImageFileTest, TakesNobodysPlace) {
  ASSERT_TRUE(ReplaceFile(Path("a"), "old").ok());
  EXPECT_EQ(ImageFile::Create(Path("a")).status().code(), Code::kExists);
  EXPECT_EQ(ImageFile::Create(path_).status().code(), Code::kExists);
  auto file = ImageFile::Create(Path("b"));
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(ReplaceFile(Path("b"), "faster").ok());
  EXPECT_EQ((*file)->Publish().code(), Code::kExists);
  file->reset();
  EXPECT_EQ(*ReadWholeFile(Path("b")), "faster");
  EXPECT_EQ(Files(), 2u);
  EXPECT_EQ(ImageFile::Create(Path("no/where")).status().code(), Code::kNoSuch);
}

TEST_F(ImageFileTest, APumpCopiesBothWays) {
  std::string text(3 << 20, 'x');
  for (std::size_t i = 0; i < text.size(); i += 997) text[i] = 'y';
  ASSERT_TRUE(ReplaceFile(Path("in"), text).ok());
  const auto in = OpenImageFile(Path("in"));
  ASSERT_TRUE(in.ok());
  EXPECT_EQ(RegularFileBytes(in->get()), text.size());
  auto out = ImageFile::Create(Path("out"));
  ASSERT_TRUE(out.ok());
  auto pipe = MakePipe();
  ASSERT_TRUE(pipe.ok());
  Pump to = Pump::ToPipe(in->get(), std::move(pipe->write));
  Pump from = Pump::FromPipe(std::move(pipe->read), (*out)->fd());
  EXPECT_EQ(*to.Finish(false), text.size());
  EXPECT_EQ(*from.Finish(false), text.size());
  ASSERT_TRUE((*out)->Publish().ok());
  EXPECT_TRUE(*ReadWholeFile(Path("out")) == text);
}

// What it copies from or to may wait for ever; a stop does not.
TEST_F(ImageFileTest, APumpStopsWhereverItWaits) {
  auto quiet = MakePipe();
  auto pipe = MakePipe();
  ASSERT_TRUE(quiet.ok() && pipe.ok());
  Pump reads = Pump::ToPipe(quiet->read.get(), std::move(pipe->write));
  EXPECT_TRUE(reads.Finish(true).ok());

  auto full = MakePipe();
  auto source = MakePipe();
  ASSERT_TRUE(full.ok() && source.ok());
  ASSERT_TRUE(SetNonBlocking(full->write.get(), true).ok());
  const std::string block(65536, 'z');
  while (::write(full->write.get(), block.data(), block.size()) > 0) {
  }
  ASSERT_TRUE(Write(source->write.get(), "more").ok());
  Pump writes = Pump::FromPipe(std::move(source->read), full->write.get());
  EXPECT_TRUE(writes.Finish(true).ok());
}

TEST_F(ImageFileTest, APumpEndsWithItsReader) {
  auto quiet = MakePipe();
  auto pipe = MakePipe();
  ASSERT_TRUE(quiet.ok() && pipe.ok());
  Pump pump = Pump::ToPipe(quiet->read.get(), std::move(pipe->write));
  pipe->read.Reset();
  EXPECT_TRUE(pump.Finish(false).ok());
}

TEST_F(ImageFileTest, APumpSaysThatTheDiskIsFull) {
  const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE(full.valid());
  auto pipe = MakePipe();
  ASSERT_TRUE(Write(pipe->write.get(), "text").ok());
  Pump pump = Pump::FromPipe(std::move(pipe->read), full.get());
  pipe->write.Reset();
  EXPECT_EQ(pump.Finish(false).status().code(), Code::kDiskFull);
}

TEST(TraceFile, HasARowForEachSession) {
  TraceEvents events;
  v1::TraceEvent* event = events.Add();
  event->set_name("quiesce");
  event->set_begin_us(5);
  event->set_duration_us(10);
  event = events.Add();
  event->set_name("save");
  event->set_session(3);
  event->set_begin_us(15);
  event->set_duration_us(7);
  event->set_bytes(4096);
  const std::string json = TraceJson("checkpoint of j", events);
  for (const char* part :
       {"\"traceEvents\"", "\"checkpoint of j\"", "\"session 3\"",
        "\"quiesce\"", "\"bytes\": 4096", "\"ts\": 15", "\"dur\": 7"}) {
    EXPECT_NE(json.find(part), std::string::npos) << part << "\n" << json;
  }
}

}  // namespace
}  // namespace pos::cli
