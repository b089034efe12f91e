// pos-runner as a process, between a posd and a client that are this test.
#include <cuda.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ckpt/format/pack_header.h"
#include "pos/base/clock.h"
#include "pos/runner/runner.pb.h"
#include "remoting/control/channel.h"
#include "remoting/wire/attach.h"
#include "tests/support/session_client.h"
#include "tests/support/test_session.h"

namespace pos {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::string_view kEndless = R"(
.version 8.0
.target sm_90
.address_size 64
.visible .entry endless() {
again:
  bra again;
}
)";

UniqueFd MemFile(std::uint64_t bytes) {
  UniqueFd file(::memfd_create("pos-test", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
  return file;
}

class RunnerTest : public ::testing::Test {
 protected:
  RunnerTest() : RunnerTest("") { Attach(); }
  // One that is warm, with a socket there.
  explicit RunnerTest(const std::string& socket_path) {
    UniqueFd ours;
    UniqueFd theirs;
    EXPECT_TRUE(ControlChannel::MakePair(&ours, &theirs).ok());
    pid_ = ::fork();
    if (pid_ == 0) {
      const int channel = ::dup(theirs.get());  // not close-on-exec
      ::execl(POS_RUNNER_PROGRAM, "pos-runner", "--channel",
              std::to_string(channel).c_str(), nullptr);
      ::_exit(127);
    }
    posd_ = std::make_unique<ControlChannel>(std::move(ours));
    Configure(socket_path);
  }
  ~RunnerTest() override {
    posd_.reset();
    client_socket_.Reset();
    if (!ended_) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }

  // --- posd's side ---

  std::uint64_t Ask(runner::ToRunner request, std::span<const int> fds = {}) {
    request.set_id(++last_id_);
    const Status status = posd_->Send(request.SerializeAsString(), fds);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return last_id_;
  }
  // Serves the runner, and the client's connection, until `done` says so of a
  // message, or `idle` of none; false when that took more than 20 s.
  bool Serve(
      const std::function<bool(const runner::FromRunner&)>& done,
      const std::function<bool()>& idle = [] { return false; }) {
    const Deadline deadline = Deadline::AfterMs(20000);
    while (!deadline.Passed()) {
      ServeClient();
      if (idle()) return true;
      Result<ControlChannel::Message> message = posd_->Receive(5);
      if (!message.ok()) {
        if (message.status().code() == Code::kTimeout) continue;
        return false;
      }
      runner::FromRunner from;
      EXPECT_TRUE(from.ParseFromString(message->bytes));
      if (from.has_memory_wanted()) Grant(from.memory_wanted());
      if (done(from)) return true;
    }
    return false;
  }
  runner::FromRunner AnswerTo(std::uint64_t id) {
    runner::FromRunner answer;
    EXPECT_TRUE(Serve([&](const runner::FromRunner& from) {
      answer = from;
      return from.id() == id;
    }));
    return answer;
  }
  bool AwaitEvent(runner::Event::What what) {
    return Serve([what](const runner::FromRunner& from) {
      return from.has_event() && from.event().what() == what;
    });
  }
  void Grant(const runner::MemoryWanted& wanted) {
    runner::ToRunner answer;
    answer.mutable_memory_answer()->set_device(wanted.device());
    answer.mutable_memory_answer()->set_granted_bytes(wanted.wanted_bytes());
    answer.mutable_memory_answer()->set_only_told(wanted.wanted_bytes() == 0);
    EXPECT_TRUE(posd_->Send(answer.SerializeAsString()).ok());
  }
  void Configure(const std::string& socket_path) {
    const SessionOptions options = TestOptions(1);
    runner::ToRunner request;
    runner::Configure* const configure = request.mutable_configure();
    configure->add_devices()->set_memory_bytes(512 * kMiB);
    configure->mutable_devices(0)->set_compute_threads(1);
    configure->set_socket_path(socket_path);
    configure->set_arena_base(options.layout.arena_base);
    configure->set_arena_bytes(options.layout.arena_bytes);
    configure->set_host_base(options.layout.host_base);
    configure->set_host_bytes(options.layout.host_bytes);
    configure->set_ring_bytes(options.ring.ring_bytes);
    configure->set_staging_bytes(options.ring.staging_bytes);
    configure->set_stage_threads(1);
    const runner::FromRunner answer = AnswerTo(Ask(request));
    ASSERT_EQ(answer.error_code(), "") << answer.error_message();
  }
  void Attach() {
    UniqueFd ours;
    UniqueFd theirs;
    ASSERT_TRUE(ControlChannel::MakePair(&ours, &theirs).ok());
    const UniqueFd host = MemFile(TestOptions(1).layout.host_bytes);
    runner::ToRunner request;
    request.mutable_attach()->set_session(1);
    request.mutable_attach()->set_uid(::getuid());
    request.mutable_attach()->set_gid(::getgid());
    request.mutable_attach()->set_pid(::getpid());
    const int fds[] = {theirs.get(), host.get()};
    const runner::FromRunner answer = AnswerTo(Ask(request, fds));
    ASSERT_EQ(answer.error_code(), "") << answer.error_message();
    theirs.Reset();
    client_socket_ = std::move(ours);  // from now on it is served
    Map();
    SayReady();
    ASSERT_TRUE(AwaitEvent(runner::Event::READY));
  }
  runner::ToRunner QuiesceRequest(std::uint64_t drain_ms) {
    runner::ToRunner request;
    request.mutable_quiesce()->set_epoch(++epoch_);
    request.mutable_quiesce()->set_drain_ms(drain_ms);
    return request;
  }
  // The runner has ended by itself.
  bool Ended() {
    const Deadline deadline = Deadline::AfterMs(5000);
    for (Backoff backoff; !deadline.Passed(); backoff.Wait()) {
      ended_ = ::waitpid(pid_, nullptr, WNOHANG) == pid_;
      if (ended_) return true;
    }
    return false;
  }

  // --- the client's side ---

  void Map() {
    wire::AttachReply reply;
    iovec part{&reply, sizeof(reply)};
    alignas(cmsghdr) std::array<char, 256> control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    ASSERT_EQ(::recvmsg(client_socket_.get(), &header, 0),
              static_cast<ssize_t>(sizeof(reply)));
    std::vector<UniqueFd> fds;
    TakeFds(&header, &fds);
    ASSERT_EQ(fds.size(), wire::kAttachFdCount);
    const Status mapped = client_.ring().Map(
        fds[wire::kAttachRingFd].get(), reply.ring_map_bytes,
        fds[wire::kAttachStagingFd].get(), reply.staging_bytes);
    ASSERT_TRUE(mapped.ok()) << mapped.ToString();
  }
  void Say(wire::SessionRecordType type, std::uint32_t epoch) {
    const wire::SessionRecord record{type, epoch, 0, 0};
    EXPECT_EQ(::send(client_socket_.get(), &record, sizeof(record), 0),
              static_cast<ssize_t>(sizeof(record)));
  }
  void SayReady() { Say(wire::SessionRecordType::kReady, 0); }
  // The runner has read all that the client has said.
  void AwaitRead() {
    const Deadline deadline = Deadline::AfterMs(20000);
    int unread = 1;
    for (Backoff backoff; unread != 0; backoff.Wait()) {
      ASSERT_FALSE(deadline.Passed());
      ASSERT_EQ(::ioctl(client_socket_.get(), SIOCOUTQ, &unread), 0);
    }
  }
  // Nothing is being sent whenever this runs.
  void ServeClient() {
    wire::SessionRecord record;
    while (client_socket_.valid() &&
           ::recv(client_socket_.get(), &record, sizeof(record),
                  MSG_DONTWAIT) == static_cast<ssize_t>(sizeof(record))) {
      if (record.type != wire::SessionRecordType::kGate) continue;
      Say(wire::SessionRecordType::kGated, record.epoch);
    }
  }
  // Of a call for which posd may be asked.
  std::int32_t Await(std::uint32_t slot) {
    EXPECT_TRUE(Serve([](const runner::FromRunner&) { return false; },
                      [&] { return client_.Answered(slot); }));
    return client_.Await(slot);
  }
  std::uint64_t LoadEndless() {
    EXPECT_EQ(client_.Call(cuda::BlobCreateArgs{.bytes = kEndless.size() + 1}),
              0);
    const auto blob = client_.Result<cuda::BlobCreateOut>().blob;
    EXPECT_EQ(client_.Call(
                  cuda::BlobPutArgs{
                      .blob = blob, .offset = 0, .bytes = kEndless.size()},
                  {.inline_data = std::as_bytes(std::span(kEndless))}),
              0);
    // A module takes memory: for its heap.
    EXPECT_EQ(Await(client_.Begin(
                  cuda::ModuleLoadArgs{.context = context_.id, .blob = blob})),
              0);
    const auto module = client_.Result<cuda::ModuleLoadOut>().module;
    const std::string_view name = "endless";
    const std::uint32_t lease = client_.AwaitLease(4096);
    EXPECT_EQ(client_.Call(cuda::ModuleFunctionArgs{.module = module},
                           {.inline_data = std::as_bytes(std::span(name)),
                            .lease = lease,
                            .bulk_bytes = 4096,
                            .flags = wire::kFrameBulkOut}),
              0);
    client_.leases().Release(&client_.ring(), lease);
    return client_.Result<cuda::ModuleFunctionOut>().function;
  }

  pid_t pid_ = -1;
  bool ended_ = false;
  std::unique_ptr<ControlChannel> posd_;
  std::uint64_t last_id_ = 0;
  std::uint32_t epoch_ = 0;
  UniqueFd client_socket_;
  SessionClient client_{SessionClient::Unmapped()};
  SessionClient::Context context_;
};

// A kernel that does not end holds the cut up; what the job asks for meanwhile
// it gets at once, not when the attempt is over, and not "out of memory".
TEST_F(RunnerTest, MemoryIsGrantedWhileTheDeviceComesToRest) {
  context_ = client_.MakeContext();
  const std::uint64_t endless = LoadEndless();
  client_.Post(cuda::LaunchArgs{.stream = context_.stream,
                                .function = endless,
                                .grid_x = 1,
                                .grid_y = 1,
                                .grid_z = 1,
                                .block_x = 1,
                                .block_y = 1,
                                .block_z = 1,
                                .shared_bytes = 0,
                                .cooperative = 0});
  // It has been handed to the device.
  EXPECT_EQ(client_.Call(cuda::StreamQueryArgs{.stream = context_.stream}),
            CUDA_ERROR_NOT_READY);
  const std::uint64_t quiesce = Ask(QuiesceRequest(4000));
  // A record that nobody waits for. posd comes first: once it has been read,
  // the attempt has begun.
  Say(wire::SessionRecordType::kGated, 0);
  AwaitRead();
  const std::uint32_t slot = client_.Begin(
      cuda::MemAllocArgs{.context = context_.id, .bytes = 200 * kMiB});
  bool answered = false;
  EXPECT_TRUE(Serve(
      [&](const runner::FromRunner& from) {
        if (from.id() != quiesce) return false;
        EXPECT_EQ(from.error_code(), "TIMEOUT") << from.error_message();
        return true;
      },
      [&] {
        answered = answered || client_.Answered(slot);
        return false;
      }));
  EXPECT_TRUE(answered) << "not before the attempt was over";
  EXPECT_EQ(client_.Await(slot), 0);
}

// What posd asks for during an attempt is answered after it, in order.
TEST_F(RunnerTest, OtherRequestsWaitForTheAttempt) {
  const std::uint64_t quiesce = Ask(QuiesceRequest(2000));
  runner::ToRunner adopt;
  adopt.mutable_adopt();
  const std::uint64_t first = Ask(adopt);
  const std::uint64_t second = Ask(adopt);
  std::vector<std::uint64_t> answered;
  EXPECT_TRUE(Serve([&](const runner::FromRunner& from) {
    if (from.id() != 0) answered.push_back(from.id());
    if (from.has_state()) {
      EXPECT_EQ(from.state().phase(), runner::State::QUIESCED);
    }
    return from.id() == second;
  }));
  EXPECT_EQ(answered, (std::vector<std::uint64_t>{quiesce, first, second}));
}

TEST_F(RunnerTest, AClientThatWasNotAwayCannotComeBack) {
  SayReady();
  EXPECT_TRUE(AwaitEvent(runner::Event::MALFORMED));
  EXPECT_TRUE(Ended());
}

// The save keeps the session; when posd goes, too, nobody is left.
TEST_F(RunnerTest, WithoutClientAndPosdASavedSessionEnds) {
  context_ = client_.MakeContext();
  const runner::FromRunner quiesced = AnswerTo(Ask(QuiesceRequest(2000)));
  ASSERT_EQ(quiesced.error_code(), "") << quiesced.error_message();
  ckpt::PackHeader header;
  header.store = ckpt::NewStoreId();
  header.pack = ckpt::NewPackId();
  header.digest_seed = 1;
  const std::vector<std::byte> bytes = ckpt::EncodePackHeader(header);
  const UniqueFd pack = MemFile(0);
  const UniqueFd index = MemFile(0);
  ASSERT_EQ(::pwrite(pack.get(), bytes.data(), bytes.size(), 0),
            static_cast<ssize_t>(bytes.size()));
  const auto text = [](const auto& id) {
    return std::string(reinterpret_cast<const char*>(id.bytes.data()),
                       id.bytes.size());
  };
  runner::ToRunner request;
  runner::Save* const save = request.mutable_save();
  save->set_store(text(header.store));
  save->set_pack(text(header.pack));
  save->set_session(1);
  save->set_digest_seed(1);
  save->set_chunk_bytes(2 << 20);
  save->set_mode(runner::Save::COW);
  const int fds[] = {pack.get(), index.get()};
  const runner::FromRunner saved = AnswerTo(Ask(request, fds));
  ASSERT_EQ(saved.error_code(), "") << saved.error_message();
  request.mutable_resume();
  EXPECT_EQ(AnswerTo(Ask(request)).error_code(), "");
  client_socket_.Reset();
  request.mutable_adopt();
  EXPECT_EQ(AnswerTo(Ask(request)).error_code(), "");
  EXPECT_EQ(::waitpid(pid_, nullptr, WNOHANG), 0) << "it may be finished yet";
  posd_.reset();
  EXPECT_TRUE(Ended());
}

class WarmRunnerTest : public RunnerTest {
 protected:
  WarmRunnerTest() : RunnerTest(Path()) {}
  static std::string Path() {
    return ::testing::TempDir() + "warm-runner-" + std::to_string(::getpid());
  }
};

// The next posd may have looked at the sockets before this one was made.
TEST_F(WarmRunnerTest, WithoutPosdItTakesItsSocketAway) {
  EXPECT_EQ(::access(Path().c_str(), F_OK), 0);
  posd_.reset();
  EXPECT_TRUE(Ended());
  EXPECT_NE(::access(Path().c_str(), F_OK), 0);
}

}  // namespace
}  // namespace pos
