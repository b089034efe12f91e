// How sessions end: clients that go in order, that die with calls under way or
// in the middle of a frame, that break the protocol; a thousand one after the
// other, 64 at once. What is left behind, and what the others notice.
#include <cuda.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "pos/base/backoff.h"
#include "pos/base/sanitizers.h"
#include "tests/support/manual_device.h"
#include "tests/support/resources.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"

namespace pos {
namespace {

std::vector<std::byte> Pattern(std::size_t bytes, std::uint64_t seed) {
  std::vector<std::byte> out(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    out[i] = static_cast<std::byte>(seed * 31 + i * 7);
  }
  return out;
}

cuda::FillArgs Fill(std::uint64_t stream, std::uint64_t dst,
                    std::uint64_t bytes, std::uint32_t value) {
  return {.stream = stream,
          .dst = dst,
          .count = bytes,
          .rows = 1,
          .pitch = 0,
          .value = value,
          .width = 1};
}

enum class Ending { kInOrder, kLeaves, kUnanswered, kHalfFrame, kMalformed };
constexpr int kEndings = 5;

// A client's life up to its end; its session is destroyed afterwards.
class Life {
 public:
  Life(SimSession* session, int number)
      : session_(session), number_(number), client_(session->ring()) {}

  void Begin() {
    context_ = client_.MakeContext();
    stream_ = client_.MakeStream(context_);
    block_ = client_.Alloc(context_, 1 << 20);
  }
  void Work(std::uint64_t round) {
    const std::vector<std::byte> data =
        Pattern(200, static_cast<std::uint64_t>(number_) * 1000 + round);
    client_.CopyIn(stream_, block_ + 64, data);
    ASSERT_EQ(client_.CopyOut(stream_, block_ + 64, 200), data)
        << "session " << number_;
  }
  void End(Ending how) {
    switch (how) {
      case Ending::kInOrder:
        EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = block_}), 0);
        EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = context_.id}),
                  0);
        break;
      case Ending::kLeaves:
        break;
      case Ending::kUnanswered:
        client_.Post(Fill(stream_, block_, 1 << 20, 7));
        client_.Begin(cuda::StreamSynchronizeArgs{.stream = stream_});
        client_.Begin(cuda::MemFreeArgs{.address = block_});
        break;
      case Ending::kHalfFrame:
        ASSERT_NE(
            client_.ring().Begin(static_cast<std::uint16_t>(cuda::Op::kFill),
                                 cuda::kWireBytes<cuda::FillArgs>, 0),
            nullptr);
        client_.Post(Fill(stream_, block_, 1 << 20, 8));
        break;
      case Ending::kMalformed: {
        wire::FrameHeader* const frame = client_.ring().Begin(0x7fff, 8, 0);
        ASSERT_NE(frame, nullptr);
        client_.ring().Commit(frame);
        client_.Post(Fill(stream_, block_, 1 << 20, 9));
        AwaitMalformed();
        break;
      }
    }
  }

 private:
  void AwaitMalformed() {
    const Deadline deadline = Deadline::AfterMs(20000);
    Backoff backoff;
    while (session_->session().malformed() == 0 && !deadline.Passed()) {
      backoff.Wait();
    }
    EXPECT_EQ(session_->session().malformed(), 1);
  }

  SimSession* const session_;
  const int number_;
  SessionClient client_;
  SessionClient::Context context_;
  std::uint64_t stream_ = 0;
  std::uint64_t block_ = 0;
};

void OneLife(int number) {
  SimSession session(1 + number % 3);
  Life life(&session, number);
  life.Begin();
  life.Work(1);
  life.End(static_cast<Ending>(number % kEndings));
  session.session().Destroy();
}

