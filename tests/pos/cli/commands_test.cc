// Commands against a service: exit statuses, errors, what reaches the API.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <array>
#include <atomic>

#include "pos/base/files.h"
#include "tests/pos/cli/cli_fixture.h"

namespace pos {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

using CommandsTest = CliFixture;

TEST_F(CommandsTest, WithoutPosdTheSocketAndTheRemedyAreNamed) {
  const Outcome human = Cli({"ps"});
  EXPECT_EQ(human.status, 1);
  EXPECT_EQ(human.out, "");
  EXPECT_EQ(human.err, "pos-cli: no posd at " + path_ +
                           "\nhint: start one with `posd --socket " + path_ +
                           "`, or name another with --socket or POS_SOCKET\n");
  const Outcome json = Cli({"ps", "--json"});
  EXPECT_EQ(json.status, 1);
  EXPECT_EQ(json.err, "");
  EXPECT_THAT(json.out, StartsWith(R"({"error":{"code":"NO_SUCH",)"));
  EXPECT_EQ(json.out.back(), '\n');
  EXPECT_EQ(Cli({"run", "--", "true"}).status, 125);
  EXPECT_EQ(Cli({"run", "-d", "--", "true"}).status, 125);
  EXPECT_EQ(Cli({"wait", "a"}).status, 125);
}

TEST_F(CommandsTest, ACommandLineThatMakesNoSenseIsStatus2) {
  Outcome outcome = Cli({"sotp"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_THAT(outcome.err, StartsWith("pos-cli: 'sotp' is no command"));
  outcome = Cli({"sotp", "--json"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.err, "");
  EXPECT_THAT(outcome.out, StartsWith(R"({"error":{"code":"INVALID",)"));
}

TEST_F(CommandsTest, HelpAndVersionNeedNoPosd) {
  EXPECT_EQ(Cli({"--version"}).status, 0);
  const Outcome help = Cli({"run", "--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_THAT(help.out, HasSubstr("pos-cli run [OPTIONS] -- CMD..."));
  EXPECT_EQ(help.err, "");
}

TEST_F(CommandsTest, TheSocketMayComeFromTheEnvironment) {
  api_.devices = [](const Caller&) { return v1::DevicesReply(); };
  Start();
  CliProcess process({.arguments = {"devices", "--json"},
                      .environment = {"POS_SOCKET=" + path_}});
  EXPECT_EQ(process.Finish(), 0);
  EXPECT_EQ(process.out, "{\"devices\":[]}\n");
}

TEST_F(CommandsTest, ShortCommandsAskAndPrint) {
  api_.ps = [](const Caller&, const v1::PsRequest&) { return v1::PsReply(); };
  api_.devices = [](const Caller&) { return v1::DevicesReply(); };
  api_.list_images = [](const Caller&) { return v1::ListImagesReply(); };
  api_.show_image = [](const Caller&, const std::string&) {
    v1::ShowImageReply reply;
    reply.set_json("{\n\"image\": \"i\"}");
    return reply;
  };
  api_.remove_image = [](const Caller&, const std::string&) {
    return Status();
  };
  Start();
  EXPECT_EQ(Cli({"ps", "--json"}).out, "{\"jobs\":[]}\n");
  EXPECT_THAT(Cli({"ps"}).out, StartsWith("JOB"));
  EXPECT_THAT(Cli({"devices"}).out, StartsWith("DEVICE"));
  EXPECT_EQ(Cli({"images", "ls", "--json"}).out, "{\"images\":[]}\n");
  EXPECT_EQ(Cli({"images", "show", "i", "--json"}).out, "{\"image\":\"i\"}\n");
  EXPECT_EQ(Cli({"images", "show", "i"}).out, "image  i\n");
  EXPECT_EQ(Cli({"images", "rm", "i", "--json"}).out, "{\"image\":\"i\"}\n");
  EXPECT_THAT(api_.calls(),
              ElementsAre("Ps all", "Ps all", "Devices", "ListImages",
                          "ShowImage i", "ShowImage i", "RemoveImage i"));
}

TEST_F(CommandsTest, PosdsErrorsComeThrough) {
  api_.remove_image = [](const Caller&, const std::string& image) {
    return Busy("image '" + image + "' is in use", "wait for the restore");
  };
  Start();
  const Outcome human = Cli({"images", "rm", "i"});
  EXPECT_EQ(human.status, 1);
  EXPECT_EQ(human.err,
            "pos-cli: image 'i' is in use\nhint: wait for the restore\n");
  const Outcome json = Cli({"images", "rm", "i", "--json"});
  EXPECT_EQ(json.status, 1);
  EXPECT_EQ(json.out,
            R"({"error":{"code":"BUSY","message":"image 'i' is in use",)"
            R"("hint":"wait for the restore"}})"
            "\n");
}

TEST_F(CommandsTest, LogsCopyBytesAsTheyAre) {
  const std::string log =
      std::string("a\0b\xff\x1b[1m\n", 9) + std::string(300'000, 'x');
  api_.logs = [&](const Caller&, const v1::LogsRequest&,
                  const FakeApi::Write& write, const FakeApi::Cancelled&) {
    write(log);
    return Status();
  };
  Start();
  const Outcome outcome = Cli({"logs", "j"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_TRUE(outcome.out == log);
  EXPECT_EQ(Cli({"logs", "-f", "j"}).status, 0);
  EXPECT_THAT(Cli({"logs", "j", "--json"}).out,
              StartsWith(R"({"job":"j","output":"a\u0000b)"));
  EXPECT_THAT(api_.calls(), ElementsAre("Logs j", "Logs j follow", "Logs j"));
}

TEST_F(CommandsTest, FollowingEndsQuietlyWithASignal) {
  std::atomic<bool> cancelled{false};
  api_.logs = [&](const Caller&, const v1::LogsRequest&,
                  const FakeApi::Write& write,
                  const FakeApi::Cancelled& stop) -> Status {
    write("line\n");
    cancelled.store(Eventually(stop));
    return Aborted("no longer following");
  };
  Start();
  CliProcess process({.arguments = Arguments({"logs", "-f", "j"})});
  ASSERT_TRUE(Eventually([&] { return api_.calls().size() == 1; }));
  process.Signal(SIGINT);
  EXPECT_EQ(process.Finish(), 130);
  EXPECT_EQ(process.err, "");
  EXPECT_TRUE(Eventually([&] { return cancelled.load(); }));
}

TEST_F(CommandsTest, WaitEndsWithTheJobsStatus) {
  v1::WaitReply reply;
  api_.wait = [&](const Caller&, const v1::WaitRequest&,
                  const FakeApi::Cancelled&) { return reply; };
  Start();
  for (const int code : {0, 1, 125, 143, 255}) {
    reply.set_state(v1::EXITED);
    reply.set_exit_code(code);
    const Outcome outcome = Cli({"wait", "j"});
    EXPECT_EQ(outcome.status, code);
    EXPECT_EQ(outcome.out + outcome.err, "");
  }
  EXPECT_EQ(Cli({"wait", "j", "--json"}).out,
            R"({"job":"j","state":"exited","exit_code":255,"message":null})"
            "\n");
  reply.set_state(v1::FAILED);
  reply.set_exit_code(0);
  reply.set_message("pos-job is gone");
  const Outcome failed = Cli({"wait", "j"});
  EXPECT_EQ(failed.status, 125);
  EXPECT_EQ(failed.err, "pos-cli: job j failed: pos-job is gone\n");
}

TEST_F(CommandsTest, StopTellsWhatItTook) {
  api_.stop = [](const Caller&, const v1::StopRequest&) {
    v1::StopReply reply;
    reply.set_exit_code(143);
    reply.set_rung("SIGTERM");
    return reply;
  };
  Start();
  const Outcome outcome = Cli({"stop", "j"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "j ended after SIGTERM, exit status 143\n");
  EXPECT_EQ(Cli({"stop", "j", "--json"}).out,
            R"({"job":"j","exit_code":143,"rung":"SIGTERM"})"
            "\n");
}

TEST_F(CommandsTest, CheckFailsWhenACheckDoes) {
  v1::CheckReply reply;
  reply.add_checks()->set_name("criu");
  reply.mutable_checks(0)->set_ok(true);
  api_.check = [&](const Caller&) { return reply; };
  Start();
  EXPECT_EQ(Cli({"check"}).status, 0);
  reply.add_checks()->set_name("store");
  const Outcome human = Cli({"check"});
  EXPECT_EQ(human.status, 1);
  EXPECT_THAT(human.out, HasSubstr("store  FAILED"));
  EXPECT_THAT(human.err, StartsWith("pos-cli: not passed: store\n"));
  const Outcome json = Cli({"check", "--json"});
  EXPECT_EQ(json.status, 1);
  EXPECT_EQ(json.err, "");
  EXPECT_THAT(json.out, StartsWith(R"({"checks":[{"name":"criu","ok":true)"));
  EXPECT_THAT(json.out, HasSubstr(R"("error":{"code":"NOT_READY")"));
}

TEST_F(CommandsTest, CheckpointAsksAsToldAndPrints) {
  api_.checkpoint =
      [](const Caller&, const v1::CheckpointRequest& request,
         const ProgressFunction& progress) -> Result<v1::CheckpointResult> {
    if (request.mode() == "cow") {
      return Invalid("there is no checkpoint mode 'cow'", "use --mode auto");
    }
    progress(v1::Progress());
    v1::CheckpointResult result;
    result.set_image("i-1");
    result.set_mode("stop");
    result.set_reason("because");
    return result;
  };
  Start();
  const Outcome human = Cli({"checkpoint", "j"});
  EXPECT_EQ(human.status, 0);
  EXPECT_THAT(human.out, HasSubstr("mode           stop (because)\n"));
  const Outcome json = Cli(
      {"checkpoint", "j", "--mode", "stop", "--stop", "--tag", "t", "--json"});
  EXPECT_EQ(json.status, 0);
  EXPECT_THAT(json.out, StartsWith(R"({"image":"i-1")"));
  EXPECT_EQ(json.err, "");
  const Outcome refused = Cli({"checkpoint", "j", "--mode", "cow"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("no checkpoint mode 'cow'"));
  EXPECT_THAT(api_.calls(),
              ElementsAre("Checkpoint j auto ", "Checkpoint j stop t stop",
                          "Checkpoint j cow "));
}

TEST_F(CommandsTest, ProgressIsLinesWhereThereIsNoTerminal) {
  std::atomic<bool> seen{false};
  api_.checkpoint = [&](const Caller&, const v1::CheckpointRequest&,
                        const ProgressFunction& progress) {
    v1::Progress step;
    step.set_phase("copy");
    progress(step);
    EXPECT_TRUE(Eventually([&] { return seen.load(); }));
    return v1::CheckpointResult();
  };
  Start();
  CliProcess process({.arguments = Arguments({"checkpoint", "j"})});
  EXPECT_TRUE(process.WaitErr("checkpoint of j: copy\n"));
  seen.store(true);
  EXPECT_EQ(process.Finish(), 0);
  CliProcess json({.arguments = Arguments({"checkpoint", "j", "--json"})});
  EXPECT_EQ(json.Finish(), 0);
  EXPECT_EQ(json.err, "");
}

TEST_F(CommandsTest, ASignalCancelsACheckpoint) {
  std::atomic<bool> told{false};
  api_.checkpoint =
      [&](const Caller&, const v1::CheckpointRequest&,
          const ProgressFunction& progress) -> Result<v1::CheckpointResult> {
    told.store(Eventually([&] { return !progress(v1::Progress()); }));
    return Aborted("cancelled");
  };
  Start();
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    told.store(false);
    const std::size_t calls = api_.calls().size();
    CliProcess process({.arguments = Arguments({"checkpoint", "j", "--json"})});
    ASSERT_TRUE(Eventually([&] { return api_.calls().size() > calls; }));
    process.Signal(signal);
    EXPECT_EQ(process.Finish(), 128 + signal);
    EXPECT_THAT(process.out,
                StartsWith(R"({"error":{"code":"ABORTED",)"
                           R"("message":"the checkpoint was cancelled",)"));
    EXPECT_TRUE(Eventually([&] { return told.load(); }));
  }
}

TEST_F(CommandsTest, RestoreAsksAsTold) {
  api_.restore = [](const Caller&, const v1::RestoreRequest& request,
                    const ProgressFunction&) -> Result<v1::RestoreResult> {
    v1::RestoreResult result;
    result.set_job("j-2");
    result.set_pid(5);
    result.set_image(request.image());
    return result;
  };
  Start();
  EXPECT_THAT(Cli({"restore", "i", "--json"}).out,
              StartsWith(R"({"job":"j-2","pid":5,"image":"i","lazy":false)"));
  EXPECT_EQ(Cli({"restore", "i", "--name", "n", "--device", "0:1", "--files",
                 "copy=/c"})
                .status,
            0);
  EXPECT_EQ(Cli({"restore", "i", "--files", "keep"}).status, 0);
  EXPECT_THAT(api_.calls(),
              ElementsAre("Restore i name= device= files=TRUNCATE ",
                          "Restore i name=n device=0:1 files=COPY /c",
                          "Restore i name= device= files=KEEP "));
}

TEST_F(CommandsTest, VerifyFailsOnAnImageThatIsNotWhole) {
  v1::VerifyResult result;
  api_.verify_image = [&](const Caller&, const std::string&,
                          const ProgressFunction&) { return result; };
  Start();
  EXPECT_EQ(Cli({"images", "verify", "i"}).status, 0);
  result.set_problems(1);
  result.add_first_problems("chunk 7: wrong digest");
  const Outcome human = Cli({"images", "verify", "i"});
  EXPECT_EQ(human.status, 1);
  EXPECT_THAT(human.out, HasSubstr("chunk 7"));
  EXPECT_THAT(human.err, StartsWith("pos-cli: image i has 1 problems\n"));
  const Outcome json = Cli({"images", "verify", "i", "--json"});
  EXPECT_EQ(json.status, 1);
  EXPECT_THAT(json.out, HasSubstr(R"("error":{"code":"CORRUPT")"));
}

TEST_F(CommandsTest, AnExportGoesThroughAPipeIntoAFile) {
  const std::string text(200'000, 'x');
  std::uint64_t told = text.size();
  api_.export_image = [&](const Caller&, StdioFds stdio,
                          const ProgressFunction&) -> Result<v1::ExportResult> {
    EXPECT_GE(::fcntl(stdio.out.get(), F_GETPIPE_SZ), 0);
    EXPECT_FALSE(stdio.in.valid());
    POS_RETURN_IF_ERROR(
        WriteFull(stdio.out.get(), std::as_bytes(std::span(text)), "pipe"));
    v1::ExportResult result;
    result.set_bytes(told);
    return result;
  };
  Start();
  const std::string file =
      ::testing::TempDir() + "cli-export" + std::to_string(::getpid());
  const Outcome outcome = Cli({"images", "export", "i", file, "--json"});
  EXPECT_EQ(outcome.status, 0) << outcome.out;
  EXPECT_THAT(outcome.out, HasSubstr(R"("bytes":200000})"));
  EXPECT_TRUE(*ReadWholeFile(file) == text);
  EXPECT_EQ(Cli({"images", "export", "i", file}).status, 1);  // it is there
  ASSERT_TRUE(RemoveFile(file).ok());
  // To standard output: nothing else goes there.
  const Outcome streamed = Cli({"images", "export", "i", "-", "--json"});
  EXPECT_EQ(streamed.status, 0);
  EXPECT_TRUE(streamed.out == text);
  EXPECT_THAT(streamed.err, HasSubstr(R"("bytes":200000})"));
  // Some of it did not come.
  told = text.size() + 1;
  EXPECT_EQ(Cli({"images", "export", "i", file}).status, 1);
  EXPECT_FALSE(PathExists(file));
  api_.export_image = [](const Caller&, StdioFds,
                         const ProgressFunction&) -> Result<v1::ExportResult> {
    return Corrupt("chunk 7");
  };
  EXPECT_THAT(Cli({"images", "export", "i", file}).err, HasSubstr("chunk 7"));
  EXPECT_FALSE(PathExists(file));
}

// What has gone to a FIFO or to standard output is not taken back.
TEST_F(CommandsTest, ACancelledExportSaysWhatThereIs) {
  std::atomic<bool> begun{false};
  api_.export_image =
      [&](const Caller&, StdioFds,
          const ProgressFunction& progress) -> Result<v1::ExportResult> {
    begun.store(true);
    EXPECT_TRUE(Eventually([&] { return !progress(v1::Progress()); }));
    return Aborted("cancelled");
  };
  Start();
  const std::string file =
      ::testing::TempDir() + "cli-export" + std::to_string(::getpid());
  for (const std::string& to : {file, std::string("-")}) {
    begun.store(false);
    CliProcess process({.arguments = Arguments({"images", "export", "i", to})});
    ASSERT_TRUE(Eventually([&] { return begun.load(); }));
    process.Signal(SIGINT);
    EXPECT_EQ(process.Finish(), 128 + SIGINT);
    const bool none = process.err.find("there is no file") != std::string::npos;
    EXPECT_EQ(none, to == file) << process.err;
    EXPECT_EQ(process.err.find("is no image") == std::string::npos, none);
  }
  EXPECT_FALSE(PathExists(file));
}

TEST_F(CommandsTest, AnImportComesThroughAPipe) {
  const std::string text(300'000, 'y');
  std::string got;
  api_.import_image = [&](const Caller&, StdioFds stdio,
                          const ProgressFunction&) -> Result<v1::ImportResult> {
    got.clear();
    std::array<std::byte, 4096> buffer;
    for (;;) {
      POS_ASSIGN_OR_RETURN(const std::size_t n,
                           ReadSome(stdio.in.get(), buffer, "pipe"));
      if (n == 0) break;
      got.append(reinterpret_cast<const char*>(buffer.data()), n);
    }
    v1::ImportResult result;
    result.set_image("new");
    return result;
  };
  Start();
  const std::string file =
      ::testing::TempDir() + "cli-import" + std::to_string(::getpid());
  ASSERT_TRUE(ReplaceFile(file, text).ok());
  EXPECT_THAT(Cli({"images", "import", file, "--json"}).out,
              StartsWith(R"({"image":"new")"));
  EXPECT_TRUE(got == text);
  // posd has seen enough: the rest is not waited for.
  api_.import_image = [](const Caller&, StdioFds,
                         const ProgressFunction&) -> Result<v1::ImportResult> {
    return Denied("not yours");
  };
  EXPECT_THAT(Cli({"images", "import", file}).err, HasSubstr("not yours"));
  ASSERT_TRUE(RemoveFile(file).ok());
  EXPECT_EQ(Cli({"images", "import", file}).status, 1);
  EXPECT_THAT(api_.calls(),
              ElementsAre("ImportImage 300000", "ImportImage 300000"));
}

TEST_F(CommandsTest, PeriodicCheckpointsAreSetAndEnded) {
  api_.set_series = [](const Caller&) { return Status(); };
  Start();
  EXPECT_EQ(
      Cli({"checkpoint", "j", "--every", "30m", "--keep", "3", "--json"}).out,
      "{\"job\":\"j\",\"every_ms\":1800000,\"keep\":3}\n");
  EXPECT_EQ(Cli({"checkpoint", "j", "--every", "0"}).out,
            "j: no periodic checkpoints\n");
  EXPECT_THAT(api_.calls(), ElementsAre("SetSeries j 1800000 3 auto",
                                        "SetSeries j 0 0 auto"));
}

TEST_F(CommandsTest, OutputThatCannotBeWrittenIsAFailure) {
  api_.ps = [](const Caller&, const v1::PsRequest&) { return v1::PsReply(); };
  Start();
  const UniqueFd full(::open("/dev/full", O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(full.valid());
  CliProcess process({.arguments = Arguments({"ps"}), .terminal = full.get()});
  EXPECT_EQ(process.Finish(), 1);
  EXPECT_THAT(process.err, HasSubstr("standard output"));
}

}  // namespace
}  // namespace pos
