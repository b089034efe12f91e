// The field names that users' scripts rely on, to the letter.
#include "pos/cli/json.h"

#include <gtest/gtest.h>

namespace pos::cli {
namespace {

TEST(Json, Error) {
  EXPECT_EQ(ErrorJson(Busy("job a is being checkpointed", "try again")),
            R"({"error":{"code":"BUSY","message":"job a is being )"
            R"(checkpointed","hint":"try again"}})");
  EXPECT_EQ(ErrorJson(Internal("x")),
            R"({"error":{"code":"INTERNAL","message":"x","hint":null}})");
}

TEST(Json, ErrorOfAnyBytesIsJson) {
  EXPECT_EQ(ErrorJson(Internal("a\xff\n\"")),
            "{\"error\":{\"code\":\"INTERNAL\",\"message\":\"a\xef\xbf\xbd"
            "\\n\\\"\",\"hint\":null}}");
}

TEST(Json, Run) {
  v1::RunReply reply;
  reply.set_job("train");
  reply.set_pid(4711);
  reply.set_ns_pid(2);
  EXPECT_EQ(ToJson(reply), R"({"job":"train","pid":4711,"ns_pid":2})");
}

TEST(Json, Ps) {
  v1::PsReply reply;
  EXPECT_EQ(ToJson(reply), R"({"jobs":[]})");
  v1::Job* job = reply.add_jobs();
  job->set_job("a");
  job->set_pid(10);
  job->set_state(v1::RUNNING);
  job->set_exit_code(3);  // means nothing: has_exit_code is not set
  job->add_devices("0");
  job->add_devices("1");
  v1::Session* session = job->add_sessions();
  session->set_session("1");
  session->set_pid(11);
  session->set_calls(1ull << 60);
  session->set_device_bytes(1ull << 40);
  job->mutable_series()->set_every_ms(1000);
  job->mutable_series()->set_next_at(5);
  job->mutable_series()->set_last_error("BUSY: no");
  job = reply.add_jobs();
  job->set_job("b");
  job->set_state(v1::EXITED);
  job->set_has_exit_code(true);
  job->set_exit_code(0);
  EXPECT_EQ(
      ToJson(reply),
      R"({"jobs":[{"job":"a","pid":10,"state":"running","exit_code":null,)"
      R"("devices":["0","1"],"sessions":[{"session":"1","pid":11,)"
      R"("calls":1152921504606846976,"device_bytes":1099511627776}],)"
      R"("series":{"every_ms":1000,"keep":null,"next_at":5,)"
      R"("last_image":null,"last_error":"BUSY: no"}},)"
      R"({"job":"b","pid":null,"state":"exited","exit_code":0,)"
      R"("devices":[],"sessions":[],"series":null}]})");
}

TEST(Json, ImageCommandsPrintWhatPosdSaid) {
  v1::DiffImagesRequest request;
  request.set_image_a("a");
  request.set_image_b("b");
  v1::DiffImagesReply diff;
  diff.set_same_bytes(1);
  diff.add_differences("job: x -> y");
  EXPECT_EQ(DiffJson(request, diff),
            R"({"image_a":"a","image_b":"b","same_bytes":1,"changed_bytes":0,)"
            R"("only_a_bytes":0,"only_b_bytes":0,)"
            R"("differences":["job: x -> y"]})");
  v1::CollectGarbageReply gc;
  gc.set_freed_bytes(7);
  EXPECT_EQ(ToJson(gc),
            R"({"removed_images":0,"removed_packs":0,"freed_bytes":7,)"
            R"("held_back":null})");
  v1::ExportResult exported;
  exported.set_bytes(9);
  EXPECT_EQ(ExportedJson("i", "-", exported),
            R"({"image":"i","file":"-","bytes":9})");
  v1::ImportResult imported;
  imported.set_image("i");
  imported.set_source("s");
  EXPECT_EQ(ToJson(imported),
            R"({"image":"i","job":null,"source":"s","bytes":0,)"
            R"("stored_bytes":0})");
  v1::SetSeriesRequest series;
  series.set_job("j");
  EXPECT_EQ(SeriesJson(series), R"({"job":"j","every_ms":null,"keep":null})");
}

TEST(Json, EveryStateHasItsName) {
  const std::vector<std::string> names = {
      "starting",  "running",  "checkpointing", "stopped", "restoring",
      "migrating", "in-doubt", "exited",        "failed"};
  ASSERT_EQ(static_cast<int>(names.size()), v1::JobState_ARRAYSIZE);
  for (int state = 0; state < v1::JobState_ARRAYSIZE; ++state) {
    EXPECT_EQ(StateName(static_cast<v1::JobState>(state)),
              names[static_cast<std::size_t>(state)]);
  }
}

TEST(Json, LogsWaitStop) {
  EXPECT_EQ(LogsJson("a", "x\n\xff"),
            "{\"job\":\"a\",\"output\":\"x\\n\xef\xbf\xbd\"}");
  v1::WaitReply wait;
  wait.set_state(v1::EXITED);
  wait.set_exit_code(143);
  EXPECT_EQ(WaitJson("a", wait),
            R"({"job":"a","state":"exited","exit_code":143,"message":null})");
  v1::StopReply stop;
  stop.set_exit_code(143);
  EXPECT_EQ(StopJson("a", stop), R"({"job":"a","exit_code":143,"rung":null})");
  stop.set_rung("SIGTERM");
  EXPECT_EQ(StopJson("a", stop),
            R"({"job":"a","exit_code":143,"rung":"SIGTERM"})");
}

