// An image as one JSON object, for `pos-cli images show`.
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "ckpt/format/handle_summary.h"
#include "ckpt/store/contents.h"
#include "pos/base/log.h"
#include "pos/daemon/image_info.h"

namespace pos {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostRegions = 4096;  // of a session

Json ManifestJson(const ckpt::Manifest& m) {
  Json sessions = Json::array();
  for (const ckpt::SessionRecord& s : m.sessions) {
    sessions.push_back({{"session", s.name},
                        {"ns_pid", s.client_ns_pid},
                        {"live_bytes", s.live_bytes},
                        {"chunks", s.chunks},
                        {"zero_bytes", s.zero_bytes},
                        {"stored_bytes", s.own_stored_bytes}});
  }
  Json devices = Json::array();
  for (const ckpt::DeviceRecord& d : m.devices) {
    devices.push_back({{"device", std::to_string(d.ordinal)},
                       {"kind", d.kind},
                       {"name", d.name},
                       {"architecture", d.architecture},
                       {"multiprocessors", d.multiprocessors},
                       {"memory_bytes", d.memory_bytes},
                       {"driver", d.driver}});
  }
  Json files = Json::array();
  for (const ckpt::OpenFileRecord& f : m.open_files) {
    files.push_back({{"path", f.path}, {"bytes", f.bytes}});
  }
  const auto ms = [](std::uint64_t ns) {
    return static_cast<double>(ns) / 1e6;
  };
  return Json{{"image", m.image},
              {"job", m.job.name},
              {"created_at", m.created_ms},
              {"mode", std::string(ckpt::CheckpointModeName(m.mode))},
              {"reason", m.reason},
              {"tag", m.tag.empty() ? Json() : Json(m.tag)},
              {"uid", m.owner_uid},
              {"argv", m.job.argv},
              {"cwd", m.job.cwd},
              {"ns_pid", m.job.root_ns_pid},
              {"log_bytes", m.job.log_bytes},
              {"host",
               {{"name", m.host.host},
                {"kernel", m.host.kernel},
                {"machine", m.host.machine},
                {"cpu", m.host.cpu_model},
                {"pos", m.host.pos_version},
                {"criu", m.host.criu_version}}},
              {"devices", std::move(devices)},
              {"sessions", std::move(sessions)},
              {"open_files", std::move(files)},
              {"live_bytes", m.totals.live_bytes},
              {"stored_bytes", m.totals.written_bytes},
              {"reused_bytes", m.totals.reused_bytes},
              {"chunks", m.totals.chunks},
              {"stall_ms", ms(m.totals.stall_ns)},
              {"cpu_dump_ms", ms(m.totals.cpu_dump_ns)},
              {"total_ms", ms(m.totals.total_ns)}};
}

Json RegionJson(const std::string& session, const ckpt::RegionUse& use) {
  const ckpt::Region& region = use.region;
  const bool blob = region.kind == ckpt::RegionKind::kBlob;
  return {{"session", session},
          {"kind", std::string(ckpt::RegionKindName(region.kind))},
          {"device", blob ? Json() : Json(std::to_string(region.device))},
          {"address", blob ? Json() : Json(Hex(region.address))},
          {"name", region.name.empty() ? Json() : Json(region.name)},
          {"bytes", region.bytes},
          {"zero_bytes", use.zero_bytes},
          {"stored_bytes", use.stored_bytes},
          {"reused_bytes", use.reused_bytes}};
}

void AddHandles(const std::string& session, const ckpt::HandleSummary& summary,
                Json* kinds, Json* largest) {
  for (const ckpt::HandleKindUse& use : summary.kinds) {
    kinds->push_back({{"session", session},
                      {"kind", use.kind},
                      {"count", use.count},
                      {"bytes", use.bytes}});
  }
  for (const ckpt::HandleUse& use : summary.largest) {
    largest->push_back(
        {{"session", session},
         {"kind", use.kind},
         {"handle", Hex(use.handle)},
         {"parent", use.parent == 0 ? Json() : Json(Hex(use.parent))},
         {"bytes", use.bytes}});
  }
}

// Images of earlier versions have no summary. One that cannot be read is the
// business of `images verify`.
Result<ckpt::HandleSummary> ReadHandles(const ckpt::ImageHandle& image,
                                        const ckpt::SessionRecord& session) {
  POS_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes,
                       ckpt::ReadBlob(image, session.number, ckpt::kHandlesBlob,
                                      ckpt::kMaxHandlesBlobBytes));
  return ckpt::DecodeHandleSummary(bytes);
}

}  // namespace

std::string ImageJson(const ckpt::ImageHandle& image) {
  Json memory = Json::array();
  Json kinds = Json::array();
  Json largest = Json::array();
  std::uint64_t left_out = 0;
  for (const ckpt::SessionRecord& session : image.manifest().sessions) {
    const Result<ckpt::SessionContents> contents =
        ckpt::ReadContents(image, session, kMostRegions);
    if (contents.ok()) {
      for (const ckpt::RegionUse& use : contents->regions) {
        memory.push_back(RegionJson(session.name, use));
      }
      left_out += contents->left_out;
    } else {
      POS_LOG(kWarning, "an image's index cannot be read",
              {{"image", image.manifest().image},
               {"why", contents.status().ToString()}});
    }
    const Result<ckpt::HandleSummary> handles = ReadHandles(image, session);
    if (handles.ok()) AddHandles(session.name, *handles, &kinds, &largest);
  }
  Json json = ManifestJson(image.manifest());
  json["memory"] = std::move(memory);
  json["memory_left_out"] = left_out;
  json["handles"] = std::move(kinds);
  json["largest_handles"] = std::move(largest);
  // Paths and arguments are bytes; what is no UTF-8 is shown with replacements.
  return json.dump(1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace pos
