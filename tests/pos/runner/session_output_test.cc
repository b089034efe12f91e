// What kernels print, from the simulated device to a client's requests: when it
// is announced, what is taken, what a cut keeps.
#include <cuda.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/client_kernels.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"

namespace pos {
namespace {

// say(base): "thread N\n" of every thread, N = base + its number in the grid.
// fail(): an assertion in thread 0.
constexpr std::string_view kKernels = R"(.version 8.0
.target sm_90
.address_size 64
.extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);
.extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c,
                           .param .b64 d, .param .b64 e);
.global .align 1 .b8 text[11] = {116, 104, 114, 101, 97, 100, 32, 37, 100, 10,
                                 0};
.global .align 1 .b8 word[4] = {98, 97, 100, 0};
.visible .entry say(.param .u32 base) {
  .local .align 8 .b8 depot[8];
  .reg .b64 %d<4>;
  .reg .b32 %r<6>;
  mov.u32 %r1, %ctaid.x;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, %tid.x;
  mad.lo.u32 %r4, %r1, %r2, %r3;
  ld.param.u32 %r5, [base];
  add.u32 %r4, %r4, %r5;
  mov.u64 %d1, depot;
  st.local.u32 [%d1], %r4;
  cvta.local.u64 %d1, %d1;
  mov.u64 %d2, text;
  cvta.global.u64 %d2, %d2;
  {
    .param .b64 f;
    st.param.b64 [f], %d2;
    .param .b64 a;
    st.param.b64 [a], %d1;
    .param .b32 r;
    call.uni (r), vprintf, (f, a);
  }
  ret;
}
.visible .entry fail() {
  .reg .b64 %d<4>;
  mov.u64 %d2, word;
  cvta.global.u64 %d2, %d2;
  {
    .param .b64 a;
    st.param.b64 [a], %d2;
    .param .b64 b;
    st.param.b64 [b], %d2;
    .param .b32 c;
    st.param.b32 [c], 7;
    .param .b64 d;
    st.param.b64 [d], %d2;
    .param .b64 e;
    st.param.b64 [e], 1;
    call.uni __assertfail, (a, b, c, d, e);
  }
  ret;
}
)";

struct Text {
  std::string out;
  std::string err;
};

class Client {
 public:
  explicit Client(SimSession* session) : client_(session->ring()) {}

  void Load() {
    context_ = client_.MakeContext();
    module_ = LoadModule(&client_, context_, kKernels);
    say_ = Function("say");
    fail_ = Function("fail");
  }
  // The same handles in a session that was loaded from the first one's state.
  void Continue(const Client& before) {
    context_ = before.context_;
    say_ = before.say_;
    fail_ = before.fail_;
  }

  void Say(std::uint32_t base, std::uint32_t blocks, std::uint32_t threads) {
    Launch(say_, blocks, threads, std::as_bytes(std::span(&base, 1)));
  }
  void Fail() { Launch(fail_, 1, 1, {}); }
  std::int32_t Sync() { return client_.Sync(context_.stream); }
  [[nodiscard]] bool waits() { return client_.ring().output_waits(); }

  // One request; what it gave is added to `text`. The bytes that are left.
  std::uint64_t Take(Text* text, std::uint64_t room = 65536) {
    const std::uint32_t lease = client_.AwaitLease(room);
    EXPECT_EQ(
        client_.Call(cuda::DeviceOutputArgs{}, {.inline_data = {},
                                                .lease = lease,
                                                .bulk_bytes = room,
                                                .flags = wire::kFrameBulkOut}),
        0);
    EXPECT_LE(client_.reply_bulk_bytes(), room);
    const std::byte* at = client_.ring().Staging(lease);
    const std::byte* const end = at + client_.reply_bulk_bytes();
    while (at != end) {
      cuda::OutputPiece piece;
      std::memcpy(&piece, at, sizeof(piece));
      at += sizeof(piece);
      (piece.kind == cuda::kStandardError ? text->err : text->out)
          .append(reinterpret_cast<const char*>(at), piece.bytes);
      at += piece.bytes;
    }
    client_.leases().Release(&client_.ring(), lease);
    return client_.Result<cuda::DeviceOutputOut>().left_bytes;
  }
  Text TakeAll(std::uint64_t room = 65536) {
    Text text;
    while (Take(&text, room) != 0) {
    }
    return text;
  }
  SessionClient& client() { return client_; }
  [[nodiscard]] const SessionClient::Context& context() const {
    return context_;
  }

 private:
  std::uint64_t Function(std::string_view name) {
    const std::uint32_t lease = client_.AwaitLease(4096);
    EXPECT_EQ(client_.Call(cuda::ModuleFunctionArgs{.module = module_},
                           {.inline_data = std::as_bytes(std::span(name)),
                            .lease = lease,
                            .bulk_bytes = 4096,
                            .flags = wire::kFrameBulkOut}),
              0);
    const auto out = client_.Result<cuda::ModuleFunctionOut>();
    cuda::FunctionAttribute last;
    std::memcpy(&last,
                client_.ring().Staging(lease) + client_.reply_bulk_bytes() -
                    sizeof(last),
                sizeof(last));
    EXPECT_EQ(last.attribute, cuda::kAttributePrints);
    client_.leases().Release(&client_.ring(), lease);
    return out.function;
  }
  void Launch(std::uint64_t function, std::uint32_t blocks,
              std::uint32_t threads, std::span<const std::byte> params) {
    PostLaunch(&client_, context_.stream, function, blocks, threads, params);
  }

  SessionClient client_;
  SessionClient::Context context_;
  std::uint64_t module_ = 0;
  std::uint64_t say_ = 0;
  std::uint64_t fail_ = 0;
};