TEST(Json, Devices) {
  v1::DevicesReply reply;
  v1::Device* device = reply.add_devices();
  device->set_device("0");
  device->set_kind("sim");
  device->set_name("POS simulated GPU");
  device->set_memory_bytes(1 << 30);
  device->set_free_bytes(1 << 29);
  device->set_state("ready");
  device->set_sessions(2);
  EXPECT_EQ(ToJson(reply),
            R"({"devices":[{"device":"0","kind":"sim",)"
            R"("name":"POS simulated GPU","memory_bytes":1073741824,)"
            R"("free_bytes":536870912,"state":"ready","sessions":2}]})");
}

TEST(Json, Check) {
  v1::CheckReply reply;
  v1::CheckResult* check = reply.add_checks();
  check->set_name("criu");
  check->set_ok(true);
  check->set_detail("version 3.17.1");
  EXPECT_EQ(
      CheckJson(reply, {}),
      R"({"checks":[{"name":"criu","ok":true,"detail":"version 3.17.1"}]})");
  check->set_ok(false);
  EXPECT_EQ(CheckJson(reply, NotReady("not passed: criu")),
            R"({"checks":[{"name":"criu","ok":false,"detail":"version )"
            R"(3.17.1"}],"error":{"code":"NOT_READY",)"
            R"("message":"not passed: criu","hint":null}})");
}

TEST(Json, Checkpoint) {
  v1::CheckpointResult result;
  result.set_image("train-1");
  result.set_job("train");
  result.set_mode("stop");
  result.set_reason("asked for");
  result.set_stall_us(1'234'567);
  result.set_cpu_dump_us(1'000);
  result.set_total_us(2'000'000);
  result.set_live_bytes(1);
  result.set_copied_bytes(2);
  result.set_written_bytes(3);
  result.set_chunks(4);
  result.set_unforeseen_chunks(5);
  result.set_rounds(6);
  result.set_digest_us(7'500);
  result.set_attempts(3);
  result.set_attempts_stall_us(120'000);
  EXPECT_EQ(
      ToJson(result),
      R"({"image":"train-1","job":"train","mode":"stop",)"
      R"("reason":"asked for","stall_ms":1234.567,"cpu_dump_ms":1.0,)"
      R"("total_ms":2000.0,"live_bytes":1,"copied_bytes":2,)"
      R"("written_bytes":3,"chunks":4,"unforeseen_chunks":5,)"
      R"("rounds":6,"digest_ms":7.5,"attempts":3,"attempts_stall_ms":120.0})");
}

TEST(Json, Restore) {
  v1::RestoreResult result;
  result.set_job("train-2");
  result.set_pid(99);
  result.set_image("train-1");
  result.set_restore_us(1'500);
  result.set_loaded_us(250);
  EXPECT_EQ(ToJson(result),
            R"({"job":"train-2","pid":99,"image":"train-1","lazy":false,)"
            R"("restore_ms":1.5,"loaded_ms":0.25})");
}

TEST(Json, ImagesList) {
  v1::ListImagesReply reply;
  v1::Image* image = reply.add_images();
  image->set_image("train-1");
  image->set_job("train");
  image->set_created_at(1'769'868'307'999);
  image->set_mode("stop");
  image->set_live_bytes(10);
  image->set_stored_bytes(7);
  image->set_tag("not in the contract");
  EXPECT_EQ(ToJson(reply),
            R"({"images":[{"image":"train-1","job":"train",)"
            R"("created_at":1769868307999,"mode":"stop","live_bytes":10,)"
            R"("stored_bytes":7}]})");
}

TEST(Json, ImagesShowIsPosdsObjectOnOneLine) {
  v1::ShowImageReply reply;
  reply.set_json("{\n \"z\": 1,\n \"a\": [1, {\"b\": null}]\n}");
  const Result<std::string> json = ToJson(reply);
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(*json, R"({"z":1,"a":[1,{"b":null}]})");
  for (const char* broken : {"", "{", "[]", "{\"a\":}", "{} {}"}) {
    reply.set_json(broken);
    EXPECT_EQ(ToJson(reply).status().code(), Code::kProto) << broken;
  }
}

TEST(Json, ImagesVerifyAndRemove) {
  v1::VerifyResult result;
  result.set_files(1);
  result.set_chunks(2);
  result.set_bytes(3);
  EXPECT_EQ(VerifyJson("i", result, {}),
            R"({"image":"i","ok":true,"files":1,"chunks":2,"bytes":3,)"
            R"("problems":0,"first_problems":[]})");
  result.set_problems(1);
  result.add_first_problems("chunk 7: wrong digest");
  EXPECT_EQ(VerifyJson("i", result, Corrupt("1 problem")),
            R"({"image":"i","ok":false,"files":1,"chunks":2,"bytes":3,)"
            R"("problems":1,"first_problems":["chunk 7: wrong digest"],)"
            R"("error":{"code":"CORRUPT","message":"1 problem",)"
            R"("hint":null}})");
  EXPECT_EQ(RemovedJson("i"), R"({"image":"i"})");
}

}  // namespace
}  // namespace pos::cli
