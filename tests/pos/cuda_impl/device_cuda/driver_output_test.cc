#include "pos/cuda_impl/device_cuda/driver_output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <string>
#include <thread>

#include "pos/base/log.h"

namespace pos::cuda_device {
namespace {

struct Texts : CompletionSink {
  void OnComplete(std::uint64_t, DeviceError) override {}
  void OnDeviceOutput(OutputKind kind, std::string_view text) override {
    (kind == OutputKind::kPrinted ? printed : failed) += text;
    longest = std::max(longest, text.size());
  }
  std::string printed;
  std::string failed;
  std::size_t longest = 0;
};

std::string Content(int file) {
  std::string text(static_cast<std::size_t>(::lseek(file, 0, SEEK_END)), ' ');
  EXPECT_EQ(::pread(file, text.data(), text.size(), 0),
            static_cast<ssize_t>(text.size()));
  return text;
}

// Descriptors 1 and 2 lead to files while a test runs, so that what it checks
// does not depend on where they led. Nothing may be asserted meanwhile.
class OwnStreams {
 public:
  OwnStreams() {
    std::fflush(stdout);
    for (int i = 0; i < 2; ++i) {
      before_[i] = UniqueFd(::fcntl(i + 1, F_DUPFD_CLOEXEC, 20));
      file[i] = UniqueFd(::memfd_create("stream", MFD_CLOEXEC));
      ::fcntl(file[i].get(), F_SETFL, O_APPEND);
      ::dup2(file[i].get(), i + 1);
    }
  }
  ~OwnStreams() { Close(); }
  void Close() {
    std::fflush(stdout);
    for (int i = 0; i < 2; ++i) {
      if (before_[i].valid()) ::dup2(before_[i].get(), i + 1);
      before_[i].Reset();
    }
  }
  UniqueFd file[2];

 private:
  UniqueFd before_[2];
};

TEST(DriverOutput, HandsOnWhatIsWrittenAndLeavesTheLogAlone) {
  Texts texts;
  OwnStreams streams;
  auto output = DriverOutput::Get();
  const bool one = output.ok() && DriverOutput::Get().value() == *output;
  std::printf("first, ");
  [[maybe_unused]] ssize_t n = ::write(2, "asserted\n", 9);
  if (output.ok()) (*output)->Drain(&texts);
  std::printf("second\n");
  POS_LOG(kWarning, "a line of the log");
  if (output.ok()) (*output)->Drain(&texts);
  std::printf("left over\n");
  output = Internal("gone");
  std::printf("after\n");
  streams.Close();
  EXPECT_TRUE(one);
  EXPECT_EQ(texts.printed, "first, second\n");
  EXPECT_EQ(texts.failed, "asserted\n");
  EXPECT_EQ(Content(streams.file[0].get()), "left over\nafter\n");
  const std::string log = Content(streams.file[1].get());
  EXPECT_TRUE(log.starts_with("asserted\n")) << log;
  EXPECT_NE(log.find("a line of the log"), std::string::npos) << log;
}

// One session's modules may go as another's come. The end of the first is held
// up by what it has to hand back: standard output is a pipe that is full.
TEST(DriverOutput, EndsBeforeTheNextOneBegins) {
  Texts texts;
  std::string handed_back;
  OwnStreams streams;
  std::array<int, 2> pipe{};
  bool ok = ::pipe2(pipe.data(), O_CLOEXEC) == 0;
  const UniqueFd reader(pipe[0]);
  ok = ok && ::dup2(pipe[1], 1) == 1;
  ::close(pipe[1]);
  auto output = DriverOutput::Get();
  const std::string many(300'000, 'x');
  ok = ok && output.ok() && ::write(1, many.data(), many.size()) > 0;
  std::atomic<bool> begun{false};
  std::thread first([&] { output = Internal("gone"); });
  pollfd ready{reader.get(), POLLIN, 0};
  ok = ok && ::poll(&ready, 1, 10'000) == 1;
  Result<std::shared_ptr<DriverOutput>> next = Internal("none yet");
  std::thread second([&] {
    next = DriverOutput::Get();
    begun.store(true);
  });
  // It must not: this long it has a chance to.
  for (int i = 0; i < 50 && !begun.load(); ++i) ::poll(nullptr, 0, 1);
  std::array<char, 4096> piece;
  while (ok && handed_back.size() < many.size()) {
    ok = ::poll(&ready, 1, 10'000) == 1;
    const ssize_t n = ok ? ::read(reader.get(), piece.data(), piece.size()) : 0;
    handed_back.append(piece.data(), static_cast<std::size_t>(n > 0 ? n : 0));
  }
  first.join();
  second.join();
  [[maybe_unused]] ssize_t n = ::write(1, "printed", 7);
  n = ::write(2, "asserted", 8);
  if (next.ok()) (*next)->Drain(&texts);
  next = Internal("gone");
  streams.Close();
  EXPECT_TRUE(ok);
  EXPECT_TRUE(handed_back == many) << handed_back.size();
  EXPECT_EQ(texts.printed, "printed");
  EXPECT_EQ(texts.failed, "asserted");
}

// As a driver writes at a launch while another thread's call has just ended.
TEST(DriverOutput, LosesNothingOfAWriterAtTheSameTime) {
  constexpr int kLines = 200'000;
  Texts texts;
  {
    const OwnStreams streams;
    auto output = DriverOutput::Get();
    std::thread writer([] {
      for (int i = 0; i < kLines; ++i) std::printf("line %d\n", i);
    });
    for (int i = 0; i < 200 && output.ok(); ++i) (*output)->Drain(&texts);
    writer.join();
    if (output.ok()) (*output)->Drain(&texts);
  }
  std::string want;
  for (int i = 0; i < kLines; ++i) want += "line " + std::to_string(i) + '\n';
  EXPECT_TRUE(texts.printed == want) << texts.printed.size();
  EXPECT_LE(texts.longest, 1000u);
}

}  // namespace
}  // namespace pos::cuda_device
