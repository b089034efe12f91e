#include "pos/daemon/service.h"

#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "pos/daemon/api_text.h"
#include "tests/pos/daemon/service_fixture.h"

namespace pos {
namespace {

using cli::Cancellation;
using cli::PosClient;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using ServiceTest = ServiceFixture;

TEST_F(ServiceTest, TellsTheApiWhoCalls) {
  Caller seen;
  api_.ps = [&](const Caller& caller, const v1::PsRequest&) {
    seen = caller;
    return v1::PsReply();
  };
  Start();
  ASSERT_TRUE(Connect()->Ps({}).ok());
  EXPECT_EQ(seen.uid, ::geteuid());
  EXPECT_EQ(seen.gid, ::getegid());
  EXPECT_EQ(seen.pid, ::getpid());
  std::vector<gid_t> groups(static_cast<std::size_t>(::getgroups(0, nullptr)));
  ASSERT_GE(::getgroups(static_cast<int>(groups.size()), groups.data()), 0);
  EXPECT_EQ(seen.groups, groups);
}

TEST_F(ServiceTest, CarriesEveryCode) {
  api_.signal = [](const Caller&, const v1::SignalRequest& request) {
    return Status(static_cast<Code>(request.signal()),
                  "message of " + request.job(), "a hint");
  };
  Start();
  const auto client = Connect();
  for (int code = 1; code <= static_cast<int>(Code::kInternal); ++code) {
    v1::SignalRequest request;
    request.set_job("j");
    request.set_signal(code);
    const Status status = client->Signal(request);
    EXPECT_EQ(status.code(), static_cast<Code>(code));
    EXPECT_EQ(status.message(), "message of j");
    EXPECT_EQ(status.hint(), "a hint");
  }
}

TEST_F(ServiceTest, AnErrorOfAnySizeAndAnyBytesArrives) {
  api_.signal = [](const Caller&, const v1::SignalRequest& request) {
    const auto size = static_cast<std::size_t>(request.signal());
    std::string message;
    while (message.size() < size) message += "\xff\xc3 CRIU said \xe2\x82\xac ";
    return Status(Code::kCriu, message, std::string(size, '%'));
  };
  Start();
  const auto client = Connect();
  for (const int size : {1, 2999, 3000, 3001, 100'000}) {
    v1::SignalRequest request;
    request.set_signal(size);
    const Status status = client->Signal(request);
    EXPECT_EQ(status.code(), Code::kCriu) << status.message();
    EXPECT_THAT(status.message(), HasSubstr("CRIU said €"));
    EXPECT_TRUE(IsUtf8(status.message()));
    EXPECT_LE(status.message().size(), kMaxErrorMessageBytes);
    EXPECT_LE(status.hint().size(), kMaxErrorHintBytes);
  }
}

TEST_F(ServiceTest, AReplyWithOddBytesArrives) {
  api_.ps = [](const Caller&, const v1::PsRequest&) {
    v1::PsReply reply;
    reply.add_jobs()->set_command("python \xff.py");
    reply.add_jobs()->set_command("fine €");
    return reply;
  };
  Start();
  const Result<v1::PsReply> reply = Connect()->Ps({});
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_EQ(reply->jobs(0).command(), "python \xef\xbf\xbd.py");
  EXPECT_EQ(reply->jobs(1).command(), "fine €");
}

TEST_F(ServiceTest, ARequestOfTheSizeOfAnEnvironmentArrives) {
  v1::RunRequest seen;
  api_.run = [&](const Caller&, const v1::RunRequest& request, StdioFds) {
    seen = request;
    return v1::RunReply();
  };
  Start();
  v1::RunRequest request;
  request.add_argv("\xff\x01");
  for (int i = 0; i < 60; ++i) {
    request.add_environment("V=" + std::string(100'000, '\xfe'));
  }
  ASSERT_TRUE(Connect()->Run(request, nullptr).ok());
  EXPECT_EQ(seen.SerializeAsString(), request.SerializeAsString());
}

TEST_F(ServiceTest, CancellingAWaitReachesTheApi) {
  std::atomic<bool> inside{false};
  std::atomic<bool> was_cancelled{false};
  api_.wait =
      [&](const Caller&, const v1::WaitRequest&,
          const FakeApi::Cancelled& cancelled) -> Result<v1::WaitReply> {
    inside.store(true);
    was_cancelled.store(Eventually(cancelled));
    return Aborted("cancelled");
  };
  Start();
  const auto client = Connect();
  Cancellation cancel;
  Status status;
  std::thread caller([&] { status = client->Wait({}, &cancel).status(); });
  ASSERT_TRUE(Eventually([&] { return inside.load(); }));
  cancel.Cancel();
  caller.join();
  EXPECT_EQ(status.code(), Code::kAborted);
  EXPECT_TRUE(Eventually([&] { return was_cancelled.load(); }));
}

TEST_F(ServiceTest, ACancellationThatComesFirstCounts) {
  api_.wait =
      [&](const Caller&, const v1::WaitRequest&,
          const FakeApi::Cancelled& cancelled) -> Result<v1::WaitReply> {
    Eventually(cancelled);
    return Aborted("cancelled");
  };
  Start();
  Cancellation cancel;
  cancel.Cancel();
  EXPECT_EQ(Connect()->Wait({}, &cancel).status().code(), Code::kAborted);
}

TEST_F(ServiceTest, StreamsProgressThenTheResult) {
  std::atomic<int> received{0};
  api_.checkpoint =
      [&](const Caller&, const v1::CheckpointRequest& request,
          const ProgressFunction& progress) -> Result<v1::CheckpointResult> {
    for (int i = 1; i <= 3; ++i) {
      v1::Progress step;
      step.set_phase("copy");
      step.set_done_bytes(static_cast<std::uint64_t>(i));
      EXPECT_TRUE(progress(step));
      // The client gets each of them before the next is made.
      EXPECT_TRUE(Eventually([&] { return received.load() == i; }));
    }
    v1::CheckpointResult result;
    result.set_image("i-1");
    result.set_job(request.job());
    return result;
  };
  Start();
  v1::CheckpointRequest request;
  request.set_job("train");
  std::vector<std::uint64_t> done;
  const auto result = Connect()->Checkpoint(
      request,
      [&](const v1::Progress& progress) {
        done.push_back(progress.done_bytes());
        received.fetch_add(1);
      },
      nullptr);
  ASSERT_TRUE(result.ok()) << result.status().ToString();
  EXPECT_EQ(result->image(), "i-1");
  EXPECT_EQ(result->job(), "train");
  EXPECT_THAT(done, ElementsAre(1, 2, 3));
}

TEST_F(ServiceTest, AClientThatDoesNotReadHoldsNothingUp) {
  std::atomic<bool> blocked{false};
  std::atomic<bool> done{false};
  api_.verify_image =
      [&](const Caller&, const std::string&,
          const ProgressFunction& progress) -> Result<v1::VerifyResult> {
    v1::Progress step;
    step.set_phase(std::string(100'000, 'x'));  // more than a window
    for (int i = 0; i < 2000; ++i) progress(step);
    EXPECT_TRUE(Eventually([&] { return blocked.load(); }));
    for (int i = 0; i < 2000; ++i) progress(step);
    done.store(true);
    return v1::VerifyResult();
  };
  Start();
  const auto result = Connect()->VerifyImage(
      {},
      [&](const v1::Progress&) {
        blocked.store(true);
        EXPECT_TRUE(Eventually([&] { return done.load(); }));
      },
      nullptr);
  EXPECT_TRUE(result.ok()) << result.status().ToString();
}

TEST_F(ServiceTest, CancellingACheckpointReachesTheApi) {
  std::atomic<bool> was_told{false};
  api_.checkpoint =
      [&](const Caller&, const v1::CheckpointRequest&,
          const ProgressFunction& progress) -> Result<v1::CheckpointResult> {
    was_told.store(Eventually([&] { return !progress(v1::Progress()); }));
    return Aborted("cancelled");
  };
  Start();
  Cancellation cancel;
  const auto result = Connect()->Checkpoint(
      {}, [&](const v1::Progress&) { cancel.Cancel(); }, &cancel);
  EXPECT_EQ(result.status().code(), Code::kAborted);
  EXPECT_TRUE(Eventually([&] { return was_told.load(); }));
}

TEST_F(ServiceTest, LogsOfAnySizeComeWholeAndCanBeCutShort) {
  std::string log;
  for (int i = 0; log.size() < 5'000'000; ++i) log += std::to_string(i) + "\n";
  std::atomic<bool> write_failed{false};
  api_.logs = [&](const Caller&, const v1::LogsRequest& request,
                  const FakeApi::Write& write,
                  const FakeApi::Cancelled&) -> Status {
    do {
      if (!write(log)) {
        write_failed.store(true);
        return Aborted("nobody reads");
      }
    } while (request.follow());
    return {};
  };
  Start();
  const auto client = Connect();
  std::string got;
  ASSERT_TRUE(client
                  ->Logs(
                      {},
                      [&](std::string_view data) {
                        got += data;
                        return true;
                      },
                      nullptr)
                  .ok());
  EXPECT_TRUE(got == log);
  v1::LogsRequest follow;
  follow.set_follow(true);
  ASSERT_TRUE(client
                  ->Logs(
                      follow, [](std::string_view) { return false; }, nullptr)
                  .ok());
  EXPECT_TRUE(Eventually([&] { return write_failed.load(); }));
}

TEST_F(ServiceTest, BoundsTheCallsOfAUser) {
  std::atomic<bool> release{false};
  std::atomic<int> inside{0};
  api_.wait = [&](const Caller&, const v1::WaitRequest&,
                  const FakeApi::Cancelled&) -> Result<v1::WaitReply> {
    inside.fetch_add(1);
    Eventually([&] { return release.load(); });
    return v1::WaitReply();
  };
  api_.ps = [](const Caller&, const v1::PsRequest&) { return v1::PsReply(); };
  ControlService::Options options;
  options.calls_per_uid = 4;
  Start(options);
  const auto client = Connect();
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] { EXPECT_TRUE(client->Wait({}, nullptr).ok()); });
  }
  ASSERT_TRUE(Eventually([&] { return inside.load() == 4; }));
  const Status status = client->Ps({}).status();
  EXPECT_EQ(status.code(), Code::kBusy);
  EXPECT_FALSE(status.hint().empty());
  release.store(true);
  for (std::thread& caller : callers) caller.join();
  EXPECT_TRUE(client->Ps({}).ok());
}

TEST_F(ServiceTest, StopEndsCallsWithAnAnswer) {
  std::atomic<bool> inside{false};
  api_.wait =
      [&](const Caller&, const v1::WaitRequest&,
          const FakeApi::Cancelled& cancelled) -> Result<v1::WaitReply> {
    inside.store(true);
    Eventually(cancelled);
    return Aborted("cancelled");
  };
  Start();
  const auto client = Connect();
  Status status;
  std::thread caller([&] { status = client->Wait({}, nullptr).status(); });
  ASSERT_TRUE(Eventually([&] { return inside.load(); }));
  EXPECT_TRUE(service_->Stop().ok());
  caller.join();
  EXPECT_EQ(status.code(), Code::kClosed);
  EXPECT_EQ(status.message(), "posd is ending");
  EXPECT_TRUE(service_->Stop().ok());
  EXPECT_EQ(PosClient::Connect(path_).status().code(), Code::kNoSuch);
  EXPECT_TRUE(ListDirectory(dir_.path())->empty());
}

TEST_F(ServiceTest, StopHasABoundWhateverTheApiDoes) {
  std::atomic<bool> inside{false};
  std::atomic<bool> release{false};
  std::atomic<bool> returned{false};
  api_.wait = [&](const Caller&, const v1::WaitRequest&,
                  const FakeApi::Cancelled&) -> Result<v1::WaitReply> {
    inside.store(true);
    Eventually([&] { return release.load(); }, 60'000);
    returned.store(true);
    return v1::WaitReply();
  };
  ControlService::Options options;
  options.drain_ms = 100;
  options.stop_ms = 300;
  Start(options);
  const auto client = Connect();
  Status status;
  std::thread caller([&] { status = client->Wait({}, nullptr).status(); });
  ASSERT_TRUE(Eventually([&] { return inside.load(); }));
  EXPECT_EQ(service_->Stop().code(), Code::kTimeout);
  caller.join();  // the client was cut off
  EXPECT_FALSE(status.ok());
  service_.reset();
  release.store(true);
  EXPECT_TRUE(Eventually([&] { return returned.load(); }));
}

TEST_F(ServiceTest, RestartsAtOnceOnTheSamePath) {
  for (int i = 0; i < 5; ++i) {
    Start();
    ASSERT_NE(Connect(), nullptr);
    service_.reset();
  }
}

TEST_F(ServiceTest, ASecondServiceIsRefused) {
  Start();
  ControlService::Options options;
  options.socket_path = path_;
  EXPECT_EQ(ControlService::Start(&api_, options).status().code(),
            Code::kExists);
  EXPECT_NE(Connect(), nullptr);
}

}  // namespace
}  // namespace pos
