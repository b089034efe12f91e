#include "pos/cli/show.h"

#include <gmock/gmock.h>

namespace pos::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::uint64_t kNowMs = 1'769'868'307'999;

v1::Job* AddJob(v1::PsReply* reply, const std::string& name, v1::JobState state,
                std::uint64_t started_at) {
  v1::Job* const job = reply->add_jobs();
  job->set_job(name);
  job->set_state(state);
  job->set_started_at(started_at);
  return job;
}

TEST(Show, ErrorsSayWhatToDoNext) {
  EXPECT_EQ(ShowError(NoSuch("no job 'a'", "`pos-cli ps` lists the jobs")),
            "pos-cli: no job 'a'\nhint: `pos-cli ps` lists the jobs\n");
  EXPECT_EQ(ShowError(Internal("CRIU said:\n\x1b[31mno")),
            "pos-cli: CRIU said:\n?[31mno\n");
}

TEST(Show, PsAlignsAndPutsLivingJobsFirst) {
  v1::PsReply reply;
  v1::Job* job = AddJob(&reply, "old", v1::EXITED, kNowMs - 7'200'000);
  job->set_has_exit_code(true);
  job->set_exit_code(137);
  job->set_command("./a.out");
  job = AddJob(&reply, "train", v1::RUNNING, kNowMs - 61'000);
  job->set_pid(4711);
  job->add_devices("0");
  job->add_devices("1");
  job->add_sessions()->set_device_bytes(3ull << 30);
  job->add_sessions()->set_device_bytes(1ull << 30);
  job->set_command("python3 \x1b[31mtrain.py " + std::string(100, 'x'));
  EXPECT_EQ(
      Show(reply, kNowMs, false),
      "JOB    STATE          PID  DEVICES  SESSIONS  DEVICE MEMORY    "
      "STARTED  COMMAND\n"
      "train  running       4711  0,1             2          4 GiB  "
      "1 min ago  python3 ?[31mtrain.py xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "...\n"
      "old    exited (137)     -  -               0              -    "
      "2 h ago  ./a.out\n");
}

TEST(Show, PsNamesOwnersWhenAsked) {
  v1::PsReply reply;
  AddJob(&reply, "a", v1::RUNNING, 1)->set_uid(0);
  AddJob(&reply, "b", v1::RUNNING, 1)->set_uid(4'000'000);  // nobody's
  const std::string text = Show(reply, kNowMs, true);
  EXPECT_THAT(text, HasSubstr("USER"));
  EXPECT_THAT(text, HasSubstr("root"));
  EXPECT_THAT(text, HasSubstr("4000000"));
}

TEST(Show, PsCountsTheEndedThatItLeavesOut) {
  v1::PsReply reply;
  for (std::size_t i = 0; i < kShownEndedJobs; ++i) {
    AddJob(&reply, "j" + std::to_string(i), v1::EXITED, 1000 + i);
  }
  EXPECT_THAT(Show(reply, kNowMs, false), Not(HasSubstr("more")));
  AddJob(&reply, "oldest", v1::FAILED, 1);
  AddJob(&reply, "latest", v1::FAILED, 5000);
  const std::string text = Show(reply, kNowMs, false);
  EXPECT_THAT(text, HasSubstr("\nlatest "));
  EXPECT_THAT(text, Not(HasSubstr("oldest")));
  EXPECT_THAT(text, HasSubstr("\n2 more have ended (--json lists all)\n"));
}

TEST(Show, Stop) {
  v1::StopReply reply;
  reply.set_exit_code(1);
  EXPECT_EQ(ShowStopped("a", reply), "a had ended, exit status 1\n");
  reply.set_rung("asked");
  EXPECT_EQ(ShowStopped("a", reply), "a ended, exit status 1\n");
  reply.set_rung("SIGKILL");
  EXPECT_EQ(ShowStopped("a", reply), "a ended after SIGKILL, exit status 1\n");
}

TEST(Show, CheckpointGivesItsReason) {
  v1::CheckpointResult result;
  result.set_image("train-1");
  result.set_mode("stop");
  result.set_reason("the only mode that this version has");
  result.set_stall_us(1'500'000);
  result.set_cpu_dump_us(900'000);
  result.set_total_us(2'000'000);
  result.set_live_bytes(3ull << 30);
  result.set_copied_bytes(2ull << 30);
  result.set_written_bytes(1ull << 30);
  result.set_chunks(12);
  EXPECT_EQ(Show(result, false),
            "image          train-1\n"
            "mode           stop (the only mode that this version has)\n"
            "stall          1.50 s, CPU dump 900 ms of it\n"
            "total          2.00 s\n"
            "device memory  3 GiB live, 2 GiB copied in 12 chunks\n"
            "written        1 GiB\n");
  EXPECT_THAT(Show(result, true), HasSubstr("stopped after  1.50 s"));
}

TEST(Show, Restore) {
  v1::RestoreResult result;
  result.set_job("train-2");
  result.set_pid(7);
  result.set_restore_us(250'000);
  result.set_loaded_us(1'000);
  EXPECT_EQ(Show(result),
            "job            train-2\n"
            "pid            7\n"
            "first call     after 250 ms\n"
            "all loaded     after 1.00 ms\n");
}

TEST(Show, ImagesTellWhichAreDamaged) {
  v1::ListImagesReply reply;
  reply.add_images()->set_image("a");
  EXPECT_THAT(Show(reply), Not(HasSubstr("DAMAGE")));
  v1::Image* const image = reply.add_images();
  image->set_image("b");
  image->set_damage("manifest: wrong digest");
  EXPECT_THAT(Show(reply), HasSubstr("DAMAGE"));
  EXPECT_THAT(Show(reply), HasSubstr("manifest: wrong digest"));
}

TEST(Show, DevicesAndChecks) {
  v1::DevicesReply devices;
  v1::Device* const device = devices.add_devices();
  device->set_device("0");
  device->set_kind("sim");
  device->set_name("n");
  device->set_memory_bytes(2048);
  device->set_free_bytes(1024);
  device->set_state("ready");
  EXPECT_EQ(Show(devices),
            "DEVICE  KIND  NAME  MEMORY   FREE  STATE  SESSIONS\n"
            "0       sim   n      2 KiB  1 KiB  ready         0\n");
  v1::CheckReply checks;
  v1::CheckResult* const check = checks.add_checks();
  check->set_name("criu");
  check->set_detail("NO_SUCH: criu");
  EXPECT_EQ(Show(checks),
            "CHECK  RESULT  DETAIL\n"
            "criu   FAILED  NO_SUCH: criu\n");
}

TEST(Show, VerifyListsProblems) {
  v1::VerifyResult result;
  result.set_files(1);
  result.set_chunks(2);
  result.set_bytes(2048);
  EXPECT_EQ(ShowVerified("i", result),
            "i: 1 files, 2 chunks, 2 KiB read, no problems\n");
  result.set_problems(3);
  result.add_first_problems("chunk 1");
  EXPECT_EQ(ShowVerified("i", result),
            "i: 1 files, 2 chunks, 2 KiB read, 3 problems\n"
            "  chunk 1\n"
            "  and 2 more\n");
}

TEST(Show, AnImageIsShownByTheUnitsOfItsFields) {
  v1::ShowImageReply reply;
  reply.set_json(R"({"image":"i","tag":null,"argv":["a","b\u001b"],
      "host":{"name":"n"},"live_bytes":2048,"stall_ms":1.5,"chunks":7,
      "devices":[{"device":"0","memory_bytes":1024},
                 {"device":"1","memory_bytes":4096}],"open_files":[]})");
  const Result<std::string> text = Show(reply);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text,
            "image       i\n"
            "tag         -\n"
            "argv        a b?\n"
            "host name   n\n"
            "live_bytes  2 KiB\n"
            "stall_ms    1.50 ms\n"
            "chunks      7\n"
            "open_files  -\n"
            "\ndevices\n"
            "  device  memory_bytes\n"
            "  0              1 KiB\n"
            "  1              4 KiB\n");
  reply.set_json("[]");
  EXPECT_EQ(Show(reply).status().code(), Code::kProto);
}

}  // namespace
}  // namespace pos::cli