std::multiset<std::string> Lines(const std::string& text) {
  std::multiset<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.insert(line);
  return lines;
}

std::multiset<std::string> Threads(std::uint32_t first, std::uint32_t count) {
  std::multiset<std::string> lines;
  for (std::uint32_t i = 0; i < count; ++i) {
    lines.insert("thread " + std::to_string(first + i));
  }
  return lines;
}

class SessionOutput : public ::testing::TestWithParam<int> {};

TEST_P(SessionOutput, IsAnnouncedBeforeTheAnswerThatWaitedForIt) {
  SimSession session(GetParam());
  Client client(&session);
  client.Load();
  EXPECT_FALSE(client.waits());
  for (std::uint32_t round = 0; round < 50; ++round) {
    client.Say(round, 1, 1);
    ASSERT_EQ(client.Sync(), 0);
    ASSERT_TRUE(client.waits()) << "round " << round;
    Text text;
    EXPECT_EQ(client.Take(&text), 0u);
    EXPECT_EQ(text.out, "thread " + std::to_string(round) + "\n");
    EXPECT_FALSE(client.waits());
  }
  Text text;
  EXPECT_EQ(client.Take(&text), 0u) << "a request without text is answered";
  EXPECT_EQ(text.out + text.err, "");
}

TEST_P(SessionOutput, EveryThreadOfManyBlocksOnceWhateverTheRoom) {
  SimSession session(GetParam());
  Client client(&session);
  client.Load();
  for (const std::uint64_t room : {9u, 100u, 4096u, 65536u}) {
    SCOPED_TRACE(room);
    const std::uint32_t blocks = room < 100 ? 2 : 100;
    client.Say(1000, blocks, 48);
    ASSERT_EQ(client.Sync(), 0);
    const Text text = client.TakeAll(room);
    EXPECT_EQ(Lines(text.out), Threads(1000, 48 * blocks));
    EXPECT_EQ(text.err, "");
  }
}

// Without room for anything: nothing is lost.
TEST_P(SessionOutput, RequestWithoutALeaseTakesNothing) {
  SimSession session(GetParam());
  Client client(&session);
  client.Load();
  client.Say(5, 1, 1);
  ASSERT_EQ(client.Sync(), 0);
  EXPECT_EQ(client.client().Call(cuda::DeviceOutputArgs{}), 0);
  EXPECT_EQ(client.client().Result<cuda::DeviceOutputOut>().left_bytes, 9u);
  EXPECT_TRUE(client.waits());
  EXPECT_EQ(client.TakeAll().out, "thread 5\n");
}

TEST_P(SessionOutput, BeyondTheFifoTheOldestIsLost) {
  SimSession session(GetParam());
  Client client(&session);
  client.Load();
  constexpr std::uint32_t kThreads = 60000;
  client.Say(100000, kThreads / 1000, 1000);  // 14 bytes each, and overhead
  client.Say(7, 1, 1);
  ASSERT_EQ(client.Sync(), 0);
  const std::string text = client.TakeAll().out;
  constexpr std::size_t kFit = (1 << 20) / (14 + OutputFifo::kPieceOverhead);
  EXPECT_EQ(Lines(text).size(), kFit);
  EXPECT_EQ(text.substr(text.size() - 9), "thread 7\n")
      << "the latest is there";
}

TEST_P(SessionOutput, FailedAssertionIsErrorTextAfterWhatWasPrinted) {
  SimSession session(GetParam());
  Client client(&session);
  client.Load();
  client.Say(1, 1, 1);
  client.Fail();
  EXPECT_EQ(client.Sync(), CUDA_ERROR_ASSERT);
  EXPECT_TRUE(client.waits());
  const Text text = client.TakeAll();
  EXPECT_EQ(text.out, "thread 1\n");
  EXPECT_EQ(text.err,
            "bad:7: bad: block: [0,0,0], thread: [0,0,0] Assertion `bad` "
            "failed.\n");
  // With its context gone, too.
  client.Load();
  client.Say(2, 1, 1);
  EXPECT_EQ(client.Sync(), 0);
  EXPECT_EQ(client.client().Call(
                cuda::CtxDestroyArgs{.context = client.context().id}),
            0);
  EXPECT_EQ(client.TakeAll().out, "thread 2\n");
}

// Half taken, then a cut: the rest comes from the session that was loaded, and
// only the rest.
TEST_P(SessionOutput, ACutKeepsWhatWasNotTaken) {
  std::vector<std::byte> state;
  std::string before;
  auto session = std::make_unique<SimSession>(GetParam());
  Client first(session.get());
  first.Load();
  first.Say(1000, 10, 100);
  ASSERT_EQ(first.Sync(), 0);
  Text text;
  EXPECT_GT(first.Take(&text, 5000), 0u);
  before = text.out;
  ASSERT_TRUE((*session)->Quiesce(Deadline::AfterMs(20000)).ok());
  ByteWriter writer;
  (*session)->Save(&writer);
  state = writer.Take();
  session.reset();

  session = std::make_unique<SimSession>(GetParam());
  ASSERT_TRUE((*session)->Quiesce(Deadline::AfterMs(20000)).ok());
  const Status loaded = (*session)->Load(state);
  ASSERT_TRUE(loaded.ok()) << loaded.ToString();
  (*session)->Resume();
  Client second(session.get());
  second.Continue(first);
  EXPECT_TRUE(second.waits()) << "told before the client asks anything";
  EXPECT_EQ(Lines(before + second.TakeAll().out), Threads(1000, 1000));
  EXPECT_FALSE(second.waits());
}

INSTANTIATE_TEST_SUITE_P(StageThreads, SessionOutput, ::testing::Values(1, 3));

}  // namespace
}  // namespace pos