TEST(SessionLife, AThousandOneAfterTheOtherLeaveNothingBehind) {
  constexpr int kSessions = kSanitized ? 150 : 1000;
  constexpr int kWarmUp = 60;
  for (int i = 0; i < kWarmUp; ++i) OneLife(i);
  // This one, and ThreadSanitizer's own.
  const Resources before = Resources::WithThreads(kSanitized ? 2 : 1);
  for (int i = 0; i < kSessions; ++i) {
    OneLife(i);
    if (HasFailure()) return;
  }
  const Resources after = Resources::WithThreads(before.threads);
  EXPECT_EQ(after.threads, before.threads);
  EXPECT_EQ(after.descriptors, before.descriptors);
  // A leak of 4 KiB a session would be 4 MB. What a sanitizer keeps of freed
  // memory hides that, and is mapped; there, its own leak check counts.
  if (!kSanitized) {
    EXPECT_LE(after.mappings, before.mappings + 8);
    EXPECT_LE(after.resident_kb, before.resident_kb + 2048);
  }
}

// Half of 64 sessions end, one way or another, while the others work.
TEST(SessionLife, SixtyFourAtOnceDoNotDisturbEachOther) {
  constexpr int kSessions = kSanitized ? 24 : 64;
  const std::size_t threads = Resources::Now().threads;
  OneLife(0);
  const Resources before = Resources::WithThreads(threads);
  {
    std::vector<std::unique_ptr<SimSession>> sessions;
    std::vector<std::unique_ptr<Life>> lives;
    for (int i = 0; i < kSessions; ++i) {
      sessions.push_back(std::make_unique<SimSession>(1 + i % 3, i));
      lives.push_back(std::make_unique<Life>(sessions.back().get(), i));
    }
    std::atomic<int> working{0};
    std::vector<std::thread> clients;
    for (int i = 0; i < kSessions; ++i) {
      clients.emplace_back([&, i] {
        Life& life = *lives[static_cast<std::size_t>(i)];
        life.Begin();
        life.Work(0);
        working.fetch_add(1);
        if (i % 2 == 0) {
          life.End(static_cast<Ending>(i / 2 % kEndings));
          sessions[static_cast<std::size_t>(i)]->session().Destroy();
          return;
        }
        // Until all are there, and then some: the others end meanwhile.
        std::uint64_t round = 1;
        const Deadline deadline = Deadline::AfterMs(40000);
        while (working.load() < kSessions && !deadline.Passed()) {
          life.Work(round++);
        }
        for (int k = 0; k < 20; ++k) life.Work(round++);
        life.End(Ending::kInOrder);
      });
    }
    for (std::thread& t : clients) t.join();
    EXPECT_EQ(working.load(), kSessions);
    for (int i = 1; i < kSessions; i += 2) {
      TestSession& session = sessions[static_cast<std::size_t>(i)]->session();
      EXPECT_EQ(session.malformed(), 0) << i;
      EXPECT_EQ(session.ledger().used(), 0u) << i;
    }
  }
  const Resources after = Resources::WithThreads(before.threads);
  EXPECT_EQ(after.threads, before.threads);
  EXPECT_EQ(after.descriptors, before.descriptors);
}

// --- Calls that are under way when the session ends ---

class SessionEnd : public ::testing::TestWithParam<int> {
 protected:
  // The client of another process: it has mappings of its own, which outlive
  // the session's.
  SessionEnd() {
    const RingServer& ring = *session_.ring();
    EXPECT_TRUE(outside_
                    .Map(ring.ring_fd(), ring.ring_map_bytes(),
                         ring.staging_fd(), ring.geometry().staging_bytes)
                    .ok());
    session_->Start();
  }
  ~SessionEnd() override {
    session_.Destroy();
    EXPECT_TRUE(device_.Violations().empty()) << device_.Violations().front();
  }
  void AwaitWaiting(std::size_t count) {
    const Deadline deadline = Deadline::AfterMs(20000);
    Backoff backoff;
    while (device_.Waiting() < count && !deadline.Passed()) backoff.Wait();
    ASSERT_EQ(device_.Waiting(), count);
  }

  ManualDevice device_{1ull << 30};
  TestSession session_{TestOptions(GetParam()), {&device_}};
  SessionClient client_{session_.ring()};
  RingClient outside_;
};

