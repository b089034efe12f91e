#include "pos/cli/json.h"

#include <cstdint>
#include <nlohmann/json.hpp>

namespace pos::cli {
namespace {

// Keeps the order in which fields are written here.
using Json = nlohmann::ordered_json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json OrNull(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

// 0 is no process.
Json PidOrNull(std::int32_t pid) { return pid == 0 ? Json() : Json(pid); }

double Ms(std::uint64_t us) { return static_cast<double>(us) / 1000; }

Json Error(const Status& status) {
  return {{"code", std::string(CodeName(status.code()))},
          {"message", status.message()},
          {"hint", OrNull(status.hint())}};
}

Json SeriesOf(const v1::Series& series) {
  return {{"every_ms", series.every_ms()},
          {"keep", series.keep() == 0 ? Json() : Json(series.keep())},
          {"next_at", series.next_at()},
          {"last_image", OrNull(series.last_image())},
          {"last_error", OrNull(series.last_error())}};
}

Json JobJson(const v1::Job& job) {
  Json sessions = Json::array();
  for (const v1::Session& session : job.sessions()) {
    sessions.push_back({{"session", session.session()},
                        {"pid", PidOrNull(session.pid())},
                        {"calls", session.calls()},
                        {"device_bytes", session.device_bytes()}});
  }
  Json devices = Json::array();
  for (const std::string& device : job.devices()) devices.push_back(device);
  return {{"job", job.job()},
          {"pid", PidOrNull(job.pid())},
          {"state", std::string(StateName(job.state()))},
          {"exit_code", job.has_exit_code() ? Json(job.exit_code()) : Json()},
          {"devices", std::move(devices)},
          {"sessions", std::move(sessions)},
          {"series", job.has_series() ? SeriesOf(job.series()) : Json()}};
}

}  // namespace

std::string_view StateName(v1::JobState state) {
  switch (state) {
    case v1::STARTING:
      return "starting";
    case v1::RUNNING:
      return "running";
    case v1::CHECKPOINTING:
      return "checkpointing";
    case v1::STOPPED:
      return "stopped";
    case v1::RESTORING:
      return "restoring";
    case v1::MIGRATING:
      return "migrating";
    case v1::IN_DOUBT:
      return "in-doubt";
    case v1::EXITED:
      return "exited";
    case v1::FAILED:
      return "failed";
    default:
      return "unknown";
  }
}

std::string ErrorJson(const Status& status) {
  return Dump({{"error", Error(status)}});
}

std::string ToJson(const v1::RunReply& reply) {
  return Dump({{"job", reply.job()},
               {"pid", PidOrNull(reply.pid())},
               {"ns_pid", PidOrNull(reply.ns_pid())}});
}

std::string ToJson(const v1::PsReply& reply) {
  Json jobs = Json::array();
  for (const v1::Job& job : reply.jobs()) jobs.push_back(JobJson(job));
  return Dump({{"jobs", std::move(jobs)}});
}

std::string LogsJson(const std::string& job, std::string_view output) {
  return Dump({{"job", job}, {"output", std::string(output)}});
}

std::string WaitJson(const std::string& job, const v1::WaitReply& reply) {
  return Dump({{"job", job},
               {"state", std::string(StateName(reply.state()))},
               {"exit_code", reply.exit_code()},
               {"message", OrNull(reply.message())}});
}

std::string StopJson(const std::string& job, const v1::StopReply& reply) {
  return Dump({{"job", job},
               {"exit_code", reply.exit_code()},
               {"rung", OrNull(reply.rung())}});
}

std::string ToJson(const v1::DevicesReply& reply) {
  Json devices = Json::array();
  for (const v1::Device& device : reply.devices()) {
    devices.push_back({{"device", device.device()},
                       {"kind", device.kind()},
                       {"name", device.name()},
                       {"memory_bytes", device.memory_bytes()},
                       {"free_bytes", device.free_bytes()},
                       {"state", device.state()},
                       {"sessions", device.sessions()}});
  }
  return Dump({{"devices", std::move(devices)}});
}

std::string CheckJson(const v1::CheckReply& reply, const Status& status) {
  Json checks = Json::array();
  for (const v1::CheckResult& check : reply.checks()) {
    checks.push_back({{"name", check.name()},
                      {"ok", check.ok()},
                      {"detail", OrNull(check.detail())}});
  }
  Json json{{"checks", std::move(checks)}};
  if (!status.ok()) json["error"] = Error(status);
  return Dump(json);
}

std::string ToJson(const v1::CheckpointResult& result) {
  return Dump({{"image", result.image()},
               {"job", result.job()},
               {"mode", result.mode()},
               {"reason", OrNull(result.reason())},
               {"stall_ms", Ms(result.stall_us())},
               {"cpu_dump_ms", Ms(result.cpu_dump_us())},
               {"total_ms", Ms(result.total_us())},
               {"live_bytes", result.live_bytes()},
               {"copied_bytes", result.copied_bytes()},
               {"written_bytes", result.written_bytes()},
               {"chunks", result.chunks()},
               {"unforeseen_chunks", result.unforeseen_chunks()},
               {"rounds", result.rounds()},
               {"digest_ms", Ms(result.digest_us())},
               {"attempts", result.attempts()},
               {"attempts_stall_ms", Ms(result.attempts_stall_us())}});
}

std::string ToJson(const v1::RestoreResult& result) {
  return Dump({{"job", result.job()},
               {"pid", PidOrNull(result.pid())},
               {"image", result.image()},
               {"lazy", result.lazy()},
               {"restore_ms", Ms(result.restore_us())},
               {"loaded_ms", Ms(result.loaded_us())}});
}

std::string ToJson(const v1::ListImagesReply& reply) {
  Json images = Json::array();
  for (const v1::Image& image : reply.images()) {
    images.push_back({{"image", image.image()},
                      {"job", OrNull(image.job())},
                      {"created_at", image.created_at()},
                      {"mode", OrNull(image.mode())},
                      {"live_bytes", image.live_bytes()},
                      {"stored_bytes", image.stored_bytes()}});
  }
  return Dump({{"images", std::move(images)}});
}

Result<std::string> ToJson(const v1::ShowImageReply& reply) {
  const Json json = Json::parse(reply.json(), nullptr, false);
  if (!json.is_object()) {
    return Proto("posd's description of the image is no JSON object");
  }
  return Dump(json);
}

std::string VerifyJson(const std::string& image, const v1::VerifyResult& result,
                       const Status& status) {
  Json problems = Json::array();
  for (const std::string& problem : result.first_problems()) {
    problems.push_back(problem);
  }
  Json json{{"image", image},
            {"ok", status.ok()},
            {"files", result.files()},
            {"chunks", result.chunks()},
            {"bytes", result.bytes()},
            {"problems", result.problems()},
            {"first_problems", std::move(problems)}};
  if (!status.ok()) json["error"] = Error(status);
  return Dump(json);
}

std::string RemovedJson(const std::string& image) {
  return Dump({{"image", image}});
}

std::string DiffJson(const v1::DiffImagesRequest& request,
                     const v1::DiffImagesReply& reply) {
  Json differences = Json::array();
  for (const std::string& text : reply.differences()) {
    differences.push_back(text);
  }
  return Dump({{"image_a", request.image_a()},
               {"image_b", request.image_b()},
               {"same_bytes", reply.same_bytes()},
               {"changed_bytes", reply.changed_bytes()},
               {"only_a_bytes", reply.only_a_bytes()},
               {"only_b_bytes", reply.only_b_bytes()},
               {"differences", std::move(differences)}});
}

std::string ToJson(const v1::CollectGarbageReply& reply) {
  return Dump({{"removed_images", reply.removed_images()},
               {"removed_packs", reply.removed_packs()},
               {"freed_bytes", reply.freed_bytes()},
               {"held_back", OrNull(reply.held_back())}});
}

std::string ExportedJson(const std::string& image, const std::string& file,
                         const v1::ExportResult& result) {
  return Dump({{"image", image}, {"file", file}, {"bytes", result.bytes()}});
}

std::string ToJson(const v1::ImportResult& result) {
  return Dump({{"image", result.image()},
               {"job", OrNull(result.job())},
               {"source", OrNull(result.source())},
               {"bytes", result.bytes()},
               {"stored_bytes", result.stored_bytes()}});
}

std::string SeriesJson(const v1::SetSeriesRequest& request) {
  const bool on = request.every_ms() != 0;
  return Dump({{"job", request.job()},
               {"every_ms", on ? Json(request.every_ms()) : Json()},
               {"keep", request.keep() == 0 ? Json() : Json(request.keep())}});
}

}  // namespace pos::cli
