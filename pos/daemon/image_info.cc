#include "pos/daemon/image_info.h"

#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ckpt/criu/criu.h"
#include "pos/base/version.h"
#include "pos/job/job_image.h"

namespace pos {
namespace {

using Json = nlohmann::json;

// "model name" and "flags" of /proc/cpuinfo.
void FillCpu(ckpt::HostInfo* host) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) {
      if (!host->cpu_flags.empty()) return;  // the first processor's is enough
      continue;
    }
    const std::string value =
        colon + 2 <= line.size() ? line.substr(colon + 2) : "";
    if (line.starts_with("model name")) host->cpu_model = value;
    if (line.starts_with("flags")) host->cpu_flags = value;
  }
}

std::string Name(std::size_t number) {
  return "session." + std::to_string(number);
}

}  // namespace

void FillJobInfo(const JobRecord& record, const std::string& criu_dir,
                 ckpt::Manifest* manifest) {
  ckpt::JobInfo& info = manifest->job;
  info.name = record.name;
  info.cwd = record.cwd;
  info.argv = record.argv;
  info.lineage = record.lineage;
  const Result<job::JobImage> image = job::ReadJobImage(criu_dir);
  if (!image.ok()) return;  // sealing an image without it fails at restore
  info.log_bytes = image->log_bytes();
  info.root_ns_pid = static_cast<std::uint32_t>(image->root_ns_pid());
  for (const std::int32_t pid : image->ns_pid()) {
    info.highest_ns_pid =
        std::max(info.highest_ns_pid, static_cast<std::uint32_t>(pid));
  }
  for (const job::StdioEndpoint& endpoint : image->endpoint()) {
    info.stdio = endpoint.kind() == job::StdioEndpoint::TERMINAL
                     ? ckpt::JobStdio::kTerminal
                     : ckpt::JobStdio::kPipes;
  }
  for (const job::RecordedFile& file : image->open_file()) {
    ckpt::OpenFileRecord r;
    r.path = file.path();
    r.bytes = file.size_bytes();
    r.mtime_ns = file.mtime_ns();
    manifest->open_files.push_back(std::move(r));
  }
}

void FillHostInfo(const Result<std::string>& criu, ckpt::Manifest* manifest) {
  ckpt::HostInfo& host = manifest->host;
  host.pos_version = kVersion;
  utsname name{};
  if (::uname(&name) == 0) {
    host.kernel = name.release;
    host.machine = name.machine;
    host.host = name.nodename;
  }
  FillCpu(&host);
  if (criu.ok()) {
    const Result<CriuVersion> version = GetCriuVersion(*criu);
    if (version.ok()) host.criu_version = version->ToString();
  }
}

void FillDevices(const JobRecord& record, const DeviceSnapshot& devices,
                 ckpt::Manifest* manifest) {
  for (std::size_t i = 0; i < record.devices.size(); ++i) {
    for (const NodeDevice& device : devices.devices) {
      if (device.ordinal != record.devices[i]) continue;
      ckpt::DeviceRecord r;
      r.ordinal = static_cast<std::uint32_t>(i);
      r.cc_major = device.compute_capability / 10;
      r.cc_minor = device.compute_capability % 10;
      r.multiprocessors = device.multiprocessors;
      r.memory_bytes = device.memory_bytes;
      r.kind = device.kind;
      r.name = device.name;
      r.architecture = "sm_" + std::to_string(device.compute_capability);
      manifest->devices.push_back(std::move(r));
    }
  }
}

void AttachSession(std::size_t number, const SessionRecordEntry& record,
                   const runner::Quiesced& quiesced, ckpt::Manifest* manifest) {
  Json granted = Json::array();
  for (const std::uint64_t bytes : quiesced.granted_bytes()) {
    granted.push_back(bytes);
  }
  const Json j{{"session", record.session},
               {"client_ns_pid", quiesced.client_ns_pid()},
               {"verdict_address", quiesced.verdict_address()},
               {"host_file", record.host_file},
               {"granted_bytes", std::move(granted)}};
  manifest->attachments.push_back({Name(number), j.dump()});
}

Result<SessionAttachment> ReadSession(std::size_t number,
                                      const ckpt::Manifest& manifest) {
  for (const ckpt::Attachment& attachment : manifest.attachments) {
    if (attachment.name != Name(number)) continue;
    try {
      const Json j = Json::parse(attachment.value);
      SessionAttachment s;
      j.at("session").get_to(s.session);
      j.at("client_ns_pid").get_to(s.client_ns_pid);
      j.at("verdict_address").get_to(s.verdict_address);
      j.at("host_file").get_to(s.host_file);
      j.at("granted_bytes").get_to(s.granted_bytes);
      return s;
    } catch (const std::exception& e) {
      return Corrupt("image: " + Name(number) + ": " + e.what());
    }
  }
  return Corrupt("image: nothing is known of session " +
                 std::to_string(number));
}

}  // namespace pos
