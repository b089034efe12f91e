#include "pos/daemon/caller_pipe.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "tests/pos/daemon/testing.h"

namespace pos {
namespace {

constexpr auto kBound = std::chrono::seconds(5);

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    out.Reset(ends[0]);
    in.Reset(ends[1]);
  }
  UniqueFd out;
  UniqueFd in;
};

std::vector<std::byte> Pattern(std::size_t bytes) {
  std::vector<std::byte> data(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    data[i] = static_cast<std::byte>(i * 31 + i / 4096);
  }
  return data;
}

Status GoOn() { return {}; }

TEST(CallerPipe, RefusesWhatIsNoPipe) {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(CallerPipe::Create(null.get(), GoOn).status().code(),
            Code::kInvalid);
  EXPECT_EQ(CallerPipe::Create(-1, GoOn).status().code(), Code::kInvalid);
}

TEST(CallerPipe, MovesAllBytesInOrder) {
  const std::vector<std::byte> sent = Pattern((3u << 20) + 12345);
  Pipe pipe;
  auto writer = CallerPipe::Create(pipe.in.get(), GoOn);
  auto reader = CallerPipe::Create(pipe.out.get(), GoOn);
  ASSERT_TRUE(writer.ok() && reader.ok());
  std::thread write([&] {
    const std::span<const std::byte> all(sent);
    EXPECT_TRUE((*writer)->Write(all.first(1)).ok());
    EXPECT_TRUE((*writer)->Write(all.subspan(1)).ok());
    pipe.in.Reset();
  });
  std::vector<std::byte> got;
  std::vector<std::byte> piece(70'000);
  for (;;) {
    const Result<std::size_t> n = (*reader)->Read(piece);
    ASSERT_TRUE(n.ok()) << n.status().ToString();
    if (*n == 0) break;
    got.insert(got.end(), piece.begin(),
               piece.begin() + static_cast<std::ptrdiff_t>(*n));
  }
  write.join();
  EXPECT_EQ(got, sent);
}

TEST(CallerPipe, WritesToAFifo) {
  const TempDir directory;
  const std::string path = directory.File("fifo");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const UniqueFd fifo(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  auto writer = CallerPipe::Create(fifo.get(), GoOn);
  ASSERT_TRUE(writer.ok());
  const std::vector<std::byte> sent = Pattern(1000);
  ASSERT_TRUE((*writer)->Write(sent).ok());
  std::vector<std::byte> got(2000);
  ASSERT_EQ(::read(fifo.get(), got.data(), got.size()), 1000);
  got.resize(1000);
  EXPECT_EQ(got, sent);
}

TEST(CallerPipe, SaysThatNobodyReads) {
  ::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  auto writer = CallerPipe::Create(pipe.in.get(), GoOn);
  ASSERT_TRUE(writer.ok());
  pipe.out.Reset();
  EXPECT_EQ((*writer)->Write(Pattern(1)).code(), Code::kClosed);
}

// The caller has the same open file description, and makes it blocking after it
// was looked at, or at any time. Then it neither reads nor writes.
class HostileCaller : public testing::Test {
 protected:
  HostileCaller() { ::signal(SIGPIPE, SIG_IGN); }
  // Runs `work`, which has to give up once it is told to.
  void ExpectGivesUp(const std::function<Status()>& work,
                     const std::function<void()>& let_go) {
    std::future<Status> done = std::async(std::launch::async, work);
    while (asked_.load() == 0 &&
           done.wait_for(std::chrono::milliseconds(1)) !=
               std::future_status::ready &&
           MonotonicNs() - began_ns_ < 5'000'000'000) {
    }
    give_up_.store(true);
    if (done.wait_for(kBound) != std::future_status::ready) {
      ADD_FAILURE() << "it waits for the caller";
      let_go();
    }
    EXPECT_EQ(done.get().code(), Code::kAborted);
  }
  static void MakeBlocking(int fd) {
    const int flags = ::fcntl(fd, F_GETFL);
    ASSERT_EQ(::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK), 0);
  }
  std::function<Status()> GoOnUntilTold() {
    return [this] {
      asked_.fetch_add(1);
      return give_up_.load() ? Aborted("given up") : Status();
    };
  }

  std::atomic<int> asked_{0};
  std::atomic<bool> give_up_{false};
  const std::uint64_t began_ns_ = MonotonicNs();
  Pipe pipe_;
};

TEST_F(HostileCaller, WhoDoesNotReadHoldsNobody) {
  const Result<UniqueFd> kept = DuplicateFd(pipe_.in.get());
  ASSERT_TRUE(kept.ok());
  auto writer = CallerPipe::Create(pipe_.in.get(), GoOnUntilTold());
  ASSERT_TRUE(writer.ok());
  MakeBlocking(kept->get());
  ExpectGivesUp([&] { return (*writer)->Write(Pattern(4u << 20)); },
                [&] { pipe_.out.Reset(); });
}

TEST_F(HostileCaller, WhoDoesNotWriteHoldsNobody) {
  const Result<UniqueFd> kept = DuplicateFd(pipe_.out.get());
  ASSERT_TRUE(kept.ok());
  auto reader = CallerPipe::Create(pipe_.out.get(), GoOnUntilTold());
  ASSERT_TRUE(reader.ok());
  MakeBlocking(kept->get());
  std::vector<std::byte> out(100);
  ExpectGivesUp([&] { return (*reader)->Read(out).status(); },
                [&] { pipe_.in.Reset(); });
}

TEST_F(HostileCaller, FindsItsDescriptionAsItWas) {
  auto writer = CallerPipe::Create(pipe_.in.get(), GoOn);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Write(Pattern(10)).ok());
  EXPECT_EQ(::fcntl(pipe_.in.get(), F_GETFL) & O_NONBLOCK, 0);
}

}  // namespace
}  // namespace pos