// A caller looks at its slot and at `closed`: every call either has its answer,
// an error, or can be failed by the client library. Nothing comes after that.
TEST_P(SessionEnd, EveryCallUnderWayFailsOnceOrStaysUnanswered) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t block = client_.Alloc(context, 4 << 20);
  const std::uint64_t event = client_.MakeEvent(context);
  device_.SetManual(true);
  client_.Post(Fill(context.stream, block, 1, 0));
  AwaitWaiting(1);
  std::vector<std::uint32_t> slots;
  for (int i = 0; i < 8; ++i) {
    slots.push_back(
        client_.Begin(cuda::StreamSynchronizeArgs{.stream = context.stream}));
  }
  slots.push_back(
      client_.Begin(cuda::CtxSynchronizeArgs{.context = context.id}));
  slots.push_back(client_.Begin(cuda::EventSynchronizeArgs{.event = event}));
  slots.push_back(client_.Begin(cuda::MemFreeArgs{.address = block}));
  AwaitWaiting(12);
  // One that waits for memory, before the worker.
  session_.ledger().SetPending(true);
  slots.push_back(client_.Begin(
      cuda::MemAllocArgs{.context = context.id, .bytes = 8 << 20}));
  EXPECT_EQ(client_.Call(cuda::StreamQueryArgs{.stream = context.stream}),
            CUDA_ERROR_NOT_READY);
  for (const std::uint32_t slot : slots) ASSERT_FALSE(client_.Answered(slot));

  session_.Destroy();
  EXPECT_TRUE(outside_.closed());
  std::vector<std::uint32_t> states;
  for (const std::uint32_t slot : slots) {
    const wire::ReplySlot& s = outside_.slot(slot);
    states.push_back(s.state.load());
    if (states.back() == wire::kSlotDone) {
      EXPECT_NE(s.result, 0) << "the work was never done";
    } else {
      EXPECT_EQ(states.back(), wire::kSlotPending);
    }
  }
  device_.Release();
  for (std::size_t i = 0; i < slots.size(); ++i) {
    EXPECT_EQ(outside_.slot(slots[i]).state.load(), states[i])
        << "an answer after the end";
  }
  // Who comes now is told so instead of being left to wait.
  EXPECT_EQ(outside_.Begin(1, 0, 0), nullptr);
}

// A full ring is waited for; the end of the session ends that, too.
TEST_P(SessionEnd, WritersThatWaitForRoomAreLetGo) {
  // A hole in front keeps the ring from being emptied.
  ASSERT_NE(outside_.Begin(1, 0, 0), nullptr);
  std::atomic<int> stopped{0};
  std::vector<std::thread> writers;
  for (int t = 0; t < 3; ++t) {
    writers.emplace_back([&] {
      while (wire::FrameHeader* frame =
                 outside_.Begin(static_cast<std::uint16_t>(cuda::Op::kFill),
                                cuda::kWireBytes<cuda::FillArgs>, 0)) {
        frame->op = 0;  // never looked at
        outside_.Commit(frame);
      }
      stopped.fetch_add(1);
    });
  }
  session_.Destroy();
  for (std::thread& t : writers) t.join();
  EXPECT_EQ(stopped.load(), 3);
}

