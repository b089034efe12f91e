// With a stand-in for pos-runner (fake_runner.cc).
#include "pos/daemon/runner_pool.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/process.h"
#include "tests/pos/daemon/testing.h"

namespace pos {
namespace {

constexpr std::uint64_t kBoundMs = 20'000;

class RunnerPoolTest : public testing::Test {
 protected:
  RunnerPoolTest() {
    ::setenv("POS_FAKE_RUNNER", directory_.File("mode").c_str(), 1);
    Runners("sound");
    auto loop = EventLoop::Create();
    EXPECT_TRUE(loop.ok());
    loop_ = std::move(*loop);
    std::vector<NodeDevice> devices(2);
    for (int i = 0; i < 2; ++i) {
      devices[static_cast<std::size_t>(i)].ordinal = i;
      devices[static_cast<std::size_t>(i)].kind = "cuda";
      devices[static_cast<std::size_t>(i)].memory_bytes = 1u << 30;
    }
    devices_.Publish(devices);
    options_.program = POS_FAKE_RUNNER_FILE;
    options_.directory = directory_.path();
    options_.log_level = "error";
    options_.configure_ms = kBoundMs;
    options_.try_again_ms = 20;
  }
  ~RunnerPoolTest() override {
    if (pool_ != nullptr) pool_->Close();
    loop_->Stop();
    for (const pid_t pid : Processes()) ::kill(pid, SIGKILL);
    ::unsetenv("POS_FAKE_RUNNER");
  }

  void Start() {
    loop_->Start();
    pool_ = std::make_unique<RunnerPool>(loop_.get(), &devices_, options_);
  }
  // What runners that are started from now on do.
  void Runners(const std::string& mode) {
    EXPECT_TRUE(ReplaceFile(directory_.File("mode"), mode).ok());
  }
  // The pool's, alive.
  static std::vector<pid_t> Processes() {
    std::vector<pid_t> alive;
    const auto children = ChildrenOf(::getpid());
    if (!children.ok()) return alive;
    for (const pid_t pid : *children) {
      const Result<char> state = ProcessState(pid);
      if (state.ok() && *state != 'Z' && *state != 'X') alive.push_back(pid);
    }
    return alive;
  }
  static bool Await(const std::function<bool()>& condition) {
    const Deadline until = Deadline::AfterMs(kBoundMs);
    while (!condition()) {
      if (until.Passed()) return false;
      SleepNs(1'000'000);
    }
    return true;
  }
  std::string StateOf(int device) {
    return devices_.snapshot()->devices[static_cast<std::size_t>(device)].state;
  }

