#include "pos/daemon/job_record.h"

#include <nlohmann/json.hpp>

namespace pos {
namespace {

using Json = nlohmann::json;

// Arguments and paths are bytes, JSON is UTF-8: what is not valid text is kept
// as hexadecimal behind a mark that no valid text of ours begins with.
constexpr char kHexMark = '\x01';

bool IsUtf8(const std::string& text) {
  try {
    [[maybe_unused]] const std::string dumped = Json(text).dump();
    return text.empty() || text[0] != kHexMark;
  } catch (const Json::exception&) {
    return false;
  }
}

std::string Pack(const std::string& bytes) {
  if (IsUtf8(bytes)) return bytes;
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text(1, kHexMark);
  for (const char c : bytes) {
    const auto b = static_cast<unsigned char>(c);
    text += kDigits[b >> 4];
    text += kDigits[b & 15];
  }
  return text;
}

std::string Unpack(const std::string& text) {
  if (text.empty() || text[0] != kHexMark) return text;
  std::string bytes;
  for (std::size_t i = 1; i + 1 < text.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

Json EncodeSession(const SessionRecordEntry& s) {
  return Json{{"session", s.session},
              {"runner", s.runner},
              {"client_pid", s.client_pid},
              {"client_ns_pid", s.client_ns_pid},
              {"verdict_address", s.verdict_address},
              {"host_file", s.host_file}};
}

SessionRecordEntry DecodeSession(const Json& j) {
  SessionRecordEntry s;
  j.at("session").get_to(s.session);
  j.at("runner").get_to(s.runner);
  j.at("client_pid").get_to(s.client_pid);
  j.at("client_ns_pid").get_to(s.client_ns_pid);
  j.at("verdict_address").get_to(s.verdict_address);
  j.at("host_file").get_to(s.host_file);
  return s;
}

JobRecord DecodeFields(const Json& j) {
  JobRecord r;
  j.at("name").get_to(r.name);
  j.at("uid").get_to(r.uid);
  j.at("gid").get_to(r.gid);
  for (const Json& arg : j.at("argv")) {
    r.argv.push_back(Unpack(arg.get<std::string>()));
  }
  r.cwd = Unpack(j.at("cwd").get<std::string>());
  j.at("devices").get_to(r.devices);
  j.at("state").get_to(r.state);
  j.at("detached").get_to(r.detached);
  j.at("started_at").get_to(r.started_at);
  j.at("lineage").get_to(r.lineage);
  j.at("pid").get_to(r.pid);
  j.at("ns_pid").get_to(r.ns_pid);
  j.at("init_pid").get_to(r.init_pid);
  j.at("has_exit_code").get_to(r.has_exit_code);
  j.at("exit_code").get_to(r.exit_code);
  j.at("message").get_to(r.message);
  j.at("image").get_to(r.image);
  for (const Json& s : j.at("sessions")) {
    r.sessions.push_back(DecodeSession(s));
  }
  j.at("epoch").get_to(r.epoch);
  j.at("end_after_checkpoint").get_to(r.end_after_checkpoint);
  j.at("next_session").get_to(r.next_session);
  return r;
}

}  // namespace

std::string EncodeJobRecord(const JobRecord& r) {
  Json argv = Json::array();
  for (const std::string& arg : r.argv) argv.push_back(Pack(arg));
  Json sessions = Json::array();
  for (const SessionRecordEntry& s : r.sessions) {
    sessions.push_back(EncodeSession(s));
  }
  const Json j{{"name", r.name},
               {"uid", r.uid},
               {"gid", r.gid},
               {"argv", std::move(argv)},
               {"cwd", Pack(r.cwd)},
               {"devices", r.devices},
               {"state", r.state},
               {"detached", r.detached},
               {"started_at", r.started_at},
               {"lineage", r.lineage},
               {"pid", r.pid},
               {"ns_pid", r.ns_pid},
               {"init_pid", r.init_pid},
               {"has_exit_code", r.has_exit_code},
               {"exit_code", r.exit_code},
               {"message", Pack(r.message)},
               {"image", r.image},
               {"sessions", std::move(sessions)},
               {"epoch", r.epoch},
               {"end_after_checkpoint", r.end_after_checkpoint},
               {"next_session", r.next_session}};
  return j.dump(1);
}

Result<JobRecord> DecodeJobRecord(const std::string& text) {
  // The library reports by exceptions; none leaves this function.
  try {
    return DecodeFields(Json::parse(text));
  } catch (const std::exception& e) {
    return Corrupt(std::string("job record: ") + e.what());
  }
}

}  // namespace pos
