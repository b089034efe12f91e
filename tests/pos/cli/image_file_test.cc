#include "pos/cli/image_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <functional>
#include <string>
#include <thread>
#include <vector>

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

// What a file system of another kind answers.
struct Lacks {
  const char* like;
  int unnamed;     // of open(2) with O_TMPFILE
  int no_replace;  // of renameat2(2)
  int links;       // of link(2)
};
constexpr Lacks kPlain = {"the local one", EOPNOTSUPP, 0, 0};
constexpr Lacks kNetwork = {"NFS", EOPNOTSUPP, EINVAL, 0};
constexpr Lacks kSimple = {"FAT", EOPNOTSUPP, EINVAL, EPERM};

// `body` in a thread whose calls fail so: seccomp filters are a thread's.
void Within(const Lacks& lacks, const std::function<void()>& body) {
  std::thread([&] {
    const auto load = [](std::size_t offset) {
      return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                  static_cast<std::uint32_t>(offset));
    };
    const auto answer = [](int error) {
      const int what = error == 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO;
      return sock_filter BPF_STMT(BPF_RET | BPF_K,
                                  static_cast<std::uint32_t>(what | error));
    };
    const auto unless = [](std::uint32_t number, unsigned char skip) {
      return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, skip);
    };
    std::vector<sock_filter> code = {
        load(offsetof(seccomp_data, nr)),
        unless(SYS_renameat2, 1),
        answer(lacks.no_replace),
        unless(SYS_link, 1),
        answer(lacks.links),
        unless(SYS_openat, 3),
        load(offsetof(seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
        answer(lacks.unnamed),
        answer(0),
    };
    const sock_fprog program = {static_cast<unsigned short>(code.size()),
                                code.data()};
    ASSERT_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ASSERT_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    body();
  }).join();
}

TEST_F(ImageFileTest, EveryFileSystemWillDo) {
  for (const Lacks& lacks : {kPlain, kNetwork, kSimple}) {
    SCOPED_TRACE(lacks.like);
    Within(lacks, [&] {
      auto file = ImageFile::Create(Path("a"));
      ASSERT_TRUE(file.ok()) << file.status().ToString();
      ASSERT_TRUE(Write((*file)->fd(), "text").ok());
      EXPECT_FALSE(PathExists(Path("a")));
      EXPECT_EQ(Files(), 1u);  // so it has a name, another one
      const Status published = (*file)->Publish();
      EXPECT_TRUE(published.ok()) << published.ToString();
    });
    EXPECT_EQ(*ReadWholeFile(Path("a")), "text");
    EXPECT_EQ(Files(), 1u);
    ASSERT_TRUE(RemoveFile(Path("a")).ok());
  }
}

TEST_F(ImageFileTest, NoFileSystemLetsItTakeAPlaceOrLeaveSomething) {
  for (const Lacks& lacks : {kPlain, kNetwork, kSimple}) {
    SCOPED_TRACE(lacks.like);
    Within(lacks, [&] {
      auto file = ImageFile::Create(Path("a"));
      ASSERT_TRUE(file.ok()) << file.status().ToString();
      ASSERT_TRUE(ReplaceFile(Path("a"), "faster").ok());
      EXPECT_EQ((*file)->Publish().code(), Code::kExists);
      file->reset();
    });
    EXPECT_EQ(*ReadWholeFile(Path("a")), "faster");
    EXPECT_EQ(Files(), 1u);
    ASSERT_TRUE(RemoveFile(Path("a")).ok());
  }
}

TEST_F(ImageFileTest, WhatAKilledExportLeftStopsNobody) {
  ASSERT_TRUE(ReplaceFile(Path("a.part"), "left").ok());
  Within(kNetwork, [&] {
    auto other = ImageFile::Create(Path("a"));
    ASSERT_TRUE(other.ok()) << other.status().ToString();
    auto file = ImageFile::Create(Path("a"));
    ASSERT_TRUE(file.ok()) << file.status().ToString();
    ASSERT_TRUE(Write((*file)->fd(), "text").ok());
    EXPECT_TRUE((*file)->Publish().ok());
    EXPECT_EQ((*other)->Publish().code(), Code::kExists);
  });
  EXPECT_EQ(*ReadWholeFile(Path("a")), "text");
  EXPECT_THAT(*ListDirectory(path_), ::testing::ElementsAre("a", "a.part"));
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