  TempDir directory_;
  std::unique_ptr<EventLoop> loop_;
  DeviceTable devices_;
  RunnerPoolOptions options_;
  std::unique_ptr<RunnerPool> pool_;
};

TEST_F(RunnerPoolTest, RunnerThatHangsIsKilledAndItsDeviceNamed) {
  Runners("hangs");
  options_.configure_ms = 500;
  options_.try_again_ms = 3'600'000;
  Start();
  EXPECT_EQ(pool_->Take({1, 0}).status().code(), Code::kTimeout);
  EXPECT_TRUE(Await([] { return Processes().empty(); }));
  EXPECT_EQ(StateOf(0), "ready");
  EXPECT_EQ(StateOf(1), "failed");
}

TEST_F(RunnerPoolTest, OnlyTheDeviceThatTheRunnerNamesFails) {
  Runners("names 1");
  options_.warm = 0;
  Start();
  EXPECT_EQ(pool_->Take({0, 1}).status().code(), Code::kDeviceGone);
  EXPECT_EQ(StateOf(0), "ready");
  EXPECT_EQ(StateOf(1), "failed");
  Runners("sound");
  EXPECT_TRUE(Await([this] { return StateOf(1) == "ready"; }));
}

TEST_F(RunnerPoolTest, RunnerThatWasKilledSaysNothingOfItsDevices) {
  Runners("dies");
  options_.warm = 0;
  Start();
  EXPECT_EQ(pool_->Take({0, 1}).status().code(), Code::kClosed);
  EXPECT_EQ(StateOf(0), "ready");
  EXPECT_EQ(StateOf(1), "ready");
}

TEST_F(RunnerPoolTest, WarmRunnerThatEndsIsReplaced) {
  Start();
  pool_->KeepWarm();
  ASSERT_TRUE(Await([] { return Processes().size() == 1; }));
  // Once it has answered; before, its start would have failed.
  ASSERT_TRUE(
      Await([this] { return PathExists(directory_.File("mode.warm")); }));
  const std::vector<pid_t> first = Processes();
  ASSERT_EQ(first.size(), 1u);
  ::kill(first[0], SIGKILL);
  EXPECT_TRUE(Await([&] {
    const std::vector<pid_t> now = Processes();
    return now.size() == 1 && now != first;
  }));
}

TEST_F(RunnerPoolTest, WarmRunnerIsThereOnceADeviceWorksAgain) {
  Runners("names 0");
  devices_.SetWorks(1, "it is broken");
  Start();
  pool_->KeepWarm();
  ASSERT_TRUE(Await([this] { return StateOf(0) == "failed"; }));
  Runners("sound");
  ASSERT_TRUE(Await([this] { return StateOf(0) == "ready"; }));
  // The one that found it so ends.
  EXPECT_TRUE(Await([] { return Processes().size() == 1; }));
  const std::vector<pid_t> warm = Processes();
  EXPECT_TRUE(pool_->Take({0}).ok());
}

TEST_F(RunnerPoolTest, TakingOneThatIsNotWarmFillsUp) {
  Runners("dies");
  Start();
  pool_->KeepWarm();
  ASSERT_TRUE(Await([] { return Processes().empty(); }));
  Runners("sound");
  const auto taken = pool_->Take({1});
  ASSERT_TRUE(taken.ok()) << taken.status().ToString();
  EXPECT_TRUE(Await([] { return Processes().size() == 2; }));
  pool_->End(*taken);
}

// The test is the runner.
class LeftBehind : public RunnerPoolTest {
 protected:
  UniqueFd Listen(const std::string& name) {
    auto listener =
        ControlChannel::Listen(directory_.File(name + ".sock"), 0600);
    EXPECT_TRUE(listener.ok());
    return std::move(*listener);
  }
  static std::unique_ptr<ControlChannel> Accept(const UniqueFd& listener) {
    auto socket =
        ControlChannel::Accept(listener.get(), static_cast<int>(kBoundMs));
    EXPECT_TRUE(socket.ok());
    return std::make_unique<ControlChannel>(std::move(*socket));
  }
  static void AnswerAdopt(ControlChannel* channel, std::uint64_t session,
                          std::uint64_t granted) {
    const auto message = channel->Receive(static_cast<int>(kBoundMs));
    ASSERT_TRUE(message.ok());
    runner::ToRunner request;
    ASSERT_TRUE(request.ParseFromString(message->bytes));
    ASSERT_TRUE(request.has_adopt());
    runner::FromRunner reply;
    reply.set_id(request.id());
    reply.mutable_state()->set_session(session);
    reply.mutable_state()->add_granted_bytes(granted);
    ASSERT_TRUE(channel->Send(reply.SerializeAsString()).ok());
  }
};

TEST_F(LeftBehind, RunnerThatIsBusyIsKeptAndAnswersLate) {
  const UniqueFd prompt = Listen("prompt");
  const UniqueFd busy = Listen("busy");
  Start();
  std::future<std::unique_ptr<ControlChannel>> answered =
      std::async(std::launch::async, [&] {
        auto channel = Accept(prompt);
        AnswerAdopt(channel.get(), 1, 1000);
        return channel;
      });
  const std::vector<RunnerPool::Found> found =
      pool_->FindLeftBehind({{"prompt", {0}}, {"busy", {1}}});
  const auto prompt_channel = answered.get();
  ASSERT_EQ(found.size(), 2u);
  for (const RunnerPool::Found& f : found) {
    EXPECT_EQ(f.state.has_value(), f.runner->name() == "prompt");
    EXPECT_FALSE(f.runner->gone());
  }
  EXPECT_EQ(devices_.FreeBytes(0), (1u << 30) - 1000);
  std::promise<std::pair<std::string, std::uint64_t>> late;
  pool_->DeliverLate(
      [&](const std::shared_ptr<Runner>& runner, const runner::State& state) {
        late.set_value({runner->name(), state.session()});
      });
  const auto channel = Accept(busy);
  // It wants memory before it has said what it has.
  runner::FromRunner wanted;
  wanted.mutable_memory_wanted()->set_device(0);
  wanted.mutable_memory_wanted()->set_wanted_bytes(1u << 20);
  ASSERT_TRUE(channel->Send(wanted.SerializeAsString()).ok());
  AnswerAdopt(channel.get(), 2, 5000);
  auto told = late.get_future();
  ASSERT_EQ(told.wait_for(std::chrono::milliseconds(kBoundMs)),
            std::future_status::ready);
  EXPECT_EQ(told.get(), (std::pair<std::string, std::uint64_t>("busy", 2)));
  const auto message = channel->Receive(static_cast<int>(kBoundMs));
  ASSERT_TRUE(message.ok());
  runner::ToRunner granted;
  ASSERT_TRUE(granted.ParseFromString(message->bytes));
  EXPECT_GE(granted.memory_answer().granted_bytes(), 1u << 20);
  EXPECT_EQ(devices_.FreeBytes(1),
            (1u << 30) - 5000 - granted.memory_answer().granted_bytes());
}

TEST_F(LeftBehind, AnswerBetweenFindingAndDeliveringIsNotLost) {
  const UniqueFd busy = Listen("busy");
  Start();
  const auto found = pool_->FindLeftBehind({});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_FALSE(found[0].state.has_value());
  const auto channel = Accept(busy);
  AnswerAdopt(channel.get(), 9, 0);
  runner::ToRunner ping;
  ping.mutable_ping();
  // The loop has seen the answer once it has seen the one after it.
  std::thread answers([&] {
    const auto message = channel->Receive(static_cast<int>(kBoundMs));
    ASSERT_TRUE(message.ok());
    runner::ToRunner request;
    ASSERT_TRUE(request.ParseFromString(message->bytes));
    runner::FromRunner reply;
    reply.set_id(request.id());
    channel->Send(reply.SerializeAsString()).IgnoreError();
  });
  EXPECT_TRUE(found[0].runner->Call(ping, {}, kBoundMs).ok());
  answers.join();
  std::uint64_t session = 0;
  pool_->DeliverLate(
      [&](const std::shared_ptr<Runner>&, const runner::State& state) {
        session = state.session();
      });
  EXPECT_EQ(session, 9u);
}

TEST_F(LeftBehind, RunnerThatEndsWithoutAnAnswerIsGone) {
  UniqueFd busy = Listen("busy");
  Start();
  std::promise<std::string> gone;
  pool_->SetHandlers(nullptr, [&](const std::shared_ptr<Runner>& runner) {
    gone.set_value(runner->name());
  });
  const auto found = pool_->FindLeftBehind({});
  ASSERT_EQ(found.size(), 1u);
  busy.Reset();
  auto told = gone.get_future();
  ASSERT_EQ(told.wait_for(std::chrono::milliseconds(kBoundMs)),
            std::future_status::ready);
  EXPECT_EQ(told.get(), "busy");
}

}  // namespace
}  // namespace pos