TEST_P(SessionEnd, HalfAFrameHoldsUpACutAndNothingElse) {
  const SessionClient::Context context = client_.MakeContext();
  const std::uint64_t calls = session_->calls();
  wire::FrameHeader* const half =
      client_.ring().Begin(static_cast<std::uint16_t>(cuda::Op::kEventQuery),
                           cuda::kWireBytes<cuda::EventQueryArgs>, 0);
  ASSERT_NE(half, nullptr);
  const std::uint32_t behind =
      client_.Begin(cuda::CtxSynchronizeArgs{.context = context.id});
  const Status cut = session_->Quiesce(Deadline::AfterMs(50));
  EXPECT_EQ(cut.code(), Code::kTimeout);
  EXPECT_NE(cut.message().find("begun a call"), std::string::npos)
      << cut.message();
  EXPECT_FALSE(client_.Answered(behind));
  EXPECT_EQ(session_->calls(), calls) << "order: nothing passes the hole";
  const cuda::EventQueryArgs args{.event = 12345};
  std::memcpy(RingClient::Args(half), &args, sizeof(args));
  half->slot = 60;
  client_.ring().slot(60).state.store(wire::kSlotPending);
  client_.ring().Commit(half);
  EXPECT_EQ(client_.Await(60), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(client_.Await(behind), 0);
  EXPECT_TRUE(session_->Quiesce(Deadline::AfterMs(20000)).ok());
  session_->Resume();
  EXPECT_EQ(client_.Call(cuda::CtxSynchronizeArgs{.context = context.id}), 0);
}

// In a child: nothing of the parent's mappings is there.
[[noreturn]] void WriteForEver(const RingServer& ring, std::uint64_t stream,
                               std::uint64_t block) {
  RingClient client;
  if (!client
           .Map(ring.ring_fd(), ring.ring_map_bytes(), ring.staging_fd(),
                ring.geometry().staging_bytes)
           .ok()) {
    ::_exit(1);
  }
  const cuda::FillArgs args = Fill(stream, block, 64, 5);
  for (;;) {
    wire::FrameHeader* const frame =
        client.Begin(static_cast<std::uint16_t>(cuda::Op::kFill),
                     cuda::kWireBytes<cuda::FillArgs>, 0);
    if (frame == nullptr) ::_exit(2);
    std::memcpy(RingClient::Args(frame), &args, sizeof(args));
    client.Commit(frame);
  }
}

// A process of its own, killed at any point of its writing.
TEST_P(SessionEnd, ClientsKilledInTheMiddleHarmNobody) {
  SimSession sibling(GetParam(), 40);
  Life life(&sibling, 1);
  life.Begin();
  for (int round = 0; round < 12; ++round) {
    SimSession session(GetParam(), 1 + round % 30);
    SessionClient client(session.ring());
    const SessionClient::Context context = client.MakeContext();
    const std::uint64_t block = client.Alloc(context, 1 << 20);
    const std::uint64_t calls = session->calls();
    const pid_t child = ::fork();
    if (child == 0) WriteForEver(*session.ring(), context.stream, block);
    ASSERT_GT(child, 0);
    const Deadline deadline = Deadline::AfterMs(20000);
    Backoff backoff;
    const auto wanted = calls + static_cast<std::uint64_t>(round) * 37 + 1;
    while (session->calls() < wanted && !deadline.Passed()) backoff.Wait();
    EXPECT_GE(session->calls(), wanted);
    ::kill(child, SIGKILL);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
    session.session().Destroy();
    EXPECT_EQ(session.session().malformed(), 0)
        << "what was committed was whole";
    life.Work(static_cast<std::uint64_t>(round));
  }
}

INSTANTIATE_TEST_SUITE_P(StageThreads, SessionEnd, ::testing::Values(1, 2, 3),
                         ::testing::PrintToStringParamName());

// A save that looks at the session from a thread of its own, while it is
// brought to rest and goes on.
TEST(SessionLife, StillnessCanBeSharedWithACut) {
  SimSession session(/*stage_threads=*/2);
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> times{0};
  std::thread other([&] {
    while (!over.load()) session->WhileStill([&] { times.fetch_add(1); });
  });
  for (int i = 0; i < 300 && !HasFailure(); ++i) {
    EXPECT_TRUE(session->Quiesce(Deadline::AfterMs(20000)).ok());
    session->Resume();
    // Nobody else stops the pipeline now: it has to get its own turn.
    const std::uint64_t seen = times.load();
    const Deadline deadline = Deadline::AfterMs(10000);
    for (Backoff backoff; times.load() == seen && !deadline.Passed();) {
      backoff.Wait();
    }
    EXPECT_NE(times.load(), seen) << "it waits for a stillness that was ended";
  }
  over.store(true);
  if (HasFailure()) session->Quiesce(Deadline::AfterMs(20000)).IgnoreError();
  other.join();
}

}  // namespace
}  // namespace pos
