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

// Texts that may be any bytes.
struct Bytes {
  std::string* text;
};

// Fields that records of earlier versions do not have.
template <typename T>
struct Later {
  T* member;
};
template <typename T>
Later(T*) -> Later<T>;

// Every field, once: `visit(name, &member)`. Writer and reader follow from it.
template <typename Visit>
void VisitFields(SessionRecordEntry* s, const Visit& visit) {
  visit("session", &s->session);
  visit("runner", &s->runner);
  visit("client_pid", &s->client_pid);
  visit("client_ns_pid", &s->client_ns_pid);
  visit("verdict_address", &s->verdict_address);
  visit("host_file", &s->host_file);
}

template <typename Visit>
void VisitFields(JobRecord* r, const Visit& visit) {
  visit("name", &r->name);
  visit("uid", &r->uid);
  visit("gid", &r->gid);
  visit("cwd", Bytes{&r->cwd});
  visit("devices", &r->devices);
  visit("state", &r->state);
  visit("detached", &r->detached);
  visit("started_at", &r->started_at);
  visit("lineage", &r->lineage);
  visit("pid", &r->pid);
  visit("ns_pid", &r->ns_pid);
  visit("init_pid", &r->init_pid);
  visit("has_exit_code", &r->has_exit_code);
  visit("exit_code", &r->exit_code);
  visit("message", Bytes{&r->message});
  visit("image", &r->image);
  visit("pin", &r->pin);
  visit("epoch", &r->epoch);
  visit("end_after_checkpoint", &r->end_after_checkpoint);
  visit("next_session", &r->next_session);
  visit("series", Later{&r->series});
  visit("series_every_ms", Later{&r->series_every_ms});
  visit("series_keep", Later{&r->series_keep});
  visit("series_mode", Later{&r->series_mode});
  visit("series_next_at", Later{&r->series_next_at});
  visit("series_last_image", Later{&r->series_last_image});
  visit("series_last_error", Later{&r->series_last_error});
}

struct Writer {
  Json* json;
  template <typename T>
  void operator()(const char* name, const T* member) const {
    (*json)[name] = *member;
  }
  void operator()(const char* name, Bytes bytes) const {
    (*json)[name] = Pack(*bytes.text);
  }
  void operator()(const char* name, Later<std::string> later) const {
    (*json)[name] = Pack(*later.member);
  }
  template <typename T>
  void operator()(const char* name, Later<T> later) const {
    (*json)[name] = *later.member;
  }
};

struct Reader {
  const Json* json;
  template <typename T>
  void operator()(const char* name, T* member) const {
    json->at(name).get_to(*member);
  }
  void operator()(const char* name, Bytes bytes) const {
    *bytes.text = Unpack(json->at(name).get<std::string>());
  }
  void operator()(const char* name, Later<std::string> later) const {
    if (json->contains(name)) {
      *later.member = Unpack(json->at(name).get<std::string>());
    }
  }
  template <typename T>
  void operator()(const char* name, Later<T> later) const {
    if (json->contains(name)) json->at(name).get_to(*later.member);
  }
};

JobRecord DecodeFields(const Json& j) {
  JobRecord r;
  VisitFields(&r, Reader{&j});
  for (const Json& arg : j.at("argv")) {
    r.argv.push_back(Unpack(arg.get<std::string>()));
  }
  for (const Json& session : j.at("sessions")) {
    VisitFields(&r.sessions.emplace_back(), Reader{&session});
  }
  return r;
}

}  // namespace

std::string EncodeJobRecord(const JobRecord& record) {
  JobRecord r = record;
  Json j;
  VisitFields(&r, Writer{&j});
  Json argv = Json::array();
  for (const std::string& arg : r.argv) argv.push_back(Pack(arg));
  j["argv"] = std::move(argv);
  Json sessions = Json::array();
  for (SessionRecordEntry& s : r.sessions) {
    VisitFields(&s, Writer{&sessions.emplace_back()});
  }
  j["sessions"] = std::move(sessions);
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
